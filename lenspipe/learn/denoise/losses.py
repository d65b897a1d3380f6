"""Losses of a denoiser on pairs of a short and a deep exposure (`lenspipe.learn.denoise.pairs`)."""

from __future__ import annotations

import torch
from torch import Tensor

from lenspipe.learn.losses import Loss, Tensors

KL_WEIGHT = 0.5


def l1(outputs: Tensor, batch: Tensors) -> Tensor:
    """
    Mean absolute difference of the output and the deep image, over ``1 - 1 / ratio``.

    The division makes one scale of all ratios: what is compared is the network's sky with that of the exposures that
    it has not seen.
    """
    return ((outputs - batch["target"]).abs() / batch["gain"]).mean()


def l2(outputs: Tensor, batch: Tensors) -> Tensor:
    """Mean square difference, in the same units; single pixels count up to 30 sigma, as a bright star's noise would."""
    return (((outputs - batch["target"]) / batch["gain"]).clamp(-30, 30) ** 2).mean()


def huber(outputs: Tensor, batch: Tensors) -> Tensor:
    """
    Half the square difference up to one sigma and linear above, in the same units.

    On empty sky it is `l2`, whose least is the mean, so what is faint is not called nothing as `l1`'s median does;
    where it is bright a pixel counts no more than in `l1`.
    """
    apart = (outputs - batch["target"]) / batch["gain"]
    return torch.nn.functional.huber_loss(apart, torch.zeros_like(apart))


def l1_kl(outputs: Tensor, batch: Tensors) -> Tensor:
    """
    `l1` and the divergence of Kullback and Leibler of where the light is (Vojtekova et al. 2021 find it best).

    The paper does not say how an image becomes a distribution. Here it is the softplus of each band in units of its
    noise, over its sum; the divergence from output to target, a pixel times the number of pixels, times `KL_WEIGHT`.
    """

    def log_light(image: Tensor) -> Tensor:
        light = torch.nn.functional.softplus(image).clamp(min=1e-6)
        return torch.log(light / light.sum(dim=(-2, -1), keepdim=True))

    target, output = log_light(batch["target"]), log_light(outputs)
    divergence = (target.exp() * (target - output)).sum(dim=(-2, -1)).mean()
    return l1(outputs, batch) + KL_WEIGHT * divergence


def noise2noise(outputs: Tensor, batch: Tensors) -> Tensor:
    """
    Mean square difference from the exposures not seen (Lehtinen et al. 2018): of those pairs no clean image is known.

    The deep image holds the short one with weight ``1 / ratio``, and so does the output by construction
    (`lenspipe.nn.families.unet`): what is left is the network's sky against an independent one, whose mean it learns.
    """
    return l2(outputs, batch)


LOSSES: dict[str, Loss] = {"huber": huber, "l1": l1, "l2": l2, "l1+kl": l1_kl, "noise2noise": noise2noise}
"""By name, the default one first."""
