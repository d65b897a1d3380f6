"""Synthetic candidates, and catalogue entries made of them."""

import numpy as np
import pyarrow as pa

from lenspipe.catalog.hats import MAX_ROWS, adaptive_pixels, write_metadata, write_pixel
from lenspipe.catalog.merge import merge_duplicates
from lenspipe.catalog.run_rows import Entries, ranked
from lenspipe.catalog.sources import Held
from lenspipe.catalog.tree import HERE, TreeWriter
from lenspipe.schema import candidates_schema
from lenspipe.sky.healpix import healpix29

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


def merged_at_once(rows, *, radius_arcsec=1.0):
    """Rows that stay, with their detections added up."""
    merged = merge_duplicates(rows, radius_arcsec=radius_arcsec)
    total = merged.counts(rows["n_detection"].to_numpy().astype(np.int64)).astype(np.int32)
    place = rows.schema.get_field_index("n_detection")
    return rows.set_column(place, rows.schema.field(place), pa.array(total)).filter(pa.array(merged.kept))


def entries_of(rows, *, radius_arcsec=1.0, **traces):
    """Catalogue entries of candidates of one run, best first, whose shards all look alike but for ``traces``."""
    rows = rows.sort_by([("score", "descending"), ("candidate_id", "ascending")])
    run_id = rows["run_id"]
    rows = ranked(rows.drop_columns("run_id"), run_id="", begun=0)
    rows = rows.set_column(rows.schema.get_field_index("run_id"), "run_id", run_id)
    rows = rows.append_column("_healpix_29", pa.array(healpix29(rows["ra"].to_numpy(), rows["dec"].to_numpy())))
    rows = merged_at_once(rows, radius_arcsec=radius_arcsec)
    place = rows.schema.get_field_index("rank")
    closed = pa.array(np.arange(1, rows.num_rows + 1), mask=rows["score"].is_null().to_numpy())
    rows = rows.set_column(place, "rank", closed)
    shards = rows["shard_id"].unique()
    alike = {"code_version": pa.array(["0.1.0"] * len(shards), pa.string())} | traces
    return Entries(pa.table({"shard_id": shards} | alike), BANDS, "LPC")(rows)


def write_rows(rows, root, *, name, max_rows=MAX_ROWS):
    """A HATS tree of rows in any order; one without rows is a valid tree too."""
    index = rows["_healpix_29"].to_numpy()
    order = np.argsort(index, kind="stable")
    pixels = adaptive_pixels(index[order], max_rows=max_rows)
    (root / "dataset").mkdir(parents=True)
    for pixel, low, high in pixels:
        write_pixel(root / "dataset", pixel, rows.take(pa.array(order[low:high])))
    write_metadata(root, rows.schema, [pixel for pixel, _, _ in pixels], name=name, max_rows=max_rows)


def append_rows(old, rows, new, *, executor=HERE, **how):
    """Append rows in memory to a tree."""
    return TreeWriter(radius_arcsec=1.0, executor=executor, **how).append(old, [Held(rows)], new)


def on_sphere(n, rng, *, centre=(150.0, 2.0), width_deg=2.0):
    """Uniform positions in a square on the sky."""
    ra = centre[0] + rng.uniform(-width_deg / 2, width_deg / 2, n) / np.cos(np.radians(centre[1]))
    low, high = np.sin(np.radians([centre[1] - width_deg / 2, centre[1] + width_deg / 2]))
    return ra % 360, np.degrees(np.arcsin(rng.uniform(low, high, n)))
