"""Equivariant networks as ordinary ones: what a trained one is stored as, and the layers that both forms share."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, elu

from lenspipe.errors import ModelError
from lenspipe.nn.heads import RowSum
from lenspipe.nn.network import Network
from lenspipe.nn.registry import register

PLAIN_FAMILY = "plain-equivariant"
POOLINGS = ("rings", "mean", "max")
HIDDEN = 64
LEAST_RINGS_PX = 6
BLUR_SIGMA_PX = 0.66


@dataclass(frozen=True)
class Plan:
    """What the layers of an equivariant network are, convolution by convolution."""

    fields: tuple[int, ...]
    """Fields after each convolution."""
    sizes: tuple[int, ...]
    """Maps a field: elements of a finite group, Fourier coefficients of a continuous one."""
    samples: tuple[int, ...]
    """Samples over the group at which a field of Fourier coefficients is activated; 0 for a finite group."""
    kernels: tuple[int, ...]
    """Side of the kernel, px."""
    pooled: tuple[int, ...]
    """1 where the maps are halved after the convolution."""
    gated: bool = field(default=False, kw_only=True)
    """Whether fields of Fourier coefficients are gated, and sampled for the maximum over the group alone."""

    def map_sides(self, stamp_px: int) -> list[int]:
        """
        Side of the maps during each convolution, and after the last.

        Examples
        --------
        >>> Plan((4, 4), (4, 4), (0, 0), (5, 5), (0, 1)).map_sides(65)
        [65, 65, 33]
        """
        sides = [stamp_px]
        for pooled in self.pooled:
            sides.append((sides[-1] + sides[-1] % 2) // 2 if pooled else sides[-1])
        return sides


class Disc(nn.Module):
    """Set pixels outside the inscribed circle to zero, with a soft edge of 2 px, so that a turned stamp is the same."""

    def __init__(self, stamp_px: int) -> None:
        super().__init__()
        beyond = (_radius_px(stamp_px) - (stamp_px / 2 - 1)).clamp(min=0)
        self.register_buffer("weight", torch.exp(-0.5 * (beyond / 2) ** 2), persistent=False)
        self.weight: Tensor

    def forward(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)``."""
        return stamps * self.weight


class Blur(nn.Module):
    """
    Gaussian of 0.66 px at stride 2 (Zhang 2019), symmetric on maps of odd and of even side.

    Odd sides are sampled at their first, third, ... last pixel, even ones between the pixels of each pair, so that a
    quarter turn or a mirror image before and after are the same.
    """

    def __init__(self, n_map: int, side: int) -> None:
        super().__init__()
        width = 5 if side % 2 else 4
        offsets = torch.arange(width) - (width - 1) / 2
        line = torch.exp(-0.5 * (offsets / BLUR_SIGMA_PX) ** 2)
        kernel = line[:, None] * line / line.sum() ** 2
        self.padding = 2 if side % 2 else 1
        self.register_buffer("kernel", kernel.expand(n_map, 1, width, width).contiguous(), persistent=False)
        self.kernel: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``(n, map, y, x)`` to half the side, rounded up."""
        return conv2d(x, self.kernel, stride=2, padding=self.padding, groups=len(self.kernel))


class FourierELU(nn.Module):
    """ELU of fields of Fourier coefficients, at samples over the group (Weiler & Cesa 2019, section 2.6)."""

    def __init__(self, size: int, n_sample: int, matrices: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        to_samples, to_coefficients = matrices or (torch.zeros(n_sample, size), torch.zeros(size, n_sample))
        self.register_buffer("to_samples", to_samples.clone())
        self.register_buffer("to_coefficients", to_coefficients.clone())
        self.to_samples: Tensor
        self.to_coefficients: Tensor

    def sampled(self, x: Tensor) -> Tensor:
        """Activated samples: ``(n, field, sample, y, x)`` of ``(n, field * size, y, x)``."""
        n, channel, height, width = x.shape
        size = self.to_samples.shape[1]
        return elu(torch.einsum("gs,nfsyx->nfgyx", self.to_samples, x.reshape(n, channel // size, size, height, width)))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, field * size, y, x)``, same shape out."""
        return torch.einsum("sg,nfgyx->nfsyx", self.to_coefficients, self.sampled(x)).reshape(x.shape)


class GatedField(nn.Module):
    """
    Fields of Fourier coefficients times the logistic function of their first one, which no turn changes.

    The gated non-linearity of Weiler et al. 2018 (3D steerable CNNs, section 4.3) with the field's own mean over the
    group as its gate, where theirs has a gate of its own: the mean itself goes through a SiLU (Hendrycks & Gimpel
    2016). For O(2) too: the mean is the same in a mirror.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """``(n, field * size, y, x)``, same shape out."""
        n, channel, height, width = x.shape
        fields = x.reshape(n, channel // self.size, self.size, height, width)
        return (fields * torch.sigmoid(fields[:, :, :1])).reshape(x.shape)


class GroupMax(nn.Module):
    """Maximum over the group: one invariant map a field."""

    def __init__(self, size: int, fourier: FourierELU | None) -> None:
        super().__init__()
        self.size = size
        self.fourier = fourier

    def forward(self, x: Tensor) -> Tensor:
        """``(n, field * size, y, x)`` to ``(n, field, y, x)``."""
        if self.fourier is not None:
            return self.fourier.sampled(x).amax(2)
        n, channel, height, width = x.shape
        return x.reshape(n, channel // self.size, self.size, height, width).amax(2)


class InvariantPool(nn.Module):
    """
    Numbers of a map that do not change when it turns about its centre.

    ``rings``: means over three rings of equal width around the centre, and the maximum; ``mean``; ``max``. On maps
    below 6 px the rings are one.
    """

    def __init__(self, side: int, pooling: str) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ModelError(f"no such pooling: choose one of {', '.join(POOLINGS)}", got=pooling)
        self.pooling = pooling
        if pooling == "rings" and side >= LEAST_RINGS_PX:
            ring = torch.clamp(_radius_px(side) / (side / 6), max=2.999).long()
            weights = torch.stack([(ring == number).float() for number in range(3)])
            weights = weights / weights.sum((1, 2), keepdim=True)
        else:
            weights = torch.full((1, side, side), 1 / side**2)
        self.register_buffer("weights", weights, persistent=False)
        self.weights: Tensor
        self.n_number = 1 if pooling != "rings" else len(weights) + 1

    def forward(self, maps: Tensor) -> Tensor:
        """``(n, map, y, x)`` to ``(n, map * n_number)``."""
        if self.pooling == "max":
            return maps.amax((2, 3))
        means = torch.einsum("nmyx,ryx->nmr", maps, self.weights)
        if self.pooling == "mean":
            return means.flatten(1)
        return torch.cat([means.flatten(1), maps.amax((2, 3))], dim=1)


class InvariantHead(nn.Module):
    """Invariant numbers to outputs: a layer of 64 with ELU, dropout, `RowSum`."""

    def __init__(self, n_number: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.hidden = RowSum(n_number, HIDDEN)
        self.out = RowSum(HIDDEN, n_out, dropout)

    def forward(self, numbers: Tensor, pre_logits: bool = False) -> Tensor:
        """``(n, number)`` to ``(n, n_out)``, or ``(n,)`` for one output; the hidden layer with ``pre_logits``."""
        out: Tensor = self.out(elu(self.hidden(numbers)), pre_logits=pre_logits)
        return out


class PlainEquivariant(Network):
    """Ordinary convolutions with the kernels of an equivariant network, batch norms folded in."""

    def __init__(self, n_channel: int, stamp_px: int, n_out: int, plan: Plan, pooling: str, mask: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [Disc(stamp_px)] if mask else []
        sides = plan.map_sides(stamp_px)
        n_in, last = n_channel, len(plan.fields) - 1
        for i, (n_field, size, n_sample, kernel_px) in enumerate(
            zip(plan.fields, plan.sizes, plan.samples, plan.kernels, strict=True)
        ):
            layers.append(nn.Conv2d(n_in, n_field * size, kernel_px, padding=kernel_px // 2))
            n_in = n_field * size
            if i < last:
                layers.append(inner_activation(size, n_sample, plan.gated))
            if plan.pooled[i]:
                layers.append(Blur(n_in, sides[i]))
        fourier = FourierELU(plan.sizes[-1], plan.samples[-1]) if plan.samples[-1] else None
        layers.append(GroupMax(plan.sizes[-1], fourier))
        if fourier is None:
            layers.append(nn.ReLU())  # after the maximum: the same, on fewer maps
        self.trunk = nn.Sequential(*layers)
        self.pool = InvariantPool(sides[-1], pooling)
        self.num_features = plan.fields[-1] * self.pool.n_number
        self.head = InvariantHead(self.num_features, n_out, 0.0)

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to the invariant numbers of each field."""
        numbers: Tensor = self.pool(self.trunk(stamps))
        return numbers


def inner_activation(size: int, n_sample: int, gated: bool, matrices: tuple[Tensor, Tensor] | None = None) -> nn.Module:
    """Activation between two convolutions: of ``n_sample`` 0 ReLU, else of Fourier coefficients."""
    if not n_sample:
        return nn.ReLU()
    return GatedField(size) if gated else FourierELU(size, n_sample, matrices)


@register(PLAIN_FAMILY, by_settings=True)
def plain_equivariant(
    n_channel: int,
    stamp_px: int,
    n_out: int = 1,
    *,
    fields: list[int] | None = None,
    sizes: list[int] | None = None,
    samples: list[int] | None = None,
    kernels: list[int] | None = None,
    pooled: list[int] | None = None,
    gated: bool = False,
    pooling: str = "rings",
    mask: bool = True,
) -> Network:
    """
    The stored form of a trained ``equivariant-...`` network: ordinary convolutions, no escnn.

    `EquivariantNet.plain` makes it and says its settings (one entry a convolution, see `Plan`). Trained
    further, it would lose its symmetry: train the equivariant form.
    """
    given = [tuple(x) for x in (fields or [1], sizes or [4], samples or [0], kernels or [5], pooled or [0])]
    if len({len(x) for x in given}) > 1:
        raise ModelError("settings of a plain equivariant network need one entry a convolution", got=str(given))
    return PlainEquivariant(n_channel, stamp_px, n_out, Plan(*given, gated=gated), pooling, mask)


def _radius_px(side: int) -> Tensor:
    offsets = torch.arange(side) - (side - 1) / 2
    squared: Tensor = offsets[:, None] ** 2 + offsets**2
    return squared.sqrt()
