"""Sources that are smaller than the distance of the rays: integrated on finer rays, where their images are."""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from lenspipe.simulate.light import GalaxyImage, Profile, Sersic

Array = NDArray[np.float64]

PER_RADIUS = 3.0
"""Points a half-light radius that are fine enough: the flux of an exponential profile is then right to 1 %."""
FINER = (2, 4, 8, 16, 32)
"""Points a cell and axis that are tried; the last is enough for clumps of 0.006 arcsec at 0.05 arcsec a ray."""
REACH = 3.0
"""Half-light radii within which a profile is integrated on finer points: 96 % of an exponential's light."""
CHUNK = 1 << 18
"""Points at a time: bounds the memory."""


class Cells:
    """
    The cell of the image plane that each ray stands for, mapped to the source plane.

    Inside a cell the source-plane position is taken as linear, with the central differences of the neighbouring rays.

    Parameters
    ----------
    beta_x, beta_y : array ``(y, x)``
        Source-plane positions of the rays, arcsec.
    """

    def __init__(self, beta_x: Array, beta_y: Array) -> None:
        self.beta_x, self.beta_y = beta_x, beta_y

    @cached_property
    def sides(self) -> tuple[Array, Array, Array, Array]:
        """Twice the sides of the mapped cells, arcsec: x and y of those along columns, x and y of those along rows."""
        along_x, along_y = (_twice_gradient(beta.T).T for beta in (self.beta_x, self.beta_y))
        return along_x, along_y, _twice_gradient(self.beta_x), _twice_gradient(self.beta_y)

    @cached_property
    def extent_arcsec(self) -> Array:
        """Longest side of the mapped cells ``(y, x)``, arcsec."""
        longest: Array = np.abs(self.sides[0])
        one = np.empty_like(longest)
        for side in self.sides[1:]:
            np.maximum(longest, np.abs(side, out=one), out=longest)
        longest *= 0.5
        return longest


def _twice_gradient(values: Array) -> Array:
    """Twice the central differences along rows, one-sided at the edges: `np.gradient` takes four times as long."""
    twice = np.empty_like(values)
    np.subtract(values[2:], values[:-2], out=twice[1:-1])
    twice[0], twice[-1] = 2 * (values[1] - values[0]), 2 * (values[-1] - values[-2])
    return twice


def refine_compact(brightness: Array, profile: Profile, cells: Cells) -> None:
    """
    Replace the brightness of a compact profile, in place, by its mean over each ray's cell where that differs.

    Sampled at the rays alone, a profile smaller than their distance gains or loses flux by where they happen to fall:
    a source with clumps up to a tenth of all, and up to a third in its brightest pixel. Cells that map to less than
    a third of the profile's radius are left as they are.

    Parameters
    ----------
    brightness : array ``(y, x)``
        Of the profile on the rays, per square arcsec.
    profile : Profile
        What shines; only `Sersic` and `GalaxyImage` have a known size.
    cells : Cells
        Of the rays.
    """
    size = _radii_arcsec(profile)
    if size is None:
        return
    radius, core, reach, x0, y0 = size
    step = np.median(cells.extent_arcsec[:: max(1, len(brightness) // 16)])
    if PER_RADIUS * step < min(radius, core):
        return
    distance2 = _distance2(cells, x0, y0)
    extent2 = cells.extent_arcsec * cells.extent_arcsec
    # few rays: those whose cells are large, and those whose cells hold the centre of the profile
    chosen = np.flatnonzero((cells.extent_arcsec > radius / PER_RADIUS) | (distance2 < extent2))
    extent, distance2 = cells.extent_arcsec.ravel()[chosen], distance2.ravel()[chosen]
    near = distance2 < (reach + extent) ** 2
    chosen, extent, distance2 = chosen[near], extent[near], distance2[near]
    wanted = PER_RADIUS * extent / np.where(distance2 < extent**2, core, radius)
    level = np.where(wanted > 1, np.searchsorted(FINER[:-1], wanted), -1)
    beta_x, beta_y, flat = cells.beta_x.ravel(), cells.beta_y.ravel(), brightness.reshape(-1)
    half_sides = [0.5 * side.ravel()[chosen] for side in cells.sides]
    for k, n in enumerate(FINER):
        members = np.flatnonzero(level == k)
        u, v = _inside(n)
        many = CHUNK // n**2
        for first in range(0, len(members), many):
            some = members[first : first + many]
            here = chosen[some]
            xx, yx, xy, yy = (side[some][:, None] for side in half_sides)
            x = beta_x[here][:, None] + xx * u + xy * v
            y = beta_y[here][:, None] + yx * u + yy * v
            flat[here] = profile.brightness(x, y).mean(axis=1)


@cache
def _inside(n: int) -> tuple[Array, Array]:
    """Places of ``n`` x ``n`` points in a cell, in its sides, from its middle."""
    inside = (np.arange(n) + 0.5) / n - 0.5
    u, v = np.meshgrid(inside, inside)
    return u.ravel(), v.ravel()


def _distance2(cells: Cells, x0: float, y0: float) -> Array:
    distance2, other = cells.beta_x - x0, cells.beta_y - y0
    distance2 *= distance2
    other *= other
    distance2 += other
    return distance2


def _radii_arcsec(profile: Profile) -> tuple[float, float, float, float, float] | None:
    """Radius and core to resolve, radius that holds the light, and centre; None where the size is not known."""
    if isinstance(profile, Sersic):
        minor = profile.radius_arcsec * np.sqrt(profile.axis_ratio)
        # a cusp falls to a half within (ln 2 / b)^n radii; half as many points a radius do, as it holds little light
        cusp = 2 * (np.log(2) / gammaincinv(2 * profile.n, 0.5)) ** profile.n
        reach = REACH * profile.radius_arcsec / np.sqrt(profile.axis_ratio)
        return float(minor), float(minor * min(1, cusp)), float(reach), profile.x_arcsec, profile.y_arcsec
    if isinstance(profile, GalaxyImage):
        half_side = max(profile.pixels.shape) / 2 * profile.pixel_scale_arcsec
        # real images hold their own PSF, some 3 px wide: nothing in them is finer
        return (3 * profile.pixel_scale_arcsec,) * 2 + (half_side, profile.x_arcsec, profile.y_arcsec)
    return None
