"""The sample survey of `--sample`: two overlapping g r i tiles, simulated, with injected lenses and their truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.wcs import WCS

from lenspipe.disk import new_folder
from lenspipe.scan.after.best import ranked_rows
from lenspipe.scan.finalize import CANDIDATES
from lenspipe.simulate.field import simulate_field
from lenspipe.sky.sphere import separation_arcsec
from lenspipe.sky.wcs import sky_position
from lenspipe.tables import read_footer, read_parquet, write_table

BANDS = ("g", "r", "i")
SHAPE_PX, OVERLAP_PX, PIXEL_SCALE_ARCSEC = (800, 1300), 200, 0.2
CENTRE_DEG = (150.0, 2.2)
SEED = 7
N_LENS = 6
MATCH_ARCSEC = 1.0
TRUTH = "truth.parquet"


def make_sample(folder: Path) -> Path:
    """
    Make the sample's tiles in ``folder``, unless they are there.

    The field is 260 by 160 arcsec with galaxy and star counts of the sky, KiDS-like seeing and depth, and six
    lenses of Einstein radius 1.2 to 2.2 arcsec. It is cut into two tiles that share 200 columns.

    Returns
    -------
    Path
        The folder, with ``sample-N_BAND.fits`` (IMAGE in nJy, INVVAR) and ``truth.parquet``.
    """
    if folder.is_dir():
        return folder
    with new_folder(folder) as scratch:
        _write(scratch)
    return folder


def _write(folder: Path) -> None:
    per_arcmin2 = SHAPE_PX[0] * SHAPE_PX[1] * (PIXEL_SCALE_ARCSEC / 60) ** 2
    field = simulate_field(
        seed=SEED,
        bands=BANDS,
        shape_px=SHAPE_PX,
        pixel_scale_arcsec=PIXEL_SCALE_ARCSEC,
        n_galaxy=round(37 * per_arcmin2),
        n_star=round(5 * per_arcmin2),
        n_lens=N_LENS,
    )
    wcs = _wcs()
    width = (SHAPE_PX[1] + OVERLAP_PX) // 2
    for number, x0 in enumerate((0, SHAPE_PX[1] - width), 1):
        columns = slice(x0, x0 + width)
        header = wcs.to_header()
        header["CRPIX1"] -= x0
        header["BUNIT"] = "nJy"
        for b, band in enumerate(BANDS):
            planes = [
                fits.CompImageHDU(
                    plane[b][:, columns],
                    header,
                    name=name,
                    compression_type="RICE_1",
                    quantize_level=16,
                    quantize_method=1,
                    dither_seed=number,
                )
                for name, plane in (("IMAGE", field.image), ("INVVAR", field.invvar))
            ]
            planes[0].header["FILTER"] = band
            fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(folder / f"sample-{number}_{band}.fits", checksum=True)
    truth = field.truth
    ra_deg, dec_deg = sky_position(wcs, truth["x_px"].to_numpy(), truth["y_px"].to_numpy())
    truth = truth.append_column("ra", pa.array(ra_deg)).append_column("dec", pa.array(dec_deg))
    write_table(truth, folder / TRUTH)


def _wcs() -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = CENTRE_DEG
    wcs.wcs.crpix = (SHAPE_PX[1] + 1) / 2, (SHAPE_PX[0] + 1) / 2
    wcs.wcs.cdelt = -PIXEL_SCALE_ARCSEC / 3600, PIXEL_SCALE_ARCSEC / 3600
    wcs.wcs.radesys = "ICRS"
    return wcs


def ranks_of_truth(folder: Path) -> list[dict[str, Any]]:
    """
    The sample's lenses and where they came out in the catalogue of a run.

    The rank is the catalogue's: a source that both tiles show is one row. Of the rows near a lens the best counts.
    """
    truth = read_parquet(folder / "sample" / TRUTH)
    truth = truth.filter(truth["is_lens"])
    found = ranked_rows(folder, read_footer(folder / CANDIDATES).num_rows).to_pylist()
    ra, dec = (np.array([row[name] for row in found]) for name in ("ra", "dec"))
    rows = []
    for number, lens in enumerate(truth.to_pylist(), 1):
        near = np.flatnonzero(separation_arcsec(ra, dec, lens["ra"], lens["dec"]) < MATCH_ARCSEC)
        rank, score = (found[near[0]][name] if len(near) else None for name in ("rank", "score"))
        rows.append({"lens": number, **lens, "rank": rank, "score": score})
    return rows
