"""Start a network from local weights: safetensors only, the first convolution adapted to the channels, a fresh head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.nn.card import PICKLES
from lenspipe.nn.network import Network

AVERAGED = ("best.", "ema.")
"""Before the names of averaged weights in a training's state: of the best epoch where one is kept, of the last."""


@dataclass(frozen=True)
class Pretrained:
    """What `load_pretrained` did."""

    loaded: tuple[str, ...]
    """Tensors of the network that come from the file."""
    adapted: tuple[str, ...]
    """Those among them whose input channels were adapted."""
    fresh: tuple[str, ...]
    """Tensors of the network that keep their fresh values, the head's among them."""
    unused: tuple[str, ...]
    """Tensors of the file that found no place."""

    def __str__(self) -> str:
        adapted = f", {self.adapted[0]} adapted to the channels" if self.adapted else ""
        rest = f"{len(self.fresh)} fresh, {len(self.unused)} of the file unused"
        return f"{len(self.loaded)} tensors loaded{adapted}, {rest}"


def load_pretrained(
    module: Network, file: str | Path, *, channels: Literal["mean", "repeat"] = "mean", head: bool = False
) -> Pretrained:
    """
    Put the weights of a local file into a network; the head stays fresh unless it is asked for.

    The file holds the tensors of one of our checkpoints (``weights.safetensors``), the state of a training
    (``state.safetensors``: its averaged weights, of equivariant networks in the form that keeps its symmetry), or those
    of a timm model; names are tried as they are, below ``trunk.``, and
    after ``network.`` (trained with a projection). A first convolution for another number of
    channels is adapted: ``mean`` gives every channel the mean over the file's channels, ``repeat`` repeats the file's
    channels in turn; both are scaled by the file's number of channels over ours, which keeps the size of the maps
    (Wightman 2019, `timm`'s own rule).

    Parameters
    ----------
    module : Network
        Changed in place.
    file : path
        A safetensors file. Nothing is ever downloaded.
    channels : str
        How input channels are adapted.
    head : bool
        Load the head as well, where its shapes are the same.

    Returns
    -------
    Pretrained
        What was loaded, adapted, left fresh, unused.

    Raises
    ------
    ModelError
        The file is a pickle, cannot be read, is not safetensors, or has fewer than half of the network's tensors
        outside the head in the right shape.
    """
    given = _read(Path(file))
    own = module.state_dict()
    heads = module.head_names()
    first = _first_convolution(module)
    loaded, adapted, taken = [], [], set()
    for name, tensor in own.items():
        if name in heads and not head:
            continue
        source = next((n for n in (name, name.removeprefix("trunk."), f"network.{name}") if n in given), None)
        if source is None:
            continue
        value = given[source]
        if value.shape != tensor.shape and name == first and _differs_in_channels(value, tensor):
            value = adapt_channels(value, tensor.shape[1], channels)
            adapted.append(name)
        if value.shape != tensor.shape:
            continue
        own[name] = value.to(tensor.dtype)
        loaded.append(name)
        taken.add(source)
    n_outside = len(own) - len(heads)
    if 2 * len(loaded) < n_outside:
        raise ModelError(
            "these weights are not of this network: take the same family, and the same settings",
            file=str(file),
            n_fit=len(loaded),
            n_wanted=n_outside,
        )
    module.load_state_dict(own)
    fresh = tuple(name for name in own if name not in set(loaded))
    return Pretrained(tuple(loaded), tuple(adapted), fresh, tuple(sorted(given.keys() - taken)))


def adapt_channels(weight: Tensor, n_channel: int, how: Literal["mean", "repeat"]) -> Tensor:
    """
    Kernel ``(map, channel, y, x)`` for another number of channels.

    Examples
    --------
    >>> adapt_channels(torch.tensor([[[[1.0]], [[2.0]], [[3.0]]]]), 2, "mean").flatten()
    tensor([3., 3.])
    """
    n_given = weight.shape[1]
    if how == "mean":
        spread = weight.mean(1, keepdim=True).expand(-1, n_channel, -1, -1)
    else:
        spread = weight[:, torch.arange(n_channel) % n_given]
    return spread * (n_given / n_channel)


def _differs_in_channels(value: Tensor, tensor: Tensor) -> bool:
    return value.ndim == tensor.ndim == 4 and value.shape[0] == tensor.shape[0] and value.shape[2:] == tensor.shape[2:]


def _first_convolution(module: nn.Module) -> str | None:
    return next((f"{name}.weight" for name, m in module.named_modules() if isinstance(m, nn.Conv2d)), None)


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix.lower() in PICKLES:
        raise ModelError("a pickle is never loaded: weights must be a safetensors file", got=str(file))
    try:
        tensors = load(file.read_bytes())
    except OSError as error:
        raise ModelError(f"the weights cannot be read: {error.strerror}", file=str(file)) from error
    except SafetensorError as error:
        raise ModelError(f"the weights are not a safetensors file: {error}", file=str(file)) from error
    for prefix in AVERAGED:
        if averaged := {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}:
            return averaged
    return tensors
