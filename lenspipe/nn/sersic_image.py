"""Images of smooth lenses with Sérsic sources, many at a time, and their slopes in every parameter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NAMES = (
    *("theta_e_arcsec", "lens_e1", "lens_e2", "gamma1", "gamma2", "x_arcsec", "y_arcsec"),
    *("log_brightness", "log_radius", "log_n", "e1", "e2"),
    *("light_log_brightness", "light_log_radius", "light_log_n", "light_e1", "light_e2"),
)
"""
Einstein radius, ellipticity and shear of the lens; place, brightness at the effective radius, effective radius, Sérsic
index and ellipticity of the source; the same of the lens galaxy, which lies at the centre. Lengths are in arcsec,
logarithms natural, ellipticities ``(1 - q^2) / (1 + q^2)`` times cosine and sine of twice the angle from +x to +y.
"""
N_ARC = 12
"""So many of them move the arcs; the others are the lens galaxy's."""
CLUMP = ("x_arcsec", "y_arcsec", "log_brightness", "log_radius")
"""A clump of the source: round, with an exponential profile, at a place of its own."""
STEP = 1e-3
"""Of the lens's ellipticity, whose slopes are differences."""
DARK = -40.0
"""Logarithm of a brightness that is none; of less, products are next to nothing, which take many times as long."""
Maps = tuple[Tensor, Tensor | None]
"""A sum ``(n, y, x)`` and slopes ``(n, parameter, y, x)``, which are None where they are not asked for."""


class Pixels:
    """
    Pixels of square stamps, finer points inside them, and the PSF.

    Values are ``(…, parameter)``, images ``(…, y, x)``.

    Parameters
    ----------
    size_px : int
    pixel_scale_arcsec, fwhm_arcsec : float
        FWHM of the Gaussian PSF.
    finer : int
        Points per pixel and axis.
    mask_arcsec : float
        Radius of what is left out around the cusp of a lens galaxy, which coarse points sample badly.
    shift_px : float
        Of the middle of the pixels from the centre of the lens, in pixels.
    """

    def __init__(
        self,
        size_px: int,
        pixel_scale_arcsec: float,
        fwhm_arcsec: float,
        *,
        finer: int,
        mask_arcsec: float,
        shift_px: float = 0.0,
    ) -> None:
        n, step = size_px * finer, pixel_scale_arcsec / finer
        axis = (torch.arange(n) - (n - 1) / 2) * step + shift_px * pixel_scale_arcsec
        self.x, self.y = axis.expand(n, n), axis[:, None].expand(n, n)
        sigma = fwhm_arcsec / math.sqrt(8 * math.log(2)) / step
        blur = torch.exp(-0.5 * ((torch.arange(n)[:, None] - torch.arange(n)) / sigma) ** 2)
        blur = (blur / blur[n // 2].sum()).reshape(size_px, finer, n).mean(1)
        self.blur = torch.where(blur > 1e-12, blur, 0.0)  # numbers next to nothing take fifty times as long
        centres = torch.hypot(self.x, self.y).reshape(size_px, finer, size_px, finer).mean((1, 3))
        self.kept = (centres > mask_arcsec).float()

    def arcs(self, values: Tensor, clumps: Tensor | None = None) -> Tensor:
        """Images of the source, of the first `N_ARC` values, and of its clumps ``(…, clump, parameter)``."""
        return self._seen(self._arcs(values, clumps, sloped=False)[0])

    def light(self, values: Tensor) -> Tensor:
        """The lens galaxy, of the other values."""
        return self._seen(_sersic(values, self.x, self.y, sloped=False)[0])

    def arc_slopes(self, values: Tensor, clumps: Tensor | None = None) -> Tensor:
        """Change of `arcs` per value ``(…, parameter, y, x)``, then per value of each clump."""
        slopes = self._arcs(values, clumps, sloped=True)[1]
        assert slopes is not None
        return self._seen(slopes)

    def light_slopes(self, values: Tensor) -> Tensor:
        """Change of `light` per value ``(…, parameter, y, x)``."""
        slopes = _sersic(values, self.x, self.y, sloped=True)[1]
        assert slopes is not None
        return self._seen(slopes[..., 2:, :, :])

    def lone_clumps(self, lens: Tensor, clumps: Tensor) -> Tensor:
        """An image of each clump alone ``(…, clump, y, x)``, behind lenses of five values."""
        bx, by = self._rays(lens)[:2]
        return self._seen(_clump(clumps, bx[..., None, :, :], by[..., None, :, :], sloped=False)[0])

    def _seen(self, points: Tensor) -> Tensor:
        return self.blur @ points @ self.blur.T

    def _arcs(self, values: Tensor, clumps: Tensor | None, *, sloped: bool) -> Maps:
        bx, by, ax, ay = self._rays(values[..., :5])
        x, y = _maps(values[..., 5:7])
        light, slopes = _sersic(values[..., 7:], bx - x, by - y, sloped=sloped)
        parts = None if clumps is None else _clump(clumps, bx[..., None, :, :], by[..., None, :, :], sloped=sloped)
        if parts is not None:
            light = light + parts[0].sum(-3)
        if slopes is None:
            return light, None
        fx, fy = slopes[..., 0, :, :], slopes[..., 1, :, :]
        own = [-fx, -fy, *slopes[..., 2:, :, :].unbind(-3)]
        if parts is not None:
            assert parts[1] is not None
            along = parts[1][..., :2, :, :].sum(-4)
            fx, fy = fx + along[..., 0, :, :], fy + along[..., 1, :, :]
            of_clumps = torch.cat([-parts[1][..., :2, :, :], parts[1][..., 2:, :, :]], -3).flatten(-4, -3)
            own.extend(of_clumps.unbind(-3))
        theta = _maps(values[..., :1])[0]
        turned = []
        for k in (1, 2):
            moved = values[..., :5].clone()
            moved[..., k] += STEP
            _, _, px, py = self._rays(moved)
            turned.append(-(fx * (px - ax) + fy * (py - ay)) / STEP)
        lens = [-(fx * ax + fy * ay) / theta, *turned, fy * self.y - fx * self.x, -fx * self.y - fy * self.x]
        return light, torch.stack([*lens, *own], -3)

    def _rays(self, lens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where the points lie in the source plane, and by how much the ellipsoid bends them."""
        theta, e1, e2, g1, g2 = _maps(lens)
        # Kormann, Schneider & Bartelmann 1994, A&A 284, 285, with theta_E on the intermediate axis
        e = torch.sqrt(e1 * e1 + e2 * e2).clamp(max=0.95)
        q = torch.sqrt((1 - e) / (1 + e))
        angle = 0.5 * torch.atan2(e2, e1)
        c, s = torch.cos(angle), torch.sin(angle)
        along, across = c * self.x + s * self.y, c * self.y - s * self.x
        flat = torch.sqrt(1 - q * q).clamp(min=1e-3)
        size = torch.sqrt(q * q * along**2 + across**2 + 1e-8)
        bend = theta * torch.sqrt(q) / flat
        u, v = bend * torch.atan(flat * along / size), bend * torch.atanh(flat * across / size)
        ax, ay = c * u - s * v, s * u + c * v
        return self.x - ax - g1 * self.x - g2 * self.y, self.y - ay + g1 * self.y - g2 * self.x, ax, ay


def _maps(values: Tensor) -> list[Tensor]:
    return [one[..., None, None] for one in values.unbind(-1)]


def _sersic(shape: Tensor, x: Tensor, y: Tensor, *, sloped: bool) -> Maps:
    """A profile at points, and its slopes in x, y, brightness, radius, index and ellipticity."""
    brightness, radius, log_n, e1, e2 = _maps(shape)
    round2 = 1 - (e1 * e1 + e2 * e2).clamp(max=0.9)
    scale = torch.exp(-2 * radius) / torch.sqrt(round2)
    m2 = ((1 - e1) * x * x - 2 * e2 * x * y + (1 + e1) * y * y) * scale
    n = log_n.exp()
    b = 2 * n - 1 / 3 + 0.0099 / n  # Prugniel & Simien 1997, A&A 321, 111
    # the core softened by a hundredth of the radius: slopes are finite there
    log_m2 = torch.log(m2 + 1e-4)
    power = torch.exp(log_m2 * (0.5 / n))
    light = torch.exp((brightness - b * (power - 1)).clamp(min=DARK))
    if not sloped:
        return light, None
    steep = -light * b * power * (0.5 / n)  # in the logarithm of the square of the radius
    per_m2 = steep / (m2 + 1e-4)
    in_x = per_m2 * scale * 2 * ((1 - e1) * x - e2 * y)
    in_y = per_m2 * scale * 2 * ((1 + e1) * y - e2 * x)
    in_n = -light * (2 * n - 0.0099 / n) * (power - 1) - steep * log_m2
    in_e1 = per_m2 * (scale * (y * y - x * x) + m2 * e1 / round2)
    in_e2 = per_m2 * (m2 * e2 / round2 - 2 * scale * x * y)
    return light, torch.stack([in_x, in_y, light, -2 * per_m2 * m2, in_n, in_e1, in_e2], -3)


def _clump(values: Tensor, bx: Tensor, by: Tensor, *, sloped: bool) -> Maps:
    """Clumps at points ``(…, clump, y, x)``, and slopes in x, y, brightness and radius."""
    at_x, at_y, brightness, radius = _maps(values)
    x, y = bx - at_x, by - at_y
    b = 2 - 1 / 3 + 0.0099
    scale = torch.exp(-2 * radius)
    m2 = (x * x + y * y) * scale
    m = torch.sqrt(m2 + 1e-4)
    light = torch.exp((brightness - b * (m - 1)).clamp(min=DARK))
    if not sloped:
        return light, None
    per_m2 = -0.5 * b * light / m
    return light, torch.stack([2 * per_m2 * scale * x, 2 * per_m2 * scale * y, light, -2 * per_m2 * m2], -3)
