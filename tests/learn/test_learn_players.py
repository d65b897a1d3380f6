"""Players that step in turn come to their equilibrium; a second stream teaches what labels alone do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lenspipe.errors import ConfigError, DataError, ModelError
from lenspipe.learn.fit import Batch, FitState, fit, read_state, write_state
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import Player, Turn
from lenspipe.learn.settings import OptimSettings

EPOCHS, STEPS, MEAN, SPREAD = 5, 60, 2.0, 0.5


class KilledError(Exception):
    pass


def resumes(run: Callable[..., FitState], path: Path, stop: int) -> None:
    """Killed after an epoch and resumed, a run ends as an unbroken one: every tensor of its state, to the bit."""
    whole = run()

    def store(state: FitState) -> None:
        write_state(path, state)
        if state.epoch == stop:
            raise KilledError

    with pytest.raises(KilledError):
        run(on_epoch=store)
    resumed = run(state=read_state(path))
    assert set(resumed.tensors) == set(whole.tensors)
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())
    assert resumed.history == whole.history


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(1.0))

    def forward(self, noise: Tensor) -> Tensor:
        return self.mean + self.spread * noise


def draws(epoch: int) -> Iterator[Batch]:
    rng = np.random.default_rng([1, epoch])
    for _ in range(STEPS):
        real, noise = rng.normal(MEAN, SPREAD, (64, 1)), rng.normal(size=(64, 1))
        yield {"real": real.astype(np.float32), "noise": noise.astype(np.float32)}


def critic_outputs(turn: Turn) -> Tensors:
    critic, fake = turn.networks["critic"], turn.networks["model"](turn.batch["noise"]).detach()
    return {"real": critic(turn.batch["real"]), "fake": critic(fake), "sample": fake}


def critic_loss(outputs: Tensors, turn: Turn) -> Tensor:
    """A difference of means, and no slope above one between the two samples (Petzka et al. 2018)."""
    part = torch.rand_like(outputs["sample"])
    between = (part * turn.batch["real"] + (1 - part) * outputs["sample"]).requires_grad_()
    (slope,) = torch.autograd.grad(turn.networks["critic"](between).sum(), between, create_graph=True)
    return outputs["fake"].mean() - outputs["real"].mean() + 10 * ((slope.norm(dim=1) - 1).clamp(min=0) ** 2).mean()


def adversaries(sign: float = 1.0, **more) -> tuple[Generator, FitState]:
    """A generator of numbers against a critic with two steps to its one."""
    torch.manual_seed(4)
    generator = Generator()
    critic = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    rates = OptimSettings(epochs=EPOCHS, learning_rate=0.05, weight_decay=0.0, ema_decay=0.95)
    players = [
        Player(
            module=generator,
            forward=lambda turn: {"said": turn.networks["critic"](turn.networks["model"](turn.batch["noise"]))},
            loss=lambda outputs, turn: -sign * outputs["said"].mean(),
            betas=(0.0, 0.9),
            every=2,
        ),
        Player(
            name="critic",
            module=critic,
            forward=critic_outputs,
            loss=critic_loss,
            optim=rates.model_copy(update={"ema_decay": 0.0, "schedule": "constant"}),
            betas=(0.0, 0.9),
        ),
    ]
    return generator, fit(players, {"draws": draws}, rates, steps=STEPS, seed=2, **more)


@pytest.fixture(scope="module")
def played() -> tuple[Generator, FitState]:
    return adversaries()


def test_two_players_in_turn_come_to_the_equilibrium(played) -> None:
    """A generator that deceives every critic draws from the distribution of the real numbers."""
    generator, state = played
    assert abs(generator.mean.item() - MEAN) < 0.1
    assert abs(abs(generator.spread.item()) - SPREAD) < 0.1
    assert {"loss", "loss_critic", "learning_rate"} <= set(state.history[-1])
    assert float(state.tensors["optimizer.0.step"]) == EPOCHS * STEPS // 2
    assert float(state.tensors["critic/optimizer.0.step"]) == EPOCHS * STEPS


def test_a_generator_that_helps_its_critic_goes_away() -> None:
    generator, _ = adversaries(sign=-1.0)
    assert abs(generator.mean.item() - MEAN) > 1


def test_two_players_go_on_to_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    resumes(lambda **more: adversaries(**more)[1], tmp_path / "state", stop=2)


def test_a_player_without_an_average_keeps_its_last_weights(played) -> None:
    _, state = played
    for name, tensor in state.of("critic", "model").items():
        assert torch.equal(tensor, state.averaged("critic")[name])
    assert not torch.equal(state.of("model", "model")["mean"], state.averaged()["mean"])


def test_a_state_of_other_players_is_refused(played) -> None:
    generator, state = played
    player = Player(module=generator, name="generator", loss=lambda outputs, turn: outputs["out"].mean())
    with pytest.raises(ModelError, match=r"another network.*player='generator'"):
        fit([player], {"draws": draws}, OptimSettings(epochs=EPOCHS + 1), steps=STEPS, state=state)
    with pytest.raises(ConfigError, match=r"names of their own.*'generator,generator'"):
        fit([player, player], {"draws": draws}, OptimSettings(), steps=STEPS)


# what is to be found is faint; in the labelled survey something bright comes with it, elsewhere it does not
FAINT, BRIGHT, NOISE = 1.0, 3.0, 0.4


def sources(rng: np.random.Generator, *, elsewhere: bool, n: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two views of each source ``(n, 2)``, and whether it is a lens; elsewhere what is bright differs between views."""
    lens = rng.integers(0, 2, n).astype(np.float32)
    sign = 2 * lens - 1
    views = []
    for _ in range(2):
        bright = rng.choice([-1.0, 1.0], n) if elsewhere else sign
        clean = np.stack([FAINT * sign, BRIGHT * bright], axis=1)
        views.append((clean + rng.normal(0, NOISE, (n, 2))).astype(np.float32))
    return views[0], views[1], lens


def labelled(epoch: int) -> Iterator[Batch]:
    rng = np.random.default_rng([7, epoch])
    for _ in range(20):
        one, _, lens = sources(rng, elsewhere=False)
        yield {"image": one, "label": lens}


def unlabelled(epoch: int) -> Iterator[Batch]:
    rng = np.random.default_rng([8, epoch])
    for _ in range(6):
        one, two, _ = sources(rng, elsewhere=True)
        yield {"image": one, "image_1": two}


def mean_teacher(weight: float, *, seen: list | None = None, **more) -> tuple[float, FitState]:
    """Accuracy elsewhere of a network held to labels and, on a second stream, to its own average's other view."""
    torch.manual_seed(5)
    network = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))

    def forward(turn: Turn) -> Tensors:
        pair = turn.streams["unlabelled"]
        if seen is not None:
            seen.append(pair["image"].sum().item())
        with torch.no_grad():
            teacher = functional_call(network, dict(turn.averaged["model"]), pair["image_1"])
        call = turn.networks["model"]
        return {"label": call(turn.batch["image"]), "student": call(pair["image"]), "teacher": teacher}

    def loss(outputs: Tensors, turn: Turn) -> Tensor:
        apart = torch.sigmoid(outputs["student"]) - torch.sigmoid(outputs["teacher"])
        entropy = nn.functional.binary_cross_entropy_with_logits(outputs["label"], turn.batch["label"])
        return entropy + weight * (apart**2).mean()

    optim = OptimSettings(epochs=8, learning_rate=0.02, ema_decay=0.9)
    player = Player(module=network, forward=forward, loss=loss)
    state = fit([player], {"train": labelled, "unlabelled": unlabelled}, optim, steps=20, **more)
    one, _, lens = sources(np.random.default_rng(99), elsewhere=True, n=2000)
    with torch.inference_mode():
        said = network.eval()(torch.from_numpy(one)).numpy() > 0
    return float((said == lens).mean()), state


def test_an_unlabelled_stream_teaches_what_labels_alone_do_not() -> None:
    """Labels alone: near the half of a coin. The faint feature alone would reach 99.4 %."""
    assert mean_teacher(0.0)[0] < 0.65
    assert mean_teacher(10.0)[0] > 0.9


def test_two_streams_go_on_to_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    resumes(lambda **more: mean_teacher(10.0, **more)[1], tmp_path / "state", stop=5)


def test_a_stream_that_ends_first_begins_again_with_other_batches() -> None:
    seen: list[float] = []
    mean_teacher(10.0, seen=seen)
    assert len(seen) == 8 * 20  # the labelled stream makes the epoch
    assert len(set(seen)) == len(seen)
    assert seen[6] == pytest.approx(float(next(iter(unlabelled(8)))["image"].sum()), rel=1e-5)


def test_a_second_stream_without_batches_is_refused() -> None:
    player = Player(module=nn.Linear(2, 1), loss=lambda outputs, turn: outputs["out"].mean())
    with pytest.raises(DataError, match=r"epoch of a stream has no batch.*stream='beside'"):
        fit([player], {"train": labelled, "beside": lambda epoch: iter(())}, OptimSettings(), steps=20)
