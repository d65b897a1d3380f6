"""One scan from request to result: plan, scan what is not done, finalize, report."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from lenspipe.errors import ConfigError, TileError
from lenspipe.nn.card import verdict
from lenspipe.rundir import open_run, utc_now, versions, write_json
from lenspipe.runner import Progress, Start
from lenspipe.scan.after.sheet import write_sheet
from lenspipe.scan.chosen import check_prior, denoiser_note, models_of, same_models, substructure_of
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ChosenModel, ScanContext, ShardTask
from lenspipe.scan.finalize import Totals, finalize
from lenspipe.scan.ledger import PARTS, done_shards, remove_leftovers
from lenspipe.scan.plan import plan_tiles, read_plan, replace_tiles, tasks_of, unplanned_tiles, write_plan
from lenspipe.scan.read import facts_of, read_shard, task_of
from lenspipe.scan.scoring import calibration_of
from lenspipe.scan.search import search
from lenspipe.scan.substructure import check_scale
from lenspipe.stats.calibrate import probability_record
from lenspipe.survey.files import find_files
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.manifest import is_manifest, read_manifest
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import BadTile, Tile, bands_of, demand_bands, group_tiles

PLAN, RUN, MODEL = "plan.parquet", "run.json", "model.json"
DONE, WITH_FAILURES = 0, 3


class Runner(Protocol):
    """Works through tasks and commits them to the ledger; the plain loop, or Ray."""

    def __call__(
        self,
        tasks: Sequence[ShardTask],
        settings: ScanContext,
        parts: Path,
        *,
        session: str,
        on_part: Callable[[dict[str, int]], None],
    ) -> None:
        """Scan ``tasks``."""
        ...


@dataclasses.dataclass(frozen=True)
class ScanRequest:
    """What the user asked for."""

    tiles: tuple[str, ...]
    layout: SurveyLayout
    config: ScanConfig
    limit: int | None

    def to_json(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        return {
            "tiles": list(self.tiles),
            "survey": self.layout.model_dump(mode="json"),
            "config": self.config.model_dump(mode="json"),
            "limit": self.limit,
        }


@dataclasses.dataclass(frozen=True)
class ScanResult:
    """What a run came to."""

    folder: Path
    totals: Totals
    model: ChosenModel | None
    no_model: str | None
    seconds: dict[str, float]
    exit_code: int


def find_tiles(
    request: ScanRequest, bands: tuple[str, ...] | None = None
) -> tuple[list[Tile | BadTile], tuple[str, ...]]:
    """
    Tiles of a request and the bands of the run: ``bands`` where a run has them already, else all that are found.

    Raises
    ------
    ConfigError
        Nothing is found, or nothing that the survey's layout knows.
    """
    tiles: list[Tile | BadTile] = []
    images = [t for t in request.tiles if not is_manifest(t)]
    for manifest in (t for t in request.tiles if is_manifest(t)):
        tiles += read_manifest(manifest, request.layout)
    if images:
        tiles += group_tiles(find_files(images), request.layout)
    names = [tile.name for tile in tiles]
    twice = next((n for n in names if names.count(n) > 1), None) if len(set(names)) < len(names) else None
    if twice:
        raise ConfigError("a tile is named by two requests; name it once", tile=twice)
    tiles = tiles[: request.limit]
    bands = bands or bands_of(tiles, request.layout)
    if request.layout.every_tile_has_every_band:
        tiles = list(demand_bands(tiles, bands))
    return tiles, bands


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
    seconds: dict[str, float] = {}
    found = None
    if not (folder / PLAN).exists():  # what is wrong with the request is said before the folder is claimed
        found = find_tiles(request)
        _check_bands(request.config, found[1])
        chosen, _, denoiser = models_of(request.config, found[1])
        check_prior(request.config, chosen, denoiser)
        wide = substructure_of(request.config, found[1], request.layout, chosen, denoiser)
        check_scale(wide, found[0], request.config, request.layout)
    with open_run(folder, request.to_json(), resume=resume, command="--out"):
        started = time.perf_counter()
        remove_leftovers(folder)
        remove_leftovers(folder / PARTS)
        plan, bands = _plan(request, folder, progress, found)
        model, no_model, denoiser = models_of(request.config, bands)
        substructure = substructure_of(request.config, bands, request.layout, model, denoiser)
        same_models(folder / MODEL, model, denoiser, substructure)
        seconds["plan"] = time.perf_counter() - started
        # Parts are read in order of name: a later session's word on a failure is the last.
        session = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        attempts = folder / "attempts" / session
        settings = ScanContext(request.config, request.layout, bands, model, attempts, denoiser, substructure)
        if no_model:
            progress.say(f"No scores: {no_model}. Sources are detected and measured.")
        if denoiser:
            progress.say(denoiser_note(denoiser.card))
        record = _record(request, settings, no_model)
        write_json(folder / RUN, {**record, "status": "running"})
        _scan(plan, settings, folder, runner, progress, session, seconds)
        begun = time.perf_counter()
        progress.stage("finalize", 1)
        totals, inputs = finalize(folder, plan, bands)
        shutil.rmtree(folder / "attempts", ignore_errors=True)
        if totals.scored:
            write_sheet(folder, plan, settings)
        seconds["finalize"] = time.perf_counter() - begun
        seconds["total"] = time.perf_counter() - started
        progress.advance()
        exit_code = WITH_FAILURES if totals.failures else DONE
        write_json(
            folder / RUN,
            {
                **record,
                "status": "done" if exit_code == DONE else "done with failures",
                "exit_code": exit_code,
                "finished": utc_now(),
                "counts": dataclasses.asdict(totals),
                "seconds": {k: round(v, 3) for k, v in seconds.items()},
                "inputs": inputs,
            },
        )
        return ScanResult(folder, totals, model, no_model, seconds, exit_code)


def _check_bands(config: ScanConfig, bands: tuple[str, ...]) -> None:
    named = {
        "detect.image": {config.detect.image} - {"sum"},
        "select.band": {config.select.band} - {"auto"},
        "select.colour": {band for key in config.select.colour for band in key.split("-")},
    }
    for key, wanted in named.items():
        if missing := sorted(wanted - set(bands)):
            raise ConfigError(f"{key} names a band that no tile has", band=missing[0], bands=" ".join(bands))


def _plan(
    request: ScanRequest, folder: Path, progress: Progress, found: tuple[list[Tile | BadTile], tuple[str, ...]] | None
) -> tuple[pa.Table, tuple[str, ...]]:
    path = folder / PLAN
    if path.exists():
        plan, bands = read_plan(path)
        # The files of tiles that could not be planned may have been mended since.
        if failed := unplanned_tiles(plan):
            again = [t for t in find_tiles(request, bands)[0] if t.name in failed]
            if again:
                plan = replace_tiles(plan, plan_tiles(again, request.layout, request.config))
    else:
        tiles, bands = found or find_tiles(request)
        progress.stage("plan", len(tiles))
        plan = plan_tiles(tiles, request.layout, request.config, on_tile=progress.advance)
    write_plan(path, plan, bands=bands)
    return plan, bands


def _scan(
    plan: pa.Table,
    settings: ScanContext,
    folder: Path,
    runner: Start[Runner],
    progress: Progress,
    session: str,
    seconds: dict[str, float],
) -> None:
    tasks = tasks_of(plan)
    done = done_shards(folder / PARTS)
    todo = [task for task in tasks if task.shard.shard_id not in done]
    if not todo:
        return

    def on_part(counts: dict[str, int]) -> None:
        progress.advance(counts["shards"], failed=counts["failed"], candidates=counts["candidates"])

    begun = time.perf_counter()
    with runner() as run:
        seconds["start"] = time.perf_counter() - begun
        begun = time.perf_counter()
        progress.stage("scan", len(tasks), done=len(tasks) - len(todo))
        run(todo, settings, folder / PARTS, session=session, on_part=on_part)
        seconds["scan"] = time.perf_counter() - begun


def _record(request: ScanRequest, settings: ScanContext, no_model: str | None) -> dict[str, Any]:
    zero_point, model, denoiser = request.config.zero_point_ab, settings.model, settings.denoiser
    return {
        "started": utc_now(),
        "versions": versions(),
        "request": request.to_json(),
        "bands": list(settings.bands),
        "model": {"name": model.card.name, "digest": model.digest, "card": model.card.model_dump(mode="json")}
        if model
        else None,
        "no_model": no_model,
        "denoiser": {
            "name": denoiser.card.name,
            "digest": denoiser.digest,
            "ratio": request.config.score.denoise_ratio,
            "verdict": verdict(denoiser.card),
        }
        if denoiser
        else None,
        "substructure": [
            {"name": chosen.card.name, "digest": chosen.digest, "card": chosen.card.model_dump(mode="json")}
            for chosen in settings.substructure
        ],
        "probability": probability_record(calibration_of(settings), request.config.score.prior),
        "assumptions": []
        if zero_point is None
        else [f"images without a zero-point were given {zero_point} AB (--zero-point-ab)"],
    }


def expected_candidates(
    tiles: Sequence[Tile | BadTile], request: ScanRequest, *, n_test: int, test_px: int
) -> Iterator[tuple[Tile, int, int]]:
    """For up to ``n_test`` tiles: the tile, candidates in its middle window of ``test_px``, pixels of that window."""
    good = [t for t in tiles if isinstance(t, Tile)]
    context = ScanContext(request.config, request.layout, (), None, Path())
    for tile in good[:: max(1, len(good) // n_test)][:n_test]:
        with contextlib.suppress(TileError):
            facts = facts_of(tile, context)
            height, width = facts.shape
            x0, y0 = max(0, (width - test_px) // 2), max(0, (height - test_px) // 2)
            window = Box(x0, y0, min(width, x0 + test_px), min(height, y0 + test_px))
            found = search(read_shard(task_of(tile, window), context, facts=facts), context)
            yield tile, len(found.candidates.sources), window.n_px
