"""What a network costs: trained numbers, and multiply-adds of one stamp."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lenspipe.nn.network import GeneratorNetwork


def count_parameters(module: nn.Module) -> int:
    """Numbers that are trained, or were fitted."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, n_channel: int, stamp_px: int, n_feature: int = 0) -> int:
    """
    Multiply-adds of convolutions and matrix products for one stamp; other arithmetic is not counted.

    Of a generator those of one call, of which some families make several per stamp.

    Examples
    --------
    >>> multiply_adds(nn.Conv2d(2, 3, 5, padding=2), 2, 10)
    15000
    """
    inputs: tuple[torch.Tensor, ...] = (torch.zeros(1, n_channel, stamp_px, stamp_px),)
    if isinstance(module, GeneratorNetwork):
        inputs = module.example(1)
    elif n_feature:
        inputs = (*inputs, torch.zeros(1, n_feature))
    own = copy.deepcopy(module).eval().requires_grad_(False)  # the counter hooks what a layer takes that has gradients
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        own(*inputs)
    return int(counter.get_total_flops()) // 2
