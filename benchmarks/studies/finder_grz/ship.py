"""
The checkpoint of `ground-grz`: a training that goes on from `ground-gri`, with a card that says what it saw.

    python -m benchmarks.studies.finder_grz.make_stamps --real ../shared/data --out grz
    lenspipe train --data grz --model small-cnn --task find --seed 1 --runner local --pretrained ground-gri \
        --config benchmarks/studies/finder_grz/train.toml --out ground-grz
    lenspipe calibrate ground-grz --data grz --split validation --method platt --in-place
    python -m benchmarks.studies.finder_grz.ship ground-grz --data grz

The same training on each of the sets ``--fold`` of `make_stamps` is what `judge` judges it by.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from benchmarks import record
from lenspipe.nn.card import ModelCard, read_card, write_card
from lenspipe.stamps.format import StampSet

NAME, BASE = "ground-grz", "ground-gri"
JUDGED = "finders_grz"
NOTE = (
    "Goes on from ground-gri. Real z in {z} hosts (DES, HSC); in KiDS sources z is made up of i, in fields simulated. "
    "No tile of g r z was scanned, and of lenses with z three candidates of Euclid Q1 were seen. Its score ranks, its "
    "probability is that of painted stamps."
)


def hosts_of(data: StampSet) -> dict[str, dict[str, int]]:
    """Number of hosts of each survey, by split."""
    split, host = (data.column(name).astype(str) for name in ("split", "host"))
    return {
        name: dict(sorted(Counter(one.split("-")[0] for one in set(host[split == name])).items()))
        for name in ("train", "validation")
    }


def told(card: ModelCard, hosts: dict[str, dict[str, int]], found: dict[str, Any]) -> ModelCard:
    """A card that says which hosts taught it and what `judge` found."""
    z = sum(hosts["train"].get(name, 0) for name in ("des", "hsc"))
    kept = {
        survey: {
            key: found[survey][key]
            for key in ("early", "arcs_against_hosts", "gain", "hosts_above_the_1_percent_of_kids")
        }
        for survey in ("kids", "des", "hsc")
    }
    facts = {
        "data": "painted stamps of finder_grz, seed 1",
        "command": "python -m benchmarks.studies.finder_grz.ship (train.toml)",
        "base": BASE,
        "hosts": hosts,
        "note": NOTE.format(z=z),
    }
    changes = {"name": NAME, "training": card.training | facts, "metrics": card.metrics | {"held_out_hosts": kept}}
    return card.model_copy(update=changes)


def judged() -> dict[str, Any]:
    """What the record says of it."""
    whole = json.loads((record.RESULTS / f"{JUDGED}.json").read_text())["result"]
    return dict(whole["finders"][NAME])


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Its stamps.")
def main(model: Path, data: Path) -> None:
    """Write into the card of a MODEL what it saw and what the record says of it."""
    write_card(model, told(read_card(model), hosts_of(StampSet.open(data)), judged()))


if __name__ == "__main__":
    main()
