"""What `lenspipe scan` prints when it is through: counts, the ten best, where the files are."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from lenspipe.distributed.choice import choose, said_time
from lenspipe.errors import TileError
from lenspipe.image.psf_table import PSF_FILE
from lenspipe.rundir import read_json
from lenspipe.runner import RunnerName, Workers
from lenspipe.scan.after.best import SAME_SOURCE_ARCSEC, best_candidates
from lenspipe.scan.after.catalog import FOLDER as CATALOGUE
from lenspipe.scan.after.sheet import SHEET
from lenspipe.scan.familiarity import familiarity_line
from lenspipe.scan.finalize import CANDIDATES, FAILED, SHARDS
from lenspipe.scan.models import check_tiles, choose_readers
from lenspipe.scan.plan import plain_s, plan_tiles, tasks_of
from lenspipe.scan.prior import prior_line
from lenspipe.scan.provenance import counted, flux_line, overlap_lines
from lenspipe.scan.request import ScanRequest, expected_candidates, find_tiles, overlooked
from lenspipe.scan.run import RUN, ScanResult
from lenspipe.scan.stars import star_lines
from lenspipe.survey.files import size_bytes
from lenspipe.survey.read import TileFacts, read_facts
from lenspipe.survey.tile import Tile
from lenspipe.tables import read_parquet

BEST = 10
SHOWN_FAILURES = 10
SHOWN_FACTS = 100
NOT_A_TERMINAL_COLUMNS = 120


def print_result(result: ScanResult, request: ScanRequest) -> None:
    """Print totals, failures, the ten best candidates and the files."""
    console = _console()
    totals, seconds = result.totals, result.seconds
    table = Table(title="Scan", title_justify="left", show_header=False)
    scan_s = seconds.get("scan", 0.0)
    for name, value in {
        "tiles": f"{totals.tiles}",
        "shards": f"{totals.shards_ok} ok of {totals.shards}",
        "area searched": f"{totals.area_deg2:.5f} deg2",
        "sources measured": f"{totals.sources}",
        "candidates": f"{totals.candidates}, {totals.scored} scored"
        + (f" by {result.model.name} ({result.model.digest})" if result.model else ""),
        "failures": f"{totals.failures}",
        "time": f"{seconds['total']:.1f} s (start {seconds.get('start', 0):.1f}, scan {scan_s:.1f})"
        + (f"; {totals.sources / scan_s:.0f} sources/s" if scan_s and totals.sources else ""),
    }.items():
        table.add_row(name, value)
    console.print(table)
    if totals.failures:
        _print_failures(console, result.folder)
    if totals.scored:
        _print_best(console, result.folder)
    unscored = totals.candidates - totals.scored
    if result.model and unscored:
        console.print(
            f"{unscored} candidates have no score: the bands or the pixel scale of their tile do not fit "
            f"{result.model.name}, or one of its bands is masked there."
        )
    familiar = read_json(result.folder / RUN).get("familiarity")
    if familiar and (line := familiarity_line(familiar)):
        console.print(line)
    _print_inputs(console, result.folder)
    if request.config.zero_point_ab is not None:
        console.print(f"Assumed: zero-point {request.config.zero_point_ab} AB for images that state none.")
    for file, what in (
        (CANDIDATES, "one row per candidate, best first"),
        (SHEET, "picture of the best"),
        (SHARDS, "what was searched, one row per shard"),
        (PSF_FILE, "the PSF of each shard and band, from its stars"),
        (FAILED, "what could not be searched, and why"),
        (RUN, "config, versions, inputs, counts, timings"),
    ):
        if (result.folder / file).exists():
            console.print(f"{result.folder / file}  {what}", soft_wrap=True, highlight=False)


def _print_inputs(console: Console, folder: Path) -> None:
    record = read_json(folder / RUN)
    for band, scales in record["zero_points"].items():
        console.print(f"Zero-point {flux_line(band, scales)}", markup=False, soft_wrap=True, highlight=False)
    stated = record["probability"]
    if record["model"] is not None:
        console.print(f"Probability {prior_line(stated)}", markup=False, soft_wrap=True, highlight=False)
    stars = star_lines(record["stars"], star_cut=record["request"]["config"]["select"]["star_cut"])
    for line in (*stars, *overlap_lines(record["overlaps"]), *record["notes"]):
        console.print(f"Note: {line}", markup=False, soft_wrap=True, highlight=False)


def _print_failures(console: Console, folder: Path) -> None:
    table = Table(title="Failures", title_justify="left")
    for name in ("tile", "stage", "error", "message"):
        table.add_column(name, overflow="fold")
    rows = read_parquet(folder / FAILED).to_pylist()
    for row in rows[:SHOWN_FAILURES]:
        table.add_row(row["tile"], row["stage"], row["error_type"], row["message"])
    console.print(table)
    if len(rows) > SHOWN_FAILURES:
        console.print(f"... and {len(rows) - SHOWN_FAILURES} more in {folder / FAILED}")


def _print_best(console: Console, folder: Path) -> None:
    best = best_candidates(folder, BEST)
    table = Table(
        title=f"Best candidates; of those within {SAME_SOURCE_ARCSEC:g} arcsec the best one", title_justify="left"
    )
    magnitudes = [n for n in best.column_names if n.startswith("mag_") and not n.startswith("mag_err_")]
    for name in ("rank", "candidate_id", "score", "ra", "dec", *magnitudes, "r50 [arcsec]"):
        table.add_column(name, justify="left" if name == "candidate_id" else "right", overflow="fold")
    for row in best.to_pylist():
        table.add_row(
            _number(row["rank"], "d"),
            row["candidate_id"],
            _number(row["score"], ".4f"),
            f"{row['ra']:.6f}",
            f"{row['dec']:+.6f}",
            *(_number(row[m], ".2f") for m in magnitudes),
            _number(row["half_light_radius_arcsec"], ".2f"),
        )
    console.print(table)


def print_sample_truth(result: ScanResult) -> None:
    """Where the sample's injected lenses came out."""
    from lenspipe.scan.sample import ranks_of_truth

    console = _console()
    table = Table(title="Injected lenses of the sample, and their rank in the catalogue", title_justify="left")
    for name in ("lens", "theta_E [arcsec]", "arc S/N", "rank", "score"):
        table.add_column(name, justify="right")
    for row in ranks_of_truth(result.folder):
        rank = "not found" if row["rank"] is None else str(row["rank"])
        table.add_row(
            str(row["lens"]),
            f"{row['theta_e_arcsec']:.2f}",
            f"{row['arc_snr']:.0f}",
            rank,
            _number(row["score"], ".4f"),
        )
    console.print(table)


def print_sample_end(result: ScanResult) -> None:
    """Where the sample's page is, and what to do next."""
    from lenspipe.catalog.gallery.write import write_gallery

    run, catalogue = shlex.quote(str(result.folder)), result.folder / CATALOGUE
    page = write_gallery(catalogue, count=10_000, stamp_px=64, stamp_arcsec=12.0).index.absolute().as_uri()
    best = best_candidates(result.folder, 1)["candidate_id"][0].as_py()
    console = Console()
    console.print(f"\nThe page of the candidates, to look at and grade: [link={page}]{page}[/link]", soft_wrap=True)
    _print_next(
        ("lenspipe scan 'tiles/*.fits' --survey NAME --out run1", "your own tiles"),
        (f"lenspipe explain {best} --run {run}", "bring the best candidate back from its tile, bit for bit"),
        (f"lenspipe completeness {run} --model ground-gri --count 60 --out sel", "what does the finder miss?"),
    )


def print_end(result: ScanResult) -> None:
    """What to do with a catalogue."""
    run = shlex.quote(str(result.folder))
    _print_next((f"lenspipe gallery {run}", "a web page for inspecting and grading the candidates"))


def _print_next(*commands: tuple[str, str]) -> None:
    """Commands as they can be typed where this one was."""
    console = Console()
    console.print("Next:")
    before = "uv run " if "UV_RUN_RECURSION_DEPTH" in os.environ else ""  # nothing is activated
    for command, what in commands:
        console.print(f"  {before}{command}  # {what}", markup=False, highlight=False, soft_wrap=True)


def print_plan(request: ScanRequest, runner: RunnerName, workers: int | Workers | None) -> None:
    """Print what a scan would do, without reading more than headers and a few test windows."""
    console = _console()
    tiles, bands = find_tiles(request)
    chosen = choose_readers(request.config, bands, request.layout)
    check_tiles(chosen.readers, tiles, request.config, request.layout)
    plan = plan_tiles(tiles, request.layout, request.config)
    good = [t for t in tiles if isinstance(t, Tile)]
    files = {p.file for t in good for b in t.bands for p in (b.image, b.weight, b.mask) if p}
    shards = plan.filter(pa.compute.is_valid(plan["shard_id"]))
    boxes = np.array(shards["core"].to_pylist()).reshape(-1, 4)
    n_px = int(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum())
    tests = list(expected_candidates(tiles, request, n_test=3, test_px=1024))
    tested_px = sum(px for *_, px in tests)
    expected = (
        "unknown"
        if not tested_px
        else f"about {n_px * sum(n for _, n, _ in tests) / tested_px:.0f} (from {len(tests)} test windows)"
    )
    core_px = request.config.shard.core_px
    one_core_s = plain_s(tasks_of(plan))
    cost = f"about {said_time(one_core_s)} of one core (local files; within a factor of three)"
    if runner == "auto":
        cost += f". {choose(one_core_s, workers)[1]}"
    table = Table(title="Plan (nothing is written)", title_justify="left", show_header=False)
    for name, value in {
        "tiles": f"{len(tiles)}, of which {plan.num_rows - shards.num_rows} cannot be planned",
        "bands": " ".join(bands),
        "shards": f"{shards.num_rows} of {core_px} px and a halo of {request.config.shard.halo_px}",
        "pixels": f"{n_px} per band",
        "bytes": f"{sum(size_bytes(f) for f in files) / 1e6:.1f} MB in {len(files)} files",
        "expected cutouts": expected,
        "models": ", ".join(f"{reader.name} ({reader.digest})" for reader in chosen.readers) or "none",
        "no scores": chosen.no_model,
        "costs": cost,
    }.items():
        if value is None:
            continue
        table.add_row(name, value)
    console.print(table)
    facts = [_facts(tile, request) for tile in good[:SHOWN_FACTS]]
    for band in bands:
        scales = counted([f.flux[band] for f in facts if f is not None and band in f.flux])
        console.print(f"Zero-point {flux_line(band, scales)}", markup=False, soft_wrap=True, highlight=False)
    if len(good) > SHOWN_FACTS:
        console.print(f"(of the first {SHOWN_FACTS} of {len(good)} tiles)")
    for line in overlooked(request, tiles):
        console.print(f"Note: {line}", markup=False, soft_wrap=True, highlight=False)
    for row in plan.filter(pa.compute.is_null(plan["shard_id"])).slice(0, SHOWN_FAILURES).to_pylist():
        console.print(f"{row['tile']}: {row['message']}", markup=False, soft_wrap=True)


def _facts(tile: Tile, request: ScanRequest) -> TileFacts | None:
    try:
        return read_facts(tile, request.layout, assumed_zero_point_ab=request.config.zero_point_ab)
    except TileError:
        return None  # the plan has its message


def _console() -> Console:
    console = Console(markup=False)
    return console if console.is_terminal else Console(width=NOT_A_TERMINAL_COLUMNS, markup=False)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
