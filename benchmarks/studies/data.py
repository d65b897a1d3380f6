"""Real pixels that the studies share: where they lie in the folder of development data, and what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lenspipe.robust import robust_sigma
from lenspipe.simulate.paint.host import Host
from lenspipe.simulate.paint.tiles import HostCuts, search_tile, tile_hosts

NJY_PER_MAGGY = 3631e9
NJY_AT_ZERO_POINT_30 = 10 ** (0.4 * (31.4 - 30.0))
KIDS_SCALE_ARCSEC, KIDS_FWHM_ARCSEC = 0.339, (1.11, 0.86, 0.92)
KIDS_ROWS = {"train": (0, 1430), "validation": (1430, 1690), "test": (1690, 2600)}
"""Rows of the KiDS tile of each split."""
DES_EVERY = 10
DES_SCALE_ARCSEC, DES_FWHM_ARCSEC = 0.263, (1.15, 1.0, 0.95, 0.95)
SEARCH: dict[str, Any] = {
    "mesh_px": 128,
    "filter_mesh": 3,
    "threshold_sigma": 2.5,
    "min_area_px": 6,
    "deblend_levels": 32,
    "deblend_contrast": 0.005,
}
"""How hosts were found in every record so far; a scan searches deeper (64 px, 1.5 sigma, 5 px)."""
CUTS = HostCuts(
    early_mag=(15.5, 20.8),
    early_colour=(1.35, 3.3),
    early_radius_arcsec=(0.62, 3.0),
    star_mag_max=17.5,
    star_radius_max_arcsec=0.70,
)
"""Early types and stars in g r i at the seeing of KiDS."""


def study_hosts(
    images_njy: NDArray[np.float32],
    *,
    name: str,
    pixel_scale_arcsec: float,
    psf_fwhm_arcsec: NDArray[np.float64],
    size_px: int,
) -> tuple[list[Host], NDArray[np.float64]]:
    """Hosts and positions of a g r i tile, found with `SEARCH` and told apart by `CUTS`."""
    return tile_hosts(
        search_tile(images_njy, **SEARCH),
        name=name,
        pixel_scale_arcsec=pixel_scale_arcsec,
        psf_fwhm_arcsec=psf_fwhm_arcsec,
        size_px=size_px,
        cuts=CUTS,
    )


def kids_tile(real: Path) -> NDArray[np.float32]:
    """The KiDS g r i tile, ``(band, y, x)`` in nJy (its files are in maggies)."""
    planes = [fits.getdata(real / "tiles/kids_viking" / f"{band}.fits", 1) for band in "gri"]
    return (np.stack(planes).astype(np.float64) * NJY_PER_MAGGY).astype(np.float32)


def cfhtls_tile(real: Path) -> NDArray[np.float32]:
    """The CFHTLS g r i tile, ``(band, y, x)`` in nJy (AB zero-point 30)."""
    planes = [fits.getdata(real / "tiles/cfhtls" / f"CFHTLS-test_{band}.fits") for band in "gri"]
    return (np.stack(planes).astype(np.float64) * NJY_AT_ZERO_POINT_30).astype(np.float32)


def des_hosts(real: Path, size_px: int, rng: np.random.Generator) -> list[Host]:
    """
    DES early-type galaxies and luminous red galaxies (0.263", zero-point 30).

    Cutouts are smaller than ``size_px``: beyond their edge lies Gaussian noise of their own level, drawn from ``rng``.
    """
    folder = real / "stamps/des_early_types"
    early = np.stack([fits.getdata(folder / f"{band}.fits") for band in "gri"], axis=1)
    # the FILTER keyword of the LRG files says i in every HDU; their order is g, r, i
    lrg_files = sorted((real / "stamps/des_lrg/lens").glob("*.fits"))
    lrg = [np.stack([hdu.data for hdu in fits.open(path)]) for path in lrg_files]
    named = [(f"des-early-{k}", stamp) for k, stamp in enumerate(early)]
    named += [(f"des-lrg-{path.stem}", stamp) for path, stamp in zip(lrg_files, lrg, strict=True)]
    return [des_host(name, stamp.astype(np.float32), size_px, rng) for name, stamp in named]


def des_early_counts(real: Path) -> NDArray[np.float32]:
    """The DES early types in g r i z, ``(n, 4, 91, 91)``, in counts at zero-point 30."""
    planes = [fits.getdata(real / "stamps/des_early_types" / f"{band}.fits") for band in "griz"]
    return np.stack(planes, axis=1).astype(np.float32)


def des_host(name: str, stamp: NDArray[np.float32], size_px: int, rng: np.random.Generator) -> Host:
    """A host of a DES cutout ``(band, y, x)`` in g r i or g r i z; its magnitude is that of i."""
    stamp = stamp[:, : stamp.shape[1] - (stamp.shape[1] + 1) % 2, : stamp.shape[2] - (stamp.shape[2] + 1) % 2]
    sky = np.median(stamp, axis=(1, 2), keepdims=True)
    rms = robust_sigma(stamp, (1, 2))
    side = stamp.shape[1]
    pixels = rng.normal(0, 1, (len(stamp), size_px, size_px)).astype(np.float32) * rms[:, None, None]
    inner, outer = max(0, (side - size_px) // 2), max(0, (size_px - side) // 2)
    taken = min(side, size_px)
    pixels[:, outer : outer + taken, outer : outer + taken] = (stamp - sky)[
        :, inner : inner + taken, inner : inner + taken
    ]
    centre = pixels[2, size_px // 2 - 8 : size_px // 2 + 9, size_px // 2 - 8 : size_px // 2 + 9]
    return Host(
        name=name,
        kind="early",
        pixels_njy=(pixels * NJY_AT_ZERO_POINT_30).astype(np.float32),
        pixel_scale_arcsec=0.263,
        psf_fwhm_arcsec=np.array(DES_FWHM_ARCSEC[: len(stamp)]),
        sky_rms_njy=rms.astype(np.float64) * NJY_AT_ZERO_POINT_30,
        mag=float(30 - 2.5 * np.log10(centre.sum())),
        axis_ratio=0.8,
        angle_rad=0.0,
    )
