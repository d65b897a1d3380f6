"""
Starts from embeddings against starts from scratch, with 1 %, 10 % and 100 % of the labels.

    python -m benchmarks.studies.labels.self_supervision --data STAMPS --task find --out WORK --name find
    python -m benchmarks.studies.labels.self_supervision --data STRONG --task classify --fine --method deflect \
        --model equivariant-c4 --set model.n_parameter=26000 --set input.stamp_px=44 --seeds 3 --out WORK --name strong

Every network is of one family and size and has the same number of steps; what is measured is the test split. Run again,
it goes on where it was cut off. Writes `results/self_supervision_NAME.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.cli.options import assigned
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.learn.fit_state import STATE_FILE
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.card import CARD_FILE, read_card
from lenspipe.stamps.format import StampSet
from lenspipe.stats.neighbours import at_parts, told
from lenspipe.toml import put_over

PARTS = (0.01, 0.1, 1.0)
FINE = {"affine_fraction": 0.0, "blur_fraction": 0.0, "noise_fraction": 0.0, "background": 0.0, "gap_fraction": 0.0}
"""Augmentation that leaves substructure as it is: the eight views alone."""
FINE_VIEWS = FINE | {"brightness": 0.1, "noise_fraction": 0.75, "noise": [0.2, 1.0]}
"""Views of one stamp: the eight, another flux, some noise."""
SMALL_CNN = {"width": 12, "dropout": 0.0}
SCRATCH = "scratch"


@click.command()
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), required=True, help="Labelled stamps with splits."
)
@click.option("--task", type=click.Choice(["find", "classify"]), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the models.")
@click.option("--name", required=True, help="Name of the record.")
@click.option("--method", "methods", default=["simclr"], show_default=True, multiple=True, help="Ways to embed.")
@click.option("--model", "family", default="small-cnn", show_default=True)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Settings of all trainings.")
@click.option("--epochs", default=10, show_default=True)
@click.option("--steps", default=40, show_default=True, help="Steps per epoch.")
@click.option("--embed-epochs", default=20, show_default=True, help="Epochs of an embedding.")
@click.option("--embed-batch", default=128, show_default=True, help="Stamps per step of an embedding.")
@click.option("--fine", is_flag=True, help="Views and augmentation that keep substructure.")
@click.option("--seeds", default=1, show_default=True, help="Draws of the smallest part of the labels.")
@click.option("--judge-only", is_flag=True, help="Record what is trained, and train nothing.")
@record.keep_option
def main(
    data: Path,
    task: str,
    out: Path,
    name: str,
    methods: tuple[str, ...],
    family: str,
    assignments: tuple[str, ...],
    epochs: int,
    steps: int,
    embed_epochs: int,
    embed_batch: int,
    fine: bool,
    seeds: int,
    judge_only: bool,
    keep: bool,
) -> None:
    """Train, judge, record."""
    stamps, clock = StampSet.open(data), Clock()
    optim = {"epochs": epochs, "learning_rate": 0.003, "ema_decay": 0.98, "threads": 1, "frozen_epochs": 3}
    common: dict[str, Any] = {"model": SMALL_CNN if family == "small-cnn" else {}, "optim": optim}
    given = assigned(assignments)
    embeddings: dict[str, Any] = {}
    models: dict[str, Path | None] = {SCRATCH: None}
    for method in methods:
        view = common | {"method": method, "sampling": {"batch_size": embed_batch, "steps_per_epoch": steps}}
        view |= {"optim": optim | {"epochs": embed_epochs}, "embed": {"size": 64, "projection": 64}}
        if fine and method != "deflect":  # which has such views of its own
            view["augment"] = FINE_VIEWS
        models[method] = folder = out / f"{name}-{method}"
        settings = put_over(TrainSettings.model_validate(view), given, origin="--set")
        if not judge_only:
            train(data, model=family, task="embed", out=folder, settings=settings, seed=1)
        card = read_card(folder)
        embeddings[method] = {
            "settings": card.training["settings"],
            "validation": card.metrics["validation"],
            "seconds": card.training["seconds"],
            "test": embedding(folder, stamps, task),
        }
        print(method, embeddings[method], flush=True)
    if fine:
        common["augment"] = FINE
    rows = []
    for part, start, seed in asked(tuple(models), seeds):
        sampling = {"batch_size": 32, "steps_per_epoch": steps, "fraction": part}
        settings = put_over(TrainSettings.model_validate(common | {"sampling": sampling}), given, origin="--set")
        folder, before = out / f"{name}-{start}-{part:g}-{seed}", models[start]
        if judge_only and not (folder / CARD_FILE).exists():
            continue
        pretrained = None if before is None else str(before / STATE_FILE)
        card = train(data, model=family, task=task, out=folder, settings=settings, seed=seed, pretrained=pretrained)
        test = supervised(folder, stamps)
        rows.append({"part": part, "start": start, "seed": seed, "n_train": card.training["n_train"], "test": test})
        print(part, start, seed, test, flush=True)
        found = {
            "data": stamps.folder.name,
            "n": stamps.n,
            "task": task,
            "family": family,
            "set": list(assignments),
            "embeddings": embeddings,
            "rows": rows,
            "seconds_of_this_piece": clock.seconds(),
        }
        record.write(f"self_supervision_{name}", found, keep=keep)


def asked(starts: tuple[str, ...], seeds: int) -> list[tuple[float, str, int]]:
    """Parts of the labels, starts and seeds: of the smallest part all seeds, of the others the first."""
    return [
        (part, start, seed)
        for part in PARTS
        for seed in range(1, seeds + 1 if part == PARTS[0] else 2)
        for start in starts
    ]


def embedding(folder: Path, stamps: StampSet, task: str) -> list[dict[str, Any]]:
    """What neighbours and a linear probe tell of the test split with parts of the labels."""
    seen = {split: vectors(folder, stamps, split) for split in ("train", "test")}
    classes = sorted(set(seen["train"][1]))
    number = {name: int(name == "lens") if task == "find" else k for k, name in enumerate(classes)}
    (known, labels), (query, answers) = ((v, np.array([number[x] for x in told_])) for v, told_ in seen.values())
    n_class = 2 if task == "find" else len(classes)
    return at_parts(query, answers, known, labels, n_class, parts=PARTS, seed=0)


def vectors(folder: Path, stamps: StampSet, split: str) -> tuple[NDArray[np.float64], list[str]]:
    """Vectors and labels of a split."""
    members, rows = open_members((str(folder),), stamps), list[pa.Table]()
    judged(members, stamps, JudgeSettings(split=split), on_rows=rows.append)
    table = pa.concat_tables(rows)
    return np.stack(table["embedding"].to_pylist()).astype(np.float64), table["label"].to_pylist()


def supervised(folder: Path, stamps: StampSet) -> dict[str, Any]:
    """The same numbers of a network with labels; kept beside its weights, for the next piece."""
    kept = folder / "test.json"
    if kept.exists():
        before: dict[str, Any] = json.loads(kept.read_text())
        return before
    members, rows = open_members((str(folder),), stamps), list[pa.Table]()
    judged(members, stamps, JudgeSettings(split="test"), on_rows=rows.append)
    table, outputs = pa.concat_tables(rows), members[0].outputs
    label = np.array(table["label"].to_pylist())
    if outputs.task == "find":
        score = table["score"].to_numpy()
        found = told(np.stack([1 - score, score], axis=1), (label == "lens").astype(np.int64))
    else:
        p = np.stack([table[f"probability_{c}"].to_numpy() for c in outputs.classes], axis=1)
        found = told(p, np.array([outputs.classes.index(c) for c in label]))
    kept.write_text(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
