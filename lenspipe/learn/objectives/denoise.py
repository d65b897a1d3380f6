"""Take noise off images: the network learns from pairs of a short and a deep exposure of the same sky."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lenspipe.errors import ConfigError, DataError, ModelError
from lenspipe.learn.augment_batch import VIEWS_ONLY
from lenspipe.learn.batches import as_network_takes, on_device, order_of
from lenspipe.learn.denoise.losses import LOSSES, huber, l1
from lenspipe.learn.denoise.pairs import Sky, joined, pair_batch, random_skies
from lenspipe.learn.denoise.skies import N_CORRELATION, cutout_skies
from lenspipe.learn.fit import Batch, Stream
from lenspipe.learn.losses import Loss, Tensors
from lenspipe.learn.measure import bounded, mean_interval
from lenspipe.learn.objectives.contract import Array, Chance, Objective, no_targets
from lenspipe.learn.order import Rows, in_turn
from lenspipe.learn.settings import DenoiseSettings, InputSettings, LabelSettings, TrainSettings
from lenspipe.learn.truth import Answers, Truth
from lenspipe.learn.world import World
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.nn.outputs import Denoise
from lenspipe.stamps.format import ImageSpec, StampSet
from lenspipe.stats.curves import Z95

if TYPE_CHECKING:
    from lenspipe.learn.job import TrainJob

PATCH_PX = 64
OF_STRETCH = ("stretch", "band_scales", "alpha", "q", "mix", "standardise", "smooth_residual", "high_pass_px")
UNUSED = (*OF_STRETCH, "features", "stamp_px")
"""Settings of the input that a denoiser has no use for: it takes patches in units of their noise."""
COLUMNS = ("l1", "huber", "l1_of_input", "huber_of_input", "ratio", "loss")
"""What is kept of each validation pair."""


@dataclass(frozen=True, eq=False)
class Skies:
    """Skies to draw pairs from, in place of the stamps of a data set."""

    train: tuple[Sky, ...]
    """To train on."""
    check: Batch
    """Pairs to measure on, as `lenspipe.learn.denoise.pairs.pair_batch` gives them; their places are the job's rows."""


class DenoiseImages(Objective):
    """
    Noise off images.

    Stamps of a data set are the deep exposures, and are made noisier as they are read; other skies (`Skies`), such as
    repeated frames, come by `lenspipe.learn.denoise.train.train_on_skies`.
    """

    outputs = Denoise
    metric = "noise_left"
    chance = Chance("noise_left", 1.0)
    augment = VIEWS_ONLY
    balanced = False
    channels_last = True

    def check(self, settings: TrainSettings) -> None:
        """Refuse what stretches or augments stamps: patches are in units of their noise, and turned."""
        self.loss(settings)
        default = InputSettings()
        if given := [name for name in UNUSED if getattr(settings.input, name) != getattr(default, name)]:
            raise ConfigError("a denoiser takes its input in units of the noise: leave out", input=",".join(given))
        if settings.augment is not None:
            raise ConfigError("a denoiser's patches are turned, and nothing else: leave out the table augment")

    def answers(self, data: StampSet, settings: LabelSettings, train: NDArray[np.bool_]) -> Answers:
        """All rows, whatever they show."""
        no_targets(settings, self.task)
        return Answers(np.ones(data.n, bool), np.full(data.n, -1, np.int16))

    def card_outputs(self, truth: Truth, settings: TrainSettings) -> Denoise:
        """An image, for the ratios of exposure times that it was trained with."""
        return Denoise(exposure_ratios=_denoise(settings).ratios)

    def stretch(self, settings: InputSettings, band_scales: tuple[float, ...]) -> Stretch:
        """None: the network takes units of the noise."""
        return Stretch(name="linear", band_scales=(1.0,) * len(band_scales), alpha=1.0, q=1.0)

    def shape(self, card: ModelCard) -> tuple[int, ...]:
        """An image of the card's bands."""
        return len(card.bands), card.stamp_px, card.stamp_px

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """Those of `lenspipe.learn.denoise.losses`."""
        return LOSSES

    def begin(
        self, stamps_njy: NDArray[np.float32], settings: TrainSettings, truth: Truth, spec: ImageSpec, seed: int
    ) -> Any:
        """Correlation ``(5, 5)`` of the noise of neighbouring pixels, which the noise that is added must have too."""
        side, patch = stamps_njy.shape[-1], _denoise(settings).patch_px
        if patch is not None and patch > side:
            raise ConfigError("denoise.patch_px must not exceed the stamps", got=patch, stamps_px=side)
        skies = cutout_skies(list(stamps_njy[:N_CORRELATION]))
        _refuse_flat(skies)
        return skies[0].correlation

    def streams(self, job: TrainJob, world: World) -> dict[str, Stream]:
        """Pairs; batch ``k`` of an epoch is drawn from (seed, epoch, k)."""
        return {"train": lambda epoch: self._pairs(job, world, epoch)}

    def prepare(self, job: TrainJob, world: World, stream: str, batch: Batch, epoch: int, step: int) -> Tensors:
        """Pairs on the device."""
        tensors = on_device(batch, world.device)
        return tensors | {"image": as_network_takes(job, tensors["image"])}

    def outputs_on(self, job: TrainJob, module: nn.Module, rows: Rows, world: World) -> Array:
        """`COLUMNS` ``(n, 6)`` of a pair of each row, which is the same in every epoch; of all workers."""
        l1_of, huber_of, loss_of = (torch.vmap(loss) for loss in (l1, huber, self.loss(job.settings)))
        found = [np.empty((0, len(COLUMNS)))]
        with torch.inference_mode():
            for batch in self._checks(job, rows, world):
                pairs = self.prepare(job, world, "check", batch, 0, 0)
                done = module(pairs["image"]).float()
                short, ratio = pairs["image"][:, : done.shape[1]], pairs["image"][:, -1, 0, 0]
                numbers = [l1_of(done, pairs), huber_of(done, pairs), l1_of(short, pairs), huber_of(short, pairs)]
                found.append(torch.stack([*numbers, ratio, loss_of(done, pairs)], dim=1).double().cpu().numpy())
        return world.gather(np.concatenate(found))

    def measure(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, Any]:
        """
        Mean absolute and mean Huber difference from the deep image over ``1 - 1 / ratio``, of output and input.

        Normal intervals of the mean. ``noise_left`` is the mean absolute difference of the output over that of the
        input: 1 where nothing was learnt; its interval is of the delta method, of pairs.
        """
        facts: dict[str, Any] = {}
        for name, values in zip(COLUMNS[:4], outputs.T, strict=False):
            facts |= bounded(name, float(values.mean()), mean_interval(values))
        left = facts["l1"] / facts["l1_of_input"]
        apart = outputs[:, 0] - left * outputs[:, 2]
        half = Z95 * float(apart.std()) / len(apart) ** 0.5 / facts["l1_of_input"]
        return bounded("noise_left", left, (max(0.0, left - half), left + half)) | facts

    def numbers(self, outputs: Array, truth: Truth, rows: Rows, loss: Loss) -> dict[str, Any]:
        """Loss and measured numbers of the validation pairs."""
        if not np.isfinite(outputs).all():
            raise ModelError("the network gave numbers that are not finite: lower the learning rate", n=len(outputs))
        return {"val_loss": float(outputs[:, -1].mean())} | self.measure(outputs, truth, rows)

    def pictures(self, outputs: Array, truth: Truth, rows: Rows) -> dict[str, bytes]:
        """``noise_left.png``: what is left of each pair's difference, by ratio of exposure times."""
        from lenspipe.report.plots import noise_left_plot

        return {"noise_left.png": noise_left_plot(outputs[:, 4], outputs[:, 0] / outputs[:, 2])}

    def _pairs(self, job: TrainJob, world: World, epoch: int) -> Iterator[Batch]:
        n = job.settings.sampling.batch_size // world.size
        if isinstance(job.beside, Skies):
            skies = job.beside.train
            for step in range(job.steps):
                rng = self._generator(job, world, epoch, step)
                yield _pair_batch(job, random_skies(skies, n, rng), rng)
            return
        share = order_of(job, epoch).share(world.rank, world.size)
        for step, (rows, stamps) in enumerate(world.feed(job.index, share, batch_size=n)):
            yield _pair_batch(job, _stamp_skies(job, rows, stamps), self._generator(job, world, epoch, step))

    def _checks(self, job: TrainJob, rows: Rows, world: World) -> Iterator[Batch]:
        n = job.settings.sampling.batch_size
        if isinstance(job.beside, Skies):
            share = np.array_split(rows, world.size)[world.rank]
            for start in range(0, len(share), n):
                yield {name: array[share[start : start + n]] for name, array in job.beside.check.items()}
            return
        window = job.index.window(job.settings.sampling.window_mib * 2**20)
        order = in_turn(rows, job.index.group_starts, window).share(world.rank, world.size)
        for some, stamps in world.feed(job.index, order, batch_size=n):
            skies = zip(some, _stamp_skies(job, some, stamps), strict=True)
            pairs = [_pair_batch(job, [sky], np.random.default_rng([job.seed, 29, int(row)])) for row, sky in skies]
            yield joined(pairs)

    @staticmethod
    def _generator(job: TrainJob, world: World, epoch: int, step: int) -> np.random.Generator:
        return np.random.default_rng([job.seed, 23, epoch, step, *([world.rank] if world.rank else [])])


def _denoise(settings: TrainSettings) -> DenoiseSettings:
    return settings.denoise or DenoiseSettings()


def _pair_batch(job: TrainJob, skies: Any, rng: np.random.Generator) -> Batch:
    asked = _denoise(job.settings)
    size = asked.patch_px or min(PATCH_PX, job.card.stamp_px)
    return pair_batch(skies, rng, ratios=asked.ratios, size_px=size, drawn=asked.drawn)


def _stamp_skies(job: TrainJob, rows: Rows, stamps: NDArray[np.float32]) -> list[Sky]:
    """Raise `DataError` where a stamp has no noise: it cannot be said how much to add."""
    chosen = stamps if job.bands is None else stamps[:, list(job.bands)]
    skies = cutout_skies(list(chosen), correlation=job.beside)
    _refuse_flat(skies, rows)
    return skies


def _refuse_flat(skies: Sequence[Sky], rows: Rows | None = None) -> None:
    for k, sky in enumerate(skies):
        if not (sky.sky_rms_njy > 0).all():
            raise DataError(
                "a stamp has no noise in a band: a denoiser cannot learn from it",
                row=None if rows is None else int(rows[k]),
            )
