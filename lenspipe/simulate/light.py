"""Surface brightness of galaxies: Sérsic profiles and real galaxy images, each of unit flux."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter
from scipy.special import gamma, gammaincinv

from lenspipe.errors import ConfigError

Array = NDArray[np.float64]


class Profile(Protocol):
    """Where the light of one component lies; its flux is kept apart, so that all bands share one evaluation."""

    def brightness(self, x_arcsec: Array, y_arcsec: Array) -> Array:
        """Surface brightness for unit total flux, per square arcsec, at positions that broadcast."""
        ...


@dataclass(frozen=True)
class Component:
    """One component of a galaxy: a profile and its flux in every band, nJy."""

    profile: Profile
    flux_njy: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Sersic:
    """
    A Sérsic (1963) profile of unit flux.

    ``I = I_e exp(-b ((m / R_e)^(1/n) - 1))`` with ``m^2 = q x^2 + y^2 / q``; ``b`` solves ``P(2n, b) = 1/2`` exactly
    (Graham & Driver 2005, eq. 1 and 4), so ``R_e`` is the radius of the circle of equal area that holds half the flux.
    """

    radius_arcsec: float
    """Half-light radius along the intermediate axis, arcsec."""
    n: float = 1.0
    """Sérsic index."""
    axis_ratio: float = 1.0
    """Minor over major axis."""
    angle_rad: float = 0.0
    """Direction of the major axis from +x towards +y."""
    x_arcsec: float = 0.0
    """Centre."""
    y_arcsec: float = 0.0
    """Centre."""

    def __post_init__(self) -> None:
        if not (self.radius_arcsec > 0 and 0.2 <= self.n <= 10 and 0 < self.axis_ratio <= 1):
            raise ConfigError(
                "a Sersic profile needs radius > 0, 0.2 <= n <= 10 and 0 < axis_ratio <= 1",
                radius_arcsec=self.radius_arcsec,
                n=self.n,
                axis_ratio=self.axis_ratio,
            )

    def brightness(self, x_arcsec: Array, y_arcsec: Array) -> Array:
        """Surface brightness for unit total flux, per square arcsec."""
        m2 = _elliptical_radius2(x_arcsec, y_arcsec, self)
        b = float(gammaincinv(2 * self.n, 0.5))
        total = 2 * np.pi * self.n * self.radius_arcsec**2 * np.exp(b) * b ** (-2 * self.n) * gamma(2 * self.n)
        m2 /= self.radius_arcsec**2
        m2 = np.maximum(m2, 0)
        scaled: Array = np.sqrt(m2) if self.n == 1 else m2 ** (0.5 / self.n)
        scaled -= 1
        scaled *= -b
        scaled = np.exp(scaled)
        scaled /= total
        return scaled


@dataclass(frozen=True, kw_only=True)
class GalaxyImage:
    """
    A real galaxy image as a profile: cubic-spline interpolation, zero outside, rotated and scaled at will.

    The pixels must be free of sky and normalised to unit sum; `lenspipe.simulate.hosts.isolate` prepares them.
    """

    pixels: NDArray[np.float32]
    """Image ``(y, x)`` of unit sum."""
    pixel_scale_arcsec: float
    """Size of its pixels on the source plane, arcsec. Its own PSF and pixels stay in it: choose sources that are
    resolved much better than the simulated image."""
    angle_rad: float = 0.0
    """Rotation, from +x towards +y."""
    x_arcsec: float = 0.0
    """Position of the image's centre."""
    y_arcsec: float = 0.0
    """Position of the image's centre."""

    def brightness(self, x_arcsec: Array, y_arcsec: Array) -> Array:
        """Surface brightness for unit total flux, per square arcsec."""
        x, y = np.asarray(x_arcsec) - self.x_arcsec, np.asarray(y_arcsec) - self.y_arcsec
        cos, sin = np.cos(self.angle_rad), np.sin(self.angle_rad)
        column = (cos * x + sin * y) / self.pixel_scale_arcsec + (self.pixels.shape[1] - 1) / 2
        row = (cos * y - sin * x) / self.pixel_scale_arcsec + (self.pixels.shape[0] - 1) / 2
        column, row = np.broadcast_arrays(column, row)
        value = map_coordinates(self._coefficients, [row, column], order=3, mode="constant", cval=0.0, prefilter=False)
        bright: Array = value / self.pixel_scale_arcsec**2
        return bright

    @cached_property
    def _coefficients(self) -> Array:
        coefficients: Array = spline_filter(self.pixels, order=3, output=np.float64)
        return coefficients


def _elliptical_radius2(x_arcsec: Array, y_arcsec: Array, shape: Sersic) -> Array:
    """``q major^2 + minor^2 / q`` as one quadratic form, few passes over the rays."""
    q, cos, sin = shape.axis_ratio, np.cos(shape.angle_rad), np.sin(shape.angle_rad)
    xx, yy, xy = q * cos**2 + sin**2 / q, q * sin**2 + cos**2 / q, 2 * cos * sin * (q - 1 / q)
    x, y = np.asarray(x_arcsec, float) - shape.x_arcsec, np.asarray(y_arcsec, float) - shape.y_arcsec
    m2: Array = xx * x + xy * y
    m2 *= x
    m2 += yy * y * y
    return m2
