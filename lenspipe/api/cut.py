"""Cutouts of a survey's tiles around positions on the sky, in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from lenspipe.api.picture import rgb
from lenspipe.errors import ConfigError
from lenspipe.scan.config import ScanConfig
from lenspipe.stamps.cut.parts import CutTask
from lenspipe.stamps.cut.pixels import Cells, SkyMesh
from lenspipe.stamps.cut.run import cut_stamps, labelled, locate, with_bands
from lenspipe.stamps.format import ImageSpec, StampSet
from lenspipe.survey.layout import SurveyLayout, read_layout
from lenspipe.survey.request import requested_tiles
from lenspipe.survey.tile import bands_of


@dataclass(frozen=True, eq=False)
class Cutouts:
    """
    What was cut, in the order of the positions.

    Attributes
    ----------
    pixels_njy : float32 array (n, band, y, x)
        Flux per pixel, nJy; NaN throughout where nothing could be cut.
    bands : tuple of str
    pixel_scale_arcsec : float
    missing : dict of int to str
        Why nothing could be cut, by the position's number.
    """

    pixels_njy: NDArray[np.float32]
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    missing: dict[int, str]

    def rgb(self) -> NDArray[np.uint8]:
        """Colour pictures ``(n, y, x, 3)``, one stretch for all."""
        return rgb(self.pixels_njy, self.bands)


def cutouts(
    tiles: str | Path | Iterable[str | Path],
    ra_deg: ArrayLike,
    dec_deg: ArrayLike,
    *,
    size_px: int,
    survey: str | Path | SurveyLayout = "generic",
    bands: Sequence[str] | None = None,
    subtract_sky: bool = True,
    zero_point_ab: float | None = None,
) -> Cutouts:
    """
    Cut squares around positions out of tiles, calibrated to nJy, as ``lenspipe stamps cut`` does.

    Parameters
    ----------
    tiles : str, path, or several
        FITS files, folders, globs, URLs, or a manifest.
    ra_deg, dec_deg : arrays (n,)
        Positions, ICRS.
    size_px : int
        Side of a square.
    survey : str or path
        Layout, which says what the files are.
    bands : sequence of str, optional
        In this order; all where not given.
    subtract_sky : bool
        As a scan does.
    zero_point_ab : float, optional
        For images whose header and layout give none.

    Returns
    -------
    Cutouts

    Raises
    ------
    ConfigError
        No position lies on a tile, or no tile has a band.
    DataError
        Nothing could be cut.

    Examples
    --------
    A position on a tile, and one beside it:

    >>> import tempfile
    >>> from astropy.io import fits
    >>> from lenspipe.api import simulate_lens
    >>> lens, folder = simulate_lens(theta_e_arcsec=1.6, size_px=161), Path(tempfile.mkdtemp())
    >>> sky = {"CTYPE1": "RA---TAN", "CRVAL1": 150.0, "CRPIX1": 81.0, "CDELT1": -0.2 / 3600, "BUNIT": "nJy"}
    >>> sky |= {"CTYPE2": "DEC--TAN", "CRVAL2": 2.2, "CRPIX2": 81.0, "CDELT2": 0.2 / 3600}
    >>> for band, plane in zip(lens.bands, lens.pixels_njy, strict=True):
    ...     fits.PrimaryHDU(plane, fits.Header(sky)).writeto(folder / f"field_{band}.fits")
    >>> cut = cutouts(folder, [150.0, 151.0], [2.2, 2.2], size_px=41)
    >>> cut.pixels_njy.shape, list(cut.missing)
    ((2, 3, 41, 41), [1])
    """
    ra, dec = np.atleast_1d(np.asarray(ra_deg, float)), np.atleast_1d(np.asarray(dec_deg, float))
    if ra.shape != dec.shape or ra.ndim != 1:
        raise ConfigError("as many right ascensions as declinations", ra=str(ra.shape), dec=str(dec.shape))
    named = [str(tiles)] if isinstance(tiles, str | Path) else [str(tile) for tile in tiles]
    layout = survey if isinstance(survey, SurveyLayout) else read_layout(str(survey))
    found = requested_tiles(named, layout)
    there = bands_of(found, layout)
    if lacking := [band for band in bands or () if band not in there]:
        raise ConfigError("no tile has this band", band=lacking[0], bands=" ".join(there))
    chosen = tuple(bands or there)
    names = [f"{k:09d}" for k in range(len(ra))]
    rows = pa.table(
        {"stamp_id": names, "ra_deg": ra % 360.0, "dec_deg": dec, "size_px": pa.array([size_px] * len(ra), pa.int64())}
    )
    located = locate(
        [with_bands(tile, chosen) for tile in found],
        layout,
        labelled(rows, None),
        size_px=size_px,
        zero_point_ab=zero_point_ab,
    )
    config = ScanConfig()
    mesh = config.background
    spec = ImageSpec(bands=chosen, size_px=size_px, pixel_scale_arcsec=located.pixel_scale_arcsec)
    pixels = np.full((len(ra), len(chosen), size_px, size_px), np.nan, np.float32)
    with tempfile.TemporaryDirectory(prefix="lenspipe-cut-") as scratch:
        out = Path(scratch) / "stamps"
        task = CutTask(
            layout,
            spec,
            SkyMesh(mesh.mesh_px, mesh.filter_mesh) if subtract_sky else None,
            Cells(config.shard.core_px, config.shard.halo_px, mesh.mesh_px),
            zero_point_ab,
            "parquet",
            (),
            str(out),
        )
        result = cut_stamps(located, task, out, {"tiles": named})
        stamps = StampSet.open(out)
        order = [int(name) for name in stamps.column("stamp_id")]
        pixels[order] = stamps.read_images(next(iter(stamps.images)))
    missing = {int(name): reason for name, reason in result.left_out}
    return Cutouts(pixels, chosen, located.pixel_scale_arcsec, missing)
