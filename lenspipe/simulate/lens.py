"""Deflection by the main lens: an elliptical power law and external shear. Closed forms, so rays are cheap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MacroLens:
    """
    An elliptical power-law lens (SIE where ``slope`` is 2) in external shear.

    Convergence ``kappa = (3 - slope) / 2 * (theta_E / m)^(slope - 1)`` with ``m^2 = q x^2 + y^2 / q`` along the major
    and minor axes (Tessore & Metcalf 2015, eq. 1). ``theta_E`` is in this intermediate-axis convention, lenstronomy's:
    the isothermal critical curve encloses ``pi theta_E^2`` whatever the axis ratio.
    """

    theta_e_arcsec: float
    """Einstein radius, arcsec."""
    axis_ratio: float = 1.0
    """Minor over major axis of the convergence, in (0, 1]."""
    angle_rad: float = 0.0
    """Direction of the major axis from +x (columns) towards +y (rows); not the position angle east of north."""
    slope: float = 2.0
    """Logarithmic slope of the three-dimensional density, between 1 and 3."""
    shear: float = 0.0
    """External shear, its magnitude."""
    shear_angle_rad: float = 0.0
    """Direction in which the shear stretches images, from +x towards +y."""
    x_arcsec: float = 0.0
    """Centre, arcsec from the centre of the image, +x."""
    y_arcsec: float = 0.0
    """Centre, arcsec from the centre of the image, +y."""

    def __post_init__(self) -> None:
        if not (self.theta_e_arcsec > 0 and 0 < self.axis_ratio <= 1 and 1 < self.slope < 3):
            raise ConfigError(
                "a lens needs theta_e > 0, 0 < axis_ratio <= 1 and 1 < slope < 3",
                theta_e_arcsec=self.theta_e_arcsec,
                axis_ratio=self.axis_ratio,
                slope=self.slope,
            )

    def deflection(self, x_arcsec: Array, y_arcsec: Array) -> tuple[Array, Array]:
        """Deflection at image positions (any shapes that broadcast), arcsec; source = image position - deflection."""
        x, y = x_arcsec - self.x_arcsec, y_arcsec - self.y_arcsec
        alpha_x, alpha_y = power_law_deflection(
            x,
            y,
            theta_e_arcsec=self.theta_e_arcsec,
            axis_ratio=self.axis_ratio,
            angle_rad=self.angle_rad,
            slope=self.slope,
        )
        if self.shear:
            shear_x, shear_y = shear_deflection(x, y, shear=self.shear, angle_rad=self.shear_angle_rad)
            alpha_x += shear_x
            alpha_y += shear_y
        return alpha_x, alpha_y


def power_law_deflection(
    x_arcsec: Array, y_arcsec: Array, *, theta_e_arcsec: float, axis_ratio: float, angle_rad: float, slope: float
) -> tuple[Array, Array]:
    """
    Deflection of an elliptical power law at the origin, arcsec.

    Tessore & Metcalf 2015 (A&A 580, A79), eq. 13 with their series, eq. 23-25, to 1e-9 of theta_E; the isothermal
    case by the closed form of Keeton 2001 (astro-ph/0102341, eq. 33-34). Convention of theta_E: see `MacroLens`.
    """
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    q = min(axis_ratio, 1 - 1e-7)
    squeezed, minor = (q * cos) * x_arcsec + (q * sin) * y_arcsec, cos * y_arcsec - sin * x_arcsec
    radius = squeezed * squeezed  # np.hypot takes five times as long, and nothing overflows here
    radius += minor * minor
    radius = np.maximum(np.sqrt(radius), 1e-12)
    squeezed /= radius
    minor /= radius
    scale = theta_e_arcsec * np.sqrt(q)
    if slope == 2.0:
        flat = np.sqrt(1 - q * q)
        along, across, power = np.arctan(flat / q * squeezed), np.arctanh(flat * minor), scale / flat
    else:
        along, across = _series(squeezed, minor, q, slope - 1)
        power = 2 * scale / (1 + q) * (scale / radius) ** (slope - 2)
    alpha_x, alpha_y = cos * along - sin * across, sin * along + cos * across
    alpha_x *= power
    alpha_y *= power
    return alpha_x, alpha_y


def _series(cos: Array, sin: Array, q: float, t: float) -> tuple[Array, Array]:
    flattening = (1 - q) / (1 + q)
    cos2, sin2 = cos * cos - sin * sin, 2 * cos * sin
    n_term = 2 if flattening < 1e-6 else int(np.ceil(np.log(1e-9) / np.log(flattening))) + 1
    term_x, term_y, sum_x, sum_y = cos, sin, cos.copy(), sin.copy()
    for n in range(1, n_term):
        factor = -flattening * (2 * n - (2 - t)) / (2 * n + (2 - t))
        term_x, term_y = factor * (cos2 * term_x - sin2 * term_y), factor * (cos2 * term_y + sin2 * term_x)
        sum_x += term_x
        sum_y += term_y
    return sum_x, sum_y


def shear_deflection(x_arcsec: Array, y_arcsec: Array, *, shear: float, angle_rad: float) -> tuple[Array, Array]:
    """
    Deflection of an external shear that stretches images along ``angle_rad``, arcsec.

    ``alpha = gamma (x cos 2a + y sin 2a, x sin 2a - y cos 2a)`` (Schneider, Kochanek & Wambsganss 2006, eq. 2.57).
    """
    cos, sin = shear * np.cos(2 * angle_rad), shear * np.sin(2 * angle_rad)
    return cos * x_arcsec + sin * y_arcsec, sin * x_arcsec - cos * y_arcsec


def count_images(
    beta_x_arcsec: Array, beta_y_arcsec: Array, source_x_arcsec: float, source_y_arcsec: float
) -> tuple[int, int]:
    """
    Count the images of a point source, and how many of them are of negative parity, from shot rays.

    The image plane is cut into triangles; each triangle whose rays enclose the source on the source plane is one
    image, and its orientation gives the parity (Schramm & Kayser 1987). Images closer than a cell are not told apart,
    and the de-magnified image on the singular centre counts as none: a cell that maps to more than 25 times its own
    area, or wraps the centre, is left out.

    Parameters
    ----------
    beta_x_arcsec, beta_y_arcsec : array ``(y, x)``
        Source-plane positions of rays on a regular image-plane grid.
    source_x_arcsec, source_y_arcsec : float
        Position of the source.
    """
    # a source exactly on an edge of two triangles would count twice: move it by less than anything matters
    bx, by = beta_x_arcsec - source_x_arcsec - 1.3e-9, beta_y_arcsec - source_y_arcsec - 2.1e-9
    corners = [(slice(None, -1), slice(None, -1)), (slice(None, -1), slice(1, None))]
    corners += [(slice(1, None), slice(1, None)), (slice(1, None), slice(None, -1))]
    a, b, c, d = ((bx[s], by[s]) for s in corners)
    total = negative = 0
    cell = np.median(np.abs(np.diff(bx, axis=1))) * np.median(np.abs(np.diff(by, axis=0)))
    for p, q, r in ((a, b, c), (a, c, d)):
        s1 = p[0] * q[1] - p[1] * q[0]
        s2 = q[0] * r[1] - q[1] * r[0]
        s3 = r[0] * p[1] - r[1] * p[0]
        area = s1 + s2 + s3
        inside = (((s1 >= 0) & (s2 >= 0) & (s3 >= 0)) | ((s1 <= 0) & (s2 <= 0) & (s3 <= 0))) & (
            np.abs(area) < 25 * cell
        )
        total += int(np.count_nonzero(inside & (area != 0)))
        negative += int(np.count_nonzero(inside & (area < 0)))
    return total, negative
