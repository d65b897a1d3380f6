"""One scan from request to result: plan, scan what is not done, finalize, report."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.catalog.vectors import EMBEDDINGS
from lenspipe.disk import locked, remove_scratch
from lenspipe.errors import DataError, StoreError
from lenspipe.rundir import open_run, utc_now, versions, write_json
from lenspipe.runner import Progress, Start
from lenspipe.scan.after.sheet import SHEET, write_sheet
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.familiarity import familiarity_record
from lenspipe.scan.finalize import CANDIDATES, FAILED, SHARDS, Settle, Totals, finalize
from lenspipe.scan.finished import KEY, recorded, state_of, unchanged
from lenspipe.scan.ledger import PARTS, any_done, look_through, part_files, session_name
from lenspipe.scan.models import check_tiles, choose_readers, same_models
from lenspipe.scan.plan import Tasks, plain_s, plan_tiles, read_plan, replace_tiles, unplanned_tiles, write_plan
from lenspipe.scan.prior import SurveyPrior, survey_prior
from lenspipe.scan.provenance import flux_scales, input_lines, overlap_differences, stage_rates
from lenspipe.scan.readers.contract import Reader, giving
from lenspipe.scan.request import ScanRequest, check_bands, find_tiles, overlooked
from lenspipe.scan.stars import star_record
from lenspipe.stats.calibrate import probability_record
from lenspipe.store.place import location, place_of
from lenspipe.store.urls import demand_no_secrets
from lenspipe.survey.tile import BadTile, Tile
from lenspipe.tables import read_parquet

PLAN, RUN, MODEL, ATTEMPTS = "plan.parquet", "run.json", "model.json", "attempts"
OWN = (
    PLAN,
    RUN,
    MODEL,
    ATTEMPTS,
    PARTS,
    CANDIDATES,
    SHARDS,
    FAILED,
    EMBEDDINGS,
    SHEET,
    "psf.parquet",
    "catalog",
    "stamps",
)
"""What a scan makes in its folder."""
DONE, WITH_FAILURES = 0, 3


class Runner(Protocol):
    """Works through tasks and commits them to the ledger; the plain loop, or Ray."""

    def __call__(
        self,
        tasks: Sequence[ShardTask],
        context: ScanContext,
        parts: Path | str,
        *,
        session: str,
        on_part: Callable[[dict[str, int]], None],
    ) -> dict[str, Any] | None:
        """Scan ``tasks``; what it tells of how it went is kept in ``run.json``."""
        ...


@dataclasses.dataclass(frozen=True)
class ScanResult:
    """What a run came to."""

    folder: Path
    totals: Totals
    model: Reader | None
    """What scored."""
    no_model: str | None
    seconds: dict[str, float]
    exit_code: int


def run_scan(
    request: ScanRequest, folder: Path, runner: Start[Runner], progress: Progress, *, resume: bool
) -> ScanResult:
    """
    Carry out a scan in a run folder.

    Parameters
    ----------
    request : ScanRequest
    folder : Path
        Run folder; new, or one of the same request with ``resume``.
    runner : Start
        Not entered where everything is done.
    progress : Progress
    resume : bool
        Go on with what the folder holds.

    Returns
    -------
    ScanResult

    Raises
    ------
    ConfigError
        Before any work: nothing to scan, a folder of another run, a model that is not there.
    """
    for name in request.tiles:
        demand_no_secrets(name)
    place = place_of(folder)  # of a run in an object store, of which ``folder`` is a copy
    seconds: dict[str, float] = {}
    found = chosen = None
    notes: list[str] = []
    done: set[str] = set()
    whole: dict[str, Any] | None = None
    if resume and part_files(folder / PARTS):
        with locked(folder):
            whole = unchanged(folder, folder / PLAN, folder / RUN)
            if whole is None:
                done = _done(folder, progress)
    if not any_done(folder / PARTS):  # what is wrong with the request is said before the folder is claimed
        found = tiles, bands = find_tiles(request)
        notes = overlooked(request, tiles)
        check_bands(request.config, bands)
        chosen = choose_readers(request.config, bands, request.layout)
        check_tiles(chosen.readers, tiles, request.config, request.layout)
    with open_run(
        folder,
        request.to_json(),
        resume=resume,
        command="--out",
        own=OWN,
        readme="scan",
        has_work=lambda: _has_work(folder),
        spare=lambda: recorded(folder / RUN).get("request"),
    ) as known:
        if known:
            found = chosen = None
        started = time.perf_counter()
        remove_scratch(folder / PARTS)
        plan, bands, planned_anew = _plan(request, folder, progress, found)
        chosen = chosen or choose_readers(request.config, bands, request.layout)
        same_models(folder / MODEL, chosen.readers)
        seconds["plan"] = time.perf_counter() - started
        seconds["total"] = seconds["plan"]
        if whole is not None and not planned_anew:
            finder = giving(chosen.readers, "score")
            return ScanResult(folder, Totals(**whole["counts"]), finder, chosen.no_model, seconds, whole["exit_code"])
        if whole is not None:
            done = _done(folder, progress)
        session = session_name(folder / PARTS)
        attempts = location(folder / ATTEMPTS / session)
        context = ScanContext(request.config, request.layout, bands, attempts, chosen.readers)
        if chosen.no_model:
            progress.say(f"No scores: {chosen.no_model}. Sources are detected and measured.")
        for note in filter(None, (reader.note() for reader in chosen.readers)):
            progress.say(note)
        if found is None:
            notes = recorded(folder / RUN).get("notes", [])
        record = {**_record(request, context, chosen.no_model), "notes": notes}
        write_json(folder / RUN, {**record, "status": "running"})
        if place is not None:
            place.push()
        told = _scan(plan, done, context, folder, runner, progress, session, seconds)
        begun = time.perf_counter()
        progress.stage("finalize", 1)
        if place is not None:
            place.pull(PARTS)
            place.pull(ATTEMPTS)
        prior = _Prior(request, context.finder)
        totals, inputs = finalize(folder, plan, bands, settle=prior.settle if prior.asked else None)
        shards = read_parquet(folder / SHARDS)
        shutil.rmtree(folder / ATTEMPTS, ignore_errors=True)
        if totals.scored:
            write_sheet(folder, plan, context)
        seconds["finalize"] = time.perf_counter() - begun
        seconds["total"] = time.perf_counter() - started
        progress.advance()
        exit_code = WITH_FAILURES if totals.failures else DONE
        familiar = familiarity_record(folder / CANDIDATES, context.finder.training_set if context.finder else None)
        write_json(
            folder / RUN,
            {
                **record,
                **({"probability": prior.record(record["probability"])} if prior.asked else {}),
                **({"familiarity": familiar} if familiar else {}),
                "status": "done" if exit_code == DONE else "done with failures",
                "exit_code": exit_code,
                "finished": utc_now(),
                "counts": dataclasses.asdict(totals),
                "zero_points": flux_scales(shards, bands),
                "stars": star_record(shards, bands),
                "overlaps": overlap_differences(folder / CANDIDATES, bands),
                "notes": [*notes, *(line for line in input_lines(shards, bands) if line not in notes)],
                "seconds": {k: round(v, 3) for k, v in seconds.items()},
                "rates": stage_rates(shards, bands),
                **({"ray": told} if told else {}),
                "inputs": inputs,
                KEY: state_of(folder, folder / PLAN),
            },
        )
        return ScanResult(folder, totals, context.finder, chosen.no_model, seconds, exit_code)


def _done(folder: Path, progress: Progress) -> set[str]:
    done, damaged = look_through(folder / PARTS)
    for name in damaged:
        progress.say(f"{PARTS}/{name} is damaged and set aside; its shards are scanned again")
    return done


def _has_work(folder: Path) -> bool:
    """Whether any shard is done; of a store that does not answer it is taken to be so."""
    if (place := place_of(folder)) is not None:
        try:
            place.pull(PARTS)
        except StoreError:
            return True
    return any_done(folder / PARTS)


class _Prior:
    """The prior of a run that states none, known when its candidates are counted."""

    def __init__(self, request: ScanRequest, finder: Reader | None) -> None:
        self._layout, self._finder, self._found = request.layout, finder, SurveyPrior(None, "")
        self.asked = finder is not None and "probability" in finder.gives and request.config.score.prior is None

    def settle(self, area_deg2: float, n_candidate: int) -> Settle | None:
        """What takes scores to probabilities; None where the survey's prior is not known."""
        self._found = survey_prior(self._layout, area_deg2=area_deg2, n_candidate=n_candidate)
        value, finder = self._found.value, self._finder
        return None if value is None or finder is None else partial(finder.probabilities, prior=value)

    def record(self, stated: dict[str, Any]) -> dict[str, Any]:
        """What ``run.json`` says of the probabilities, from what the finder says of its calibration."""
        value, said = self._found.value, self._found.said
        if value is None:
            return {"prior": None, "calibration": None, "why": said}
        return {**stated, "prior": value, "prior_from": said}


def _plan(
    request: ScanRequest, folder: Path, progress: Progress, found: tuple[list[Tile | BadTile], tuple[str, ...]] | None
) -> tuple[pa.Table, tuple[str, ...], bool]:
    """The plan and its bands, and whether it is another than before."""
    path = folder / PLAN
    known = None
    if path.exists():
        try:
            known = read_plan(path)
        except DataError:
            progress.say(f"{PLAN} is damaged and made again")
    if known is not None:
        plan, bands = known
        # The files of tiles that could not be planned may have been mended since.
        if failed := unplanned_tiles(plan):
            again = [t for t in find_tiles(request, bands)[0] if t.name in failed]
            if again:
                plan = replace_tiles(plan, plan_tiles(again, request.layout, request.config))
        if plan.equals(known[0]):
            return plan, bands, False
    else:
        tiles, bands = found or find_tiles(request)
        progress.stage("plan", len(tiles))
        plan = plan_tiles(tiles, request.layout, request.config, on_tile=progress.advance)
    write_plan(path, plan, bands=bands)
    return plan, bands, True


def _scan(
    plan: pa.Table,
    done: set[str],
    context: ScanContext,
    folder: Path,
    runner: Start[Runner],
    progress: Progress,
    session: str,
    seconds: dict[str, float],
) -> dict[str, Any] | None:
    known = pa.array(done, pa.string())
    todo = Tasks(plan.filter(pc.invert(pc.is_in(plan["shard_id"], known))))
    n_shard = len(plan) - plan["shard_id"].null_count
    if not todo:
        return None

    def on_part(counts: dict[str, int]) -> None:
        progress.advance(counts["shards"], failed=counts["failed"], candidates=counts["candidates"])

    begun = time.perf_counter()
    with runner(plain_s(todo)) as run:
        seconds["start"] = time.perf_counter() - begun
        begun = time.perf_counter()
        progress.stage("scan", n_shard, done=n_shard - len(todo))
        told = run(todo, context, location(folder / PARTS), session=session, on_part=on_part)
        seconds["scan"] = time.perf_counter() - begun
    return told


def _record(request: ScanRequest, context: ScanContext, no_model: str | None) -> dict[str, Any]:
    zero_point = request.config.zero_point_ab
    record: dict[str, Any] = {
        "started": utc_now(),
        "versions": versions(),
        "request": request.to_json(),
        "bands": list(context.bands),
        "model": None,
        "no_model": no_model,
        "denoiser": None,
        "substructure": [],
        "probability": probability_record(None, None),
        "assumptions": []
        if zero_point is None
        else [f"images without a zero-point were given {zero_point} AB (--zero-point-ab)"],
    }
    for reader in context.models:
        record |= reader.record()
    return record
