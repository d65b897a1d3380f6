"""
Starts from an embedding against starts from scratch, with 1 %, 10 % and 100 % of the labels.

    python -m benchmarks.studies.labels.self_supervision --data STAMPS --task classify --out WORK --name NAME

Every network is of one family and size and has the same number of steps; what is measured is the test split.
Writes `results/self_supervision_NAME.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks import record
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.stamps.format import StampSet

PARTS = (0.01, 0.1, 1.0)
KEPT = (
    "auc",
    "auroc",
    "auroc_micro",
    "auroc_macro",
    "auroc_interval95",
    "accuracy",
    "accuracy_interval95",
    "parts",
    "n",
)


@click.command()
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), required=True, help="Labelled stamps with splits."
)
@click.option("--task", type=click.Choice(["find", "classify"]), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the models.")
@click.option("--name", required=True, help="Name of the record.")
@click.option("--method", default="simclr", show_default=True)
@click.option("--width", default=12, show_default=True)
@click.option("--stamp-px", default=None, type=int, help="Side that the networks see.")
@click.option("--epochs", default=10, show_default=True)
@click.option("--steps", default=40, show_default=True, help="Steps per epoch.")
def main(
    data: Path, task: str, out: Path, name: str, method: str, width: int, stamp_px: int | None, epochs: int, steps: int
) -> None:
    """Train, judge, record."""
    stamps = StampSet.open(data)
    common: dict[str, Any] = {
        "model": {"width": width, "dropout": 0.0},
        "optim": {"epochs": epochs, "learning_rate": 0.003, "ema_decay": 0.98, "threads": 1, "frozen_epochs": 0},
    }
    if stamp_px is not None:
        common["input"] = {"stamp_px": stamp_px}
    view = common | {"method": method, "sampling": {"batch_size": 128, "steps_per_epoch": steps}}
    if method == "simclr":
        view["embed"] = {"size": 64, "projection": 64}
    first = out / f"{name}-{method}"
    train(data, model="small-cnn", task="embed", out=first, settings=TrainSettings.model_validate(view), seed=1)
    rows = []
    for part in PARTS:
        for start in ("scratch", method):
            sampling = {"batch_size": 32, "steps_per_epoch": steps, "fraction": part}
            settings = TrainSettings.model_validate(common | {"sampling": sampling})
            folder = out / f"{name}-{start}-{part:g}"
            pretrained = None if start == "scratch" else str(first / "weights.safetensors")
            card = train(
                data, model="small-cnn", task=task, out=folder, settings=settings, seed=1, pretrained=pretrained
            )
            metrics = measured(folder, stamps)
            rows.append({"part": part, "start": start, "n_train": card.training["n_train"], "test": metrics})
            print(part, start, {k: v for k, v in metrics.items() if k != "parts"}, flush=True)
    record.write(
        f"self_supervision_{name}",
        {
            "data": stamps.folder.name,
            "task": task,
            "method": method,
            "settings": view,
            "embedding": measured(first, stamps),
            "rows": rows,
        },
    )


def measured(folder: Path, stamps: StampSet) -> dict[str, Any]:
    """What the judge of its task says of a model on the test split."""
    members = open_members((str(folder),), stamps)
    found = judged(members, stamps, JudgeSettings(split="test")).metrics()[members[0].name]
    return {key: value for key, value in found.items() if key in KEPT}


if __name__ == "__main__":
    main()
