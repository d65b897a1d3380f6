"""Every knob of a scan and of its catalogue, typed and validated, unit in the name. Defaults live here only."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, field_validator, model_serializer

from lenspipe import plugins
from lenspipe.toml import Table


class ShardConfig(Table):
    """How tiles are cut into shards."""

    core_px: int = Field(default=2048, ge=64, le=16384)
    """Side of a shard's core, pixels; rounded up to the background mesh. A worker holds one window at a time."""
    halo_px: int = Field(default=128, ge=0, le=2048)
    """Border read around the core, so that sources near its edge are measured and cut out whole, pixels."""


class BackgroundConfig(Table):
    """The sky background."""

    mesh_px: int = Field(default=64, ge=8, le=1024)
    """Size of a mesh cell, pixels."""
    filter_mesh: int = Field(default=3, ge=1, le=15)
    """Width of the median filter over the mesh, cells."""


class DetectConfig(Table):
    """Detection of sources."""

    detector: str = Field(default="sep", json_schema_extra={"enum": ["sep", "photutils"]})
    """SEP, or photutils' segmentation: slower by ten times and more, and independent of SEP. Or another package's."""

    @field_validator("detector")
    @classmethod
    def _known_detector(cls, name: str) -> str:
        known = ("sep", "photutils", *plugins.entries(plugins.DETECTORS))
        if name not in known:
            raise ValueError(f"no such detector; known: {', '.join(known)}")
        return name

    image: str = "sum"
    """Band to detect on, or ``sum``: the inverse-variance weighted sum of all bands."""
    threshold_sigma: float = Field(default=1.5, gt=0)
    """Threshold above the background, in units of its noise."""
    min_area_px: int = Field(default=5, ge=1)
    """Fewest connected pixels above the threshold."""
    deblend_levels: int = Field(default=32, ge=1)
    """Number of thresholds for deblending."""
    deblend_contrast: float = Field(default=0.005, ge=0, le=1)
    """Smallest fraction of the flux that makes a component a source of its own; 1 deblends nothing."""


class SelectConfig(Table):
    """Which sources become candidates: each is cut out, scored, and a row of the result."""

    band: str = "auto"
    """Band of the magnitude limits; ``auto`` takes the first of i, I, VIS, F814W, r, z, ... that the tile has."""
    mag_min: float | None = None
    """Bright limit, AB."""
    mag_max: float | None = 24.5
    """Faint limit, AB. Deflectors are far brighter in wide surveys: 22.5 makes a scan three times as fast."""
    half_light_radius_min_arcsec: float | None = Field(default=None, ge=0)
    """Smallest half-light radius."""
    half_light_radius_max_arcsec: float | None = Field(default=None, gt=0)
    """Largest half-light radius."""
    colour: dict[str, tuple[float, float]] = {}
    """Allowed range of colours, for example ``g-r = [0.4, 2.5]``."""
    star_cut: float = Field(default=3.0, ge=0)
    """Drop sources that are no larger than the stars of their own shard's window: half-light radius up to this many
    standard deviations above the measured stellar locus; 0 keeps all. Where a window has too few stars, sources smaller
    than 0.9 times half the sharpest FWHM that the survey's layout states are dropped, and the summary warns."""
    star_purity_min: float = Field(default=0.5, ge=0, le=1)
    """Stars are dropped down to the brightness at which galaxies, by the density of sizes just above the locus, would
    be more than the rest of what is dropped."""
    mask_fraction_max: float = Field(default=0.5, ge=0, le=1)
    """Drop sources of which more than this is masked."""

    @field_validator("colour")
    @classmethod
    def _colour_keys(cls, colour: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for key, (low, high) in colour.items():
            if key.count("-") != 1 or not all(key.split("-")):
                raise ValueError(f"a colour is written like g-r, got {key!r}")
            if not low < high:
                raise ValueError(f"the range of {key} is empty: [{low}, {high}]")
        return colour


class ScoreConfig(Table):
    """Scoring of candidates by a model."""

    model: str | tuple[str, ...] = "auto"
    """Name of a shipped model, folder of a checkpoint or of a committee, ``auto`` for a shipped one that fits the
    bands, ``none``; a list of at least two models scores as a committee."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; ``auto`` takes a GPU where the worker has one."""
    engine: Literal["torch", "onnx"] = "torch"
    """What runs the finder: torch, or ONNX Runtime on CPUs (needs ``lenspipe[onnx]``); scores agree to 1e-5."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Numbers that the finder's convolutions and products are of, by torch. The narrower ones are for GPUs, and
    bfloat16 for CPUs with instructions for it (AMX), which score three times as fast; other CPUs are slower. Of the
    shipped ``ground-gri`` they move a logit by 0.05 (bfloat16) or 0.005 (float16) at most."""
    batch_size: int | None = Field(default=None, ge=1)
    """Stamps in a batch; the model's own choice for the device where absent."""
    denoiser: str = "none"
    """Denoiser that cutouts go through before the model: a shipped one, the folder of a checkpoint, or ``none``."""
    denoise_ratio: float = Field(default=4.0, ge=1)
    """Exposure time over the tile's that the denoiser is asked for."""
    prior: float | None = Field(default=None, gt=0, lt=1)
    """Fraction of lenses among the candidates, which ``probability`` assumes; where absent, the lenses that the layout
    expects (``lenses_per_deg2``) over the run's candidates, and no probability where it does not say. Needs a
    calibrated model."""
    shards_per_call: int = Field(default=4, ge=1)
    """Shards whose rows are committed together, as one part."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In JSON engine and precision are left out where they are torch and float32: older runs can be resumed."""
        whole: dict[str, Any] = handler(self)
        if info.mode == "json":
            before = {"engine": "torch", "precision": "float32"}
            whole = {name: value for name, value in whole.items() if name not in before or before[name] != value}
        return whole


class SubstructureConfig(Table):
    """Dark matter in the candidates that look like lenses."""

    models: tuple[str, ...] = ()
    """Checkpoints: a classifier of substructure, a regression of its parameters, or both; none where empty."""
    above: float = Field(default=0.5, ge=0, le=1)
    """Probability to be a lens from which a candidate is looked at, at ``score.prior``, or at the prior of the model's
    calibration where none is stated; 0 looks at all, and needs no calibration."""


class AnomalyConfig(Table):
    """How unlike normal stamps candidates are."""

    model: str | None = None
    """Checkpoint of task anomaly; none where absent."""
    above: float | None = Field(default=None, ge=0, le=1)
    """Probability to be a lens from which a candidate is looked at; where absent that of `substructure` where there
    are models of it, so that both look at the same candidates, else 0, which is all."""


class ScanConfig(Table):
    """A whole scan."""

    shard: ShardConfig = ShardConfig()
    background: BackgroundConfig = BackgroundConfig()
    detect: DetectConfig = DetectConfig()
    select: SelectConfig = SelectConfig()
    score: ScoreConfig = ScoreConfig()
    substructure: SubstructureConfig = SubstructureConfig()
    embedder: str | None = None
    """Checkpoint of task embed, whose vector of each candidate is kept in ``embeddings.parquet``; none where absent."""
    anomalies: AnomalyConfig = AnomalyConfig()
    zero_point_ab: float | None = None
    """Zero-point assumed for images whose header and layout give none; recorded as an assumption."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In JSON what was not there once is left out where it is not said: older runs can be resumed."""
        whole: dict[str, Any] = handler(self)
        if info.mode == "json":
            unsaid = {"embedder"} & {name for name, value in whole.items() if value is None}
            unsaid |= {"anomalies"} if self.anomalies == AnomalyConfig() else set()
            whole = {name: value for name, value in whole.items() if name not in unsaid}
        return whole


class CatalogSettings(Table):
    """How detections become objects, and what they are matched with."""

    radius_arcsec: float = Field(default=1.0, gt=0, lt=3600)
    """Radius within which detections of different shards are one object."""
    acronym: str = "LPC"
    """Leading word of the names."""
    lists: tuple[str, ...] = ("lenscat",)
    """Lists of known lenses: ``lenscat``, which is shipped, and files; none where empty."""
    contaminants: tuple[str, ...] = ()
    """Files of published contaminants (quasar pairs, stars ...); a row near one is flagged with its name and source."""
    match_radius_arcsec: float = Field(default=2.0, gt=0, lt=3600)
    """Radius of a match with a known lens or a contaminant."""
    trained_on: str | None = None
    """List of positions used in training, left out of the recall."""
