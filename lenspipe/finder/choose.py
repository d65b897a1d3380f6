"""From the sources of a whole run to what is cut out of each shard: hosts, negatives, empty sky, split by area."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.bands import selection_band
from lenspipe.errors import DataError
from lenspipe.finder.areas import Areas, deal_areas
from lenspipe.finder.cut import CutTask
from lenspipe.finder.roles import ARTEFACT, GALAXY, HOST, NONE, STAR, Roles, assign_roles
from lenspipe.finder.settings import HostSettings
from lenspipe.image.photometry import ab_magnitude
from lenspipe.scan.context import ShardTask

LEAST_HOSTS = 8
"""Hosts that arcs are painted on at all."""
SHARES = {GALAXY: 0.7, STAR: 0.2, ARTEFACT: 0.1}
"""Parts of the negatives that are cut out."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """What is cut out of a run."""

    rows: pa.Table
    """Chosen sources with ``role``, ``refused`` and ``split``."""
    roles: Roles
    areas: Areas
    depth_mag: float

    def record(self) -> dict[str, Any]:
        """For the record of a finder."""
        splits = collections.Counter(
            f"{role} {split}"
            for role, split in zip(*(self.rows[n].to_pylist() for n in ("role", "split")), strict=True)
        )
        stars, red = self.roles.stars, self.roles.red
        return {
            "sources": self.roles.counts(),
            "chosen": dict(sorted(splits.items())),
            "depth_mag": round(self.depth_mag, 3),
            "host_mag": [round(float(m), 3) for m in self.roles.mag],
            "star_radius_arcsec": None if stars is None else round(stars.radius_arcsec, 4),
            "resolved_from_arcsec": None if stars is None else round(stars.resolved_arcsec, 4),
            "stars_on_locus": None if stars is None else stars.n,
            "red_sequence": "one band: concentration alone" if red is None else red.said(),
            "cells_order": self.areas.order,
        }


def choose(
    sources: pa.Table,
    bands: tuple[str, ...],
    settings: HostSettings,
    *,
    psf_fwhm_arcsec: float | None,
    margin_arcsec: float,
    avoid: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    seed: int,
) -> Chosen:
    """
    Choose hosts and negatives among the sources of a run.

    Raises
    ------
    DataError
        There are no sources, or too few hosts; counts and reasons are in the message.
    """
    if not sources.num_rows:
        raise DataError("no source was found in the run's tiles, so there is nothing to learn from")
    band = selection_band(bands)
    rms = float(np.nanmedian(sources[f"sky_rms_{band}_njy"].to_numpy(zero_copy_only=False).astype(float)))
    scale = float(np.median(sources["pixel_scale_arcsec"].to_numpy()))
    depth = float(ab_magnitude(np.array(5 * rms * np.sqrt(np.pi) / scale)))
    roles = assign_roles(sources, bands, settings, depth_mag=depth, psf_fwhm_arcsec=psf_fwhm_arcsec, avoid=avoid)
    is_host = roles.role == HOST
    if is_host.sum() < LEAST_HOSTS:
        why = "; ".join(f"{n} {text}" for text, n in roles.counts().items())
        raise DataError(
            "hardly any source of the run can carry arcs: scan more sky, or widen hosts.mag_max, hosts.colour_min or "
            "hosts.radius_min_arcsec",
            hosts=int(is_host.sum()),
            needed=LEAST_HOSTS,
            sources=why,
        )
    ra, dec = sources["ra"].to_numpy(), sources["dec"].to_numpy()
    areas = deal_areas(ra, dec, is_host, fractions=settings.fractions, margin_arcsec=margin_arcsec, seed=seed)
    split = areas.of(ra, dec)
    rng = np.random.default_rng([seed, 3])
    mag = sources["mag"].to_numpy(zero_copy_only=False).astype(float)
    usable = np.array([s is not None for s in split])
    picked = [_drawn(np.flatnonzero(is_host & usable), settings.max_hosts, rng)]
    for role, share in SHARES.items():
        rows = np.flatnonzero((roles.role == role) & usable & np.isfinite(mag))
        picked.append(_bright_first(rows, mag, round(share * settings.max_negatives), rng))
    # hosts that were refused are the negatives that look most like hosts; they are few, and on the contact sheet
    picked.append(np.flatnonzero((roles.refused != "") & usable & (roles.role != NONE)))
    index = np.unique(np.concatenate(picked))
    rows = sources.take(index)
    for name, values in (("role", roles.role), ("refused", roles.refused), ("split", split)):
        rows = rows.append_column(name, pa.array([values[k] for k in index], pa.string()))
    return Chosen(rows, roles, areas, depth)


def _drawn(rows: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rows if len(rows) <= n else np.sort(rng.choice(rows, n, replace=False))


def _bright_first(
    rows: NDArray[np.int64], mag: NDArray[np.float64], n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Half of ``n`` the brightest, the rest any others: what people look at, and what a scan is full of."""
    if len(rows) <= n:
        return rows
    by_mag = rows[np.argsort(mag[rows], kind="stable")]
    return np.concatenate([by_mag[: n // 2], _drawn(by_mag[n // 2 :], n - n // 2, rng)])


def cut_tasks(chosen: Chosen, sources: pa.Table, tasks: list[ShardTask], *, n_sky: int, seed: int) -> list[CutTask]:
    """What to cut out of each shard; empty sky is shared by the shards alike."""
    per_shard = -(-n_sky // max(1, len(tasks)))
    out = []
    for number, task in enumerate(tasks):
        mine, here = (t.filter(pc.equal(t["shard_id"], task.shard.shard_id)) for t in (chosen.rows, sources))
        x, y = (here[name].to_numpy(zero_copy_only=False) for name in ("x_px", "y_px"))
        out.append(CutTask(task, mine, x, y, per_shard, seed * 1_000_003 + number))
    return out
