"""The table of injections: truth, what was detected and selected, the score, and why a lens was lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lenspipe.catalog.run_rows import Run
from lenspipe.completeness.paint import RECOVERED
from lenspipe.completeness.passes import home_and_pass
from lenspipe.scan.after.known import NOT_SELECTED
from lenspipe.scan.context import ShardTask
from lenspipe.scan.ledger import counted_shards, iter_counted, part_files
from lenspipe.scan.rows import noted
from lenspipe.schema import field

NO_SCORE = "no score"
"""A candidate that the finder was not shown."""


def injections_schema(bands: Sequence[str]) -> pa.Schema:
    """Columns of ``injections.parquet``."""
    angle, per = "phys.angSize", {"arc_mag": "lensed images", "source_mag": "source, unlensed", "host_mag": "host"}
    return pa.schema(
        [
            field("injection_id", pa.string(), "Identifier: place and pass", ucd="meta.id;meta.main"),
            field("kind", pa.string(), "host: arcs on a galaxy of the tile; sky: a whole lens on empty sky"),
            field("tile", pa.string(), "Tile", ucd="meta.id;obs.field"),
            field("shard_id", pa.string(), "Shard of the run", ucd="meta.id"),
            field("pass", pa.string(), "Pass in which it was painted", ucd="meta.id"),
            field("host_id", pa.string(), "Galaxy that lenses; rows of one are not independent", ucd="meta.id"),
            field("ra", pa.float64(), "Right ascension, ICRS", unit="deg", ucd="pos.eq.ra;meta.main"),
            field("dec", pa.float64(), "Declination, ICRS", unit="deg", ucd="pos.eq.dec;meta.main"),
            field("x_px", pa.float64(), "Column in the full tile, 0-based", unit="pix", ucd="pos.cartesian.x"),
            field("y_px", pa.float64(), "Row in the full tile, 0-based", unit="pix", ucd="pos.cartesian.y"),
            field("theta_e_arcsec", pa.float64(), "Einstein radius", unit="arcsec", ucd=angle),
            field("arc_snr", pa.float64(), "Signal-to-noise of the arcs in the finder's bands", ucd="stat.snr"),
            field("magnification", pa.float64(), "Total magnification"),
            field("n_image", pa.int32(), "Images of the source's centre", ucd="meta.number"),
            field("shear", pa.float64(), "External shear"),
            field("shear_angle_rad", pa.float64(), "Its angle from +x", unit="rad", ucd="pos.posAng"),
            field("source_z", pa.float64(), "Redshift of the source", ucd="src.redshift"),
            *(
                field(f"{what}_{band}", pa.float64(), f"AB magnitude in {band}, {text}", unit="mag", ucd="phot.mag")
                for what, text in per.items()
                for band in bands
            ),
            field("host_axis_ratio", pa.float64(), "Axis ratio of the host"),
            field(
                "host_half_light_radius_arcsec", pa.float64(), "Half-light radius of the host", unit="arcsec", ucd=angle
            ),
            *(
                field(f"psf_fwhm_{band}_arcsec", pa.float64(), f"FWHM of the PSF in {band}", unit="arcsec", ucd=angle)
                for band in bands
            ),
            *(
                field(f"depth_{band}_mag", pa.float64(), f"5 sigma in a 2 arcsec aperture in {band}, AB", unit="mag")
                for band in bands
            ),
            field("detected", pa.bool_(), "Whether a source was found within the match radius"),
            field("selected", pa.bool_(), "Whether a candidate was"),
            field("candidate_id", pa.string(), "The best candidate; empty without one", ucd="meta.id"),
            field("score", pa.float64(), "Its raw score; null without one", ucd="stat.value"),
            field("fate", pa.string(), "a candidate, or why it was lost", ucd="meta.code"),
        ],
        metadata={"lenspipe.table": "injections", "lenspipe.schema": "1"},
    )


def iter_noted(parts: Path, columns: Sequence[str] = ("shard_id",)) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Rows of a ledger that count, each with its note; in order of the shards."""
    for table in iter_counted(part_files(parts), columns=[*columns, "noted"]):
        for i, note in noted(table):
            yield {name: table[name][i].as_py() for name in columns}, note


def injections_of(
    parts: Path, tasks: Sequence[ShardTask], run: Run, psf_fwhm_arcsec: Mapping[str, Mapping[str, float]]
) -> pa.Table:
    """
    All injections of the painted passes, sorted by tile, pass and identifier.

    Raises
    ------
    RuntimeError
        A pass of a shard is not in the ledger.
    """
    wanted = {task.shard.shard_id for task in tasks}
    if missing := wanted - counted_shards(parts):
        raise RuntimeError(f"{len(missing)} passes have no row in the ledger, the first is {min(missing)}")
    shards = {row["shard_id"]: row for row in run.shards.to_pylist()}
    schema = injections_schema(run.bands)
    rows: list[dict[str, Any]] = []
    for row, note in iter_noted(parts, ("shard_id", "candidates")):
        if row["shard_id"] not in wanted:
            continue
        home, name = home_and_pass(row["shard_id"])
        by_id = {c["candidate_id"]: c for c in row["candidates"]}
        known = {
            "shard_id": home,
            "pass": name,
            **{f"depth_{band}_mag": shards[home][f"depth_{band}_mag"] for band in run.bands},
        }
        for injection in note.to_pylist():
            near = [by_id[f"{row['shard_id']}_n{k}"] for k in injection["candidates"]]
            psf = psf_fwhm_arcsec[injection["tile"]]
            rows.append(
                injection
                | known
                | {f"psf_fwhm_{band}_arcsec": psf[band] for band in run.bands}
                | _outcome(injection["fate"], near)
            )
    rows.sort(key=lambda r: (r["tile"], r["pass"], r["injection_id"]))
    return pa.Table.from_pylist([{f.name: r[f.name] for f in schema} for r in rows], schema)


def _outcome(fate: str, near: list[dict[str, Any]]) -> dict[str, Any]:
    best = max(near, key=lambda c: -np.inf if c["score"] is None else c["score"], default=None)
    score = best["score"] if best else None
    return {
        "detected": fate in (RECOVERED, NOT_SELECTED),
        "selected": bool(near),
        "candidate_id": best["candidate_id"] if best else "",
        "score": score,
        "fate": NO_SCORE if near and score is None else fate,
    }
