"""The lensed images of one drawn source: multiply imaged, magnified, and as bright as is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.simulate.lens import MacroLens, count_images
from lenspipe.simulate.light import Component
from lenspipe.simulate.photometry import magnitude_of_njy
from lenspipe.simulate.population import SourceImage, SourcePopulation, draw_magnitude, draw_source
from lenspipe.simulate.render import Deflector, Grid, convolve, render, shoot_rays

SUPERSAMPLING = 4


@dataclass(frozen=True)
class Arcs:
    """One drawn source behind a lens."""

    image: NDArray[np.float64]
    """Its lensed images ``(imaged band, y, x)`` after the PSF, nJy, on the grid that was asked for."""
    components: tuple[Component, ...]
    """The source itself, nJy, for rendering on another grid."""
    truth: dict[str, Any]
    """True parameters."""


@dataclass(frozen=True, eq=False)
class Optics:
    """Pixels that a lensed source is seen on."""

    bands: Sequence[str]
    """Bands that sources have fluxes in."""
    pixel_scale_arcsec: float
    """Pixel scale."""
    kernels: Sequence[NDArray[np.floating]]
    """PSF of each imaged band, ``sampling`` times finer than the pixels. Fewer than bands: the first are imaged."""
    sky_rms_njy: NDArray[np.float64] | None = None
    """Noise of a pixel in the imaged bands, for signal-to-noise."""
    grid: Grid | None = None
    """Pixels and rays; None for the smallest that hold the arcs of each lens."""
    sampling: int = 1
    """PSF samples per pixel and axis."""

    def grid_for(self, lens: MacroLens) -> Grid:
        """The given grid, or the smallest odd one that holds the arcs of a lens and their PSF wings."""
        if self.grid is not None:
            return self.grid
        wings = max(k.shape[0] // 4 for k in self.kernels)
        reach_px = (1.9 * lens.theta_e_arcsec + 2.5) / self.pixel_scale_arcsec + wings
        return Grid(2 * int(np.ceil(reach_px)) + 1, self.pixel_scale_arcsec, SUPERSAMPLING)


def lensed_source(
    components: Sequence[Component], deflectors: Sequence[Deflector], optics: Optics, grid: Grid
) -> NDArray[np.float64]:
    """A source behind deflectors before the PSF, nJy: the imaged bands ``(band, y, x)`` on the PSF's samples."""
    n = len(optics.kernels)
    seen = [Component(c.profile, c.flux_njy[:n]) for c in components]
    return render(seen, shoot_rays(deflectors, grid), grid, n, sampling=optics.sampling)


def draw_arcs(
    rng: np.random.Generator,
    lens: MacroLens,
    optics: Optics,
    *,
    sources: SourcePopulation,
    source_images: Sequence[SourceImage] = (),
    min_arc_snr: float | None = None,
    min_magnification: float = 3.0,
    z_source: float | None = None,
) -> Arcs | None:
    """
    Draw one source behind a lens, uniform in area within 0.9 Einstein radii of its centre.

    Parameters
    ----------
    lens : MacroLens
        The main lens; its centre is where the source is drawn around.
    optics : Optics
        Pixels, PSFs and noise of ``Arcs.image``.
    sources : SourcePopulation
    source_images : sequence of SourceImage
        Real galaxies, used for ``sources.image_fraction`` of the sources.
    min_arc_snr : float, optional
        Smallest total signal-to-noise; needs the noise of the optics.
    min_magnification : float
        Smallest total magnification, measured on the rays.
    z_source : float, optional
        Redshift of the source; drawn where not given.

    Returns
    -------
    Arcs or None
        None where the lens does not image the source multiply, or it is not magnified enough, or cannot
        reach ``min_arc_snr`` within the magnitudes of its population.
    """
    beta, turn = lens.theta_e_arcsec * 0.9 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    source_x = float(lens.x_arcsec + beta * np.cos(turn))
    source_y = float(lens.y_arcsec + beta * np.sin(turn))
    grid, bands, rms = optics.grid_for(lens), optics.bands, optics.sky_rms_njy
    coarse = Grid(grid.size_px, grid.pixel_scale_arcsec, 1 if grid.pixel_scale_arcsec <= 0.1 else 2)
    n_image, _ = count_images(*shoot_rays([lens], coarse), source_x, source_y)
    if n_image < 2:
        return None
    source = draw_source(rng, sources, bands, x_arcsec=source_x, y_arcsec=source_y, images=source_images, z=z_source)
    sharp = lensed_source(source.components, [lens], optics, grid)
    intrinsic = np.sum([component.flux_njy for component in source.components], axis=0)
    magnification = float(sharp[0].sum() / intrinsic[0])
    if magnification < min_magnification:
        return None
    image = convolve(sharp, optics.kernels, sampling=optics.sampling)
    bright, faint = sources.mag_r
    snr_at_zero = np.nan
    if rms is not None:
        snr_at_zero = float(np.sqrt(np.sum((image / rms[:, None, None]) ** 2)))
    if min_arc_snr is not None:
        faint = min(faint, 2.5 * np.log10(snr_at_zero / min_arc_snr))
        if faint <= bright:
            return None
    scale = 10 ** (-0.4 * draw_magnitude(rng, bright, faint, sources.mag_slope))
    truth: dict[str, Any] = {
        name: getattr(lens, name)
        for name in ("theta_e_arcsec", "axis_ratio", "angle_rad", "slope", "shear", "shear_angle_rad")
    }
    arc_flux = image.clip(0).sum(axis=(1, 2)) * scale
    truth |= {f"arc_mag_{band}": float(magnitude_of_njy(f)) for band, f in zip(bands, arc_flux, strict=False)}
    truth |= {
        f"source_mag_{band}": float(magnitude_of_njy(f)) for band, f in zip(bands, intrinsic * scale, strict=True)
    }
    truth |= source.facts | {
        "source_x_arcsec": source_x - lens.x_arcsec,
        "source_y_arcsec": source_y - lens.y_arcsec,
        "n_image": n_image,
    }
    components = tuple(Component(c.profile, c.flux_njy * scale) for c in source.components)
    return Arcs(image * scale, components, truth | _seen(image * scale, magnification, optics))


def lens_again(arcs: Arcs, deflectors: Sequence[Deflector], optics: Optics, grid: Grid) -> Arcs:
    """The same source behind other deflectors: how substructure is added to a lens that was chosen without it."""
    sharp = lensed_source(arcs.components, deflectors, optics, grid)
    magnification = float(sharp[0].sum() / sum(c.flux_njy[0] for c in arcs.components))
    image = convolve(sharp, optics.kernels, sampling=optics.sampling)
    return Arcs(image, arcs.components, arcs.truth | _seen(image, magnification, optics))


def _seen(image: NDArray[np.float64], magnification: float, optics: Optics) -> dict[str, Any]:
    rms = optics.sky_rms_njy
    snr = np.nan if rms is None else float(np.sqrt(np.sum((image / rms[:, None, None]) ** 2)))
    flux = image.clip(0).sum(axis=(1, 2))
    named = zip(optics.bands, flux, strict=False)
    facts: dict[str, Any] = {f"arc_mag_{band}": float(magnitude_of_njy(f)) for band, f in named}
    return facts | {"magnification": magnification, "arc_snr": snr}
