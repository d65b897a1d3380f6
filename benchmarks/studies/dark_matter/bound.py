"""
The best that any classifier can reach on a recipe, class by class and by the strength of the signal.

    python -m benchmarks.studies.dark_matter.bound RECIPE [--n 60] [--set KEY=VALUE ...] [--name NAME]

Lenses of the recipe are drawn as `lenspipe simulate` draws them and imaged without noise. What the substructure of a
class changes is a signal in units of the noise; the parameters of the smooth lens and of the source, as far as the
recipe does not fix them, are marginalised with the widths of their priors (`ideal.py`). Two observers:

- *told* knows, for every image, which signal each class would have there. No classifier is above it: **the bound**.
- *untold* knows only how signals are distributed (from ``--draws`` draws per class and lens), which is a rule that
  could be used by somebody who knows the smooth lens to first order. What it reaches can be reached.

The best classifier lies between the two. On ``--fits`` lenses the smooth lens is fitted to the image with substructure
(nonlinear least squares with the priors), and what is left is compared with the first-order number.
Writes `results/dark_matter_bound_NAME.json`.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import itertools
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from benchmarks import record
from benchmarks.studies.dark_matter.ideal import (
    best_errors,
    coordinates,
    information_of_spread,
    marginalised_products,
    told_posteriors,
    untold_posteriors,
)
from benchmarks.studies.dark_matter.smooth import SmoothLens, smooth_lens
from benchmarks.timing import Clock
from lenspipe.simulate.recipe import SubstructureTable, read_recipe
from lenspipe.stats import curves
from lenspipe.stats.counts import ScoreCounts
from lenspipe.toml import parse_assignment

CLASSES = ("no_substructure", "subhalo", "vortex")
EDGES = (0.0, 1.0, 3.0, 5.0, 10.0, 30.0, np.inf)
AMOUNTS = {"subhalo": "subhalo_mass_fraction", "vortex": "vortex_mass_msun"}
"""What a regression is to tell of each class."""
N_NOISE = 20
"""Noise realisations per lens, class and signal."""
Array = NDArray[np.float64]


@click.command()
@click.argument("recipe_name")
@click.option("--n", "n_lens", default=60, show_default=True, help="Lenses.")
@click.option("--draws", "n_draw", default=48, show_default=True, help="Signals per class and lens.")
@click.option("--fits", "n_fit", default=6, show_default=True, help="Lenses that are fitted.")
@click.option("--seed", default=7, show_default=True)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Changes of the recipe.")
@click.option("--name", default=None, help="Name of the result; the recipe's where left out.")
@record.keep_option
def main(
    recipe_name: str,
    n_lens: int,
    n_draw: int,
    n_fit: int,
    seed: int,
    assignments: tuple[str, ...],
    name: str | None,
    keep: bool,
) -> None:
    """Measure the bound of a recipe."""
    changes = dict(parse_assignment(text) for text in assignments)
    recipe = read_recipe(recipe_name, changes=changes)
    clock = Clock()
    lenses = [one_lens(smooth_lens(recipe, seed, k), seed, k, n_draw) for k in range(n_lens)]
    fits = [fitted(smooth_lens(recipe, seed, k), seed, k) for k in range(n_fit)]
    result = {
        "recipe": recipe.name,
        "changes": changes,
        "n": n_lens,
        "draws": n_draw,
        "signal_to_noise": {
            kind: {
                "as_drawn": quartiles([one["as_drawn"][kind] for one in lenses]),
                "marginalised": quartiles([one["left"][kind] for one in lenses]),
            }
            for kind in CLASSES[1:]
        },
        "told": areas([one["told"] for one in lenses]),
        "untold": areas([one["untold"] for one in lenses]),
        "by_signal": by_signal(lenses),
        "regression": regression(lenses, recipe.substructure) if recipe.substructure else None,
        "fits": fits,
        "information_on_log_amount": quartiles([[one["amount"]] for one in lenses]),
        "cpu_s": round(clock.cpu_s, 1),
    }
    record.write(f"dark_matter_bound_{name or recipe.name}", result, keep=keep)


def one_lens(lens: SmoothLens, seed: int, item: int, n_draw: int) -> dict[str, Any]:
    """Both observers on one lens: posteriors ``(draw of data, class)`` with the truth, and signal-to-noise."""
    rng = np.random.default_rng([seed, 17, item])
    smooth = lens.truth()
    drawn = {kind: [lens.draw(rng, kind) for _ in range(n_draw)] for kind in CLASSES[1:]}
    signals = {kind: np.array([lens.perturbed(d) - smooth for d, _ in some]) for kind, some in drawn.items()}
    stacked = np.concatenate(list(signals.values()))
    products = marginalised_products(stacked, *lens.jacobian())
    places = coordinates(products)
    split = {kind: places[k * n_draw : (k + 1) * n_draw] for k, kind in enumerate(signals)}
    n_axis = places.shape[1]
    half = n_draw // 2
    nothing = np.zeros((1, n_axis))
    truth = np.repeat(np.arange(3), N_NOISE)
    told, untold, strengths = [], [], []
    for k in range(half):
        own = np.concatenate([nothing, *(split[kind][k : k + 1] for kind in signals)])
        told.append(told_posteriors(own, truth, rng))
        data = own[truth] + rng.standard_normal((len(truth), n_axis))
        untold.append(untold_posteriors(data, [nothing, *(split[kind][half:] for kind in signals)]))
        strengths.append(np.linalg.norm(own, axis=1)[truth])
    truths = np.tile(truth, half)
    return {
        "told": (np.concatenate(told), truths),
        "untold": (np.concatenate(untold), truths),
        "strength": np.concatenate(strengths),
        "as_drawn": {kind: np.linalg.norm(s, axis=1) for kind, s in signals.items()},
        "left": {kind: np.linalg.norm(s, axis=1) for kind, s in split.items()},
        "amount": information_of_spread(split["subhalo"]),
        "facts": {kind: [facts.get(AMOUNTS[kind], np.nan) for _, facts in some] for kind, some in drawn.items()},
    }


def areas(parts: list[tuple[Array, NDArray[np.integer]]]) -> dict[str, Any]:
    """Micro, macro and one against the rest, all lenses together; the interval from lenses drawn anew."""

    def measured(chosen: list[int]) -> tuple[float, list[float]]:
        posterior, truth = (np.concatenate([parts[k][j] for k in chosen]) for j in (0, 1))
        right = truth[:, None] == np.arange(3)
        micro = curves.auroc(ScoreCounts.of(posterior.ravel(), right.ravel()))
        return micro, [curves.auroc(ScoreCounts.of(posterior[:, c], right[:, c])) for c in range(3)]

    micro, each = measured(list(range(len(parts))))
    rng = np.random.default_rng(0)
    again = [measured(list(rng.integers(0, len(parts), len(parts)))) for _ in range(100)]
    posterior, truth = (np.concatenate([part[j] for part in parts]) for j in (0, 1))
    return {
        "auroc_micro": round(micro, 4),
        "auroc_micro_interval95": interval([m for m, _ in again]),
        "auroc_macro": round(float(np.mean(each)), 4),
        "per_class": {c: round(a, 4) for c, a in zip(CLASSES, each, strict=True)},
        "per_class_interval95": {c: interval([e[k] for _, e in again]) for k, c in enumerate(CLASSES)},
        "accuracy": round(float((posterior.argmax(axis=1) == truth).mean()), 4),
    }


def by_signal(lenses: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Area of each class against no substructure by the signal-to-noise that marginalisation leaves."""
    strength = np.concatenate([one["strength"] for one in lenses])
    found: dict[str, list[dict[str, Any]]] = {}
    for c, kind in enumerate(CLASSES[1:], start=1):
        rows = []
        for low, high in itertools.pairwise(EDGES):
            row: dict[str, Any] = {"from": low, "to": None if np.isinf(high) else high}
            for observer in ("told", "untold"):
                posterior, truth = (np.concatenate([one[observer][j] for one in lenses]) for j in (0, 1))
                score = posterior[:, c] / np.maximum(posterior[:, c] + posterior[:, 0], 1e-300)
                chosen = (truth == c) & (strength >= low) & (strength < high)
                used = chosen | (truth == 0)
                row["part"] = round(float(chosen.sum() / (truth == c).sum()), 3)
                if chosen.any():
                    row[observer] = round(curves.auroc(ScoreCounts.of(score[used], chosen[used])), 4)
            rows.append(row)
        found[kind] = rows
    return found


def regression(lenses: list[dict[str, Any]], table: SubstructureTable) -> dict[str, Any]:
    """
    By how much the best estimate of an amount beats the best constant, in RMSE.

    *told* knows the signal but for its strength, *untold* (of subhalos) its covariance alone.
    """
    rng, found = np.random.default_rng(3), dict[str, Any]()
    for kind, bounds in (("subhalo", table.mass_fraction), ("vortex", table.vortex_mass_msun)):
        truth = np.concatenate([one["facts"][kind] for one in lenses])
        sd = {"told": 1 / np.maximum(np.concatenate([one["left"][kind] for one in lenses]), 1e-6)}
        if kind == "subhalo":
            sd["untold"] = np.concatenate([np.full(len(one["facts"][kind]), one["amount"] ** -0.5) for one in lenses])
        log_range = (float(np.log(bounds[0])), float(np.log(bounds[1])))
        rmse = {
            who: float(np.sqrt(np.mean(best_errors(np.log(truth), s, log_range, rng) ** 2))) for who, s in sd.items()
        }
        found[AMOUNTS[kind]] = {"rmse_of_constant": float(truth.std()), "rmse": rmse} | {
            "times_better": {who: round(float(truth.std()) / value, 3) for who, value in rmse.items()}
        }
    return found


def fitted(lens: SmoothLens, seed: int, item: int) -> dict[str, Any]:
    """Signal-to-noise that a nonlinear fit of the smooth lens leaves, beside the number of first order."""
    rng = np.random.default_rng([seed, 19, item])
    jacobian, widths = lens.jacobian()
    names = [name for name, (_, sd) in lens.parameters.items() if sd > 0]
    start = np.array([lens.parameters[name][0] for name in names])
    found: dict[str, Any] = {}
    for kind in CLASSES[1:]:
        data = lens.perturbed(lens.draw(rng, kind)[0])
        signal = data - lens.truth()

        def left(at: Array, data: Array = data) -> Array:
            image = lens.image(dict(zip(names, start + at * widths, strict=True)))
            return np.concatenate([image - data, at])

        def slopes(at: Array, data: Array = data) -> Array:
            here, step = left(at, data), 1e-4
            moved = [(left(at + step * unit, data) - here) / step for unit in np.eye(len(at))]
            return np.stack(moved, axis=1)

        fit = least_squares(left, np.zeros(len(names)), jac=slopes, max_nfev=8)
        found[kind] = {
            "as_drawn": round(float(np.linalg.norm(signal)), 2),
            "first_order": round(float(np.sqrt(marginalised_products(signal[None], jacobian, widths)[0, 0])), 2),
            "fitted": round(float(np.sqrt(2 * fit.cost)), 2),
        }
    return found


def interval(values: list[float]) -> list[float]:
    return [round(float(v), 4) for v in np.quantile(values, (0.025, 0.975))]


def quartiles(values: list[Any]) -> list[float]:
    return [round(float(v), 3) for v in np.quantile(np.concatenate(values), (0.25, 0.5, 0.75))]


if __name__ == "__main__":
    main()
