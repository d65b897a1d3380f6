"""
Painted lenses and real stars of the KiDS tile before the star cut: no lens is to be cut, and hardly a star to stay.

`python -m benchmarks.studies.star_cut --real FOLDER` paints arcs around the tile's own galaxies, some at a time so
that they do not touch, searches the painted pixels as `lenspipe scan` does, and counts which lenses the cut takes for
stars. Record: benchmarks/results/star_cut.json.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from lenspipe.image.photometry import ab_magnitude
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ScanContext
from lenspipe.scan.read import ReadShard, facts_of, read_shard, task_of
from lenspipe.scan.request import ScanRequest, find_tiles
from lenspipe.scan.search import Found, search
from lenspipe.simulate.paint import paint_tile
from lenspipe.survey.layout import read_layout
from lenspipe.survey.shards import Box

THETA_E_ARCSEC = (0.8, 2.5)
HOST_MAG, HOST_COLOUR, HOST_RADIUS_ARCSEC = (16.0, 21.0), (1.2, 3.3), 3.0
"""Early types by magnitude in i, colour g - i and largest half-light radius; the smallest is where the locus ends."""
APART_ARCSEC, MATCH_ARCSEC = 15.0, 2.0
STAR_MAG_MAX, STAR_RADIUS_ARCSEC = 20.0, (0.55, 0.72)
"""The plain stellar locus of this tile."""
MIN_ARC_SNR = 20.0


def read_tile(real: Path, window: Box | None = None) -> tuple[ReadShard, ScanContext]:
    """The KiDS tile, or a window of it, as a scan by the shipped layout and settings reads it."""
    layout, config = read_layout("kids"), ScanConfig()
    tiles, bands = find_tiles(ScanRequest((str(real / "tiles/kids_viking"),), layout, config, None))
    context = ScanContext(config, layout, bands, Path())
    tile: Any = tiles[0]
    facts = facts_of(tile, context)
    window = window or Box(0, 0, facts.shape[1], facts.shape[0])
    return read_shard(task_of(tile, window), context, facts=facts), context


def copy_of(read: ReadShard) -> ReadShard:
    """Pixels of its own, since a search subtracts the sky in place."""
    pixels = dataclasses.replace(read.pixels, image=read.pixels.image.copy(), mask=read.pixels.mask.copy())
    return dataclasses.replace(read, pixels=pixels)


def look(read: ReadShard, context: ScanContext) -> Found:
    """Search, leaving the pixels as they are."""
    return search(copy_of(read), context)


def plain_stars(found: Found, read: ReadShard) -> NDArray[np.bool_]:
    """Sources on the plain stellar locus."""
    radius = found.sources.apertures.half_light_radius_px * read.facts.pixel_scale_arcsec
    low, high = STAR_RADIUS_ARCSEC
    return (_mag(found, read, "i") < STAR_MAG_MAX) & (radius > low) & (radius < high)


def hosts_of(found: Found, read: ReadShard) -> NDArray[np.intp]:
    """Early types that are no stars, the brightest first."""
    mag = _mag(found, read, "i")
    colour = _mag(found, read, "g") - mag
    radius = found.sources.apertures.half_light_radius_px * read.facts.pixel_scale_arcsec
    good = ~found.stars.are_stars & (radius < HOST_RADIUS_ARCSEC)
    for value, (low, high) in ((mag, HOST_MAG), (colour, HOST_COLOUR)):
        good &= (value > low) & (value < high)
    rows = np.flatnonzero(good)
    return rows[np.argsort(mag[rows], kind="stable")]


def paint_and_look(
    read: ReadShard, context: ScanContext, found: Found, hosts: NDArray[np.intp], *, seed: int
) -> list[dict[str, float]]:
    """Paint a lens on each host, search, and say of each what lies at its place: cut as a star, kept, or not found."""
    scale, bands = read.facts.pixel_scale_arcsec, read.pixels.bands
    at = found.sources.sources
    rms = np.array([value for value in found.flat.median_rms if value is not None])
    psf = [p.stack.astype(float) for p in found.stars.psf if p is not None]
    painted = copy_of(read)
    image, truth = paint_tile(
        painted.pixels.image,
        at.x_px[hosts],
        at.y_px[hosts],
        seed=seed,
        bands=bands,
        pixel_scale_arcsec=scale,
        psf=psf,
        sky_rms_njy=rms,
        theta_e_range_arcsec=THETA_E_ARCSEC,
        min_arc_snr=MIN_ARC_SNR,
        axis_ratio=at.b_px[hosts] / at.a_px[hosts],
        angle_rad=at.theta_rad[hosts],
    )
    painted = dataclasses.replace(painted, pixels=dataclasses.replace(painted.pixels, image=image))
    seen = search(painted, context)
    rows = []
    for k, lens in zip(hosts, truth.to_pylist(), strict=True):
        apart = np.hypot(seen.sources.sources.x_px - at.x_px[k], seen.sources.sources.y_px - at.y_px[k]) * scale
        nearest = int(np.argmin(apart))
        near = apart[nearest] < MATCH_ARCSEC
        rows.append(
            {
                "theta_e_arcsec": lens["theta_e_arcsec"],
                "mag_i": float(_mag(found, read, "i")[k]),
                "radius_before_arcsec": float(found.sources.apertures.half_light_radius_px[k] * scale),
                "radius_after_arcsec": float(seen.sources.apertures.half_light_radius_px[nearest] * scale),
                "found": bool(near),
                "cut": bool(near and seen.stars.are_stars[nearest]),
            }
        )
    return rows


def lenses(read: ReadShard, context: ScanContext, *, n: int, per_round: int, seed: int) -> list[dict[str, float]]:
    """``n`` painted lenses, round by round, no two of a round within `APART_ARCSEC`."""
    found = look(read, context)
    hosts, rows, round_ = hosts_of(found, read), [], 0
    at = found.sources.sources
    while len(rows) < n:
        order = np.random.default_rng([seed, round_]).permutation(hosts)
        taken: list[int] = []
        for k in order:
            apart = [np.hypot(at.x_px[k] - at.x_px[j], at.y_px[k] - at.y_px[j]) for j in taken]
            if len(taken) < per_round and all(a * read.facts.pixel_scale_arcsec > APART_ARCSEC for a in apart):
                taken.append(int(k))
        rows += paint_and_look(read, context, found, np.array(taken[: n - len(rows)]), seed=seed + round_)
        round_ += 1
    return rows


def _mag(found: Found, read: ReadShard, band: str) -> NDArray[np.float64]:
    return ab_magnitude(found.sources.flux_njy[read.pixels.bands.index(band)])


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--count", type=int, default=300, show_default=True, help="Lenses.")
@record.keep_option
def main(real: Path, count: int, keep: bool) -> None:
    """Measure and record."""
    read, context = read_tile(real)
    found = look(read, context)
    stars = plain_stars(found, read)
    stay = int((stars & ~found.stars.are_stars).sum())
    rows = lenses(read, context, n=count, per_round=60, seed=1)
    cut = [row for row in rows if row["cut"]]
    measured = {
        "stars": {"on_the_plain_locus": int(stars.sum()), "stay": stay},
        "tile": {
            "sources": len(found.sources.sources),
            "candidates": len(found.candidates.sources),
            "cut_as_stars": found.n_star_cut,
            "galaxies_expected_among_them": round(found.n_galaxy_cut, 1),
        },
        "hosts": len(hosts_of(found, read)),
        "lenses": {
            "painted": len(rows),
            "found": sum(bool(row["found"]) for row in rows),
            "cut_as_stars": len(cut),
            "smallest_radius_arcsec": round(min(r["radius_after_arcsec"] for r in rows if r["found"]), 3),
        },
        "cut": cut,
    }
    aims = [
        record.at_most("painted lenses cut as stars", len(cut), 0),
        record.at_most("stars on the plain locus that stay", stay, 3),
    ]
    record.write("star_cut", measured, aims=aims, keep=keep)


if __name__ == "__main__":
    main()
