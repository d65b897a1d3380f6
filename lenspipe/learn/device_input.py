"""The network's input made on the device: `lenspipe.nn.preprocess.network_input` in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from lenspipe.nn.card import Stretch
from lenspipe.nn.preprocess import low_pass
from lenspipe.nn.smooth_lens import smooth_residual


def device_input(surface_brightness: Tensor, stretch: Stretch) -> Tensor:
    """
    Scale bands, mix them into channels, stretch, take off their blur, standardise; `network_input` to float32 rounding.

    Parameters
    ----------
    surface_brightness : Tensor (n, band, y, x), float32
        nJy / arcsec^2; with ``smooth_residual`` the bands alone, or followed by their residuals.
    stretch : Stretch
        Rule of the card.

    Returns
    -------
    Tensor (n, channel, y, x), float32
    """
    scales = torch.tensor(stretch.band_scales, dtype=torch.float32, device=surface_brightness.device)
    if stretch.smooth_residual:
        scales = scales.repeat(2)
        if surface_brightness.shape[1] < len(scales):
            surface_brightness = torch.cat([surface_brightness, smooth_residual(surface_brightness)], dim=1)
    x = surface_brightness * scales[:, None, None]
    if stretch.mix is not None:
        x = torch.einsum("cb,nbyx->ncyx", torch.tensor(stretch.mix, dtype=torch.float32, device=x.device), x)
    alpha, q = stretch.alpha, stretch.q
    if stretch.name == "humvi":
        # below 1e-6 the ratio equals alpha to float32 precision
        intensity = (x.mean(dim=-3, keepdim=True).abs() * q).clamp(min=1e-6)
        out = (x * (torch.asinh(alpha * intensity) / intensity)).clamp(0.0, 1.0)
    elif stretch.name == "asinh":
        out = torch.asinh(alpha * q * x) / q
    elif stretch.name == "log":
        out = torch.sign(x) * torch.log1p(alpha * q * x.abs()) / q
    elif stretch.name == "sqrt":
        out = 2 * alpha * torch.sign(x) * (torch.sqrt(1 + q * x.abs()) - 1) / q
    else:
        out = alpha * x
    if stretch.high_pass_px:
        rows, columns = (torch.tensor(low_pass(n, stretch.high_pass_px), device=x.device) for n in out.shape[-2:])
        sharp = out - rows @ out @ columns.T
        out = torch.cat([out, sharp], dim=-3) if stretch.high_pass_beside else sharp
    if stretch.channel_scales is not None:
        out = out * torch.tensor(stretch.channel_scales, dtype=torch.float32, device=out.device)[:, None, None]
    if stretch.standardise:
        axes = (-3, -2, -1)
        spread = out.std(dim=axes, keepdim=True, correction=0)
        out = (out - out.mean(dim=axes, keepdim=True)) / torch.where(spread > 0, spread, torch.ones_like(spread))
    return out
