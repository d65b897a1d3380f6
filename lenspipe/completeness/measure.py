"""`lenspipe completeness` as a function: paint, search, fit, judge, write."""

from __future__ import annotations

import re
from pathlib import Path

from lenspipe.catalog.grades import labels_for, mean_grades, read_grades
from lenspipe.catalog.run_rows import Run
from lenspipe.completeness.config import CompletenessConfig
from lenspipe.completeness.finish import Outcome, finish
from lenspipe.completeness.run import Setting, paint_run
from lenspipe.disk import replaced_folder
from lenspipe.errors import ConfigError
from lenspipe.runner import Progress, Start
from lenspipe.scan.after.graded import graded_stamps
from lenspipe.scan.readers.committee import FinderCommittee
from lenspipe.scan.readers.contract import Reader
from lenspipe.scan.readers.find import Finder
from lenspipe.scan.run import Runner
from lenspipe.tables import read_parquet

LENS_FROM, NONLENS_TO = 2.0, 0.5
"""Mean grades from which, and up to which, a graded candidate is a lens and is none; as of `lenspipe grades`."""


def measure_completeness(
    run: Run,
    model: str,
    folder: Path,
    config: CompletenessConfig,
    *,
    seed: int,
    real: Path | None,
    runner: Start[Runner],
    progress: Progress,
    resume: bool,
) -> Outcome:
    """
    Measure what a finder misses in a run, and write the selection function.

    Parameters
    ----------
    run : Run
    model : str
        Name of a shipped finder, or folder of one or of a committee.
    folder : Path
        Of the result.
    config : CompletenessConfig
    seed : int
    real : Path or None
        Data set of labelled stamps with real lenses, for the realism gate.
    runner : Start
        Of a scan: the plain loop or Ray's.
    progress : Progress
    resume : bool

    Raises
    ------
    ConfigError
        What cannot be done, before any work (`lenspipe.completeness.run.paint_run`).
    """
    setting = Setting.of(run, model, config, seed)
    painted = paint_run(setting, model, folder, runner=runner, progress=progress, resume=resume)
    return finish(
        painted,
        run,
        config,
        band=painted.hosts.band,
        colour=painted.hosts.colour,
        models=checkpoints_of(painted.finder),
        device=setting.context.config.score.device,
        stamp_px=setting.bare_change.stamp_px,
        scale_arcsec=setting.scale_arcsec,
        real=real,
        seed=seed,
        progress=progress,
    )


def real_stamps(real: Path, run: Run, out: Path, *, seed: int) -> Path:
    """
    The data set of real lenses that ``--real`` means: itself, or the run's graded candidates cut beside ``out``.

    Raises
    ------
    ConfigError
        The grades are not for this run.
    """
    if real.is_dir():
        return real
    means = mean_grades(read_grades([str(real)]), lens_from=LENS_FROM, nonlens_to=NONLENS_TO)
    labels = labels_for(means, read_parquet(run.folder / "candidates.parquet"), run_id=run.run_id)
    if not labels.num_rows:
        raise ConfigError("no grade is for this run", real=str(real), run_id=run.run_id)
    folder = out.with_name(f"{out.name}-graded")
    with replaced_folder(folder, replace=True, ours=re.compile(r"part-\d+\.parquet").fullmatch) as new:
        graded_stamps(run, labels, new, seed=seed)
    return folder


def checkpoints_of(finder: Reader) -> list[Path]:
    """Folders of a finder's checkpoints; none of a reader of another kind."""
    if isinstance(finder, Finder):
        return [finder.model.folder]
    if isinstance(finder, FinderCommittee):
        return [one.model.folder for one in finder.finders]
    return []
