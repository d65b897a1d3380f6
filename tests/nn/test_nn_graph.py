"""The family `graph`: turns change nothing by construction, distances count, rings are told from blobs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lenspipe.errors import ModelError
from lenspipe.nn.families.graph import NODES, Graph, invariants
from lenspipe.nn.registry import build


def dots(n: int, side: int, apart: bool, seed: int) -> torch.Tensor:
    """Two dots at one distance from the centre: opposite each other, or a right angle apart; any direction."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    turn = rng.uniform(0, 2 * np.pi, n)[:, None, None]
    out = np.zeros((n, side, side))
    for angle in (0.0, np.pi if apart else np.pi / 2):
        out += 3 * np.exp(-((x - 4 * np.cos(turn + angle)) ** 2 + (y - 4 * np.sin(turn + angle)) ** 2))
    return torch.tensor(out + rng.normal(0, 0.3, out.shape), dtype=torch.float32)[:, None]


@pytest.mark.parametrize("nodes", NODES)
@pytest.mark.parametrize("side", [21, 24])
def test_turns_and_mirror_images_change_nothing_and_shifts_do(nodes, side):
    torch.manual_seed(0)
    module = build("graph", 2, side, 3, nodes=nodes, width=8).eval()
    stamps = torch.randn(4, 2, side, side)
    with torch.inference_mode():
        said = module(stamps)
        views = [module(torch.rot90(stamps, k, (2, 3))) for k in (1, 2, 3)] + [module(stamps.flip(3))]
        moved = module(stamps.roll(5, 2))
    assert max(float((view - said).abs().max()) for view in views) < 1e-5
    assert float((moved - said).abs().max()) > 1e-3


def learnt(nodes: str) -> float:
    """Accuracy on unseen stamps after some steps."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    module = build("graph", 1, 15, nodes=nodes, width=16, depth=1, patch_px=3, n_peak=8, dropout=0.0)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for step in range(30):
        stamps = torch.cat([dots(16, 15, True, 2 * step), dots(16, 15, False, 2 * step + 1)])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(module(stamps), (torch.arange(32) < 16).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        right = [(module.eval()(dots(100, 15, k, 1000 + k)) > 0).eq(k).float().mean() for k in (True, False)]
    return float(sum(right) / 2)


@pytest.mark.parametrize("nodes", NODES)
def test_it_learns_which_dots_are_opposite_each_other(nodes):
    assert learnt(nodes) > 0.9


def test_without_messages_it_does_not(monkeypatch):
    monkeypatch.setattr("torch.einsum", lambda rule, weight, sent: 0 * sent)
    assert learnt("peaks") < 0.8


def test_what_is_measured_at_a_pixel_turns_with_the_stamp():
    stamps = torch.randn(2, 1, 15, 15)
    torch.testing.assert_close(invariants(stamps.rot90(1, (2, 3))), invariants(stamps).rot90(1, (2, 3)))


def test_patches_lie_symmetric_and_what_does_not_fit_is_refused():
    module = build("graph", 1, 32, patch_px=5)
    assert isinstance(module, Graph) and module.patch == 6
    torch.testing.assert_close(module.at.sum(0), torch.zeros(2), atol=1e-5, rtol=0)
    with pytest.raises(ModelError, match="patches or peaks"):
        build("graph", 1, 32, nodes="pixels")
    with pytest.raises(ModelError, match="at least 2 pixels"):
        build("graph", 1, 9, patch_px=7)
