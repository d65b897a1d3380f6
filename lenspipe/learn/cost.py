"""What a network costs: trained numbers, and multiply-adds of one stamp."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """Numbers that are trained, or were fitted."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, n_channel: int, stamp_px: int, n_feature: int = 0) -> int:
    """
    Multiply-adds of convolutions and matrix products for one stamp; other arithmetic is not counted.

    Examples
    --------
    >>> multiply_adds(nn.Conv2d(2, 3, 5, padding=2), 2, 10)
    15000
    """
    inputs = [torch.zeros(1, n_channel, stamp_px, stamp_px)]
    if n_feature:
        inputs.append(torch.zeros(1, n_feature))
    was_training = module.training
    module.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    module.train(was_training)
    return int(counter.get_total_flops()) // 2
