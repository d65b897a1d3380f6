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


def arc_grid(theta_e_arcsec: float, pixel_scale_arcsec: float, kernels: Sequence[NDArray[np.floating]]) -> Grid:
    """Smallest odd grid that holds the arcs of a lens and their PSF wings."""
    reach_px = (1.9 * theta_e_arcsec + 2.5) / pixel_scale_arcsec + max(k.shape[0] // 4 for k in kernels)
    return Grid(2 * int(np.ceil(reach_px)) + 1, pixel_scale_arcsec, SUPERSAMPLING)


def draw_arcs(
    rng: np.random.Generator,
    lens: MacroLens,
    *,
    grid: Grid,
    bands: Sequence[str],
    kernels: Sequence[NDArray[np.floating]],
    sources: SourcePopulation,
    source_images: Sequence[SourceImage] = (),
    sky_rms_njy: NDArray[np.float64] | None = None,
    min_arc_snr: float | None = None,
    min_magnification: float = 3.0,
    z_source: float | None = None,
    sampling: int = 1,
) -> Arcs | None:
    """
    Draw one source behind a lens, uniform in area within 0.9 Einstein radii of its centre.

    Parameters
    ----------
    lens : MacroLens
        The main lens; its centre is where the source is drawn around.
    grid : Grid
        Pixels and rays of ``Arcs.image``.
    bands : sequence of str
        Bands that the source has fluxes in.
    kernels : one per imaged band
        PSFs, sampled ``sampling`` times finer than the pixels. Fewer than bands: only the first ones are imaged.
    sky_rms_njy : array ``(n_band,)``, optional
        Noise of a pixel in the imaged bands, for ``min_arc_snr`` and ``arc_snr``.
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
    coarse = Grid(grid.size_px, grid.pixel_scale_arcsec, 1 if grid.pixel_scale_arcsec <= 0.1 else 2)
    n_image, _ = count_images(*shoot_rays([lens], coarse), source_x, source_y)
    if n_image < 2:
        return None
    rays = shoot_rays([lens], grid)
    source = draw_source(rng, sources, bands, x_arcsec=source_x, y_arcsec=source_y, images=source_images, z=z_source)
    seen = [Component(c.profile, c.flux_njy[: len(kernels)]) for c in source.components]
    sharp = render(seen, rays, grid, len(kernels), sampling=sampling)
    intrinsic = np.sum([component.flux_njy for component in source.components], axis=0)
    magnification = float(sharp[0].sum() / intrinsic[0])
    if magnification < min_magnification:
        return None
    image = convolve(sharp, kernels, sampling=sampling)
    bright, faint = sources.mag_r
    snr_at_zero = np.nan
    if sky_rms_njy is not None:
        snr_at_zero = float(np.sqrt(np.sum((image / sky_rms_njy[:, None, None]) ** 2)))
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
    return Arcs(image * scale, components, truth | _seen(image * scale, magnification, bands, sky_rms_njy))


def lens_again(
    arcs: Arcs,
    deflectors: Sequence[Deflector],
    *,
    grid: Grid,
    bands: Sequence[str],
    kernels: Sequence[NDArray[np.floating]],
    sky_rms_njy: NDArray[np.float64] | None = None,
    sampling: int = 1,
) -> Arcs:
    """The same source behind other deflectors: how substructure is added to a lens that was chosen without it."""
    seen = [Component(c.profile, c.flux_njy[: len(kernels)]) for c in arcs.components]
    sharp = render(seen, shoot_rays(deflectors, grid), grid, len(kernels), sampling=sampling)
    magnification = float(sharp[0].sum() / sum(c.flux_njy[0] for c in seen))
    image = convolve(sharp, kernels, sampling=sampling)
    return Arcs(image, arcs.components, arcs.truth | _seen(image, magnification, bands, sky_rms_njy))


def _seen(
    image: NDArray[np.float64], magnification: float, bands: Sequence[str], sky_rms_njy: NDArray[np.float64] | None
) -> dict[str, Any]:
    snr = np.nan if sky_rms_njy is None else float(np.sqrt(np.sum((image / sky_rms_njy[:, None, None]) ** 2)))
    flux = image.clip(0).sum(axis=(1, 2))
    facts: dict[str, Any] = {f"arc_mag_{b}": float(magnitude_of_njy(f)) for b, f in zip(bands, flux, strict=False)}
    return facts | {"magnification": magnification, "arc_snr": snr}
