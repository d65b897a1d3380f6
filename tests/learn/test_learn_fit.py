"""The fit loop: it learns, it resumes to the same weights, it refuses what is broken."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from lenspipe.errors import DataError, ModelError
from lenspipe.learn.fit import Batch, FitState, fit, learning_rate_at, read_state, stops, write_state
from lenspipe.learn.losses import binary_cross_entropy
from lenspipe.learn.players import OUT, Player, supervised
from lenspipe.learn.settings import OptimSettings

STEPS = 12
SETTINGS = OptimSettings(epochs=4, learning_rate=0.02, ema_decay=0.9)


def fit_one(
    module: nn.Module, stream, optim: OptimSettings = SETTINGS, *, frozen=(), seed: int = 3, **more
) -> FitState:
    """One player, one stream, one view."""
    player = Player(module=module, loss=supervised(binary_cross_entropy()), frozen=frozen)
    return fit([player], {"train": stream}, optim, steps=STEPS, seed=seed, **more)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x).mean((2, 3)))[:, 0]


def batches(epoch: int) -> Iterator[Batch]:
    rng = np.random.default_rng([5, epoch])
    for _ in range(STEPS):
        labels = rng.integers(0, 2, 32).astype(np.float32)
        stamps = rng.normal(0, 1, (32, 2, 9, 9)).astype(np.float32)
        stamps[:, 0] += labels[:, None, None]
        yield {"image": stamps, "label": labels}


def test_it_learns_a_difference_in_brightness() -> None:
    module = Net()
    state = fit_one(module, batches, SETTINGS)
    unseen = next(iter(batches(99)))
    with torch.inference_mode():
        right = ((module.eval()(torch.from_numpy(unseen["image"])) > 0).numpy() == unseen["label"]).mean()
    assert right > 0.95
    assert [row["epoch"] for row in state.history] == [1, 2, 3, 4]
    assert state.history[-1]["loss"] < state.history[0]["loss"]


def test_one_player_on_one_stream_is_the_plain_loop_to_the_bit() -> None:
    """A loop without players: AdamW, warm-up and cosine, weights averaged, dropout of each epoch from the seed."""
    plain = Net().train()
    average = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    groups = [[p for p in plain.parameters() if p.ndim > 1], [p for p in plain.parameters() if p.ndim <= 1]]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.02}, {"params": groups[1], "weight_decay": 0.0}]
    )
    for step in range(4 * STEPS):
        epoch, k = divmod(step, STEPS)
        if not k:
            torch.manual_seed(1_000_003 * 3 + epoch)
            stream = batches(epoch)
        warm, total = round(0.05 * 4 * STEPS), 4 * STEPS
        falling = 0.5 * (1 + math.cos(math.pi * ((step - warm) / (total - warm))))
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (step + 1) / warm if step < warm else 0.02 * falling
        batch = next(stream)
        outputs = plain(torch.from_numpy(batch["image"]))
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(outputs, torch.from_numpy(batch["label"])).backward()
        optimizer.step()
        for name, tensor in plain.state_dict().items():
            if tensor.is_floating_point() and "running" not in name:
                average[name].lerp_(tensor.detach(), 1 - min(0.9, (1 + step) / (10 + step)))
            else:
                average[name].copy_(tensor)
    fitted = Net()
    state = fit_one(fitted, batches)
    for name, tensor in fitted.state_dict().items():
        assert torch.equal(tensor, average[name]), name
        assert torch.equal(state.tensors[f"model.{name}"], plain.state_dict()[name]), name


def test_a_state_of_before_there_were_players_is_gone_on_with(tmp_path: Path) -> None:
    """Names of its tensors as they were: model, ema, best and optimizer.N, and no player's name before them."""
    kept: list[FitState] = []
    whole = Net()
    fit_one(whole, batches, on_epoch=kept.append)
    names = {name.split(".")[0] for name in kept[1].tensors}
    assert names == {"model", "ema", "optimizer"}
    assert {"optimizer.0.exp_avg", "optimizer.0.exp_avg_sq", "optimizer.0.step"} <= set(kept[1].tensors)
    old = save({n: t.contiguous() for n, t in kept[1].tensors.items()}, {"epoch": "2", "history": '[{"epoch": 1}, {}]'})
    (tmp_path / "state.safetensors").write_bytes(old)
    resumed = Net()
    fit_one(resumed, batches, state=read_state(tmp_path / "state.safetensors"))
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in whole.state_dict().items())


@pytest.mark.parametrize("stop", [1, 3])
def test_a_killed_fit_goes_on_to_the_same_weights_to_the_bit(tmp_path: Path, stop: int) -> None:
    whole = Net()
    fit_one(whole, batches, SETTINGS)

    class KilledError(Exception):
        pass

    def store(state: FitState) -> None:
        write_state(tmp_path / "state.safetensors", state)
        if state.epoch == stop:
            raise KilledError

    with pytest.raises(KilledError):
        fit_one(Net(), batches, SETTINGS, on_epoch=store)
    resumed = Net()
    state = fit_one(resumed, batches, SETTINGS, state=read_state(tmp_path / "state.safetensors"))
    assert len(state.history) == 4
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_the_module_ends_with_the_average_not_the_last_weights() -> None:
    module = Net()
    state = fit_one(module, batches, SETTINGS)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state.averaged()[name])
    assert not torch.equal(state.tensors["model.head.weight"], state.tensors["ema.head.weight"])


def test_validation_sees_the_averaged_weights_and_leaves_the_training_ones() -> None:
    seen: list[torch.Tensor] = []

    def validate(modules: dict[str, nn.Module]) -> dict[str, float]:
        (module,) = modules.values()
        assert not module.training
        seen.append(module.state_dict()["head.weight"].clone())
        return {"auc": 0.5}

    measured = Net()
    state = fit_one(measured, batches, SETTINGS, validate=validate)
    silent = Net()
    fit_one(silent, batches, SETTINGS)
    assert torch.equal(seen[-1], state.averaged()["head.weight"])
    assert torch.equal(measured.state_dict()["head.weight"], silent.state_dict()["head.weight"])
    assert state.history[0]["auc"] == 0.5


def test_one_stamp_that_is_not_finite_stops_the_fit() -> None:
    def broken(epoch: int) -> Iterator[Batch]:
        for k, batch in enumerate(batches(epoch)):
            if k == 2:
                batch["image"][7, 0, 0, 0] = np.nan
            yield batch

    with pytest.raises(DataError, match=r"loss is not finite.*step=2"):
        fit_one(Net(), broken, SETTINGS)


def test_an_empty_epoch_is_refused() -> None:
    with pytest.raises(DataError, match="an epoch has no batch"):
        fit_one(Net(), lambda epoch: iter(()), SETTINGS)


def test_a_broken_state_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, FitState(1, {"model.a": torch.zeros(3)}, [{"epoch": 1}]))
    assert read_state(path).history == [{"epoch": 1}]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ModelError, match=r"delete it to start anew.*state\.safetensors"):
        read_state(path)


def test_the_learning_rate_rises_linearly_then_falls_to_zero() -> None:
    settings = OptimSettings(epochs=10, learning_rate=1.0, warmup_fraction=0.1)
    rates = [learning_rate_at(step, 200, settings) for step in range(201)]
    np.testing.assert_allclose(rates[:20], np.arange(1, 21) / 20)
    assert np.argmax(rates) in (19, 20)
    assert (np.diff(rates[20:]) <= 0).all()
    assert rates[110] == pytest.approx(0.5)
    assert rates[200] == pytest.approx(0.0)


def test_frozen_tensors_stay_for_their_epochs_and_then_move() -> None:
    start = {name: tensor.clone() for name, tensor in Net().state_dict().items()}
    frozen = ["layers.0.weight", "layers.0.bias"]
    for epochs, moved in ((1, False), (2, True)):
        module = Net()
        settings = OptimSettings(epochs=epochs, learning_rate=0.02, ema_decay=0.0, frozen_epochs=1)
        fit_one(module, batches, settings, frozen=frozen)
        assert torch.equal(module.state_dict()["layers.0.weight"], start["layers.0.weight"]) != moved
        assert not torch.equal(module.state_dict()["head.weight"], start["head.weight"])


def test_a_killed_fit_that_monitors_goes_on_to_the_same_best_weights(tmp_path: Path) -> None:
    settings = OptimSettings(epochs=4, learning_rate=0.02, monitor="rating", patience=2)
    ratings = [0.5, 0.9, 0.7, 0.6]

    def validate_from(epoch: int):
        numbers = iter(ratings[epoch:])
        return lambda modules: {"rating": next(numbers)}

    whole = Net()
    state = fit_one(whole, batches, settings, validate=validate_from(0))
    assert len(state.history) == 4
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, state.best()[name])
    half = fit_one(
        Net(), batches, settings, validate=validate_from(0), on_epoch=lambda s: write_state(tmp_path / f"{s.epoch}", s)
    )
    assert half.epoch == 4
    resumed = Net()
    fit_one(resumed, batches, settings, state=read_state(tmp_path / "3"), validate=validate_from(3))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name])


def test_a_number_that_is_not_measured_cannot_be_monitored() -> None:
    settings = OptimSettings(epochs=1, monitor="auk")
    with pytest.raises(DataError, match=r"monitored number is not measured.*auk"):
        fit_one(Net(), batches, settings)


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"optimizer": "adam", "schedule": "constant"}])
def test_other_arithmetic_and_optimizers_learn_too(options: dict[str, str]) -> None:
    settings = OptimSettings(epochs=3, learning_rate=0.02, **options)
    history = fit_one(Net(), batches, settings).history
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_any_loss_and_forward_will_do() -> None:
    def images(epoch: int) -> Iterator[Batch]:
        for batch in batches(epoch):
            yield {"image": batch["image"], "target": batch["image"] * 2}

    module = nn.Sequential(nn.Conv2d(2, 2, 1))
    settings = OptimSettings(epochs=6, learning_rate=0.1, ema_decay=0.5)
    player = Player(
        module=module,
        loss=supervised(lambda outputs, batch: ((outputs - batch["target"]) ** 2).mean()),
        forward=lambda turn: {OUT: turn.networks["model"](turn.batch["image"]) + turn.batch["image"]},
    )
    state = fit([player], {"train": images}, settings, steps=STEPS)
    assert state.history[-1]["loss"] < 0.05


@pytest.mark.parametrize(
    ("monitor", "best"), [("auc", 0), ("accuracy", 0), ("val_loss", 1), ("val_rmse", 1), ("mae_vortex_mass_msun", 1)]
)
def test_patience_counts_from_the_lowest_error_and_the_highest_area(monitor: str, best: int) -> None:
    history = [{monitor: 5.0}, {monitor: 1.0}, {monitor: 3.0}]
    assert stops(history, monitor, 2) is (best == 0)


def test_patience_does_not_count_before_an_epoch() -> None:
    history = [{"auc": 0.9}, {"auc": 0.8}, {"auc": 0.7}]
    assert stops(history, "auc", 1) and not stops(history, "auc", 1, 3)
    assert stops([*history, {"auc": 0.6}], "auc", 1, 3) and not stops([*history, {"auc": 0.95}], "auc", 1, 3)
