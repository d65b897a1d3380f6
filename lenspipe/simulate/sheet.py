"""The contact sheet of a simulated data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lenspipe.bands import colour_bands
from lenspipe.image.contact import colour_stamps, contact_sheet
from lenspipe.report.picture import write_png
from lenspipe.stamps.format import StampSet

CONTACT_SHEET = "contact_sheet.png"


def write_contact_sheet(folder: Path, *, n_each: int = 12, n_column: int = 12) -> Path:
    """Write ``contact_sheet.png``: a row or more of stamps of every class, from the first rows of the data set."""
    data = StampSet.open(folder)
    column = "kind" if "kind" in data.schema.names else "label"
    kinds = data.column(column)[:5000]
    names = sorted(set(kinds), key=lambda kind: (kind != "lens", kind))
    chosen = [np.flatnonzero(kinds == name)[: 2 * n_each if name == "lens" else n_each] for name in names]
    rows = []
    image = next(iter(data.images))
    spec = data.images[image]
    blank = np.zeros((n_column, *spec.shape), np.float32)
    for indices in chosen:
        pixels = data.read_images(image, indices)
        pad = -len(pixels) % n_column
        rows.append(np.concatenate([pixels, blank[:pad]]))
    shown = [spec.bands.index(band) for band in colour_bands(spec.bands)]
    path = folder / CONTACT_SHEET
    write_png(path, contact_sheet(colour_stamps(np.concatenate(rows)[:, shown]), n_column=n_column))
    return path
