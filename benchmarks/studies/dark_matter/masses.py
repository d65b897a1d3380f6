"""
How well the slope and the mass fraction of subhalos could be known if the mass of every one of them were.

    python -m benchmarks.studies.dark_matter.masses [--n 4000]

Numbers and masses of subhalos are drawn as `substructure-1` draws them, around lenses as it draws those. An observer
who is told all of them knows slope and mass fraction by Bayes' theorem: masses follow ``m^slope``, their number a
Poisson law whose mean is the mass fraction's over the mean mass. No image tells as much, so no estimate is better.
Writes `results/dark_matter_masses_substructure-1.json`.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import click
import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from benchmarks import record
from lenspipe.simulate.cosmology import critical_density_msun_arcsec2
from lenspipe.simulate.lensed import from_population
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.substructure import draw_subhalos, mean_subhalo_mass_msun

RECIPE, N_GRID = "substructure-1", 120
"""Grid points of slopes and of mass fractions."""
Array = NDArray[np.float64]


def known(
    masses: Array, whole_msun: float, slopes: Array, fractions: Array, mass_range: tuple[float, float]
) -> tuple[float, float]:
    """
    Posterior means of slope and mass fraction, priors even in slope and in the logarithm of the fraction.

    Parameters
    ----------
    masses : array (subhalo,)
        Msun.
    whole_msun : float
        Mass of which the fraction is one.
    slopes, fractions : arrays
        Even grids over what is drawn, the fractions in their logarithm.
    mass_range : (float, float)
        Msun.
    """
    low, high = mass_range
    norm = (slopes + 1) / (high ** (slopes + 1) - low ** (slopes + 1))
    mean = np.array([mean_subhalo_mass_msun(float(one), mass_range) for one in slopes])
    expected = fractions[None] * whole_msun / mean[:, None]
    n = len(masses)
    log = (slopes * np.log(masses).sum() + n * np.log(norm))[:, None]
    log = log + n * np.log(expected) - expected - gammaln(n + 1)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    return float(weight.sum(1) @ slopes), float(weight.sum(0) @ fractions)


@click.command()
@click.option("--n", default=4000, show_default=True, help="Draws.")
@click.option("--seed", default=7, show_default=True)
@record.keep_option
def main(n: int, seed: int, keep: bool) -> None:
    """Draw, estimate and record."""
    recipe, rng = read_recipe(RECIPE), np.random.default_rng(seed)
    table = recipe.substructure
    assert table is not None
    draw = from_population(recipe.deflectors, recipe.sources.redshift)
    slopes = np.linspace(*table.slope, N_GRID)
    fractions = np.geomspace(*table.mass_fraction, N_GRID)
    truth, told = [], []
    for _ in range(n):
        lens, drawn = draw(rng)
        density = float(critical_density_msun_arcsec2(drawn["z_lens"], drawn["z_source"]))
        slope = float(rng.uniform(*table.slope))
        fraction = float(np.exp(rng.uniform(*np.log(table.mass_fraction))))
        halos, facts = draw_subhalos(
            rng,
            mass_fraction=fraction,
            slope=slope,
            mass_range_msun=table.mass_range_msun,
            theta_e_arcsec=lens.theta_e_arcsec,
            critical_density=density,
            kpc_per_arcsec=1.0,  # of no effect on points
            point_masses=True,
        )
        whole = facts["n_subhalo_expected"] * mean_subhalo_mass_msun(slope, table.mass_range_msun) / fraction
        masses = np.pi * density * halos.einstein_radius_arcsec**2
        truth.append((slope, fraction))
        told.append(known(masses, whole, slopes, fractions, table.mass_range_msun))
    spread, off = np.array(truth).std(0), np.sqrt(np.mean((np.array(told) - np.array(truth)) ** 2, axis=0))
    found = {
        name: {
            "rmse_of_constant": float(spread[k]),
            "rmse": float(off[k]),
            "times_better": round(float(spread[k] / off[k]), 3),
        }
        for k, name in enumerate(("subhalo_slope", "subhalo_mass_fraction"))
    }
    print(found)
    record.write(f"dark_matter_masses_{RECIPE}", {"recipe": RECIPE, "n": n, "amounts": found}, keep=keep)


if __name__ == "__main__":
    main()
