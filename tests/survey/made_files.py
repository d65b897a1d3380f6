"""Files of surveys as people write them: a field of Gaussians whose fluxes and positions are known, and its headers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from lenspipe.survey.files import find_files
from lenspipe.survey.layout import SurveyLayout, read_layout
from lenspipe.survey.read import TileFacts, check_planes, read_facts, read_window
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import BadTile, group_tiles
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

SHAPE = (90, 110)
SCALE_ARCSEC = 0.2
SIGMA_PX = 1.8
RADIUS_PX = 11


@dataclasses.dataclass(frozen=True)
class Field:
    """Round Gaussians without a sky; ``image`` is (y, x) nJy with a little noise."""

    image: NDArray[np.float64]
    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]
    flux_njy: NDArray[np.float64]

    @property
    def mag(self) -> NDArray[np.float64]:
        """True AB magnitudes."""
        return NANOJANSKY_ZERO_POINT_AB - 2.5 * np.log10(self.flux_njy)


def field(shape: tuple[int, int] = SHAPE, *, noise_njy: float = 0.2, seed: int = 4) -> Field:
    """Sources on a loose grid, never nearer than 24 px, 19.3 to 21.4 mag."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.arange(20, shape[0] - 15, 26.0), np.arange(20, shape[1] - 15, 26.0), indexing="ij")
    x_px, y_px = (axis.ravel() + rng.uniform(-1, 1, axis.size) for axis in (x, y))
    flux = rng.uniform(1e4, 7e4, x_px.size)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = rng.normal(0, noise_njy, shape)
    for a, b, f in zip(x_px, y_px, flux, strict=True):
        image += f / (2 * np.pi * SIGMA_PX**2) * np.exp(-((columns - a) ** 2 + (rows - b) ** 2) / (2 * SIGMA_PX**2))
    return Field(image, x_px, y_px, flux)


def wcs_cards(shape: tuple[int, int] = SHAPE, *, scale_arcsec: float = SCALE_ARCSEC, **cards: object) -> fits.Header:
    """A plain TAN header with a CD matrix, north up; ``cards`` come on top, None removes one."""
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRPIX1"], header["CRPIX2"] = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    header["CRVAL1"], header["CRVAL2"] = 150.1, 2.2
    header["CD1_1"], header["CD2_2"] = -scale_arcsec / 3600, scale_arcsec / 3600
    header["CD1_2"] = header["CD2_1"] = 0.0
    return with_cards(header, cards)


def with_cards(header: fits.Header, cards: Mapping[str, Any]) -> fits.Header:
    """A copy with cards set; a value of None removes the card."""
    header = header.copy()
    for key, value in cards.items():
        if value is None:
            header.remove(key, ignore_missing=True)
        else:
            header[key] = value
    return header


def write(path: Path, pixels: NDArray[Any], header: fits.Header | None = None, *, dtype: str = "f4") -> Path:
    """One image in the primary HDU."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(np.asarray(pixels).astype(dtype), header).writeto(path, overwrite=True)
    return path


def write_hdus(
    path: Path, *hdus: tuple[str, NDArray[Any], fits.Header | None], primary: Mapping[str, Any] = {}
) -> Path:
    """An empty primary HDU with cards, then named images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [fits.ImageHDU(pixels.astype("f4"), header, name=name) for name, pixels, header in hdus]
    fits.HDUList([fits.PrimaryHDU(header=with_cards(fits.Header(), primary)), *images]).writeto(path, overwrite=True)
    return path


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a read tile says of the known sources, by band."""

    facts: TileFacts
    mag: dict[str, NDArray[np.float64]]
    x_px: dict[str, NDArray[np.float64]]
    y_px: dict[str, NDArray[np.float64]]
    mask: NDArray[np.bool_]
    n_sentinel: tuple[int, ...]


def read(
    path: Path | str, truth: Field, *, survey: SurveyLayout | str = "generic", zero_point_ab: float | None = None
) -> Measured:
    """
    Read a file or folder as a scan reads it, and measure the known sources in round windows.

    Raises
    ------
    ConfigError, TileError
        What a scan would say, also where it would be a row of failures.
    """
    layout = read_layout(survey) if isinstance(survey, str) else survey
    (tile,) = group_tiles(find_files([str(path)]), layout)
    if isinstance(tile, BadTile):
        raise tile.error
    facts = read_facts(tile, layout, assumed_zero_point_ab=zero_point_ab)
    check_planes(tile, facts, layout)
    pixels = read_window(tile, facts, layout, Box(0, 0, facts.shape[1], facts.shape[0]))
    mag, x_px, y_px = {}, {}, {}
    rows, columns = np.mgrid[: facts.shape[0], : facts.shape[1]]
    for b, band in enumerate(pixels.bands):
        image = pixels.image[b].astype(np.float64)
        image -= np.median(image[~pixels.mask[b]])
        flux, x, y = [], [], []
        for a, c in zip(truth.x_px, truth.y_px, strict=True):
            near = np.hypot(columns - a, rows - c) < RADIUS_PX
            total = image[near].sum()
            flux.append(total)
            x.append((columns[near] * image[near]).sum() / total)
            y.append((rows[near] * image[near]).sum() / total)
        mag[band] = NANOJANSKY_ZERO_POINT_AB - 2.5 * np.log10(np.array(flux))
        x_px[band], y_px[band] = np.array(x), np.array(y)
    return Measured(facts, mag, x_px, y_px, pixels.mask, pixels.n_sentinel)


def agrees(measured: Measured, truth: Field, *, band: str, mag_offset: float = 0.0, wcs: WCS | None = None) -> None:
    """Assert magnitudes to 0.01, positions to 0.05 px and, where a WCS is given, the sky to 0.05 px of it."""
    from lenspipe.sky.wcs import sky_position

    assert np.abs(measured.mag[band] - truth.mag - mag_offset).max() < 0.01
    assert np.hypot(measured.x_px[band] - truth.x_px, measured.y_px[band] - truth.y_px).max() < 0.05
    if wcs is not None:
        ra_deg, dec_deg = sky_position(measured.facts.wcs, truth.x_px, truth.y_px)
        want_ra, want_dec = wcs.all_pix2world(truth.x_px, truth.y_px, 0)
        apart = np.hypot(((ra_deg - want_ra + 180) % 360 - 180) * np.cos(np.radians(want_dec)), dec_deg - want_dec)
        assert apart.max() * 3600 < 0.05 * measured.facts.pixel_scale_arcsec
