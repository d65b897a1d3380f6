"""From a finished run and a finder to the table of injections: look at the bare tiles, paint, search, collect."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.catalog.run_rows import Run
from lenspipe.completeness.chosen import hold_hosts, settled
from lenspipe.completeness.config import CompletenessConfig
from lenspipe.completeness.draw import Lensing
from lenspipe.completeness.hosts import measure_cuts, without_known_lenses
from lenspipe.completeness.paint import Bare, Painter, measured_psf
from lenspipe.completeness.passes import BARE, PAINTED, share_passes, task_in, tasks_of_passes
from lenspipe.completeness.places import HostChoice
from lenspipe.completeness.points import Point, points_of
from lenspipe.completeness.quantities import HOST, SKY
from lenspipe.completeness.table import injections_of, iter_noted
from lenspipe.disk import remove_scratch
from lenspipe.errors import ConfigError
from lenspipe.rundir import atomic_path, open_run
from lenspipe.runner import Progress, Start
from lenspipe.scan.after.context import context_of
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.ledger import done_shards, iter_counted, part_files, session_name
from lenspipe.scan.models import check_tiles, choose_readers, same_models
from lenspipe.scan.plan import plain_s, tasks_of
from lenspipe.scan.readers.contract import Reader
from lenspipe.scan.run import MODEL, Runner
from lenspipe.tables import read_parquet, write_table

PLACES, DONORS, INJECTIONS, SCORES = "places.parquet", "donors.parquet", "injections.parquet", "scores.parquet"
N_DONOR = 300
"""Hosts whose light is kept to be put down elsewhere, at most about this many."""
AFTERWARDS = {"rates", "first", "thresholds", "bootstraps", "gate_auc"}
"""Settings that no pixel depends on: a folder can be finished again with others."""


@dataclasses.dataclass(frozen=True)
class Painted:
    """What the painting came to."""

    folder: Path
    injections: pa.Table
    finder: Reader
    scores: NDArray[np.float64]
    """Of the bare candidates."""
    area_part: float
    """Part of the run's area that these scores are of."""
    points: tuple[Point, ...]
    """Operating points that these scores can measure; one at least."""
    hosts: HostChoice
    notes: tuple[str, ...]
    seconds: dict[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """What is known before a pixel is read; made by `Setting.of`."""

    run: Run
    config: CompletenessConfig
    seed: int
    context: ScanContext
    finder: Reader
    tasks: list[ShardTask]
    """Shards of the tiles that are painted."""
    passes: dict[str, int]
    per_arcmin2: float
    area_arcmin2: dict[str, float]
    psf_fwhm_arcsec: dict[str, dict[str, float]]
    psf_stated: set[str]
    """Bands in which a tile's PSF is the layout's."""
    sky_rms_njy: dict[str, dict[str, float]]
    scale_arcsec: dict[str, float]
    misfits: dict[str, str]
    """Tiles that the finder cannot be shown, with why."""
    n_host: int
    bare_change: Bare

    @classmethod
    def of(cls, run: Run, model: str, config: CompletenessConfig, seed: int) -> Setting:
        """
        Read the run's tables and choose what is painted where.

        Raises
        ------
        ConfigError
            The finder needs bands that the survey lacks, or fits no tile; a band has no PSF, no row can carry arcs.
        """
        context = context_of(run)
        score = context.config.score.model_copy(update={"model": model, "prior": None})
        scan = context.config.model_copy(update={"score": score})
        readers = choose_readers(scan, run.bands, context.layout).readers
        context = dataclasses.replace(context, config=scan, models=readers)
        finder = context.finder
        if finder is None:
            raise ConfigError("completeness is that of a finder; name one by --model", model=model)
        ok = run.shards.filter(pc.equal(run.shards["status"], "ok"))
        tiles = {t.tile.name: t.tile for t in tasks_of(run.plan)}
        check_tiles(readers, list(tiles.values()), scan, context.layout)
        area, rms, scale = _tiles(ok, run.bands)
        if not area:
            raise ConfigError("no tile of the run was searched in all its bands", run=str(run.folder))
        misfits = {tile: why for tile in area if (why := finder.fits(run.bands, scale[tile])) is not None}
        if len(misfits) == len(area):
            raise ConfigError(
                "the finder can score no candidate of this run, so nothing can be measured; name another by --model",
                why=next(iter(misfits.values())),
                tiles=len(area),
            )
        psf, stated = _psf_of_tiles(run, context, config, list(area))
        passes, density = share_passes(area, count=config.count, per_arcmin2=config.per_arcmin2, seed=seed)
        fwhm = {band: float(np.median([one[band] for one in psf.values()])) for band in run.bands}
        cuts, n_host = measure_cuts(run, config.hosts, fwhm)
        good = set(ok["shard_id"].to_pylist())
        tasks = [t for t in tasks_of(run.plan) if t.shard.shard_id in good and t.shard.tile in passes]
        shard_area = dict(zip(ok["shard_id"].to_pylist(), ok["area_deg2"].to_pylist(), strict=True))
        n_sky = {
            t.shard.shard_id: int(
                np.ceil(shard_area[t.shard.shard_id] * 3600 * density * config.on_sky * passes[t.shard.tile])
            )
            for t in tasks
        }
        bare = Bare(
            cuts,
            seed,
            n_sky,
            config.clear_arcsec,
            light_share=N_DONOR / max(1, n_host),
            stamp_share=config.gate_stamps / max(1, n_host),
            stamp_bands=finder.demands,
            stamp_px={tile: max(key.side_px for key in finder.cutouts(s)) for tile, s in scale.items()},
            score_all=finder.digest != run.model_digest,
        )
        known = (tasks, passes, density, area, psf, stated, rms, scale, misfits)
        return cls(run, config, seed, context, finder, *known, n_host, bare)

    def with_hosts(self, hosts: HostChoice, n_host: int) -> Setting:
        """The same with another choice of hosts."""
        light, stamps = N_DONOR / max(1, n_host), self.config.gate_stamps / max(1, n_host)
        bare = dataclasses.replace(self.bare_change, hosts=hosts, light_share=light, stamp_share=stamps)
        return dataclasses.replace(self, n_host=n_host, bare_change=bare)

    def bare(self) -> ScanContext:
        """Context of the pass that looks for places."""
        return dataclasses.replace(self.context, change=self.bare_change)

    def painter(self, folder: Path) -> ScanContext:
        """Context of the passes that paint."""
        config = self.config
        painter = Painter(
            places=folder / PLACES,
            donors=folder / DONORS,
            seed=self.seed,
            lensing=Lensing(config.theta_e_arcsec, config.arc_snr, config.shear_scatter, config.sources),
            area_arcmin2={tile: self.area_arcmin2[tile] for tile in self.passes},
            per_arcmin2=self.per_arcmin2,
            on_sky=config.on_sky,
            apart_arcsec=config.apart_arcsec,
            match_arcsec=config.match_arcsec,
            run=self.run.folder,
            psf_set=frozenset(config.psf_fwhm_arcsec),
            psf_fwhm_arcsec=self.psf_fwhm_arcsec,
            sky_rms_njy=self.sky_rms_njy,
            njy_per_electron=dict(config.njy_per_electron),
            snr_bands=self.finder.demands,
            stamp_share=2 * config.gate_stamps / config.count,
            stamp_px=self.bare_change.stamp_px,
        )
        return dataclasses.replace(self.context, change=painter)


def paint_run(
    setting: Setting, model: str, folder: Path, *, runner: Start[Runner], progress: Progress, resume: bool
) -> Painted:
    """
    Paint lenses into the tiles of a run, search them by the scan's own code, and write ``injections.parquet``.

    Parameters
    ----------
    setting : Setting
        The same seed, run and settings give the same table, whatever the runner.
    model : str
        Finder or committee that scores, as it was asked for.
    folder : Path
        New, or one of the same request with ``resume``.
    runner : Start
        Of a scan.
    progress : Progress
    resume : bool

    Raises
    ------
    ConfigError
        The folder is another's, or an older one that is not through, or no tile holds a galaxy that can carry arcs; no
        operating point can be measured, which is known before anything is painted.
    """
    run, config = setting.run, setting.config
    request = {
        "run": str(run.home),
        "run_id": run.run_id,
        "model": model,
        "seed": setting.seed,
        "config": config.model_dump(mode="json", exclude=AFTERWARDS),
    }
    seconds: dict[str, float] = {}
    with open_run(folder, request, resume=resume, command="--out", readme="completeness"):
        same_models(folder / MODEL, setting.context.models)
        session = max(session_name(folder / BARE), session_name(folder / PAINTED))
        looking = [task_in(t, BARE) for t in setting.tasks]
        painting = tasks_of_passes(setting.tasks, setting.passes)
        held = hold_hosts(folder, setting.bare_change.hosts, setting.n_host, looking=looking, painting=painting)
        setting = setting.with_hosts(*held)
        through = settled(setting.bare_change.hosts)
        _work(BARE, looking, setting.bare(), folder, runner, progress, session, seconds, through)
        notes = _write_places(folder, setting)
        scores, area_part, n_unscored = _bare_scores(folder, run, setting)
        points, unmeasured = _demand_points(scores, area_part, n_unscored, setting)
        _work(PAINTED, painting, setting.painter(folder), folder, runner, progress, session, seconds, through)
        begun = time.perf_counter()
        notes += _failures(folder / PAINTED, painting)
        injections = injections_of(folder / PAINTED, painting, run, setting.psf_fwhm_arcsec)
        if not injections.num_rows:
            raise ConfigError(
                "not one lens found room in the run's tiles, so nothing can be measured: give more by --count, or let "
                "them stand closer by --set apart_arcsec=... and clear_arcsec=...",
                passes=len(painting),
                why="; ".join(notes) or None,
            )
        notes += _assumed(setting)
        with atomic_path(folder / INJECTIONS) as path:
            write_table(injections, path)
        shutil.rmtree(folder / "attempts", ignore_errors=True)
        seconds["collect"] = time.perf_counter() - begun
        if injections.num_rows < config.count * 0.9:
            notes.append(f"{injections.num_rows} of {config.count} lenses found room; more passes take --set count=...")
    hosts = setting.bare_change.hosts
    notes += unmeasured
    return Painted(folder, injections, setting.finder, scores, area_part, points, hosts, tuple(notes), seconds)


def _demand_points(
    scores: NDArray[np.float64], area_part: float, n_unscored: int, setting: Setting
) -> tuple[tuple[Point, ...], list[str]]:
    """Operating points and a line on each that cannot be measured; where there is none, nothing need be painted."""
    config = setting.config
    points, notes = points_of(
        scores, rates=config.rates, first=config.first, thresholds=config.thresholds, area_part=area_part
    )
    if points:
        return tuple(points), notes
    why = [*notes]
    if n_unscored:
        cause = next(iter(setting.misfits.values()), "a band of the finder is masked there")
        why.append(f"{n_unscored} of {n_unscored + len(scores)} candidates have no score: {cause}")
    raise ConfigError(
        "no operating point can be measured; give --first, --rate or --threshold: --resume with it repeats no work",
        why="; ".join(why) or None,
    )


def _tiles(
    ok: pa.Table, bands: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]], dict[str, float]]:
    """Area in square arcmin, sky noise by band and pixel scale of each tile whose noise is known in all bands."""
    by_tile: dict[str, list[dict[str, Any]]] = {}
    for row in ok.to_pylist():
        by_tile.setdefault(row["tile"], []).append(row)
    area: dict[str, float] = {}
    rms: dict[str, dict[str, float]] = {}
    scale: dict[str, float] = {}
    for tile, rows in by_tile.items():
        known = {b: [v for row in rows if (v := row[f"sky_rms_{b}_njy"]) is not None] for b in bands}
        if all(known.values()):
            area[tile] = sum(row["area_deg2"] for row in rows) * 3600
            rms[tile] = {band: float(np.median(values)) for band, values in known.items()}
            scale[tile] = float(rows[0]["pixel_scale_arcsec"])
    return area, rms, scale


def _psf_of_tiles(
    run: Run, context: ScanContext, config: CompletenessConfig, tiles: Sequence[str]
) -> tuple[dict[str, dict[str, float]], set[str]]:
    """FWHM by tile and band: the settings', else what the run measured, else the layout's; and bands of the last."""
    fwhm: dict[str, dict[str, float]] = {}
    stated: set[str] = set()
    for tile in tiles:
        measured = measured_psf(run.folder, tile, set(run.bands) - set(config.psf_fwhm_arcsec))
        fwhm[tile] = {}
        for band in run.bands:
            if band in config.psf_fwhm_arcsec:
                fwhm[tile][band] = config.psf_fwhm_arcsec[band]
            elif band in measured:
                fwhm[tile][band] = measured[band].fwhm_arcsec
            elif band in context.layout.psf_fwhm_arcsec:
                fwhm[tile][band] = context.layout.psf_fwhm_arcsec[band]
                stated.add(band)
            else:
                raise ConfigError(
                    "the PSF of a band is not known: too few stars, and no layout that states it; give its FWHM: "
                    f"--set psf_fwhm_arcsec.{band}=0.8",
                    band=band,
                    tile=tile,
                )
    return fwhm, stated


def _work(
    stage: str,
    tasks: list[ShardTask],
    context: ScanContext,
    folder: Path,
    runner: Start[Runner],
    progress: Progress,
    session: str,
    seconds: dict[str, float],
    settled_in: Callable[[Path], set[str]],
) -> None:
    parts = folder / stage
    parts.mkdir(exist_ok=True)
    remove_scratch(parts)
    done = settled_in(parts)
    todo = [task for task in tasks if task.shard.shard_id not in done]
    if not todo:
        return

    def on_part(counts: dict[str, int]) -> None:
        progress.advance(counts["shards"], failed=counts["failed"])

    context = dataclasses.replace(context, attempts=folder / "attempts" / session)
    begun = time.perf_counter()
    with runner(plain_s(todo)) as run:
        progress.stage(stage, len(tasks), done=len(tasks) - len(todo))
        run(todo, context, parts, session=session, on_part=on_part)
    seconds[stage] = time.perf_counter() - begun


def _write_places(folder: Path, setting: Setting) -> list[str]:
    """Write the places and donors that the bare pass found; returns lines on what is missing."""
    found = [table for _, table in iter_noted(folder / BARE)]
    places = pa.concat_tables(found, promote_options="default") if found else None
    if places is None or not done_shards(folder / BARE):
        raise ConfigError("no tile of the run can be opened any more", run=str(setting.run.folder))
    places = without_known_lenses(places, setting.config.hosts.known_lenses)
    places = places.sort_by([("tile", "ascending"), ("place_id", "ascending")])
    donors = places.filter(pc.is_valid(places["light"])).drop_columns(["stamp"])
    for name, table in ((PLACES, places.drop_columns(["light", "stamp"])), (DONORS, donors)):
        with atomic_path(folder / name) as path:
            write_table(table, path, row_group_size=5000)
    with_hosts = set(places.filter(pc.equal(places["kind"], HOST))["tile"].to_pylist())
    with_sky = set(places.filter(pc.equal(places["kind"], SKY))["tile"].to_pylist())
    if not with_hosts:
        raise ConfigError(
            "no tile holds a galaxy that can carry arcs and stands alone, so there is nothing to paint; widen [hosts], "
            "or --set clear_arcsec=...",
            tiles=len(setting.passes),
        )
    notes = [
        f"no host in tile {t}: only lenses on empty sky are painted there"
        for t in setting.passes
        if t not in with_hosts
    ]
    if setting.config.on_sky > 0:
        notes += [
            f"no empty sky in tile {t}: arcs are painted on its own hosts only"
            for t in setting.passes
            if t not in with_sky
        ]
        if not donors.num_rows:
            notes.append("no host's light could be lifted, so no lens stands on empty sky")
    return notes


def _failures(parts: Path, tasks: Sequence[ShardTask]) -> list[str]:
    """One line where shards could not be painted, with the first reason."""
    wanted = {task.shard.shard_id for task in tasks}
    messages = [
        message
        for table in iter_counted(part_files(parts), wanted, ["status", "message"])
        for status, message in zip(*(c.to_pylist() for c in table.columns), strict=True)
        if status == "failed"
    ]
    if not messages:
        return []
    return [f"{len(messages)} of {len(wanted)} passes of shards failed and hold no lens; the first: {messages[0]}"]


def _assumed(setting: Setting) -> list[str]:
    """Lines on what was chosen, and what was not measured."""
    bands, config = setting.run.bands, setting.config
    lines = [setting.bare_change.hosts.said] if setting.bare_change.hosts.said else []
    if out := {tile: why for tile, why in setting.misfits.items() if tile in setting.passes}:
        tile, why = next(iter(out.items()))
        lines.append(
            f"nothing is scored in {len(out)} of {len(setting.passes)} tiles, so all lenses there are missed; "
            f"the first is {tile}: {why}"
        )
    if unknown := [band for band in bands if band not in config.njy_per_electron]:
        lines.append(
            f"no gain is known in {' '.join(unknown)}, so arcs have no photon noise there: "
            f"--set njy_per_electron.{unknown[0]}=0.4"
        )
    if stated := [band for band in bands if band in setting.psf_stated]:
        lines.append(
            f"the PSF in {' '.join(stated)} is the one that the survey's layout states, not one that was measured"
        )
    return lines


def _bare_scores(folder: Path, run: Run, setting: Setting) -> tuple[NDArray[np.float64], float, int]:
    """Scores of the candidates as they are, the part of the run's area that they are of, and how many have none."""
    if not setting.bare_change.score_all:
        column = read_parquet(run.folder / "candidates.parquet", columns=["score"])["score"]
        return np.sort(column.drop_null().to_numpy())[::-1], 1.0, column.null_count
    each = np.array([score for part in _candidates(folder / BARE) for score in _scores_of(part)], float)
    area = sum(setting.area_arcmin2[tile] for tile in setting.passes) / sum(setting.area_arcmin2.values())
    scored = np.isfinite(each)
    return np.sort(each[scored])[::-1], area, int((~scored).sum())


def _candidates(parts: Path) -> Iterator[pa.Table]:
    """Ledger parts with their candidates."""
    yield from iter_counted(part_files(parts), columns=["candidates"])


def _scores_of(part: pa.Table) -> Iterator[float]:
    """NaN where a candidate has none."""
    for candidates in part["candidates"].to_pylist():
        yield from (np.nan if c["score"] is None else c["score"] for c in candidates or ())
