"""A small survey with stars, red galaxies that may carry arcs, and blue ones: one tile, three bands, half an arcsec."""

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

SCALE, SIDE, FWHM = 0.5, 640, 1.2
BANDS = ("g", "r", "i")
RED, BLUE, STAR = (0.12, 0.55, 1.0), (0.7, 0.9, 1.0), (0.5, 0.8, 1.0)
RMS_NJY = 12.0


def drawn_tile(*, n_red=45, n_blue=60, n_star=60, seed=3, bands=BANDS, fwhm_arcsec=FWHM):
    """Image ``(band, y, x)`` in nJy and the positions of red galaxies."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, RMS_NJY, (3, SIDE, SIDE))
    grid = np.stack(np.meshgrid(*[np.arange(20, SIDE - 20, 34)] * 2), -1).reshape(-1, 2)
    at = grid[rng.permutation(len(grid))[: n_red + n_blue + n_star]] + rng.uniform(-4, 4, (n_red + n_blue + n_star, 2))
    sigma = fwhm_arcsec / 2.355 / SCALE
    for k, (x, y) in enumerate(at):
        colour = RED if k < n_red else BLUE if k < n_red + n_blue else STAR
        width = sigma if k >= n_red + n_blue else np.hypot(sigma, rng.uniform(2.2, 3.4))
        flux = 10 ** rng.uniform(4.3, 5.2) * np.array(colour)
        r = 16
        yy, xx = np.mgrid[int(y) - r : int(y) + r + 1, int(x) - r : int(x) + r + 1]
        inside = (yy >= 0) & (yy < SIDE) & (xx >= 0) & (xx < SIDE)
        shape = np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / width**2) / (2 * np.pi * width**2)
        image[:, yy[inside], xx[inside]] += flux[:, None] * shape[inside]
    return image.astype(np.float32)[[BANDS.index(b) for b in bands]], at[:n_red]


def write_tile(folder, image, bands=BANDS):
    """FITS files ``t_BAND.fits`` in nJy."""
    folder.mkdir(parents=True, exist_ok=True)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (150.0, 2.2), ((SIDE + 1) / 2,) * 2
    wcs.wcs.cdelt = -SCALE / 3600, SCALE / 3600
    for plane, band in zip(image, bands, strict=True):
        header = wcs.to_header()
        header["BUNIT"], header["FILTER"] = "nJy", band
        fits.PrimaryHDU(plane, header).writeto(folder / f"t_{band}.fits")
    return folder
