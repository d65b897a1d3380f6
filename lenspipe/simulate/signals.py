"""Substructure drawn as a recipe draws it, again and again and without images: what a fitted lens may hide."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.recipe import Recipe
from lenspipe.simulate.stamp import perturbed
from lenspipe.simulate.substructure import Subhalos, Vortex

NONE = "no_substructure"
OF_LENSES = ("theta_e_arcsec", "z_lens", "z_source", "velocity_dispersion_km_s")
"""Columns of simulated stamps that say what the substructure of a lens may be."""
N_POINT = 32
"""Point masses that a vortex is made of."""


def draw_signals(recipe: Recipe, lenses: Mapping[str, NDArray[np.floating]], *, n: int, seed: int) -> pa.Table:
    """
    Point masses of ``n`` draws of each class that has substructure, around lenses drawn from those given.

    Parameters
    ----------
    recipe : Recipe
        With a table ``[substructure]`` of point masses and vortices.
    lenses : mapping of the names in `OF_LENSES` to arrays (lens,)
        The population, such as the truth of simulated stamps.
    n : int
        Draws per class.
    seed : int

    Returns
    -------
    pa.Table
        By class and rising Einstein radius of the lens: ``label``; ``theta_e_arcsec`` of the lens; lists of ``x`` and
        ``y``, places of the masses in Einstein radii of the lens, and of ``square_arcsec2``, their own Einstein radii
        squared.

    Raises
    ------
    ConfigError
        The recipe has no ``[substructure]``, halos that are not points, or no class with substructure; no lens.
    """
    table, labels = (
        recipe.substructure,
        [label for label, weight in (recipe.classes or {}).items() if weight and label != NONE],
    )
    if table is None or not labels:
        raise ConfigError("the recipe draws no substructure: it needs [substructure] and [classes]", recipe=recipe.name)
    if "subhalo" in labels and not table.point_masses:
        raise ConfigError("signals are drawn of point masses: set point_masses = true", recipe=recipe.name)
    known = np.column_stack([np.asarray(lenses[name], np.float64) for name in OF_LENSES])
    known = known[np.isfinite(known).all(axis=1)]
    if not len(known):
        raise ConfigError("no lens says its Einstein radius, redshifts and velocity dispersion")
    parts = []
    for k, label in enumerate(labels):
        rng = np.random.default_rng([seed, 31, k])
        rows = known[np.sort(rng.integers(0, len(known), n))]
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        parts.append(_drawn(recipe, label, rows, rng))
    return pa.concat_tables(parts)


def _drawn(recipe: Recipe, label: str, rows: NDArray[np.float64], rng: np.random.Generator) -> pa.Table:
    table = recipe.substructure
    assert table is not None
    masses = []
    for row in rows:
        facts = dict(zip(OF_LENSES, map(float, row), strict=True))
        (_, one), _ = perturbed(rng, table, label, MacroLens(theta_e_arcsec=facts["theta_e_arcsec"]), facts)
        masses.append(_points(one) / [[facts["theta_e_arcsec"]], [facts["theta_e_arcsec"]], [1.0]])
    ends = np.cumsum([0, *(one.shape[1] for one in masses)])
    x, y, square = np.concatenate(masses, axis=1).astype(np.float32)
    lists = {
        name: pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values))
        for name, values in (("x", x), ("y", y), ("square_arcsec2", square))
    }
    return pa.table({"label": pa.array([label] * len(rows)), "theta_e_arcsec": pa.array(rows[:, 0])} | lists)


def _points(one: object) -> NDArray[np.float64]:
    """Place in arcsec and square of the Einstein radius of each mass ``(3, mass)``."""
    if isinstance(one, Subhalos):
        return np.stack([one.x_arcsec, one.y_arcsec, one.einstein_radius_arcsec**2])
    assert isinstance(one, Vortex)
    along = ((np.arange(N_POINT) + 0.5) / N_POINT - 0.5) * one.length_arcsec
    x, y = one.x_arcsec + along * np.cos(one.angle_rad), one.y_arcsec + along * np.sin(one.angle_rad)
    return np.stack([x, y, np.full(N_POINT, one.einstein_radius_arcsec**2 / N_POINT)])
