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
from lenspipe.robust import robust_sigma
from lenspipe.sky.wcs import celestial_wcs, pixel_scale_arcsec, sky_position
from lenspipe.store.objects import version_of
from lenspipe.store.urls import is_remote
from lenspipe.survey.files import (
    PlaneHeader,
    Role,
    image_hdu,
    open_file,
    open_fits,
    plane_header,
    plane_shape,
    read_header,
)
from lenspipe.survey.flux import FluxScale, check_scaling, flux_scale, linear
from lenspipe.survey.keywords import number
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.ranges import bytes_of_window
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import BandFiles, Plane, Tile

NO_DATA_RMS = 1e15
"""An RMS above this is a survey's way to say that there are no data (Euclid writes 1e16)."""
ONE_PIXEL_MAX_NJY = 3.631e12
"""No pixel is as bright as magnitude 0."""
NO_DATA_VALUES = (-99.0, -999.0, -9999.0, -99999.0, -32767.0, -32768.0, -2147483648.0)
SATURATED_MAX = 0.5
PHOTON_PATCHES_MIN, PHOTON_MEDIAN_MAX, PHOTON_LONELY_MIN = 0.005, 10, 0.3
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
        bits[files.band] = _bad_bits(files.mask, layout)
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
            empty = _no_data(counts)
            _ask_about_zeros(counts, empty, files, layout)
            mask[b] |= empty
        odd = sentinels(counts, mask[b], njy_per_count)
        n_sentinel.append(int(odd[inside].sum()))
        mask[b] |= odd
        level = facts.saturation[files.band]
        if level is not None:
            mask[b] |= _saturated(counts, mask[b], level, files, layout)
        with np.errstate(over="ignore", invalid="ignore"):  # sentinels; they are masked
            np.multiply(counts, njy_per_count, out=image[b], casting="unsafe")
        weight = None
        if files.weight is not None:
            plane = _section(files.weight, window, facts.shape, layout, "weight")
            weight, no_data = _invvar(plane, layout.weight_kind, njy_per_count)
            mask[b] |= no_data
        if files.mask is not None:
            mask[b] |= _flagged(_section(files.mask, window, facts.shape, layout, "mask"), facts.mask_bits[files.band])
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
    from scipy import ndimage  # half a second, for images with zeros only

    patches: NDArray[np.bool_] = ndimage.binary_opening(zero, np.ones((3, 3), bool))
    return patches


def _ask_about_zeros(counts: NDArray[Any], empty: NDArray[np.bool_], files: BandFiles, layout: SurveyLayout) -> None:
    """Refuse photon counts, whose zeros are data, until the layout says what zeros are."""
    if layout.zeros_are_no_data is not None or empty.mean() < PHOTON_PATCHES_MIN:
        return
    seen = counts[counts != 0]
    seen = seen[np.isfinite(seen)]
    if not seen.size or np.median(seen) > PHOTON_MEDIAN_MAX or (seen != np.round(seen)).any() or seen.min() < 0:
        return
    from scipy import ndimage

    beside = ndimage.binary_dilation(counts == 0)
    if beside[counts != 0].mean() < PHOTON_LONELY_MIN:  # an empty border touches few pixels, photons are alone
        return
    raise TileError(
        f"{(counts == 0).mean():.0%} of the pixels are exact zeros among small whole numbers, as in an image of photon "
        "counts; say in the survey's layout whether they are data (zeros_are_no_data = false) or not (true)",
        file=files.image.file,
        band=files.band,
    )


def _saturated(
    counts: NDArray[Any], masked: NDArray[np.bool_], level: float, files: BandFiles, layout: SurveyLayout
) -> NDArray[np.bool_]:
    saturated: NDArray[np.bool_] = counts >= level
    n_good = int((~masked).sum())
    if n_good and (saturated & ~masked).sum() > SATURATED_MAX * n_good:
        raise TileError(
            f"more than {SATURATED_MAX:.0%} of the pixels are above the saturation level; correct "
            f"{layout.saturation_keyword or 'saturation in the survey layout'}",
            file=files.image.file,
            band=files.band,
            level=level,
        )
    return saturated


def sentinels(counts: NDArray[Any], masked: NDArray[np.bool_], njy_per_unit: float) -> NDArray[np.bool_]:
    """
    Pixels that hold a number in place of "no data": 1e30, -999, -32768.

    Those are pixels brighter than magnitude 0, or as far below it; the customary negative numbers where three pixels or
    more have one and it lies 10 sigma below the sky; and the lowest value, where nine pixels or more have exactly this
    one and it lies 50 sigma below.

    Parameters
    ----------
    counts : array (y, x)
    masked : array (y, x), bool
        Pixels that are bad already; they do not count.
    njy_per_unit : float

    Returns
    -------
    bool array (y, x)
    """
    odd: NDArray[np.bool_] = np.zeros(counts.shape, bool)
    if masked.all():
        return odd
    values = np.where(masked, 0, counts).astype(np.float64)
    odd |= np.abs(values) > ONE_PIXEL_MAX_NJY / njy_per_unit
    usual = [(value, 3, 10.0) for value in NO_DATA_VALUES]
    values[odd] = 0
    lowest = float(values.min())
    if lowest > max(NO_DATA_VALUES):
        usual = []
    good = ~(masked | odd)
    for value, n_min, n_sigma in (*usual, (lowest, 9, 50.0)):
        hit = good & (values == value)
        if lowest < 0 and hit.sum() >= n_min:
            rest = values[good & ~hit]
            if not rest.size:
                continue
            middle = float(np.median(rest))
            sigma = float(robust_sigma(rest, around=middle))
            if sigma > 0 and value < middle - n_sigma * sigma:
                odd |= hit
                good &= ~hit
    return odd


def _flagged(mask: NDArray[Any], bits: tuple[int, ...]) -> NDArray[np.bool_]:
    nothing: NDArray[np.bool_] = ~np.isfinite(mask) if mask.dtype.kind == "f" else np.zeros(mask.shape, bool)
    if not bits:
        flagged: NDArray[np.bool_] = (mask != 0) | nothing
        return flagged
    values = np.where(nothing, 0, mask).astype(np.int64)
    bad = sum(1 << bit for bit in bits)
    flagged = ((values & bad) != 0) | nothing
    return flagged


def _bad_bits(plane: Plane | None, layout: SurveyLayout) -> tuple[int, ...]:
    if plane is None or not layout.mask_planes:
        return layout.mask_bits
    header = read_header(plane.file, plane.hdu, role="mask", unpacked_gb_max=layout.unpacked_gb_max)
    named = [header.get(f"MP_{name}") for name in layout.mask_planes]
    known = [int(bit) for bit in named if isinstance(bit, int)]
    if not known:
        raise TileError(
            "the mask's header names none of the survey's bad planes (MP_...)",
            file=plane.file,
            wanted=" ".join(layout.mask_planes),
        )
    return (*layout.mask_bits, *known)


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
