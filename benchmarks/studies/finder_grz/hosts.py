"""
Hosts in g r z: DES early types and HSC galaxies, which have z, and KiDS sources, whose i is made as bright as z.

The colour i - z of a source follows from its r - i: a line through the DES and HSC galaxies. Flux and noise of a KiDS
cutout are multiplied alike, so its z is i with the signal-to-noise of i.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.data import DES_SCALE_ARCSEC, des_early_counts, des_host
from benchmarks.studies.finder_ground.hosts import FIELDS, LEAST_SCALE_ARCSEC, field_hosts, split_hosts
from benchmarks.studies.finder_ground.make_stamps import CARD as GRI
from benchmarks.studies.finder_survey.mixture import hsc_hosts
from lenspipe.simulate.paint.host import Host
from lenspipe.simulate.paint.scene import host_size_px

CARD = GRI.model_copy(update={"name": "ground-grz", "bands": ("g", "r", "z"), "neighbours": {}})
"""The grid and stretch of `ground-gri`, z in the place of i."""
FOLDS = 4
VALIDATION = FOLDS - 1
"""Fold of the z hosts that no training sees."""
APERTURE_ARCSEC = 1.5
COLOURS = (-0.5, 2.5)
"""r - i beyond which a source says nothing of its i - z."""


@dataclass(frozen=True)
class ZOfI:
    """i - z of a source as a line in its r - i."""

    intercept: float
    slope: float
    scatter: float

    def factor(self, r_minus_i: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the i flux is multiplied by."""
        colour = self.intercept + self.slope * np.clip(r_minus_i, *COLOURS)
        return np.asarray(10 ** (0.4 * colour))


def four_band_hosts(real: Path, seed: int) -> list[Host]:
    """DES early types and HSC galaxies in g r i z, in the order that deals them to folds."""
    size = host_size_px(CARD, DES_SCALE_ARCSEC, LEAST_SCALE_ARCSEC)
    rng = np.random.default_rng([seed, 11])
    des = [des_host(f"des-early-{k}", stamp, size, rng) for k, stamp in enumerate(des_early_counts(real))]
    return [*des, *hsc_hosts(real, rng, 4)]


def fold_of(host: str, hosts: list[Host]) -> int:
    """Fold of a host with z, by its place among those of its survey and kind of cutout."""
    kin = [one.name for one in hosts if one.name.rsplit("-", 1)[0] == host.rsplit("-", 1)[0]]
    return kin.index(host) % FOLDS


def central_mags(hosts: list[Host]) -> NDArray[np.float64]:
    """AB magnitudes ``(n, band)`` within `APERTURE_ARCSEC`; NaN where the flux is not positive."""
    out = []
    for host in hosts:
        half, middle = round(APERTURE_ARCSEC / host.pixel_scale_arcsec), host.pixels_njy.shape[-1] // 2
        box = slice(middle - half, middle + half + 1)
        flux = host.pixels_njy[:, box, box].sum(axis=(1, 2))
        out.append(31.4 - 2.5 * np.log10(np.where(flux > 0, flux, np.nan)))
    return np.array(out, np.float64)


def z_of_i(hosts: list[Host]) -> ZOfI:
    """The line of i - z in r - i through hosts in g r i z; those off it by more than 0.3 mag are left out once."""
    mags = central_mags(hosts)
    r_i, i_z = mags[:, 1] - mags[:, 2], mags[:, 2] - mags[:, 3]
    use = np.isfinite(r_i) & np.isfinite(i_z)
    for _ in range(2):
        slope, intercept = np.polyfit(r_i[use], i_z[use], 1)
        off = i_z - (intercept + slope * r_i)
        use &= np.abs(off) < 0.3
    return ZOfI(float(intercept), float(slope), float(off[use].std()))


def to_grz(host: Host) -> Host:
    """A host in g r i z as g r z."""
    order = [0, 1, 3]
    mag = central_mags([host])[0]
    return replace(
        host,
        pixels_njy=np.ascontiguousarray(host.pixels_njy[order]),
        psf_fwhm_arcsec=host.psf_fwhm_arcsec[order],
        sky_rms_njy=host.sky_rms_njy[order],
        mag=host.mag + float(np.nan_to_num(mag[3] - mag[2])),
    )


def made_up(hosts: list[Host], line: ZOfI) -> list[Host]:
    """Hosts in g r i as g r z, their i multiplied."""
    mags = central_mags(hosts)
    factor = line.factor(np.nan_to_num(mags[:, 1] - mags[:, 2], nan=0.3))
    out = []
    for host, one in zip(hosts, factor, strict=True):
        bands = np.array([1.0, 1.0, one])
        out.append(
            replace(
                host,
                pixels_njy=host.pixels_njy * bands[:, None, None].astype(np.float32),
                sky_rms_njy=host.sky_rms_njy * bands,
                mag=host.mag - 2.5 * float(np.log10(one)),
            )
        )
    return out


def split_grz(real: Path, split: str, *, seed: int) -> list[Host]:
    """Hosts of a split: KiDS rows and simulated fields as for `ground-gri`; with z the folds before the last train."""
    four = four_band_hosts(real, seed)
    line = z_of_i(four)
    of_gri = split_hosts(real, GRI, seed=seed, splits=(split,), fields=False)[split]
    kids = made_up([host for host in of_gri if host.name.startswith("kids-")], line)
    taking = [to_grz(h) for h in four if (fold_of(h.name, four) == VALIDATION) == (split == "validation")]
    fields = [host for number in FIELDS[split] for host in field_hosts(number, CARD)]
    return [*kids, *taking, *fields]
