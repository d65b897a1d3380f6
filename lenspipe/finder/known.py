"""Known lenses in the sky of a survey, as stamps that its finder has not seen."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lenspipe.catalog.known import read_known_lenses
from lenspipe.catalog.run_rows import Run
from lenspipe.finder.places import cut_positions
from lenspipe.stamps.format import StampSet, image_column, write_part

KNOWN = "known"
"""Folder of their stamps, and name of their part."""


def write_known(
    run: Run, painted: StampSet, lists: Sequence[str], out: Path, *, survey: str
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """
    Cut the lenses of lists that lie in the run's tiles, on the grid of the painted stamps, into a data set.

    They are neither hosts nor negatives of the survey (`lenspipe.finder.steps.avoided`).

    Returns
    -------
    known : list of dict
        ``name``, ``list`` and ``grade`` of each stamp, in order; without any, nothing is written.
    failed : dict
        Why lenses in a tile have no stamp, by the tile.
    """
    rows: list[dict[str, Any]] = []
    for name in lists:
        table = read_known_lenses(name).select(["name", "ra", "dec", "grade"]).to_pylist()
        rows += [row | {"list": Path(name).stem} for row in table]
    spec = painted.images["image"]
    ra, dec = (np.array([row[key] for row in rows], float) for key in ("ra", "dec"))
    pixels, kept, _, failed = cut_positions(run, spec, ra, dec)
    shutil.rmtree(out, ignore_errors=True)
    found = [rows[k] for k in kept]
    if not found:
        return [], failed
    names = [str(row["name"] or f"{row['ra']:.5f} {row['dec']:+.5f}") for row in found]
    n = len(found)
    values: dict[str, list[Any]] = {
        "stamp_id": [f"{KNOWN}-{k}" for k in kept],
        "label": ["lens"] * n,
        "recipe": [KNOWN] * n,
        "host": names,
        "split": ["test"] * n,
        "kind": ["known lens"] * n,
        "survey": [survey] * n,
    }
    arrays = [
        image_column(pixels, spec)
        if f.name == "image"
        else pa.array(values[f.name], f.type)
        if f.name in values
        else pa.nulls(n, f.type)
        for f in painted.schema
    ]
    out.mkdir(parents=True)
    write_part(pa.table(arrays, schema=painted.schema), out, KNOWN)
    known = [{"name": name, "list": row["list"], "grade": row["grade"]} for name, row in zip(names, found, strict=True)]
    return known, failed
