"""
What the test stamps of `ground-gri` say of a finder, put into its card; weights, outputs and all else stay.

    python -m benchmarks.studies.real_sky.finders ground-gri ground-gri-graded --data stamps --real ../shared/data \
        --name ground_graded_test --out scores                        # writes the record
    python -m benchmarks.studies.finder_survey.card lenspipe/weights/ground-gri-graded
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from benchmarks import record
from lenspipe.nn.card import ModelCard, read_card, write_card

TESTED = "finders_ground_graded_test"
BASE = "ground-gri"
NOTE = (
    "Space Warps grades (44 lenses, 65 look-alikes of CFHTLS) beside painted KiDS stamps. It tells people's "
    "look-alikes better than {base}, and is worse at painted arcs: of {n_lens:,} of them in the test stamps {own:.3f} "
    "pass where 1 % of {n_other:,} ordinary ones do, {before:.3f} with {base} (docs/results/finder_survey.md). Its "
    "score ranks, its probability is that of painted stamps."
)


def judged(card: ModelCard, result: dict[str, Any]) -> ModelCard:
    """A card with the metrics of the test stamps and a note that quotes them, from the result of a record."""
    found = {one["model"]: one["simulated"]["ordinary"] for one in result["models"]}
    own, before = found[card.name], found[BASE]
    test = {key: own[key] for key in ("n_lens", "n_other", "auroc", "auroc_interval95")}
    passing = own["tpr_at_fpr"]["1e-2"]
    test["tpr_at_fpr_1e-2"], test["tpr_at_fpr_1e-2_interval95"] = passing["value"], passing["interval95"]
    note = NOTE.format(
        base=BASE,
        n_lens=own["n_lens"],
        n_other=own["n_other"],
        own=passing["value"],
        before=before["tpr_at_fpr"]["1e-2"]["value"],
    )
    changes = {"metrics": card.metrics | {"test": test}, "training": card.training | {"note": note}}
    return card.model_copy(update=changes)


def tested() -> dict[str, Any]:
    """Result of the record of the test stamps."""
    return dict(json.loads((record.RESULTS / f"{TESTED}.json").read_text())["result"])


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
def main(model: Path) -> None:
    """Put what the record says of a MODEL's folder into its card."""
    write_card(model, judged(read_card(model), tested()))


if __name__ == "__main__":
    main()
