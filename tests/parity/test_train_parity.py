"""Ray Train around the fit loop: one worker gives the plain loop's weights; two share the work; errors come through."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from toy_stamps import make_stamps

from lenspipe.errors import ConfigError, DataError
from lenspipe.learn.batches import order_of
from lenspipe.learn.job import make_job
from lenspipe.learn.local import train_local
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.stream import batches_of
from lenspipe.learn.train import train
from lenspipe.runner import here

SETTINGS = TrainSettings.model_validate(
    {
        "model": {"width": 4, "dropout": 0.1},
        "sampling": {"batch_size": 16, "steps_per_epoch": 12, "window_mib": 0.05},
        "optim": {"epochs": 3, "learning_rate": 0.02, "ema_decay": 0.9, "threads": 1},
        "augment": {"affine_fraction": 0.2, "gap_fraction": 0.0},
    }
)


@pytest.fixture(scope="module")
def stamps(tmp_path_factory) -> Path:
    return make_stamps(tmp_path_factory.mktemp("parity") / "stamps")


def train_ray(*args, **how):
    from lenspipe.distributed.train import train_ray

    train_ray(*args, **how)


def run(stamps, out, runner, n_worker=1, settings=SETTINGS):
    return train(
        stamps,
        model="small-cnn",
        task="find",
        out=out,
        settings=settings,
        seed=4,
        runner=here(runner),
        n_worker=n_worker,
    )


@pytest.mark.usefixtures("ray_local")
def test_ray_data_gives_the_batches_of_the_plain_reader(stamps):
    from lenspipe.distributed.feed import ray_batches

    job = make_job(stamps, "small-cnn", "find", "x", SETTINGS, seed=4)
    order = order_of(job, 1)
    assert len(order.blocks(16)) > 1
    plain, ray = (list(feed(job.index, order, batch_size=16)) for feed in (batches_of, ray_batches))
    assert len(plain) == len(ray) == 12
    for (rows, some), (ray_rows, ray_some) in zip(plain, ray, strict=True):
        assert np.array_equal(rows, ray_rows)
        assert np.array_equal(some, ray_some)


@pytest.mark.usefixtures("ray_local")
def test_one_ray_worker_gives_the_weights_of_the_plain_loop(stamps, tmp_path):
    run(stamps, tmp_path / "plain", train_local)
    shown = []
    train(
        stamps,
        model="small-cnn",
        task="find",
        out=tmp_path / "ray",
        settings=SETTINGS,
        seed=4,
        runner=here(train_ray),
        on_step=lambda epoch, step, history: shown.append((epoch, len(history))),
    )
    plain, ray = (load_file(tmp_path / name / "weights.safetensors") for name in ("plain", "ray"))
    assert all(torch.equal(plain[name], ray[name]) for name in plain)
    assert shown[-1] == (3, 3)
    assert not [path for path in (tmp_path / "ray").iterdir() if path.name in (".ray", ".progress.json")]


class KilledError(Exception):
    pass


def kill(epoch, step, history):
    if (epoch, step) == (2, 3):
        raise KilledError


@pytest.mark.parametrize(("model", "task", "method"), [("wgan", "generate", ""), ("small-cnn", "find", "dann")])
@pytest.mark.usefixtures("ray_local")
def test_an_adversarial_training_that_was_killed_ends_with_ray_as_that_of_the_plain_loop(
    stamps, tmp_path, model, task, method
):
    tables = {
        "model": {"width": 4},
        "sampling": {"batch_size": 8, "steps_per_epoch": 6},
        "optim": {"epochs": 3, "threads": 1},
    }
    if method:
        target = make_stamps(tmp_path / "target", contrast=4.0)
        tables |= {"method": method, "adapt": {"target": str(target), "source_part": 0.4}}
    else:
        tables |= {"labels": {"classes": ["lens"]}, "generate": {"watched": 16}}
    settings = TrainSettings.model_validate(tables)

    def learn(out, runner, **more):
        how = {"settings": settings, "seed": 4, "runner": here(runner)} | more
        train(stamps, model=model, task=task, out=tmp_path / out, **how)

    learn("plain", train_local)
    with pytest.raises(KilledError):
        learn("ray", train_local, on_step=kill)
    learn("ray", train_ray)
    plain, ray = (load_file(tmp_path / name / "state.safetensors") for name in ("plain", "ray"))
    assert any(name.startswith("critic/optimizer") for name in plain)
    assert set(plain) == set(ray) and all(torch.equal(plain[name], ray[name]) for name in plain)


@pytest.mark.parametrize(("task", "method"), [("embed", "simclr"), ("anomaly", "deflect")])
@pytest.mark.usefixtures("ray_local")
def test_two_copies_of_a_stamp_are_with_ray_those_of_the_plain_loop(stamps, tmp_path, task, method):
    settings = TrainSettings.model_validate(
        {
            "method": method,
            "model": {"width": 4},
            "labels": {"normal": ["lens"] if task == "anomaly" else []},
            "sampling": {"batch_size": 16, "steps_per_epoch": 5},
            "optim": {"epochs": 1, "threads": 1},
        }
    )
    for name, runner in (("plain", train_local), ("ray", train_ray)):
        how = {"settings": settings, "seed": 4, "runner": here(runner)}
        train(stamps, model="small-cnn", task=task, out=tmp_path / name, **how)
    plain, ray = (load_file(tmp_path / name / "state.safetensors") for name in ("plain", "ray"))
    assert plain and all(torch.equal(plain[name], ray[name]) for name in plain)


@pytest.mark.usefixtures("ray_local")
def test_two_workers_learn_together_and_measure_every_validation_stamp(stamps, tmp_path):
    card = run(stamps, tmp_path / "two", train_ray, n_worker=2)
    assert card.training["workers"] == 2
    assert sum(card.metrics["validation"]["n"].values()) == 48
    assert card.metrics["validation"]["auc"] > 0.9
    history = pq.read_table(tmp_path / "two" / "history.parquet").to_pydict()
    assert history["epoch"] == [1, 2, 3]
    # each worker's gradient is of its half of a batch; their mean is what steps
    assert history["loss"][-1] < history["loss"][0]


def test_an_error_in_a_worker_keeps_its_name():
    from ray.train import WorkerGroupError

    from lenspipe.distributed.train import deliberate

    wrapped = RuntimeError("in the worker")
    wrapped.__cause__ = DataError("the loss is not finite", epoch=1)
    found = deliberate(WorkerGroupError("failed", {0: KeyError("bug"), 1: wrapped}))
    assert isinstance(found, DataError)
    assert found.facts == {"epoch": 1}
    assert deliberate(WorkerGroupError("failed", {0: KeyError("bug")})) is None


@pytest.mark.usefixtures("ray_local")
def test_more_workers_than_the_cluster_has_are_refused_at_once(stamps, tmp_path):
    with pytest.raises(ConfigError, match=r"more workers.*than the cluster has CPUs.*workers=8, cpus=4"):
        run(stamps, tmp_path / "many", train_ray, n_worker=8)


@pytest.mark.usefixtures("ray_local")
def test_clusters_fed_by_ray_data_have_the_weights_of_those_fed_by_the_plain_reader(stamps, tmp_path):
    from lenspipe.distributed.feed import ray_batches
    from lenspipe.learn.loop import train_loop
    from lenspipe.learn.objectives import objective_of
    from lenspipe.learn.world import World

    few = {
        "sampling": {"batch_size": 16, "steps_per_epoch": 3, "window_mib": 0.05},
        "optim": {"epochs": 1, "threads": 1},
    }
    base = {"model": {"width": 4}, "embed": {"size": 8, "projection": 8}}
    settings = TrainSettings.model_validate(few | base)
    train(stamps, model="small-cnn", task="embed", out=tmp_path / "base", settings=settings, seed=4)
    both = few | {"optim": {"epochs": 2, "threads": 1}, "cluster": {"self_label_part": 0.5, "threshold": 0.3}}
    asked = objective_of("cluster").begun_from(None, TrainSettings.model_validate(both), str(tmp_path / "base"))
    family, settings, weights = asked
    found = []
    for name, world in (("plain", World()), ("ray", World(feed=ray_batches))):
        job = make_job(stamps, family, "cluster", tmp_path / name, settings, seed=4, pretrained=weights)
        (tmp_path / name).mkdir()
        module, state, outputs = train_loop(job, world, lambda epoch, step, history: None)
        assert state.history[-1]["sure"] > 0
        found.append((module.state_dict(), outputs))
    (plain, outputs), (ray, ray_outputs) = found
    assert all(torch.equal(plain[name], ray[name]) for name in plain)
    np.testing.assert_array_equal(outputs, ray_outputs)


def test_ctrl_c_during_a_training_with_ray_is_ours_to_answer(ray_local):
    from lenspipe.distributed.train import _trainer

    before = signal.getsignal(signal.SIGINT)
    _trainer(lambda config: None)._register_sigint_handler(None)  # Ray's would end the command with 1
    assert signal.getsignal(signal.SIGINT) is before
