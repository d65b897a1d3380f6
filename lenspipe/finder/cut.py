"""Hosts, negatives and empty sky cut out of a run's shards into a data set of stamps, one part per shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lenspipe.errors import DataError, TileError
from lenspipe.finder.areas import Areas
from lenspipe.finder.roles import ARTEFACT, GALAXY, HOST
from lenspipe.finder.shape import asymmetry
from lenspipe.image.cutouts import extract_cutouts
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.read import facts_of, flatten, read_shard
from lenspipe.sky.wcs import sky_position
from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema, write_part

WHOLE = 0.999
"""Part of a stamp that must hold data: where one class lacks pixels more often than another, that tells them apart."""
ARTEFACT_WHOLE = 0.9
"""Part of an artefact's."""
CLEAR_ARCSEC = 5.0
"""Empty sky has no source within this."""
SAME_SCALE = 1e-3
NUMBERS = {
    "ra": ("deg", "right ascension, ICRS"),
    "dec": ("deg", "declination, ICRS"),
    "mag": ("mag", "AB magnitude in the band of the run's magnitude limits"),
    "half_light_radius_arcsec": ("arcsec", "half-light radius in the detection image"),
    "axis_ratio": ("", "minor over major axis"),
    "angle_rad": ("rad", "major axis from +x towards +y"),
    "concentration": ("", "flux within 1 over flux within 3 arcsec"),
    "asymmetry": ("", "part of the light that changes under a turn by 180 degrees"),
}


def host_schema(spec: ImageSpec) -> pa.Schema:
    """Columns of a data set of hosts; the label says what a stamp shows (`lenspipe.simulate.hosts.ROLES`)."""
    numbers = dict(NUMBERS)
    numbers |= {f"psf_fwhm_{band}_arcsec": ("arcsec", f"FWHM of the PSF in {band}") for band in spec.bands}
    numbers |= {f"sky_rms_{band}_njy": ("nJy", f"sky noise of a pixel in {band}") for band in spec.bands}
    fields = [
        pa.field("tile", pa.string(), metadata={"description": "tile"}),
        pa.field("refused", pa.string(), metadata={"description": "why a red source is no host; empty elsewhere"}),
    ]
    return stamp_schema(
        {"image": spec},
        fields
        + [pa.field(n, pa.float64(), metadata={"unit": u, "description": text}) for n, (u, text) in numbers.items()],
    )


@dataclass(frozen=True, eq=False)
class CutTask:
    """What to cut out of a shard."""

    task: ShardTask
    rows: pa.Table
    """Sources to cut out, with ``role``, ``split`` and ``refused``."""
    all_x_px: NDArray[np.float64]
    """Columns of every source of the shard, in pixels of the tile, for empty sky."""
    all_y_px: NDArray[np.float64]
    n_sky: int
    """Empty places to find."""
    seed: int


@dataclass(frozen=True)
class Cutter:
    """Cuts tasks out; small and picklable."""

    context: ScanContext
    spec: ImageSpec
    psf_fwhm_arcsec: tuple[float, ...]
    """Of the spec's bands."""
    asymmetry_max: float
    survey: str
    """Name of the layout."""
    areas: Areas
    folder: Path

    def __call__(self, asked: CutTask) -> tuple[int, str]:
        """Write the part of a shard unless it is there: its rows, and why there is none."""
        part = self.folder / f"{asked.task.shard.shard_id}.parquet"
        if part.exists():
            return 0, ""
        try:
            table = self.cut(asked)
        except (TileError, DataError) as error:
            return 0, str(error)
        if table.num_rows:
            write_part(table, self.folder, part.name)
        return table.num_rows, ""

    def cut(self, asked: CutTask) -> pa.Table:
        """
        The stamps of a shard.

        Hosts whose light is lopsided are galaxies like others, and ``refused`` says so. Stamps that lack data are left
        out.

        Raises
        ------
        TileError, DataError
            The tile cannot be used, lacks a band, or has another pixel scale than the data set.
        """
        facts = facts_of(asked.task.tile, self.context)
        if abs(facts.pixel_scale_arcsec / self.spec.pixel_scale_arcsec - 1) > SAME_SCALE:
            raise DataError(
                "the tile has another pixel scale than most of the run",
                tile=asked.task.tile.name,
                got_arcsec=facts.pixel_scale_arcsec,
                want_arcsec=self.spec.pixel_scale_arcsec,
            )
        read = read_shard(asked.task, self.context, facts=facts)
        if missing := [band for band in self.spec.bands if band not in read.pixels.bands]:
            raise DataError("the tile lacks a band", tile=asked.task.tile.name, missing=" ".join(missing))
        flat, window = flatten(read, self.context), asked.task.shard.window
        order = [read.pixels.bands.index(band) for band in self.spec.bands]
        image, mask = flat.image[order], flat.mask[order]
        rms = np.array([np.nan if flat.median_rms[b] is None else flat.median_rms[b] for b in order], float)
        if not np.isfinite(rms).all():
            raise DataError("a band holds no data here", tile=asked.task.tile.name)
        get = {name: asked.rows[name].to_numpy(zero_copy_only=False) for name in asked.rows.column_names}
        x, y = get["x_px"] - window.x0, get["y_px"] - window.y0
        sky_x, sky_y = empty_places(
            mask,
            asked.all_x_px - window.x0,
            asked.all_y_px - window.y0,
            asked.n_sky,
            np.random.default_rng([asked.seed, 5]),
            size_px=self.spec.size_px,
            clear_px=CLEAR_ARCSEC / facts.pixel_scale_arcsec,
        )
        stamps, covered = extract_cutouts(image, mask, np.r_[x, sky_x], np.r_[y, sky_y], size_px=self.spec.size_px)
        n, n_sky = len(x), len(sky_x)
        lopsided = asymmetry(stamps[:n, -1], pixel_scale_arcsec=facts.pixel_scale_arcsec)
        role, refused = get["role"].astype(object).copy(), get["refused"].astype(object).copy()
        host = role == HOST
        refused[host & ~(lopsided <= self.asymmetry_max)] = "a blend or disturbed"
        role[host & (refused != "")] = GALAXY
        keep = np.r_[covered[:n] > np.where(role == ARTEFACT, ARTEFACT_WHOLE, WHOLE), np.ones(n_sky, bool)]
        ra, dec = sky_position(facts.wcs, sky_x + window.x0, sky_y + window.y0)
        at = [f"{a:.0f}-{b:.0f}" for a, b in zip(sky_x + window.x0, sky_y + window.y0, strict=True)]
        names = [*map(str, get["source_id"]), *(f"{asked.task.shard.shard_id}_sky{place}" for place in at)]
        empty = {"ra": ra, "dec": dec, "axis_ratio": np.ones(n_sky), "angle_rad": np.zeros(n_sky)}
        measured = {name: get[name] for name in NUMBERS if name in get} | {"asymmetry": lopsided}
        columns: dict[str, Any] = {
            "stamp_id": names,
            "label": [*role, *["sky"] * n_sky],
            "recipe": [self.survey] * len(names),
            "seed": [asked.seed] * len(names),
            "host": names,
            "split": [*get["split"], *self.areas.of(ra, dec)],
            "tile": [asked.task.shard.tile] * len(names),
            "refused": [*refused, *[""] * n_sky],
            **{name: np.r_[v.astype(float), empty.get(name, np.full(n_sky, np.nan))] for name, v in measured.items()},
        }
        for b, band in enumerate(self.spec.bands):
            columns[f"psf_fwhm_{band}_arcsec"] = np.full(len(names), self.psf_fwhm_arcsec[b])
            columns[f"sky_rms_{band}_njy"] = np.full(len(names), rms[b])
        schema, rows = host_schema(self.spec), np.flatnonzero(keep)
        arrays = [
            image_column(stamps[rows], self.spec)
            if f.name == "image"
            else pa.array([columns[f.name][k] for k in rows], f.type, from_pandas=True)
            for f in schema
        ]
        return pa.table(arrays, schema=schema)


def empty_places(
    mask: NDArray[np.bool_],
    x_px: NDArray[np.float64],
    y_px: NDArray[np.float64],
    n: int,
    rng: np.random.Generator,
    *,
    size_px: int,
    clear_px: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows of up to ``n`` places whose stamps hold data and that no source lies near, out of 50 n drawn."""
    height, width = mask.shape[1:]
    half = size_px // 2
    if n < 1 or min(height, width) <= size_px:
        return np.empty(0), np.empty(0)
    x = rng.integers(half, width - half, 50 * n).astype(float)
    y = rng.integers(half, height - half, 50 * n).astype(float)
    if len(x_px):
        apart = cKDTree(np.stack([x_px, y_px], axis=1)).query(np.stack([x, y], axis=1))[0]
        x, y = x[apart > clear_px], y[apart > clear_px]
    whole = [
        not mask[:, int(b) - half : int(b) + half + 1, int(a) - half : int(a) + half + 1].any()
        for a, b in zip(x[: 4 * n], y[: 4 * n], strict=True)
    ]
    rows = np.flatnonzero(whole)[:n]
    return x[rows], y[rows]
