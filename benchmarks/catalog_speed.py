"""
How long does the catalogue of a million candidates take, and in how much memory? And of ten million?

A synthetic run, 5 % of its candidates seen twice, becomes a catalogue in one process (`lenspipe.catalog.write`) and by
Ray on two CPUs (`lenspipe.distributed.catalog`); counts and ranks are checked, and both trees must hold the same rows.
The first is compared with what pyarrow needs to read, sort and write the same rows. Then the rows are matched with
lenscat and compared with astropy's `match_to_catalog_sky`. Each part runs in a process of its own; its peak memory is
the largest sum over it and its children, shared memory divided among those that share it (PSS).

    python -m benchmarks.catalog_speed
    python -m benchmarks.catalog_speed --rows 1e7 --name catalog_1e7 --parts finalise --parts finalise_by_ray
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import record
from benchmarks.memory import PeakMemory, each_mib, pss_mib, tree
from benchmarks.timing import Clock
from lenspipe.catalog.hats import read_pixels
from lenspipe.catalog.known import read_known_lenses
from lenspipe.catalog.provenance import Matching
from lenspipe.catalog.run_rows import Run, open_run_folder
from lenspipe.catalog.write import write_catalog
from lenspipe.runner import here
from lenspipe.scan.plan import SCHEMA as PLAN
from lenspipe.scan.plan import write_plan
from lenspipe.schema import candidates_schema, shards_schema
from lenspipe.sky.sphere import nearest

BANDS, PER_SHARD, DUPLICATES = ("g", "r", "i"), 500, 0.05
RADIUS_ARCSEC, N_WORKER = 1.0, 2
REPEATED_ROWS = 2_000_000
"""Rows up to which a part runs twice, the faster run counting."""


def make_run(folder: Path, n_row: int) -> int:
    """A run folder with the tables that a scan leaves; returns the number of duplicates put in."""
    rng = np.random.default_rng(11)
    n_twice = int(n_row * DUPLICATES)
    n_once = n_row - n_twice
    side = int(np.ceil(np.sqrt(n_once)))
    grid = np.arange(n_once)
    # a jittered grid of 20 arcsec: no chance pairs, so that the number of duplicates is known
    ra = (350 + (grid % side) * 20 / 3600 + rng.uniform(-4, 4, n_once) / 3600) % 360
    dec = -10 + (grid // side) * 20 / 3600 + rng.uniform(-4, 4, n_once) / 3600
    again = rng.choice(n_once, n_twice, replace=False)
    ra = np.concatenate([ra, ra[again] + rng.uniform(-0.2, 0.2, n_twice) / 3600]) % 360
    dec = np.concatenate([dec, dec[again] + rng.uniform(-0.2, 0.2, n_twice) / 3600])
    shard = np.concatenate([grid // PER_SHARD, n_once // PER_SHARD + 1 + np.arange(n_twice) // PER_SHARD])
    shard_ids = np.char.add("tile_", np.arange(shard.max() + 1).astype(str))
    number = np.char.add("_n", (np.arange(n_row) % PER_SHARD).astype(str))
    columns = {}
    for f in candidates_schema(BANDS):
        if pa.types.is_floating(f.type):
            columns[f.name] = pa.array(rng.normal(20, 2, n_row).astype(f.type.to_pandas_dtype()))
        elif f.type == pa.int32():
            columns[f.name] = pa.array(rng.integers(0, 16, n_row).astype(np.int32))
        else:
            columns[f.name] = pa.array(["0123456789abcdef"]).take(pa.array(np.zeros(n_row, int)))
    shard_column = pa.array(shard_ids).take(pa.array(shard))
    columns |= {
        "ra": ra,
        "dec": dec,
        "tile": shard_column,
        "shard_id": shard_column,
        "candidate_id": pa.array(np.char.add(shard_ids[shard], number)),
        "score": rng.uniform(0, 1, n_row),
        "mask_fraction": pa.array(rng.uniform(0, 0.1, n_row).astype(np.float32)),
    }
    rows = pa.table(columns, schema=candidates_schema(BANDS)).sort_by([("score", "descending")])
    folder.mkdir(parents=True)
    pq.write_table(rows, folder / "candidates.parquet", compression="zstd", row_group_size=500_000)  # as a scan
    _write_shards(folder, shard_ids.tolist(), n_row)
    return n_twice


def _write_shards(folder: Path, ids: list[str], n_row: int) -> None:
    files = '{"bands": [{"band": "g", "image": {"file": "f", "hdu": null}, "weight": null, "mask": null}], "name": "t"}'
    box = [0, 0, 2048, 2048]
    corner = [[10.0, 10.1, 10.1, 10.0], [1.0, 1.0, 1.1, 1.1]]
    plan = [{"tile": i, "files": files, "shard_id": i, "core": box, "window": box, "first_of_tile": True} for i in ids]
    write_plan(folder / "plan.parquet", pa.Table.from_pylist(plan, PLAN), bands=BANDS)
    known = {"status": "ok", "area_deg2": 0.01, "corner_ra_deg": corner[0], "corner_dec_deg": corner[1]}
    shards = [{"shard_id": i, "tile": i, **known} for i in ids]
    pq.write_table(pa.Table.from_pylist(shards, shards_schema(BANDS)), folder / "shards.parquet")
    counts = {"tiles": len(ids), "shards": len(ids), "shards_ok": len(ids), "sources": n_row, "candidates": n_row}
    run = {
        "status": "done",
        "started": "2026-01-01T00:00:00+00:00",
        "bands": list(BANDS),
        "model": None,
        "versions": {"lenspipe": "0"},
        "request": {
            "synthetic": n_row,
            "survey": {"name": "synthetic"},
            "config": {"zero_point_ab": None, "background": {"mesh_px": 64, "filter_mesh": 3}},
        },
        "inputs": [{"file": "f", "checksum": "sha256:0"}],
        "counts": counts,
    }
    (folder / "run.json").write_text(json.dumps(run))


def finalise(scratch: Path) -> dict[str, float]:
    """The whole catalogue folder, in one process."""
    run, how = _request(scratch)
    started = Clock()
    made = write_catalog(run, scratch / "cat", **how)
    return {**started.seconds(), "rows": made["counts"]["rows"], "merged": made["counts"]["merged"]}


def finalise_by_ray(scratch: Path) -> dict[str, float]:
    """The catalogue folder without its flat tables, by Ray; its start is not counted."""
    from lenspipe.distributed.session import ray_session

    run, how = _request(scratch)
    with ray_session(n_worker=N_WORKER):
        from lenspipe.distributed.catalog import RayTasks

        started = Clock()
        made = write_catalog(run, scratch / "cat_ray", **how, executor=here(RayTasks(N_WORKER)), flat=False)
        seconds = round(started.wall_s, 3)
    return {"seconds": seconds, "rows": made["counts"]["rows"], "merged": made["counts"]["merged"]}


def _request(scratch: Path) -> tuple[Run, dict[str, Any]]:
    matching = Matching(source="lenscat", lenses=read_known_lenses("lenscat"), radius_arcsec=2.0)
    return open_run_folder(scratch / "run"), {"radius_arcsec": RADIUS_ARCSEC, "acronym": "LPC", "matching": matching}


def rows_of_tree(root: Path) -> np.ndarray:
    """What tells the rows of a tree apart, sorted: (n, 4)."""
    names = ["_healpix_29", "rank", "n_detection", "window_x1_px"]
    found = [pq.read_table(root / "dataset" / p.path, columns=names, partitioning=None) for p in read_pixels(root)]
    rows = np.stack([pa.concat_tables(found)[name].to_numpy() for name in names], axis=1)
    return rows[np.lexsort(rows.T[::-1])]


def read_sort_write(scratch: Path) -> dict[str, float]:
    """What pyarrow needs for the same rows: read the catalogue's flat file, sort by position, write it."""
    read_known_lenses("lenscat")  # pyarrow imports pandas at its first read
    started = Clock()
    table = pq.read_table(scratch / "cat" / "candidates.parquet")
    table = table.sort_by([("_healpix_29", "ascending")])
    pq.write_table(table, scratch / "sorted.parquet", compression="zstd", row_group_size=100_000)
    return {**started.seconds(), "rows": table.num_rows}


def match_ours(scratch: Path) -> dict[str, float]:
    """Nearest lens of lenscat for every row."""
    rows, lenses = _positions(scratch)
    started = Clock()
    lens, _ = nearest(*rows, *lenses, radius_arcsec=180.0)
    return {**started.seconds(), "pairs": int((lens >= 0).sum())}


def match_astropy(scratch: Path) -> dict[str, float]:
    """The same by astropy."""
    from astropy.coordinates import SkyCoord

    rows, lenses = _positions(scratch)
    one, two = SkyCoord(*rows, unit="deg"), SkyCoord(*lenses, unit="deg")
    started = Clock()
    _, apart, _ = one.match_to_catalog_sky(two)
    return {**started.seconds(), "pairs": int((apart.arcsec <= 180.0).sum())}


def _positions(scratch: Path) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    rows = pq.read_table(scratch / "run" / "candidates.parquet", columns=["ra", "dec"])
    lenses = read_known_lenses("lenscat")
    return tuple((t["ra"].to_numpy(), t["dec"].to_numpy()) for t in (rows, lenses))  # type: ignore[return-value]


PARTS = {f.__name__: f for f in (finalise, finalise_by_ray, read_sort_write, match_ours, match_astropy)}


def measure(part: str, scratch: Path) -> dict[str, float]:
    """Run a part in a process of its own and watch the memory of it and its children."""
    command = [sys.executable, "-m", "benchmarks.catalog_speed", "--part", part, "--scratch", str(scratch)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with PeakMemory(lambda: sum(each_mib(pss_mib, tree(process.pid))), every_s=0.1) as memory:
        said = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"{part} ended with {process.returncode}")
    return {**json.loads(said.splitlines()[-1]), "peak_gib": round(memory.peak_mib / 1024, 3)}


def check(scratch: Path, times: dict[str, dict[str, float]], n_row: int, n_twice: int) -> None:
    """Every duplicate that was put in is found, and no other; ranks are 1, 2, 3 ...; both trees hold the same rows."""
    trees = {"finalise": "cat", "finalise_by_ray": "cat_ray"}
    found = [rows_of_tree(scratch / folder / "hats") for part, folder in trees.items() if part in times]
    for rows in found:
        assert len(rows) == n_row - n_twice
        assert np.array_equal(np.sort(rows[:, 1]), np.arange(1, len(rows) + 1)), "ranks"
        assert rows[:, 2].sum() == n_row, "detections"
        assert np.array_equal(rows, found[0]), "the trees differ"
    if "finalise" in times:
        assert pq.read_metadata(scratch / "cat" / "candidates.parquet").num_rows == n_row - n_twice
    if "match_ours" in times:
        assert times["match_ours"]["pairs"] == times["match_astropy"]["pairs"]


@click.command()
@click.option("--rows", default="1e6", show_default=True, help="Candidates of the run.")
@click.option("--parts", multiple=True, type=click.Choice(list(PARTS)), help="Only this part; several times.")
@click.option("--name", default="catalog_speed", show_default=True, help="Of the record.")
@click.option(
    "--scratch",
    type=click.Path(path_type=Path),
    help="Folder that is kept: the run and the parts that it holds are not made again.",
)
@click.option("--part", type=click.Choice(list(PARTS)), hidden=True, help="In this process.")
def command(rows: str, parts: tuple[str, ...], name: str, scratch: Path | None, part: str | None) -> None:
    """Time the catalogue of a synthetic run."""
    if part:
        assert scratch is not None
        print(json.dumps(PARTS[part](scratch)))
    else:
        main(int(float(rows)), list(parts or PARTS), name, scratch)


def main(n_row: int, parts: list[str], name: str, kept: Path | None) -> None:
    scratch = kept or Path(tempfile.mkdtemp())
    try:
        n_twice = int(n_row * DUPLICATES)
        if not (scratch / "run").exists():
            make_run(scratch / "run", n_row)
        before = scratch / "times.json"
        times: dict[str, dict[str, float]] = json.loads(before.read_text()) if before.exists() else {}
        for part in parts:
            runs = []
            for _ in range(2 if n_row <= REPEATED_ROWS else 1):
                folder = {"finalise": "cat", "finalise_by_ray": "cat_ray"}.get(part, "none")
                shutil.rmtree(scratch / folder, ignore_errors=True)
                runs.append(measure(part, scratch))
            times[part] = min(runs, key=lambda r: r["seconds"])
            print(part, times[part], flush=True)
            before.write_text(json.dumps(times))
        check(scratch, times, n_row, n_twice)
        ratios = {
            f"{ratio}_{kind}": round(times[one][kind] / times[two][kind], 2)
            for ratio, one, two in (
                ("finalise_over_pyarrow", "finalise", "read_sort_write"),
                ("match_over_astropy", "match_ours", "match_astropy"),
            )
            if one in times and two in times
            for kind in ("seconds", "cpu_seconds")
        }
        record.write(name, {"rows": n_row, "duplicates": n_twice, "workers": N_WORKER, **times, **ratios})
    finally:
        if kept is None:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    command()
