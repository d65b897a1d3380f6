"""One place that starts or joins Ray, and that sets for itself what Ray needs."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import pathlib
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator

from lenspipe.cores import usable_cores
from lenspipe.distributed.address import NO_ANSWER, check_address, on_loopback_alone
from lenspipe.errors import ConfigError
from lenspipe.runner import RunnerT, Start, Workers
from lenspipe.store.place import any_open

# Ray reads these when it is imported, so they are set before the first import of ray below.
_SETTINGS = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # `uv run` would build a second environment for the workers
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # lenspipe draws its own
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # else the driver shows lines of Ray that alarm and mean nothing (github.com/ray-project/ray/issues/53727)
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's would end a sweep as if it were done, with 0 and the trials so far
    # of 60 s by default: on a busy machine a process takes longer, and Ray ends it and starts the next, for ever
    "RAY_worker_register_timeout_seconds": "600",
    # of 15 by default, which beside six busy processes leaves a worker a hundredth of a core: scans stood still
    "RAY_worker_niceness": "5",
}

_OWN = "LENSPIPE_OWN_RAY"
"""Said to Ray's processes by their environment."""


def prepare_environment(*, keep_idle: bool = False) -> None:
    """Set what Ray needs, and with ``keep_idle`` that it keeps idle processes; what the user has set already stays."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if keep_idle:
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
    if "RAY_ADDRESS" not in os.environ:
        _keep_others_out()


_TOKEN, _TOKEN_FILE = "lenspipe-ray-", "token"


def _keep_others_out() -> None:
    """
    Give a local Ray a token, which everybody who connects must know, in a file that nobody else can read.

    Ray alone would write it into HOME for all to read, and fail where that cannot be written. A token or mode that the
    user has set stays.
    """
    path = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    inherited = pathlib.Path(path).parent.name.startswith(_TOKEN) and not os.path.exists(path)  # its maker has ended
    if "RAY_AUTH_TOKEN" in os.environ or (path and not inherited):
        return
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix=_TOKEN))  # 0700
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with os.fdopen(os.open(folder / _TOKEN_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(folder / _TOKEN_FILE)
    if "ray" not in sys.modules:  # which reads the mode when it is imported, and turns the token on where none was said
        os.environ["RAY_AUTH_MODE"] = "token"


def own_ray() -> bool:
    """Whether the Ray that runs was started by `ray_session`, here or above, and ends with it."""
    return os.environ.get(_OWN) == "1"


@contextlib.contextmanager
def ray_session(*, n_worker: int | Workers | None = None, keep_idle: bool = False) -> Iterator[int]:
    """
    Join the cluster of ``RAY_ADDRESS`` or of the session that runs already, else start a local Ray.

    A Ray that is started here is stopped on leaving; one that was joined is left running.

    Parameters
    ----------
    n_worker : int, Workers or None
        Logical CPUs of a local Ray; the number of cores where None. On a cluster, a number may not exceed what it has;
        of a range the least must be there, and nodes that come later are used as they come.
    keep_idle : bool
        A local Ray keeps processes that have nothing to do for ten minutes. By default it ends those beyond the number
        of CPUs after a second: between two epochs it would end what reads and start it anew.

    Yields
    ------
    int
        Logical CPUs that work may use.

    Raises
    ------
    ConfigError
        Ray does not start, or the cluster does not answer; or more workers are asked for than the cluster has CPUs:
        Ray would wait for them for ever.
    """
    prepare_environment(keep_idle=keep_idle)
    import ray
    import ray.data

    for name in ("ray", "ray.data"):  # what matters is raised; the rest is in Ray's own log files
        logging.getLogger(name).setLevel(logging.ERROR)
    least, most = n_worker if isinstance(n_worker, Workers) else (n_worker, n_worker)
    joined = ray.is_initialized()
    address = os.environ.get("RAY_ADDRESS")
    if not joined:
        _start(address, most or usable_cores())
    try:
        n_cpu = int(ray.cluster_resources().get("CPU", 0))
        if least is not None and least > n_cpu:
            raise ConfigError("more workers are asked for than the cluster has CPUs", workers=least, cpus=n_cpu)
        if not (most or n_cpu):
            raise ConfigError(
                "the cluster has no CPU now; where it grows with the work, say how far: --workers 0:N", cpus=n_cpu
            )
        yield most or n_cpu
    finally:
        if not joined:
            ray.shutdown()


def on_ray(
    load: Callable[[int], RunnerT],
    *,
    n_worker: int | Workers | None = None,
    keep_idle: bool = False,
    commits_to_store: bool = False,
) -> Start[RunnerT]:
    """
    Start of a runner on Ray.

    Parameters
    ----------
    load : callable
        Makes the runner for a number of CPUs, once Ray runs. It is what imports the module of the runner, for Ray reads
        its settings when it is imported.
    n_worker, keep_idle
        As of `ray_session`.
    commits_to_store : bool
        Whether workers write to an object store themselves, where the output is in one.

    Raises
    ------
    ConfigError
        At once, before anything is made: nothing answers at ``RAY_ADDRESS``. When it starts: the output, or a run that
        is read, is at a URL, of which other machines of the cluster do not have the copy.
    """
    check_address()

    @contextlib.contextmanager
    def start(plain_s: float | None = None) -> Iterator[RunnerT]:
        with ray_session(n_worker=n_worker, keep_idle=keep_idle) as n_cpu:
            if any_open() and not commits_to_store:
                _demand_one_machine()
            yield load(n_cpu)

    return start


def _demand_one_machine() -> None:
    import ray

    if len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}) > 1:
        raise ConfigError(
            "on a cluster of several machines only a scan writes to a URL; give folders that all of them see, or run "
            "this with --runner local or on one machine"
        )


def _start(address: str | None, n_cpu: int) -> None:
    import ray

    os.environ[_OWN] = "0" if address else "1"
    if not address:
        # a process that watches for nodes that are taken away, of which a Ray of our own has none
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    try:
        with _silent_descriptor(2):  # on which Ray says that it was told to say less
            if address:
                with _on_loopback() if on_loopback_alone(address) else contextlib.nullcontext():
                    ray.init(address=address, logging_level=logging.ERROR)
            else:
                with _on_loopback():
                    ray.init(
                        address="local",
                        num_cpus=n_cpu,
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                    )
    except Exception as error:  # Ray has no type of its own for a start that takes too long
        said = " ".join(str(error).split())
        if address:
            raise ConfigError(NO_ANSWER, address=address, ray=said) from error
        raise ConfigError(
            "Ray did not start on this machine, which happens where other work fills its cores, memory or /tmp: run "
            "the command again when it is free, with fewer workers, or without Ray where there is --runner local",
            cpus=n_cpu,
            load=round(os.getloadavg()[0], 1),
            ray=said,
        ) from error


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """
    A Ray that is started here is its node 127.0.0.1, so that all its processes listen there alone.

    So Ray does on systems on which it has no clusters. Of a loopback address that it is told it makes the machine's.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _silent_descriptor(number: int) -> Iterator[None]:
    """What is written to a file descriptor goes nowhere: of code below Python, which knows no `sys.stderr`."""
    kept = os.dup(number)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, number)
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)
        os.close(nowhere)
