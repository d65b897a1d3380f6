"""
Make the stamps that `ground-grz` learns from: the recipe of `finder_ground` on hosts in g r z (`hosts`).

    python -m benchmarks.studies.finder_grz.make_stamps --real ../shared/data --out grz
    python -m benchmarks.studies.finder_grz.make_stamps --real ../shared/data --out grz --fold 0 --fold 1 --fold 2

The second line writes ``grz-fold-0`` and so on beside it: the same stamps without those on the hosts with z of a fold.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.studies.finder_ground.hosts import LEAST_SCALE_ARCSEC, hosts_by_scene
from benchmarks.studies.finder_ground.make_stamps import SEED_OF_SPLIT, Part, plan
from benchmarks.studies.finder_grz.hosts import CARD, fold_of, four_band_hosts, split_grz
from lenspipe.simulate.paint.host import Host
from lenspipe.simulate.paint.scene import make_scenes, scene_size_px
from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema, write_part

SPEC = ImageSpec(CARD.bands, scene_size_px(CARD), CARD.pixel_scale_arcsec)
SCHEMA = stamp_schema(
    {"image": SPEC},
    [
        pa.field("kind", pa.string(), metadata={"description": "kind of scene"}),
        pa.field("survey", pa.string(), metadata={"description": "survey of the host"}),
    ],
)


def make_part(part: Part, hosts: dict[str, list[Host]], out: Path, seed: int) -> None:
    """Make one part and write it."""
    place = np.random.SeedSequence((seed, SEED_OF_SPLIT[part.split], part.number))
    scenes, truths = make_scenes(
        dict(part.counts), hosts, seed=int(place.generate_state(1)[0]), card=CARD, least_scale_arcsec=LEAST_SCALE_ARCSEC
    )
    order = np.random.default_rng(place).permutation(len(truths))
    truths = [truths[i] for i in order]
    n = len(truths)
    columns: dict[str, Any] = {
        "stamp_id": [f"{part.name}-{i:04d}" for i in range(n)],
        "image": image_column(scenes[order].astype(np.float32) * np.float32(16 * CARD.pixel_scale_arcsec**2), SPEC),
        "label": ["lens" if truth["is_lens"] else "nonlens" for truth in truths],
        "recipe": ["finder-scenes"] * n,
        "seed": [seed] * n,
        "host": [truth["host"] for truth in truths],
        "split": [part.split] * n,
        "kind": [truth["kind"] for truth in truths],
        "survey": [truth["host"].split("-")[0] for truth in truths],
    }
    arrays = [columns[f.name] if f.name == "image" else pa.array(columns[f.name], f.type) for f in SCHEMA]
    write_part(pa.table(arrays, schema=SCHEMA), out, part.name)


def without_fold(data: Path, out: Path, fold: int, of: list[Host]) -> None:
    """The stamps of a data set that are not on the hosts with z of a fold."""
    out.mkdir(parents=True)
    left_out = pa.array([host.name for host in of if fold_of(host.name, of) == fold])
    for part in sorted(data.glob("*.parquet")):
        table = pq.read_table(part)
        pq.write_table(table.filter(pc.invert(pc.is_in(table["host"], left_out))), out / part.name)
    for file in data.glob("*.json"):
        shutil.copy(file, out)


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the data set.")
@click.option("--train", "n_train", type=click.IntRange(min=0), default=12_000, show_default=True)
@click.option("--validation", "n_validation", type=click.IntRange(min=0), default=2_000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--fold", "folds", type=click.IntRange(0, 2), multiple=True, help="Write sets without these folds.")
def main(real: Path, out: Path, n_train: int, n_validation: int, seed: int, folds: tuple[int, ...]) -> None:
    """Make the stamps that `ground-grz` learns from."""
    for split, n in (("train", n_train), ("validation", n_validation)):
        todo = [part for part in plan({split: n}) if not (out / f"{part.name}.parquet").exists()]
        if not todo:
            continue
        hosts = hosts_by_scene(split_grz(real, split, seed=seed))
        early = {name: sum(h.name.startswith(name) for h in hosts["lens"]) for name in ("kids", "des", "hsc")}
        print(split, "early types", early, flush=True)
        for part in todo:
            make_part(part, hosts, out, seed)
            print(part.name, flush=True)
    of = four_band_hosts(real, seed) if folds else []
    for fold in folds:
        without_fold(out, out.with_name(f"{out.name}-fold-{fold}"), fold, of)


if __name__ == "__main__":
    main()
