"""
What vectors and anomaly scores of a scan cost: bytes of a million vectors, and time per row beside scoring.

    python -m benchmarks.scan_vectors

The networks have fresh weights: cost does not depend on them. The three readers take turns; the least processor time of
each is kept.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import torch

from benchmarks import record
from benchmarks.timing import rounds_s
from lenspipe.catalog.vectors import GROUP_ROWS
from lenspipe.nn.card import ModelCard
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.registry import build
from lenspipe.scan.readers.anomaly import AnomalyScore
from lenspipe.scan.readers.contract import Candidates, Checkpoint, CutoutKey
from lenspipe.scan.readers.embed import Embedder
from lenspipe.scan.readers.find import Finder
from lenspipe.schema import embedding_field, measured_fields
from lenspipe.tables import table_writer

SIZE, SIDE_PX, N_STAMP, TURNS = 128, 65, 256, 7
BANDS = ("g", "r", "i")


@click.command()
@click.option("--rows", default=1_000_000, show_default=True)
@record.keep_option
def main(rows: int, keep: bool) -> None:
    """Measure both."""
    with tempfile.TemporaryDirectory() as scratch:
        n_byte = bytes_of(rows, Path(scratch))
        cost = ms_per_row(Path(scratch))
    record.write(
        "scan_vectors",
        {"rows": rows, "numbers": SIZE, "megabytes": round(n_byte / 1e6, 1), "ms_per_row": cost, "stamp_px": SIDE_PX},
        [
            record.at_most("MB of a million vectors", n_byte / rows, 300),
            record.at_most("embedding over scoring", cost["embed"] / cost["score"], 1.3),
            record.at_most("anomaly (ae) over scoring", cost["ae"] / cost["score"], 1.3),
        ],
        keep=keep,
    )


def bytes_of(rows: int, folder: Path) -> int:
    """Size of the file of vectors that a scan would write."""
    rng, schema = np.random.default_rng(1), pa.schema([measured_fields(())[0], embedding_field(SIZE)])
    path = folder / "embeddings.parquet"
    with table_writer(path, schema) as writer:
        for start in range(0, rows, GROUP_ROWS):
            n = min(GROUP_ROWS, rows - start)
            vectors = rng.normal(size=(n, SIZE))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), SIZE)
            shards = [f"tile{(start + i) // 5000:06d}_0_0_n{(start + i) % 5000}" for i in range(n)]
            writer.write(pa.table([pa.array(sorted(shards)), column], schema=schema))
    return path.stat().st_size


def ms_per_row(folder: Path) -> dict[str, float]:
    """Time per candidate of a finder, an embedding of its family and size, and the plainest autoencoder."""
    finder = Finder(checkpoint(folder / "f", "small-cnn", "find"), False, None, None)
    embedder = Embedder(checkpoint(folder / "e", "small-cnn", "embed", size=SIZE, method="simclr"), None)
    anomaly = AnomalyScore(checkpoint(folder / "a", "ae", "anomaly"), None, 0.0)
    cutouts = np.random.default_rng(2).normal(0, 5, (N_STAMP, len(BANDS), SIDE_PX, SIDE_PX)).astype(np.float32)
    seen = {CutoutKey(BANDS, SIDE_PX): cutouts}
    shown = Candidates(N_STAMP, 0.2, dict.fromkeys(BANDS, 5.0), seen, {})
    work = {"score": finder.load("cpu"), "embed": embedder.load("cpu"), "ae": anomaly.load("cpu")}
    calls = {name: partial(look, shown) for name, look in work.items()}
    return {name: round(1e3 * min(times) / N_STAMP, 4) for name, times in rounds_s(calls, TURNS).items()}


def checkpoint(folder: Path, family: str, task: str, **outputs: object) -> Checkpoint:
    """A model with fresh weights."""
    torch.manual_seed(1)
    card = ModelCard.model_validate(
        {
            "name": folder.name,
            "family": family,
            "task": task,
            "bands": BANDS,
            "pixel_scale_arcsec": 0.2,
            "scale_tolerance": 0.1,
            "min_scale_arcsec": 0.1,
            "max_scale_arcsec": 0.4,
            "stamp_px": SIDE_PX,
            "stretch": {"band_scales": (0.01, 0.01, 0.01), "alpha": 0.1, "q": 1.0},
            **outputs,
        }
    )
    save_model(folder, build(family, len(BANDS), SIDE_PX, card.n_out), card)
    return Checkpoint.open(folder)


if __name__ == "__main__":
    main()
