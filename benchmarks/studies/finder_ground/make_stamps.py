"""
Make the stamps that the g r i finders learn from: arcs and look-alikes painted on real galaxies, as a data set.

    python -m benchmarks.studies.finder_ground.make_stamps --real ../shared/data --out stamps

A data set of `lenspipe.stamps`: label ``lens`` or the kind of everything else, split by host, truth as columns; stamps
of 73 pixels at 0.27", to be cut to 65 by ``[input] stamp_px``. The rows depend on the seed and the counts, not on the
number of processes; parts that are there stay.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from benchmarks.studies.finder_ground.hosts import LEAST_SCALE_ARCSEC, hosts_by_scene, split_hosts
from lenspipe.cli import run_command
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.simulate.paint.scene import make_scenes, scene_size_px
from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema, write_part

log = logging.getLogger(__name__)

# the card fixes the grid, and by its stretch which arcs count as visible (HumVI's scales for CFHTLS)
PER_NJY_ARCSEC2 = 0.186**2 / 10 ** (0.4 * 1.4)
CARD = ModelCard(
    name="ground-gri",
    family="small-cnn",
    bands=("g", "r", "i"),
    pixel_scale_arcsec=0.27,
    scale_tolerance=0.1,
    min_scale_arcsec=0.15,
    max_scale_arcsec=0.36,
    stamp_px=65,
    stretch=Stretch(band_scales=tuple(s * PER_NJY_ARCSEC2 for s in (1.7, 0.6, 0.4)), alpha=0.09, q=1.0),
)
SHARES = {
    "lens": 0.40,
    "field-lens": 0.02,
    "plain": 0.31,
    "companions": 0.12,
    "young_ring": 0.04,
    "spiral_disc": 0.07,
    "spoiled": 0.04,
}
TEST_SHARES = {
    "lens": 0.12,
    "plain": 0.65,
    "companions": 0.11,
    "young_ring": 0.04,
    "spiral_disc": 0.04,
    "spoiled": 0.04,
}
SEED_OF_SPLIT = {"train": 0, "validation": 1, "test": 2}
PART_ROWS = 500
TRUTH = {
    "theta_e_arcsec": "Einstein radius of the painted lens; null without one",
    "arc_snr": "signal to noise of the painted arcs, all bands and pixels; null without arcs",
    "visible_px": "pixels of the input that the arcs change; null without arcs",
    "mag_i": "i magnitude of the host as it is shown, AB",
}
TRUTH_KEYS = {"mag_i": "mag"}
KINDS = {"young_ring": "ring", "spiral_disc": "spiral"}
"""Names in the data set, where they are not those of `lenspipe.simulate.negatives`."""
SPEC = ImageSpec(CARD.bands, scene_size_px(CARD), CARD.pixel_scale_arcsec)
SCHEMA = stamp_schema(
    {"image": SPEC},
    [
        pa.field("kind", pa.string(), metadata={"description": "kind of scene"}),
        pa.field("host_kind", pa.string(), metadata={"description": "what the host is"}),
        *(pa.field(name, pa.float64(), metadata={"description": text}) for name, text in TRUTH.items()),
    ],
)


@dataclass(frozen=True)
class Part:
    """Rows of one split, of all kinds: training reads neighbouring rows together, so kinds are mixed in every part."""

    split: str
    number: int
    counts: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """Name of the Parquet part."""
        return f"{self.split}-{self.number:05d}"


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the data set.")
@click.option("--train", "n_train", type=click.IntRange(min=0), default=24_000, show_default=True)
@click.option("--validation", "n_validation", type=click.IntRange(min=0), default=4_000, show_default=True)
@click.option("--test", "n_test", type=click.IntRange(min=0), default=60_000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True)
def command(real: Path, out: Path, n_train: int, n_validation: int, n_test: int, seed: int, processes: int) -> None:
    """Make the stamps that the g r i finders learn from."""
    counts = {"train": n_train, "validation": n_validation, "test": n_test}
    todo = [part for part in plan(counts) if not (out / f"{part.name}.parquet").exists()]
    make = functools.partial(make_part, real=real, out=out, seed=seed)
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done, name in enumerate(pool.map(make, todo), start=1):
            log.info("%d of %d parts: %s", done, len(todo), name)


def plan(counts: dict[str, int]) -> Iterator[Part]:
    """Parts of all splits, each with its share of every kind."""
    for split, n in counts.items():
        shares = TEST_SHARES if split == "test" else SHARES
        for number, start in enumerate(range(0, n, PART_ROWS)):
            end = min(start + PART_ROWS, n)
            yield Part(split, number, tuple((kind, round(end * x) - round(start * x)) for kind, x in shares.items()))


@functools.cache
def hosts_of(real: Path, split: str, seed: int) -> dict[str, list[Any]]:
    """Hosts of a split by kind of scene, read once a process."""
    return hosts_by_scene(split_hosts(real, CARD, seed=seed, splits=(split,))[split])


def make_part(part: Part, *, real: Path, out: Path, seed: int) -> str:
    """Make one part and write it; returns its name."""
    place = np.random.SeedSequence((seed, SEED_OF_SPLIT[part.split], part.number))
    scenes, truths = make_scenes(
        dict(part.counts),
        hosts_of(real, part.split, seed),
        seed=int(place.generate_state(1)[0]),
        card=CARD,
        least_scale_arcsec=LEAST_SCALE_ARCSEC,
    )
    order = np.random.default_rng(place).permutation(len(truths))
    truths = [truths[i] for i in order]
    njy = scenes[order].astype(np.float32) * np.float32(16 * CARD.pixel_scale_arcsec**2)
    n = len(truths)
    columns: dict[str, Any] = {
        "stamp_id": [f"{part.name}-{i:04d}" for i in range(n)],
        "image": image_column(njy, SPEC),
        "label": ["lens" if truth["is_lens"] else KINDS.get(truth["kind"], truth["kind"]) for truth in truths],
        "recipe": ["finder-scenes"] * n,
        "seed": [seed] * n,
        "host": [truth["host"] for truth in truths],
        "split": [part.split] * n,
        "kind": [KINDS.get(truth["kind"], truth["kind"]) for truth in truths],
        "host_kind": [truth["host_kind"] for truth in truths],
        **{name: [truth.get(TRUTH_KEYS.get(name, name)) for truth in truths] for name in TRUTH},
    }
    table = pa.table(
        [pa.array(columns[f.name], f.type) if f.name != "image" else columns["image"] for f in SCHEMA], schema=SCHEMA
    )
    write_part(table, out, part.name)
    return part.name


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(command)
