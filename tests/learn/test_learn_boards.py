"""TensorBoard and MLflow are told each epoch once, and a training that resumes goes on where it was."""

from __future__ import annotations

import sys

import pytest

from lenspipe.errors import ConfigError
from lenspipe.learn.boards import EXPERIMENT, TENSORBOARD, MLflow, TensorBoard

HISTORY = [{"epoch": k, "loss": 1.0 / (k + 1), "auc": 0.5 + k / 10, "n": 3} for k in range(4)]


def follow(board, first, last):
    """What a training tells that begins after ``first`` epochs and ends after ``last``."""
    for n in range(first, last + 1):
        board(n, 0, HISTORY[:n])
        board(n, 1, HISTORY[:n])


def test_tensorboard_gets_each_epoch_once(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, last in ((0, 2), (2, 4)):  # interrupted, resumed
        board = TensorBoard(tmp_path)
        follow(board, first, last)
        board.close(None)
    seen = events.EventAccumulator(str(tmp_path / TENSORBOARD))
    seen.Reload()
    assert sorted(seen.Tags()["scalars"]) == ["auc", "loss"]
    assert [(e.step, round(e.value, 6)) for e in seen.Scalars("loss")] == [(k, round(1 / (k + 1), 6)) for k in range(4)]


def test_mlflow_gets_settings_epochs_and_how_it_ended_in_one_run(tmp_path):
    tracking = pytest.importorskip("mlflow.tracking", reason="lenspipe[mlflow] is not installed")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    (tmp_path / "out").mkdir()
    for first, last in ((0, 2), (2, 4)):
        board = MLflow(tmp_path / "out", uri, {"seed": 3, "optim": {"epochs": 4, "patience": None}})
        follow(board, first, last)
        board.close(None)
    client = tracking.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert run.data.params == {"seed": "3", "optim.epochs": "4"}
    told = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, round(m.value, 6)) for m in told] == [(k, round(1 / (k + 1), 6)) for k in range(4)]
    assert (run.info.run_name, run.info.status) == ("out", "FAILED")


def test_a_server_that_fails_for_a_while_ends_no_training_and_is_told_the_rest_later(tmp_path, monkeypatch):
    exceptions = pytest.importorskip("mlflow.exceptions", reason="lenspipe[mlflow] is not installed")
    board = MLflow(tmp_path, f"sqlite:///{tmp_path}/mlflow.db", {})
    log, client, run = board._client.log_metric, board._client, board._run

    def down(*_, **__):
        raise exceptions.MlflowException("down")

    monkeypatch.setattr(client, "log_metric", down)
    with pytest.warns(UserWarning, match="the training goes on"):
        follow(board, 0, 2)
    monkeypatch.setattr(client, "log_metric", log)
    follow(board, 3, 4)
    assert [m.step for m in client.get_metric_history(run, "loss")] == [0, 1, 2, 3]
    monkeypatch.setattr(client, "set_terminated", down)
    board.close(None)


@pytest.mark.parametrize(("package", "make"), [
    ("mlflow", lambda out: MLflow(out, "sqlite:///x.db", {})), ("torch.utils.tensorboard", TensorBoard),
])  # fmt: skip
def test_without_its_package_a_board_is_refused_with_what_to_install(tmp_path, monkeypatch, package, make):
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"pip install 'lenspipe\[(mlflow|tensorboard)\]'"):
        make(tmp_path)
    assert not list(tmp_path.iterdir())
