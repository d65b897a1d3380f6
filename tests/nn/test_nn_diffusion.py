"""The family `diffusion`: every part of a stamp is made with a look at what stands opposite."""

from __future__ import annotations

import pytest
import torch

from lenspipe.nn.registry import build

SIDE = 64


def seen_from(x: int, y: int) -> torch.Tensor:
    """How much each noisy pixel counts for one pixel of what is found beneath the noise, ``(SIDE, SIDE)``."""
    torch.manual_seed(0)
    module = build("diffusion", 1, SIDE, 1, width=8)
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    noisy = torch.randn(1, 1, SIDE, SIDE, requires_grad=True)
    # group norms let everything count a little: what is more than that comes by convolutions
    found = module(noisy, torch.ones(1), torch.zeros(1, 0))
    (slope,) = torch.autograd.grad(found[0, 0, y, x], noisy)
    return slope[0, 0].abs()


@pytest.mark.parametrize(("x", "y"), [(6, 10), (54, 20)])
def test_what_is_opposite_counts_and_what_is_as_far_elsewhere_does_not(x, y):
    count = seen_from(x, y)
    around = torch.nn.functional.avg_pool2d(count[None, None], 5, 1, 2)[0, 0]
    opposite = around[SIDE - 1 - y, SIDE - 1 - x]
    beside = around[SIDE - 1 - y, x], around[y, SIDE - 1 - x]
    assert opposite > 3 * max(beside)
