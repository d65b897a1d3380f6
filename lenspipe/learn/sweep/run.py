"""One sweep from space to table: run the trials that are not done, rank them, draw their page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from lenspipe.disk import replaced_folder
from lenspipe.learn.sweep.local import sweep_local
from lenspipe.learn.sweep.page import PAGE, PLOTS, write_page
from lenspipe.learn.sweep.search import JOURNAL, Search, search_of
from lenspipe.learn.sweep.space import SweepSpace, grid
from lenspipe.learn.sweep.trial import Audit, SweepJob
from lenspipe.learn.sweep.trials import (
    CSV_FILE,
    ERROR_FILE,
    MODEL_FOLDER,
    TABLE_FILE,
    TRIAL_FILE,
    TRIALS,
    flat_csv,
    is_finished,
    trial_history,
    trial_table,
)
from lenspipe.nn.card import CHECKPOINT_FILES, files_of, read_card
from lenspipe.readme import README, write_readme
from lenspipe.rundir import atomic_path, open_run, write_json
from lenspipe.runner import SILENT, Progress, Start, here
from lenspipe.stamps.joined import Data, absolute, asked_for, digest_of_data, open_stamps
from lenspipe.tables import write_table

BEST = "best"


class Runner(Protocol):
    """Runs the trials of a search; the plain loop, or Ray Tune."""

    def __call__(self, search: Search, job: SweepJob, *, on_trial: Callable[[], None]) -> dict[str, str]:
        """Run them; returns by name the error of each that died without writing one."""
        ...


PLAIN: Start[Runner] = here(sweep_local)


def sweep(
    data: Data,
    space: SweepSpace,
    out: str | Path,
    *,
    seed: int = 0,
    runner: Start[Runner] = PLAIN,
    n_worker: int = 1,
    audit: Audit | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> pa.Table:
    """
    Train every trial of a space and compare them.

    Writes ``trials.parquet``, ``trials.csv``, ``index.html`` with its plots, and the best model to ``best/``. Killed
    and resumed, finished trials are kept and the others resume after their last whole epoch.

    Parameters
    ----------
    data : path, or sequence of `lenspipe.stamps.joined.Source`
        Data set of stamps, or several that are read as one.
    space : SweepSpace
    out : path
        Folder of the sweep; with several nodes one that all of them write to.
    seed : int
        Of the search and of every training.
    runner : Start, optional
        What runs the trials; one after the other in this process by default.
    n_worker : int
        Workers of each training.
    audit : function, optional
        Audits a finished model (`lenspipe.evaluate.audit.largest_changes`); without, its columns are null.
    resume : bool
    progress : Progress, optional

    Raises
    ------
    ConfigError
        The space is not one, or the folder holds another sweep, or there are too few CPUs.
    """
    folder = Path(os.path.abspath(out))
    request: dict[str, Any] = {
        "command": "sweep",
        "data": asked_for(data),
        "data_digest": digest_of_data(open_stamps(data)),
        "space": space.model_dump(mode="json"),
        "seed": seed,
        "workers_per_trial": n_worker,
    }
    if space.search == "grid":
        grid(space)  # what is wrong with it is said before the folder is claimed
    with open_run(
        folder,
        request,
        resume=resume,
        command="--out",
        own=(TRIALS, JOURNAL, TABLE_FILE, CSV_FILE, PAGE, PLOTS, BEST),
        readme="sweep",
        has_work=lambda: any((folder / TRIALS).glob(f"*/{MODEL_FOLDER}")),
    ):
        search = search_of(space, folder, seed=seed)
        if search.n_trial:
            job = SweepJob(absolute(data), folder, space, seed, n_worker, audit)
            with runner() as run:
                progress.stage("Sweep", search.n_trial)
                failures = run(search, job, on_trial=progress.advance)
            for name, error in failures.items():
                if not (folder / TRIALS / name / ERROR_FILE).exists():
                    write_json(folder / TRIALS / name / ERROR_FILE, {"error": error})
        return collect(folder, space)


def collect(folder: Path, space: SweepSpace) -> pa.Table:
    """Table, page and best model of a sweep that has run to its end."""
    folders = sorted(path.parent for path in (folder / TRIALS).glob(f"*/{TRIAL_FILE}"))
    histories = {path.name: trial_history(path) for path in folders}
    # early stopping, by ASHA, takes an epoch at least: what has none was lost
    stopped = {path.name for path in folders if space.asha and not is_finished(path) and histories[path.name]}
    table = trial_table(folders, space, stopped=stopped)
    with atomic_path(folder / TABLE_FILE) as temporary:
        write_table(table, temporary)
    with atomic_path(folder / CSV_FILE) as temporary:
        temporary.write_text(flat_csv(table), encoding="utf-8")
    write_page(folder, table, histories, space)
    if table.num_rows and table["rank"][0].as_py() == 1:
        best = folder / TRIALS / table["trial"][0].as_py() / MODEL_FOLDER
        with replaced_folder(folder / BEST, replace=True, ours=(*CHECKPOINT_FILES, README).__contains__) as new:
            write_readme(new, "model")
            for name in files_of(read_card(best)):
                shutil.copy2(best / name, new / name)
    return table
