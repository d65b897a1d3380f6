"""A model's card: what it takes, what it is, how it was trained and measured. Reads without torch."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from lenspipe.errors import ConfigError, ModelError
from lenspipe.toml import Table

CARD_FILE, WEIGHTS_FILE = "card.json", "weights.safetensors"
SHIPPED = Path(__file__).resolve().parents[1] / "weights"
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")


class Stretch(Table):
    """How surface brightness becomes network input (`lenspipe.nn.preprocess.network_input`)."""

    name: Literal["humvi", "asinh", "log", "linear"] = "humvi"
    """Rule: ``humvi`` keeps colours (`lenspipe.image.stretch.humvi_composite`); the others act on each channel."""
    band_scales: tuple[float, ...]
    """Multiplier of each band's surface brightness, (nJy / arcsec^2)^-1, in the order of the card's bands."""
    mix: tuple[tuple[float, ...], ...] | None = None
    """Rows of weights that turn the scaled bands into channels, before the stretch; null: a channel is a band."""
    alpha: float = Field(gt=0)
    """Slope at zero intensity."""
    q: float = Field(gt=0)
    """Strength of the compression of bright pixels; without effect for ``linear``."""
    standardise: bool = False
    """Subtract each stamp's mean and divide by its standard deviation, over all channels, after the stretch."""


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


class ModelCard(Table):
    """The facts of one checkpoint; ``card.json`` beside ``weights.safetensors``."""

    format_version: Literal[1] = 1
    """Version of this card's layout."""
    name: str
    """Name of the model."""
    family: str
    """Name of its network family in the registry (`lenspipe.nn.registry`)."""
    settings: dict[str, int | float | bool | str | list[int]] = {}
    """Settings that the family was built with."""
    task: Literal["find", "classify", "regress", "denoise"] = "find"
    """What comes out: ``find`` the logit of a lens at the stamp's centre, ``classify`` a logit a class, ``regress``
    values of `targets`, ``denoise`` an image of the same bands."""
    bands: tuple[str, ...] = Field(min_length=1)
    """Bands in the order of the input."""
    pixel_scale_arcsec: float = Field(gt=0)
    """Pixel scale of the input."""
    scale_tolerance: float = Field(ge=0, lt=1)
    """Relative difference in pixel scale that is accepted without resampling."""
    min_scale_arcsec: float = Field(gt=0)
    """Finest pixel scale of data that may be resampled to the input's."""
    max_scale_arcsec: float = Field(gt=0)
    """Coarsest pixel scale of data that may be resampled to the input's."""
    stamp_px: int = Field(ge=1)
    """Side of the input stamp. The scan takes odd ones only, so that the source lies in the central pixel."""
    stretch: Stretch
    """Stretch of the input."""
    classes: tuple[str, ...] = ("nonlens", "lens")
    """Names of the classes; for ``find`` the score grows with the last."""
    targets: tuple[str, ...] = ()
    """``regress``: columns of the data set that the network gives, in order."""
    target_means: tuple[float, ...] = ()
    """``regress``: mean of each target in training; the network gives (value - mean) / spread."""
    target_spreads: tuple[float, ...] = ()
    """``regress``: standard deviation of each target in training."""
    uncertainty: Literal["none", "gaussian"] = "none"
    """``regress``: ``gaussian`` adds the natural log of the variance of each scaled target after the values."""
    features: tuple[str, ...] = ()
    """Columns of numbers that the network takes beside the image (family ``hybrid``)."""
    feature_means: tuple[float, ...] = ()
    """Mean of each feature in training; taken off before the network."""
    feature_spreads: tuple[float, ...] = ()
    """Standard deviation of each feature in training; divided by before the network."""
    exposure_ratios: tuple[float, float] | None = None
    """``denoise``: least and largest ratio of exposure times that it was trained with."""
    sees: Literal["raw", "denoised", "both"] = "raw"
    """Whether a classifier takes stamps as they are, denoised, or both (raw bands first)."""
    training: dict[str, Any] = {}
    """Facts about the training: data, seed, steps, command."""
    metrics: dict[str, Any] = {}
    """What was measured, on what, with N and intervals."""
    calibration: Calibration | None = None
    """Map from score to probability; null where none was fitted."""
    abstention: Abstention | None = None
    """``classify``: when not to say a class; null where no rule was fitted."""
    licence: str = "BSD-3-Clause"
    """Licence of the weights."""
    weights_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """SHA-256 of the weights file; filled in on saving."""
    created: str = ""
    """Date of the checkpoint, ISO 8601."""

    @property
    def n_channel(self) -> int:
        """Channels of the network's input; a denoiser has one more, the exposure ratio."""
        once = len(self.stretch.mix) if self.stretch.mix is not None else len(self.bands)
        if self.task == "denoise":
            return once + 1
        return 2 * once if self.sees == "both" else once

    @property
    def n_out(self) -> int:
        """Numbers that the network gives for a stamp; for ``denoise`` its image bands."""
        return {
            "find": 1,
            "classify": len(self.classes),
            "regress": len(self.targets) * (2 if self.uncertainty == "gaussian" else 1),
            "denoise": len(self.bands),
        }[self.task]

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        if len(self.stretch.band_scales) != len(self.bands):
            raise ValueError("stretch.band_scales needs one value a band")
        if any(len(row) != len(self.bands) for row in self.stretch.mix or ()):
            raise ValueError("each row of stretch.mix needs one weight a band")
        if not self.min_scale_arcsec <= self.pixel_scale_arcsec <= self.max_scale_arcsec:
            raise ValueError("pixel_scale_arcsec must lie between min_scale_arcsec and max_scale_arcsec")
        if len({len(self.targets), len(self.target_means), len(self.target_spreads)}) > 1:
            raise ValueError("target_means and target_spreads need one value a target")
        if len({len(self.features), len(self.feature_means), len(self.feature_spreads)}) > 1:
            raise ValueError("feature_means and feature_spreads need one value a feature")
        if (self.task == "denoise") != (self.exposure_ratios is not None):
            raise ValueError("exposure_ratios belong to the task denoise, and it needs them")
        if self.exposure_ratios is not None and not 1 <= self.exposure_ratios[0] <= self.exposure_ratios[1]:
            raise ValueError("exposure_ratios are at least 1, the least first")
        if (self.task == "regress") != bool(self.targets):
            raise ValueError("targets belong to the task regress, and it needs them")
        return self


def read_card(folder: str | Path) -> ModelCard:
    """
    Read the card of a checkpoint folder.

    Raises
    ------
    ModelError
        The folder has no card, or the card is not valid JSON or not a valid card.
    """
    path = Path(folder) / CARD_FILE
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"not a model: {CARD_FILE} cannot be read ({error.strerror})", folder=str(folder)) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or CARD_FILE
        raise ModelError(f"the model's card is not valid: {where}: {first['msg']}", file=str(path)) from None


def write_card(folder: str | Path, card: ModelCard) -> None:
    """Write ``card.json``, indented, keys in the order of `ModelCard`."""
    text = json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    (Path(folder) / CARD_FILE).write_text(text + "\n", encoding="utf-8")


def digest(folder: str | Path) -> str:
    """
    Name of a checkpoint's exact content: first 16 hex digits of SHA-256 over card and weights.

    Raises
    ------
    ModelError
        Card or weights cannot be read.
    """
    total = hashlib.sha256()
    for name in (CARD_FILE, WEIGHTS_FILE):
        try:
            total.update(hashlib.sha256((Path(folder) / name).read_bytes()).digest())
        except OSError as error:
            raise ModelError(
                f"not a model: its {name} cannot be read ({error.strerror})", folder=str(folder)
            ) from error
    return total.hexdigest()[:16]


def shipped_models() -> list[str]:
    """Names of the models that ship with the package, sorted."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD_FILE}"))


def find_model(name_or_path: str | Path) -> Path:
    """
    Folder of a model given by the name of a shipped one or by its own path.

    Raises
    ------
    ModelError
        A pickle is offered: only a folder with a card and safetensors weights is a model.
    ConfigError
        Nothing is found under that name; the shipped names are listed.
    """
    path = Path(name_or_path)
    if path.suffix.lower() in PICKLES:
        raise ModelError(
            f"a pickle is never loaded: a model is a folder with {CARD_FILE} and {WEIGHTS_FILE}", got=str(path)
        )
    if (path / CARD_FILE).is_file():
        return path
    names = shipped_models()
    if str(name_or_path) in names:
        return SHIPPED / str(name_or_path)
    near = difflib.get_close_matches(str(name_or_path), names, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Shipped models: {', '.join(names) or 'none'}."
    raise ConfigError(f"no such model: neither a folder with {CARD_FILE} nor a shipped name. {hint}", got=str(path))


def verdict(card: ModelCard) -> Literal["none", "passed", "failed"]:
    """What the gate said of a denoiser (`lenspipe.evaluate.denoiser`); ``none`` where it was not asked."""
    gate = card.metrics.get("gate")
    return "none" if gate is None else "passed" if gate["passed"] else "failed"


def fits(card: ModelCard, bands: Sequence[str], pixel_scale_arcsec: float) -> str | None:
    """
    Whether data fit a model: None where they do, else the reason in words.

    The data may have more bands than the model, in any order; their pixel scale may differ within the card's limits,
    and is then resampled (`lenspipe.infer.prepare`).
    """
    if missing := [band for band in card.bands if band not in bands]:
        return f"{card.name} needs bands {' '.join(card.bands)}; {' '.join(missing)} not among {' '.join(bands)}"
    low, high = card.min_scale_arcsec, card.max_scale_arcsec
    if not low <= pixel_scale_arcsec <= high:
        return f'{card.name} takes pixels of {low:g}" to {high:g}", the data have {pixel_scale_arcsec:g}"'
    return None
