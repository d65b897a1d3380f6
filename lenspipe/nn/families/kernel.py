"""Kernel machines: a weighted sum of Gaussian kernels between a stamp and landmark stamps; fitted by scikit-learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.nn.network import Network
from lenspipe.nn.registry import register


class KernelMachine(Network):
    """
    ``sum_m coef_m exp(-gamma |x - landmark_m|^2) + intercept`` of the pooled, flattened stamp.

    Kernel logistic regression and support vectors on Nystroem features, and regression on kernel principal
    components, all take this form (`lenspipe.learn.classical`). Sums run in float64: the coefficients are large and
    of both signs. Its features are the kernels with each landmark, between 0 and 1.
    """

    landmarks: Tensor
    gamma: Tensor

    def __init__(self, n_channel: int, stamp_px: int, n_out: int, n_landmark: int, pool: int) -> None:
        super().__init__()
        if not 1 <= pool <= stamp_px:
            raise ModelError("pool must be between 1 and the stamp's side", pool=pool, stamp_px=stamp_px)
        self.num_features = n_landmark
        self.pool = nn.AvgPool2d(pool)
        self.register_buffer("landmarks", torch.zeros(n_landmark, n_channel * (stamp_px // pool) ** 2))
        self.register_buffer("gamma", torch.ones((), dtype=torch.float64))
        self.coef = nn.Parameter(torch.zeros(n_out, n_landmark, dtype=torch.float64), requires_grad=False)
        self.intercept = nn.Parameter(torch.zeros(n_out, dtype=torch.float64), requires_grad=False)

    def pooled(self, stamps: Tensor) -> Tensor:
        """Stamps ``(n, channel, y, x)`` as the kernel sees them, ``(n, feature)`` float32."""
        flat: Tensor = self.pool(stamps.contiguous()).flatten(1)
        return flat

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to the kernel with each landmark, float64."""
        x, marks = self.pooled(stamps).double(), self.landmarks.double()
        square = (x**2).sum(dim=1, keepdim=True) + (marks**2).sum(dim=1) - 2 * x @ marks.T
        return torch.exp(-self.gamma * square.clamp(min=0))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Kernels ``(n, n_landmark)`` to ``(n, n_out)``, or ``(n,)`` for one output, float32."""
        if pre_logits:
            return features
        out = (features @ self.coef.T + self.intercept).float()
        return out[:, 0] if out.shape[1] == 1 else out


def _kernel_machine(
    n_channel: int,
    stamp_px: int,
    n_out: int = 1,
    *,
    n_landmark: int = 256,
    pool: int = 2,
    n_component: int = 64,
    c: float = 1.0,
    n_fit: int = 50_000,
) -> Network:
    """Kernel machine by scikit-learn: ``c``, ``n_component`` and ``n_fit`` say how it is fitted."""
    return KernelMachine(n_channel, stamp_px, n_out, n_landmark, pool)


for _name in ("kernel-logistic", "kernel-svm", "kernel-pca"):
    register(_name, by_settings=True)(_kernel_machine)
