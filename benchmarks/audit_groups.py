"""
What every group keeps when the sky is turned, mirrored or shifted: the audit of `lenspipe evaluate` on short trainings.

    python -m benchmarks.audit_groups --data STAMPS --config TRAIN.toml [--groups ...] [--also MODEL ...]

The record was made with `benchmarks/studies/finder_ground/train.toml`.

Each equivariant family, and `small-cnn` beside them, sees the same few batches of stamps of lenses and others, enough
for a score that is not constant; then its plain form is audited on validation stamps. `--also` adds trained models of
the same stamps. It is no comparison of how well they find lenses.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks import record
from lenspipe.cli.train import read_settings
from lenspipe.evaluate.audit import audit
from lenspipe.evaluate.judging import open_members
from lenspipe.learn.train import train
from lenspipe.nn.registry import families
from lenspipe.stamps.format import StampSet

BATCH, STEPS, WIDTH, N_STAMP = 16, 20, 2, 32
EXACT = 1e-4
"""Largest change of a score under what lies in the group."""
QUARTER_TURNS = ("c4", "c8", "c12", "c16", "d4", "d8", "d12", "d16", "so2", "o2")


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True), required=True, help="Stamps of lenses and others."
)
@click.option("--config", type=click.Path(path_type=Path, exists=True), required=True, help="Settings of the training.")
@click.option("--groups", default="", help="Only these, comma-separated: those of many elements take minutes each.")
@click.option("--also", multiple=True, help="Trained model on the same stamps; several times.")
def main(data: Path, config: Path, groups: str, also: tuple[str, ...]) -> None:
    """Audit the groups."""
    stamps = StampSet.open(data)
    wanted = [f"equivariant-{group}" for group in groups.split(",") if group]
    names = ["small-cnn", *(wanted or (name for name in families() if name.startswith("equivariant-")))]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            out = Path(folder) / name
            train(data, model=name, task="find", out=out, settings=short(config, name), seed=1)
            found.append({"model": name, "steps": STEPS, **audited(out, stamps)})
            check(found[-1])
    found += [{"model": Path(model).name, **audited(model, stamps)} for model in also]
    record.write("audit_groups", {"data": data.name, "n_stamp": N_STAMP, "models": found})
    print(table_of(found))


def short(config: Path, name: str) -> Any:
    """Settings of a short training of a small network."""
    settings = read_settings(config)
    sampling = settings.sampling.model_copy(update={"batch_size": BATCH, "steps_per_epoch": STEPS})
    optim = settings.optim.model_copy(update={"epochs": 1, "threads": 1, "ema_decay": 0.9})
    model = {"width": WIDTH if name.startswith("equivariant-") else 4 * WIDTH}
    return settings.model_copy(update={"sampling": sampling, "optim": optim, "model": model})


def audited(model: Path | str, stamps: StampSet) -> dict[str, Any]:
    """Every change of the audit, on validation stamps."""
    (member,) = open_members([model], stamps, device="cpu")
    changes = audit(member, stamps, split="validation", n_stamp=N_STAMP)
    return {"changes": {kind: {k: float(f"{v:.3g}") for k, v in change.items()} for kind, change in changes.items()}}


def check(row: dict[str, Any]) -> None:
    """What lies in the group must not change the score."""
    group = row["model"].removeprefix("equivariant-")
    if group in QUARTER_TURNS:
        assert row["changes"]["turns by 90 degrees"]["largest"] < EXACT, row
    if (group.startswith("d") and group in QUARTER_TURNS) or group == "o2":
        assert row["changes"]["mirrors"]["largest"] < EXACT, row


def table_of(found: list[dict[str, Any]]) -> str:
    """A Markdown table of the largest changes."""
    kinds = list(found[0]["changes"])
    lines = ["| model | " + " | ".join(kinds) + " |", "|" + "---|" * (len(kinds) + 1)]
    for row in found:
        cells = (f"{row['changes'][kind]['largest']:.1e} ({row['changes'][kind]['mean']:.0e})" for kind in kinds)
        lines.append(f"| {row['model']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
