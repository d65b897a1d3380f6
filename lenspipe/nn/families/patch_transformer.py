"""A transformer of patches, whose features are the mean of its tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.nn.heads import RowSum
from lenspipe.nn.network import Network, PatchNetwork
from lenspipe.nn.registry import register


def attending(width: int, depth: int) -> nn.Module:
    """Layers of tokens ``(n, token, width)`` that attend to each other (Vaswani et al. 2017, NeurIPS 30)."""
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)


class Patches(nn.Module):
    """Patches of ``patch`` pixels, each with its place, attend to each other."""

    def __init__(self, n_channel: int, stamp_px: int, patch: int, width: int, depth: int) -> None:
        super().__init__()
        self.edge, n = -stamp_px % patch, -(-stamp_px // patch)
        self.into = nn.Conv2d(n_channel, width, patch, patch)
        self.place = nn.Parameter(torch.zeros(n * n, width))
        nn.init.normal_(self.place, std=0.1)
        self.layers = attending(width, depth)

    def tokens(self, stamps: Tensor, keep: Tensor | None = None) -> Tensor:
        """``(n, channel, y, x)`` to ``(n, patch, width)``; of the patches ``keep`` alone where they are given."""
        padded = functional.pad(stamps, (0, self.edge, 0, self.edge))
        seen = self.into(padded).flatten(2).transpose(1, 2) + self.place
        if keep is not None:
            seen = seen.gather(1, keep[:, :, None].expand(-1, -1, seen.shape[2]))
        found: Tensor = self.layers(seen)
        return found


class PatchTransformer(PatchNetwork):
    """Vision transformer (Dosovitskiy et al. 2021, ICLR) of small stamps, without a class token."""

    def __init__(
        self, n_channel: int, stamp_px: int, n_out: int, width: int, patch: int, depth: int, dropout: float
    ) -> None:
        super().__init__()
        self.patch, self.width, self.num_features = patch, width, width
        self.patches = Patches(n_channel, stamp_px, patch, width, depth)
        self.n_patch = len(self.patches.place)
        self.head = RowSum(width, n_out, dropout)

    def tokens(self, stamps: Tensor, keep: Tensor | None = None) -> Tensor:
        """As of `PatchNetwork`."""
        return self.patches.tokens(stamps, keep)


@register("patch-transformer")
def patch_transformer(
    n_channel: int,
    stamp_px: int,
    n_out: int = 1,
    *,
    width: int = 64,
    patch: int = 5,
    depth: int = 4,
    dropout: float = 0.0,
) -> Network:
    """Vision transformer of small stamps, which ``--method mae`` learns without labels."""
    return PatchTransformer(n_channel, stamp_px, n_out, width, patch, depth, dropout)
