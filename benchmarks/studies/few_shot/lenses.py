"""
One, five, ten and twenty graded Space Warps lenses against the look-alikes: prototypes, a linear probe, fine-tuning.

    python -m benchmarks.studies.few_shot.lenses --real ../shared/data

The trunk is that of the shipped finder. Each draw takes k lenses and k look-alikes as examples and judges all others;
the area is the mean over draws. A hundred grades are five folds. Writes `results/few_shot_lenses.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.studies.adaptation.data import graded
from benchmarks.studies.finder_survey.warps import all_warps
from benchmarks.studies.real_sky.ground import BANDS, CFHTLS_SCALE_ARCSEC, area
from benchmarks.timing import Clock
from lenspipe.finder.shots import RULES, fit, read_by_last
from lenspipe.infer.committee import N_VIEW, dihedral_view
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import find_model
from lenspipe.nn.checkpoint import load_model

SHOTS = (1, 5, 10, 20)
Array = NDArray[np.float64]


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--model", default="ground-gri", show_default=True)
@click.option("--draws", default=50, show_default=True, help="Of prototypes and probes.")
@click.option("--tuned-draws", default=4, show_default=True, help="Of fine-tunings, which take longer; 0 for none.")
@click.option("--steps", default=40, show_default=True, help="Of a fine-tuning.")
@record.keep_option
def main(real: Path, model: str, draws: int, tuned_draws: int, steps: int, keep: bool) -> None:
    """Measure all ways."""
    torch.set_num_threads(1)
    module, card = load_model(find_model(model))
    stamps, grade = all_warps(real)
    label = np.array([str(x) for x in graded(grade)])
    known = np.flatnonzero(label != "None")
    images = stamp_input(stamps[known], bands=BANDS, pixel_scale_arcsec=CFHTLS_SCALE_ARCSEC, card=card)
    truth = label[known] == "lens"
    with Clock() as clock:
        vectors = read_by_last(module, images)
        with torch.inference_mode():
            shipped = module(torch.from_numpy(images)).double().numpy()
    found: dict[str, Any] = {"n": {"lens": int(truth.sum()), "other": int((~truth).sum())}}
    found["as it is"] = area(shipped[truth], shipped[~truth])
    for rule in RULES:
        found[rule] = {
            str(k): over_draws(lambda t, k=k, r=rule: scored(vectors, truth, t, r), truth, k, draws) for k in SHOTS
        }
        found[rule]["hundred grades"] = over_folds(lambda t, r=rule: scored(vectors, truth, t, r), truth)
    if tuned_draws:
        with Clock() as tuning:
            tune = tuner(find_model(model), images, truth, steps)
            found["fine-tuning"] = {str(k): over_draws(tune, truth, k, tuned_draws) for k in SHOTS}
            found["fine-tuning"]["hundred grades"] = over_folds(tune, truth)
        found["fine-tuning"] |= {"steps": steps, "learning_rate": 3e-4, **tuning.seconds()}
    record.write("few_shot_lenses", {"model": card.name, "draws": draws, **found, **clock.seconds()}, keep=keep)


def scored(vectors: Array, truth: NDArray[np.bool_], train: NDArray[np.intp], rule: str) -> Array:
    """Logits of all stamps, of a rule that examples teach."""
    weight, constant = fit(vectors[train], truth[train], rule)
    return vectors.mean(axis=1) @ weight + constant


def tuner(folder: Path, images: NDArray[np.float32], truth: NDArray[np.bool_], steps: int) -> Any:
    """Fine-tuning of the whole network on examples in random views, its batch norms as they are."""

    def tune(train: NDArray[np.intp]) -> Array:
        module, _ = load_model(folder)
        optimizer = torch.optim.AdamW(module.parameters(), lr=3e-4, weight_decay=0.02)
        rng = np.random.default_rng(len(train))
        classes = [train[truth[train] == kind] for kind in (True, False)]
        for _ in range(steps):
            rows = np.concatenate([rng.choice(one, 8) for one in classes])
            views = np.stack([dihedral_view(images[k][None], int(rng.integers(N_VIEW)))[0] for k in rows])
            out = module(torch.from_numpy(np.ascontiguousarray(views)))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(out, torch.from_numpy(truth[rows]).float())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.inference_mode():
            return module(torch.from_numpy(images)).double().numpy()

    return tune


def over_draws(score: Any, truth: NDArray[np.bool_], k: int, draws: int) -> dict[str, Any]:
    """Mean area over draws of k examples of each class, and the middle 95 % of them."""
    areas = []
    for seed in range(draws):
        rng = np.random.default_rng([seed, k])
        train = np.concatenate([rng.permutation(np.flatnonzero(truth == kind))[:k] for kind in (True, False)])
        rest = np.setdiff1d(np.arange(len(truth)), train)
        logits = score(train)
        areas.append(area(logits[rest][truth[rest]], logits[rest][~truth[rest]])["value"])
    low, high = np.quantile(areas, [0.025, 0.975])
    return {
        "auc": round(float(np.mean(areas)), 4),
        "middle95": [round(float(low), 4), round(float(high), 4)],
        "draws": draws,
    }


def over_folds(score: Any, truth: NDArray[np.bool_], folds: int = 5) -> dict[str, Any]:
    """Mean area of folds that are told by the others, with the mean of their intervals over the root of folds."""
    rng = np.random.default_rng(0)
    fold = np.empty(len(truth), int)
    for kind in (True, False):
        rows = rng.permutation(np.flatnonzero(truth == kind))
        fold[rows] = np.arange(len(rows)) % folds
    found = []
    for number in range(folds):
        logits, test = score(np.flatnonzero(fold != number)), fold == number
        found.append(area(logits[test & truth], logits[test & ~truth]))
    value = float(np.mean([one["value"] for one in found]))
    half = float(np.mean([np.diff(one["interval95"])[0] for one in found])) / 2 / np.sqrt(folds)
    return {
        "auc": round(value, 4),
        "interval95": [round(max(0.0, value - half), 4), round(min(1.0, value + half), 4)],
        "n_train": int(len(truth) * (folds - 1) / folds),
    }


if __name__ == "__main__":
    main()
