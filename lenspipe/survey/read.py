"""Read a window of a tile: float32 nJy, inverse variance, mask; the zero-point is never guessed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import skycoord_to_pixel
from numpy.typing import NDArray
from scipy import ndimage

from lenspipe.errors import TileError
from lenspipe.sky.wcs import celestial_wcs, pixel_scale_arcsec, sky_position
from lenspipe.survey.files import image_hdu, open_fits, read_header
from lenspipe.survey.layout import SurveyLayout, zero_point_ab
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import BandFiles, Plane, Tile
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

NO_DATA_RMS = 1e15
"""An RMS above this is a survey's way to say that there are no data (Euclid writes 1e16)."""
SCALE_TOLERANCE = 0.02
GRID_TOLERANCE_PX = 0.5


@dataclasses.dataclass(frozen=True)
class TileFacts:
    """What the headers of a tile say; the same for all its shards."""

    shape: tuple[int, int]
    wcs: WCS
    pixel_scale_arcsec: float
    zero_point_ab: dict[str, float]
    zero_point_assumed: bool
    """Whether any zero-point is the caller's assumption."""
    saturation: dict[str, float | None]
    mask_bits: dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """
    A window of a tile, calibrated.

    ``image`` is (band, y, x) float32 nJy with 0 where masked; ``invvar`` is (band, y, x) float32 nJy^-2 or None
    for bands whose survey gives no calibrated one; ``mask`` is (band, y, x), True where a pixel is bad.
    """

    bands: tuple[str, ...]
    image: NDArray[np.float32]
    invvar: tuple[NDArray[np.float32] | None, ...]
    mask: NDArray[np.bool_]


def read_facts(tile: Tile, layout: SurveyLayout, *, assumed_zero_point_ab: float | None) -> TileFacts:
    """
    Read and check the headers of a tile.

    Raises
    ------
    TileError
        No WCS, no zero-point, bands of different shapes or on different grids, a pixel scale that is not the survey's.
    """
    shape: tuple[int, int] | None = None
    wcs: WCS | None = None
    scale = 0.0
    zero_points: dict[str, float] = {}
    assumed = False
    saturation: dict[str, float | None] = {}
    bits: dict[str, tuple[int, ...]] = {}
    for files in tile.bands:
        header = read_header(files.image.file, files.image.hdu)
        band_shape = _shape(header, files.image)
        band_wcs = celestial_wcs(header, file=files.image.file)
        if shape is None or wcs is None:
            shape, wcs = band_shape, band_wcs
            scale = pixel_scale_arcsec(wcs, shape)
            _check_scale(tile, files, scale)
        elif band_shape != shape:
            raise TileError(
                "the bands of the tile have different shapes; resample them to one grid",
                tile=tile.name,
                file=files.image.file,
                band=files.band,
                shape=str(band_shape),
                first=str(shape),
            )
        else:
            _check_grid(tile, files, wcs, band_wcs, shape)
        zero_point = zero_point_ab(header, layout.zero_point)
        if zero_point is None:
            zero_point, assumed = assumed_zero_point_ab, True
        if zero_point is None:
            keys = ", ".join((*layout.zero_point.keywords, *layout.zero_point.fluxmag0_keywords, "BUNIT"))
            raise TileError(
                f"the header has no zero-point (looked for {keys}); add the keyword, set zero_point.ab in the "
                "survey's layout, or pass --zero-point-ab",
                file=files.image.file,
                band=files.band,
                bunit=str(header.get("BUNIT")),
            )
        zero_points[files.band] = zero_point
        level = header.get(layout.saturation_keyword) if layout.saturation_keyword else layout.saturation
        saturation[files.band] = float(level) if isinstance(level, int | float) else None
        bits[files.band] = _bad_bits(files.mask, layout)
    assert shape is not None and wcs is not None  # a tile has at least one band
    return TileFacts(shape, wcs, scale, zero_points, assumed, saturation, bits)


def read_window(tile: Tile, facts: TileFacts, layout: SurveyLayout, window: Box) -> Pixels:
    """
    Read a window of all bands by section: of a large or remote file only what is needed is read.

    Raises
    ------
    TileError
        The file is damaged in this window, or a weight or mask plane does not fit the image.
    """
    n_band = len(tile.bands)
    image = np.empty((n_band, *window.shape), np.float32)
    mask = np.empty((n_band, *window.shape), np.bool_)
    invvar: list[NDArray[np.float32] | None] = []
    for b, files in enumerate(tile.bands):
        counts = _section(files.image, window, facts.shape)
        njy_per_count = 10 ** (0.4 * (NANOJANSKY_ZERO_POINT_AB - facts.zero_point_ab[files.band]))
        np.isfinite(counts, out=mask[b])
        np.logical_not(mask[b], out=mask[b])
        if layout.zeros_are_no_data and counts.dtype.kind == "f":
            mask[b] |= _no_data(counts)
        level = facts.saturation[files.band]
        if level is not None:
            mask[b] |= counts >= level
        np.multiply(counts, njy_per_count, out=image[b], casting="unsafe")
        weight = None
        if files.weight is not None:
            weight, no_data = _invvar(_section(files.weight, window, facts.shape), layout.weight_kind, njy_per_count)
            mask[b] |= no_data
        if files.mask is not None:
            mask[b] |= _flagged(_section(files.mask, window, facts.shape), facts.mask_bits[files.band])
        image[b][mask[b]] = 0
        if weight is not None:
            weight[mask[b]] = 0
        invvar.append(weight)
    return Pixels(tuple(f.band for f in tile.bands), image, tuple(invvar), mask)


def _section(plane: Plane, window: Box, shape: tuple[int, int]) -> NDArray[Any]:
    with open_fits(plane.file) as hdus:
        hdu = image_hdu(hdus, plane.hdu, file=plane.file)
        if tuple(hdu.shape) != shape:
            raise TileError(
                "a plane of the tile differs in shape from its image",
                file=plane.file,
                hdu=plane.hdu,
                shape=str(hdu.shape),
                image=str(shape),
            )
        data: NDArray[Any] = np.asarray(hdu.section[window.slices])
    if data.shape != window.shape:
        raise TileError(
            "the file ends before its image does", file=plane.file, got=str(data.shape), want=str(window.shape)
        )
    if data.dtype.isnative:
        return data
    return data.astype(data.dtype.newbyteorder("="))  # FITS is big-endian; SEP and torch want native


def _invvar(
    weight: NDArray[Any], kind: str | None, njy_per_count: float
) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_]]:
    values = weight.astype(np.float64)  # variances of maggies, 1e-24, underflow in float32
    good = np.isfinite(values) & (values > 0)
    if kind == "rms":
        good &= values < NO_DATA_RMS
    if kind is None or kind == "relative":
        return None, ~good
    power = {"invvar": 1, "variance": -1, "rms": -2}[kind]
    invvar = np.where(good, np.where(good, values, 1.0) ** power, 0.0) / njy_per_count**2
    return invvar.astype(np.float32), ~good


def _no_data(counts: NDArray[Any]) -> NDArray[np.bool_]:
    """Patches of exact zeros, 3 x 3 and larger; single zeros come out of quantised compression."""
    zero = counts == 0
    if not zero.any():
        return zero
    patches: NDArray[np.bool_] = ndimage.binary_opening(zero, np.ones((3, 3), bool))
    return patches


def _flagged(mask: NDArray[Any], bits: tuple[int, ...]) -> NDArray[np.bool_]:
    values = mask.astype(np.int64)
    if not bits:
        flagged: NDArray[np.bool_] = values != 0
        return flagged
    bad = sum(1 << bit for bit in bits)
    flagged = (values & bad) != 0
    return flagged


def _bad_bits(plane: Plane | None, layout: SurveyLayout) -> tuple[int, ...]:
    if plane is None or not layout.mask_planes:
        return layout.mask_bits
    header = read_header(plane.file, plane.hdu)
    named = [header.get(f"MP_{name}") for name in layout.mask_planes]
    known = [int(bit) for bit in named if isinstance(bit, int)]
    if not known:
        raise TileError(
            "the mask's header names none of the survey's bad planes (MP_...)",
            file=plane.file,
            wanted=" ".join(layout.mask_planes),
        )
    return (*layout.mask_bits, *known)


def _shape(header: fits.Header, plane: Plane) -> tuple[int, int]:
    shape = int(header["NAXIS2"]), int(header["NAXIS1"])
    if min(shape) < 1:
        raise TileError("the image has no pixels", file=plane.file, shape=str(shape))
    return shape


def _check_scale(tile: Tile, files: BandFiles, scale_arcsec: float) -> None:
    want = files.pixel_scale_arcsec
    if want is not None and abs(scale_arcsec / want - 1) > SCALE_TOLERANCE:
        raise TileError(
            "pixel scale differs from the survey's; is this the right --survey?",
            tile=tile.name,
            file=files.image.file,
            got_arcsec=round(scale_arcsec, 4),
            want_arcsec=want,
        )


def _check_grid(tile: Tile, files: BandFiles, first: WCS, other: WCS, shape: tuple[int, int]) -> None:
    x_px = np.array([0.0, shape[1] - 1.0, (shape[1] - 1) / 2])
    y_px = np.array([0.0, shape[0] - 1.0, (shape[0] - 1) / 2])
    sky = SkyCoord(*sky_position(other, x_px, y_px), unit="deg")
    x_other, y_other = skycoord_to_pixel(sky, first, origin=0)
    apart = float(np.max(np.hypot(x_other - x_px, y_other - y_px)))
    if not apart < GRID_TOLERANCE_PX:
        raise TileError(
            "the bands of the tile are not on one pixel grid; resample them first",
            tile=tile.name,
            file=files.image.file,
            band=files.band,
            apart_px=round(apart, 2),
        )
