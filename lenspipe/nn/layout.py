"""The order in memory of a network's kernels."""

from __future__ import annotations

import itertools

import torch
from torch import nn


def kernels_channels_last(module: nn.Module) -> None:
    """
    Put kernels ``(out, in, y, x)``, parameters and buffers, into memory with their channels last.

    As `torch.nn.Module.to` with a memory format, which refuses tensors of five axes (kernels over turns, steerable
    ones before they are expanded); these stay as they are.
    """
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
