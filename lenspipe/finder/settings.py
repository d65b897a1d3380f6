"""Settings of a finder that a survey teaches, typed; read from TOML by the commands."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator

from lenspipe.errors import did_you_mean
from lenspipe.learn.settings import AugmentSettings, OptimSettings, SamplingSettings, TrainSettings
from lenspipe.toml import Table


class HostSettings(Table):
    """Which of a run's sources carry arcs, and which stand for everything else."""

    mag_min: float = 15.5
    """AB magnitude of the brightest hosts, in the band of the run's magnitude limits."""
    mag_max: float | None = None
    """Magnitude of the faintest; three magnitudes above the survey's own depth (5 sigma in 2 arcsec) where null."""
    colour_bands: tuple[str, ...] = ()
    """Two bands, blue first, whose colour tells early types; where empty g and i, else the widest of the optical."""
    colour_min: float | None = None
    """Bluest colour of a host; measured from the run's own red sequence where null."""
    radius_min_arcsec: float | None = Field(default=None, ge=0)
    """Least half-light radius of a host; what the survey's own stars leave resolved where null."""
    radius_max_arcsec: float = Field(default=4.0, gt=0)
    """Largest half-light radius of a host."""
    axis_ratio_min: float = Field(default=0.4, ge=0, le=1)
    """Flatter ones are discs seen from the side."""
    asymmetry_max: float = Field(default=0.25, gt=0)
    """Hosts of whose light within 3 arcsec more than this part changes under a turn by 180 degrees are blends."""
    flat_top_px: int = Field(default=7, ge=2)
    """So many pixels within 3 % of the peak are a saturated core."""
    max_hosts: int = Field(default=4000, ge=1)
    """Hosts that are cut out; a random part where there are more."""
    max_negatives: int = Field(default=6000, ge=1)
    """Other sources that are cut out, half of them the brightest of their kind, the others at random."""
    max_sky: int = Field(default=300, ge=1)
    """Empty places that are cut out, for what is drawn to stand alone."""
    known_radius_arcsec: float = Field(default=5.0, gt=0)
    """Sources within this of a known lens or contaminant serve neither as hosts nor as negatives."""
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Parts of the hosts, by cells of the sky, to train, validate and test."""

    @model_validator(mode="after")
    def _two_bands(self) -> HostSettings:
        if len(self.colour_bands) not in (0, 2):
            raise ValueError("colour_bands are two bands, blue first, or none")
        return self


class StampSettings(Table):
    """The stamps that are painted."""

    count: int = Field(default=16_000, ge=20)
    """Stamps."""
    side_arcsec: float = Field(default=17.5, gt=0)
    """Side of a stamp; of a network that learns on, its own side counts."""
    classes: dict[str, float] = {}
    """Relative numbers of classes, put over those of `lenspipe.finder.recipe.CLASSES`."""
    theta_e_arcsec: tuple[float, float] | None = None
    """Einstein radii, log-uniform between these; 0.9 to 3.5 where null. Groups reach 6."""
    crowd_fraction: float | None = Field(default=None, ge=0, le=1)
    """Part of the stamps of every class that get neighbours; none where null."""
    luminous: bool | None = None
    """Whether brighter hosts are painted on more often; no where null."""

    @model_validator(mode="after")
    def _both_painted(self) -> StampSettings:
        if not self.classes:
            return self
        from lenspipe.finder.recipe import CLASSES  # what paints is imported only where it is asked about
        from lenspipe.simulate.negatives import NON_LENSES
        from lenspipe.simulate.recipe import REAL

        known = ("lens", REAL, *(name for name, one in NON_LENSES.items() if not one.of_images))
        for name, part in self.classes.items():
            if name not in known:
                raise ValueError(f"no class {name!r}. {did_you_mean(name, known) or 'Known: ' + ', '.join(known)}")
            if part < 0:
                raise ValueError(f"classes.{name} is a number from 0, got {part}")
        whole = CLASSES | self.classes
        if not 0 < whole["lens"] < sum(whole.values()):
            raise ValueError("a finder learns from lenses and from others: classes.lens and another must be above 0")
        return self

    def painting(self) -> dict[str, Any]:
        """What is put over the recipe's table of hosts."""
        return self.model_dump(include={"theta_e_arcsec", "crowd_fraction", "luminous"}, exclude_none=True)


class GradeSettings(Table):
    """What people said of candidates."""

    lens_from: float = 2.0
    """Mean grade (A 3, B 2, C 1, not a lens 0) from which a candidate is a lens."""
    nonlens_to: float = 0.5
    """Mean grade up to which it is none."""
    share: float = Field(default=0.3, gt=0, lt=1)
    """Part of each class in training that graded candidates are, repeated as often as that takes."""
    most_repeats: int = Field(default=60, ge=1)
    """Times that one candidate is repeated at most."""


class ContinueSettings(Table):
    """A training that begins from the weights of a finder."""

    epochs: int = Field(default=4, ge=1)
    """Epochs."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Peak learning rate."""
    base_part: float = Field(default=0.0, ge=0, lt=1)
    """Part of the weights that stays the base's: the network is the mean of base and training by it. Half keeps most of
    what the base knew of other surveys' arcs and galaxies while grades teach: measured for `small-cnn` and 200 steps
    (`docs/results/finder_survey.md`)."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In JSON ``base_part`` is left out where it is 0, so that older requests stay the same."""
        whole: dict[str, Any] = handler(self)
        return {k: v for k, v in whole.items() if not (info.mode == "json" and k == "base_part" and not v)}


class FinderSettings(Table):
    """A finder that a survey teaches."""

    hosts: HostSettings = HostSettings()
    """Hosts and negatives."""
    stamps: StampSettings = StampSettings()
    """Stamps."""
    train: TrainSettings = TrainSettings(
        augment=AugmentSettings(
            affine_fraction=0.2,
            shift=0.06,
            zoom_min=0.85,
            shear=0.1,
            brightness=0.1,
            band_brightness=0.03,
            noise_fraction=0.5,
            blur_fraction=0.5,
            blur_px=1.3,
            gap_fraction=0.03,
        ),
        sampling=SamplingSettings(batch_size=64),
        optim=OptimSettings(epochs=12, learning_rate=2e-3),
    )
    """Training from fresh weights."""
    go_on: ContinueSettings = ContinueSettings()
    """What is other in a training that goes on from a finder's weights."""
    grades: GradeSettings = GradeSettings()
    """Graded candidates."""
