"""What a reader is: a model that a scan shows its candidates, what it needs for that and what it says of them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.nn.card import ModelCard, TrainingSet, digest, fits, read_card
from lenspipe.scan.config import ScanConfig
from lenspipe.survey.layout import SurveyLayout


class CutoutKey(NamedTuple):
    """Which cutouts: bands in this order, and side in pixels of the tile; odd, so that the source lies in a pixel."""

    bands: tuple[str, ...]
    side_px: int


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model's folder, the name of its exact content, and its card."""

    folder: Path
    digest: str
    card: ModelCard

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """
        Read the card and take the digest of card and weights.

        Raises
        ------
        ModelError
            The folder holds no model.
        """
        return cls(folder, digest(folder), read_card(folder))

    def record(self) -> dict[str, Any]:
        """What ``run.json`` says of it."""
        return {"name": self.card.name, "digest": self.digest, "card": self.card.model_dump(mode="json")}


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Some candidates of one shard, as readers are shown them."""

    n: int
    pixel_scale_arcsec: float
    sky_rms_njy: Mapping[str, float | None]
    """Median noise of a pixel of empty sky, by band; None where nothing is known of one."""
    psf_fwhm_arcsec: Mapping[str, float | None]
    """FWHM of the PSF in images, by band: of the shard's stars, else as the layout states."""
    cutouts: Mapping[CutoutKey, NDArray[np.float32]]
    """(n, band, y, x) nJy without the sky, exactly 0 where there are no data. Read-only."""
    said: dict[str, Any]
    """By name, what readers before have said of these candidates."""


Work = Callable[[Candidates], dict[str, Any]]
"""A loaded reader: from candidates to what it says of them, by the names of `Reader.gives` and of its columns."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a scan is asked for, and the readers that were chosen for it so far."""

    config: ScanConfig
    bands: tuple[str, ...]
    """Of the tiles."""
    layout: SurveyLayout
    chosen: tuple[Reader, ...] = ()

    def giving(self, name: str) -> Reader | None:
        """The reader that gives something, if any."""
        return giving(self.chosen, name)


class Reader(abc.ABC):
    """
    A model, or several that answer together, that a scan shows its candidates.

    Readers are small, frozen and picklable: they travel to the workers, which `load` them. A reader is shown a shard's
    candidates where it `fits` the tile, its `demands` hold data, and what it `takes` is given there.
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What people call it."""

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """Name of the exact content of all its models."""

    @property
    def takes(self) -> tuple[str, ...]:
        """Names of what it needs of readers before it."""
        return ()

    @property
    def gives(self) -> tuple[str, ...]:
        """Names of what readers after it can ask of it."""
        return ()

    @property
    def demands(self) -> tuple[str, ...]:
        """Bands that are not masked throughout in a shard that it is shown."""
        return ()

    @property
    def n_cutout(self) -> int:
        """Most kinds of cutouts that it asks for."""
        return 1

    @abc.abstractmethod
    def cutouts(self, pixel_scale_arcsec: float) -> tuple[CutoutKey, ...]:
        """Which cutouts it is shown of a tile of this pixel scale."""

    @abc.abstractmethod
    def fits(self, bands: tuple[str, ...], pixel_scale_arcsec: float) -> str | None:
        """Why it cannot be shown tiles of these bands and pixel scale; None where it can."""

    @abc.abstractmethod
    def fields(self) -> list[pa.Field]:
        """Columns of a candidate that it fills; those that `lenspipe.schema.measured_fields` lacks are added."""

    def check(self, tile: str, bands: tuple[str, ...], pixel_scale_arcsec: float, *, halo_px: int) -> None:
        """
        Refuse a scan by its first tile, before any work; of later tiles, those that do not fit stay null.

        Raises
        ------
        ConfigError
            The reader would say nothing of such tiles, and was asked for by name.
        """
        return

    @abc.abstractmethod
    def record(self) -> dict[str, Any]:
        """What ``run.json`` says of it, by key."""

    @abc.abstractmethod
    def digests(self) -> dict[str, str]:
        """What a resumed run is held to, by key of ``model.json``."""

    def probabilities(self, scores: NDArray[np.floating], prior: float) -> NDArray[np.float64] | None:
        """Probabilities of a lens at a prior, given scores of this reader; None where it is not calibrated."""
        return None

    @property
    def training_set(self) -> TrainingSet | None:
        """What is kept of the training set by which this reader tells unlike candidates; None where it does not."""
        return None

    def note(self) -> str | None:
        """One line for the terminal before the scan begins."""
        return None

    @abc.abstractmethod
    def load(self, device: str) -> Work:
        """
        Load the weights.

        Raises
        ------
        ModelError
            A checkpoint is broken, or the device is not there.
        """


@dataclasses.dataclass(frozen=True)
class OneCheckpoint(Reader):
    """A reader with one model: named, demanding and fitting as its card says."""

    model: Checkpoint

    @property
    def name(self) -> str:
        """The card's."""
        return self.model.card.name

    @property
    def digest(self) -> str:
        """The checkpoint's."""
        return self.model.digest

    @property
    def demands(self) -> tuple[str, ...]:
        """All bands of the card."""
        return self.model.card.bands

    def fits(self, bands: tuple[str, ...], pixel_scale_arcsec: float) -> str | None:
        """As the card says."""
        return fits(self.model.card, bands, pixel_scale_arcsec)


def giving(readers: tuple[Reader, ...], name: str) -> Reader | None:
    """The reader among some that gives something, if any."""
    return next((reader for reader in readers if name in reader.gives), None)
