"""A sweep over models and settings by Ray Tune; every trial is a training by `lenspipe.distributed.train`."""

from __future__ import annotations

import logging
import os
import shutil
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from lenspipe.distributed.session import ray_session
from lenspipe.errors import ConfigError, LenspipeError
from lenspipe.learn.job import data_digest
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.sweep.page import write_page
from lenspipe.learn.sweep.space import SweepSpace, Trial, grid
from lenspipe.learn.sweep.trials import (
    AUDIT,
    ERROR_FILE,
    MODEL_FOLDER,
    RESULT_FILE,
    TABLE_FILE,
    TRIAL_FILE,
    is_finished,
    trial_history,
    trial_table,
    write_result,
    write_table,
)
from lenspipe.rundir import open_run, write_json
from lenspipe.stamps.format import StampSet

TRIALS, BEST, RAY_FOLDER = "trials", "best", ".ray"
N_AUDIT = 24
"""Validation stamps of the audit of each trial."""
Progress = Callable[[int, int], None]


def sweep(
    data: str | Path,
    space: SweepSpace,
    out: str | Path,
    *,
    seed: int = 0,
    n_worker: int = 1,
    gpus_per_trial: float = 0.0,
    max_concurrent: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> pa.Table:
    """
    Train every trial of a space and compare them.

    Writes ``trials.parquet``, ``index.html`` with its plots, and the best model to ``best/``. Killed and resumed,
    finished trials are kept and the others go on after their last whole epoch.

    Parameters
    ----------
    data : path
        Data set of stamps.
    space : SweepSpace
    out : path
        Folder of the sweep; with several nodes one that all of them write to.
    seed : int
        Of the search and of every training.
    n_worker : int
        Ray Train workers a trial; with one, a trial trains in a process of Tune, which then takes the next.
    gpus_per_trial : float
        Part of a GPU that a trial of one worker books; without, it trains on CPUs. Of several workers each books a
        whole one where the cluster has as many.
    max_concurrent : int, optional
        Trials at a time; as many as the CPUs carry where None.
    resume : bool
    progress : function of (finished, all) trials, optional

    Raises
    ------
    ConfigError
        The space is not one, or the folder holds another sweep, or there are too few CPUs.
    """
    folder = Path(os.path.abspath(out))
    request = {
        "command": "sweep",
        "data": os.path.abspath(data),
        "data_digest": data_digest(StampSet.open(data)),
        "space": space.model_dump(mode="json"),
        "seed": seed,
        "workers_per_trial": n_worker,
    }
    if space.search == "grid":
        grid(space)  # what is wrong with it is said before the folder is claimed
    with open_run(folder, request, resume=resume, command="--out"), ray_session(keep_idle=True) as n_cpu:
        if n_worker > n_cpu:
            raise ConfigError("a trial has more workers than there are CPUs", workers=n_worker, cpus=n_cpu)
        # a trial that is only a driver of workers must leave CPUs for them: too many at a time would starve all
        at_once = min(max_concurrent or n_cpu, max(1, n_cpu // n_worker))
        from lenspipe.distributed.search import search_of

        search, n_trial = search_of(space, folder, seed=seed)
        begun = {
            "data": request["data"],
            "out": str(folder),
            "task": space.task,
            "metric": space.metric_name,
            "seed": seed,
            "workers": n_worker,
            "gpus": gpus_per_trial,
        }
        failures = _run(begun, space, search, n_trial, at_once, progress or (lambda *_: None))
        for name, error in failures.items():
            if not (folder / TRIALS / name / ERROR_FILE).exists():
                write_json(folder / TRIALS / name / ERROR_FILE, {"error": error})
        table = collect(folder, space)
        shutil.rmtree(folder / RAY_FOLDER, ignore_errors=True)
    return table


def collect(folder: Path, space: SweepSpace) -> pa.Table:
    """Table, page and best model of a sweep that has run to its end."""
    folders = sorted(path.parent for path in (folder / TRIALS).glob(f"*/{TRIAL_FILE}"))
    stopped = {path.name for path in folders if not is_finished(path)}
    table = trial_table(folders, space, stopped=stopped)
    write_table(folder / TABLE_FILE, table)
    write_page(folder, table, {path.name: trial_history(path) for path in folders}, space)
    shutil.rmtree(folder / BEST, ignore_errors=True)
    if table.num_rows and table["rank"][0].as_py() == 1:
        best = folder / TRIALS / table["trial"][0].as_py() / MODEL_FOLDER
        (folder / BEST).mkdir()
        for name in ("weights.safetensors", "card.json"):
            shutil.copy2(best / name, folder / BEST / name)
    return table


def _run(
    begun: dict[str, Any], space: SweepSpace, search: Any, n_trial: int, at_once: int, progress: Progress
) -> dict[str, str]:
    """Run the trials; returns the error of each that died without writing one."""
    if not n_trial:
        return {}
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a trial may die before its first epoch
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # lenspipe draws its own progress
    from ray import tune

    for name in ("ray.tune", "ray.tune.execution.tune_controller", "ray.tune.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what a trial died of is in its row
    from ray.tune.schedulers import ASHAScheduler

    from lenspipe.distributed.search import Shown

    asha = space.asha and ASHAScheduler(
        time_attr="epoch", max_t=1_000_000, grace_period=space.asha.grace_epochs, reduction_factor=space.asha.reduction
    )
    alone = begun["workers"] == 1
    resources = {"cpu": 1.0 if alone else 0.01} | ({"gpu": begun["gpus"]} if begun["gpus"] and alone else {})
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, begun=begun), resources),
        tune_config=tune.TuneConfig(
            metric=space.metric_name,
            mode=space.mode,
            search_alg=search,
            scheduler=asha,
            num_samples=n_trial,
            max_concurrent_trials=at_once,
            # else every trial would import torch and Ray anew; a trial that drives workers reports from a thread that
            # watches them, so Tune cannot stop it without ending its process
            reuse_actors=alone,
        ),
        run_config=tune.RunConfig(
            name=uuid.uuid4().hex[:12],
            storage_path=str(Path(begun["out"]) / RAY_FOLDER),
            verbose=0,
            callbacks=[Shown(progress, n_trial)],
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    progress(0, n_trial)
    results = tuner.fit()
    return {r.config["name"]: str(r.error).strip().splitlines()[-1] for r in results if r.error and r.config}


def run_trial(config: dict[str, Any], *, begun: dict[str, Any]) -> None:
    """One trial in a process of Ray Tune: train, report every epoch, weigh and audit what came out."""
    if begun["workers"] == 1 and not begun["gpus"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides nothing from a process that has booked none
    import torch
    from ray import tune

    from lenspipe.distributed.train import train

    trial = Trial(config["family"], config["choice"], TrainSettings.model_validate(config["settings"]))
    folder = Path(begun["out"]) / TRIALS / trial.name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / TRIAL_FILE, {"family": trial.family, "choice": trial.choice})
    (folder / ERROR_FILE).unlink(missing_ok=True)
    reported = 0

    def report(history: list[dict[str, Any]]) -> None:
        nonlocal reported
        for row in history[reported:]:
            reported += 1
            if row.get(begun["metric"]) is not None:
                tune.report({"epoch": row["epoch"], begun["metric"]: row[begun["metric"]]})

    report(trial_history(folder))  # so that early stopping knows what was learnt before a restart
    if (folder / RESULT_FILE).exists():
        return
    optim = trial.settings.optim.model_copy(update={"threads": trial.settings.optim.threads or 1})
    try:
        train(
            begun["data"],
            model=trial.family,
            task=begun["task"],
            out=folder / MODEL_FOLDER,
            settings=trial.settings.model_copy(update={"optim": optim, "name": trial.name}),
            seed=begun["seed"],
            runner="local" if begun["workers"] == 1 else "ray",
            n_worker=begun["workers"],
            progress=lambda job, epoch, step, history: report(history),
        )
        report(trial_history(folder))
        write_result(folder, weigh(folder / MODEL_FOLDER, Path(begun["data"])))
    except Exception as error:
        said = str(error) if isinstance(error, LenspipeError) else "".join(traceback.format_exception_only(error))
        write_json(folder / ERROR_FILE, {"error": f"{type(error).__name__}: {said.strip()}"})
        raise
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the process may stay for another trial, beside others on the same GPU


def weigh(model: Path, data: Path) -> dict[str, Any]:
    """Cost of a finished model, and where it gives numbers its equivariance audit on some validation stamps."""
    from lenspipe.evaluate.audit import audit
    from lenspipe.evaluate.judges import judge_for
    from lenspipe.evaluate.judging import open_members
    from lenspipe.learn.cost import count_parameters, multiply_adds
    from lenspipe.nn.checkpoint import load_model

    module, card = load_model(model)
    result: dict[str, Any] = {
        "parameters": card.training.get("n_parameter") or count_parameters(module),
        "multiply_adds": multiply_adds(module, card.n_channel, card.stamp_px, len(card.features)),
    }
    if not judge_for(card.outputs).audited:
        return result
    stamps = StampSet.open(data)
    (member,) = open_members([model], stamps, device="cpu")
    changes = audit(member, stamps, split="validation", n_stamp=N_AUDIT)
    return result | {column: changes[kind]["largest"] for column, kind in AUDIT.items()}
