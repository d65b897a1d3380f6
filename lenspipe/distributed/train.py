"""Train a network on a data set of stamps: the plain loop, or the same loop in the workers of Ray Train."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lenspipe.distributed.session import prepare_environment, ray_session
from lenspipe.errors import ConfigError, LenspipeError
from lenspipe.learn.job import TrainJob, data_digest, make_job, refuse_pickle
from lenspipe.learn.settings import TrainSettings
from lenspipe.nn.card import CARD_FILE, ModelCard, read_card
from lenspipe.rundir import open_run, read_json, write_json
from lenspipe.stamps.format import StampSet

Progress = Callable[[TrainJob, int, int, list[dict[str, Any]]], None]
"""Called with the job, the epoch, the steps done in it, and the history."""

PROGRESS_FILE, RAY_FOLDER = ".progress.json", ".ray"
POLL_S = 0.5
MAX_RESTARTS = 2
WORKER_CPUS = 0.95
"""CPUs that a worker books: less than one, as a trial of a sweep that drives workers of all CPUs books some too."""
MAX_READERS = 4
"""Tasks that read for one worker at a time: about 200 MB/s each of what `lenspipe simulate` writes."""


def train(
    data: str | Path,
    *,
    model: str,
    task: str,
    out: str | Path,
    settings: TrainSettings,
    seed: int = 0,
    runner: Literal["ray", "local"] = "ray",
    n_worker: int = 1,
    pretrained: str | None = None,
    progress: Progress | None = None,
) -> ModelCard:
    """
    Train a network and write it, or go on with a training that was cut off.

    The folder remembers the request: called again with the same one, the training goes on after its last whole epoch
    and ends with the weights of an unbroken run; a finished one is left as it is.

    Parameters
    ----------
    data : path
        Data set of stamps with splits.
    model : str
        Network family, or a kernel machine (`lenspipe.learn.classical`).
    task : str
    out : path
        Folder of the model; with several nodes one that all of them write to.
    settings : TrainSettings
    seed : int
    runner : str
        ``ray``, or ``local`` for the plain loop, whose weights one Ray worker's equal.
    n_worker : int
        Ray workers, which share every batch.
    pretrained : path, optional
        Weights to begin from.
    progress : function, optional

    Raises
    ------
    ConfigError, DataError, ModelError
        What is wrong with the request, the data, the network or the stored state.
    """
    from lenspipe.learn.classical import KERNELS, train_kernel

    refuse_workers(n_worker, runner)
    refuse_pickle(pretrained)
    request: dict[str, Any] = {
        "command": "train",
        "data": os.path.abspath(data),
        "data_digest": data_digest(StampSet.open(data)),
        "model": model,
        "task": task,
        "seed": seed,
        "workers": n_worker,
        "pretrained": None if pretrained is None else os.path.abspath(pretrained),
        "settings": settings.model_dump(mode="json"),
    }
    out = Path(os.path.abspath(out))
    # everything is checked before the folder is claimed, so that a request that was wrong can be made again
    job = make_job(
        request["data"], model, task, out, settings, seed=seed, n_worker=n_worker, pretrained=request["pretrained"]
    )
    if model not in KERNELS:
        from lenspipe.learn.network import fresh_network

        fresh_network(job)
    with open_run(out, request, resume=True, command="--out"):
        if (out / CARD_FILE).exists():
            return read_card(out)
        if model in KERNELS:
            return train_kernel(job, KERNELS[model])
        show = progress or (lambda *_: None)
        if runner == "local":
            return _train_here(job, show)
        _train_ray(job, n_worker, show)
        shutil.rmtree(out / RAY_FOLDER, ignore_errors=True)
        (out / PROGRESS_FILE).unlink(missing_ok=True)
        return read_card(out)


def refuse_workers(n_worker: int, runner: str) -> None:
    """Raise `ConfigError` at once where a local machine has fewer CPUs than workers are asked for."""
    if runner == "local" and n_worker > 1:
        raise ConfigError("the plain loop is one worker: leave --runner local out for several", workers=n_worker)
    if runner == "local":
        return
    prepare_environment()
    import ray

    cpus = os.cpu_count() or 1
    if not os.environ.get("RAY_ADDRESS") and not ray.is_initialized() and n_worker > cpus:
        raise ConfigError("more workers are asked for than this machine has CPUs", workers=n_worker, cpus=cpus)


def _train_here(job: TrainJob, progress: Progress) -> ModelCard:
    import torch

    from lenspipe.learn.finish import finish
    from lenspipe.learn.loop import train_loop
    from lenspipe.learn.world import World

    device = "cuda" if torch.cuda.is_available() else "cpu"
    world = World(device=device)
    module, state, outputs = train_loop(job, world, lambda epoch, step, history: progress(job, epoch, step, history))
    return finish(job, module, state.history, outputs, n_worker=1, device=device)


def _train_ray(job: TrainJob, n_worker: int, progress: Progress) -> None:
    with ray_session(keep_idle=True) as n_cpu:
        import ray
        from ray.train import RunConfig, ScalingConfig, WorkerGroupError
        from ray.train.torch import TorchTrainer

        if n_worker > n_cpu:
            raise ConfigError("more workers are asked for than the cluster has CPUs", workers=n_worker, cpus=n_cpu)
        gpu = ray.cluster_resources().get("GPU", 0) >= n_worker
        sent = {"job": ray.put(job), "n_reader": max(1, min(MAX_READERS, n_cpu // n_worker))}
        with _Watcher(job, progress):
            for attempt in range(1 + MAX_RESTARTS):
                trainer = TorchTrainer(
                    _worker,
                    train_loop_config=sent,
                    scaling_config=ScalingConfig(
                        num_workers=n_worker,
                        use_gpu=gpu,
                        resources_per_worker={"CPU": WORKER_CPUS} | ({"GPU": 1} if gpu else {}),
                    ),
                    run_config=RunConfig(
                        name=f"train-{uuid.uuid4().hex[:12]}", storage_path=str(Path(job.out) / RAY_FOLDER)
                    ),
                )
                try:
                    trainer.fit()
                    return
                except WorkerGroupError as error:
                    if found := deliberate(error):
                        raise found from None
                    if attempt == MAX_RESTARTS:
                        raise


def deliberate(error: Any) -> LenspipeError | None:
    """`LenspipeError` behind the failed workers of a ``WorkerGroupError``; None where it was a bug or a crash."""
    for failure in error.worker_failures.values():
        while failure is not None:
            if isinstance(failure, LenspipeError):
                return failure
            failure = failure.__cause__ or getattr(failure, "cause", None)
    return None


def _worker(config: dict[str, Any]) -> None:
    import inspect
    import time
    from functools import partial

    import numpy as np
    import ray
    import ray.train
    import ray.train.torch
    import torch.distributed
    from torch import nn

    from lenspipe.distributed.feed import ray_batches
    from lenspipe.learn.finish import finish
    from lenspipe.learn.loop import train_loop
    from lenspipe.learn.world import World

    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    job: TrainJob = ray.get(config["job"])
    last = [0.0]

    def notify(epoch: int, step: int, history: list[dict[str, Any]]) -> None:
        if time.monotonic() - last[0] > POLL_S or step == 0:
            last[0] = time.monotonic()
            write_json(Path(job.out) / PROGRESS_FILE, {"epoch": epoch, "step": step, "history": history})

    def wrap(module: nn.Module) -> nn.Module:
        # batch-norm statistics are used when the model is measured alone, and made the first worker's there
        parallel = nn.parallel.DistributedDataParallel
        known = inspect.signature(parallel).parameters
        off = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.13
        options: dict[str, Any] = {off: False}
        return parallel(module, device_ids=[device] if device.type == "cuda" else None, **options)

    def gather(array: Any) -> Any:
        parts: list[Any] = [None] * size
        torch.distributed.all_gather_object(parts, array)
        return np.concatenate(parts)

    def same_buffers(module: nn.Module) -> None:
        for tensor in module.buffers():
            torch.distributed.broadcast(tensor, 0)

    several = {"wrap": wrap, "gather": gather, "same_buffers": same_buffers} if size > 1 else {}
    feed = partial(ray_batches, n_reader=config["n_reader"])
    world = World(rank=rank, size=size, device=str(device), feed=feed, **several)  # type: ignore[arg-type]
    module, state, outputs = train_loop(job, world, notify)
    if rank == 0:
        finish(job, module, state.history, outputs, n_worker=size, device=device.type)


class _Watcher:
    """Reads the first worker's progress in a thread while Ray trains."""

    def __init__(self, job: TrainJob, progress: Progress) -> None:
        self._job, self._progress = job, progress
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watch-training")

    def __enter__(self) -> _Watcher:
        (Path(self._job.out) / PROGRESS_FILE).unlink(missing_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(POLL_S):
            self._look()

    def _look(self) -> None:
        path = Path(self._job.out) / PROGRESS_FILE
        if path.exists():
            seen = read_json(path)
            self._progress(self._job, seen["epoch"], seen["step"], seen["history"])
