"""Numbers of a training with their intervals, against scipy's, in the history and in the table of a sweep."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats

from lenspipe.errors import ModelError
from lenspipe.learn.finish import write_history
from lenspipe.learn.fit_state import FitState, write_state
from lenspipe.learn.objectives import objective_of
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.sweep.space import SweepSpace
from lenspipe.learn.sweep.trials import SCHEMA, trial_table
from lenspipe.learn.truth import Truth

SPREADS = (3.0, 0.25)


def measured(outputs, labels, targets=None, *, task, names=()):
    targets = np.zeros((len(labels), len(names)), np.float32) if targets is None else targets
    rows, objective = np.arange(len(labels)), objective_of(task)
    truth = Truth(
        labels=labels,
        targets=targets,
        target_names=names,
        target_spreads=SPREADS[: len(names)],
        features=np.empty((len(labels), 0), np.float32),
        train=rows,
        validation=rows,
    )
    return objective.numbers(outputs, truth, rows, objective.loss(TrainSettings()))


def edges(facts, name):
    return facts[f"{name}_low"], facts[f"{name}_high"]


def clopper_pearson(k, n):
    return tuple(stats.binomtest(k, n).proportion_ci(0.95, method="exact"))


@pytest.mark.parametrize("n_right", [0, 1, 137, 300])
def test_the_interval_of_an_accuracy_is_scipys_exact_one(rng, n_right):
    labels = rng.permutation(np.repeat(np.arange(3), 100))
    said = np.where(np.arange(300) < n_right, labels, (labels + 1) % 3)
    facts = measured(np.eye(3)[said], labels, task="classify")
    assert facts["accuracy"] == n_right / 300
    assert edges(facts, "accuracy") == pytest.approx(clopper_pearson(n_right, 300), abs=1e-12)


def test_the_interval_of_a_true_positive_rate_is_scipys_exact_one_of_the_lenses(rng):
    labels = np.repeat([0, 1], [400, 150])
    outputs = rng.normal(2.0 * labels)
    found = int((outputs[labels == 1] > np.sort(outputs[labels == 0])[-5]).sum())  # 1 % of 400 may pass
    assert 0 < found < 150
    facts = measured(outputs, labels, task="find")
    assert facts["tpr_at_fpr_1e-2"] == found / 150
    assert edges(facts, "tpr_at_fpr_1e-2") == pytest.approx(clopper_pearson(found, 150), abs=1e-12)


def test_a_rate_that_cannot_be_measured_has_no_interval(rng):
    facts = measured(rng.normal(size=200), np.repeat([0, 1], 100), task="find")
    assert (facts["tpr_at_fpr_1e-2"], *edges(facts, "tpr_at_fpr_1e-2")) == (None, None, None)


def test_the_interval_of_a_mean_error_is_the_normal_one_in_the_targets_unit(rng):
    outputs, targets = rng.normal(size=(90, 2)), rng.normal(size=(90, 2)).astype(np.float32)
    facts = measured(outputs, np.zeros(90, int), targets, task="regress", names=("mass", "theta"))
    for k, name in enumerate(("mass", "theta")):
        errors = np.abs(outputs[:, k] - targets[:, k]) * SPREADS[k]
        assert facts[f"mae_{name}"] == pytest.approx(errors.mean(), rel=1e-12)
        want = stats.norm.interval(0.95, errors.mean(), stats.sem(errors))
        assert edges(facts, f"mae_{name}") == pytest.approx(want, rel=1e-12)


def test_a_mean_error_is_never_said_to_be_negative_and_one_stamp_has_no_interval():
    outputs, targets = np.array([[9.0], [0.0], [0.0]]), np.zeros((3, 1), np.float32)
    facts = measured(outputs, np.zeros(3, int), targets, task="regress", names=("mass",))
    assert facts["mae_mass_low"] == 0.0
    facts = measured(outputs[:1], np.zeros(1, int), targets[:1], task="regress", names=("mass",))
    assert edges(facts, "mae_mass") == (None, None)


@pytest.mark.parametrize("task", ["find", "classify", "regress"])
def test_every_number_but_the_loss_lies_in_its_interval(rng, task):
    labels, targets = rng.permutation(np.repeat([0, 1], 300)), rng.normal(size=(600, 2)).astype(np.float32)
    outputs = rng.normal(size=600) if task == "find" else rng.normal(size=(600, 2))
    names = ("mass", "theta") if task == "regress" else ()
    facts = measured(outputs, labels, targets, task=task, names=names)
    values = {name for name in facts if not name.endswith(("_low", "_high"))} - {"val_loss"}
    assert set(facts) == {"val_loss"} | {name + end for name in values for end in ("", "_low", "_high")}
    assert all(facts[f"{name}_low"] < facts[name] < facts[f"{name}_high"] for name in values)


def test_outputs_that_are_not_finite_are_refused(rng):
    with pytest.raises(ModelError, match=r"not finite: lower the learning rate \[n=20\]"):
        measured(np.where(np.arange(20) == 3, np.nan, 0.0), np.repeat([0, 1], 10), task="find")


def test_the_history_has_a_column_for_each_end_and_a_null_where_there_was_none(rng, tmp_path):
    few, many = (np.repeat([0, 1], n) for n in (20, 400))
    rows = [measured(rng.normal(labels), labels, task="find") | {"epoch": k} for k, labels in enumerate((few, many))]
    write_history(tmp_path / "history.parquet", rows)
    history = pq.read_table(tmp_path / "history.parquet")
    assert history["tpr_at_fpr_1e-2_low"].to_pylist() == [None, rows[1]["tpr_at_fpr_1e-2_low"]]
    assert history["auc_high"].to_pylist() == [row["auc_high"] for row in rows]


@pytest.mark.parametrize(
    ("metric", "task"), [("accuracy", "classify"), ("tpr_at_fpr_1e-2", "find"), ("mae_mass", "regress")]
)
def test_a_sweep_by_any_number_has_its_interval_in_the_table(rng, tmp_path, metric, task):
    labels, targets = rng.permutation(np.repeat([0, 1], 400)), rng.normal(size=(800, 1)).astype(np.float32)
    outputs = {"find": rng.normal(labels), "classify": rng.normal(size=(800, 2)), "regress": targets * 0.5}[task]
    facts = measured(outputs, labels, targets, task=task, names=("mass",) if task == "regress" else ())
    row = begun(tmp_path / "a", facts, metric=metric, task=task)
    assert (row["metric"], row["metric_low"], row["metric_high"]) == (facts[metric], *edges(facts, metric))


def test_chance_is_asked_of_the_area_whatever_the_interval_of_the_metric(tmp_path):
    facts = {"accuracy": 0.9, "accuracy_low": 0.87, "accuracy_high": 0.92, "auc": 0.52, "auc_high": 0.56}
    for auc_low, at_chance in ((0.48, True), (0.51, False)):
        row = begun(tmp_path / str(auc_low), facts | {"auc_low": auc_low}, metric="accuracy", task="classify")
        assert (row["metric_low"], row["at_chance"]) == (0.87, at_chance)


def test_the_loss_has_no_interval_and_the_schema_says_so(rng, tmp_path):
    labels = rng.permutation(np.repeat([0, 1], 50))
    facts = measured(rng.normal(size=100), labels, task="find")
    row = begun(tmp_path / "a", facts, metric="val_loss", task="find")
    assert (row["metric"], row["metric_low"], row["metric_high"]) == (facts["val_loss"], None, None)
    assert b"null for val_loss" in SCHEMA.field("metric_low").metadata[b"description"]


def begun(folder, facts, *, metric, task):
    """Row of a trial with one epoch behind it."""
    (folder / "model").mkdir(parents=True)
    (folder / "trial.json").write_text(json.dumps({"family": "small-cnn", "choice": {}}))
    history = [facts | {"epoch": 1, "seconds": 1.0}]
    write_state(folder / "model" / "state.safetensors", FitState(1, {"weight": torch.zeros(1)}, history))
    space = SweepSpace.model_validate({"metric": metric, "task": task, "model": [{"family": "small-cnn"}]})
    (row,) = trial_table([folder], space, stopped=set()).to_pylist()
    return row
