"""Train a network with Ray Train: the plain loop in every worker, which share each batch."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from pathlib import Path
from typing import Any

from lenspipe.distributed.session import own_ray, prepare_environment
from lenspipe.errors import ConfigError, LenspipeError
from lenspipe.learn.job import TrainJob
from lenspipe.learn.local import OnStep
from lenspipe.rundir import read_json, write_json

PROGRESS_FILE, RAY_FOLDER = ".progress.json", ".ray"
POLL_S = 0.5
MAX_RESTARTS = 2
WORKER_CPUS = 0.95
"""CPUs that a worker books: less than one, as a trial of a sweep that drives workers of all CPUs books some too."""
MAX_READERS = 4
"""Tasks that read for one worker at a time: about 200 MB/s each of what `lenspipe simulate` writes."""


def refuse_workers(n_worker: int) -> None:
    """Raise `ConfigError` at once, before Ray is started, where this machine has fewer CPUs than workers."""
    prepare_environment()
    import ray

    cpus = os.cpu_count() or 1
    if not os.environ.get("RAY_ADDRESS") and not ray.is_initialized() and n_worker > cpus:
        raise ConfigError("more workers are asked for than this machine has CPUs", workers=n_worker, cpus=cpus)


def train_ray(job: TrainJob, *, n_worker: int, on_step: OnStep) -> None:
    """
    Train in workers on the Ray that runs; see `lenspipe.learn.train.Runner`.

    Parameters
    ----------
    job : TrainJob
    n_worker : int
        Workers, which share every batch.
    on_step : callable
        Called from a thread about twice a second while the workers train.

    Raises
    ------
    ConfigError
        There are more workers than CPUs.
    LenspipeError
        What a worker raised.
    """
    import ray
    from ray.train import RunConfig, ScalingConfig, WorkerGroupError

    n_cpu = int(ray.cluster_resources().get("CPU", 0))
    if n_worker > n_cpu:
        raise ConfigError("more workers are asked for than the cluster has CPUs", workers=n_worker, cpus=n_cpu)
    gpu = ray.cluster_resources().get("GPU", 0) >= n_worker
    sent = {"job": ray.put(job), "n_reader": max(1, min(MAX_READERS, n_cpu // n_worker))}
    with _Watcher(job, on_step):
        for attempt in range(1 + MAX_RESTARTS):
            trainer = _trainer(
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
                break
            except WorkerGroupError as error:
                if found := deliberate(error):
                    raise found from None
                if attempt == MAX_RESTARTS:
                    raise
    shutil.rmtree(Path(job.out) / RAY_FOLDER, ignore_errors=True)
    (Path(job.out) / PROGRESS_FILE).unlink(missing_ok=True)


def _trainer(*args: Any, **settings: Any) -> Any:
    """
    `TorchTrainer` without two of the processes that it starts, and without its handler of Ctrl-C.

    One hands out data sets, which we do not give it. The other frees, on a cluster, what a killed training had booked;
    on a Ray that ends with this process nothing outlives it, and as it asks a dashboard that is not there, each
    training would end with 12 s of waiting for it.
    """
    from ray.train.torch import TorchTrainer

    unused = {"DatasetsCallback"} | ({"PlacementGroupCleanerCallback"} if own_ray() else set())

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            return [each for each in super()._create_default_callbacks() if type(each).__name__ not in unused]

        def _register_sigint_handler(self, controller: Any) -> None:
            """Nothing: Ctrl-C interrupts here, and what trains ends with this driver. Ray's own ends it with 1."""

    return Trainer(*args, **settings)


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

    def __init__(self, job: TrainJob, on_step: OnStep) -> None:
        self._job, self._on_step = job, on_step
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
            self._on_step(seen["epoch"], seen["step"], seen["history"])
