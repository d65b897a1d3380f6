"""A network that sees a stamp as a graph: what is measured in patches or at peaks, and distances between them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lenspipe.errors import ModelError
from lenspipe.nn.blur import blurred
from lenspipe.nn.heads import RowSum
from lenspipe.nn.network import Network
from lenspipe.nn.registry import register

SIGMAS_PX = (0.8, 1.6, 3.2)
"""Widths of the Gaussians under which a place is measured."""
N_RADIAL = 8
"""Numbers that a distance is told by."""
NODES = ("patches", "peaks")


class Graph(Network):
    """
    Message passing over nodes of a stamp; nothing but distances says where a node is, so turns change nothing.

    A node has, for each channel and width of a Gaussian, brightness, length of the gradient and Laplacian, which
    neither turns nor mirror images change (Koenderink & van Doorn 1987); of a patch their means and maxima. Nodes see
    each other through continuous filters (SchNet, Schuett et al. 2017, equation 2) ::

        h_i <- h_i + U(sum_j F(|x_i - x_j|, |x_i|, |x_j|) * V h_j)

    F gives a weight per feature from the three sides of the triangle of two nodes and the stamp's centre, so that it
    can tell an arc that is opposite another from one beside it; the original has |x_i - x_j| alone.

    Plain torch and not PyTorch Geometric: all pairs of at most some hundred nodes are one product of matrices, which
    sparse edges, gathered and scattered, are slower than on any device.

    Parameters
    ----------
    n_channel, stamp_px, n_out : int
    width, depth : int
        Features of a node, and rounds of messages.
    nodes : str
        ``patches`` of the whole stamp, or ``peaks``: local maxima of the smoothed mean of channels, brightest first.
    patch_px : int
        Side of a patch; one more where the stamp's side is odd and this is not, or the reverse.
    n_peak : int
        Peaks at most.
    dropout : float
    """

    at: Tensor
    grid: Tensor
    inside: Tensor
    triangle: Tensor

    def __init__(
        self,
        n_channel: int,
        stamp_px: int,
        n_out: int,
        width: int,
        depth: int,
        nodes: str,
        patch_px: int,
        n_peak: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if nodes not in NODES:
            raise ModelError("nodes of a graph are patches or peaks", got=nodes)
        self.patch = patch_px + (stamp_px - patch_px) % 2
        if not 2 <= self.patch <= stamp_px // 2:
            raise ModelError(
                "a patch has at least 2 pixels and at most half of the stamp's side",
                patch_px=patch_px,
                stamp_px=stamp_px,
            )
        self.peaks, self.n_peak = nodes == "peaks", n_peak
        n_side = stamp_px // self.patch
        n_side -= (stamp_px - n_side * self.patch) % 2
        self.edge = (stamp_px - n_side * self.patch) // 2
        half = (stamp_px - 1) / 2
        line = (torch.arange(n_side) - (n_side - 1) / 2) * self.patch / half
        place = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).reshape(-1, 2)
        inside = place.norm(dim=1) <= 1.0  # the corners of a stamp are no part of what a turn keeps
        self.register_buffer("inside", inside, persistent=False)
        self.register_buffer("at", place[inside], persistent=False)
        self.register_buffer("triangle", _triangle(place[inside]), persistent=False)
        pixel = (torch.arange(stamp_px) - half) / half
        grid = torch.stack(torch.meshgrid(pixel, pixel, indexing="ij"), dim=-1).reshape(-1, 2)
        self.register_buffer("grid", grid, persistent=False)
        n_measured = (1 if self.peaks else 2) * 3 * len(SIGMAS_PX) * n_channel + 1
        self.enter = nn.Sequential(nn.Linear(n_measured, width), nn.LayerNorm(width), nn.ReLU())
        self.rounds = nn.ModuleList(_Round(width) for _ in range(depth))
        self.num_features = 3 * width
        self.head = RowSum(self.num_features, n_out, dropout)

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to mean, mean near the centre and maximum of the nodes' features."""
        measured = invariants(stamps)
        if self.peaks:
            nodes, place, there = self._at_peaks(stamps, measured)
            triangle = _triangle(place)
        else:
            nodes, place, there, triangle = self._in_patches(measured), self.at, None, self.triangle
        radius = place.norm(dim=-1)
        shared = radius.expand(len(stamps), -1)[..., None].to(nodes.dtype)
        h = self.enter(torch.cat([nodes, shared], dim=-1))
        if there is not None:
            h = h * there[..., None]
        for one in self.rounds:
            h = one(h, triangle, there)
        weight = torch.ones_like(h[..., 0]) if there is None else there
        near = weight * torch.exp(-4.0 * radius.to(h.dtype) ** 2)
        means = [(h * w[..., None]).sum(1) / w.sum(1, keepdim=True).clamp(min=1e-6) for w in (weight, near)]
        return torch.cat([*means, h.amax(dim=1)], dim=1)

    def _in_patches(self, measured: Tensor) -> Tensor:
        side = measured.shape[-1] - self.edge
        inner = measured[:, :, self.edge : side, self.edge : side]
        pooled = torch.cat([functional.avg_pool2d(inner, self.patch), functional.max_pool2d(inner, self.patch)], dim=1)
        return pooled.flatten(2).transpose(1, 2)[:, self.inside]

    def _at_peaks(self, stamps: Tensor, measured: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        smooth = blurred(stamps.mean(dim=1, keepdim=True), SIGMAS_PX[0])
        top = functional.max_pool2d(smooth, 3, 1, 1)
        found = torch.where(smooth >= top, smooth, -math.inf).flatten(1)
        value, place = found.topk(min(self.n_peak, found.shape[1]), dim=1)
        there = torch.isfinite(value).to(measured.dtype)
        flat = measured.flatten(2).transpose(1, 2)
        nodes = torch.gather(flat, 1, place[..., None].expand(-1, -1, flat.shape[2]))
        return nodes, self.grid[place], there


class _Round(nn.Module):
    """One round of messages."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.filter = nn.Sequential(nn.Linear(N_RADIAL + 2, width), nn.Tanh(), nn.Linear(width, width))
        self.send = nn.Linear(width, width)
        self.update = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, triangle: Tensor, there: Tensor | None) -> Tensor:
        """Features of nodes ``(n, node, width)``; triangles ``([n,] node, node, N_RADIAL + 2)``."""
        weight, sent = self.filter(triangle), self.send(h)
        if there is not None:
            sent = sent * there[..., None]
        told = torch.einsum("ijc,njc->nic" if weight.ndim == 3 else "nijc,njc->nic", weight, sent)
        told = told / h.shape[1] ** 0.5
        out: Tensor = h + self.update(told)
        return out if there is None else out * there[..., None]


def invariants(stamps: Tensor) -> Tensor:
    """
    What no turn changes of each pixel: brightness, length of the gradient and Laplacian, under three Gaussians.

    Parameters
    ----------
    stamps : Tensor (n, channel, y, x)

    Returns
    -------
    Tensor (n, 9 channel, y, x)
        Derivatives in units of the Gaussian's width.
    """
    found = []
    for sigma in SIGMAS_PX:
        smooth = blurred(stamps, sigma)
        padded = functional.pad(smooth, (1, 1, 1, 1), mode="replicate")
        right, left = padded[..., 1:-1, 2:], padded[..., 1:-1, :-2]
        down, up = padded[..., 2:, 1:-1], padded[..., :-2, 1:-1]
        slope = ((right - left) ** 2 + (down - up) ** 2 + 1e-8).sqrt() / 2
        bend = (right + left) + (down + up) - 4 * smooth
        found += [smooth, sigma * slope, sigma**2 * bend]
    return torch.cat(found, dim=1)


def _triangle(place: Tensor) -> Tensor:
    """Sides of the triangles of two nodes ``(..., node, 2)`` and the centre, ``(..., node, node, N_RADIAL + 2)``."""
    apart = (place[..., :, None, :] - place[..., None, :, :]).norm(dim=-1)
    steps = torch.linspace(0, 2, N_RADIAL, device=place.device, dtype=place.dtype)
    near = torch.exp(-(((apart[..., None] - steps) * (N_RADIAL - 1) / 2) ** 2))
    radius = place.norm(dim=-1)
    one, two = radius[..., :, None].expand_as(apart), radius[..., None, :].expand_as(apart)
    return torch.cat([near, one[..., None], two[..., None]], dim=-1)


@register("graph")
def graph(
    n_channel: int,
    stamp_px: int,
    n_out: int = 1,
    *,
    width: int = 48,
    depth: int = 3,
    nodes: str = "patches",
    patch_px: int = 4,
    n_peak: int = 32,
    dropout: float = 0.2,
) -> Network:
    """Patches or peaks as nodes, filters of their distances between them; invariant to turns and mirror images."""
    return Graph(n_channel, stamp_px, n_out, width, depth, nodes, patch_px, n_peak, dropout)
