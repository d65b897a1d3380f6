"""Where lenses can be painted: hosts and empty sky that a look at the bare tile finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lenspipe.completeness.light import lift_light
from lenspipe.completeness.passes import home_and_pass
from lenspipe.completeness.quantities import HOST, SKY
from lenspipe.completeness.seeds import rng_of, share_of
from lenspipe.image.cutouts import extract_cutouts
from lenspipe.image.photometry import ab_magnitude
from lenspipe.scan.hosts import HostCuts, is_host
from lenspipe.scan.read import ReadShard
from lenspipe.scan.search import Found
from lenspipe.sky.wcs import sky_position
from lenspipe.survey.shards import Box

LIGHT_ARCSEC = 24.0
"""Side of the stamps that hold a host's light."""
N_SKY = 3
"""Empty places that are offered for each one that is asked for."""


@dataclasses.dataclass(frozen=True)
class HostChoice:
    """Which candidates may be hosts, and the bands that their magnitude and colour are of."""

    band: str
    """Of the magnitude."""
    colour: tuple[str, str] | None
    """Blue and red band; None in a survey of one band."""
    cuts: HostCuts
    said: str = ""
    """How the colour of hosts was chosen, in words."""


def places_schema(bands: Sequence[str]) -> pa.Schema:
    """Columns of places; all but position and kind are of hosts alone."""
    return pa.schema(
        [
            pa.field("place_id", pa.string()),
            pa.field("kind", pa.string()),
            pa.field("tile", pa.string()),
            pa.field("shard_id", pa.string()),
            pa.field("x_px", pa.float64()),
            pa.field("y_px", pa.float64()),
            pa.field("ra", pa.float64()),
            pa.field("dec", pa.float64()),
            pa.field("axis_ratio", pa.float64()),
            pa.field("angle_deg", pa.float64()),
            pa.field("half_light_radius_arcsec", pa.float64()),
            *(pa.field(f"mag_{band}", pa.float64()) for band in bands),
            pa.field("light_side_px", pa.int32()),
            pa.field("light", pa.large_binary()),
            pa.field("stamp", pa.large_binary()),
        ]
    )


def find_places(
    read: ReadShard,
    found: Found,
    choice: HostChoice,
    *,
    seed: int,
    n_sky: int,
    clear_arcsec: float,
    light_share: float,
    stamp_share: float,
    stamp_bands: Sequence[str],
    stamp_px: int,
) -> tuple[pa.Table, NDArray[np.bool_]]:
    """
    Hosts and empty places in the core of a shard that nothing was painted into.

    Parameters
    ----------
    read : ReadShard
    found : Found
        What the search finds in it.
    choice : HostChoice
    seed : int
    n_sky : int
        Empty places that are wanted; `N_SKY` times as many are offered.
    clear_arcsec : float
        Distance of an empty place from every source, and of a host from the next one.
    light_share, stamp_share : float
        Part of the hosts whose light, and whose stamp, is kept.
    stamp_bands, stamp_px
        Of the stamps that the realism gate compares.

    Returns
    -------
    places : pa.Table
        `places_schema` of the tile's bands; positions in pixels of the tile.
    is_host : array (n_candidate,)
    """
    shard, scale, bands = read.task.shard, read.facts.pixel_scale_arcsec, read.pixels.bands
    window, core, flat = shard.window, shard.core, found.flat
    candidates, all_px = found.candidates, np.stack([found.sources.sources.x_px, found.sources.sources.y_px], axis=1)
    mag = {band: ab_magnitude(candidates.flux_njy[b]) for b, band in enumerate(bands)}
    is_host = _hosts(found, choice, mag, all_px, scale, clear_arcsec)
    rows: list[dict[str, object]] = []
    home, _ = home_and_pass(shard.shard_id)
    side = 2 * int(np.ceil(LIGHT_ARCSEC / 2 / scale)) + 1
    rms = np.array([np.nan if value is None else value for value in flat.median_rms])
    wanted = [bands.index(band) for band in stamp_bands]
    for k in np.flatnonzero(is_host):
        x, y = float(candidates.sources.x_px[k]), float(candidates.sources.y_px[k])
        place = f"{home}_n{candidates.index[k]}"
        angle = float(candidates.sources.theta_rad[k])
        axis_ratio = float(candidates.sources.b_px[k] / candidates.sources.a_px[k])
        row: dict[str, object] = {
            "place_id": place,
            "kind": HOST,
            "x_px": x + window.x0,
            "y_px": y + window.y0,
            "axis_ratio": axis_ratio,
            "angle_deg": float(np.degrees(angle)),
            "half_light_radius_arcsec": float(candidates.apertures.half_light_radius_px[k] * scale),
            **{f"mag_{band}": float(mag[band][k]) for band in bands},
        }
        at = np.array([x]), np.array([y])
        if share_of(seed, "light", place) < light_share and np.isfinite(rms).all():
            cut, covered = extract_cutouts(flat.image, flat.mask, *at, size_px=side)
            if covered[0] > 0.99:
                middle = side // 2 + x - np.floor(x + 0.5), side // 2 + y - np.floor(y + 0.5)
                light = lift_light(cut[0], rms, *middle, axis_ratio=axis_ratio, angle_rad=angle)
                row |= {"light_side_px": side, "light": light.astype("<f4").tobytes()}
        if share_of(seed, "stamp", place) < stamp_share:
            stamp, _ = extract_cutouts(flat.image, flat.mask, *at, size_px=stamp_px)
            row["stamp"] = stamp[0, wanted].astype("<f4").tobytes()
        rows.append(row)
    rng = rng_of(seed, "sky", shard.shard_id)
    empty = _empty_px(rng, all_px, flat.mask, window=window, core=core, n=N_SKY * n_sky, clear_px=clear_arcsec / scale)
    rows += [
        {"place_id": f"{home}_sky{k}", "kind": SKY, "x_px": float(x + window.x0), "y_px": float(y + window.y0)}
        for k, (x, y) in enumerate(empty)
    ]
    ra, dec = sky_position(
        read.facts.wcs, np.array([row["x_px"] for row in rows], float), np.array([row["y_px"] for row in rows], float)
    )
    for row, one, other in zip(rows, ra, dec, strict=True):
        row |= {"tile": shard.tile, "shard_id": home, "ra": float(one), "dec": float(other)}
    return pa.Table.from_pylist(rows, places_schema(bands)), is_host


def _empty_px(
    rng: np.random.Generator,
    sources_px: NDArray[np.float64],
    mask: NDArray[np.bool_],
    *,
    window: Box,
    core: Box,
    n: int,
    clear_px: float,
) -> list[NDArray[np.float64]]:
    """Places in the core, in pixels of the window, without a source or a bad pixel around them; ``n`` at most."""
    bad = np.asarray(mask.any(axis=0))
    margin = int(np.ceil(clear_px))
    # sources beyond the core are not in the list, so its rim is left out
    low = np.array([core.x0 - window.x0, core.y0 - window.y0]) + margin
    high = np.array([core.x1 - window.x0, core.y1 - window.y0]) - margin - 1
    empty: list[NDArray[np.float64]] = []
    if not (high > low).all() or not n:
        return empty
    tree = cKDTree(sources_px) if len(sources_px) else None
    for xy in rng.uniform(low, high, (20 * n, 2)):
        if len(empty) == n:
            break
        column, row = np.floor(xy + 0.5).astype(int)
        box = np.s_[row - margin : row + margin + 1, column - margin : column + margin + 1]
        if (tree is None or tree.query(xy)[0] >= clear_px) and not np.any(bad[box]):
            empty.append(xy)
    return empty


def _hosts(
    found: Found,
    choice: HostChoice,
    mag: dict[str, NDArray[np.float64]],
    all_px: NDArray[np.float64],
    scale: float,
    clear_arcsec: float,
) -> NDArray[np.bool_]:
    of = found.candidates
    keep = is_host(
        mag[choice.band],
        mag[choice.colour[0]] - mag[choice.colour[1]] if choice.colour else None,
        of.apertures.half_light_radius_px * scale,
        of.sources.b_px / of.sources.a_px,
        of.flags,
        of.apertures.mask_fraction,
        choice.cuts,
    )
    for k in np.flatnonzero(keep):
        apart = np.hypot(all_px[:, 0] - of.sources.x_px[k], all_px[:, 1] - of.sources.y_px[k]) * scale
        keep[k] = (apart < clear_arcsec / 2).sum() <= 1
    return keep
