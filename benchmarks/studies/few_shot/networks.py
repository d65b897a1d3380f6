"""
Small networks on small stamps: k-shot accuracy of embeddings, and graph networks beside others of their size.

    python -m benchmarks.studies.few_shot.networks --work FOLDER

Data are those of the study of adaptations (`benchmarks.studies.adaptation.data`): classes of substructure, and
simulated finder stamps, on which the same embeddings show that the code tells what can be told. Finished trainings stay
in ``--work``. Writes `results/few_shot_networks.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import record
from benchmarks.studies.adaptation import data
from benchmarks.timing import Clock
from lenspipe.evaluate.audit import audit
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.stamps.format import StampSet

FAMILIES: dict[str, dict[str, Any]] = {
    "small-cnn": {"width": 5},
    "equivariant-c4": {"n_parameter": 9000, "depth": 2},
    "graph": {"width": 24, "depth": 2, "patch_px": 3},
}
COMMON: dict[str, Any] = {
    "augment": {
        "affine_fraction": 0.0,
        "noise_fraction": 0.25,
        "blur_fraction": 0.0,
        "background": 0.1,
        "gap_fraction": 0.0,
    },
    "sampling": {"batch_size": 32, "steps_per_epoch": 30},
    "optim": {"epochs": 8, "learning_rate": 0.005, "ema_decay": 0.98, "threads": 1},
}
LONGER = {"optim": COMMON["optim"] | {"epochs": 20}}
"""For classes of substructure, of which a small network has learnt half after 8 epochs."""
METHODS = ("simclr", "umtra", "prototypical")
KEPT = ("auc", "auroc", "auroc_micro", "auroc_interval95", "auroc_micro_interval95", "accuracy", "accuracy_interval95")


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of data and trainings.")
@click.option("--seeds", default=2, show_default=True)
@click.option("--task", "tasks", multiple=True, default=("find", "classify"), show_default=True)
@click.option("--method", "methods", multiple=True, default=METHODS, show_default=True, help="Embeddings; 'none'.")
@click.option("--name", default="few_shot_networks", show_default=True, help="Of the record.")
@record.keep_option
def main(work: Path, seeds: int, tasks: tuple[str, ...], methods: tuple[str, ...], name: str, keep: bool) -> None:
    """Train what is not there, and record all."""
    made = {"find": lambda: data.simulated(work), "classify": lambda: data.instruments(work)[0]}
    folders = {task: made[task]() for task in sorted(set(tasks))}
    found: dict[str, Any] = {"embeddings": [], "families": []}
    for task in tasks if methods != ("none",) else ():
        for method in methods:
            found["embeddings"].append(embedded(work, folders[task], task, method))
            print(json.dumps(found["embeddings"][-1]), flush=True)
    for seed in range(seeds):
        for task in tasks:
            for family, network in FAMILIES.items():
                found["families"].append(compared(work, folders[task], task, family, network, seed))
                print(json.dumps(found["families"][-1]), flush=True)
    settings = {"settings": COMMON, "for classes": LONGER, "networks": FAMILIES}
    record.write(name, found | settings, keep=keep)


def embedded(work: Path, folder: Path, task: str, method: str) -> dict[str, Any]:
    """An embedding of a task's stamps, and its episodes on the test split."""
    more = {"method": method, "model": {"width": 8, "dropout": 0.0}, "embed": {"size": 32, "projection": 32}}
    settings = TrainSettings.model_validate(
        COMMON | LONGER | more | ({} if method == "prototypical" else {"augment": None})
    )
    with Clock() as clock:
        train(folder, model="small-cnn", task="embed", out=work / f"embed-{task}-{method}", settings=settings, seed=0)
    stamps = StampSet.open(folder)
    members = open_members([work / f"embed-{task}-{method}"], stamps)
    (metrics,) = judged(members, stamps, JudgeSettings(split="test")).metrics().values()
    return {
        "task": task,
        "method": method,
        "few_shot": metrics["few_shot"],
        "linear": metrics["parts"][-1]["linear"],
        **clock.seconds(),
    }


def compared(work: Path, folder: Path, task: str, name: str, network: dict[str, Any], seed: int) -> dict[str, Any]:
    """A network of a family on a task: its numbers on the test split, and how turns change it."""
    longer = LONGER if task == "classify" else {}
    settings = TrainSettings.model_validate(COMMON | longer | {"model": network | {"dropout": 0.0}})
    out = work / f"family-{task}-{name}-{seed}"
    with Clock() as clock:
        card = train(folder, model=name, task=task, out=out, settings=settings, seed=seed)
    stamps = StampSet.open(folder)
    members = open_members([out], stamps)
    (metrics,) = judged(members, stamps, JudgeSettings(split="test")).metrics().values()
    changes = audit(members[0], stamps, split="test", n_stamp=16)
    return {
        "family": name,
        "task": task,
        "seed": seed,
        "n_trained": card.training["n_parameter"],
        "test": {key: value for key, value in metrics.items() if key in KEPT},
        "largest_change": {kind: float(np.round(change["largest"], 7)) for kind, change in changes.items()},
        **clock.seconds(),
    }


if __name__ == "__main__":
    main()
