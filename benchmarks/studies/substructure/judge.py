"""
Classifiers and regressions of substructure on one data set, and how strong a perturbation they need.

    python -m benchmarks.studies.substructure.judge --data STAMPS --classifier MODEL... --regression MODEL...

Writes `results/substructure.json` and prints Markdown tables. Subhalos and vortices are also judged apart, each against
the stamps without substructure, by the signal-to-noise of the change that they make (`perturbation_snr`, with the
smooth lens not refitted): what is below the noise cannot be told by anybody.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.studies.real_sky.finders import speed_ms
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.evaluate.stream import Member
from lenspipe.stamps.format import StampSet
from lenspipe.stats import curves
from lenspipe.stats.counts import ScoreCounts

SNR_EDGES = (0, 10, 30, 100, 300, np.inf)
SMOOTH = "no_substructure"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Stamps of a recipe.")
@click.option("--split", default="test", show_default=True)
@click.option("--classifier", "classifiers", multiple=True, help="Folder of a classifier; several times.")
@click.option("--regression", "regressions", multiple=True, help="Folder of a regression; several times.")
@click.option("--name", default="substructure", show_default=True, help="Name of the result.")
def main(data: Path, split: str, classifiers: tuple[str, ...], regressions: tuple[str, ...], name: str) -> None:
    """Judge models of substructure."""
    stamps = StampSet.open(data)
    found = {
        "data": stamps.folder.name,
        "split": split,
        "n_train": int((stamps.column("split") == "train").sum()),
        "classifiers": classifier_results(classifiers, stamps, split) if classifiers else [],
        "regressions": regression_results(regressions, stamps, split) if regressions else [],
    }
    record.write(name, found)
    print(tables_of(found))


def classifier_results(models: tuple[str, ...], stamps: StampSet, split: str) -> list[dict[str, Any]]:
    """Metrics of each classifier, and its areas by the strength of the perturbation."""
    members, rows = open_members(models, stamps), []
    found = judged(members, stamps, JudgeSettings(split=split), on_rows=rows.append).metrics()
    table = pa.concat_tables(rows)
    snr = dict(zip(stamps.column("stamp_id"), stamps.column("perturbation_snr"), strict=True))
    results = []
    for given, member in zip(models, members, strict=True):
        mine = table.filter(pc.equal(table["model"], member.name))
        classes = member.outputs.classes
        p = np.stack([mine[f"probability_{c}"].to_numpy() for c in classes], axis=1)
        label = np.array(mine["label"].to_pylist())
        strength = np.array([snr[i] for i in mine["stamp_id"].to_pylist()], float)
        metrics = found[member.name]
        assert abs(metrics["accuracy"] - (np.array(classes)[p.argmax(1)] == label).mean()) < 1e-9
        metrics["auroc_micro_interval95"] = micro_interval(p, label[:, None] == np.array(classes))
        results.append(facts_of(given, member) | {"metrics": metrics, "by_snr": by_snr(p, classes, label, strength)})
    return results


def micro_interval(p: NDArray[np.float64], truth: NDArray[np.bool_], n_turn: int = 400) -> list[float]:
    """95 % interval of the micro area: stamps drawn anew, as the scores of a stamp belong together."""
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(n_turn):
        rows = rng.integers(0, len(p), len(p))
        areas.append(curves.auroc(ScoreCounts.of(p[rows].ravel(), truth[rows].ravel())))
    return [float(x) for x in np.quantile(areas, (0.025, 0.975))]


def by_snr(
    p: NDArray[np.float64], classes: tuple[str, ...], label: NDArray[np.str_], snr: NDArray[np.float64]
) -> dict[str, list[dict[str, Any]]]:
    """Area of each class against the stamps without substructure, by the signal-to-noise of what it changes."""
    smooth = classes.index(SMOOTH)
    out: dict[str, list[dict[str, Any]]] = {}
    for k, name in enumerate(classes):
        if name == SMOOTH:
            continue
        score = p[:, k] / np.maximum(p[:, k] + p[:, smooth], np.finfo(float).tiny)
        bins = []
        for low, high in itertools.pairwise(SNR_EDGES):
            chosen = (label == name) & (snr >= low) & (snr < high)
            used = chosen | (label == SMOOTH)
            one: dict[str, Any] = {"from": low, "to": high if np.isfinite(high) else None, "n": int(chosen.sum())}
            if chosen.any():
                counts = ScoreCounts.of(score[used], chosen[used])
                one |= {"auroc": curves.auroc(counts), "interval95": list(curves.auroc_interval(counts))}
            bins.append(one)
        out[name] = bins
    return out


def regression_results(models: tuple[str, ...], stamps: StampSet, split: str) -> list[dict[str, Any]]:
    """Metrics of each regression."""
    members = open_members(models, stamps)
    found = judged(members, stamps, JudgeSettings(split=split)).metrics()
    return [
        facts_of(given, member) | {"metrics": found[member.name]} for given, member in zip(models, members, strict=True)
    ]


def facts_of(given: str, member: Member) -> dict[str, Any]:
    """What a model is and how it was trained."""
    card = member.card
    return {
        "model": Path(given).name,
        "family": card.family,
        "parameters_as_stored": member.predictor.n_parameter,
        "ms_per_stamp": speed_ms(member),
        "training": card.training,
        "validation": card.metrics.get("validation"),
    }


def tables_of(found: dict[str, Any]) -> str:
    """Markdown tables of what counts."""
    lines = ["| classifier | ms a stamp | micro AUC | macro AUC | accuracy |", "|" + "---|" * 5]
    for one in found["classifiers"]:
        m = one["metrics"]
        micro = f"{m['auroc_micro']:.4f} {m['auroc_micro_interval95']}"
        lines.append(
            f"| {one['model']} | {one['ms_per_stamp']} | {micro} | {m['auroc_macro']:.4f} | {m['accuracy']:.3f} |"
        )
        for name, bins in one["by_snr"].items():
            areas = ", ".join(f"{b['from']}-: {b.get('auroc', float('nan')):.3f} ({b['n']})" for b in bins)
            lines.append(f"|   {name} | {areas} |||")
    for one in found["regressions"]:
        lines.append(f"| {one['model']} | {one['metrics']['targets']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
