"""Losses against their formulas and other code; what does not go together is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import log_loss

from lenspipe.errors import ConfigError
from lenspipe.learn.losses import binary_cross_entropy, cross_entropy, focal, gaussian_nll, mean_square
from lenspipe.learn.objectives import objective_of
from lenspipe.learn.settings import TrainSettings


def logits(rng, *shape):
    return torch.from_numpy(rng.normal(0, 2, shape).astype(np.float32))


def test_cross_entropies_agree_with_scikit_learn(rng):
    one, label = logits(rng, 50), torch.from_numpy(rng.integers(0, 2, 50))
    want = log_loss(label, torch.sigmoid(one.double()))
    assert binary_cross_entropy()(one, {"label": label}).item() == pytest.approx(want, rel=1e-5)
    many, classes = logits(rng, 50, 3), torch.from_numpy(rng.integers(0, 3, 50))
    want = log_loss(classes, torch.softmax(many.double(), 1), labels=[0, 1, 2])
    assert cross_entropy()(many, {"label": classes}).item() == pytest.approx(want, rel=1e-5)


def test_focal_loss_is_its_formula_and_cross_entropy_without_focus(rng):
    one, label = logits(rng, 50), torch.from_numpy(rng.integers(0, 2, 50))
    p = torch.sigmoid(one.double())
    true = torch.where(label == 1, p, 1 - p)
    assert focal(2.0)(one, {"label": label}).item() == pytest.approx(
        (-((1 - true) ** 2) * true.log()).mean().item(), rel=1e-5
    )
    assert focal(0.0)(one, {"label": label}).item() == pytest.approx(
        binary_cross_entropy()(one, {"label": label}).item()
    )


def test_label_smoothing_begins_at_its_epoch(rng):
    many, classes = logits(rng, 50, 3), torch.from_numpy(rng.integers(0, 3, 50))
    plain = cross_entropy()(many, {"label": classes}).item()
    switching = cross_entropy(0.3, 4)
    values = [switching(many, {"label": classes, "epoch": torch.tensor(e)}).item() for e in range(6)]
    assert values[:4] == [plain] * 4
    spread = -torch.log_softmax(many.double(), 1).mean().item()
    assert values[4] == values[5] == pytest.approx(0.7 * plain + 0.3 * spread, rel=1e-5)


def test_a_smoothed_binary_label_moves_towards_one_half():
    one, label = torch.tensor([3.0]), torch.tensor([1])
    loss = binary_cross_entropy(0.2)(one, {"label": label, "epoch": torch.tensor(0)}).item()
    p = torch.sigmoid(one.double()).item()
    assert loss == pytest.approx(-0.9 * np.log(p) - 0.1 * np.log(1 - p), rel=1e-5)


def test_gaussian_likelihood_agrees_with_scipy(rng):
    value, log_variance, target = logits(rng, 40, 2), logits(rng, 40, 2), logits(rng, 40, 2)
    got = gaussian_nll(torch.cat([value, log_variance], 1), {"target": target}).item()
    assert got == pytest.approx(
        -norm(value.numpy(), np.exp(log_variance.numpy() / 2)).logpdf(target.numpy()).mean(), rel=1e-5
    )


def test_one_target_needs_no_axis_of_its_own(rng):
    value, target = logits(rng, 30), logits(rng, 30, 1)
    assert mean_square(value, {"target": target}).item() == pytest.approx(((value - target[:, 0]) ** 2).mean().item())


@pytest.mark.parametrize(
    ("name", "task", "uncertainty"),
    [
        ("mse", "find", "none"),
        ("bce", "classify", "none"),
        ("gaussian-nll", "regress", "none"),
        ("mse", "regress", "gaussian"),
    ],
)
def test_a_loss_of_another_task_is_refused(name, task, uncertainty):
    with pytest.raises(ConfigError, match="loss does not go with the task"):
        objective_of(task).loss(
            TrainSettings.model_validate({"loss": {"name": name}, "labels": {"uncertainty": uncertainty}})
        )


def test_the_first_loss_of_a_task_is_taken_where_none_is_named(rng):
    one, label = logits(rng, 50), torch.from_numpy(rng.integers(0, 2, 50))
    chosen = objective_of("find").loss(TrainSettings())
    assert chosen(one, {"label": label}).item() == binary_cross_entropy()(one, {"label": label}).item()
    many, target = logits(rng, 40, 4), logits(rng, 40, 2)
    chosen = objective_of("regress").loss(TrainSettings.model_validate({"labels": {"uncertainty": "gaussian"}}))
    assert chosen(many, {"target": target}).item() == gaussian_nll(many, {"target": target}).item()
