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
from lenspipe.stamps.format import StampSet

NONE = "no_substructure"
OF_LENSES = ("theta_e_arcsec", "z_lens", "z_source", "velocity_dispersion_km_s")
"""Columns of simulated stamps that say what the substructure of a lens may be."""
AMOUNTS = {
    "subhalo": ("subhalo_mass_fraction", "subhalo_slope"),
    "vortex": ("vortex_square_arcsec2", "vortex_length_arcsec"),
}
"""What is estimated of each class; of a line the square of its Einstein radius as a point, and its length."""
LINES = ("vortex",)
"""Classes whose masses are a line of even mass, which is drawn apart from where it lies."""
N_POINT = 32
"""Point masses that a vortex is made of."""


def lenses_of(data: StampSet) -> dict[str, NDArray[np.floating]]:
    """
    What the lenses of the split train of simulated stamps say, as `draw_signals` takes it.

    Raises
    ------
    ConfigError
        The stamps do not say it.
    """
    if missing := [name for name in OF_LENSES if name not in data.schema.names]:
        raise ConfigError(
            "signals are drawn around lenses that say these, as simulated ones do: give such stamps by --like",
            data=data.title,
            missing=",".join(missing),
        )
    learnt = data.column("split") == "train"
    return {name: data.column(name)[learnt].astype(float) for name in OF_LENSES}


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
        By class and rising Einstein radius of the lens: ``label``; ``line``, whether its masses are one of even mass;
        ``theta_e_arcsec`` of the lens; lists of ``x`` and
        ``y``, places of the masses in Einstein radii of the lens, and of ``square_arcsec2``, their own Einstein radii
        squared, heaviest first; `AMOUNTS`, null in draws of another class.

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
    masses, amounts = list[NDArray[np.float64]](), list[list[float]]()
    for row in rows:
        facts = dict(zip(OF_LENSES, map(float, row), strict=True))
        (_, one), drawn = perturbed(rng, table, label, MacroLens(theta_e_arcsec=facts["theta_e_arcsec"]), facts)
        points = _points(one) / [[facts["theta_e_arcsec"]], [facts["theta_e_arcsec"]], [1.0]]
        masses.append(points[:, np.argsort(-points[2], kind="stable")])
        drawn["vortex_square_arcsec2"] = float(points[2].sum())
        amounts.append([drawn[name] for name in AMOUNTS[label]])
    ends = np.cumsum([0, *(one.shape[1] for one in masses)])
    x, y, square = np.concatenate(masses, axis=1).astype(np.float32)
    lists = {
        name: pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values))
        for name, values in (("x", x), ("y", y), ("square_arcsec2", square))
    }
    known = dict(zip(AMOUNTS[label], np.array(amounts).T, strict=True))
    of_class = {
        name: pa.array(known[name]) if name in known else pa.nulls(len(rows), pa.float64())
        for names in AMOUNTS.values()
        for name in names
    }
    said = {"label": pa.array([label] * len(rows)), "line": pa.array([label in LINES] * len(rows))}
    return pa.table(said | {"theta_e_arcsec": pa.array(rows[:, 0])} | lists | of_class)


def _points(one: object) -> NDArray[np.float64]:
    """Place in arcsec and square of the Einstein radius of each mass ``(3, mass)``."""
    if isinstance(one, Subhalos):
        return np.stack([one.x_arcsec, one.y_arcsec, one.einstein_radius_arcsec**2])
    assert isinstance(one, Vortex)
    along = ((np.arange(N_POINT) + 0.5) / N_POINT - 0.5) * one.length_arcsec
    x, y = one.x_arcsec + along * np.cos(one.angle_rad), one.y_arcsec + along * np.sin(one.angle_rad)
    return np.stack([x, y, np.full(N_POINT, one.einstein_radius_arcsec**2 / N_POINT)])
