"""What a network gives: one class per task, with how many numbers it gives and how they are read. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from lenspipe.errors import ModelError
from lenspipe.toml import Table

Array = NDArray[np.float64]


class Calibration(Table):
    """Map from a model's score to a probability, and what it was fitted on (`lenspipe.stats.calibrate`)."""

    method: Literal["platt", "temperature", "isotonic"]
    """``platt`` and ``temperature`` act on the log odds of the score, ``isotonic`` on the score."""
    slope: float = 1.0
    """``platt``: slope on the log odds; ``temperature``: one over the temperature."""
    intercept: float = 0.0
    """``platt``: intercept on the log odds."""
    scores: tuple[float, ...] = ()
    """``isotonic``: knots, rising."""
    probabilities: tuple[float, ...] = ()
    """``isotonic``: probability at each knot; linear between them, flat outside."""
    prior: float = Field(gt=0, lt=1)
    """Fraction of lenses among the stamps it was fitted on; a survey's own prior replaces it by the odds."""
    n_lens: int = Field(ge=1)
    """Lenses it was fitted on."""
    n_other: int = Field(ge=1)
    """Stamps of all else it was fitted on."""
    data: str
    """What those stamps were."""


class Abstention(Table):
    """When a classifier does not say which class it sees (`lenspipe.infer.abstain`)."""

    least_snr: float = Field(ge=0)
    """Signal-to-noise of the stamp's light, all bands and pixels together, below which it abstains."""
    least_radius_arcsec: float = Field(ge=0)
    """Radius of the light, weighted by signal-to-noise squared, below which it abstains: of arcs, nearly theta_E."""
    widest_psf_arcsec: dict[str, float] = {}
    """By band: FWHM of the PSF above which it abstains, the widest of the training."""
    least_confidence: float | None = Field(default=None, ge=0, le=1)
    """Highest class probability below which it abstains; null where no threshold gave the accuracy: always."""
    accuracy: float = Field(gt=0, le=1)
    """Accuracy that was asked of what is kept."""
    n: int = Field(ge=1)
    """Stamps that the rule was fitted on."""
    data: str
    """What those stamps were."""


@dataclass(frozen=True)
class Prediction:
    """
    What a model says of n stamps; the arrays that its task gives.

    Attributes
    ----------
    score : array (n,), optional
        ``find``: raw score, 0 to 1.
    probability : array (n, class), optional
        ``classify``: softmax over the card's classes.
    value, sigma : arrays (n, target), optional
        ``regress``: estimates of the card's targets, and their standard deviation where the model states one.
    embedding : array (n, size), optional
        ``embed``: what describes a stamp, of length 1.
    error, false_positive_rate : arrays (n,), optional
        ``anomaly``: how unlike the normal stamps one is, and the part of these that is as unlike.

    ``cluster`` gives ``probability`` too, over its clusters.
    """

    score: Array | None = None
    probability: Array | None = None
    value: Array | None = None
    sigma: Array | None = None
    embedding: Array | None = None
    error: Array | None = None
    false_positive_rate: Array | None = None


class Find(Table):
    """The logit of a lens at the stamp's centre."""

    task: Literal["find"] = "find"
    """Name of the task."""
    classes: tuple[str, ...] = ("nonlens", "lens")
    """Names of the classes; the score grows with the last."""
    calibration: Calibration | None = None
    """Map from score to probability; null where none was fitted."""
    n_extra_channel: ClassVar[int] = 0

    def n_out(self, n_band: int) -> int:
        """One logit."""
        return 1

    def read(self, outputs: Array) -> Prediction:
        """Logits ``(n, 1)`` as scores ``(n,)``."""
        from scipy.special import expit  # 0.4 s, which a command that only reads cards must not wait for

        return Prediction(score=expit(outputs[:, 0]))


class Classify(Table):
    """A logit per class."""

    task: Literal["classify"] = "classify"
    """Name of the task."""
    classes: tuple[str, ...] = ("nonlens", "lens")
    """Names of the classes, in the order of the logits."""
    abstention: Abstention | None = None
    """When not to say a class; null where no rule was fitted."""
    n_extra_channel: ClassVar[int] = 0

    def n_out(self, n_band: int) -> int:
        """As many as there are classes."""
        return len(self.classes)

    def read(self, outputs: Array) -> Prediction:
        """Logits ``(n, class)`` as probabilities."""
        from scipy.special import softmax

        return Prediction(probability=softmax(outputs, axis=1))


class Regress(Table):
    """Values of columns of the data set."""

    task: Literal["regress"] = "regress"
    """Name of the task."""
    targets: tuple[str, ...] = Field(min_length=1)
    """Columns of the data set that the network gives, in order."""
    target_means: tuple[float, ...]
    """Mean of each target in training; the network gives (value - mean) / spread."""
    target_spreads: tuple[float, ...]
    """Standard deviation of each target in training."""
    uncertainty: Literal["none", "gaussian"] = "none"
    """``gaussian`` adds the natural log of the variance of each scaled target after the values."""
    n_extra_channel: ClassVar[int] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Regress:
        if len({len(self.targets), len(self.target_means), len(self.target_spreads)}) > 1:
            raise ValueError("target_means and target_spreads need one value per target")
        return self

    def n_out(self, n_band: int) -> int:
        """A value per target, and a variance where it is predicted."""
        return len(self.targets) * (2 if self.uncertainty == "gaussian" else 1)

    def read(self, outputs: Array) -> Prediction:
        """Scaled values ``(n, n_out)`` as values and standard deviations in the targets' own units."""
        n, spread = len(self.targets), np.array(self.target_spreads)
        value = outputs[:, :n] * spread + np.array(self.target_means)
        sigma = np.exp(outputs[:, n:] / 2) * spread if self.uncertainty == "gaussian" else None
        return Prediction(value=value, sigma=sigma)


class Image(Table):
    """What a task gives that makes images."""

    def n_out(self, n_band: int) -> int:
        """A plane per band."""
        return n_band

    def read(self, outputs: Array) -> Prediction:
        """Raise `ModelError`: an image is not read as numbers per stamp."""
        raise ModelError("the model gives an image, and no numbers per stamp")


class Denoise(Image):
    """An image of the same bands, as a longer exposure would show it."""

    task: Literal["denoise"] = "denoise"
    """Name of the task."""
    exposure_ratios: tuple[float, float]
    """Least and largest ratio of exposure times that it was trained with."""
    n_extra_channel: ClassVar[int] = 1
    """The exposure ratio is a plane of the input."""

    @model_validator(mode="after")
    def _consistent(self) -> Denoise:
        if not 1 <= self.exposure_ratios[0] <= self.exposure_ratios[1]:
            raise ValueError("exposure_ratios are at least 1, the least first")
        return self


class Embed(Table):
    """A vector that describes a stamp: alike stamps have alike directions."""

    task: Literal["embed"] = "embed"
    """Name of the task."""
    size: int = Field(ge=2)
    """Numbers of the vector."""
    method: str
    """How it was learnt (`lenspipe.learn.objectives.METHODS`)."""
    n_extra_channel: ClassVar[int] = 0

    def n_out(self, n_band: int) -> int:
        """As many as the vector has."""
        return self.size

    def read(self, outputs: Array) -> Prediction:
        """Vectors ``(n, size)`` of length 1; one of zeros stays as it is."""
        length = np.linalg.norm(outputs, axis=1, keepdims=True)
        return Prediction(embedding=outputs / np.where(length > 0, length, 1.0))


class Anomaly(Table):
    """How unlike the normal stamps of its training a stamp is."""

    task: Literal["anomaly"] = "anomaly"
    """Name of the task."""
    normal: tuple[str, ...] = ()
    """Labels that it was trained on; everything where empty."""
    errors: tuple[float, ...] = ()
    """Errors of held-out normal stamps, rising: all, or as many quantiles of them."""
    n_normal: int = Field(default=0, ge=0)
    """How many stamps those were."""
    logit: bool = False
    """Whether the network gives a logit, of which the error is ``ln(1 + exp(logit))``."""
    n_extra_channel: ClassVar[int] = 0

    def n_out(self, n_band: int) -> int:
        """One error, or a logit."""
        return 1

    def rate_above(self, error: Array) -> Array:
        """
        Part of normal stamps with as large an error ``(n,)``, as of n + 1 of which the stamp is one.

        So it is never 0: one over ``n_normal + 1`` where none is as large.
        """
        as_large = 1 - np.searchsorted(np.array(self.errors), error, side="left") / max(1, len(self.errors))
        return np.asarray((1 + self.n_normal * as_large) / (1 + self.n_normal))

    def read(self, outputs: Array) -> Prediction:
        """Errors ``(n, 1)``, or logits, and the rate at which normal stamps have as large ones."""
        error = np.logaddexp(0, outputs[:, 0]) if self.logit else outputs[:, 0]
        return Prediction(error=error, false_positive_rate=self.rate_above(error))


class Generate(Image):
    """A stamp that was not taken, as one of its training might look; of a class and with numbers that are asked for."""

    task: Literal["generate"] = "generate"
    """Name of the task."""
    classes: tuple[str, ...] = Field(min_length=1)
    """Labels of its training, one of which every stamp gets."""
    shares: tuple[float, ...]
    """Part of the training stamps that has each."""
    targets: tuple[str, ...] = ()
    """Columns of numbers that can be asked for."""
    target_means: tuple[float, ...] = ()
    """Mean of each in training; the network is told (value - mean) / spread."""
    target_spreads: tuple[float, ...] = ()
    """Standard deviation of each in training."""
    drawn: tuple[tuple[float | None, ...], ...] = ()
    """Number of the class and numbers of some training stamps, from which those of a new one are drawn."""
    n_extra_channel: ClassVar[int] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Generate:
        if len({len(self.targets), len(self.target_means), len(self.target_spreads)}) > 1:
            raise ValueError("target_means and target_spreads need one value per target")
        if len(self.shares) != len(self.classes):
            raise ValueError("shares needs one value per class")
        return self

    @property
    def n_condition(self) -> int:
        """Numbers that tell the network what is asked for."""
        return (len(self.classes) if len(self.classes) > 1 else 0) + 2 * len(self.targets)

    def condition(self, label: NDArray[np.integer], scaled: NDArray[np.floating]) -> NDArray[np.float32]:
        """
        What the network is told of each stamp ``(n, n_condition)``.

        The class, one number each, where there are several; then each target, 0 where it is missing; then whether it
        is there.

        Parameters
        ----------
        label : array (n,)
            Number of the class.
        scaled : array (n, target)
            Targets less their mean, over their spread; NaN where missing.
        """
        there = np.isfinite(scaled)
        classes = label[:, None] == np.arange(len(self.classes))
        parts = [classes] if len(self.classes) > 1 else []
        return np.concatenate([*parts, np.where(there, scaled, 0.0), there], axis=1).astype(np.float32)


class Cluster(Table):
    """A logit per cluster that was found without labels."""

    task: Literal["cluster"] = "cluster"
    """Name of the task."""
    size: int = Field(ge=2)
    """Clusters."""
    method: str
    """How they were found (`lenspipe.learn.objectives.METHODS`)."""
    n_extra_channel: ClassVar[int] = 0

    def n_out(self, n_band: int) -> int:
        """As many as there are clusters."""
        return self.size

    def read(self, outputs: Array) -> Prediction:
        """Logits ``(n, cluster)`` as probabilities."""
        from scipy.special import softmax

        return Prediction(probability=softmax(outputs, axis=1))


def unlikeness(error: Array) -> Array:
    """An error, 0 and more, as a score from 0 to 1 of the same order: ``error / (1 + error)``."""
    return error / (1 + error)


Outputs = Annotated[
    Find | Classify | Regress | Denoise | Embed | Anomaly | Cluster | Generate, Field(discriminator="task")
]
KINDS: dict[str, type[Any]] = {kind.model_fields["task"].default: kind for kind in get_args(get_args(Outputs)[0])}
"""Class of each task's outputs by the task's name."""
TASKS: tuple[str, ...] = tuple(KINDS)
"""Names of all tasks."""


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """
    Facts of a card with what belongs to its outputs gathered under ``outputs``; the card's file keeps them flat.

    Cards of before there were classes per task state every task's fields, those of other tasks empty.

    Raises
    ------
    ValueError
        A field of another task says something.
    """
    if "outputs" in values:
        return values
    task = values.get("task", TASKS[0])
    # an unknown task is refused by the union, which lists the known ones
    kind = KINDS.get(task, Find) if isinstance(task, str) else Find
    own = {"task": task}
    rest = {}
    others = {name for other in KINDS.values() for name in other.model_fields} - set(kind.model_fields)
    for name, value in values.items():
        if name in kind.model_fields:
            own[name] = value
        elif name not in others:
            rest[name] = value
        elif value not in (None, "none", (), []) and not (name == "classes" and list(value) == ["nonlens", "lens"]):
            raise ValueError(f"{name} does not belong to the task {task}")
    return {**rest, "outputs": own}
