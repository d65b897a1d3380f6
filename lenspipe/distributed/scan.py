"""A scan with Ray: actors take shards from pixels to the ledger, or, with GPUs, read, score and commit in pools."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import ray

from lenspipe.distributed.actors import in_actors
from lenspipe.distributed.pools import (
    GROWS_TO,
    NO_PROGRESS_S,
    Machines,
    Pool,
    demand_possible,
    fewer,
    fitted,
    lines,
    parse_machines,
    preflight,
    worker_bytes,
)
from lenspipe.distributed.session import own_ray
from lenspipe.errors import ConfigError
from lenspipe.runner import Workers
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.ledger import write_part
from lenspipe.scan.plan import PX_PER_S
from lenspipe.scan.scoring import ScoreShards
from lenspipe.scan.shard import scan_shard

CALLS_A_WORKER = 4
"""Fewest calls that a worker gets, where there are shards enough."""
SEEN = 256
"""Shards whose windows say how much memory a worker takes."""
COMMITTER_CPU, SCORER_BYTES = 0.1, 1536 << 20
"""What commits takes next to nothing; a scorer on a GPU holds CUDA's libraries, a model, and cutouts of two calls: an
estimate, not measured."""
CALLS_LONG = 10
"""So many times as long as the plan says may a call take before it counts as stuck: the plan is right within three."""


@dataclass(frozen=True)
class Resources:
    """What a scan may take of a cluster, beside the most CPUs that it uses."""

    least_workers: int = 1
    """CPUs that must come in the end."""
    gpus: Workers | None = None
    """GPUs that score, from the least that must come to the most; where None, those that are there as work begins."""
    scorers_per_gpu: int = 1
    grows: bool = False
    """Whether machines may come of which nobody says anything."""


def scan_ray(
    tasks: Sequence[ShardTask],
    context: ScanContext,
    parts: Path | str,
    *,
    session: str,
    n_worker: int,
    on_part: Callable[[dict[str, int]], None],
    separate_scorers: bool | None = None,
    resources: Resources = Resources(),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """
    Scan shards on the Ray that runs.

    Without a GPU each worker takes shards from pixels to committed rows: nothing but the tasks and the counts travels.
    With GPUs there are three pools: readers take
    a window's pixels to rows with cutouts, so that pixels never enter the object store; scorers hold all models and
    share a GPU where they are asked to, each with one call at a time on it; committers write the ledger.

    Parameters
    ----------
    tasks : sequence of ShardTask
    context : ScanContext
    parts : Path or str
        Folder of the ledger's parts, on a file system that every node sees, or its URL.
    session : str
        Name of this session; part names start with it.
    n_worker : int
        CPUs to use; no more windows are read at a time.
    on_part : callable
        Called on the driver with the counts of each part after it is committed.
    separate_scorers : bool, optional
        Score in actors of their own; where not given, where there is a GPU to score on.
    resources : Resources
    say : callable
        Is told what the job asks and what the cluster has, where it is not this machine alone, and where fewer
        processes fit now than are asked for.

    Returns
    -------
    dict
        ``pools``, and ``workers``: calls, how many were asked for, began and died; of pools apart ``stats``, what Ray
        Data says of its operators.

    Raises
    ------
    ConfigError
        GPUs are asked for and Ray has none and can have none, or the job can never run for another reason.
    ClusterError
        Nothing is done for `patience`, or no worker can begin.
    ray.exceptions.RayTaskError
        A bug in a worker; what was committed stays.
    """
    gpus = gpus_for(context, resources)
    apart = gpus is not None if separate_scorers is None else separate_scorers
    now, later = machines_now(), machines_later()
    asked = pools_of(tasks, context, n_worker, gpus if apart else None, resources, apart=apart)
    pools = fitted(asked, now, later, grows=resources.grows)
    rows = preflight(pools, now, later)
    demand_possible(rows, now, later, grows=resources.grows)
    for line in [*([] if own_ray() else lines(rows)), *fewer(rows)]:
        say(line)
    told: dict[str, Any] = {"pools": [asdict(pool) for pool in pools]}
    per_call = shards_per_call(tasks, context, pools[0].most)
    patience_s = patience(tasks, context, context.config.score.shards_per_call if apart else per_call)
    if apart:
        from lenspipe.distributed.scan_pools import scan_apart

        limit = n_worker if gpus is None else None
        stats = scan_apart(tasks, context, parts, session, pools, on_part, n_worker=limit, no_progress_s=patience_s)
        return told | {"stats": stats}
    (pool,) = pools
    went = in_actors(
        ScanShards, (context, parts, session), Calls(tasks, per_call), pool, on_part, no_progress_s=patience_s
    )
    return told | {"workers": went._asdict()}


def gpus_for(context: ScanContext, resources: Resources) -> Workers | None:
    """GPUs that score: those asked for, else those that are there now."""
    device, asked = context.config.score.device, resources.gpus
    if not context.models or device == "cpu" or context.config.score.engine == "onnx":
        if asked is not None and asked.most:
            raise ConfigError("GPUs are asked for, and nothing is scored on them: leave --gpus out", device=device)
        _demand_unshared(resources)
        return None
    there = int(ray.cluster_resources().get("GPU", 0))
    found = Workers(there, there) if asked is None else asked
    if device == "cuda" and not found.most:
        raise ConfigError("score.device is cuda, and Ray has no GPU; use auto or cpu, or say --gpus 0:N", gpus=there)
    if not found.most:
        _demand_unshared(resources)
        return None
    return found


def _demand_unshared(resources: Resources) -> None:
    if resources.scorers_per_gpu > 1:
        raise ConfigError(
            "scorers are asked to share GPUs, and nothing is scored on one: leave --scorers-per-gpu out, or say --gpus",
            scorers_per_gpu=resources.scorers_per_gpu,
        )


def pools_of(
    tasks: Sequence[ShardTask],
    context: ScanContext,
    n_worker: int,
    gpus: Workers | None,
    resources: Resources,
    *,
    apart: bool,
) -> list[Pool]:
    """
    What a scan asks of a cluster.

    Parameters
    ----------
    gpus : Workers or None
        None where scorers share the CPUs with the readers.
    apart : bool
        Whether rows are scored by others than those who read.
    """
    window = max(task.shard.window.n_px for task in tasks[:SEEN])
    memory = worker_bytes(window, len(context.bands))
    if not apart:
        return [Pool("workers", {"CPU": 1.0, "memory": memory}, max(1, resources.least_workers), n_worker)]
    if gpus is None:  # on CPUs the two together fill the cores that there are, one scorer to two readers
        reader, scorer = {"CPU": 0.5 if n_worker == 1 else 0.75}, {"CPU": 0.4}
        least, most, n_reader = 1, (n_worker + 1) // 2, n_worker
    else:
        share = resources.scorers_per_gpu
        reader, scorer = (
            {"CPU": 0.4 if n_worker == 1 else 1.0},
            {"CPU": 0.5, "GPU": 1.0 / share, "memory": float(SCORER_BYTES)},
        )
        least, most, n_reader = max(1, gpus.least * share), gpus.most * share, n_worker
    return [
        Pool("readers", {**reader, "memory": float(memory)}, max(1, resources.least_workers), n_reader),
        Pool("scorers", scorer, least, most),
        Pool("committers", {"CPU": COMMITTER_CPU}, 1, 1),
    ]


def machines_now() -> list[Machines]:
    """Machines of the cluster that are alive."""
    return [Machines({"memory": 0.0, **node["Resources"]}, 1) for node in ray.nodes() if node["Alive"]]


def machines_later() -> list[Machines] | None:
    """Machines that the cluster can have in the end, as `GROWS_TO` says; a Ray of our own does not grow."""
    if own_ray():
        return machines_now()
    said = os.environ.get(GROWS_TO)
    return parse_machines(said) if said else None


def shards_per_call(tasks: Sequence[ShardTask], context: ScanContext, n_worker: int) -> int:
    """Shards of a call: as many as are committed together, fewer where there are few, so that workers end together."""
    return max(1, min(context.config.score.shards_per_call, len(tasks) // (CALLS_A_WORKER * n_worker)))


def patience(tasks: Sequence[ShardTask], context: ScanContext, per_call: int) -> float:
    """Seconds without an answer after which a scan is stuck: longer where a call itself takes long."""
    px = max(task.shard.window.n_px for task in tasks[:SEEN])
    return max(NO_PROGRESS_S, CALLS_LONG * per_call * px * len(context.bands) / PX_PER_S)


class Calls(Sequence[list[ShardTask]]):
    """Tasks, so many to a call; each is made when it is given."""

    def __init__(self, tasks: Sequence[ShardTask], per_call: int) -> None:
        self._tasks, self._step = tasks, per_call

    def __len__(self) -> int:
        return -(-len(self._tasks) // self._step)

    @overload
    def __getitem__(self, index: int) -> list[ShardTask]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[ShardTask]]: ...
    def __getitem__(self, index: int | slice) -> list[ShardTask] | list[list[ShardTask]]:
        """Tasks of one call, or of some."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return list(self._tasks[index * self._step : (index + 1) * self._step])


class ScanShards:
    """Actor: take shards from pixels to committed rows, answer with the counts."""

    scan = staticmethod(scan_shard)

    def __init__(self, context: ScanContext, parts: Path | str, session: str) -> None:
        self._context, self._parts, self._session = context, parts, session
        self._finish = ScoreShards(context)

    def __call__(self, tasks: Sequence[ShardTask]) -> dict[str, int]:
        """Scan one call's shards, each to its end before the next is read, and commit them as one part."""
        rows = pa.concat_tables([self._finish(self.scan(task, self._context)) for task in tasks])
        return commit(rows, self._parts, self._session)


def commit(rows: pa.Table, parts: Path | str, session: str) -> dict[str, int]:
    """Write a call's rows as one part; a retried call replaces the part it may have written."""
    ids = "\n".join(sorted(rows["shard_id"].to_pylist()))
    name = f"part-{session}-{hashlib.sha256(ids.encode()).hexdigest()[:16]}"
    return write_part(parts, name, rows)
