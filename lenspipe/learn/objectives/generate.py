"""Make stamps that were not taken: a generator, its opponent where it has one, and what its stamps look like."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lenspipe.errors import ConfigError, DataError, ModelError
from lenspipe.learn.augment_batch import VIEWS_ONLY, only_views
from lenspipe.learn.batches import epoch_batches, shown_to_network
from lenspipe.learn.fit import Batch, Stream
from lenspipe.learn.generate.contract import Game
from lenspipe.learn.losses import Loss, mean_of
from lenspipe.learn.objectives.contract import Array, Chance, Objective
from lenspipe.learn.order import in_turn
from lenspipe.learn.players import Player
from lenspipe.learn.settings import GenerateSettings, InputSettings, LabelSettings, TrainSettings
from lenspipe.learn.truth import Answers, Truth
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.nn.network import GeneratorNetwork
from lenspipe.nn.outputs import Generate
from lenspipe.nn.preprocess import demand_inverse
from lenspipe.stamps.format import ImageSpec, StampSet
from lenspipe.stamps.generated import GENERATOR
from lenspipe.stats.generated import profile_distance

if TYPE_CHECKING:
    from lenspipe.learn.job import TrainJob
    from lenspipe.learn.order import Rows
    from lenspipe.learn.world import World

N_SCALE = 64
"""Training stamps by which the network's unit is set."""
N_DRAWN = 1000
"""Training stamps whose numbers the card keeps."""
N_SHOWN = 24


class GenerateStamps(Objective):
    """A generator of one label, or of several that it is told."""

    outputs = Generate
    metric = "profile_distance"
    chance = Chance("profile_distance", 1.0)
    augment = VIEWS_ONLY
    balanced = False

    def __init__(self, game: Game) -> None:
        self.game = game

    def check(self, settings: TrainSettings) -> None:
        """Refuse what a generator would learn although no stamp has it, and a stretch that cannot be undone."""
        super().check(settings)
        if settings.augment is not None and not only_views(settings.augment):
            raise ConfigError("a generator learns its augmentation: only augment.dihedral goes with the task generate")
        if settings.input.features:
            raise ConfigError(
                "what a generator is told are labels.targets: leave out input.features",
                features=",".join(settings.input.features),
            )
        self.stretch(settings.input, ())

    def stretch(self, settings: InputSettings, band_scales: tuple[float, ...]) -> Stretch:
        """The stretch; raises `ConfigError` where it cannot be undone."""
        stretch = super().stretch(settings, band_scales)
        demand_inverse(stretch)
        return stretch

    def answers(self, data: StampSet, settings: LabelSettings, train: NDArray[np.bool_]) -> Answers:
        """Place of each label among ``labels.classes``, or all of the training split; targets where there are any."""
        label = data.column("label")
        usable = np.array([value is not None for value in label], bool)
        if GENERATOR in data.schema.names:
            usable &= np.array([value is None for value in data.column(GENERATOR)], bool)
        there = sorted(set(label[train & usable]))
        classes = settings.classes or tuple(there)
        if unknown := [name for name in classes if name not in there]:
            raise ConfigError(
                "labels.classes that no training stamp has", unknown=",".join(unknown), has=",".join(there)
            )
        if not classes:
            raise DataError("the training split has no labelled stamps: what is made has the label of its training")
        number = {name: k for k, name in enumerate(classes)}
        labels = np.array([number.get(value, -1) for value in label], np.int16)
        return Answers((labels >= 0) & usable, labels, classes, settings.targets, may_be_missing=True)

    def card_outputs(self, truth: Truth, settings: TrainSettings) -> Generate:
        """Classes with their shares, and numbers of some training stamps, from which those of new ones are drawn."""
        counts = np.bincount(truth.labels[truth.train], minlength=len(truth.classes))
        rows = np.sort(np.random.default_rng(0).permutation(truth.train)[:N_DRAWN])
        spreads, means = np.array(truth.target_spreads), np.array(truth.target_means)
        values = truth.targets[rows] * spreads + means
        drawn = [
            (float(truth.labels[row]), *(float(f"{v:.6g}") if np.isfinite(v) else None for v in of))
            for row, of in zip(rows, values, strict=True)
        ]
        return Generate(
            classes=truth.classes,
            shares=tuple(float(n / counts.sum()) for n in counts),
            targets=truth.target_names,
            target_means=truth.target_means,
            target_spreads=truth.target_spreads,
            drawn=tuple(drawn) if truth.target_names else (),
        )

    def network_settings(self, outputs: Generate) -> dict[str, int]:
        """How many numbers the network is told."""
        return {"n_condition": outputs.n_condition} if outputs.n_condition else {}

    def example(self, card: ModelCard, module: nn.Module) -> tuple[Tensor, ...]:
        """What the network takes in training."""
        assert isinstance(module, GeneratorNetwork)
        return module.example(2)

    def check_network(self, module: nn.Module, settings: TrainSettings) -> None:
        """Refuse a family that makes nothing, or is not learnt so."""
        if not isinstance(module, GeneratorNetwork):
            raise ModelError(
                "this family makes no stamps: choose dcgan, diffusion or another", got=type(module).__name__
            )
        self.game.check_network(module, settings.generate or GenerateSettings())

    def shape(self, card: ModelCard) -> tuple[int, ...]:
        """A stamp."""
        return (card.n_channel, card.stamp_px, card.stamp_px)

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """The game's own, by its name."""
        return {self.game.name: mean_of}

    def begin(
        self, stamps_njy: NDArray[np.float32], settings: TrainSettings, truth: Truth, spec: ImageSpec, seed: int
    ) -> NDArray[np.float32]:
        """Some training stamps, whose mean and spread become the network's unit."""
        return stamps_njy[:N_SCALE]

    def streams(self, job: TrainJob, world: World) -> dict[str, Stream]:
        """Stamps, and what each is told to be."""
        return {"train": lambda epoch: _told(job, epoch_batches(job, world, epoch))}

    def players(
        self, job: TrainJob, module: nn.Module, *, wrap: Callable[[nn.Module], nn.Module], loaded: Collection[str]
    ) -> list[Player]:
        """The generator, and its opponent where it has one."""
        assert isinstance(module, GeneratorNetwork)
        raw = torch.from_numpy(job.beside).to(module.mean.device)
        seen = shown_to_network(job, raw / job.card.pixel_scale_arcsec**2)
        module.mean.copy_(seen.mean((0, 2, 3))[:, None, None])
        module.spread.copy_(seen.transpose(0, 1).flatten(1).std(1)[:, None, None])
        settings = _settings(job)
        found = self.game.players(module, wrap(module), settings, job.settings.optim, job.seed)
        return [replace(player, network=player.network if own is None else wrap(own)) for player, own in found]

    def outputs_on(self, job: TrainJob, module: nn.Module, rows: Rows, world: World) -> Array:
        """Stretched stamps that are made beside those of the first rows, ``(n, 2, channel, y, x)``."""
        assert isinstance(module, GeneratorNetwork) and isinstance(job.card.outputs, Generate)
        device, size = module.mean.device, job.settings.sampling.batch_size
        some = rows[: _settings(job).watched]
        share = in_turn(some, job.index.group_starts, job.index.window(2**26)).share(world.rank, world.size)
        noise = np.random.default_rng([job.seed, 71]).standard_normal((len(some), module.n_noise), np.float32)
        place = {int(row): k for k, row in enumerate(some)}
        out = [np.empty((0, 2, *self.shape(job.card)))]
        with torch.inference_mode():
            for part, stamps in world.feed(job.index, share, batch_size=size):
                bands = stamps if job.bands is None else stamps[:, list(job.bands)]
                real = shown_to_network(job, torch.from_numpy(bands).to(device) / job.card.pixel_scale_arcsec**2)
                asked = job.card.outputs.condition(job.truth.labels[part], job.truth.targets[part])
                drawn = torch.from_numpy(noise[[place[int(row)] for row in part]]).to(device)
                made = module.generate(drawn, torch.from_numpy(asked).to(device))
                out.append(torch.stack([made, real], dim=1).double().cpu().numpy())
        return world.gather(np.concatenate(out))

    def numbers(self, outputs: Array, truth: Truth, rows: Rows, loss: Loss) -> dict[str, Any]:
        """What `measure` gives; a generator has no loss of single stamps."""
        if not np.isfinite(outputs).all():
            raise ModelError("the generator made numbers that are not finite: lower the learning rate", n=len(outputs))
        return self.measure(outputs, truth, rows)

    def measure(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, Any]:
        """How far the brightness of rings is from that of the validation stamps; see `profile_distance`."""
        value, (low, high) = profile_distance(outputs[:, 0], outputs[:, 1])
        name = "profile_distance"
        return {name: value, f"{name}_low": low, f"{name}_high": high}

    def pictures(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, bytes]:
        """``made.png``: what is made, in rows, above stamps of the validation split."""
        from lenspipe.report.plots import side_by_side

        return {"made.png": side_by_side(outputs[:N_SHOWN, 0], outputs[:N_SHOWN, 1])}


def _settings(job: TrainJob) -> GenerateSettings:
    return job.settings.generate or GenerateSettings()


def _told(job: TrainJob, batches: Iterator[Batch]) -> Iterator[Batch]:
    assert isinstance(job.card.outputs, Generate)
    for batch in batches:
        yield batch | {"condition": job.card.outputs.condition(batch["label"], batch["target"])}
