"""Stamps of a data set as they stream through one model or several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError, ModelError
from lenspipe.infer.predict import Predictor
from lenspipe.infer.stamps import covered_side, stamp_input
from lenspipe.nn.card import ModelCard, fits
from lenspipe.stamps.format import StampSet, image_array

BATCH_BYTES = 16 << 20


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
        raise ConfigError("the model takes denoised stamps; only models of raw stamps are evaluated", model=card.name)
    reasons = []
    for name, spec in stamps.images.items():
        reason = fits(card, spec.bands, spec.pixel_scale_arcsec)
        if reason is None:
            covered_side(card, spec.size_px, spec.pixel_scale_arcsec)
            return name
        reasons.append(f"{name}: {reason}")
    raise ModelError(f"the stamps do not fit the model: {'; '.join(reasons)}", data=str(stamps.folder))


def demand_columns(card: ModelCard, stamps: StampSet) -> None:
    """Raise `DataError` where the data set lacks columns that a card's features or targets name."""
    if missing := [name for name in (*card.features, *card.targets) if name not in stamps.schema.names]:
        raise DataError("the data set lacks columns that the model needs", model=card.name, missing=",".join(missing))


def iter_stamps(
    stamps: StampSet, images: Sequence[str], columns: Sequence[str], *, split: str | None
) -> Iterator[tuple[pa.Table, dict[str, NDArray[np.float32]]]]:
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


def network_inputs(predictor: Predictor, stamps: StampSet, image: str, pixels: NDArray[np.float32]) -> Any:
    """Prepared stamps of one model."""
    spec = stamps.images[image]
    return stamp_input(pixels, bands=spec.bands, pixel_scale_arcsec=spec.pixel_scale_arcsec, card=predictor.card)


def feature_values(card: ModelCard, table: pa.Table) -> NDArray[np.float64] | None:
    """Values ``(n, feature)`` of the columns that a model takes beside the image; None where it takes none."""
    if not card.features:
        return None
    return np.stack([numbers(table, name) for name in card.features], axis=1)


def target_values(card: ModelCard, table: pa.Table) -> NDArray[np.float64]:
    """True values ``(n, target)``; NaN where a stamp has none."""
    return np.stack([numbers(table, name) for name in card.targets], axis=1)


def numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64 ``(n,)``; NaN where it is null."""
    values: NDArray[np.float64] = table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values
