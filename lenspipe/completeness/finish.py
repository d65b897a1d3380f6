"""From the table of injections to the selection function, its files and its page."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lenspipe.catalog.footprint import footprint, write_footprint
from lenspipe.catalog.run_rows import Run
from lenspipe.catalog.votable import write_fits
from lenspipe.completeness.cells import cells_table
from lenspipe.completeness.config import CompletenessConfig
from lenspipe.completeness.page import write_page
from lenspipe.completeness.passes import BARE, PAINTED
from lenspipe.completeness.prior import measured_prior
from lenspipe.completeness.quantities import HOST, ranges_of
from lenspipe.completeness.realism import Stamps, gate, open_network, real_lenses, stamps_of
from lenspipe.completeness.run import Painted
from lenspipe.completeness.selection import OF_LENSES, OF_PAINTED, SELECTION, Selection, binned, fit_selection, read
from lenspipe.completeness.table import iter_noted
from lenspipe.rundir import atomic_path, utc_now, versions, write_json
from lenspipe.runner import Progress
from lenspipe.scan.after.context import context_of
from lenspipe.schema import field
from lenspipe.stamps.format import StampSet
from lenspipe.tables import write_table

BINNED, SMOOTH, FOOTPRINT = "binned", "smooth", "footprint.fits"
N_GRID = 20


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was written."""

    selection: Selection
    gate: dict[str, Any]
    notes: tuple[str, ...]
    rows: list[dict[str, Any]]
    """Of ``binned.parquet``."""


def finish(
    painted: Painted,
    run: Run,
    config: CompletenessConfig,
    *,
    band: str,
    colour: tuple[str, str] | None,
    models: Sequence[Path],
    device: str,
    stamp_px: Mapping[str, int],
    scale_arcsec: Mapping[str, float],
    real: Path | None,
    seed: int,
    progress: Progress,
) -> Outcome:
    """
    Fit, run the realism gate, and write everything.

    Parameters
    ----------
    painted : Painted
    run : Run
    config : CompletenessConfig
    band : str
        Of magnitudes, seeing and depth.
    colour : (str, str) or None
        Bands of the host's colour.
    models : sequence of Path
        Checkpoints of the finder; the first one's features are used by the gate.
    device : str
    stamp_px, scale_arcsec : mapping
        Of the gate's stamps, by tile.
    real : Path or None
        Data set of labelled stamps with real lenses.
    seed : int
    progress : Progress

    Raises
    ------
    ConfigError
        The real stamps do not fit.
    """
    folder, injections = painted.folder, painted.injections
    lenses = real_lenses(StampSet.open(real), painted.finder.demands) if real is not None else None
    points = list(painted.points)
    progress.stage("fit", len(points))
    fits, values, used = fit_selection(
        injections, points, band=band, colour=colour, n_bootstrap=config.bootstraps, seed=seed
    )
    progress.advance(len(points))
    progress.stage("realism", 1)
    kept = _gate_stamps(folder, painted, stamp_px, scale_arcsec)
    judged = gate(
        open_network(models[0], device) if models else None,
        kept["bare"][HOST],
        kept["without_arcs"],
        kept["stamp"],
        lenses,
        bands=painted.finder.demands,
        limit=config.gate_auc,
        seed=seed,
    )
    progress.advance()
    what = OF_LENSES if judged["passed"] else OF_PAINTED
    cells = cells_table(
        injections, points, area_deg2=float(np.nansum(run.shards["area_deg2"].to_numpy())), band=band, colour=colour
    )
    prior = measured_prior(
        injections,
        context_of(run).layout,
        area_deg2=float(np.nansum(run.shards["area_deg2"].to_numpy())) * painted.area_part,
        n_candidate=len(painted.scores),
    )
    rows = [row for point in points for row in binned(injections, point, band=band, colour=colour)]
    facts = {"what": what, "realism": judged["why"], "run": run.run_id, "finder": painted.finder.name}
    _write(folder, "healpix", cells, facts)
    _write(folder, BINNED, _binned_table(rows), facts)
    _write_fits(folder / "injections.fits", injections, "injections", facts)
    write_footprint(footprint(run.shards), folder / FOOTPRINT)
    record = {
        "what": what,
        "created": utc_now(),
        "versions": versions(),
        "run": {"folder": str(run.home), "run_id": run.run_id},
        "finder": {"name": painted.finder.name, "digest": painted.finder.digest},
        "band": band,
        "colour": list(colour) if colour else None,
        "points": [dataclasses.asdict(point) for point in points],
        "realism": judged,
        "prior": prior,
        "ranges": {name: list(ends) for name, ends in ranges_of(values).items()},
        "counts": _counts(injections),
        "left_out_of_fit": int((~used).sum()),
        "notes": list(painted.notes),
        "config": config.model_dump(mode="json"),
        "seconds": {k: round(v, 3) for k, v in painted.seconds.items()},
        "fits": {point: {name: fit.to_json() for name, fit in both.items()} for point, both in fits.items()},
    }
    write_json(folder / SELECTION, record)
    selection = read(folder)
    _write(folder, SMOOTH, smooth_table(selection), facts)
    write_page(folder, selection, rows, cells, judged, kept["stamp"], injections, painted.finder.demands)
    return Outcome(selection, judged, painted.notes, rows)


def _gate_stamps(
    folder: Path, painted: Painted, stamp_px: Mapping[str, int], scale_arcsec: Mapping[str, float]
) -> dict[str, dict[str, Stamps]]:
    """Stamps that were kept, by what they show and by kind; those of the commonest size."""
    sizes = list(stamp_px.values())
    side = max(set(sizes), key=sizes.count)
    scale = float(np.median([s for tile, s in scale_arcsec.items() if stamp_px[tile] == side]))
    n_band = len(painted.finder.demands)
    found: dict[str, dict[str, list[Stamps]]] = {"bare": {}, "stamp": {}, "without_arcs": {}}
    for parts, shows, host, name in (
        (BARE, {"stamp": "bare"}, "place_id", "place_id"),
        (PAINTED, {"stamp": "stamp", "without_arcs": "without_arcs"}, "host_id", "injection_id"),
    ):
        for _, note in iter_noted(folder / parts):
            kinds = np.array(note["kind"].to_pylist())
            for kind in sorted(set(kinds)):
                rows = note.filter(pa.array(kinds == kind))
                for column, what in shows.items():
                    stamps = stamps_of(
                        rows, column, host=host, name=name, n_band=n_band, stamp_px=side, pixel_scale_arcsec=scale
                    )
                    found[what].setdefault(str(kind), []).append(stamps)
    empty = Stamps(np.empty((0, n_band, side, side), np.float32), np.array([], str), np.array([], str), scale)
    joined = {what: {kind: _join(parts) for kind, parts in sorted(of.items())} for what, of in found.items()}
    joined["bare"].setdefault(HOST, empty)
    return joined


def _join(parts: Sequence[Stamps]) -> Stamps:
    return Stamps(
        np.concatenate([part.pixels_njy for part in parts]),
        np.concatenate([part.host for part in parts]),
        np.concatenate([part.name for part in parts]),
        parts[0].pixel_scale_arcsec,
    )


def _counts(injections: pa.Table) -> dict[str, Any]:
    kind, fate = np.array(injections["kind"].to_pylist()), np.array(injections["fate"].to_pylist())
    return {
        str(k): {
            "n": int((kind == k).sum()),
            **{str(f): int(((kind == k) & (fate == f)).sum()) for f in sorted(set(fate))},
        }
        for k in sorted(set(kind))
    }


def _binned_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    schema = pa.schema(
        [
            field("at", pa.string(), "Operating point"),
            field("kind", pa.string(), "host, sky, or both"),
            field("quantity", pa.string(), "Quantity of the bin; all for the whole sample"),
            field("low", pa.float64(), "Lower edge, in the quantity's unit"),
            field("high", pa.float64(), "Upper edge"),
            field("n", pa.int64(), "Lenses painted", ucd="meta.number"),
            field("k", pa.int64(), "Lenses recovered", ucd="meta.number"),
            field("completeness", pa.float64(), "Part of them that was recovered"),
            field("completeness_low", pa.float64(), "Lower end of its 95 % interval (Clopper-Pearson)"),
            field("completeness_high", pa.float64(), "Upper end"),
        ]
    )
    return pa.Table.from_pylist(
        [
            {
                **{name: row[name] for name in ("at", "kind", "quantity", "low", "high", "n", "k")},
                "completeness": row["value"],
                "completeness_low": row["interval95"][0],
                "completeness_high": row["interval95"][1],
            }
            for row in rows
        ],
        schema,
    )


def smooth_table(selection: Selection) -> pa.Table:
    """
    The smooth function on a grid of Einstein radius and signal-to-noise, the other quantities averaged: of both kinds
    together, and of each where the fits tell them apart.
    """
    theta, snr = (np.geomspace(*selection.ranges[name], N_GRID) for name in ("theta_e_arcsec", "arc_snr"))
    grid = [
        axis.ravel()
        for axis in np.meshgrid(theta.clip(*selection.ranges["theta_e_arcsec"]), snr.clip(*selection.ranges["arc_snr"]))
    ]
    schema = pa.schema(
        [
            field("at", pa.string(), "Operating point"),
            field("kind", pa.string(), "host, sky, or both"),
            field("theta_e_arcsec", pa.float64(), "Einstein radius", unit="arcsec", ucd="phys.angSize"),
            field("arc_snr", pa.float64(), "Signal-to-noise of the arcs in the finder's bands", ucd="stat.snr"),
            field("completeness", pa.float64(), "Smooth fit, averaged over the other quantities as injected"),
            field("completeness_low", pa.float64(), "Lower end of its 95 % interval"),
            field("completeness_high", pa.float64(), "Upper end"),
        ]
    )
    tables = []
    for point, kind in itertools.product(selection.points, (None, *selection.kinds_told)):
        said = selection(at=point.name, kind=kind, theta_e_arcsec=grid[0], arc_snr=grid[1])
        named = [np.full(len(grid[0]), name) for name in (point.name, kind or "both")]
        columns = [*named, *grid, said.completeness, said.low, said.high]
        tables.append(pa.table([pa.array(c) for c in columns], schema=schema))
    return pa.concat_tables(tables)


def _write(folder: Path, name: str, table: pa.Table, facts: Mapping[str, str]) -> None:
    about = {f"lenspipe.{key}": value for key, value in facts.items()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **about})
    with atomic_path(folder / f"{name}.parquet") as path:
        write_table(table, path)
    _write_fits(folder / f"{name}.fits", table, name, facts)


def _write_fits(file: Path, table: pa.Table, name: str, facts: Mapping[str, str]) -> None:
    flat = [f.with_type(pa.int32()) if pa.types.is_boolean(f.type) else f for f in table.schema]
    with atomic_path(file) as path:
        write_fits(table.cast(pa.schema(flat)), path, name=name, facts=dict(facts))
