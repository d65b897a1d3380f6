"""From light to pixels: rays are shot once for all bands, the light is binned, then convolved with each band's PSF."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2

from lenspipe.errors import ConfigError
from lenspipe.simulate.finer import Cells, refine_compact
from lenspipe.simulate.light import Component, Sersic

Array = NDArray[np.float64]


class Deflector(Protocol):
    """Anything that bends light."""

    def deflection(self, x_arcsec: Array, y_arcsec: Array) -> tuple[Array, Array]:
        """Deflection angle at image positions, arrays that broadcast, arcsec."""
        ...


@dataclass(frozen=True)
class Grid:
    """
    A square image and its rays; the origin is the centre of the image, +x along columns, +y along rows.

    Parameters
    ----------
    size_px : int
        Side of the image, pixels.
    pixel_scale_arcsec : float
        Pixel scale, arcsec.
    supersampling : int
        Rays per pixel along each axis.
    """

    size_px: int
    pixel_scale_arcsec: float
    supersampling: int = 4

    def __post_init__(self) -> None:
        if self.size_px < 1 or self.supersampling < 1 or not self.pixel_scale_arcsec > 0:
            raise ConfigError(
                "a grid needs a positive size, pixel scale and supersampling",
                size_px=self.size_px,
                pixel_scale_arcsec=self.pixel_scale_arcsec,
                supersampling=self.supersampling,
            )

    def rays(self) -> tuple[Array, Array]:
        """Positions ``(y, x)`` of all rays, arcsec from the centre of the image."""
        return _rays(self.size_px, self.pixel_scale_arcsec, self.supersampling)

    def axes(self) -> tuple[Array, Array]:
        """The same as a row ``(1, x)`` and a column ``(y, 1)``, which broadcast: fewer passes over all rays."""
        x, y = self.rays()
        return x[:1], y[:, :1]

    def bin(self, brightness: Array, sampling: int = 1) -> Array:
        """Surface brightness on the rays (per square arcsec) to flux in ``sampling`` sub-pixels per pixel and axis."""
        s = self.supersampling // sampling
        if s * sampling != self.supersampling:
            raise ConfigError("the PSF sampling must divide the supersampling", got=sampling, of=self.supersampling)
        # sums of slices: 7 times as fast as a mean over two axes
        columns = sum(brightness[k::s] for k in range(1, s)) + brightness[::s]
        flux: Array = sum(columns[:, k::s] for k in range(1, s)) + columns[:, ::s]
        flux *= (self.pixel_scale_arcsec / sampling / s) ** 2
        return flux


@functools.lru_cache(maxsize=8)
def _rays(size_px: int, scale: float, supersampling: int) -> tuple[Array, Array]:
    n = size_px * supersampling
    axis = (np.arange(n) - (n - 1) / 2) * scale / supersampling
    x, y = np.meshgrid(axis, axis)
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


def shoot_rays(deflectors: Sequence[Deflector], grid: Grid) -> tuple[Array, Array]:
    """Source-plane positions ``(y, x)`` of the rays behind deflectors on one plane, arcsec."""
    keep_freed_memory()
    x, y = grid.axes()
    beta_x, beta_y = (ray.copy() for ray in grid.rays())
    for deflector in deflectors:
        alpha_x, alpha_y = deflector.deflection(x, y)
        beta_x -= alpha_x
        beta_y -= alpha_y
    return beta_x, beta_y


@functools.cache
def keep_freed_memory() -> None:
    """
    Have this process keep the memory that arrays of rays leave behind, once; up to 48 MiB stay with it.

    The C library of Linux gives blocks back to the system above a threshold, which it raises to the largest block that
    it has seen freed. Below it, half of a stamp's time went into pages that were mapped anew for every array.
    """
    np.empty(24 << 20, np.uint8)


def render(
    components: Sequence[Component], rays: tuple[Array, Array], grid: Grid, n_band: int, *, sampling: int = 1
) -> NDArray[np.float64]:
    """
    Flux before the PSF, ``(band, y, x)`` in nJy, on ``sampling`` sub-pixels per pixel and axis.

    Each profile is evaluated once on the rays and scaled by its flux in every band; profiles that the rays are too far
    apart for are integrated on finer ones (`lenspipe.simulate.finer`).
    """
    image = np.zeros((n_band, grid.size_px * sampling, grid.size_px * sampling))
    cells = Cells(*rays)
    for component in components:
        brightness = component.profile.brightness(*rays)
        refine_compact(brightness, component.profile, cells)
        shape = grid.bin(brightness, sampling)
        image += np.asarray(component.flux_njy, float)[:, None, None] * shape
    return image


def render_galaxy(
    components: Sequence[Component], grid: Grid, n_band: int, *, sampling: int = 1
) -> NDArray[np.float64]:
    """
    Unlensed galaxy before the PSF, ``(band, y, x)`` in nJy.

    As `render`, but the pixels around the centre of a cuspy profile (n > 1.5) are integrated on 31 times finer
    points, and again on finer ones at the cusp: at n = 4 the rays alone miss a few per cent of the flux.
    """
    image = np.zeros((n_band, grid.size_px * sampling, grid.size_px * sampling))
    for component in components:
        shape = grid.bin(component.profile.brightness(*grid.axes()), sampling)
        if isinstance(component.profile, Sersic) and component.profile.n > 1.5:
            _refine_core(shape, component.profile, grid.pixel_scale_arcsec / sampling)
        image += np.asarray(component.flux_njy, float)[:, None, None] * shape
    return image


def _refine_core(shape: Array, profile: Sersic, scale_arcsec: float) -> None:
    half = (len(shape) - 1) / 2
    column = round(profile.x_arcsec / scale_arcsec + half)
    row = round(profile.y_arcsec / scale_arcsec + half)
    columns = np.arange(max(column - 1, 0), min(column + 2, len(shape)))
    rows = np.arange(max(row - 1, 0), min(row + 2, len(shape)))
    if not (len(columns) and len(rows)):
        return
    x, y = ((places - half).astype(float) * scale_arcsec for places in (columns, rows))
    flux = _mean_brightness(profile, x, y, scale_arcsec) * scale_arcsec**2
    shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = flux


def _mean_brightness(profile: Sersic, x: Array, y: Array, side: float, *, levels: int = 3) -> Array:
    """
    Mean brightness ``(y, x)`` of square cells around positions, on 31 times finer points.

    The cells of the finer points at the cusp are integrated in the same way, on so many levels: on the first alone, the
    point on the cusp itself would stand for 1.5 % of the flux at n = 5.
    """
    fine = (np.arange(31) - 15) / 31 * side
    fine_x, fine_y = ((places[:, None] + fine).ravel() for places in (x, y))
    points = profile.brightness(fine_x[None], fine_y[:, None])
    if levels > 1:
        near_x = np.flatnonzero(abs(fine_x - profile.x_arcsec) < 1.5 * side / 31)
        near_y = np.flatnonzero(abs(fine_y - profile.y_arcsec) < 1.5 * side / 31)
        if len(near_x) and len(near_y):
            core = _mean_brightness(profile, fine_x[near_x], fine_y[near_y], side / 31, levels=levels - 1)
            points[np.ix_(near_y, near_x)] = core
    found: Array = points.reshape(len(y), 31, len(x), 31).mean(axis=(1, 3))
    return found


def convolve(
    image_njy: NDArray[np.floating], kernels: Sequence[NDArray[np.floating]], *, sampling: int = 1
) -> NDArray[np.float64]:
    """
    Convolve every band of ``(band, y, x)`` with its own kernel; the sky outside the image is taken as dark.

    Where image and kernels are sampled finer than the pixels, ``sampling`` sub-pixels are summed afterwards.

    Raises
    ------
    ConfigError
        Kernels and bands differ in number, or a kernel's side is even (it would shift the image by half a pixel).
    """
    if len(kernels) != len(image_njy):
        raise ConfigError("one PSF kernel per band is needed", bands=len(image_njy), kernels=len(kernels))
    for kernel in kernels:
        if kernel.ndim != 2 or kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
            raise ConfigError("a PSF kernel must be two-dimensional with odd sides", shape=str(kernel.shape))
    out = np.empty(image_njy.shape)
    for band, (plane, kernel) in enumerate(zip(image_njy, kernels, strict=True)):
        reach = np.add(plane.shape, kernel.shape) - 1
        size = [next_fast_len(int(n), real=True) for n in reach]
        full = irfft2(rfft2(plane, size) * rfft2(kernel, size), size)
        y0, x0 = np.array(kernel.shape) // 2
        out[band] = full[y0 : y0 + image_njy.shape[1], x0 : x0 + image_njy.shape[2]]
    n_y, n_x = np.array(image_njy.shape[1:]) // sampling
    return out.reshape(len(out), n_y, sampling, n_x, sampling).sum(axis=(2, 4)) if sampling > 1 else out


def add_stamp(image: NDArray[Any], stamp: NDArray[Any], column: int, row: int) -> None:
    """Add an odd stamp ``(band, y, x)`` to an image, in place, centred on a pixel; what reaches over an edge is cut."""
    n_y, n_x = stamp.shape[1:]
    y0, x0 = row - n_y // 2, column - n_x // 2
    ys = slice(max(y0, 0), min(y0 + n_y, image.shape[1]))
    xs = slice(max(x0, 0), min(x0 + n_x, image.shape[2]))
    if ys.stop > ys.start and xs.stop > xs.start:
        image[:, ys, xs] += stamp[:, ys.start - y0 : ys.stop - y0, xs.start - x0 : xs.stop - x0]


def paint_galaxy(
    image: NDArray[np.float64],
    components: Sequence[Component],
    x_px: float,
    y_px: float,
    pixel_scale_arcsec: float,
    faintest_njy: NDArray[np.float64],
    *,
    supersampling: int = 3,
) -> None:
    """
    Add a galaxy before the PSF to an image ``(band, y, x)``, in place, at a sub-pixel position.

    Sersic components are drawn on a square that ends where they fall below ``faintest_njy`` per pixel in every band;
    other profiles on 20 arcsec. Positions inside the components are relative to ``x_px``, ``y_px``.
    """
    column, row = int(np.floor(x_px + 0.5)), int(np.floor(y_px + 0.5))
    cap = max(image.shape[1:])
    for component in components:
        profile = component.profile
        shift = {
            "x_arcsec": getattr(profile, "x_arcsec", 0.0) + (x_px - column) * pixel_scale_arcsec,
            "y_arcsec": getattr(profile, "y_arcsec", 0.0) + (y_px - row) * pixel_scale_arcsec,
        }
        moved = replace(profile, **shift)  # type: ignore[type-var]
        reach = int(10 / pixel_scale_arcsec)
        if isinstance(profile, Sersic):
            radius = np.arange(1.0, cap + 1.0) * pixel_scale_arcsec
            along = np.cos(profile.angle_rad) * radius, np.sin(profile.angle_rad) * radius
            bright = replace(profile, x_arcsec=0.0, y_arcsec=0.0).brightness(*along) * pixel_scale_arcsec**2
            below = np.flatnonzero((bright[:, None] * component.flux_njy < faintest_njy).all(axis=1))
            reach = int(below[0]) + 1 if len(below) else cap
            reach += int(np.ceil(max(abs(shift["x_arcsec"]), abs(shift["y_arcsec"])) / pixel_scale_arcsec))
        grid = Grid(2 * min(max(reach, 6), cap) + 1, pixel_scale_arcsec, supersampling)
        add_stamp(image, render_galaxy([Component(moved, component.flux_njy)], grid, len(image)), column, row)
