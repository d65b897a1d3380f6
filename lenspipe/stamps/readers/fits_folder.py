"""A folder of FITS stamps, one file per stamp with its bands in HDUs, and a CSV of labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from astropy.io import fits
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.stamps.readers.catalog import Catalog, read_catalog
from lenspipe.stamps.readers.planes import central_crop, centre_and_scale, linear_njy, native
from lenspipe.stamps.readers.stream import LabelledStamp, StampStream, stream_stamps
from lenspipe.stamps.spec import SPLITS, ImageSpec
from lenspipe.survey.files import image_hdu, open_fits, plane_header
from lenspipe.survey.layout import ZeroPoint
from lenspipe.toml import Table

SCALE_TOLERANCE = 0.01
"""Accepted relative difference between the pixel scale of a file and of the data set."""

SKY_FIELDS = (
    pa.field("ra_deg", pa.float64(), metadata={"unit": "deg", "description": "right ascension of the middle, ICRS"}),
    pa.field("dec_deg", pa.float64(), metadata={"unit": "deg", "description": "declination of the middle, ICRS"}),
)


class FitsFolderOptions(Table):
    """Options of the reader."""

    bands: dict[str, int | str]
    """HDU, by number or name, of each band: ``{g = 0, r = 1, i = 2}``."""
    size_px: int
    """Side of the stamp; larger images are cropped around their middle, smaller ones dropped."""
    pixel_scale_arcsec: float | None = None
    """Pixel scale; from the WCS of the first file where it is not stated. What is stated wins over the headers."""
    zero_point_ab: float | None = None
    """AB zero-point of files whose header has none (MAGZERO, or PHOTFLAM and PHOTPLAM of HST)."""
    unit: str = "nJy"
    """Unit of the stored pixels. Anything but nJy stores them as they are."""
    files: str = "*"
    """Which FITS files are stamps: ``*`` for all of the folder, or ``*/image.fits`` where each has a folder of its own,
    which then names it."""
    noise: str = ""
    """Noise map beside each image, such as ``noise.fits``: where it is not a number, or ``noise_max`` or more, pixels
    are masked."""
    noise_max: float = 1e6
    """Noise of a pixel without data."""
    sky_position: Literal["wcs", "labels", "none"] = "wcs"
    """Where ra_deg and dec_deg come from: each file's WCS, columns of these names in the labels, or nowhere."""
    labels: str = ""
    """CSV with a row per stamp, relative to the folder."""
    key: str = "file"
    """Column of the CSV that names the stamp."""
    stem: str = "(.+)"
    """Regular expression on the file name without suffix; its first group is the key in the CSV."""
    label_column: str = "label"
    """Column of the CSV with the class."""
    host_column: str = ""
    """Column of the CSV with the host; the stamp itself is its host where empty."""
    label: str = ""
    """Class of every stamp, where there is no such column."""


def read_fits_folder(folder: Path, options: FitsFolderOptions) -> StampStream:
    """
    Stamps of a folder of ``.fits`` (or ``.fits.gz``, ``.fits.fz``) files, in nJy.

    NaN pixels become 0 and count in ``mask_fraction_<band>``. Columns of the CSV are kept.

    Raises
    ------
    ConfigError
        No FITS files, or options and CSV do not fit each other.
    """
    files = sorted(p for p in folder.glob(options.files) if p.name.endswith((".fits", ".fits.gz", ".fits.fz", ".fit")))
    if not files:
        raise ConfigError("no FITS files in this folder", folder=str(folder), files=options.files)
    catalogue = read_catalog(folder / options.labels, options.key) if options.labels else None
    _check(options, catalogue)
    spec = ImageSpec(
        tuple(options.bands), options.size_px, options.pixel_scale_arcsec or _scale(files[0], options), options.unit
    )
    rule = ZeroPoint(units={"nJy": 31.4}, keywords=("MAGZERO",), photflam=True)
    positions = options.sky_position == "wcs"
    leave_out = (options.key, options.label_column, options.host_column, *(("ra_deg", "dec_deg") if positions else ()))
    extra = [*SKY_FIELDS] if positions else []
    extra += catalogue.fields(leave_out) if catalogue else []

    def read(path: Path) -> LabelledStamp:
        name = path.parent.name if "/" in options.files else path.name.split(".fit")[0]
        row = _row(catalogue, name, options)
        with open_fits(str(path)) as hdus:
            planes = [_plane(hdus, band, path.name, options, rule) for band in options.bands]
            if positions or options.pixel_scale_arcsec is None:
                header = image_hdu(hdus, next(iter(options.bands.values())), file=path.name).header
                ra_deg, dec_deg, scale = centre_and_scale(header, file=path.name)
                row |= {"ra_deg": ra_deg, "dec_deg": dec_deg} if positions else {}
                _check_scale(scale, spec, options, path.name)
        masked = _no_data(path, options)
        planes = planes if masked is None else [np.where(masked, np.nan, plane) for plane in planes]
        label = row.get(options.label_column) if catalogue and not options.label else options.label
        host = str(row[options.host_column]) if options.host_column else name
        return LabelledStamp(
            name, {"image": np.stack(planes)}, None if label in (None, "") else str(label), host, row, _split(row)
        )

    return stream_stamps("fits-folder", {"image": spec}, extra, files, read, n=len(files))


def _check(options: FitsFolderOptions, catalogue: Catalog | None) -> None:
    columns = catalogue.table.schema.names if catalogue else []
    wanted = [options.host_column] if options.host_column else []
    if catalogue and not options.label:
        wanted.append(options.label_column)
    if options.sky_position == "labels":
        wanted += ["ra_deg", "dec_deg"]
    if missing := [name for name in wanted if name not in columns]:
        raise ConfigError(
            "the labels lack a column that the options name", missing=",".join(missing), labels=options.labels
        )
    try:
        groups = re.compile(options.stem).groups
    except re.error as error:
        raise ConfigError(f"stem is not a regular expression: {error}", stem=options.stem) from error
    if groups < 1:
        raise ConfigError("stem needs a group, its first one is the key: for example 'DES_(.+)'", stem=options.stem)


def _scale(file: Path, options: FitsFolderOptions) -> float:
    with open_fits(str(file)) as hdus:
        header = image_hdu(hdus, next(iter(options.bands.values())), file=file.name).header
        return round(centre_and_scale(header, file=file.name)[2], 6)


def _check_scale(scale: float, spec: ImageSpec, options: FitsFolderOptions, file: str) -> None:
    if options.pixel_scale_arcsec is None and abs(scale / spec.pixel_scale_arcsec - 1) > SCALE_TOLERANCE:
        raise DataError(
            "the pixel scale differs from the data set's",
            file=file,
            got_arcsec=scale,
            want_arcsec=spec.pixel_scale_arcsec,
        )


def _no_data(path: Path, options: FitsFolderOptions) -> NDArray[np.bool_] | None:
    """Pixels (y, x) without data, by the noise map beside an image; None where none is named."""
    if not options.noise:
        return None
    with open_fits(str(path.parent / options.noise)) as hdus:
        data = native(image_hdu(hdus, None, file=options.noise).data)
    noise = central_crop(data, options.size_px, file=options.noise)
    return np.asarray(~(noise < options.noise_max))


def _row(catalogue: Catalog | None, name: str, options: FitsFolderOptions) -> dict[str, object]:
    if catalogue is None:
        return {}
    match = re.fullmatch(options.stem, name)
    keys = [match[1], f"{match[1]}.fits"] if match else []
    row = next((row for key in keys if (row := catalogue.row(key)) is not None), None)
    if row is None:
        raise DataError("the stamp has no row in the labels", stamp=name, labels=options.labels)
    return row


def _split(row: dict[str, object]) -> str | None:
    value = row.get("split")
    if value is None or value in SPLITS:
        return None if value is None else str(value)
    raise DataError("the labels name a split that does not exist", got=str(value), known=",".join(SPLITS))


def _plane(
    hdus: fits.HDUList, band: str, file: str, options: FitsFolderOptions, rule: ZeroPoint
) -> NDArray[np.float32]:
    hdu = options.bands[band]
    chosen = image_hdu(hdus, hdu, file=file)
    pixels = central_crop(native(chosen.data).reshape(chosen.shape[-2:]), options.size_px, file=file)
    if options.unit != "nJy":
        return pixels
    plane = plane_header(hdus, chosen)
    return linear_njy(pixels, plane, rule, band=band, file=file, hdu=hdu, assumed_zero_point_ab=options.zero_point_ab)
