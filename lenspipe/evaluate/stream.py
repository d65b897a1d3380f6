"""Stamps of a data set as they stream through the models that are judged on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError, ModelError
from lenspipe.infer.predict import Predictor
from lenspipe.infer.stamps import covered_side, stamp_input
from lenspipe.nn.card import ModelCard, fits
from lenspipe.nn.outputs import Prediction
from lenspipe.stamps.format import StampSet, image_array
from lenspipe.stamps.generated import GENERATOR, refuse_made
from lenspipe.toml import Table

BATCH_BYTES = 16 << 20
Pixels = NDArray[np.float32]


class Runner(Protocol):
    """A loaded checkpoint, whatever it gives."""

    card: ModelCard
    digest: str
    n_parameter: int


OutputsT = TypeVar("OutputsT", bound=Table)
"""Class of outputs (`lenspipe.nn.outputs`)."""
RunnerT = TypeVar("RunnerT", bound=Runner)


@dataclass(frozen=True)
class Member(Generic[OutputsT, RunnerT]):
    """
    A model that is judged, and the image column that it takes.

    Attributes
    ----------
    name : str
        Of the card; with a number where two models share it.
    folder : Path
    outputs : Outputs
        Of the card.
    predictor : Runner
        The loaded checkpoint.
    image : str
    """

    name: str
    folder: Path
    outputs: OutputsT
    predictor: RunnerT
    image: str

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self.predictor.card

    def prepared(self, stamps: StampSet, pixels: dict[str, Pixels]) -> Pixels:
        """Network input of a batch ``(n, channel, y, x)``."""
        spec = stamps.images[self.image]
        return stamp_input(
            pixels[self.image], bands=spec.bands, pixel_scale_arcsec=spec.pixel_scale_arcsec, card=self.card
        )

    def predict(self: Member[Any, Predictor], table: pa.Table, prepared: Pixels) -> Prediction:
        """What the model says of a batch."""
        return self.predictor.predict(prepared, feature_values(self.card, table))


def image_for(card: ModelCard, stamps: StampSet) -> str:
    """
    Name of the first image column that a model can take.

    Raises
    ------
    ModelError
        None has its bands and a pixel scale that it takes.
    ConfigError
        The model wants denoised stamps, which a data set does not hold.
    DataError
        The stamps are too small for the model.
    """
    if card.sees != "raw":
        raise ConfigError("only models of raw stamps are evaluated", model=card.name, sees=card.sees)
    name = fitting_image(card, stamps)
    spec = stamps.images[name]
    covered_side(card, spec.size_px, spec.pixel_scale_arcsec)
    return name


def fitting_image(card: ModelCard, stamps: StampSet) -> str:
    """Name of the first image column that has a model's bands and a pixel scale that it takes; else `ModelError`."""
    reasons = []
    for name, spec in stamps.images.items():
        reason = fits(card, spec.bands, spec.pixel_scale_arcsec)
        if reason is None:
            return name
        reasons.append(f"{name}: {reason}")
    raise ModelError(f"the stamps do not fit the model: {'; '.join(reasons)}", data=str(stamps.folder))


def count_rows(stamps: StampSet, split: str | None) -> int:
    """
    Labelled rows of a split.

    Raises
    ------
    DataError
        There are none, or a generator made some.
    """
    n, seen = 0, set()
    marked = [GENERATOR] if GENERATOR in stamps.schema.names else []
    for table in stamps.iter_batches(["label", "split", *marked], batch_size=1 << 16):
        seen |= set(pc.unique(table["split"]).to_pylist())
        rows = table if split is None else table.filter(pc.equal(table["split"], split))
        refuse_made(rows, stamps.title)
        n += rows.num_rows - rows["label"].null_count
    if not n:
        found = ",".join(sorted(str(name) for name in seen)) or "none"
        raise DataError("no labelled stamps in this split; name another by --split", split=split, splits=found)
    return n


def iter_stamps(
    stamps: StampSet, images: Sequence[str], columns: Sequence[str], *, split: str | None
) -> Iterator[tuple[pa.Table, dict[str, Pixels]]]:
    """
    Labelled rows of a split, batch by batch: scalar columns, and the pixels of each image ``(n, band, y, x)``.

    Memory is bounded by a batch. Rows without a label are left out.
    """
    wanted = [*dict.fromkeys(["stamp_id", "label", *columns]), *dict.fromkeys(images)]
    size = max(32, stamps.rows_within(BATCH_BYTES))
    for table in stamps.iter_batches(wanted, batch_size=size, split=split):
        labelled = table.filter(pc.is_valid(table["label"]))
        if labelled.num_rows:
            pixels = {name: image_array(labelled, name) for name in dict.fromkeys(images)}
            yield labelled.drop_columns(list(pixels)), pixels


def feature_values(card: ModelCard, table: pa.Table) -> NDArray[np.float64] | None:
    """Values ``(n, feature)`` of the columns that a model takes beside the image; None where it takes none."""
    return np.stack([numbers(table, name) for name in card.features], axis=1) if card.features else None


def numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64 ``(n,)``; NaN where it is null."""
    values: NDArray[np.float64] = table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def words(table: pa.Table, name: str) -> NDArray[np.object_]:
    """A column of text as objects ``(n,)``."""
    return np.array(table[name].to_pylist(), dtype=object)
