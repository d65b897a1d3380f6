"""The one drawer of lenses: a deflector is drawn, then a source behind it, until the arcs are as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lenspipe.simulate.arcs import Arcs, Optics, draw_arcs
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.population import (
    DeflectorPopulation,
    Range,
    SourceImage,
    SourcePopulation,
    draw_axis_ratio,
    draw_deflector,
)

Drawn = dict[str, float]
DrawDeflector = Callable[[np.random.Generator], tuple[MacroLens, Drawn]]
AXIS_RATIO_SCATTER, ANGLE_SCATTER_RAD = 0.05, np.radians(10)
"""Mass follows light with the scatter of SLACS (Bolton et al. 2008)."""
_SHAPE = ("theta_e_arcsec", "axis_ratio", "angle_rad", "slope", "shear", "shear_angle_rad")


@dataclass(frozen=True)
class DrawnLens:
    """A lens and the images of the source behind it."""

    lens: MacroLens
    """The main deflector."""
    drawn: Drawn
    """What its population drew, redshifts among it; empty for a lens without a population."""
    arcs: Arcs
    """The lensed source."""


def draw_lens(
    rng: np.random.Generator,
    draw: DrawDeflector,
    optics: Optics,
    *,
    sources: SourcePopulation,
    source_images: Sequence[SourceImage] = (),
    min_arc_snr: float | None = None,
    min_magnification: float = 3.0,
    visible: Callable[[Arcs], bool] | None = None,
    attempts: int,
) -> DrawnLens | None:
    """
    Draw deflectors and sources until one of them makes arcs as they are asked for.

    Parameters
    ----------
    draw : callable
        Draws a deflector: `from_population` or `around_light`. A ``z_source`` that it draws is the source's.
    optics : Optics
        Pixels, PSFs and noise.
    sources : SourcePopulation
    source_images : sequence of SourceImage
        Real galaxies to be lensed.
    min_arc_snr, min_magnification
        As in `lenspipe.simulate.arcs.draw_arcs`.
    visible : callable, optional
        A last condition on the arcs.
    attempts : int
        Draws before it is given up.

    Returns
    -------
    DrawnLens or None
        None where no draw succeeded.
    """
    for _ in range(attempts):
        lens, drawn = draw(rng)
        arcs = draw_arcs(
            rng,
            lens,
            optics,
            sources=sources,
            source_images=source_images,
            min_arc_snr=min_arc_snr,
            min_magnification=min_magnification,
            z_source=drawn.get("z_source"),
        )
        if arcs is not None and (visible is None or visible(arcs)):
            return DrawnLens(lens, drawn, arcs)
    return None


def from_population(
    deflectors: DeflectorPopulation,
    source_redshift: Range,
    *,
    light_shape: tuple[float, float] | None = None,
    offset_arcsec: tuple[float, float] = (0.0, 0.0),
) -> DrawDeflector:
    """
    Deflectors of a population, with redshifts and velocity dispersion.

    Parameters
    ----------
    deflectors : DeflectorPopulation
    source_redshift : (float, float)
    light_shape : (float, float), optional
        Axis ratio and angle of a real galaxy's light, which the mass then follows.
    offset_arcsec : (float, float)
        Centre of the lens.
    """

    def draw(rng: np.random.Generator) -> tuple[MacroLens, Drawn]:
        drawn = draw_deflector(rng, deflectors, source_redshift)
        if light_shape is not None:
            drawn["axis_ratio"] = _axis_ratio(rng, light_shape[0])
            drawn["angle_rad"] = light_shape[1] + float(rng.normal(0, ANGLE_SCATTER_RAD))
        lens = MacroLens(**{name: drawn[name] for name in _SHAPE})
        return replace(lens, x_arcsec=offset_arcsec[0], y_arcsec=offset_arcsec[1]), drawn

    return draw


def around_light(
    theta_e_arcsec: Range,
    *,
    axis_ratio: float | None,
    angle_rad: float | None,
    shear_scatter: float,
    offset_arcsec: tuple[float, float] = (0.0, 0.0),
) -> DrawDeflector:
    """
    Isothermal lenses around a galaxy of which only the light is known.

    Parameters
    ----------
    theta_e_arcsec : (float, float)
        Einstein radius, log-uniform between these.
    axis_ratio, angle_rad : float or None
        Of the light, which the mass follows; None: drawn.
    shear_scatter : float
        Typical external shear.
    offset_arcsec : (float, float)
        Centre of the lens.
    """

    def draw(rng: np.random.Generator) -> tuple[MacroLens, Drawn]:
        theta_e = float(np.exp(rng.uniform(*np.log(theta_e_arcsec))))
        q = _axis_ratio(rng, draw_axis_ratio(rng, (0.78, 0.13)) if axis_ratio is None else axis_ratio)
        angle = rng.uniform(0, np.pi) if angle_rad is None else angle_rad + rng.normal(0, ANGLE_SCATTER_RAD)
        shear_x, shear_y = rng.normal(0, shear_scatter / np.sqrt(2), 2)
        lens = MacroLens(
            theta_e_arcsec=theta_e,
            axis_ratio=q,
            angle_rad=float(angle),
            shear=float(np.hypot(shear_x, shear_y)),
            shear_angle_rad=float(0.5 * np.arctan2(shear_y, shear_x)),
            x_arcsec=offset_arcsec[0],
            y_arcsec=offset_arcsec[1],
        )
        return lens, {}

    return draw


def _axis_ratio(rng: np.random.Generator, light: float) -> float:
    return float(np.clip(light + rng.normal(0, AXIS_RATIO_SCATTER), 0.35, 0.999))
