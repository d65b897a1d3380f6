"""Images of smooth lenses with Sérsic sources, many at a time, and their slopes in every parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

NAMES = (
    *("theta_e_arcsec", "lens_e1", "lens_e2", "gamma1", "gamma2", "x_arcsec", "y_arcsec"),
    *("log_brightness", "log_radius", "log_n", "e1", "e2", "centre_x_arcsec", "centre_y_arcsec"),
    *("light_log_brightness", "light_log_radius", "light_log_n", "light_e1", "light_e2"),
)
"""
Einstein radius, ellipticity and shear of the lens; place seen from the lens, brightness at the effective radius,
effective radius, Sérsic index and ellipticity of the source; place of the lens and of its light, from the middle of the
stamp; brightness to ellipticity of the lens galaxy. Lengths are in arcsec, logarithms natural, ellipticities
``(1 - q^2) / (1 + q^2)`` times cosine and sine of twice the angle from +x to +y.
"""
N_ARC = 14
"""So many of them move the arcs; the others are the lens galaxy's, as is `CENTRE`."""
CENTRE = slice(N_ARC - 2, N_ARC)
"""Those of the place, which mass and light share: mass that may lie elsewhere takes up what substructure does."""
CLUMP = ("x_arcsec", "y_arcsec", "log_brightness", "log_radius")
"""A clump of the source: round, with an exponential profile, at a place of its own, seen from the lens."""
BRIGHTER, SMALLER = (1.5, 1.0), (-1.9, 0.4)
"""Logarithms of a clump's brightness and radius over the source's: mean and width of their priors."""
RINGS = ((0.35, 7), (0.65, 12), (0.95, 16), (1.3, 20))
"""Places where clumps are tried: radius over the source's, and how many lie around it."""
MOVED = (1, 2, 12, 13)
"""Ellipticity and place of the lens, whose slopes are differences."""
LOG_N = (-1.6, 2.2)
"""Logarithms of the least and the largest Sérsic index: beyond 0.2 and 9 profiles do not change."""
STEP = 1e-3
"""Of the differences."""
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
        Of the middle of the pixels from that of the stamp, in pixels.
    beyond_px : int
        Pixels beyond each edge whose light the PSF brings in; 0: all is dark there.
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
        beyond_px: int = 0,
    ) -> None:
        self.pixel_scale_arcsec = pixel_scale_arcsec
        self.finer, self.beyond_px = finer, beyond_px
        n, step = (size_px + 2 * beyond_px) * finer, pixel_scale_arcsec / finer
        inside = slice(beyond_px * finer, (beyond_px + size_px) * finer)
        axis = (torch.arange(n) - (n - 1) / 2) * step + shift_px * pixel_scale_arcsec
        self.x, self.y = axis.expand(n, n), axis[:, None].expand(n, n)
        sigma = fwhm_arcsec / math.sqrt(8 * math.log(2)) / step
        blur = torch.exp(-0.5 * ((torch.arange(n)[:, None] - torch.arange(n)) / sigma) ** 2)
        blur = (blur / blur[n // 2].sum())[inside].reshape(size_px, finer, n).mean(1)
        self.blur = torch.where(blur > 1e-12, blur, 0.0)  # numbers next to nothing take fifty times as long
        centres = torch.hypot(self.x, self.y)[inside, inside].reshape(size_px, finer, size_px, finer).mean((1, 3))
        self.kept = (centres > mask_arcsec).float()

    def arcs(self, values: Tensor, clumps: Tensor | None = None) -> Tensor:
        """Images of the source, of the first `N_ARC` values, and of its clumps ``(…, clump, parameter)``."""
        return self.seen(self._arcs(values, clumps, None)[0])

    def light(self, values: Tensor) -> Tensor:
        """The lens galaxy, of the other values and those of `CENTRE` (`of_light`)."""
        return self.seen(self._light(values, sloped=False)[0])

    def arc_slopes(self, values: Tensor, clumps: Tensor | None, free: Sequence[int]) -> Tensor:
        """Change of `arcs` per value that is free ``(…, parameter, y, x)``, then per value of each clump."""
        slopes = self._arcs(values, clumps, free)[1]
        assert slopes is not None
        return self.seen(slopes)

    def light_slopes(self, values: Tensor, free: Sequence[int]) -> Tensor:
        """Change of `light` per value that is free, in its own order."""
        slopes = self._light(values, sloped=True)[1]
        assert slopes is not None
        order = [*range(2, 7), 0, 1]  # brightness to ellipticity, then the place
        sign = [-1.0 if k > 4 else 1.0 for k in free]
        return self.seen(slopes[..., [order[k] for k in free], :, :] * torch.tensor(sign)[:, None, None])

    def source_slopes(self, values: Tensor, clumps: Tensor | None) -> Tensor:
        """The source's slopes in x and y, in the source plane, at the points ``(…, 2, y, x)``."""
        bx, by = self._rays(values)[:2]
        x, y = _maps(values[..., 5:7])
        slopes = _sersic(values[..., 7:12], bx - x, by - y, sloped=True)[1]
        assert slopes is not None
        slopes = slopes[..., :2, :, :]
        if clumps is not None:
            of_clumps = _clump(clumps, bx[..., None, :, :], by[..., None, :, :], sloped=True)[1]
            assert of_clumps is not None
            slopes = slopes + of_clumps[..., :2, :, :].sum(-4)
        return slopes

    def lone_clumps(self, values: Tensor, clumps: Tensor) -> Tensor:
        """An image of each clump alone ``(…, clump, y, x)``, behind the lens of the values."""
        bx, by = self._rays(values)[:2]
        return self.seen(_clump(clumps, bx[..., None, :, :], by[..., None, :, :], sloped=False)[0])

    def seen(self, points: Tensor) -> Tensor:
        """What PSF and pixels make of light at the points ``(…, y, x)``."""
        return self.blur @ points @ self.blur.T

    def _light(self, values: Tensor, *, sloped: bool) -> Maps:
        x, y = _maps(values[..., 5:7])
        return _sersic(values[..., :5], self.x - x, self.y - y, sloped=sloped)

    def _arcs(self, values: Tensor, clumps: Tensor | None, free: Sequence[int] | None) -> Maps:
        bx, by, ax, ay = self._rays(values)
        x, y = _maps(values[..., 5:7])
        light, slopes = _sersic(values[..., 7:12], bx - x, by - y, sloped=free is not None)
        parts = None
        if clumps is not None:
            parts = _clump(clumps, bx[..., None, :, :], by[..., None, :, :], sloped=free is not None)
            light = light + parts[0].sum(-3)
        if free is None:
            return light, None
        assert slopes is not None
        fx, fy = slopes[..., 0, :, :], slopes[..., 1, :, :]
        found = {5: -fx, 6: -fy} | dict(zip(range(7, 12), slopes[..., 2:, :, :].unbind(-3), strict=True))
        of_clumps: list[Tensor] = []
        if parts is not None:
            assert parts[1] is not None
            along = parts[1][..., :2, :, :].sum(-4)
            fx, fy = fx + along[..., 0, :, :], fy + along[..., 1, :, :]
            turned = torch.cat([-parts[1][..., :2, :, :], parts[1][..., 2:, :, :]], -3)
            of_clumps.extend(turned.flatten(-4, -3).unbind(-3))
        theta, px, py = _maps(values[..., :1])[0], *self._from_lens(values)
        found |= {0: -(fx * ax + fy * ay) / theta, 3: fy * py - fx * px, 4: -fx * py - fy * px}
        for k in set(MOVED) & set(free):
            moved = values.clone()
            moved[..., k] += STEP
            there = self._rays(moved)
            found[k] = (fx * (there[0] - bx) + fy * (there[1] - by)) / STEP
        return light, torch.stack([*(found[k] for k in free), *of_clumps], -3)

    def _from_lens(self, values: Tensor) -> tuple[Tensor, Tensor]:
        x, y = _maps(values[..., 12:14])
        return self.x - x, self.y - y

    def _rays(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where the points lie in the source plane, seen from the lens, and by how much the ellipsoid bends them."""
        theta, e1, e2, g1, g2 = _maps(values[..., :5])
        px, py = self._from_lens(values)
        # Kormann, Schneider & Bartelmann 1994, A&A 284, 285, with theta_E on the intermediate axis
        e = torch.sqrt(e1 * e1 + e2 * e2).clamp(max=0.95)
        q = torch.sqrt((1 - e) / (1 + e))
        angle = 0.5 * torch.atan2(e2, e1)
        c, s = torch.cos(angle), torch.sin(angle)
        along, across = c * px + s * py, c * py - s * px
        flat = torch.sqrt(1 - q * q).clamp(min=1e-3)
        size = torch.sqrt(q * q * along**2 + across**2 + 1e-8)
        bend = theta * torch.sqrt(q) / flat
        u, v = bend * torch.atan(flat * along / size), bend * torch.atanh(flat * across / size)
        ax, ay = c * u - s * v, s * u + c * v
        return px - ax - g1 * px - g2 * py, py - ay + g1 * py - g2 * px, ax, ay


def of_light(values: Tensor) -> Tensor:
    """Those of the values ``(…, parameter)`` that make the lens galaxy, its place last."""
    return torch.cat([values[..., N_ARC : len(NAMES)], values[..., CENTRE]], -1)


def clump_trials(values: Tensor) -> Tensor:
    """Clumps of brightness 1 in and around the source of each of the values ``(n, trial, parameter)``."""
    at = {name: values[:, NAMES.index(name)] for name in CLUMP}
    radius, size = at["log_radius"].exp()[:, None], (at["log_radius"] + SMALLER[0])[:, None]
    places = list[Tensor]()
    for ring, (r, n) in enumerate(RINGS):
        angle = (torch.arange(n) + ring % 2 / 2) * (2 * math.pi / n)
        x = at["x_arcsec"][:, None] + r * radius * torch.cos(angle)
        y = at["y_arcsec"][:, None] + r * radius * torch.sin(angle)
        places.append(torch.stack([x, y, torch.zeros_like(x), size.expand(-1, n)], 2))
    return torch.cat(places, 1)


def _maps(values: Tensor) -> list[Tensor]:
    return [one[..., None, None] for one in values.unbind(-1)]


def _sersic(shape: Tensor, x: Tensor, y: Tensor, *, sloped: bool) -> Maps:
    """A profile at points, and its slopes in x, y, brightness, radius, index and ellipticity."""
    brightness, radius, log_n, e1, e2 = _maps(shape)
    round2 = 1 - (e1 * e1 + e2 * e2).clamp(max=0.9)
    scale = torch.exp(-2 * radius) / torch.sqrt(round2)
    m2 = ((1 - e1) * x * x - 2 * e2 * x * y + (1 + e1) * y * y) * scale
    within = log_n.clamp(*LOG_N)
    n = within.exp()
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
    in_n = (-light * (2 * n - 0.0099 / n) * (power - 1) - steep * log_m2) * (within == log_n)
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
