"""
Networks of a published recipe that are shown each stamp and what a fitted smooth lens leaves of it.

    python -m benchmarks.studies.dark_matter.fitted --work FOLDER --model equivariant-c8 [--fraction 0.1] [--plain]

Every stamp is fitted as `lenspipe stamps fit` does, with the recipe's own ranges as priors and the noise that the stamp
says; those of `substructure-1` with the truth of the training split as priors. The image and the residual, in units of
the noise, are the two bands of a data set, on which a network of `jobs/dark_matter.toml` is trained at once, at the
published mass. ``--plain`` shows it the first band alone, as the ladder does, ``--masses`` three more, the significance
of a point mass at each place and logarithms of the odds of small and large ones. Writes
`results/dark_matter_fitted_RECIPE_MODEL-PART_SEED.json`; `queue.py` does it cell after cell.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks import record
from benchmarks.studies.dark_matter.cells import STEPS, Cell, cell_of, recipe_of, stamps_of
from benchmarks.studies.dark_matter.ladder import SHOWN, falling, learnt
from benchmarks.timing import Clock
from lenspipe.infer.fitted_run import drawn_signals, write_fitted
from lenspipe.infer.fitted_set import priors_of
from lenspipe.nn.fitted import CHI2
from lenspipe.nn.sersic_image import N_ARC, NAMES
from lenspipe.nn.sersic_lens import Priors
from lenspipe.rundir import REQUEST
from lenspipe.simulate.photometry import njy_of_magnitude
from lenspipe.simulate.published import PublishedTable, flux_of_brightness, point_radius_arcsec
from lenspipe.simulate.recipe import Recipe
from lenspipe.simulate.signals import draw_signals, lenses_of
from lenspipe.stamps.format import StampSet

BOTH = {"input.stretch": "sqrt", "input.alpha": 0.8, "input.q": 0.14, "input.channel_scales": "measured"}
FITTED = ("model-f", "model-j", "deeplense-1", "substructure-1")
"""Recipes of the comparison, all of whose smooth lenses the fit has."""
CLUMPS, FINER = 6, 3
"""Of the sources of `substructure-1`, two more than they may have, as some come to lie between two; and points per
pixel and axis, as clumps at a signal-to-noise of hundreds need."""
N_DRAW = 20000
"""Draws of a recipe's ranges, of which its priors are means and spreads."""


def priors(table: PublishedTable, pixel_scale_arcsec: float) -> Priors:
    """Mean and width of each parameter over the ranges of a recipe; what it fixes has no width."""
    rng = np.random.default_rng(0)

    def drawn(bounds: tuple[float, float] | None) -> NDArray[np.float64]:
        assert bounds is not None
        return rng.uniform(*bounds, N_DRAW)

    def components(size: NDArray[np.float64], angle: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        return [size * np.cos(2 * angle), size * np.sin(2 * angle)]

    def shape(ratio: tuple[float, float], angle: tuple[float, float]) -> list[NDArray[np.float64]]:
        q2 = drawn(ratio) ** 2
        return components((1 - q2) / (1 + q2), drawn(angle))

    if table.source_place == "square":
        place = [drawn(table.source_offset_arcsec) for _ in range(2)]
    else:
        offset, turn = drawn(table.source_offset_arcsec), rng.uniform(0, 2 * np.pi, N_DRAW)
        place = [offset * np.cos(turn), offset * np.sin(turn)]
    radius, n = drawn(table.source_radius_arcsec), drawn(table.source_n)
    if table.source_brightness_njy is not None:
        brightness = drawn(table.source_brightness_njy)
    else:
        total = [flux_of_brightness(1.0, r, k, pixel_scale_arcsec) for r, k in zip(radius, n, strict=True)]
        brightness = njy_of_magnitude(drawn(table.source_mag)) / np.array(total)
    values = [
        _theta_e_arcsec(table, rng),
        *shape(table.axis_ratio, table.angle_rad),
        *components(drawn(table.shear), drawn(table.shear_angle_rad)),
        *place,
        *(np.log(v) for v in (brightness, radius, n)),
        *shape(table.source_axis_ratio, table.source_angle_rad),
        *[np.zeros(1)] * 2,  # lenses lie in the middle
    ]
    if shines := table.lens_brightness_njy is not None:
        values += [np.log(drawn(v)) for v in (table.lens_brightness_njy, table.lens_radius_arcsec, table.lens_n)]
        values += shape(table.lens_axis_ratio, table.lens_angle_rad)
    else:
        values += [np.zeros(1)] * (len(NAMES) - N_ARC)
    assert len(values) == len(NAMES)
    width = [float(v.std()) if v.std() > 1e-9 else 0.0 for v in values]
    return Priors(torch.tensor([float(v.mean()) for v in values]), torch.tensor(width), shines)


def _theta_e_arcsec(table: PublishedTable, rng: np.random.Generator) -> NDArray[np.float64]:
    if table.theta_e_arcsec is not None:
        return rng.uniform(*table.theta_e_arcsec, N_DRAW)
    assert table.halo_mass_msun is not None
    fixed = all(low == high for low, high in (table.redshift_lens, table.redshift_source))
    redshifts = (rng.uniform(*bounds, 1 if fixed else 300) for bounds in (table.redshift_lens, table.redshift_source))
    return np.array(
        [
            float(point_radius_arcsec(table.halo_mass_msun, float(lens), float(source), table.distances))
            for lens, source in zip(*redshifts, strict=True)
        ]
    )


def fitted_set(source: Path, recipe: Recipe, out: Path, *, masses: bool = False) -> Path:
    """A data set with the residuals beside the images; units that are there stay."""
    data = StampSet.open(source)
    if any(out.glob("*.parquet")) and not (out / REQUEST).exists():  # of a version that wrote no request
        if StampSet.open(out).n != data.n:
            raise ValueError(f"{out} is not whole, and cannot be resumed: remove it")
        return out
    (band,) = recipe.bands
    if f"njy_per_electron_{band}" not in data.schema.names:
        raise ValueError(f"{source} does not say its noise, being of another version: remove it")
    how: dict[str, Any] = {}
    if recipe.published is None:  # its sources have clumps, and its lenses no light
        told, how = fit_of_clumps(data, recipe)
    else:
        told = priors(recipe.published, recipe.image[0].pixel_scale_arcsec)
    write_fitted(data, told, out, band=band, point_masses=masses, resume=out.exists(), **how)
    return out


def fit_of_clumps(
    data: StampSet, recipe: Recipe, *, draws: int | None = None, seed: int = 0, rounds: int = 0
) -> tuple[Priors, dict[str, Any]]:
    """Priors and settings of fits of `substructure-1`, with so many draws of its substructure."""
    how: dict[str, Any] = {"clumps": CLUMPS, "finer": FINER, "rounds": rounds}
    if draws:
        table, said = draw_signals(recipe, lenses_of(data), n=draws, seed=seed), recipe.substructure
        assert said is not None
        how["signals"] = drawn_signals(recipe.name, said.model_dump_json(), table, seed=seed)
    return priors_of(data, light=False), how


def chi2_of(folder: Path) -> dict[str, list[float]]:
    """Quartiles of the residual's mean square, by class, on the test split."""
    data = StampSet.open(folder)
    test = data.column("split") == "test"
    square = np.square(data.read_images(split="test")[:, 1]).mean(axis=(1, 2))
    label = data.column("label")[test]
    return {
        str(c): [round(float(q), 4) for q in np.quantile(square[label == c], (0.25, 0.5, 0.75))] for c in set(label)
    }


def alone_of(folder: Path) -> dict[str, dict[str, float]]:
    """How well a fit's own numbers tell each class from smooth lenses, without a network: areas on the test split."""
    data = StampSet.open(folder)
    test, label = data.column("split") == "test", data.column("label")
    numbers = [name for name in (CHI2, "fitted_point_mass_snr") if name in data.schema.names]
    numbers += [name for name in data.schema.names if name.endswith("_log_odds")]
    found = {}
    for name in numbers:
        value, areas = data.column(name), {}
        for one in sorted(set(label) - {"no_substructure"}):
            used = test & np.isin(label, [one, "no_substructure"])
            areas[str(one)] = round(float(roc_auc_score(label[used] == one, value[used])), 4)
        found[name] = areas
    return found


def run_cell(cell: Cell, work: Path) -> dict[str, Any]:
    """Simulate and fit where it is not done, train a cell, or go on with it, and judge it on the split ``test``."""
    recipe, clock = recipe_of(cell.data), Clock()
    stamps = stamps_of(cell.data, work)
    folder = stamps.with_name(f"{stamps.name}-fitted" + "-masses" * cell.masses)
    before, fits = clock.cpu_s, not any(folder.glob("*.parquet"))
    fitted = fitted_set(stamps, recipe, folder, masses=cell.masses)
    fits_cpu_s = round(clock.cpu_s - before, 1) if fits else None
    shown: dict[str, Any] = SHOWN | {"input.bands": list(recipe.bands)} if cell.plain else BOTH
    optim = cell.trial.settings.optim
    # of a training that ends by a clock steps are few: twice the rate that the space has for the family
    how = {} if cell.steps is None else falling(cell.steps, 2 * optim.learning_rate)
    out = work / "cells" / cell.data.recipe / f"fitted-{cell.short}-{cell.seed}"
    found = learnt(cell.trial, fitted, out, cell.seed, how | shown)
    cap = optim.epochs if cell.steps is None else found["epochs"]
    return {
        "recipe": cell.data.recipe,
        "family": cell.family,
        "fraction": cell.trial.settings.sampling.fraction,
        "seed": cell.seed,
        "plain": cell.plain,
        "masses": cell.masses,
        "shown": shown,
        "fits_cpu_s": fits_cpu_s,
        "mean_square_left": chi2_of(fitted),
        "areas_without_a_network": alone_of(fitted),
        **found,
        "at_chance": at_chance(found["test"]["auroc_micro_interval95"], found["epochs"], cap),
    }


def at_chance(interval: list[float], epochs: int, cap: int) -> str | None:
    """Why a cell tells nothing, or None where it does."""
    if interval[0] > 0.5:
        return None
    ended = "as its curve had not risen for the patience" if epochs < cap else f"after all {cap} epochs"
    return f"the 95 % interval of the micro area holds .5; the training ended {ended}"


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Data sets and states of trainings.")
@click.option("--model", "family", default="equivariant-c8", show_default=True, help="A family of the sweep.")
@click.option("--recipe", default="model-f", show_default=True, type=click.Choice(FITTED))
@click.option("--fraction", default=1.0, show_default=True, help="Part of the training stamps, one of the sweep.")
@click.option("--steps", default=STEPS, show_default=True, help="Of 32 stamps.")
@click.option("--own-curve", is_flag=True, help="End by the training's own curve, and not after so many steps.")
@click.option("--plain", is_flag=True, help="Show the image alone.")
@click.option("--masses", is_flag=True, help="Show the map of point masses too.")
@click.option("--seed", type=int, default=0, show_default=True)
@record.keep_option
def main(
    work: Path,
    family: str,
    recipe: str,
    fraction: float,
    steps: int,
    own_curve: bool,
    plain: bool,
    masses: bool,
    seed: int,
    keep: bool,
) -> None:
    """Fit, train and record."""
    until = None if own_curve else steps
    cell = cell_of(recipe, family, fraction, seed=seed, steps=until, plain=plain, masses=masses)
    record.write(cell.name, run_cell(cell, work), keep=keep)


if __name__ == "__main__":
    main()
