"""A survey's finder from request to folder: sources, hosts, stamps, rounds of training, page; each step resumes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lenspipe.catalog.run_rows import Run, open_run_folder
from lenspipe.errors import ConfigError
from lenspipe.finder.graded import check_grade_files, check_grades
from lenspipe.finder.recipe import finder_bands
from lenspipe.finder.report import said_of_failures, write_page
from lenspipe.finder.request import PLAIN, FinderRequest, Runners
from lenspipe.finder.rounds import Base, open_bases, stand_ins
from lenspipe.finder.sources import is_measured, source_schema, trouble_of, write_sources
from lenspipe.finder.steps import PAGE, RECORD, Maker
from lenspipe.nn.registry import check_family
from lenspipe.rundir import open_run, read_json, utc_now, versions, write_json
from lenspipe.runner import Progress
from lenspipe.scan.after.context import context_of
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.finalize import FAILED
from lenspipe.scan.plan import tasks_of
from lenspipe.scan.request import ScanRequest, find_tiles
from lenspipe.scan.run import run_scan
from lenspipe.stamps.format import ImageSpec
from lenspipe.tables import read_parquet
from lenspipe.toml import put_over

STEPS = ("scan", "sources", "hosts", "stamps", "train", "page")
"""In order; ``--until`` stops after one."""


@dataclass(frozen=True)
class FinderResult:
    """What came of it."""

    folder: Path
    record: dict[str, Any]
    """``finder.json``."""


def make_finder(
    request: FinderRequest, out: Path, *, progress: Progress, runners: Runners = PLAIN, until: str = STEPS[-1]
) -> FinderResult:
    """
    Teach a finder by a survey's own pixels, or add a round of grades to one that is there.

    Called again with the same request it takes up where it was cut off; with other grades it adds a round, which begins
    from the weights of the last.

    Parameters
    ----------
    request : FinderRequest
    out : Path
        Folder of the finder; what `lenspipe scan --model` takes once a round is done.
    progress : Progress
    runners : Runners, optional
    until : str
        Last step of `STEPS` to take.

    Raises
    ------
    ConfigError, DataError, ModelError
        What is wrong with the request, the run, the grades, in a line; steps that were done stay.
    """
    out = out.absolute()
    bases = open_bases(request.pretrained, request.replaced) if request.pretrained else ()  # wrong ones end here
    if request.replaced and not bases:
        raise ConfigError("--replace-band is about the bands of a finder that is named by --pretrained")
    if bases and request.families:
        raise ConfigError(
            "--model is a network of fresh weights, and that of --pretrained stays: leave out one of the two",
            model=" ".join(request.families),
            pretrained=request.pretrained,
        )
    for family in request.families:
        check_family(family)
    if bases and len({(b.card.bands, b.card.stamp_px, b.card.pixel_scale_arcsec) for b in bases}) > 1:
        raise ConfigError(
            "members of one stamp size and the same bands can learn on together", model=request.pretrained
        )
    is_run = request.is_run
    # bands that are not there, and grades that teach nothing, are refused before the folder is claimed
    if is_run or not (out / "scan" / "request.json").exists():
        found = open_run_folder(Path(request.tiles[0])).bands if is_run else find_tiles(_scan_of(request))[1]
        card = bases[0].card if bases else None
        side = card.stamp_px * card.pixel_scale_arcsec if card else request.settings.stamps.side_arcsec
        check_grade_files(request.grades, _with_stand_ins(found, request)[0], side, request.settings.grades)
    with open_run(out, request.fixed(), resume=True, command="--out", readme="finder"):
        seconds: dict[str, float] = {}
        step = partial(_timed, seconds)
        run = step("scan", lambda: _scanned(request, out, runners, progress, is_run))
        bands, bases, replaced = _with_stand_ins(run.bands, request)
        for line in _said_of(replaced, request):
            progress.say(line)
        maker = Maker(request, run, out, bands, bases, runners, progress, replaced)
        if request.grades:  # now, and not after the stamps
            spec = ImageSpec(bands, *maker.grid())
            check_grades(request.grades, run, spec, request.settings.grades, survey=maker.survey, seed=request.seed)
        if until == "scan":
            return FinderResult(out, {"run": str(run.folder)})
        sources, troubles = step("sources", lambda: _sources(run, out, runners, progress))
        if until == "sources":
            if troubles:
                progress.say(said_of_failures(troubles))
            return FinderResult(out, {"run": str(run.folder), "sources": sources.num_rows, "failures": troubles})
        record = step("hosts", lambda: maker.hosts(sources, troubles))
        if record["failures"] or record["uncut"]:
            progress.say(said_of_failures(record["failures"], record["uncut"]))
        if replaced:
            record["stand_ins"] = replaced
        if until == "hosts":
            return FinderResult(out, record)
        record |= step("stamps", maker.stamps)
        if until == "stamps":
            return FinderResult(out, record)
        rounds = step("train", maker.rounds)
        record |= {"rounds": rounds, "versions": versions(), "finished": utc_now()}
        record["known"], record["known_failed"] = step("known", maker.known)
        before = read_json(out / RECORD).get("seconds", {}) if (out / RECORD).exists() else {}
        record["seconds"] = {k: round(max(v, before.get(k, 0.0)), 1) for k, v in seconds.items()}
        write_json(out / RECORD, record)
        if until == "page":
            write_page(out / PAGE, record, out)
    return FinderResult(out, record)


def _timed(seconds: dict[str, float], name: str, work: Any) -> Any:
    begun = time.perf_counter()
    done = work()
    seconds[name] = time.perf_counter() - begun
    return done


def _with_stand_ins(
    run_bands: tuple[str, ...], request: FinderRequest
) -> tuple[tuple[str, ...], tuple[Base, ...], dict[str, str]]:
    """Bands of the finder, the bases with the survey's bands in their places, and which band stands in for which."""
    if request.pretrained is None:
        return finder_bands(run_bands, request.bands), (), {}
    card = open_bases(request.pretrained, {})[0].card
    replaced = stand_ins(card, request.replaced, run_bands)
    bases = open_bases(request.pretrained, replaced)
    return _bands_of(run_bands, request, bases), bases, replaced


def _said_of(replaced: dict[str, str], request: FinderRequest) -> list[str]:
    """Which band stands in for which, and who said so."""
    if request.pretrained is None or not replaced:
        return []
    card = open_bases(request.pretrained, {})[0].card
    lines = []
    for band, other in replaced.items():
        if other in card.neighbours.get(band, ()):
            why = f"the card of {card.name} declares it"
        else:
            why = f"as you say, though the card of {card.name} does not declare it"
        lines.append(
            f"Band {other} of the survey stands in for {band}: {why}. The finder is one of this survey's bands."
        )
    return lines


def _bands_of(run_bands: tuple[str, ...], request: FinderRequest, bases: Sequence[Base]) -> tuple[str, ...]:
    if not bases:
        return finder_bands(run_bands, request.bands)
    bands = bases[0].card.bands
    if request.bands and request.bands != bands:
        raise ConfigError(
            "a finder that learns on keeps its bands; name those that stand in by --replace-band, or leave out "
            "--pretrained",
            asked=" ".join(request.bands),
            finder=" ".join(bands),
        )
    if missing := [band for band in bands if band not in run_bands]:
        raise ConfigError(
            "the survey lacks a band of the finder that is to learn on, and its card declares none that may stand in; "
            f"name one by --replace-band {missing[0]}=BAND, or train from fresh weights",
            missing=" ".join(missing),
            survey=" ".join(run_bands),
            finder=" ".join(bands),
        )
    return finder_bands(run_bands, bands)


def _scanned(request: FinderRequest, out: Path, runners: Runners, progress: Progress, is_run: bool) -> Run:
    folder = Path(request.tiles[0]) if is_run else out / "scan"
    if not is_run:
        run_scan(_scan_of(request), folder, runners.scan, progress, resume=(folder / "request.json").exists())
    run = open_run_folder(folder)
    if "ok" not in run.shards["status"].to_pylist():
        said = read_parquet(folder / FAILED).slice(0, 1).to_pylist()
        raise ConfigError(
            "no tile could be searched: correct the request or the files, and use another --out",
            failures=str(folder / FAILED),
            first=said[0]["message"] if said else "",
        )
    return run


def _scan_of(request: FinderRequest) -> ScanRequest:
    config = put_over(ScanConfig(), {"score.model": "none"}, origin="finder")
    return ScanRequest(request.tiles, request.layout, config, None)


def _sources(run: Run, out: Path, runners: Runners, progress: Progress) -> tuple[pa.Table, list[str]]:
    """All sources of the run: its shards searched again without its selection, which drops stars."""
    folder, tasks = out / "sources", tasks_of(run.plan)
    context = context_of(run)
    todo = [task for task in tasks if not is_measured(folder / f"{task.shard.shard_id}.parquet")]
    progress.stage("Sources", len(tasks), len(tasks) - len(todo))
    if todo:
        with runners.executor() as executor:
            work = partial(write_sources, context=context, folder=folder)
            for _ in executor.each("sources", work, todo, scratch=out):
                progress.advance()
    files = {task.shard.shard_id: folder / f"{task.shard.shard_id}.parquet" for task in tasks}
    troubles = [f"{shard}: {trouble}" for shard, file in files.items() if (trouble := trouble_of(file))]
    parts = [read_parquet(file) for file in files.values()]
    whole = pa.concat_tables(parts) if parts else source_schema(run.bands).empty_table()
    return whole, troubles
