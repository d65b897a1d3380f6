"""
What the odds of drawn substructure tell of `substructure-1` without a network, and beside one.

    python -m benchmarks.studies.dark_matter.odds --work FOLDER [--model equivariant-c8]

The stamps of the splits validation and test are fitted as `lenspipe stamps fit --clumps 6 --finer 3 --signals` does,
with lenses and priors of the training split. The odds as they are, taken as probabilities of the three classes, are one
classifier; a logistic regression of them on the validation split another; and one of them and of the logits of networks
that ``--work`` has trained (cells of `fitted.py`) a third. Judged on the test split, also by whether sources have
clumps. Amounts, of stamps that have the substructure, are judged as they are, with the redshifts of lens and source
told for the mass of a vortex, and after a linear regression on the validation split.
Writes `results/dark_matter_odds_substructure-1.json`.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import itertools
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import record
from benchmarks.studies.dark_matter.cells import Cell, cell_of, recipe_of, stamps_of
from benchmarks.studies.dark_matter.fitted import fit_of_clumps
from benchmarks.studies.substructure.judge import micro_interval
from benchmarks.timing import Clock
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.infer.fitted_run import write_fitted
from lenspipe.nn.fitted import ODDS_WAY
from lenspipe.simulate.cosmology import critical_density_msun_arcsec2
from lenspipe.stamps.format import StampSet, write_part
from lenspipe.tables import open_parquet

RECIPE, SPLITS = "substructure-1", ("validation", "test")
CLASSES = ("no_substructure", "subhalo", "vortex")
SNR = (0.0, 5.0, 15.0, 30.0, 60.0, np.inf)
"""Of what the substructure changes, against the noise of the sky."""
ROUNDS = 4
"""As `stamps fit` seeks lenses with clumps again."""
AMOUNTS = {"subhalo_mass_fraction": "subhalo", "subhalo_slope": "subhalo", "vortex_mass_msun": "vortex"}
"""What is estimated of each class."""
MOST = 10.0
"""Odds beyond which there is no doubt: their logarithm is cut, and goes on in its own logarithm."""
Array = NDArray[np.float64]


def of_split(source: StampSet, split: str, folder: Path) -> StampSet:
    """The stamps of a split as a data set of their own."""
    for part in source.parts:
        if not (folder / part.name).exists():
            with open_parquet(str(part)) as file:
                rows = file.read()
            write_part(rows.filter(pa.array([one == split for one in rows["split"].to_pylist()])), folder, part.name)
    return StampSet.open(folder)


def with_odds(work: Path, split: str, draws: int) -> StampSet:
    """The stamps of a split with their odds; what is there stays."""
    data = cell_of(RECIPE, "equivariant-c8", 1.0).data
    recipe, whole = recipe_of(data), StampSet.open(stamps_of(data, work))
    some = of_split(whole, split, work / "data" / f"{RECIPE}-{split}")
    out = work / "data" / f"{RECIPE}-{split}-odds-{draws}"
    told, how = fit_of_clumps(whole, recipe, draws=draws, rounds=ROUNDS)
    write_fitted(some, told, out, band=recipe.bands[0], resume=out.exists(), **how)
    return StampSet.open(out)


def odds_of(data: StampSet) -> Array:
    """Logarithms of the odds of each class to none ``(n, class)``, those of none 0; even where a stamp has none."""
    odds = np.stack([np.zeros(data.n), *(data.column(f"fitted_{c}_log_odds").astype(float) for c in CLASSES[1:])], 1)
    return np.nan_to_num(odds)


def features_of(odds: Array) -> Array:
    """Odds of each class and of the one to the other, near even as they are and beyond that by their size."""
    each = np.column_stack([odds[:, 1:], odds[:, 2] - odds[:, 1]])
    return np.column_stack([each.clip(-MOST, MOST), np.sign(each) * np.log1p(np.abs(each))])


def logits_of(cell: Cell, work: Path, split: str) -> Array:
    """What a trained network says of the fitted stamps of a split ``(n, class)``, in their order."""
    stamps = work / "data" / f"{RECIPE}-1-fitted{'-masses' * cell.masses}"
    folder, data, rows = (
        work / "cells" / RECIPE / f"fitted-{cell.short}-{cell.seed}",
        StampSet.open(stamps),
        list[pa.Table](),
    )
    members = open_members([folder], data)
    judged(members, data, JudgeSettings(split=split), on_rows=rows.append)
    table = pa.concat_tables(rows)
    p = np.stack([np.array(table[f"probability_{c}"].to_pylist(), float) for c in CLASSES], 1)
    own = dict(zip(table["stamp_id"].to_pylist(), np.log(p.clip(1e-9)), strict=True))
    return np.array([own[one] for one in data.column("stamp_id")[data.column("split") == split]])


def judge(p: Array, data: StampSet) -> dict[str, Any]:
    """Areas of probabilities ``(n, class)``: of all, of smooth and clumpy sources, and of what is strong and weak."""
    label, clumpy = data.column("label"), data.column("source_n_clump") > 0
    right, strength = label[:, None] == np.array(CLASSES), data.column("perturbation_snr").astype(float)

    def micro(own: NDArray[np.bool_]) -> float:
        return round(float(roc_auc_score(right[own].ravel(), p[own].ravel())), 4)

    told = np.array(CLASSES)[p.argmax(1)]
    score = {c: p[:, k] / np.maximum(p[:, k] + p[:, 0], 1e-300) for k, c in enumerate(CLASSES) if k}
    either = np.isin(label, CLASSES[1:]) & np.isin(told, CLASSES[1:])
    by_strength: dict[str, list[dict[str, Any]]] = {c: [] for c in CLASSES[1:]}
    for c, (low, high) in itertools.product(by_strength, itertools.pairwise(SNR)):
        own = (label == c) & (strength >= low) & (strength < high)
        used = own | (label == CLASSES[0])
        if own.any():
            area = round(float(roc_auc_score(own[used], score[c][used])), 4)
            by_strength[c].append({"from": low, "n": int(own.sum()), "area": area})
    return {
        "n": data.n,
        "auroc_micro": micro(np.ones(data.n, bool)),
        "auroc_micro_interval95": micro_interval(p, right),
        "per_class": {c: round(float(roc_auc_score(right[:, k], p[:, k])), 4) for k, c in enumerate(CLASSES)},
        "accuracy": round(float(accuracy_score(label, told)), 4),
        "either_told_right": round(float((label == told)[either].mean()), 4),
        "log_loss": round(float(log_loss(label, p, labels=list(CLASSES))), 4),
        "confusion": confusion_matrix(label, told, labels=CLASSES).tolist(),
        "smooth": {"n": int((~clumpy).sum()), "auroc_micro": micro(~clumpy)},
        "clumpy": {"n": int(clumpy.sum()), "auroc_micro": micro(clumpy)},
        "by_strength": by_strength,
    }


def regression() -> Any:
    """A logistic regression of features of one spread."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))


def regressed(seen: Array, label: NDArray[Any], shown: Array) -> Array:
    """Probabilities of a logistic regression, in the order of `CLASSES`."""
    model = regression().fit(seen, label)
    assert tuple(model.classes_) == CLASSES
    found: Array = model.predict_proba(shown)
    return found


def areas(p: Array, truth: NDArray[np.integer], clumpy: NDArray[np.bool_], lens: NDArray[np.integer]) -> dict[str, Any]:
    """Areas of probabilities ``(n, class)``, and the interval of the micro area by drawing lenses anew."""
    right = truth[:, None] == np.arange(3)

    def micro(own: NDArray[Any]) -> float:
        return float(roc_auc_score(right[own].ravel(), p[own].ravel()))

    rng, rows = np.random.default_rng(0), [np.flatnonzero(lens == k) for k in np.unique(lens)]
    again = [micro(np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))])) for _ in range(200)]
    return {
        "auroc_micro": round(micro(np.ones(len(p), bool)), 4),
        "auroc_micro_interval95": [round(float(q), 4) for q in np.quantile(again, (0.025, 0.975))],
        "per_class": {c: round(float(roc_auc_score(right[:, k], p[:, k])), 4) for k, c in enumerate(CLASSES)},
        "smooth": round(micro(~clumpy), 4),
        "clumpy": round(micro(clumpy), 4),
    }


def estimated(data: StampSet, name: str) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Truth, estimates and errors of an amount ``(n,)``, and which stamps of its class have an estimate."""
    factor, column = np.ones(data.n), name
    if name == "vortex_mass_msun":
        redshifts = (data.column(one).astype(float) for one in ("z_lens", "z_source"))
        factor = np.array([math.pi * float(critical_density_msun_arcsec2(*z)) for z in zip(*redshifts, strict=True)])
        column = "vortex_square_arcsec2"
    mean, error = (factor * data.column(f"fitted_{one}").astype(float) for one in (column, f"{column}_error"))
    return data.column(name).astype(float), mean, error, (data.column("label") == AMOUNTS[name]) & np.isfinite(mean)


def judge_amount(seen: StampSet, shown: StampSet, name: str, bounds: tuple[float, float]) -> dict[str, Any]:
    """How much better than a constant an amount is known; estimates cut to what the recipe draws."""

    def told(truth: Array, mean: Array, error: Array) -> dict[str, Any]:
        off = mean - truth
        again = np.random.default_rng(0).integers(0, len(off), (400, len(off)))
        better = truth.std() / np.sqrt(np.mean(off**2))
        spread = np.sqrt(np.var(truth[again], axis=1) / np.mean(off[again] ** 2, axis=1))
        return {
            "times_better": round(float(better), 3),
            "times_better_interval95": [round(float(q), 3) for q in np.quantile(spread, (0.025, 0.975))],
            "correlation": round(float(np.corrcoef(truth, mean)[0, 1]), 3),
            "within_one_error": round(float(np.mean(np.abs(off) < error)), 3),
            "median_error_over_spread": round(float(np.median(error) / truth.std()), 3),
        }

    (y, x, e, own), (truth, mean, error, used) = (estimated(one, name) for one in (seen, shown))
    x, mean = x.clip(*bounds), mean.clip(*bounds)
    model = LinearRegression().fit(np.column_stack([x, e])[own], y[own])
    left = y[own] - model.predict(np.column_stack([x, e])[own])
    # errors in proportion to those of the draws, and so large that two of three hold on the validation split
    scale = float(np.quantile(np.abs(left) / e[own], 0.6827))
    again = model.predict(np.column_stack([mean, error])[used])
    return {
        "n": int(used.sum()),
        "as_they_are": told(truth[used], mean[used], error[used]),
        "regressed": told(truth[used], again, scale * error[used]),
    }


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="The folder of `fitted.py`.")
@click.option("--draws", default=16384, show_default=True, help="Draws per class.")
@click.option("--split", "only", type=click.Choice(SPLITS), default=None, help="Fit the stamps of this split and stop.")
@click.option("--model", "families", multiple=True, help="A trained family of the sweep; may be repeated.")
@click.option("--steps", default=1600, show_default=True, help="Of its training.")
@click.option("--masses", is_flag=True, help="It was shown maps of point masses.")
@record.keep_option
def main(
    work: Path, draws: int, only: str | None, families: tuple[str, ...], steps: int, masses: bool, keep: bool
) -> None:
    """Fit, judge and record."""
    clock = Clock()
    if only:
        with_odds(work, only, draws)
        return
    data = {split: with_odds(work, split, draws) for split in SPLITS}
    odds = {split: odds_of(data[split]) for split in SPLITS}
    seen, shown, label = features_of(odds["validation"]), features_of(odds["test"]), data["validation"].column("label")
    found = {"odds": judge(softmax(odds["test"], axis=1), data["test"])}
    found["odds, regressed"] = judge(regressed(seen, label, shown), data["test"])
    logits: dict[str, list[Array]] = {split: [] for split in SPLITS}
    for family in families:
        cell = cell_of(RECIPE, family, 1.0, steps=steps, masses=masses)
        for split in SPLITS:
            logits[split].append(logits_of(cell, work, split))
        alone = logits["validation"][-1], logits["test"][-1]
        found[family] = judge(softmax(alone[1], axis=1), data["test"])
        both = np.column_stack([seen, alone[0]]), np.column_stack([shown, alone[1]])
        found[f"odds and {family}"] = judge(regressed(both[0], label, both[1]), data["test"])
    if len(families) > 1:
        both = np.column_stack([seen, *logits["validation"]]), np.column_stack([shown, *logits["test"]])
        found["odds and all"] = judge(regressed(both[0], label, both[1]), data["test"])
    said = recipe_of(cell_of(RECIPE, "equivariant-c8", 1.0).data).substructure
    assert said is not None
    ranges = {
        "subhalo_mass_fraction": said.mass_fraction,
        "subhalo_slope": said.slope,
        "vortex_mass_msun": said.vortex_mass_msun,
    }
    amounts = {name: judge_amount(data["validation"], data["test"], name, ranges[name]) for name in AMOUNTS}
    for name, amount in amounts.items():
        print(name, amount)
    for name, one in found.items():
        print(
            f"{name:40s}",
            one["auroc_micro"],
            one["auroc_micro_interval95"],
            one["per_class"],
            one["smooth"],
            one["clumpy"],
        )
    without = int(np.isnan(data["test"].column(f"fitted_{CLASSES[1]}_log_odds").astype(float)).sum())
    result = {
        "recipe": RECIPE,
        "draws": draws,
        "rounds": ROUNDS,
        "way": ODDS_WAY,
        "without_odds": without,
        "steps": steps,
        "masses": masses,
        "classifiers": found,
        "amounts": amounts,
    }
    record.write(f"dark_matter_odds_{RECIPE}", result | {"cpu_s": round(clock.cpu_s, 1)}, keep=keep)


if __name__ == "__main__":
    main()
