"""
Likeness in a large catalogue: exact and by an index, with time, memory, and the index's recall.

    python -m benchmarks.similar_index --rows 1000000

Vectors of 128 float16 numbers lie near a surface of a few dimensions, as those of an embedding do (``--dimensions``;
many dimensions, as of white noise, are what no index does well). Each step runs in a process of its own, whose largest
memory is what is told; times are of the processor, one thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import pyarrow as pa

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.catalog.columns import HEALPIX, RUN_ID
from lenspipe.catalog.hats import Pixel, write_metadata, write_pixel
from lenspipe.catalog.index import build_index, most_similar_by_index
from lenspipe.catalog.similar import blocks_of, most_similar
from lenspipe.schema import embedding_field, measured_fields

SIZE, PER_PIXEL, ASKED = 128, 250_000, 20


@click.command()
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--dimensions", default=12, show_default=True)
@click.option("--step", type=click.Choice(["build", "exact", "index"]), default=None, hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), default=None, hidden=True)
@record.keep_option
def main(rows: int, dimensions: int, step: str | None, folder: Path | None, keep: bool) -> None:
    """Measure."""
    if step is not None and folder is not None:
        print(json.dumps({"build": build, "exact": ask, "index": ask}[step](folder, step)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        catalogue = Path(scratch) / "cat"
        write(catalogue, rows, dimensions)
        told = {name: in_a_process(name, catalogue) for name in ("exact", "build", "index")}
        megabytes = {
            name: round(sum(f.stat().st_size for f in (catalogue / name).rglob("*") if f.is_file()) / 1e6, 1)
            for name in ("hats_embedding", "hats_embedding_index")
        }
    result = {"rows": rows, "numbers": SIZE, "dimensions": dimensions, "megabytes": megabytes, **told}
    aims = [
        record.at_least("recall of the index at 100", told["build"]["recall"], 0.95),
        record.at_most("memory of an exact search, MiB", told["exact"]["peak_mib"], 1000),
        record.at_most("memory of a search by the index, MiB", told["index"]["peak_mib"], 1000),
    ]
    record.write(f"similar_index_{rows:.0e}".replace("+0", ""), result, aims, keep=keep)


def write(catalogue: Path, rows: int, dimensions: int) -> None:
    """A catalogue of two columns and its vectors."""
    rng = np.random.default_rng(1)
    first = rng.normal(0, 1 / np.sqrt(dimensions), (dimensions, SIZE))
    second = rng.normal(0, 1 / np.sqrt(SIZE), (SIZE, SIZE))
    pixels = [Pixel(4, number) for number in range(-(-rows // PER_PIXEL))]
    keys = [f for f in measured_fields(("r",)) if f.name in ("candidate_id", "ra", "dec", "score")]
    schema = pa.schema([pa.field(HEALPIX, pa.int64()), *keys, RUN_ID])
    with_vectors = schema.append(embedding_field(SIZE))
    for pixel in pixels:
        n = min(PER_PIXEL, rows - pixel.number * PER_PIXEL)
        vectors = np.tanh(3 * rng.normal(size=(n, dimensions)) @ first) @ second + rng.normal(0, 0.02, (n, SIZE))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        columns = {
            HEALPIX: pixel.span[0] + np.arange(n),
            "candidate_id": [f"c{pixel.number}_{i}" for i in range(n)],
            "ra": np.full(n, 10.0),
            "dec": np.linspace(-1, 1, n),
            "score": np.linspace(0, 1, n),
            "run_id": ["r"] * n,
        }
        table = pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema)
        write_pixel(catalogue / "hats" / "dataset", pixel, table)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), SIZE)
        table = table.append_column(with_vectors.field(-1), column)
        write_pixel(catalogue / "hats_embedding" / "dataset", pixel, table)
    write_metadata(catalogue / "hats", schema, pixels, name="b")
    write_metadata(catalogue / "hats_embedding", with_vectors, pixels, name="b")


def in_a_process(step: str, catalogue: Path) -> dict[str, float]:
    """What one step tells."""
    command = [sys.executable, "-m", "benchmarks.similar_index", "--step", step, "--folder", str(catalogue)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def build(catalogue: Path, step: str) -> dict[str, float]:
    """Time and memory of making the index, and its recall."""
    with Clock() as clock:
        facts = build_index(catalogue, threads=1)
    kept = {key: round(facts[key], 5) for key in ("recall", "recall_err", "recall_of", "recall_rows")}
    return {**clock.seconds(), **peak(), **kept}


def ask(catalogue: Path, step: str) -> dict[str, float]:
    """Time of a question for 100 rows, and memory."""
    asked = next(iter(blocks_of(catalogue)))[:: 65_536 // ASKED][:ASKED].astype(np.float32)
    search = most_similar if step == "exact" else most_similar_by_index
    with Clock() as clock:
        for vector in asked if step == "index" else asked[:3]:
            search(catalogue, vector, 100)
    n = len(asked) if step == "index" else 3
    return {"seconds_per_question": round(clock.cpu_s / n, 4), **peak()}


def peak() -> dict[str, float]:
    """
    Largest resident memory of this process so far; files that lie mapped count as far as they were read.

    Of the process's own memory: what ``getrusage`` tells is never below what its parent had when it began.
    """
    status = Path("/proc/self/status").read_text()
    return {"peak_mib": round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)}


if __name__ == "__main__":
    main()
