"""A little survey field with everything in it: galaxies, stars and a few strong lenses, with its truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.simulate.arcs import Optics
from lenspipe.simulate.galaxies import draw_field_galaxy, draw_star_njy
from lenspipe.simulate.instrument import add_noise, moffat_kernel, moffat_star
from lenspipe.simulate.lensed import draw_lens, from_population
from lenspipe.simulate.light import Component
from lenspipe.simulate.photometry import magnitude_of_njy
from lenspipe.simulate.population import DeflectorPopulation, SourcePopulation, deflector_light
from lenspipe.simulate.render import add_stamp, convolve, paint_galaxy

_GALAXY, _STAR, _LENS, _PLACE, _NOISE = range(5)


@dataclass(frozen=True)
class Field:
    """A simulated field."""

    image: NDArray[np.float32]
    """``(band, y, x)``, nJy, sky-subtracted."""
    invvar: NDArray[np.float32]
    """Inverse variance ``(band, y, x)``, 1 / nJy^2: sky and the photons of the sources."""
    truth: pa.Table
    """One row per object: ``kind`` (galaxy, star, lens), ``is_lens``, ``x_px``, ``y_px``, ``mag_<band>``; for lenses
    ``theta_e_arcsec``, redshifts, ``arc_snr``, ``magnification`` and the other truths of the arcs, else null."""


def simulate_field(
    *,
    seed: int,
    bands: Sequence[str] = ("g", "r", "i"),
    shape_px: tuple[int, int] = (900, 700),
    pixel_scale_arcsec: float = 0.2,
    seeing_fwhm_arcsec: ArrayLike = (0.85, 0.70, 0.78),
    sky_rms_njy: ArrayLike = (13.0, 15.0, 34.0),
    n_galaxy: int = 260,
    n_star: int = 60,
    n_lens: int = 4,
    theta_e_range_arcsec: tuple[float, float] = (1.2, 2.2),
    min_arc_snr: float = 60.0,
    njy_per_electron: float = 0.4,
) -> Field:
    """
    Simulate a field: counts of galaxies and stars as the sky has them, and massive red ellipticals with blue arcs.

    Every object is drawn from ``(seed, kind, number)``, so more galaxies leave the lenses as they are. Galaxies are
    cut where they fall below a tenth of the sky noise. Noise is added once.

    Parameters
    ----------
    seed : int
    bands : sequence of str
    shape_px : (int, int)
        Rows and columns.
    pixel_scale_arcsec : float
    seeing_fwhm_arcsec, sky_rms_njy : float per band
        Moffat FWHM and noise of a pixel. The defaults are those of KiDS at 0.2 arcsec.
    n_galaxy, n_star, n_lens : int
        Objects; 37 galaxies with r < 25 and 8 stars per square arcmin are the defaults' densities.
    theta_e_range_arcsec : (float, float)
        Einstein radii of the lenses.
    min_arc_snr : float
        Smallest total signal-to-noise of the arcs, against the sky alone.
    njy_per_electron : float
        Flux of one photo-electron.

    Raises
    ------
    ConfigError
        The field is too small for its lenses, or bands and noise differ in number.
    """
    n_y, n_x = shape_px
    n_band = len(bands)
    fwhm, rms = (np.broadcast_to(np.asarray(v, float), (n_band,)) for v in (seeing_fwhm_arcsec, sky_rms_njy))
    kernels = [moffat_kernel(f, pixel_scale_arcsec) for f in fwhm]
    lens_xy = _place_lenses(seed, n_lens, shape_px, margin_px=8.0 / pixel_scale_arcsec)
    sharp = np.zeros((n_band, n_y, n_x))
    blurred = np.zeros((n_band, n_y, n_x))
    rows: list[dict[str, Any]] = []

    def note(kind: str, x: float, y: float, flux: NDArray[np.float64], **facts: Any) -> None:
        mags = {f"mag_{band}": float(magnitude_of_njy(f)) for band, f in zip(bands, flux, strict=True)}
        rows.append({"kind": kind, "is_lens": kind == "lens", "x_px": x, "y_px": y} | mags | facts)

    for k, (x, y) in enumerate(lens_xy):
        rng = np.random.default_rng([seed, _LENS, k])
        light, arcs, facts = _draw_lens(
            rng, bands, pixel_scale_arcsec, kernels, (x, y), theta_e_range_arcsec, rms, min_arc_snr
        )
        paint_galaxy(sharp, light, x, y, pixel_scale_arcsec, 0.1 * rms)
        add_stamp(blurred, arcs, int(np.floor(x + 0.5)), int(np.floor(y + 0.5)))
        note("lens", x, y, np.sum([c.flux_njy for c in light], axis=0), **facts)
    for k in range(n_galaxy):
        rng = np.random.default_rng([seed, _GALAXY, k])
        light = draw_field_galaxy(rng, bands)
        flux = np.sum([c.flux_njy for c in light], axis=0)
        x, y = _place(rng, shape_px, lens_xy, _clearance_px(flux, pixel_scale_arcsec))
        paint_galaxy(sharp, light, x, y, pixel_scale_arcsec, 0.1 * rms)
        note("galaxy", x, y, flux)
    for k in range(n_star):
        rng = np.random.default_rng([seed, _STAR, k])
        flux = draw_star_njy(rng, bands)
        x, y = _place(rng, shape_px, lens_xy, 1.5 * _clearance_px(flux, pixel_scale_arcsec))
        for band in range(n_band):
            add_stamp(
                blurred[band : band + 1],
                moffat_star(fwhm[band], pixel_scale_arcsec, x, y)[None] * flux[band],
                round(x),
                round(y),
            )
        note("star", x, y, flux)
    model = convolve(sharp, kernels) + blurred
    image = add_noise(
        model,
        sky_rms_njy=rms,
        njy_per_electron=np.full(n_band, njy_per_electron),
        rng=np.random.default_rng([seed, _NOISE]),
    )
    variance = rms[:, None, None] ** 2 + model.clip(0) * njy_per_electron
    return Field(image, (1 / variance).astype(np.float32), pa.Table.from_pylist(_same_keys(rows)))


def _same_keys(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


def _clearance_px(flux_njy: NDArray[np.float64], scale: float) -> float:
    mag = float(magnitude_of_njy(flux_njy.max()))
    return float(np.interp(mag, (16, 20, 23), (25.0, 9.0, 3.0))) / scale


def _place_lenses(seed: int, n: int, shape_px: tuple[int, int], margin_px: float) -> NDArray[np.float64]:
    rng = np.random.default_rng([seed, _PLACE])
    places: list[NDArray[np.float64]] = []
    if min(shape_px) < 2 * margin_px + 2 and n:
        raise ConfigError("the field is too small for lenses", rows=shape_px[0], columns=shape_px[1])
    for _ in range(200 * max(n, 1)):
        if len(places) == n:
            break
        here = rng.uniform(margin_px, np.array(shape_px[::-1]) - 1 - margin_px)
        if all(np.hypot(*(here - other)) > 2.5 * margin_px for other in places):
            places.append(here)
    else:
        if len(places) < n:
            raise ConfigError("the field is too small for so many lenses", n_lens=n, placed=len(places))
    return np.array(places).reshape(-1, 2)


def _place(
    rng: np.random.Generator, shape_px: tuple[int, int], avoid: NDArray[np.float64], clearance_px: float
) -> tuple[float, float]:
    while True:
        x, y = rng.uniform(0, shape_px[1] - 1), rng.uniform(0, shape_px[0] - 1)
        if not len(avoid) or np.hypot(avoid[:, 0] - x, avoid[:, 1] - y).min() > clearance_px:
            return float(x), float(y)
        clearance_px *= 0.95  # ends for every field, however crowded


def _draw_lens(
    rng: np.random.Generator,
    bands: Sequence[str],
    scale: float,
    kernels: Sequence[NDArray[np.float64]],
    at_px: tuple[float, float],
    theta_e_range: tuple[float, float],
    rms: NDArray[np.float64],
    min_arc_snr: float,
) -> tuple[list[Component], NDArray[np.float64], dict[str, Any]]:
    deflectors = DeflectorPopulation(
        theta_e_arcsec=theta_e_range, redshift=(0.2, 0.6), velocity_dispersion_km_s=(220, 400)
    )
    offset = (at_px[0] - np.floor(at_px[0] + 0.5), at_px[1] - np.floor(at_px[1] + 0.5))
    found = draw_lens(
        rng,
        from_population(deflectors, (1.0, 3.0), offset_arcsec=(offset[0] * scale, offset[1] * scale)),
        Optics(bands, scale, kernels, rms),
        sources=SourcePopulation(mag_r=(22.2, 25.0), red_fraction=0.0),
        min_arc_snr=min_arc_snr,
        min_magnification=5.0,
        attempts=200,
    )
    if found is None:
        raise DataError("no arc is as bright as asked in this field: lower min_arc_snr", min_arc_snr=min_arc_snr)
    light, facts = deflector_light(rng, bands, found.drawn)
    kept = {name: found.drawn[name] for name in ("z_lens", "velocity_dispersion_km_s")}
    return light, found.arcs.image, kept | facts | found.arcs.truth
