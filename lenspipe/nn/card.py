"""A model's card: what it takes, what it is, how it was trained and measured. Reads without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from lenspipe.errors import ConfigError, ModelError, did_you_mean
from lenspipe.nn.fitted import SmoothFit
from lenspipe.nn.outputs import Find, Outputs, nested
from lenspipe.rundir import write_json
from lenspipe.store.copies import local_folder
from lenspipe.toml import Table

CARD_FILE, WEIGHTS_FILE = "card.json", "weights.safetensors"
TRAINING_SET_FILE = "training_set.safetensors"
CHECKPOINT_FILES = (CARD_FILE, WEIGHTS_FILE, TRAINING_SET_FILE)
"""All that a checkpoint may hold; `files_of` is what one does."""
SHIPPED = Path(__file__).resolve().parents[1] / "weights"
MAX_AMOUNTS = {"n_parameter": 10**9, "n_multiply_add": 10**13}
"""Settings that are no side of anything but a whole network's amount, from which its width follows."""
MAX_SIZE = 8192
"""Largest number that a card may have for a side, a width or a depth: checked before anything is allocated."""
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")


class Stretch(Table):
    """How surface brightness becomes network input (`lenspipe.nn.preprocess.network_input`)."""

    name: Literal["humvi", "asinh", "log", "sqrt", "linear"] = "humvi"
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
    smooth_residual: bool = False
    """Whether a further channel per band has what a fitted smooth lens leaves (`lenspipe.nn.smooth_lens`)."""
    high_pass_px: float = Field(default=0.0, ge=0)
    """Sigma of a Gaussian; each channel, stretched, less its blur by it. 0: as it is."""
    high_pass_beside: bool = False
    """Whether the channels as they are come first and those less their blur after them."""
    channel_scales: tuple[float, ...] | None = None
    """Multiplier of each channel, last of all; null: none."""

    @model_validator(mode="after")
    def _of_bands(self) -> Stretch:
        if self.smooth_residual and (self.mix is not None or self.name == "humvi"):
            raise ValueError("smooth_residual is of single bands: it goes with neither mix nor humvi")
        if self.high_pass_beside and not self.high_pass_px:
            raise ValueError("high_pass_beside needs high_pass_px")
        if self.channel_scales is not None:
            if self.standardise:
                raise ValueError("standardise scales each stamp: it does not go with channel_scales")
            if len(self.channel_scales) != self.n_channel:
                raise ValueError(f"{len(self.channel_scales)} channel_scales for {self.n_channel} channels")
            if not min(self.channel_scales) > 0:
                raise ValueError(f"channel_scales must be positive: {self.channel_scales}")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What came later is left out where it is not used, so that older cards keep their digests."""
        later = ("smooth_residual", "high_pass_px", "high_pass_beside", "channel_scales")
        return {key: value for key, value in handler(self).items() if key not in later or value}

    @property
    def n_channel(self) -> int:
        """Channels that it makes of the bands."""
        once = len(self.mix) if self.mix is not None else len(self.band_scales)
        return once * (1 + self.smooth_residual) * (1 + self.high_pass_beside)


class TrainingSet(Table):
    """What is kept of a training set beside the weights (`lenspipe.infer.training_set`)."""

    n: int = Field(ge=1)
    """Stamps that it was learnt from."""
    n_held_out: int = Field(ge=1)
    """Held-out stamps that a stamp's distance is compared with."""
    data: str
    """What those stamps were."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file."""


ADDED = ("training_set", "neighbours", "fitted")
"""Fields that came later."""


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
    outputs: Outputs = Find()
    """What comes out (`lenspipe.nn.outputs`); its fields stand beside the others in the file."""
    bands: tuple[str, ...] = Field(min_length=1)
    """Bands in the order of the input."""
    neighbours: dict[str, tuple[str, ...]] = {}
    """Bands of a survey that may stand in for one of `bands` where a finder learns on from this one, best first."""
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
    features: tuple[str, ...] = ()
    """Columns of numbers that the network takes beside the image (family ``hybrid``)."""
    feature_means: tuple[float, ...] = ()
    """Mean of each feature in training; taken off before the network."""
    feature_spreads: tuple[float, ...] = ()
    """Standard deviation of each feature in training; divided by before the network."""
    sees: Literal["raw", "denoised", "both"] = "raw"
    """Whether a classifier takes stamps as they are, denoised, or both (raw bands first)."""
    training: dict[str, Any] = {}
    """Facts about the training: data, seed, steps, command."""
    metrics: dict[str, Any] = {}
    """What was measured, on what, with N and intervals."""
    training_set: TrainingSet | None = None
    """What is kept of the training set, by which a scan says how unlike it a stamp is; null where nothing is."""
    fitted: SmoothFit | None = None
    """The fit that made one of `bands`, as `lenspipe stamps fit` did, and a scan does; null where all are data."""
    licence: str = "BSD-3-Clause"
    """Licence of the weights."""
    weights_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """SHA-256 of the weights file; filled in on saving."""
    created: str = ""
    """Date of the checkpoint, ISO 8601."""

    @property
    def task(self) -> str:
        """Name of the task, for people; code asks for the class of `outputs`."""
        return self.outputs.task

    @property
    def data_bands(self) -> tuple[str, ...]:
        """`bands` as data have them: without the one that a fit makes, and with the one that is fitted."""
        if self.fitted is None:
            return self.bands
        return tuple(dict.fromkeys((*(b for b in self.bands if b not in self.fitted.made), self.fitted.band)))

    @property
    def n_channel(self) -> int:
        """Channels of the network's input."""
        once = self.stretch.n_channel
        return (2 * once if self.sees == "both" else once) + self.outputs.n_extra_channel

    @property
    def n_out(self) -> int:
        """Numbers that the network gives for a stamp; of an image its bands."""
        return self.outputs.n_out(len(self.bands))

    def with_outputs(self, **facts: Any) -> ModelCard:
        """The same card with other facts of its outputs, such as ``calibration``."""
        return self.model_copy(update={"outputs": self.outputs.model_copy(update=facts)})

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, values: Any) -> Any:
        return nested(values) if isinstance(values, dict) else values

    @model_serializer(mode="wrap")
    def _flat(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {
            key: value
            for name, whole in handler(self).items()
            if name not in ADDED or whole  # left out where empty, so that older cards keep their digests
            for key, value in (whole.items() if name == "outputs" else [(name, whole)])
        }

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        sizes = {"stamp_px": self.stamp_px, "bands": len(self.bands), **_sizes(self.settings)}
        if large := [f"{name} = {size}" for name, size in sizes.items() if size > MAX_AMOUNTS.get(name, MAX_SIZE)]:
            raise ValueError(f"a size above {MAX_SIZE}, which no network here has: {large[0]}")
        if self.fitted is not None and not set(self.fitted.made) & set(self.bands):
            raise ValueError(f"fitted makes {', '.join(self.fitted.made)}, none of which is among the bands")
        if len(self.stretch.band_scales) != len(self.bands):
            raise ValueError("stretch.band_scales needs one value per band")
        if unknown := [band for band in self.neighbours if band not in self.bands]:
            raise ValueError(f"neighbours names {unknown[0]}, which is not among the bands")
        if doubled := [one for more in self.neighbours.values() for one in more if one in self.bands]:
            raise ValueError(f"a neighbour stands in for a band of others: {doubled[0]} is among the bands")
        if any(len(row) != len(self.bands) for row in self.stretch.mix or ()):
            raise ValueError("each row of stretch.mix needs one weight a band")
        if not self.min_scale_arcsec <= self.pixel_scale_arcsec <= self.max_scale_arcsec:
            raise ValueError("pixel_scale_arcsec must lie between min_scale_arcsec and max_scale_arcsec")
        if len({len(self.features), len(self.feature_means), len(self.feature_spreads)}) > 1:
            raise ValueError("feature_means and feature_spreads need one value a feature")
        return self


def _sizes(settings: Mapping[str, Any]) -> dict[str, float]:
    """Sizes among the settings of a family: its numbers, and the lengths of its lists."""
    found: dict[str, float] = {}
    for name, value in settings.items():
        if isinstance(value, list):
            found |= {name: max(map(abs, value), default=0), f"length of {name}": len(value)}
        elif isinstance(value, int | float):
            found[name] = abs(value)
    return found


def read_card(folder: str | Path) -> ModelCard:
    """
    Read the card of a checkpoint folder.

    Raises
    ------
    ModelError
        The folder has no card, or the card is not valid JSON or not a valid card.
    """
    path = local_folder(folder) / CARD_FILE
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"not a model: {CARD_FILE} cannot be read ({error.strerror})", folder=str(folder)) from error
    except ValidationError as error:
        first = error.errors()[0]
        loc = first["loc"][2:] if first["loc"][:1] == ("outputs",) else first["loc"]  # the file keeps them flat
        where = ".".join(str(part) for part in loc) or CARD_FILE
        raise ModelError(f"the model's card is not valid: {where}: {first['msg']}", file=str(path)) from None


def files_of(card: ModelCard) -> tuple[str, ...]:
    """Files of a checkpoint in the order in which they are copied: the card last, which makes a folder a model."""
    return (WEIGHTS_FILE, *([TRAINING_SET_FILE] if card.training_set else []), CARD_FILE)


def write_card(folder: str | Path, card: ModelCard) -> None:
    """Write ``card.json`` atomically, indented, keys in the order of `ModelCard`."""
    write_json(Path(folder) / CARD_FILE, card.model_dump(mode="json"), ensure_ascii=False)


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
            content = (Path(folder) / name).read_bytes()
        except OSError as error:
            raise ModelError(
                f"not a model: its {name} cannot be read ({error.strerror})", folder=str(folder)
            ) from error
        total.update(hashlib.sha256(_said(content) if name == CARD_FILE else content).digest())
    return total.hexdigest()[:16]


def _said(card: bytes) -> bytes:
    """The bytes of a card without ``neighbours``, which say where a model may be used and nothing of what it says."""
    if b'"neighbours"' not in card:
        return card
    try:
        facts = json.loads(card)
    except ValueError:
        return card
    facts.pop("neighbours", None)
    return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()


def shipped_models() -> list[str]:
    """Names of the models that ship with the package, sorted."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD_FILE}"))


def find_model(name_or_path: str | Path) -> Path:
    """
    Folder of a model given by the name of a shipped one, by its own path, or by a URL, of which it is the copy here.

    Raises
    ------
    ModelError
        A pickle is offered: only a folder with a card and safetensors weights is a model.
    ConfigError
        Nothing is found under that name; the shipped names are listed.
    """
    path = local_folder(name_or_path)
    if path.suffix.lower() in PICKLES:
        raise ModelError(
            f"a pickle is never loaded: a model is a folder with {CARD_FILE} and {WEIGHTS_FILE}", got=str(path)
        )
    if (path / CARD_FILE).is_file():
        return path
    names = shipped_models()
    if str(name_or_path) in names:
        return SHIPPED / str(name_or_path)
    hint = did_you_mean(str(name_or_path), names) or f"Shipped models: {', '.join(names) or 'none'}."
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
        if card.fitted is not None and set(missing) <= set(card.fitted.made) and card.fitted.band in bands:
            return (
                f"{card.name} needs what a fitted smooth lens leaves, and {missing[0]} is not among {' '.join(bands)}; "
                "run `lenspipe stamps fit STAMPS --like MODEL --out NEW`"
            )
        return f"{card.name} needs bands {' '.join(card.bands)}; {' '.join(missing)} not among {' '.join(bands)}"
    low, high = card.min_scale_arcsec, card.max_scale_arcsec
    if not low <= pixel_scale_arcsec <= high:
        return f'{card.name} takes pixels of {low:g}" to {high:g}", the data have {pixel_scale_arcsec:g}"'
    return None
