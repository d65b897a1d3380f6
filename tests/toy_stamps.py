"""A small data set of stamps that a network can learn in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema, write_part

SIZE = 13


def make_stamps(
    folder: Path,
    n: int = 240,
    *,
    labels: tuple[str, ...] = ("lens", "nonlens"),
    bands: tuple[str, ...] = ("g", "r"),
    n_part: int = 3,
    size: int = SIZE,
    contrast: float = 6.0,
) -> Path:
    """Noise; with a ring of a size of its own where the label is the first, a blob where it is another."""
    rng = np.random.default_rng(5)
    spec = ImageSpec(bands, size, 0.2)
    extra = [pa.field("theta_e_arcsec", pa.float64()), pa.field("mag", pa.float64())]
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = np.hypot(x, y)
    for part, rows in enumerate(np.array_split(np.arange(n), n_part)):
        kinds = [labels[int(k)] for k in rng.integers(0, len(labels), len(rows))]
        theta = np.where([kind == labels[0] for kind in kinds], rng.uniform(2, size / 2 - 1, len(rows)), np.nan)
        stamps = rng.normal(0, 1, (len(rows), len(bands), size, size)).astype(np.float32)
        for k, kind in enumerate(kinds):
            peak = labels.index(kind)
            shape = np.exp(-((radius - theta[k]) ** 2)) if peak == 0 else np.exp(-((radius / (1 + peak)) ** 2))
            stamps[k] += contrast * shape
        split = np.where(rows % 5 < 3, "train", np.where(rows % 5 == 3, "validation", "test"))
        columns = {
            "stamp_id": [f"s{row:04d}" for row in rows],
            "image": image_column(stamps, spec),
            "label": kinds,
            "recipe": ["toy"] * len(rows),
            "seed": [5] * len(rows),
            "host": [f"h{row}" for row in rows],
            "split": split.tolist(),
            "theta_e_arcsec": pa.array(theta, from_pandas=True),
            "mag": rng.normal(20, 1, len(rows)),
        }
        schema = stamp_schema({"image": spec}, extra)
        table = pa.table(
            [pa.array(columns[f.name], f.type) if f.name != "image" else columns["image"] for f in schema],
            schema=schema,
        )
        write_part(table, folder, f"part-{part}")
    return folder
