"""U-Nets that take noise off an image: families ``unet`` and ``unet-small``."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.nn.network import ImageNetwork
from lenspipe.nn.registry import register

SLOPE = 0.2
BOUND_SIGMA = 10.0
"""No pixel is changed by more than this many times its noise."""

SINGLE_PIXEL_SIGMA = 4.0


class UNet(ImageNetwork):
    """
    An image in units of its noise and the exposure ratio in; the image that more exposure would show out.

    The output for a ratio ``r`` is ``x - (1 - 1/r) n(x)``. With ``n`` the expected noise of the image, that is the
    expected mean of ``r`` exposures of which ``x`` is one: the noise of one exposure stays in the mean with the weight
    ``1 / r``. A ratio of 1 is the image itself, whatever the weights. ``n`` is bounded by `BOUND_SIGMA`.

    The estimate of the noise is that of Vojtekova et al. (2021, MNRAS 503, 3204): convolutions in pairs with leaky
    ReLU of slope 0.2, maximum pooling, transpose convolutions up, skips. Ours differs: it gives the noise and not the
    image; it sees `compress`; the ratio is a plane of the input (as ``1 - 1/r``) and not of the lowest upsampling;
    and what is added up to the noise begins at `single_pixel_noise`, so that the maps need to hold the sky only, which
    is smooth, and not a copy of the noise of every pixel.

    Parameters
    ----------
    n_channel : int
        Image bands and one plane of the exposure ratio.
    n_out : int
        Image bands.
    widths : tuple of int
        Maps of each level, the resolution halved from one to the next.
    fold : int
        Side of the blocks of pixels that the first level's grid has for pixels.
    """

    def __init__(self, n_channel: int, n_out: int, widths: tuple[int, ...], fold: int) -> None:
        super().__init__()
        if n_channel != n_out + 1:
            raise ModelError(
                "a denoiser takes the bands of its image and one plane of the exposure ratio",
                n_channel=n_channel,
                n_out=n_out,
            )
        self.n_band, self.fold, self.num_features, self.bound_sigma = n_out, fold, widths[-1], BOUND_SIGMA
        down = [_pair(a, b) for a, b in itertools.pairwise([n_channel, *widths])]
        if fold > 1:
            down[0][0] = nn.Conv2d(n_channel, widths[0], 3 * fold, stride=fold, padding=fold)
        self.down = nn.ModuleList(down)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, 2) for a, b in zip(widths[-2::-1], widths[::-1], strict=False)
        )
        self.join = nn.ModuleList(_pair(2 * a, a) for a in widths[-2::-1])
        self.noise = nn.ConvTranspose2d(widths[0], n_out, fold, fold)
        nn.init.zeros_(self.noise.weight)
        assert self.noise.bias is not None
        nn.init.zeros_(self.noise.bias)
        self.step_px = fold * 2 ** (len(widths) - 1)
        steps = [fold * 2**level for level in range(len(widths))]
        reach = 2 * (sum(steps) + sum(steps[:-1])) + self.step_px
        self.reach_px = -(-reach // self.step_px) * self.step_px

    def forward_features(self, images: Tensor) -> Tensor:
        """``(n, band + 1, y, x)`` to the mean of each of the deepest maps."""
        return self._levels(images)[-1].mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """``(n, band + 1, y, x)``, the last plane the exposure ratio, to ``(n, band, y, x)``; any size."""
        height, width = images.shape[-2:]
        image, gain = images[:, : self.n_band], 1 - 1 / images[:, self.n_band :]
        kept = self._levels(images)
        maps = kept[-1]
        for up, join, skip in zip(self.up, self.join, kept[-2::-1], strict=True):
            maps = join(torch.cat([skip, up(maps)[..., : skip.shape[-2], : skip.shape[-1]]], dim=1))
        noise = self.noise(maps)[..., :height, :width] + single_pixel_noise(image)
        return image - gain * (BOUND_SIGMA * torch.tanh(noise / BOUND_SIGMA))

    def _levels(self, images: Tensor) -> list[Tensor]:
        """Maps of each level, from the finest to the deepest."""
        height, width = images.shape[-2:]
        seen = torch.cat([compress(images[:, : self.n_band]), 1 - 1 / images[:, self.n_band :]], dim=1)
        maps = nn.functional.pad(seen, (0, -width % self.fold, 0, -height % self.fold))
        kept = []
        for level, block in enumerate(self.down):
            # no padding to a multiple of the step: 65 pixels are 33, 17, 9 and not 36, 18, 9
            maps = block(nn.functional.max_pool2d(maps, 2, ceil_mode=True) if level else maps)
            kept.append(maps)
        return kept


def compress(image: Tensor) -> Tensor:
    """``sign(x) ln(1 + |x|)``: one near the noise, a logarithm where it is bright; a tenth of the time of asinh."""
    return torch.copysign(torch.log1p(image.abs()), image)


def single_pixel_noise(image: Tensor) -> Tensor:
    """
    What to take for the noise of a pixel that is seen alone: all of a faint one, little of a bright one.

    ``x / (1 + (x / 4)^4)``: a sky that is mostly empty and sometimes bright. The maps correct it.
    """
    part = image * (1 / SINGLE_PIXEL_SIGMA)
    part = part * part
    return image / (1 + part * part)


def _pair(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Conv2d(n_out, n_out, 3, padding=1),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


@register("unet", n_channel=4, stamp_px=64, n_out=3)
def unet(n_channel: int, stamp_px: int, n_out: int = 1) -> UNet:
    """Levels of 32, 64, 128, 256 and 512 maps (Vojtekova et al. 2021): a denoiser, any size of image."""
    return UNet(n_channel, n_out, (32, 64, 128, 256, 512), 1)


@register("unet-small", n_channel=4, stamp_px=64, n_out=3)
def unet_small(n_channel: int, stamp_px: int, n_out: int = 1, *, width: int = 16) -> UNet:
    """Three levels of ``width``, twice and four times that, on blocks of 2 x 2 pixels: a denoiser for CPUs."""
    return UNet(n_channel, n_out, (width, 2 * width, 4 * width), 2)
