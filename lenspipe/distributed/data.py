"""Ray Data's settings, in one place; the caller's own stay as they are."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import ray
from ray.data import DataContext, ExecutionResources
from ray.data.exceptions import ExecutionTimeoutError

from lenspipe.errors import ClusterError

logging.getLogger("ray.data").setLevel(logging.ERROR)  # its import says otherwise; the rest is in Ray's own log files

MAX_BLOCKS = 10_000
"""Blocks of a data set at most."""


@contextlib.contextmanager
def data_context(
    n_worker: int | None = None, *, preserve_order: bool = False, no_progress_s: float | None = None
) -> Iterator[None]:
    """
    Settings for the data sets that are made and read inside.

    Parameters
    ----------
    n_worker : int, optional
        CPUs to use; all where not given.
    preserve_order : bool
        Blocks come in their order, not as they are done.
    no_progress_s : float, optional
        Seconds without an answer after which Ray Data raises; its own where not given.

    Raises
    ------
    ClusterError
        Ray Data says that nothing has moved for so long.
    """
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    context.execution_options.preserve_order = preserve_order
    context.retried_io_errors = [*context.retried_io_errors, "Stale file handle"]
    if no_progress_s is not None:
        context.execution_no_progress_timeout_s = no_progress_s
    if n_worker is not None and n_worker < ray.cluster_resources().get("CPU", 0):
        context.execution_options.resource_limits = ExecutionResources.for_limits(cpu=n_worker)
    with DataContext.current(context):
        try:
            yield
        except ExecutionTimeoutError as error:
            raise ClusterError(
                "nothing was done for too long: look whether the cluster's machines have what the work takes, then "
                "give the same command again, with --resume where it has that",
                minutes=round(context.execution_no_progress_timeout_s / 60, 1),
                still_running="; ".join(
                    word.strip(" -") for word in str(error).splitlines() if word.startswith("  - ")
                ),
            ) from error
