"""Read a window of a tile: float32 nJy, inverse variance, mask; the zero-point is never guessed."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import skycoord_to_pixel
from numpy.typing import NDArray

from lenspipe.errors import LenspipeError, TileError
from lenspipe.sky.wcs import celestial_wcs, pixel_scale_arcsec, sky_position
from lenspipe.store.objects import version_of
from lenspipe.store.urls import is_remote
from lenspipe.survey.files import PlaneHeader, Role, image_hdu, open_file, open_fits, plane_header, plane_shape
from lenspipe.survey.flux import FluxScale, check_scaling, flux_scale, linear
from lenspipe.survey.keywords import number
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.masks import (
    bad_bits,
    demand_meaning_of_zeros,
    flagged_pixels,
    inverse_variance,
    saturated,
    sentinels,
    zero_patches,
)
from lenspipe.survey.ranges import bytes_of_window
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import BandFiles, Plane, Tile

SCALE_TOLERANCE = 0.02
GRID_TOLERANCE_PX = 0.5


@dataclasses.dataclass(frozen=True)
class TileFacts:
    """What the headers of a tile say; the same for all its shards."""

    shape: tuple[int, int]
    wcs: WCS
    pixel_scale_arcsec: float
    flux: dict[str, FluxScale]
    """Flux of one pixel unit by band, and who says so."""
    asinh: dict[str, tuple[float, float] | None]
    """BOFFSET and BSOFTEN of bands whose pixels are scaled by an inverse hyperbolic sine."""
    grid_shift_px: dict[str, float]
    """Most by which a band's grid lies off that of the first band, at corners, edges and centre."""
    saturation: dict[str, float | None]
    mask_bits: dict[str, tuple[int, ...]]

    @property
    def zero_point_ab(self) -> dict[str, float]:
        """AB magnitude of one pixel unit by band."""
        return {band: flux.zero_point_ab for band, flux in self.flux.items()}

    @property
    def zero_point_assumed(self) -> bool:
        """Whether any zero-point is the caller's assumption."""
        return any(flux.assumed for flux in self.flux.values())


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
    n_sentinel: tuple[int, ...]
    """Pixels of the core by band that held a number in place of "no data"; they are masked."""


def read_facts(tile: Tile, layout: SurveyLayout, *, assumed_zero_point_ab: float | None) -> TileFacts:
    """
    Read and check the headers of a tile.

    Raises
    ------
    TileError
        No WCS, no zero-point or one that does not fit the pixels, bands of different shapes or on different grids, a
        pixel scale that is not the survey's.
    """
    shape: tuple[int, int] | None = None
    wcs: WCS | None = None
    scale = 0.0
    flux: dict[str, FluxScale] = {}
    asinh: dict[str, tuple[float, float] | None] = {}
    shift: dict[str, float] = {}
    saturation: dict[str, float | None] = {}
    bits: dict[str, tuple[int, ...]] = {}
    for files in tile.bands:
        head, band_wcs = _read_image_header(files.image, layout)
        if shape is None or wcs is None:
            shape, wcs = head.shape, band_wcs
            scale = pixel_scale_arcsec(wcs, shape)
            _check_scale(tile, files, scale)
            shift[files.band] = 0.0
        elif head.shape != shape:
            raise TileError(
                "the bands of the tile have different shapes; resample them to one grid",
                tile=tile.name,
                file=files.image.file,
                band=files.band,
                shape=str(head.shape),
                first=str(shape),
            )
        else:
            shift[files.band] = _check_grid(tile, files, wcs, band_wcs, shape)
        try:
            flux[files.band] = flux_scale(
                head.header,
                layout.zero_point,
                band=files.band,
                pixel_area_arcsec2=pixel_scale_arcsec(band_wcs, shape) ** 2,
                assumed_zero_point_ab=assumed_zero_point_ab,
                unreadable=head.unreadable,
            )
            asinh[files.band] = check_scaling(head.header)
            saturation[files.band] = _saturation(head.header, layout)
        except TileError as error:
            error.facts = {"file": files.image.file, "band": files.band, **error.facts}
            raise
        bits[files.band] = bad_bits(files.mask, layout)
    assert shape is not None and wcs is not None  # a tile has at least one band
    return TileFacts(shape, wcs, scale, flux, asinh, shift, saturation, bits)


def check_planes(tile: Tile, facts: TileFacts, layout: SurveyLayout) -> None:
    """
    Compare the grids of weights and masks that have a WCS with that of their image.

    Raises
    ------
    TileError
        A plane is shifted, mirrored or of another shape.
    """
    for files in tile.bands:
        planes: tuple[tuple[Role, Plane | None], ...] = (("weight", files.weight), ("mask", files.mask))
        for role, plane in planes:
            if plane is None:
                continue
            with open_fits(plane.file, checks="none", unpacked_gb_max=layout.unpacked_gb_max) as hdus:
                head = plane_header(hdus, image_hdu(hdus, plane.hdu, file=plane.file, role=role))
                if head.shape != facts.shape:
                    raise _other_shape(plane, head.shape, facts.shape)
                if "CTYPE1" not in head.wcs:
                    continue
                try:
                    wcs = celestial_wcs(head.wcs, file=plane.file, hdus=hdus, unreadable=head.unreadable)
                except TileError:
                    continue  # nothing is read from it
            _check_grid(tile, files, facts.wcs, wcs, facts.shape, plane=plane.file, what=f"the {role}")


def _read_image_header(plane: Plane, layout: SurveyLayout) -> tuple[PlaneHeader, WCS]:
    try:
        if is_remote(plane.file):
            version = version_of(plane.file)
            same: tuple[object, ...] = (version.size, version.tag)
        else:
            state = os.stat(plane.file)
            same = (state.st_ino, state.st_size, state.st_mtime_ns)
    except (OSError, LenspipeError):
        return _image_header(plane, layout.unpacked_gb_max)  # which says what is wrong
    head, wcs = _kept_image_header(plane, layout.unpacked_gb_max, same)
    return head, wcs.deepcopy()  # wcslib's structures are not for two threads


@functools.lru_cache(maxsize=64)
def _kept_image_header(plane: Plane, unpacked_gb_max: float, state: tuple[object, ...]) -> tuple[PlaneHeader, WCS]:
    """Kept while the file is the same: the plan, every shard of a tile and the pictures ask for it."""
    return _image_header(plane, unpacked_gb_max)


def _image_header(plane: Plane, unpacked_gb_max: float) -> tuple[PlaneHeader, WCS]:
    with open_fits(plane.file, checks="none", unpacked_gb_max=unpacked_gb_max) as hdus:
        head = plane_header(hdus, image_hdu(hdus, plane.hdu, file=plane.file))
        if min(head.shape) < 1:
            raise TileError("the image has no pixels", file=plane.file, shape=str(head.shape))
        return head, celestial_wcs(head.wcs, file=plane.file, hdus=hdus, unreadable=head.unreadable)


def _saturation(header: fits.Header, layout: SurveyLayout) -> float | None:
    """Level above which pixels are saturated; zero and below say that nobody knows."""
    level = number(header, layout.saturation_keyword) if layout.saturation_keyword else layout.saturation
    return level if level is not None and level > 0 else None


def read_window(tile: Tile, facts: TileFacts, layout: SurveyLayout, window: Box, *, core: Box | None = None) -> Pixels:
    """
    Read a window of all bands by section: of a large or remote file only what is needed is read.

    Pixels with a number in place of "no data" are counted in ``core``, so that shards of a tile add up; in the whole
    window where there is none.

    Raises
    ------
    TileError
        The window is not of this tile, the file is damaged in it or its checksums show that it was, a weight or mask
        plane does not fit the image, most of the pixels would be saturated, or nobody says whether the zeros of photon
        counts are data.
    """
    n_row, n_column = facts.shape
    if not (0 <= window.x0 < window.x1 <= n_column and 0 <= window.y0 < window.y1 <= n_row):
        raise TileError("the window lies outside the tile", tile=tile.name, window=str(window), shape=str(facts.shape))
    n_band = len(tile.bands)
    image = np.empty((n_band, *window.shape), np.float32)
    mask = np.empty((n_band, *window.shape), np.bool_)
    invvar: list[NDArray[np.float32] | None] = []
    n_sentinel: list[int] = []
    counted = core or window
    inside = np.s_[counted.y0 - window.y0 : counted.y1 - window.y0, counted.x0 - window.x0 : counted.x1 - window.x0]
    for b, files in enumerate(tile.bands):
        counts = _section(files.image, window, facts.shape, layout, "image", facts.asinh[files.band])
        njy_per_count = facts.flux[files.band].njy_per_unit
        np.isfinite(counts, out=mask[b])
        np.logical_not(mask[b], out=mask[b])
        if layout.zeros_are_no_data is not False:
            empty = zero_patches(counts)
            demand_meaning_of_zeros(counts, empty, files, layout)
            mask[b] |= empty
        odd = sentinels(counts, mask[b], njy_per_count)
        n_sentinel.append(int(odd[inside].sum()))
        mask[b] |= odd
        level = facts.saturation[files.band]
        if level is not None:
            mask[b] |= saturated(counts, mask[b], level, files, layout)
        with np.errstate(over="ignore", invalid="ignore"):  # sentinels; they are masked
            np.multiply(counts, njy_per_count, out=image[b], casting="unsafe")
        weight = None
        if files.weight is not None:
            plane = _section(files.weight, window, facts.shape, layout, "weight")
            weight, no_data = inverse_variance(plane, layout.weight_kind, njy_per_count)
            mask[b] |= no_data
        if files.mask is not None:
            mask[b] |= flagged_pixels(
                _section(files.mask, window, facts.shape, layout, "mask"), facts.mask_bits[files.band]
            )
        image[b][mask[b]] = 0
        if weight is not None:
            weight[mask[b]] = 0
        invvar.append(weight)
    return Pixels(tuple(f.band for f in tile.bands), image, tuple(invvar), mask, tuple(n_sentinel))


def _section(
    plane: Plane,
    window: Box,
    shape: tuple[int, int],
    layout: SurveyLayout,
    role: Role,
    scaling: tuple[float, float] | None = None,
) -> NDArray[Any]:
    with open_file(plane.file, checks=layout.checksums, unpacked_gb_max=layout.unpacked_gb_max) as opened:
        hdu = image_hdu(opened.hdus, plane.hdu, file=plane.file, role=role)
        if plane_shape(hdu) != shape:
            raise _other_shape(plane, tuple(hdu.shape), shape)
        remote = opened.remote
        if remote is not None and not opened.structure.packed:
            number = next(k for k, one in enumerate(opened.hdus) if one is hdu)
            remote.fetch(bytes_of_window(opened.structure.hdus[number], window, remote))  # type: ignore[arg-type]
        further = (0,) * (len(hdu.shape) - 2)  # of one pixel
        rows, columns = window.slices
        if 2 * window.shape[1] < shape[1] or remote is not None or isinstance(hdu, fits.CompImageHDU):
            data: NDArray[Any] = np.asarray(hdu.section[(*further, rows, columns)])
        else:  # whole rows are one read; astropy takes parts of rows one by one
            data = np.asarray(hdu.section[(*further, rows, slice(None))])[:, columns]
        if role == "weight":
            scaling = check_scaling(hdu.header)
    if data.shape != window.shape:
        raise TileError(
            "the file ends before its image does", file=plane.file, got=str(data.shape), want=str(window.shape)
        )
    if scaling is not None:
        return linear(data, *scaling)
    if data.dtype.isnative:
        return data
    return data.astype(data.dtype.newbyteorder("="))  # FITS is big-endian; SEP and torch want native


def _other_shape(plane: Plane, got: tuple[int, ...], want: tuple[int, int]) -> TileError:
    return TileError(
        "a plane of the tile differs in shape from its image",
        file=plane.file,
        hdu=plane.hdu,
        shape=str(got),
        image=str(want),
    )


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


def _check_grid(
    tile: Tile,
    files: BandFiles,
    first: WCS,
    other: WCS,
    shape: tuple[int, int],
    *,
    plane: str | None = None,
    what: str = "the bands",
) -> float:
    """Most by which two grids lie apart at corners, edges and centre, in pixels; refused from `GRID_TOLERANCE_PX`."""
    height, width = shape[0] - 1.0, shape[1] - 1.0
    y_px, x_px = (
        axis.ravel() for axis in np.meshgrid([0.0, height / 2, height], [0.0, width / 2, width], indexing="ij")
    )
    sky = SkyCoord(*sky_position(other, x_px, y_px), unit="deg")
    try:
        x_other, y_other = skycoord_to_pixel(sky, first, origin=0)
    except NoConvergence:
        x_other, y_other = np.full(9, np.nan), np.full(9, np.nan)
    apart = float(np.max(np.hypot(x_other - x_px, y_other - y_px)))
    if apart < GRID_TOLERANCE_PX:
        return apart
    turned = {
        "columns and rows are exchanged": (y_px, x_px),
        "it is mirrored in x": (width - x_px, y_px),
        "it is mirrored in y": (x_px, height - y_px),
        "it is turned by 180 degrees": (width - x_px, height - y_px),
    }
    how = next((f" ({k})" for k, (x, y) in turned.items() if np.max(np.hypot(x_other - x, y_other - y)) < 1), "")
    raise TileError(
        f"{what} of the tile are not on one pixel grid{how}; resample them first"
        if plane is None
        else f"{what} of the tile is not on the pixel grid of its image{how}; resample it first",
        tile=tile.name,
        file=plane or files.image.file,
        band=files.band,
        apart_px=float(f"{apart:.4g}"),
    )
