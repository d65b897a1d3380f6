"""What a run knows of its inputs: zero-points and who states them, grids, sentinels, and whether tiles agree."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import cKDTree

from lenspipe.catalog.magnitudes import PAIRS_MIN, SAME_SOURCE_ARCSEC, WARN_MAG
from lenspipe.survey.flux import FluxScale
from lenspipe.survey.read import TileFacts
from lenspipe.tables import open_parquet

MAX_ROWS = 2_000_000
SHOWN = 3


def input_columns(facts: TileFacts, bands: tuple[str, ...], n_sentinel: tuple[int, ...]) -> dict[str, object]:
    """Columns of a shard's row about its tile's inputs."""
    values: dict[str, object] = {}
    for band, sentinel in zip(bands, n_sentinel, strict=True):
        flux = facts.flux[band]
        values[f"zero_point_{band}_ab"] = flux.zero_point_ab
        values[f"zero_point_source_{band}"] = flux.source
        values[f"bunit_{band}"] = flux.bunit
        values[f"grid_shift_{band}_px"] = facts.grid_shift_px[band]
        values[f"sentinel_{band}_px"] = sentinel
    return values


def flux_scales(shards: pa.Table, bands: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """
    Zero-points by band, with their source, BUNIT and the number of tiles, the most frequent first.

    Parameters
    ----------
    shards : pa.Table
        Rows of ``shards.parquet``.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for band in bands:
        names = ["tile", f"zero_point_{band}_ab", f"zero_point_source_{band}", f"bunit_{band}"]
        told = shards.select(names).group_by(names, use_threads=False).aggregate([]).select(names)
        rows = {tuple(row.values()) for row in told.to_pylist() if row[names[1]] is not None}
        found[band] = counted([FluxScale(1.0, row[1], row[2], row[3]) for row in sorted(rows)])
    return found


def counted(scales: list[FluxScale]) -> list[dict[str, Any]]:
    """Flux scales of tiles, one per tile, as zero-point, source and BUNIT with the number of tiles."""
    count = Counter((scale.zero_point_ab, scale.source, scale.bunit) for scale in scales)
    keys = ("zero_point_ab", "source", "bunit", "tiles")
    return [dict(zip(keys, (*key, n), strict=True)) for key, n in sorted(count.items(), key=lambda item: -item[1])]


def flux_line(band: str, scales: list[dict[str, Any]]) -> str:
    """
    One line on a band's zero-points.

    Examples
    --------
    >>> flux_line("g", [{"zero_point_ab": 30.0, "source": "keyword MAGZERO", "bunit": "adu", "tiles": 4}])
    'g: 30.000 AB (keyword MAGZERO, BUNIT adu)'
    """
    if not scales:
        return f"{band}: none"
    values = [scale["zero_point_ab"] for scale in scales]
    said = Counter()  # type: Counter[str]
    for scale in scales:
        unit = "" if scale["source"].startswith("BUNIT") else f", BUNIT {scale['bunit'] or 'not given'}"
        said[f"{scale['source']}{unit}"] += scale["tiles"]
    sources = [name if len(said) == 1 else f"{name}: {n} tiles" for name, n in said.most_common(SHOWN)]
    if len(said) > SHOWN:
        sources.append(f"and {len(said) - SHOWN} more")
    span = f"{min(values):z.3f}" if max(values) - min(values) < 5e-4 else f"{min(values):z.3f} to {max(values):z.3f}"
    return f"{band}: {span} AB ({'; '.join(sources)})"


def input_lines(shards: pa.Table, bands: tuple[str, ...]) -> list[str]:
    """What else a reader should know: sub-pixel shifts of bands and pixels that held a number in place of no data."""
    lines = []
    for band in bands:
        shift = shards[f"grid_shift_{band}_px"].to_numpy(zero_copy_only=False).astype(float)
        if np.nanmax(shift, initial=0.0) > 0.01:
            lines.append(
                f"band {band} lies up to {np.nanmax(shift):.2f} px off the first band's grid; it is not resampled"
            )
        sentinel = int(np.nansum(shards[f"sentinel_{band}_px"].to_numpy(zero_copy_only=False).astype(float)))
        if sentinel:
            lines.append(f"{sentinel} pixels of band {band} held a number in place of no data (-999, 1e30 ...): masked")
    return lines


def stage_rates(shards: pa.Table, bands: tuple[str, ...]) -> dict[str, Any]:
    """
    What the stages of a scan took in its workers, and their rates.

    Parameters
    ----------
    shards : pa.Table
        Rows of ``shards.parquet``.

    Returns
    -------
    dict
        Seconds of all workers together to read, to detect and to score; pixels of the cores, counted in each band, per
        second of the first two; candidates per second of the last. None where nothing was done. On a CPU a worker
        computes in one thread; loading its models is not counted.
    """
    seconds = {name: float(pc.sum(shards[name]).as_py() or 0.0) for name in ("read_s", "detect_s", "score_s")}
    ok = shards.filter(pc.equal(shards["status"], "ok"))
    side = [
        pc.subtract(pc.cast(ok[f"{axis}1_px"], pa.int64()), pc.cast(ok[f"{axis}0_px"], pa.int64())) for axis in "xy"
    ]
    pixels = (pc.sum(pc.multiply(*side)).as_py() or 0) * len(bands)
    scored = pc.sum(ok.filter(pc.greater(ok["score_s"], 0))["n_candidate"]).as_py() or 0
    return {
        **{name: round(value, 3) for name, value in seconds.items()},
        "read_px_per_s": round(pixels / seconds["read_s"]) if seconds["read_s"] else None,
        "detect_px_per_s": round(pixels / seconds["detect_s"]) if seconds["detect_s"] else None,
        "scored_per_s": round(scored / seconds["score_s"], 2) if seconds["score_s"] else None,
    }


def overlap_differences(candidates: Path, bands: tuple[str, ...]) -> dict[str, Any]:
    """
    Differences of magnitudes of sources that two tiles both have.

    Returns
    -------
    dict
        By band ``n`` pairs, ``median`` difference, and ``worst``: the pair of tiles with the largest median difference
        among those that share `PAIRS_MIN` sources or more, with that difference. Empty without overlaps, and where
        there are more than `MAX_ROWS` candidates.
    """
    file = open_parquet(candidates)
    if not 1 < file.metadata.num_rows <= MAX_ROWS:
        return {}
    table = file.read(columns=["ra", "dec", "tile", *(f"mag_{band}" for band in bands)])
    names, tile = np.unique(np.array(table["tile"].to_pylist(), str), return_inverse=True)
    if len(names) < 2:
        return {}
    ra, dec = (np.radians(table[name].to_numpy()) for name in ("ra", "dec"))
    sky = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    pairs = cKDTree(sky).query_pairs(np.radians(SAME_SOURCE_ARCSEC / 3600), output_type="ndarray")
    pairs = pairs[tile[pairs[:, 0]] != tile[pairs[:, 1]]]
    swap = tile[pairs[:, 0]] > tile[pairs[:, 1]]
    pairs[swap] = pairs[swap][:, ::-1]
    found: dict[str, Any] = {}
    for band in bands:
        mag = table[f"mag_{band}"].to_numpy(zero_copy_only=False).astype(float)
        difference = mag[pairs[:, 0]] - mag[pairs[:, 1]]
        good = np.isfinite(difference)
        if good.sum() < PAIRS_MIN:
            continue
        which = tile[pairs[good]]
        worst: tuple[float, Any] = (0.0, None)
        for one in np.unique(which, axis=0):
            both = difference[good][(which == one).all(axis=1)]
            if len(both) >= PAIRS_MIN and abs(np.median(both)) >= abs(worst[0]):
                worst = (float(np.median(both)), [str(names[k]) for k in one])
        found[band] = {
            "n": int(good.sum()),
            "median_mag": float(np.median(difference[good])),
            "worst_mag": worst[0],
            "worst_tiles": worst[1],
        }
    return found


def overlap_lines(differences: dict[str, Any]) -> list[str]:
    """One line per band with overlapping tiles; a warning where two of them disagree."""
    lines = []
    for band, row in differences.items():
        text = f"overlapping tiles differ by {row['median_mag']:+.3f} mag in {band} (median of {row['n']} sources)"
        if row["worst_tiles"] and abs(row["worst_mag"]) > WARN_MAG:
            text = (
                f"WARNING: {' and '.join(row['worst_tiles'])} differ by {row['worst_mag']:+.2f} mag in {band}: "
                f"one of their zero-points is wrong. {text}"
            )
        lines.append(text)
    return lines
