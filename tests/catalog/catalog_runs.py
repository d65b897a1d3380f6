"""Run folders to make catalogues of: two tiles that overlap, scanned by the plain loop."""

import numpy as np
from astropy.io import fits
from sky import FWHM_PX, NOISE_NJY, gaussian_sources, tan_wcs

from lenspipe.runner import Silent, here
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.local import scan_local
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.run import run_scan
from lenspipe.survey.layout import read_layout

local = here(scan_local)


def scan_request(tiles, *, model="none", survey="generic", **config):
    raw = {"shard": {"core_px": 256, "halo_px": 64}, "score": {"model": str(model)}, **config}
    return ScanRequest((str(tiles),), read_layout(survey), ScanConfig.model_validate(raw), None)


def scan(tiles, out, *, runner=local, resume=False, **request):
    return run_scan(scan_request(tiles, **request), out, runner, Silent(), resume=resume)


def write_overlapping_tiles(folder, *, overlap_px=80, ra_deg=0.0, dec_deg=-5.0):
    """
    Two tiles, 240 x 200 pixels, that share ``overlap_px`` columns around RA 0; truth positions of all sources.

    The noise of a tile is its own, so the two see the shared sources a little differently.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    width = 480 - overlap_px
    wcs = tan_wcs((200, width), ra_deg=ra_deg, dec_deg=dec_deg)
    grid = np.stack(np.meshgrid(np.arange(20, width - 15, 36), np.arange(20, 185, 36)), axis=-1).reshape(-1, 2)
    x_px, y_px = (grid + rng.uniform(-5, 5, grid.shape)).T
    flux = rng.uniform(4000, 20000, len(x_px))
    fwhm_px = FWHM_PX * np.random.default_rng(6).permutation(np.geomspace(0.9, 1.8, len(x_px)))  # of one size: stars
    clean = gaussian_sources((200, width), x_px, y_px, flux, fwhm_px)
    for number, x0 in enumerate((0, 240 - overlap_px)):
        head = wcs.to_header()
        head["CRPIX1"] -= x0
        head["BUNIT"] = "nJy"
        for band in "gri":
            image = clean[:, x0 : x0 + 240] + rng.normal(0, NOISE_NJY, (200, 240))
            fits.PrimaryHDU(image.astype(np.float32), head).writeto(folder / f"t{number}_{band}.fits")
    ra, dec = wcs.all_pix2world(x_px, y_px, 0)
    return {
        "ra": ra % 360,
        "dec": dec,
        "x_px": x_px,
        "n_shared": int(((x_px > 240 - overlap_px + 8) & (x_px < 232)).sum()),
    }
