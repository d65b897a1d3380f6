"""Euclid Q1 lens candidates: one multi-extension FITS a stamp, ``<BAND>_FLUX`` or ``_BGSUB``, and ``_RMS``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.stamps.readers.fits_folder import SKY_FIELDS
from lenspipe.stamps.readers.planes import central_crop, centre_and_scale, linear_njy, native
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.spec import ImageSpec
from lenspipe.survey.files import open_fits, plane_header
from lenspipe.survey.layout import ZeroPoint
from lenspipe.toml import Table

NO_DATA_RMS = 1e15
"""An RMS above this (Euclid writes 1e16) says that the pixel has no data."""
RULE = ZeroPoint(keywords=("MAGZERO",))
PIXEL_SCALE_ARCSEC = 0.1


class EuclidQ1Options(Table):
    """Options of the reader."""

    bands: tuple[str, ...] = ("VIS", "NIR_Y", "NIR_J", "NIR_H")
    """Bands as the extensions name them; also DES_G, HSC_G, MEGACAM_U ... where the files have them."""
    size_px: int = 100
    """Side of the stamp, cropped around the middle: the published files have 100 or 300 pixels."""
    label: str = "candidate"
    """Class of every stamp."""


def read_euclid_q1(folder: Path, options: EuclidQ1Options) -> StampStream:
    """
    Stamps in nJy by the ``MAGZERO`` of each extension, at 0.1", with the sky position of their middle.

    Pixels without data (RMS of 1e16, not positive, or NaN) become 0 and count in ``mask_fraction_<band>``.

    Raises
    ------
    ConfigError
        No FITS files in this folder.
    """
    files = sorted(folder.glob("*.fits"))
    if not files:
        raise ConfigError("no FITS files in this folder", folder=str(folder))
    spec = ImageSpec(options.bands, options.size_px, PIXEL_SCALE_ARCSEC)

    def read(path: Path) -> LabelledStamp:
        with open_fits(str(path)) as hdus:
            planes = [_plane(hdus, band, options.size_px, path.name) for band in options.bands]
            ra_deg, dec_deg, scale = centre_and_scale(_image(hdus, options.bands[0], path.name).header, file=path.name)
        if abs(scale / PIXEL_SCALE_ARCSEC - 1) > 0.01:
            raise DataError("the pixel scale is not Euclid's", file=path.name, got_arcsec=scale, want_arcsec=0.1)
        values = {"ra_deg": ra_deg, "dec_deg": dec_deg}
        return LabelledStamp(path.stem, {"image": np.stack(planes)}, options.label or None, path.stem, values)

    return stream_stamps("euclid-q1", {"image": spec}, SKY_FIELDS, files, read, n=len(files))


def _image(hdus: fits.HDUList, band: str, file: str) -> fits.ImageHDU:
    names = [hdu.name for hdu in hdus]
    for suffix in ("FLUX", "BGSUB"):
        if f"{band}_{suffix}" in names:
            return hdus[f"{band}_{suffix}"]
    raise DataError("the file has no image in this band", file=file, band=band, has=" ".join(names))


def _plane(hdus: fits.HDUList, band: str, size_px: int, file: str) -> NDArray[np.float32]:
    image = _image(hdus, band, file)
    plane = plane_header(hdus, image)
    pixels = linear_njy(
        native(image.data), plane, RULE, band=band, file=file, hdu=image.name, assumed_zero_point_ab=None
    )
    if f"{band}_RMS" in [hdu.name for hdu in hdus]:
        rms = native(hdus[f"{band}_RMS"].data)
        pixels = np.where((rms > 0) & (rms < NO_DATA_RMS), pixels, np.float32(np.nan))
    return central_crop(pixels, size_px, file=file)
