"""
The timed scan on a Ray cluster of one node and of two, of a CPU each: what the model of whole surveys says of them.

    python -m benchmarks.two_nodes

Both nodes are processes of this machine, so the network between them is its loopback and the disk is one: what is
tested are the terms for workers and for Ray's start. `benchmarks.scale_model` compares the record with its prediction.
Rows must be the same.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq

from benchmarks import record
from benchmarks.scan_ray_speed import CORE_PX, N_TILE, TILE_PX, TIMES, make_tiles, repeat_tiles, scan
from benchmarks.victims import Rays


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True)
@record.keep_option
def main(rounds: int, keep: bool) -> None:
    """Scan the same shards on one node and on two."""
    work = Path(tempfile.mkdtemp(prefix="two-nodes-"))
    make_tiles(work / "few")
    repeat_tiles(work / "few", work / "many")
    found: dict[str, list[dict[str, Any]]] = {"1": [], "2": []}
    tables = []
    for i in range(rounds):
        for nodes in ("2", "1"):
            rays = Rays(work)
            try:
                if nodes == "1":
                    rays.lose_node()
                out = work / f"run-{nodes}-{i}"
                found[nodes].append(scan(work / "many", out, "--runner", "ray", "--workers", nodes))
                tables.append(pq.read_table(out / "candidates.parquet"))
            finally:
                rays.stop()
    assert all(table.equals(tables[0]) for table in tables), "the rows differ"
    shutil.rmtree(work)
    whole_s = {nodes: [one["whole_scan_s"] for one in ones] for nodes, ones in found.items()}
    result = {
        "shards": N_TILE * (TILE_PX // CORE_PX) ** 2 * TIMES,
        "candidates": tables[0].num_rows,
        "whole_scan_s": whole_s,
        "two_nodes_over_one": round(statistics.median(whole_s["1"]) / statistics.median(whole_s["2"]), 2),
        "scans": found,
        "rows_equal": True,
        "load_at_the_end": round(os.getloadavg()[0], 2),
    }
    record.write(
        "two_nodes", result, [record.at_least("two nodes over one", result["two_nodes_over_one"], 1.5)], keep=keep
    )


if __name__ == "__main__":
    main()
