"""Describe stamps without labels: most of a stamp is hidden, and is to be told from the rest (masked autoencoding)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.errors import ModelError
from lenspipe.learn.batches import per_stamp, shown_to_network
from lenspipe.learn.losses import Loss, Tensors, mean_of
from lenspipe.learn.objectives.contract import Array
from lenspipe.learn.objectives.embed import EmbedByTask, embed_settings
from lenspipe.learn.order import Rows
from lenspipe.learn.players import MAIN, OUT, Player, Turn
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.world import World
from lenspipe.nn.families.patch_transformer import attending
from lenspipe.nn.network import PatchNetwork

if TYPE_CHECKING:
    from lenspipe.learn.job import TrainJob


class MaskedPatches(EmbedByTask):
    """Hidden patches are told from those that are seen (He et al. 2022)."""

    method = "mae"
    n_view = 1

    def check_network(self, module: nn.Module, settings: TrainSettings) -> None:
        """Refuse a family that does not see a stamp patch by patch."""
        if not isinstance(module, PatchNetwork):
            raise ModelError(
                "mae hides patches from a network of patches: --model patch-transformer; others take simclr or byol",
                got=type(module).__name__,
            )

    def losses(self, settings: TrainSettings) -> Mapping[str, Loss]:
        """``hidden``: the mean square of what was hidden."""
        return {"hidden": mean_of}

    def players(
        self, job: TrainJob, module: nn.Module, *, wrap: Callable[[nn.Module], nn.Module], loaded: Collection[str]
    ) -> list[Player]:
        """One: the network with its decoder, which is thrown away."""
        assert isinstance(module, PatchNetwork)
        asked, device = embed_settings(job.settings), next(module.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seed)
            whole = Hidden(module, job.card.n_channel, asked.size, asked.hidden).to(device)
        loss, frozen = self.loss(job.settings), [f"network.{name}" for name in loaded]

        def told(turn: Turn) -> Tensors:
            image = turn.batch["image"]
            return {OUT: turn.networks[MAIN](image, torch.rand(len(image), module.n_patch, device=image.device))}

        return [
            Player(
                module=whole,
                network=wrap(whole),
                frozen=frozen,
                forward=told,
                loss=lambda outputs, turn: loss(outputs[OUT], turn.batch),
            )
        ]

    def outputs_on(self, job: TrainJob, module: nn.Module, rows: Rows, world: World) -> Array:
        """
        Embeddings and error ``(n, size + 1)`` of rows in their order: of the whole stamp, and of what is hidden of it.

        Without its decoder, as after the training, a network gives no error, and it is 0.
        """

        def both(sky: Tensor, number: int) -> Tensor:
            image = shown_to_network(job, sky)
            if not isinstance(module, Hidden):
                found: Tensor = module(image)
                return torch.cat([found, torch.zeros(len(found), 1, device=found.device)], dim=1)
            drawn = torch.Generator().manual_seed(1_000_003 * job.seed + number)
            draw = torch.rand(len(image), module.network.n_patch, generator=drawn).to(image.device)
            return torch.cat([module.network(image), module(image, draw)[:, None]], dim=1)

        return per_stamp(job, rows, world, both)


class Hidden(nn.Module):
    """
    A network of patches with a decoder of what it does not see.

    The decoder has the tokens of the patches that are seen at their places, one blank token at all others, and the
    embedding as a token of its own, so that this learns to say what a stamp is like; there the paper has a class token.
    """

    def __init__(self, network: PatchNetwork, n_channel: int, size: int, hidden: float) -> None:
        super().__init__()
        width, n = network.width, network.n_patch
        self.network, self.n_seen = network, max(1, round((1 - hidden) * n))
        self.vector, self.blank = nn.Linear(size, width), nn.Parameter(torch.zeros(width))
        self.place = nn.Parameter(torch.zeros(n, width))
        nn.init.normal_(self.place, std=0.1)
        self.layers, self.out = attending(width, 1), nn.Linear(width, n_channel * network.patch**2)

    def forward(self, stamps: Tensor, draw: Tensor) -> Tensor:
        """
        Mean square of the hidden patches of each stamp ``(n,)``.

        Parameters
        ----------
        stamps : Tensor (n, channel, y, x)
        draw : Tensor (n, patch)
            The patches with the smallest numbers are seen.
        """
        network = self.network
        keep = draw.argsort(dim=1)[:, : self.n_seen]
        tokens = network.tokens(stamps, keep)
        there = keep[:, :, None].expand(-1, -1, tokens.shape[2])
        filled = self.blank.to(tokens.dtype).expand(len(stamps), network.n_patch, -1).scatter(1, there, tokens)
        vector = self.vector(network.forward_head(tokens.mean(dim=1)))
        back = self.out(self.layers(torch.cat([vector[:, None], filled + self.place], dim=1))[:, 1:])
        square = ((back - patches_of(stamps, network.patch)) ** 2).mean(dim=2)
        hidden = torch.ones_like(square).scatter(1, keep, 0.0)
        error: Tensor = (square * hidden).sum(dim=1) / hidden.sum(dim=1).clamp(min=1)
        return error


def patches_of(stamps: Tensor, patch: int) -> Tensor:
    """Patches of stamps filled up with empty sky, line by line: ``(n, channel, y, x)`` to ``(n, patch, number)``."""
    edge = -stamps.shape[-1] % patch
    return functional.unfold(functional.pad(stamps, (0, edge, 0, edge)), patch, stride=patch).transpose(1, 2)
