"""Simulated arcs painted on real pixels: on a cutout of a host galaxy, or into a whole tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.simulate.arcs import Optics
from lenspipe.simulate.instrument import kernels_of, photon_noise
from lenspipe.simulate.lensed import around_light, draw_lens
from lenspipe.simulate.population import SourceImage, SourcePopulation
from lenspipe.simulate.render import add_stamp

Psf = Sequence[float | NDArray[np.floating]]
Pixels = NDArray[np.float32]
MAX_DRAWS = 60


def paint_arcs(
    host_njy: NDArray[np.floating],
    *,
    bands: Sequence[str],
    pixel_scale_arcsec: float,
    psf: Psf,
    rng: np.random.Generator,
    theta_e_range_arcsec: tuple[float, float] = (0.8, 3.0),
    axis_ratio: float | None = None,
    angle_rad: float | None = None,
    shear_scatter: float = 0.05,
    centre_px: tuple[float, float] | None = None,
    sources: SourcePopulation | None = None,
    source_images: Sequence[SourceImage] = (),
    sky_rms_njy: ArrayLike | None = None,
    min_arc_snr: float | None = None,
    min_magnification: float = 3.0,
    njy_per_electron: ArrayLike | None = None,
) -> tuple[Pixels, Pixels, dict[str, Any]]:
    """
    Paint the lensed images of one background galaxy around the host at the centre of a stamp.

    The lens is an SIE with shear whose centre is the host's. Its Einstein radius is log-uniform in the range; the
    source is drawn inside the multiply-imaged region, uniform in area. Where ``min_arc_snr`` is given the source's
    magnitude is drawn from the population's counts among those that reach it, so faint arcs stay the most frequent.
    The host's noise stays as it is; only the photon noise of the arcs is added, where ``njy_per_electron`` is given.

    Parameters
    ----------
    host_njy : array ``(band, y, x)``
        Stamp, nJy, square. NaN stay NaN.
    bands : sequence of str
        Names of the bands.
    pixel_scale_arcsec : float
    psf : one per band
        A number is a Moffat FWHM in arcsec, an array ``(y, x)`` with odd sides is the PSF in the stamp's pixels.
    rng : numpy Generator
    theta_e_range_arcsec : (float, float)
        Einstein radius between these, arcsec.
    axis_ratio, angle_rad : float, optional
        Of the host's light, angle from +x (columns) towards +y (rows). The mass follows with a scatter of 0.05 and
        10 degrees. Drawn where not given.
    shear_scatter : float
        Typical external shear.
    centre_px : (float, float), optional
        Column and row of the host's centre, 0-based; the centre of the stamp by default.
    sources : SourcePopulation, optional
        What the sources are like.
    source_images : sequence of SourceImage
        Real galaxies, used for ``sources.image_fraction`` of the sources.
    sky_rms_njy : float per band, optional
        Noise of a pixel; needed for ``min_arc_snr`` and for ``arc_snr`` in the truth.
    min_arc_snr : float, optional
        Smallest ``sqrt(sum (arc / sky_rms)^2)`` over all pixels and bands.
    min_magnification : float
        Smallest total magnification, measured on the rays.
    njy_per_electron : float per band, optional
        Flux of one photo-electron, nJy, for the arcs' photon noise.

    Returns
    -------
    painted, arcs : float32 arrays ``(band, y, x)``
        The host with arcs, and the noise-free arcs alone, nJy.
    truth : dict
        Lens, source, ``n_image``, ``magnification``, ``arc_snr`` (NaN without sky noise), ``arc_mag_<band>``,
        ``source_mag_<band>``.

    Raises
    ------
    ConfigError
        Bands, PSFs and the stamp differ in number, or ``min_arc_snr`` comes without noise.
    DataError
        No source of the population reaches ``min_arc_snr`` in this host after 60 draws.
    """
    n_band, n_y, n_x = np.shape(host_njy)
    if not len(bands) == len(psf) == n_band or n_y != n_x:
        raise ConfigError("a square stamp with one name and one PSF per band is needed", shape=str(np.shape(host_njy)))
    if min_arc_snr is not None and sky_rms_njy is None:
        raise ConfigError("min_arc_snr needs the sky noise of every band", min_arc_snr=min_arc_snr)
    rms = None if sky_rms_njy is None else np.broadcast_to(np.asarray(sky_rms_njy, float), (n_band,))
    column, row = centre_px or ((n_x - 1) / 2, (n_y - 1) / 2)
    offset_px = column - np.floor(column + 0.5), row - np.floor(row + 0.5)
    offset_arcsec = offset_px[0] * pixel_scale_arcsec, offset_px[1] * pixel_scale_arcsec
    drawn = draw_lens(
        rng,
        around_light(
            theta_e_range_arcsec,
            axis_ratio=axis_ratio,
            angle_rad=angle_rad,
            shear_scatter=shear_scatter,
            offset_arcsec=offset_arcsec,
        ),
        Optics(bands, pixel_scale_arcsec, kernels_of(psf, pixel_scale_arcsec), rms),
        sources=sources or SourcePopulation(),
        source_images=source_images,
        min_arc_snr=min_arc_snr,
        min_magnification=min_magnification,
        attempts=MAX_DRAWS,
    )
    if drawn is None:
        raise DataError(
            "no source of this population makes an arc as bright as asked: lower min_arc_snr or brighten the sources",
            min_arc_snr=min_arc_snr,
            attempts=MAX_DRAWS,
        )
    arcs = drawn.arcs
    layer = np.zeros((n_band, n_y, n_x))
    add_stamp(layer, arcs.image, int(np.floor(column + 0.5)), int(np.floor(row + 0.5)))
    painted = add_arcs(host_njy, layer, njy_per_electron, rng)
    return painted, layer.astype(np.float32), arcs.truth


def add_arcs(
    host_njy: NDArray[np.floating],
    arcs_njy: NDArray[np.float64],
    njy_per_electron: ArrayLike | None,
    rng: np.random.Generator,
) -> Pixels:
    """A host ``(band, y, x)`` with arcs and, where a gain is given, their photon noise; NaN stay NaN."""
    painted = np.asarray(host_njy, np.float64) + photon_noise(arcs_njy, njy_per_electron, rng)
    return painted.astype(np.float32)


def paint_tile(
    image_njy: NDArray[np.floating],
    x_px: ArrayLike,
    y_px: ArrayLike,
    *,
    seed: int,
    bands: Sequence[str],
    pixel_scale_arcsec: float,
    psf: Psf,
    sky_rms_njy: ArrayLike | None = None,
    njy_per_electron: ArrayLike | None = None,
    **settings: Any,
) -> tuple[Pixels, pa.Table]:
    """
    Paint arcs around hosts of a real tile, with the tile's PSF and noise.

    Host ``k`` is drawn from ``(seed, k)``: injecting a part of the hosts gives the same arcs for those.

    Parameters
    ----------
    image_njy : array ``(band, y, x)``
        The tile, nJy; it is copied. NaN stay NaN.
    x_px, y_px : array ``(n,)``
        Centres of the hosts, 0-based columns and rows, fractions kept. Arcs that reach over the edge are cut.
    seed : int
    bands, pixel_scale_arcsec, psf, sky_rms_njy, njy_per_electron, **settings
        As in `paint_arcs` (per-host ``axis_ratio`` and ``angle_rad`` as arrays ``(n,)`` are welcome).

    Returns
    -------
    image : float32 array ``(band, y, x)``
    truth : pyarrow.Table
        One row per host: ``host``, ``x_px``, ``y_px`` and the truth of `paint_arcs`.

    Raises
    ------
    ConfigError, DataError
        As `paint_arcs`; or a host lies outside the tile.
    """
    out = np.array(image_njy, np.float32)
    x, y = np.atleast_1d(np.asarray(x_px, float)), np.atleast_1d(np.asarray(y_px, float))
    n_band, n_y, n_x = out.shape
    outside = (x < -0.5) | (y < -0.5) | (x > n_x - 0.5) | (y > n_y - 0.5)
    if outside.any():
        raise ConfigError("a host lies outside the tile", host=int(np.flatnonzero(outside)[0]), shape=str(out.shape))
    shapes: dict[str, Any] = {
        key: np.broadcast_to(settings.pop(key), x.shape) for key in ("axis_ratio", "angle_rad") if key in settings
    }
    rows: list[dict[str, Any]] = []
    for k in range(len(x)):
        rng = np.random.default_rng([seed, k])
        column, row = int(np.floor(x[k] + 0.5)), int(np.floor(y[k] + 0.5))
        reach = int(np.ceil((1.9 * settings.get("theta_e_range_arcsec", (0.8, 3.0))[1] + 6) / pixel_scale_arcsec))
        empty = np.zeros((n_band, 2 * reach + 1, 2 * reach + 1), np.float32)
        _, arcs, truth = paint_arcs(
            empty,
            bands=bands,
            pixel_scale_arcsec=pixel_scale_arcsec,
            psf=psf,
            rng=rng,
            centre_px=(reach + x[k] - column, reach + y[k] - row),
            sky_rms_njy=sky_rms_njy,
            **(settings | {name: float(values[k]) for name, values in shapes.items()}),
        )
        add_stamp(out, photon_noise(arcs, njy_per_electron, rng), column, row)
        rows.append({"host": k, "x_px": float(x[k]), "y_px": float(y[k])} | truth)
    return out, pa.Table.from_pylist(rows)
