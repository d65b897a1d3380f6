"""A stack of convolutional autoencoders: every layer learns to give back what the layers below it give."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from lenspipe.nn.families.rebuilding import Rebuilding
from lenspipe.nn.network import RebuildNetwork
from lenspipe.nn.registry import register


class StackedAutoencoder(Rebuilding):
    """
    Layers that are each an autoencoder of the maps below, as in Masci et al. 2011 (ICANN, 52).

    There the layers are trained one after the other, and then the whole; here at the same time, each on the maps below
    as they are by then, which its error does not reach, and the whole beside them. A forward pass in training gives the
    sum of these errors, elsewhere that of the whole.
    """

    def __init__(self, n_channel: int, stamp_px: int, n_out: int, width: int, latent: int) -> None:
        super().__init__(n_channel, stamp_px, n_out, latent)
        half = (stamp_px + 1) // 2
        side, w = (half + 1) // 2, width
        down = [
            nn.Sequential(nn.Conv2d(n_channel, w, 3, 2, 1), nn.BatchNorm2d(w), nn.ReLU()),
            nn.Sequential(nn.Conv2d(w, 2 * w, 3, 2, 1), nn.BatchNorm2d(2 * w), nn.ReLU()),
            nn.Sequential(nn.Flatten(), nn.Linear(2 * w * side**2, latent)),
        ]
        up = [
            nn.Sequential(nn.Upsample(stamp_px), nn.Conv2d(w, n_channel, 3, 1, 1)),
            nn.Sequential(nn.Upsample(half), nn.Conv2d(2 * w, w, 3, 1, 1), nn.ReLU()),
            nn.Sequential(nn.Linear(latent, 2 * w * side**2), nn.Unflatten(1, (2 * w, side, side)), nn.ReLU()),
        ]
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*reversed(up))

    def forward(self, stamps: Tensor, with_latent: bool = False) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        """``(n, channel, y, x)`` to how badly each comes back ``(n,)``; in training with the errors of the layers."""
        error = ((self.rebuild(stamps) - stamps) ** 2).mean((1, 2, 3))
        if self.training:
            error = error + sum(self._of_layers(stamps))
        return error

    def _of_layers(self, stamps: Tensor) -> Iterator[Tensor]:
        below = stamps
        for down, up in zip(self.encoder.children(), reversed(list(self.decoder.children())), strict=True):
            above = down(below)
            yield ((up(above) - below) ** 2).flatten(1).mean(1)
            below = above.detach()


@register("scae")
def scae(n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 16, latent: int = 16) -> RebuildNetwork:
    """Stacked convolutional autoencoder (Masci et al. 2011), for the task anomaly."""
    return StackedAutoencoder(n_channel, stamp_px, n_out, width, latent)
