"""Lenses told from themselves with their arcs bent by further small masses: an embedding, and a score of anomalies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.errors import ModelError
from lenspipe.learn.augment_batch import NONE, augment_batch
from lenspipe.learn.batches import on_device, per_stamp, shown_to_network
from lenspipe.learn.deflect_batch import LINE, PLAIN, POINTS, bent
from lenspipe.learn.fit import Batch
from lenspipe.learn.losses import Loss, Tensors
from lenspipe.learn.objectives.anomaly import RebuildStamps
from lenspipe.learn.objectives.contract import Array
from lenspipe.learn.objectives.embed import EmbedByTask, embed_settings
from lenspipe.learn.order import Rows
from lenspipe.learn.players import MAIN, OUT, Player, Turn, supervised
from lenspipe.learn.settings import DeflectSettings, TrainSettings
from lenspipe.learn.truth import Truth
from lenspipe.learn.world import World
from lenspipe.nn.network import RebuildNetwork
from lenspipe.nn.outputs import Anomaly

if TYPE_CHECKING:
    from lenspipe.learn.job import TrainJob

KINDS = (PLAIN, POINTS, LINE)
VIEWS = NONE.model_copy(update={"dihedral": True, "noise_fraction": 1.0, "noise": (0.3, 1.0)})
"""Views that keep how arcs run, with noise that hides most of how pixels were interpolated."""


class _Bent:
    """What both ways to learn share: every stamp comes plain, and bent, in the same view."""

    n_view = 2
    augment = VIEWS
    deflects = True

    def prepare(self, job: TrainJob, world: World, stream: str, batch: Batch, epoch: int, step: int) -> Tensors:
        """Plain stamps as ``image``, bent ones as ``image_1`` with ``kind``."""
        tensors = on_device(batch, world.device)
        rng = np.random.default_rng([job.seed, 83, epoch, step, world.rank])
        plain, other, kind = copies(job, tensors["image"] / job.card.pixel_scale_arcsec**2, rng)
        return tensors | {"image": plain, "image_1": other, "kind": kind}


class Deflected(_Bent, EmbedByTask):
    """
    Each stamp comes plain and bent, by point masses or by a line of mass, and the network tells which it is.

    After CutPaste (Li et al. 2021, CVPR, 9664), whose pasted patches are here deflections: what a small mass does to an
    arc. No label is seen; stamps that hold substructure of their own come plain like all others.
    """

    method = "deflect"

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """``told-apart``: cross-entropy of the three kinds."""
        return {"told-apart": told_apart}

    def players(
        self, job: TrainJob, module: nn.Module, *, wrap: Callable[[nn.Module], nn.Module], loaded: Collection[str]
    ) -> list[Player]:
        """One: the network with a layer that reads the kind from its embedding, and is thrown away."""
        device = next(module.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seed)
            whole = Told(module, embed_settings(job.settings).size).to(device)
        loss = self.loss(job.settings)

        return [
            Player(
                module=whole,
                network=wrap(whole),
                frozen=[f"network.{name}" for name in loaded],
                forward=both_copies,
                loss=lambda outputs, turn: loss(outputs[OUT], turn.batch),
            )
        ]

    def outputs_on(self, job: TrainJob, module: nn.Module, rows: Rows, world: World) -> Array:
        """
        Embeddings and loss ``(n, size + 1)`` of rows in their order: of the stamp as it is, and of its two copies.

        Without the layer that is thrown away, as after the training, there is no loss, and it is 0.
        """

        def both(sky: Tensor, number: int) -> Tensor:
            image = shown_to_network(job, sky)
            if not isinstance(module, Told):
                found: Tensor = module(image)
                return torch.cat([found, torch.zeros(len(found), 1, device=found.device)], dim=1)
            plain, other, kind = copies(job, sky, np.random.default_rng([job.seed, 89, world.rank, number]))
            error = _each(module(torch.cat([plain, other])), kind).reshape(2, -1).mean(dim=0)
            return torch.cat([module.network(image), error[:, None]], dim=1)

        return per_stamp(job, rows, world, both)


class BentStamps(_Bent, RebuildStamps):
    """
    Normal stamps are told from the same ones bent, and what looks bent is an anomaly: one logit, by any family.

    No anomaly is needed to learn from. The error of a stamp is ``ln(1 + exp(logit))``, its cross-entropy if it were
    plain.
    """

    method = "deflect"

    def check_network(self, module: nn.Module, settings: TrainSettings) -> None:
        """Refuse an autoencoder, which gives no logit, and a score that is fitted, in which nothing is trained."""
        if isinstance(module, RebuildNetwork) or getattr(module, "fitted", False):
            raise ModelError("deflect takes a network that finds, such as small-cnn", got=type(module).__name__)

    def card_outputs(self, truth: Truth, settings: TrainSettings) -> Anomaly:
        """One logit."""
        return Anomaly(normal=settings.labels.normal, logit=True)

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """``plain-or-bent``: binary cross-entropy."""
        return {"plain-or-bent": plain_or_bent}

    def players(
        self, job: TrainJob, module: nn.Module, *, wrap: Callable[[nn.Module], nn.Module], loaded: Collection[str]
    ) -> list[Player]:
        """The network alone."""
        loss = supervised(self.loss(job.settings))
        return [Player(module=module, network=wrap(module), frozen=loaded, forward=both_copies, loss=loss)]

    def outputs_on(self, job: TrainJob, module: nn.Module, rows: Rows, world: World) -> Array:
        """Errors of rows in their order, not bent."""
        return np.logaddexp(0, super().outputs_on(job, module, rows, world))


class Told(nn.Module):
    """A network with a layer that reads the kind from its embedding."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.kind = network, nn.Linear(size, len(KINDS))

    def forward(self, images: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to logits of the kinds ``(n, 3)``."""
        out: Tensor = self.kind(self.network(images))
        return out


def both_copies(turn: Turn) -> Tensors:
    """What the network says of the plain copies, then of the bent ones."""
    return {OUT: turn.networks[MAIN](torch.cat([turn.batch["image"], turn.batch["image_1"]]))}


def copies(job: TrainJob, sky: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """
    Plain and bent copies of surface brightness as the network takes them, and what the second are bent by.

    Half of them by point masses, half by a line. Both copies of a stamp are then augmented alike, with the same noise:
    they differ in how their arcs run, and within the light in how their own noise was interpolated.
    """
    low, high = (job.settings.deflect or DeflectSettings()).radius_arcsec
    radius_px = (low / job.card.pixel_scale_arcsec, high / job.card.pixel_scale_arcsec)
    kinds = np.where(rng.permutation(len(sky)) % 2, LINE, POINTS)
    seed, seen = int(rng.integers(0, 2**62)), []
    for kind in (np.full(len(sky), PLAIN), kinds):
        copy = bent(sky, kind, rng, radius_px=radius_px, noise=job.noise)
        alike = augment_batch(copy, job.augment, np.random.default_rng(seed), noise_levels=job.noise)
        seen.append(shown_to_network(job, alike))
    return seen[0], seen[1], torch.as_tensor(kinds, device=sky.device)


def told_apart(logits: Tensor, batch: Tensors) -> Tensor:
    """Cross-entropy of logits ``(2n, 3)`` of plain copies, then of those bent by ``kind``."""
    return _each(logits, batch["kind"]).mean()


def plain_or_bent(logits: Tensor, batch: Tensors) -> Tensor:
    """Binary cross-entropy of logits ``(2n,)`` of plain copies, then of bent ones."""
    truth = torch.ones_like(logits)
    truth[: len(logits) // 2] = 0.0
    return functional.binary_cross_entropy_with_logits(logits, truth)


def _each(logits: Tensor, kind: Tensor) -> Tensor:
    truth = torch.cat([torch.full_like(kind, PLAIN), kind])
    return functional.cross_entropy(logits, truth, reduction="none")
