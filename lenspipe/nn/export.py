"""Plain export: a trained equivariant network as an ordinary PyTorch module with the same outputs."""

from __future__ import annotations

import torch
from torch import nn

from lenspipe.nn.card import ModelCard
from lenspipe.nn.families.equivariant import EquivariantNet
from lenspipe.nn.families.plain_equivariant import FourierELU, PlainEquivariant

PLAIN_FAMILY = "plain-equivariant"


def to_plain(module: nn.Module) -> nn.Module:
    """
    The ordinary form of a network, in evaluation mode.

    Kernels are expanded and batch norms folded into them, so outputs agree to rounding (1e-5). Networks that are
    ordinary already are returned as they are. The weights are copies; gradients do not flow back.
    """
    if not isinstance(module, EquivariantNet):
        return module
    plan = module.plan
    plain = PlainEquivariant(module.n_channel, module.stamp_px, module.n_out, plan, module.pooling, module.masked)
    device = next(module.parameters()).device
    with torch.no_grad():
        targets = [layer for layer in plain.modules() if isinstance(layer, nn.Conv2d)]
        for target, convolution, norm in zip(targets, module.convolutions, module.norms, strict=True):
            scale, shift = norm.scale_and_shift()  # type: ignore[operator]
            kernel = convolution.kernel()  # type: ignore[operator]
            target.weight.copy_(kernel * scale[:, None, None, None])
            target.bias.copy_(shift)  # type: ignore[union-attr]
    sources = [layer for layer in module.activations if isinstance(layer, FourierELU)]
    for layer, source in zip([m for m in plain.modules() if isinstance(m, FourierELU)], sources, strict=True):
        layer.load_state_dict(source.state_dict())
    plain.head.load_state_dict(module.head.state_dict())
    return plain.to(device).eval()


def plain_card(card: ModelCard, module: nn.Module) -> ModelCard:
    """
    The card of `to_plain` of a module: family and settings of the plain form.

    What it was trained as is ``training["family"]``. The settings of its training stay whole under
    ``training["settings"]``, those of the family among them as ``model``; of a card without any, the family's are kept
    as ``training["family_settings"]``. The card of an ordinary network is returned as it is.
    """
    if not isinstance(module, EquivariantNet):
        return card
    plan = module.plan
    settings: dict[str, int | float | bool | str | list[int]] = {
        "fields": list(plan.fields),
        "sizes": list(plan.sizes),
        "samples": list(plan.samples),
        "kernels": list(plan.kernels),
        "pooled": list(plan.pooled),
        "gated": plan.gated,
        "pooling": module.pooling,
        "mask": module.masked,
    }
    training = {**card.training, "family": card.family}
    if "settings" not in training:
        training["family_settings"] = card.settings
    return card.model_copy(update={"family": PLAIN_FAMILY, "settings": settings, "training": training})
