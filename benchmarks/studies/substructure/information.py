"""
How much of its substructure does a lens show at all, once the smooth lens and the source are fitted to it?

    python -m benchmarks.studies.substructure.information [RECIPE] [--n 80]

Lenses of a recipe are drawn as `lenspipe simulate` draws them and imaged without noise. The change that the
substructure makes is counted in units of the noise twice: against the smooth lens as it was drawn (`perturbation_snr`
of the data set), and against the smooth lens that fits best, with the Einstein radius, shape, centre and shear of the
mass and the place, size, shape and fluxes of the source free (least squares from the truth). The square root of what
is left of chi square is the signal-to-noise with which somebody who knew everything but these numbers would see the
substructure: a bound from above, as the source's form is known to the fit.

Writes `results/substructure_information_RECIPE.json`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from benchmarks import record
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.observe import band_slices, draw_conditions
from lenspipe.simulate.recipe import Recipe, read_recipe
from lenspipe.simulate.render import Grid, convolve, render, shoot_rays
from lenspipe.simulate.stamp import Lensed, lens_of_recipe

FIELD_ARCSEC = 4.5
STEPS = {"theta_e": 1e-3, "q": 3e-3, "angle": 3e-3, "x": 1e-3, "y": 1e-3, "g1": 1e-3, "g2": 1e-3}
SOURCE_STEPS = {"dx": 1e-3, "dy": 1e-3, "log_radius": 1e-2, "log_n": 1e-2, "log_q": 1e-2, "turn": 1e-2}


@click.command()
@click.argument("recipe_name", default="substructure-1")
@click.option("--n", "n_lens", default=80, show_default=True, help="Lenses of each class.")
@click.option("--seed", default=7, show_default=True)
def main(recipe_name: str, n_lens: int, seed: int) -> None:
    """Measure what is left of the substructure after the fit."""
    recipe = read_recipe(recipe_name)
    found: dict[str, Any] = {"recipe": recipe.name, "n": n_lens}
    for kind in ("no_substructure", "subhalo", "vortex"):
        pairs = np.array([information(recipe, kind, seed, k) for k in range(n_lens if kind[0] != "n" else 3)])
        if kind == "no_substructure":
            assert pairs.max() < 1e-6, "a smooth lens must fit itself"
            continue
        before, after = pairs.T
        assert (after <= before * (1 + 1e-6)).all(), "the best fit is no better than its start"
        found[kind] = {
            "snr_against_the_drawn_lens": quartiles(before),
            "snr_against_the_fitted_lens": quartiles(after),
            "part_above_5": float((after > 5).mean()),
            "part_above_10": float((after > 10).mean()),
            "part_above_30": float((after > 30).mean()),
        }
    record.write(f"substructure_information_{recipe.name}", found)
    print(found)


def quartiles(values: NDArray[np.float64]) -> list[float]:
    return [round(float(x), 2) for x in np.quantile(values, (0.25, 0.5, 0.75))]


def information(recipe: Recipe, kind: str, seed: int, item: int) -> tuple[float, float]:
    """Signal-to-noise of the substructure of one lens before and after the smooth lens is fitted."""
    rng = np.random.default_rng([seed, item])
    conditions = draw_conditions(rng, recipe)
    lensed = lens_of_recipe(rng, recipe, kind, conditions, (), None)
    table, bands = recipe.image[0], band_slices(recipe)[0]
    scale = table.pixel_scale_arcsec
    grid = Grid(int(FIELD_ARCSEC / scale), scale, table.supersampling)
    kernels, noise = conditions.kernels(table, bands), conditions.sky_rms_njy[bands][:, None, None]

    def image(deflectors: Any, components: Any) -> NDArray[np.float64]:
        sharp = render(components, shoot_rays(deflectors, grid), grid, len(kernels), sampling=table.psf_sampling)
        return convolve(sharp, kernels, sampling=table.psf_sampling) / noise

    truth = image(lensed.deflectors, lensed.arcs.components)
    smooth = drawn_lens(lensed)
    source = [c for c in lensed.arcs.components if isinstance(c.profile, Sersic)]
    steps = np.array([*STEPS.values(), *SOURCE_STEPS.values(), *[1e-2] * len(source)])

    def left(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        lens, components = moved(smooth, source, numbers * steps)
        return (image([lens], components) - truth).ravel()

    start = np.zeros(len(steps))
    before = float(np.sqrt(np.sum(left(start) ** 2)))
    fit = least_squares(left, start, max_nfev=15, jac=lambda p: jacobian(left, p))
    return before, float(np.sqrt(2 * fit.cost))


def jacobian(left: Any, at: NDArray[np.float64]) -> NDArray[np.float64]:
    here = left(at)
    return np.stack([left(at + unit) - here for unit in np.eye(len(at))], axis=1)


def drawn_lens(lensed: Lensed) -> MacroLens:
    names = ("theta_e_arcsec", "axis_ratio", "angle_rad", "slope", "shear", "shear_angle_rad")
    return MacroLens(**{name: lensed.facts[name] for name in names})


def moved(lens: MacroLens, source: list[Component], change: NDArray[np.float64]) -> tuple[MacroLens, list[Component]]:
    """Lens and source with their numbers changed; the source's clumps move, grow and turn with it."""
    d_theta, d_q, d_angle, x, y, d1, d2, sx, sy, log_radius, log_n, log_q, turn = change[:13]
    g1 = lens.shear * np.cos(2 * lens.shear_angle_rad) + d1
    g2 = lens.shear * np.sin(2 * lens.shear_angle_rad) + d2
    lens = replace(
        lens,
        theta_e_arcsec=max(0.05, lens.theta_e_arcsec + d_theta),
        axis_ratio=float(np.clip(lens.axis_ratio + d_q, 0.2, 0.9999)),
        angle_rad=lens.angle_rad + d_angle,
        x_arcsec=x,
        y_arcsec=y,
        shear=float(np.hypot(g1, g2)),
        shear_angle_rad=0.5 * float(np.arctan2(g2, g1)),
    )
    disc = source[0].profile
    components = []
    for component, log_flux in zip(source, change[13:], strict=True):
        profile = component.profile
        away = np.array([profile.x_arcsec - disc.x_arcsec, profile.y_arcsec - disc.y_arcsec]) * np.exp(log_radius)
        cos, sin = np.cos(turn), np.sin(turn)
        profile = replace(
            profile,
            radius_arcsec=profile.radius_arcsec * np.exp(log_radius),
            x_arcsec=disc.x_arcsec + sx + cos * away[0] - sin * away[1],
            y_arcsec=disc.y_arcsec + sy + sin * away[0] + cos * away[1],
            angle_rad=profile.angle_rad + turn,
        )
        if component is source[0]:
            q, n = profile.axis_ratio * np.exp(log_q), profile.n * np.exp(log_n)
            profile = replace(profile, axis_ratio=float(np.clip(q, 0.05, 1)), n=float(np.clip(n, 0.3, 8)))
        components.append(Component(profile, component.flux_njy * np.exp(log_flux)))
    return lens, components


if __name__ == "__main__":
    main()
