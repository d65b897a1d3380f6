"""
Methods of adaptation over three gaps, each judged on stamps of the target that no training saw.

    python -m benchmarks.studies.adaptation.measure --real ../shared/data --work FOLDER --minutes 15

``instruments``: classes of substructure between two cameras; ``candidates``: arcs painted on KiDS and DES galaxies to
Space Warps candidates; ``sim-to-real``: simulated stamps to painted ones; ``sim-to-real-augmented``: the same with a
finder's augmentation; ``sim-to-real-many`` and ``sim-to-real-matched``: that with more simulations, of the recipe as
it is and of one whose arcs and look-alikes are those of the target. A cell is a method, family, gap and seed; a method
that ends in ``-own`` has batch norms by each domain's own statistics; finished ones stay in ``--work``, so that the
same command goes on where it stopped. Each call writes what there is, with the recorded cells that ``--work`` lacks, to
`results/adaptation.json`, `.csv` and `.parquet`, and curves and features to `results/adaptation_curves.parquet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit, softmax

from benchmarks import record
from benchmarks.studies.adaptation import data
from benchmarks.timing import Clock
from lenspipe.evaluate.stream import iter_stamps, words
from lenspipe.infer.predict import Predictor
from lenspipe.infer.stamps import stamp_input
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.outputs import Classify
from lenspipe.stamps.format import StampSet
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval, roc, tpr_at_fpr
from lenspipe.stats.neighbours import told
from lenspipe.toml import Table, read_toml

SPACE = Path(__file__).with_name("space.toml")
SMOOTH, LENS = "no_substructure", "lens"
OWN, WIDE = "-own", "-wide"
"""Ending of a method whose batch norms take each domain by its own statistics (``adapt.statistics``), and of a
wider network of a family."""
CELL = ("gap", "family", "method", "seed")
N_SHOWN = 120
"""Features of each domain that are kept to be drawn."""


class Gap(Table):
    """A gap between two domains."""

    task: str
    settings: dict[str, Any] = {}
    """Put over the others."""
    family: dict[str, dict[str, Any]] = {}
    """Settings of families, in place of the others."""
    n_simulated: int = 1600
    """Stamps of the source where it is simulated."""
    recipe: dict[str, Any] = {}
    """Changes of its recipe."""
    apart: bool = False
    """Whether none of these changes, and each alone, are gaps as well."""

    def simulated(self, work: Path) -> Path:
        """The simulated source; gaps with the same stamps share them."""
        plain = self.n_simulated == Gap.model_fields["n_simulated"].default
        name = "simulated" if plain else f"simulated-{self.n_simulated}"
        return data.simulated(work, "-".join([name, *map(last, self.recipe)]), self.n_simulated, self.recipe)

    def taken_apart(self, name: str) -> dict[str, Gap]:
        """Gaps with none of the changes and with one each, where that is asked."""
        if not self.apart:
            return {}
        one = {last(key): {key: value} for key, value in self.recipe.items()}
        return {f"{name}-{k}": self.model_copy(update={"recipe": v}) for k, v in {"unchanged": {}, **one}.items()}


class Space(Table):
    """What is compared."""

    methods: tuple[str, ...]
    family: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    gap: dict[str, Gap]

    def gaps(self) -> dict[str, Gap]:
        """All gaps by name."""
        found = dict(self.gap)
        for name, gap in self.gap.items():
            found |= gap.taken_apart(name)
        return found


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of data and trainings.")
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--minutes", default=None, type=float, help="Begin no cell after so many. [default: no limit]")
@click.option("--only", multiple=True, help="Only cells whose name contains this.")
@record.keep_option
def main(work: Path, real: Path, seeds: int, minutes: float | None, only: tuple[str, ...], keep: bool) -> None:
    """Train what is not there, and record what is."""
    space, clock = read_toml(SPACE, Space), Clock()
    for cell in cells(space, seeds):
        name = name_of(cell)
        if any(part not in name for part in only) or (work / "cells" / f"{name}.json").exists():
            continue
        if minutes is not None and clock.wall_s > 60 * minutes:
            break
        measure(cell, space, real, work)
    write(work, space, keep)


def cells(space: Space, seeds: int) -> Iterator[dict[str, Any]]:
    """All cells, a whole table for each seed before the next one."""
    for seed in range(seeds):
        for family in space.family:
            for gap in space.gaps():
                for method in space.methods:
                    yield {"gap": gap, "family": family, "method": method, "seed": seed}


def last(key: str) -> str:
    """The last word of a dotted key."""
    return key.rpartition(".")[-1]


def name_of(cell: dict[str, Any]) -> str:
    """Name of a cell's files."""
    return "+".join(str(value) for value in cell.values())


def domains(name: str, gap: Gap, real: Path, work: Path, seed: int) -> tuple[Path, Path]:
    """Source and target of a gap."""
    if name == "instruments":
        return data.instruments(work)
    if name == "candidates":
        return data.painted(real, work), data.warps(real, work, seed)
    return gap.simulated(work), data.painted(real, work)


def measure(cell: dict[str, Any], space: Space, real: Path, work: Path) -> None:
    """Train a cell and judge it on the target's stamps that no training saw."""
    gap = space.gaps()[cell["gap"]]
    source, target = domains(cell["gap"], gap, real, work, cell["seed"])
    merged = {k: v | gap.settings.get(k, {}) for k, v in space.settings.items()}
    method = cell["method"].removesuffix(OWN)
    merged["adapt"] = merged["adapt"] | {"target": str(target)}
    if method != cell["method"]:
        merged["adapt"] |= {"statistics": "own"}
    network = gap.family.get(cell["family"], space.family[cell["family"]]) | {"dropout": 0.0}
    settings = TrainSettings.model_validate(merged | {"method": method, "model": network})
    name = name_of(cell)
    with Clock() as clock:
        card = train(
            source,
            model=cell["family"].removesuffix(WIDE),
            task=gap.task,
            out=work / "models" / name,
            settings=settings,
            seed=cell["seed"],
        )
    model = Predictor(work / "models" / name)
    splits = ("validation",) if cell["gap"] == "candidates" else ("validation", "test")
    score, truth, micro = judged(model, target, splits)
    history = pq.read_table(work / "models" / name / "history.parquet").to_pylist()
    drawn = [shown(model, folder) for folder in (source, target)]
    kept = {
        **cell,
        **micro,
        **numbers(score, truth),
        "domain_auc": card.metrics["validation"]["domain_auc"],
        "source_auc": card.metrics["validation"]["auc"],
        "verdict": card.metrics["adaptation"].get("verdict"),
        "n_target_label_read": card.metrics["adaptation"]["n_target_label_read"],
        "parameters": card.training["n_parameter"],
        **clock.seconds(),
        "settings": json.dumps(card.training["settings"]),
    }
    curves = {
        "history": [{k: v for k, v in row.items() if isinstance(v, float)} for row in history],
        "score": score.tolist(),
        "truth": truth.tolist(),
        "features": plane(*drawn),
    }
    (work / "cells").mkdir(exist_ok=True)
    (work / "cells" / f"{name}.json").write_text(json.dumps({"row": kept, "curves": curves}))
    print(name, {k: kept[k] for k in ("auroc", "source_auc", "domain_auc", "cpu_seconds")}, flush=True)


def stamps_of(model: Predictor, folder: Path, splits: tuple[str, ...]) -> tuple[NDArray[np.float32], list[str]]:
    """Network input and labels of the labelled rows of splits."""
    stamps, images, labels = StampSet.open(folder), [], []
    name, spec = next(iter(stamps.images.items()))
    for split in splits:
        for table, pixels in iter_stamps(stamps, [name], [], split=split):
            images.append(
                stamp_input(pixels[name], bands=spec.bands, pixel_scale_arcsec=spec.pixel_scale_arcsec, card=model.card)
            )
            labels += words(table, "label").tolist()
    return np.concatenate(images), labels


def judged(
    model: Predictor, target: Path, splits: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], dict[str, Any]]:
    """Score of a lens, or of any substructure, of the target's stamps; their truth; and numbers of all classes."""
    images, labels = stamps_of(model, target, splits)
    out, word = model.outputs(images), np.array(labels)
    if not isinstance(model.card.outputs, Classify):
        return expit(out[:, 0]), word == LENS, {}
    classes = list(model.card.outputs.classes)
    probability = softmax(out, axis=1)
    of_all = told(probability, np.array([classes.index(x) for x in labels]))
    micro = {f"{k}_3_classes": of_all[k] for k in ("auc", "auc_interval95", "accuracy", "accuracy_interval95")}
    return 1 - probability[:, classes.index(SMOOTH)], word != SMOOTH, {k: json.dumps(v) for k, v in micro.items()}


def numbers(score: NDArray[np.float64], truth: NDArray[np.bool_]) -> dict[str, Any]:
    """AUROC, rates at false positive rates, and the counts at a score of one half."""
    counts, said = ScoreCounts.of(score, truth), score > 0.5
    low, high = auroc_interval(counts)
    out: dict[str, Any] = {"auroc": auroc(counts), "auroc_low": low, "auroc_high": high}
    for rate in (1e-1, 1e-2):
        found = tpr_at_fpr(counts, rate)
        ends = found.get("interval95") or (None, None)
        out |= {f"tpr_at_{rate:g}": found["value"], f"tpr_at_{rate:g}_low": ends[0], f"tpr_at_{rate:g}_high": ends[1]}
    called = {"tp": said & truth, "fp": said & ~truth, "tn": ~said & ~truth, "fn": ~said & truth}
    return out | {name: int(rows.sum()) for name, rows in called.items()}


def shown(model: Predictor, folder: Path) -> tuple[NDArray[np.float64], list[str]]:
    """Features and labels of some validation stamps."""
    images, labels = stamps_of(model, folder, ("validation",))
    return model.features(images[:N_SHOWN]).astype(np.float64), labels[:N_SHOWN]


def plane(
    source: tuple[NDArray[np.float64], list[str]], target: tuple[NDArray[np.float64], list[str]]
) -> list[dict[str, Any]]:
    """Features of both domains in the plane of their largest variance."""
    both = np.concatenate([source[0], target[0]])
    scaled = (both - both.mean(axis=0)) / np.maximum(both.std(axis=0), 1e-9)
    _, _, axes = np.linalg.svd(scaled, full_matrices=False)
    at = scaled @ axes[:2].T
    names = [("source", label) for label in source[1]] + [("target", label) for label in target[1]]
    return [
        {"domain": domain, "label": label, "x": round(float(x), 3), "y": round(float(y), 3)}
        for (domain, label), (x, y) in zip(names, at, strict=True)
    ]


def write(work: Path, space: Space, keep: bool) -> None:
    """Table, curves and record of what there is."""
    made = [json.loads(path.read_text()) for path in sorted((work / "cells").glob("*.json"))]
    here = [named_target(one["row"]) for one in made]
    rows = recorded("adaptation", here) + here
    summary = []
    for gap, family, method in sorted({(row["gap"], row["family"], row["method"]) for row in rows}):
        some = [r for r in rows if (r["gap"], r["family"], r["method"]) == (gap, family, method)]
        values = {k: [r[k] for r in some] for k in ("auroc", "tpr_at_0.01", "tpr_at_0.1", "domain_auc", "source_auc")}
        known = {k: [v for v in found if v is not None] for k, found in values.items()}
        means = {k: {"mean": float(np.mean(v)), "spread": float(np.std(v))} for k, v in known.items() if v}
        interval = [float(np.mean([r[f"auroc_{end}"] for r in some])) for end in ("low", "high")]
        counts = {k: sum(r[k] for r in some) for k in ("tp", "fp", "tn", "fn")}
        summary.append(
            {
                "gap": gap,
                "family": family,
                "method": method,
                "seeds": len(some),
                "interval95": interval,
                **means,
                **of_all_classes(some),
                **counts,
            }
        )
    if keep:
        columns = dict.fromkeys(key for row in rows for key in row)
        table = pa.Table.from_pylist([{key: row.get(key) for key in columns} for row in rows])
        pq.write_table(table, record.RESULTS / "adaptation.parquet")
        pa.csv.write_csv(table, record.RESULTS / "adaptation.csv")
        points = [*recorded("adaptation_curves", here), *lines(made)]
        pq.write_table(pa.Table.from_pylist(points), record.RESULTS / "adaptation_curves.parquet")
    seconds = round(sum(r["cpu_seconds"] for r in rows), 1)
    result = {"space": space.model_dump(mode="json"), "cells": len(rows), "cpu_seconds": seconds, "summary": summary}
    record.write("adaptation", result, keep=keep)


def recorded(name: str, here: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a recorded table whose cells are none of these."""
    known = {tuple(row[key] for key in CELL) for row in here}
    found = pq.read_table(record.RESULTS / f"{name}.parquet").to_pylist()
    return [row for row in found if tuple(row[key] for key in CELL) not in known]


def of_all_classes(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a task of three classes, the area of all pairs of stamp and class (micro average), and the accuracy."""
    if rows[0].get("auc_3_classes") is None:
        return {}
    found: dict[str, Any] = {}
    for key in ("auc", "accuracy"):
        values = [json.loads(row[f"{key}_3_classes"]) for row in rows]
        ends = np.mean([json.loads(row[f"{key}_interval95_3_classes"]) for row in rows], axis=0)
        found[f"{key}_3_classes"] = {"mean": float(np.mean(values)), "spread": float(np.std(values))}
        found[f"{key}_3_classes_interval95"] = [float(end) for end in ends]
    return found


def named_target(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose settings name the target's folder alone."""
    settings = json.loads(row["settings"])
    settings["adapt"]["target"] = Path(settings["adapt"]["target"]).name
    return row | {"settings": json.dumps(settings)}


def lines(made: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Loss and ROC curves of all cells, and features of those of the first seed, a row per point."""
    for one in made:
        cell = {k: one["row"][k] for k in CELL}
        for epoch, row in enumerate(one["curves"]["history"]):
            for number in ("loss", "source_loss", "align_loss", "val_loss", "domain_auc", "target_auc", "auc"):
                if row.get(number) is not None:
                    yield cell | {"curve": number, "x": float(epoch), "y": row[number], "label": None}
        counts = ScoreCounts.of(np.array(one["curves"]["score"]), np.array(one["curves"]["truth"]))
        false, true, _ = roc(counts)
        some = np.unique(np.linspace(0, len(false) - 1, 80).astype(int))
        for k in some:
            at = {"x": round(false[k] / counts.n_other, 5), "y": round(true[k] / counts.n_lens, 5)}
            yield cell | {"curve": "roc", **at, "label": None}
        if cell["seed"] == 0:
            for point in one["curves"]["features"]:
                at = {"x": point["x"], "y": point["y"]}
                yield cell | {"curve": f"features of the {point['domain']}", **at, "label": point["label"]}


if __name__ == "__main__":
    main()
