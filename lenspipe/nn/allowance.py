"""What a network may allocate while it is built: a card is a stranger's word, the weights beside it are bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from lenspipe.errors import ModelError

TIMES, BASE = 4, 1 << 26
"""A network of ours allocates up to twice its weights where it is built (a moving copy of them, bases of kernels)."""
_SIZED = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.eye}
_OF_TENSORS = {torch.Tensor.new_zeros, torch.Tensor.new_empty, torch.Tensor.new_ones, torch.Tensor.new_full}


class Allowance(TorchFunctionMode):
    """
    Refuses a network whose tensors come to far more than the weights that it is built for.

    Parameters
    ----------
    n_byte : int
        Size of the weights.
    of : str
        The file, for the error.

    Raises
    ------
    ModelError
        Inside the ``with``, before a tensor is allocated that goes beyond `TIMES` the weights and `BASE` bytes.
    """

    def __init__(self, n_byte: int, of: str) -> None:
        super().__init__()
        self._limit, self._of = TIMES * n_byte + BASE, of
        self._left = self._limit

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func in _SIZED or func in _OF_TENSORS:
            self._left -= _bytes(args[1:] if func in _OF_TENSORS else args, named, func is torch.eye)
            if self._left < 0:
                raise ModelError(
                    "the card asks for a network far larger than its weights: one of the two was replaced",
                    file=self._of,
                    limit_mb=self._limit >> 20,
                )
        return func(*args, **named)


def _bytes(args: tuple[Any, ...], named: dict[str, Any], square: bool) -> int:
    size = named.get("size", args[0] if args else ())
    sides = list(size) if isinstance(size, list | tuple) else [one for one in args if isinstance(one, int)]
    n = math.prod(int(side) for side in sides)
    return 4 * (n * n if square and len(sides) == 1 else n)
