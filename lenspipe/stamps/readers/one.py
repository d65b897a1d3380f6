"""One stamp out of a file of any of the forms that people keep stamps in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError, TileError
from lenspipe.stamps.readers.npy import members, open_array
from lenspipe.stamps.readers.planes import centre_and_scale, linear_njy, native
from lenspipe.stamps.spec import image_array, image_specs
from lenspipe.survey.files import SUFFIX, PlaneHeader, open_fits, plane_header
from lenspipe.survey.layout import ZeroPoint
from lenspipe.tables import read_parquet
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

SCALE_TOLERANCE = 0.01
"""Accepted relative difference between the pixel scale that is stated and the file's own."""
ARRAYS = (".npy", ".npz")


@dataclass(frozen=True, eq=False)
class OneStamp:
    """A stamp and what its pixels are."""

    pixels_njy: NDArray[np.float32]
    """(band, y, x), nJy a pixel, square; 0 where there are no data."""
    bands: tuple[str, ...]
    pixel_scale_arcsec: float


def is_stamp_file(path: Path) -> bool:
    """Whether a name is that of a file that `read_stamp` opens."""
    return path.suffix in (*ARRAYS, ".parquet") or SUFFIX.search(path.name) is not None


def read_stamp(
    path: Path,
    *,
    bands: Sequence[str] = (),
    pixel_scale_arcsec: float | None = None,
    zero_point_ab: float | None = None,
    row: str | None = None,
) -> OneStamp:
    """
    A stamp of an ``.npy`` or ``.npz``, FITS or Parquet file.

    An array is ``(band, y, x)``, or ``(y, x)`` of one band; of a FITS file the bands are the planes of its only cube or
    its images in their order; a Parquet file is one of a data set of stamps and knows bands and scale itself.

    Parameters
    ----------
    path : Path
    bands : sequence of str
        Bands in the order of the planes; arrays and FITS files need them.
    pixel_scale_arcsec : float, optional
        Arrays need it; of FITS files it is the WCS's where not given.
    zero_point_ab : float, optional
        AB zero-point of pixels that state none; arrays are in nJy where it is not given.
    row : str, optional
        ``stamp_id`` of a Parquet file of several stamps.

    Raises
    ------
    ConfigError
        What the file does not say is not given, or differs from what it says.
    DataError
        The file cannot be read, or it does not hold one square stamp of these bands.
    """
    if path.suffix == ".parquet":
        stamp = _of_table(path, row)
        _agree(stamp, bands, pixel_scale_arcsec, path)
    elif not bands:
        raise ConfigError("the file does not name its bands: give them in the order of its planes", file=path.name)
    elif path.suffix in ARRAYS:
        if pixel_scale_arcsec is None:
            raise ConfigError("an array has no pixel scale: give it, in arcsec", file=path.name)
        factor = 1.0 if zero_point_ab is None else 10 ** (0.4 * (NANOJANSKY_ZERO_POINT_AB - zero_point_ab))
        stamp = OneStamp(_of_array(path) * np.float32(factor), tuple(bands), pixel_scale_arcsec)
    else:
        stamp = _of_fits(path, tuple(bands), pixel_scale_arcsec, zero_point_ab)
    shape = stamp.pixels_njy.shape
    if len(shape) != 3 or shape[0] != len(stamp.bands) or shape[1] != shape[2]:
        raise DataError(
            "a stamp is square, with a plane per band", file=path.name, got=str(shape), bands=" ".join(stamp.bands)
        )
    pixels = np.nan_to_num(stamp.pixels_njy, nan=0.0, posinf=0.0, neginf=0.0)
    if not pixels.any():
        raise DataError("all pixels of the stamp are masked or zero", file=path.name)
    return OneStamp(pixels, stamp.bands, stamp.pixel_scale_arcsec)


def _agree(stamp: OneStamp, bands: Sequence[str], scale: float | None, path: Path) -> None:
    if bands and tuple(bands) != stamp.bands:
        raise ConfigError(
            "the file says which bands it has, and they are others",
            file=path.name,
            has=" ".join(stamp.bands),
            got=" ".join(bands),
        )
    if scale is not None and abs(scale / stamp.pixel_scale_arcsec - 1) > SCALE_TOLERANCE:
        raise ConfigError(
            "the file says its pixel scale, and it is another",
            file=path.name,
            has_arcsec=round(stamp.pixel_scale_arcsec, 5),
            got_arcsec=scale,
        )


def _of_table(path: Path, row: str | None) -> OneStamp:
    table = read_parquet(path, filters=None if row is None else [("stamp_id", "=", row)])
    (name, spec), *_ = image_specs(table.schema, where=path.name).items()
    if table.num_rows != 1:
        raise ConfigError(
            "the file has several stamps, or none: name one by its stamp_id",
            file=path.name,
            rows=table.num_rows,
            row=row,
        )
    if spec.unit != "nJy":
        raise DataError("the stamp's pixels are not fluxes", file=path.name, unit=spec.unit)
    return OneStamp(image_array(table, name)[0], spec.bands, spec.pixel_scale_arcsec)


def _of_array(path: Path) -> NDArray[np.float32]:
    names = members(path)
    if len(names) != 1:
        raise DataError("the file holds several arrays; keep one stamp in it", file=path.name, has=",".join(names))
    with open_array(path, names[0]) as array:
        if len(array.shape) not in (2, 3) or array.dtype.kind not in "fiu":
            raise DataError("a stamp is an array (band, y, x)", file=path.name, got=f"{array.dtype} {array.shape}")
        found = array.all().astype(np.float32)
    return found if found.ndim == 3 else found[None]


def _of_fits(path: Path, bands: tuple[str, ...], scale: float | None, zero_point_ab: float | None) -> OneStamp:
    rule = ZeroPoint(units={"nJy": NANOJANSKY_ZERO_POINT_AB}, keywords=("MAGZERO",), photflam=True)
    try:
        with open_fits(str(path)) as hdus:
            images = [hdu for hdu in hdus if getattr(hdu, "is_image", False) and len(hdu.shape) in (2, 3)]
            planes = [(hdu, plane) for hdu in images for plane in native(hdu.data).reshape(-1, *hdu.shape[-2:])]
            if len(planes) != len(bands):
                raise DataError(
                    "the file has another number of planes than of bands", file=path.name, planes=len(planes)
                )
            calibrated = []
            for band, (hdu, pixels) in zip(bands, planes, strict=True):
                header = _header_of(hdus, hdu)
                calibrated.append(
                    linear_njy(
                        pixels,
                        header,
                        rule,
                        band=band,
                        file=path.name,
                        hdu=hdu.name,
                        assumed_zero_point_ab=zero_point_ab,
                    )
                )
            own = _own_scale(images[0].header, path, scale)
    except TileError as error:
        raise DataError(error.message, file=path.name, **error.facts) from error
    if len({pixels.shape for pixels in calibrated}) > 1:
        raise DataError("the planes of the file have different sides", file=path.name)
    stamp = OneStamp(np.stack(calibrated), bands, own)
    _agree(stamp, (), scale, path)
    return stamp


def _header_of(hdus: fits.HDUList, hdu: fits.ImageHDU) -> PlaneHeader:
    """Header of a plane; a cube's is that of all its planes."""
    if len(hdu.shape) == 2:
        return plane_header(hdus, hdu)
    return PlaneHeader(hdu.header, hdu.header, hdu.shape[-2:], frozenset())


def _own_scale(header: fits.Header, path: Path, stated: float | None) -> float:
    """Pixel scale by the WCS, or the stated one where there is no WCS."""
    try:
        return centre_and_scale(header, file=path.name)[2]
    except TileError:
        if stated is None:
            raise
        return stated
