"""One worker of a training among several, and how it is fed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lenspipe.learn.order import Rows
from lenspipe.learn.stream import batches_of

Feed = Callable[..., Iterator[tuple[Rows, NDArray[np.float32]]]]
Array = NDArray[np.float64]


def _alone(array: Array) -> Array:
    return array


def _own(module: nn.Module) -> nn.Module:
    return module


def _nothing(module: nn.Module) -> None:
    return None


@dataclass(frozen=True)
class World:
    """One worker among several, and how it is fed and reaches the others; alone by default."""

    rank: int = 0
    """Number of this worker."""
    size: int = 1
    """Workers in all."""
    device: str = "cpu"
    """Where it trains."""
    feed: Feed = batches_of
    """Batches of (rows, stamps) in an order: `lenspipe.learn.stream.batches_of`, or one over Ray Data."""
    wrap: Callable[[nn.Module], nn.Module] = _own
    """The module as it is called, so that gradients are averaged over workers."""
    gather: Callable[[Array], Array] = _alone
    """Rows of all workers, in the order of their numbers."""
    same_buffers: Callable[[nn.Module], None] = _nothing
    """Gives every worker the first one's batch-norm statistics."""
