"""Pixels onto another grid of the same centre: cubic convolution that neither shifts nor aliases."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

KERNEL_REACH = 2
"""Half-width of the cubic kernel, in pixels of the coarser of the two grids."""


@functools.lru_cache(maxsize=32)
def cubic_matrix(n_in: int, scale_in: float, n_out: int, scale_out: float) -> NDArray[np.float32]:
    """Rows of weights ``(n_out, n_in)``, each of unit sum, that map a line of pixels onto another concentric grid."""
    at = (np.arange(n_out) - (n_out - 1) / 2) * scale_out / scale_in + (n_in - 1) / 2
    stretch = max(1.0, scale_out / scale_in)
    t = np.abs(np.arange(n_in)[None, :] - at[:, None]) / stretch
    near = (1.5 * t - 2.5) * t**2 + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    weights = np.where(t < 1, near, np.where(t < KERNEL_REACH, far, 0.0))
    total = weights.sum(axis=1, keepdims=True)
    # a row mostly outside the stamp is empty sky: normalising its few outer, negative weights would blow them up
    weights = np.where(total > 0.5, weights / np.where(total > 0.5, total, 1.0), 0.0)
    matrix: NDArray[np.float32] = weights.astype(np.float32)
    matrix.setflags(write=False)
    return matrix
