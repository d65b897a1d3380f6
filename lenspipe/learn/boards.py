"""Boards that follow a training beside its own files: TensorBoard, MLflow. Only what the driver is told goes there."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lenspipe.errors import ConfigError
from lenspipe.nn.card import ModelCard
from lenspipe.rundir import read_json, write_json

TENSORBOARD, MLFLOW = ".tensorboard", ".mlflow.json"
EXPERIMENT = "lenspipe"
MAX_PARAM = 500
"""Letters of a setting that MLflow takes."""
History = list[dict[str, Any]]


class TensorBoard:
    """
    Writes ``OUT/.tensorboard``: every number of an epoch as a scalar of its name.

    Raises
    ------
    ConfigError
        The package is not installed.
    """

    def __init__(self, out: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "--tensorboard needs the package tensorboard: pip install 'lenspipe[tensorboard]', or leave it out"
            ) from error
        self._writer: Any = SummaryWriter(str(out / TENSORBOARD))
        self._new = _New()

    def __call__(self, epoch: int, step: int, history: History) -> None:
        """As `lenspipe.learn.local.OnStep`."""
        for number, numbers in self._new.of(history):
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, number)
            self._writer.flush()

    def close(self, card: ModelCard | None) -> None:
        """The training has ended; with a model or without."""
        self._writer.close()


class MLflow:
    """
    A run of MLflow under the experiment ``lenspipe``: settings, the numbers of each epoch, and what the card measured.

    A training that is resumed goes on in its run, whose identifier stands in ``OUT/.mlflow.json``.

    Parameters
    ----------
    out : Path
        Folder of the training; its name is the run's.
    uri : str
        Tracking server or store: ``http://host:5000``, ``sqlite:///mlflow.db``.
    settings : mapping
        What the training is asked for, nested; becomes parameters with dotted names.

    Raises
    ------
    ConfigError
        The package is not installed, or the server does not answer.
    """

    def __init__(self, out: Path, uri: str, settings: Mapping[str, Any]) -> None:
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise ConfigError(
                "--mlflow needs the package mlflow: pip install 'lenspipe[mlflow]', or leave it out"
            ) from error
        self._new, self._file, self._failed = _New(), out / MLFLOW, MlflowException
        self._unsent: list[tuple[int, dict[str, float]]] = []
        self._warned = False
        try:
            self._client: Any = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(EXPERIMENT)
            experiment = found.experiment_id if found else self._client.create_experiment(EXPERIMENT)
            self._run = self._resumed() or self._client.create_run(experiment, run_name=out.name).info.run_id
            for name, value in _flat(settings):
                self._client.log_param(self._run, name, str(value)[:MAX_PARAM])
        except MlflowException as error:
            where = uri.rpartition("@")[2]  # without a password
            raise ConfigError(f"MLflow cannot be written to: {str(error)[:300]}", uri=where) from error

    def _resumed(self) -> str | None:
        """The run that the folder names, where the server still has it."""
        if not self._file.exists():
            return None
        run = str(read_json(self._file)["run_id"])
        try:
            self._client.update_run(run, status="RUNNING")
        except self._failed:
            return None
        return run

    def __call__(self, epoch: int, step: int, history: History) -> None:
        """As `lenspipe.learn.local.OnStep`."""
        if not self._file.exists():
            write_json(self._file, {"run_id": self._run})
        self._unsent += self._new.of(history)
        with self._outage():
            while self._unsent:
                number, numbers = self._unsent[0]
                for name, value in numbers.items():
                    self._client.log_metric(self._run, name, value, step=number)
                del self._unsent[0]

    @contextlib.contextmanager
    def _outage(self) -> Iterator[None]:
        """A server that fails does not end the training: it is said once, and tried again at the next epoch."""
        try:
            yield
        except self._failed as error:
            if not self._warned:
                warnings.warn(f"MLflow cannot be written to, the training goes on: {str(error)[:300]}", stacklevel=3)
            self._warned = True

    def close(self, card: ModelCard | None) -> None:
        """The training has ended; with a model or without."""
        with self._outage():
            for number, numbers in self._unsent:
                for name, value in numbers.items():
                    self._client.log_metric(self._run, name, value, step=number)
            if card is not None:
                self._client.set_tag(self._run, "lenspipe.weights_sha256", card.weights_sha256)
                for name, value in _flat(card.metrics.get("validation", {})):
                    if isinstance(value, float):
                        self._client.log_metric(self._run, f"validation.{name}", value)
            self._client.set_terminated(self._run, status="FAILED" if card is None else "FINISHED")


class _New:
    """Tells the epochs of a history that were not there at the last call; those at the first were there before."""

    def __init__(self) -> None:
        self._n: int | None = None

    def of(self, history: History) -> Iterator[tuple[int, dict[str, float]]]:
        """Number and numbers of each new epoch."""
        for row in [] if self._n is None else history[self._n :]:
            yield int(row["epoch"]), {name: value for name, value in row.items() if isinstance(value, float)}
        self._n = len(history)


def _flat(values: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        whole = f"{name}.{key}" if name else key
        if isinstance(value, Mapping):
            yield from _flat(value, whole)
        elif value is not None:
            yield whole, value
