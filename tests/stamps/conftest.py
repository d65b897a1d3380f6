"""A small data set of stamps to break in tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema

SPEC = ImageSpec(("g", "r", "i"), 16, 0.2)
MakeTable = Callable[..., pa.Table]


@pytest.fixture
def make_table(rng: np.random.Generator) -> MakeTable:
    """Return a function (n, **columns) -> table of random stamps, each with its own host."""

    def make(n: int = 20, *, stamps: np.ndarray | None = None, first: int = 0, **columns: Any) -> pa.Table:
        pixels = rng.normal(0, 30, (n, *SPEC.shape)).astype(np.float32) if stamps is None else stamps
        ids = [f"stamp-{first + k}" for k in range(n)]
        given = {
            "stamp_id": ids,
            "label": ["lens" if k % 2 else "nonlens" for k in range(n)],
            "recipe": ["made"] * n,
            "seed": [7] * n,
            "host": [f"host-{name}" for name in ids],
            "split": [("train", "validation", "test")[k % 3] for k in range(n)],
            "theta_e_arcsec": np.linspace(0.5, 2.0, n),
        } | columns
        extra = [pa.field(c, pa.float64(), metadata={"unit": c.rsplit("_", 1)[-1]}) for c in list(given)[6:]]
        schema = stamp_schema({"image": SPEC}, extra)
        arrays = {"image": image_column(pixels, SPEC)} | {
            f.name: pa.array(given[f.name], f.type) for f in schema if f.name != "image"
        }
        return pa.table([arrays[name] for name in schema.names], schema=schema)

    return make


@pytest.fixture
def stamps_dir(real_data: Path) -> Path:
    return real_data / "stamps"
