"""A sweep with Ray Tune: trials side by side, as many as the CPUs carry, with early stopping."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from lenspipe.distributed.search import Shown, TuneSearch, trial_of
from lenspipe.distributed.session import on_ray
from lenspipe.errors import ConfigError
from lenspipe.learn.sweep.search import Search
from lenspipe.learn.sweep.trial import SweepJob, run_trial
from lenspipe.learn.sweep.trials import ERROR_FILE, TRIALS
from lenspipe.learn.train import PLAIN, Runner

RAY_FOLDER = ".ray"
LOST_PROCESSES = 3
"""Times that a trial is gone on with where its process is killed or its node dies; what it raises itself is its end."""
log = logging.getLogger(__name__)


def sweep_ray(
    search: Search,
    job: SweepJob,
    *,
    on_trial: Callable[[], None],
    gpus_per_trial: float = 0.0,
    max_concurrent: int | None = None,
) -> dict[str, str]:
    """
    Run trials on the Ray that runs; see `lenspipe.learn.sweep.run.Runner`.

    A training of one worker runs in a process of Tune, which then takes the next; one of several workers drives them
    from there.

    Parameters
    ----------
    search : Search
    job : SweepJob
    on_trial : callable
        Called when a trial has ended, well or not.
    gpus_per_trial : float
        Part of a GPU that a trial of one worker books; without, it trains on CPUs. Of several workers each books a
        whole one where the cluster has as many.
    max_concurrent : int, optional
        Trials at a time; as many as the CPUs carry where None.

    Raises
    ------
    ConfigError
        A trial has more workers than there are CPUs, or none could begin.
    """
    n_cpu, space = int(ray.cluster_resources().get("CPU", 0)), job.space
    if job.n_worker > n_cpu:
        raise ConfigError("a trial has more workers than there are CPUs", workers=job.n_worker, cpus=n_cpu)
    # a trial that is only a driver of workers must leave CPUs for them: too many at a time would starve all
    at_once = min(max_concurrent or n_cpu, max(1, n_cpu // job.n_worker))
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a trial may die before its first epoch
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # lenspipe draws its own progress
    for name in ("ray.tune", "ray.tune.execution.tune_controller", "ray.tune.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what a trial died of is in its row
    asha = space.asha and ASHAScheduler(
        time_attr="epoch", max_t=1_000_000, grace_period=space.asha.grace_epochs, reduction_factor=space.asha.reduction
    )
    alone = job.n_worker == 1
    resources = {"cpu": 1.0 if alone else 0.01} | ({"gpu": gpus_per_trial} if gpus_per_trial and alone else {})
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, job=job, on_gpu=gpus_per_trial > 0), resources),
        tune_config=tune.TuneConfig(
            metric=space.metric_name,
            mode=space.mode,
            search_alg=TuneSearch(search, space.metric_name, job.out),
            scheduler=asha,
            num_samples=search.n_trial,
            max_concurrent_trials=at_once,
            # else every trial would import torch and Ray anew; a trial that drives workers reports from a thread that
            # watches them, so Tune cannot stop it without ending its process
            reuse_actors=alone,
        ),
        run_config=tune.RunConfig(
            name=uuid.uuid4().hex[:12],
            storage_path=str(job.out / RAY_FOLDER),
            verbose=0,
            callbacks=[Shown(on_trial)],
            failure_config=tune.FailureConfig(max_failures=LOST_PROCESSES),
        ),
    )
    results = tuner.fit()
    shutil.rmtree(job.out / RAY_FOLDER, ignore_errors=True)
    return {r.config["name"]: str(r.error).strip().splitlines()[-1] for r in results if r.error and r.config}


def _trial(config: dict[str, Any], *, job: SweepJob, on_gpu: bool) -> None:
    """One trial in a process of Ray Tune."""
    if job.n_worker == 1 and not on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides nothing from a process that has booked none
    import torch

    metric = job.space.metric_name
    trial = trial_of(config)
    try:
        run_trial(
            trial,
            job,
            lambda row: tune.report({"epoch": row["epoch"], metric: row[metric]}),
            runner=PLAIN if job.n_worker == 1 else on_ray(_train_on_ray),
        )
    except Exception:
        if not (job.out / TRIALS / trial.name / ERROR_FILE).exists():
            raise  # to Tune, which tells the sweep
        log.debug("trial %s ended", trial.name, exc_info=True)  # what ended it becomes its row
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the process may stay for another trial, beside others on the same GPU


def _train_on_ray(n_cpu: int) -> Runner:
    from lenspipe.distributed.train import train_ray

    return train_ray
