"""Synthetic candidates, and catalogue entries made of them."""

import numpy as np
import pyarrow as pa

from lenspipe.catalog.run_rows import entries
from lenspipe.schema import candidates_schema

BANDS = ("g", "r", "i")


def candidates(ra_deg, dec_deg, *, rng, shard=None, run="run0", model="m0", scored=True):
    """Rows of `candidates_schema` with ``run_id``; every row in a shard of its own unless ``shard`` says."""
    n = len(ra_deg)
    shard = np.arange(n) if shard is None else np.asarray(shard)
    columns = {}
    for f in candidates_schema(BANDS):
        if f.type == pa.float32() or f.type == pa.float64():
            columns[f.name] = pa.array(rng.uniform(1, 2, n)).cast(f.type)
        elif f.type == pa.int32():
            columns[f.name] = pa.array(np.zeros(n, np.int32))
        else:
            columns[f.name] = pa.array([f"{f.name}0"] * n, pa.string())
    columns |= {
        "candidate_id": [f"t_{s}_n{i}" for i, s in enumerate(shard)],
        "shard_id": [f"t_{s}" for s in shard],
        "ra": np.asarray(ra_deg, float) % 360,
        "dec": np.asarray(dec_deg, float),
        "mask_fraction": pa.array(rng.integers(0, 3, n) / 4).cast(pa.float32()),
        "covered_fraction": pa.array(np.ones(n)).cast(pa.float32()),
        "score": pa.array(rng.uniform(0, 1, n)) if scored else pa.nulls(n, pa.float64()),
        "model": pa.array([model] * n, pa.string()),
    }
    table = pa.table(columns, schema=candidates_schema(BANDS))
    return table.append_column("run_id", pa.array([run] * n, pa.string()))


def entries_of(rows, *, radius_arcsec=1.0):
    """Catalogue entries of candidates whose shards all look alike."""
    shards = rows["shard_id"].unique()
    traces = pa.table({"shard_id": shards, "code_version": pa.array(["0.1.0"] * len(shards), pa.string())})
    return entries(rows, traces, bands=BANDS, radius_arcsec=radius_arcsec, acronym="LPC")


def on_sphere(n, rng, *, centre=(150.0, 2.0), width_deg=2.0):
    """Uniform positions in a square on the sky."""
    ra = centre[0] + rng.uniform(-width_deg / 2, width_deg / 2, n) / np.cos(np.radians(centre[1]))
    low, high = np.sin(np.radians([centre[1] - width_deg / 2, centre[1] + width_deg / 2]))
    return ra % 360, np.degrees(np.arcsin(rng.uniform(low, high, n)))
