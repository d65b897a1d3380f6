"""Networks equivariant to turns and mirror images: steerable convolutions over a group of the plane."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d

from lenspipe.errors import ModelError
from lenspipe.nn.families.plain_equivariant import (
    PLAIN_FAMILY,
    Blur,
    Disc,
    FourierELU,
    GroupMax,
    InvariantHead,
    InvariantPool,
    PlainEquivariant,
    Plan,
    inner_activation,
)
from lenspipe.nn.groups import (
    CONTINUOUS,
    GROUPS,
    cosets,
    field_size,
    fourier_matrices,
    is_subgroup,
    kernel_basis,
    lifting_basis,
)
from lenspipe.nn.network import Network, Settings

PREFIX = "equivariant-"
FIRST_KERNEL_PX, KERNEL_PX = 7, 5
FIELD_FREQUENCY = 3
Request = tuple[str, str, str, int, int, int, str]


@dataclass(frozen=True)
class Layer:
    """Space of the kernels of one convolution, for one field in and one out."""

    basis: Tensor
    """``(basis, size, source size, y, x)``; between regular fields of a finite group ``(basis, size, y, x)``."""
    n_weight: int
    """Free weights for one field in and one out."""
    quotient: Tensor | None
    """Between regular fields of a finite group: number of ``u^-1 v`` (`lenspipe.nn.groups.lifting_basis`)."""
    parts: Tensor | None
    """With it: the source's elements as fields of the target's group (`lenspipe.nn.groups.cosets`)."""


@dataclass(frozen=True)
class Design:
    """Settings of an equivariant network that decide its layers."""

    group: str
    """Group of the first stages, one of `lenspipe.nn.groups.GROUPS`."""
    depth: int = 3
    """Stages: two convolutions and a pooling each."""
    restrict_to: str = ""
    """Subgroup of the stages from ``restrict_at`` on; empty keeps the group."""
    restrict_at: int = 1
    """First stage of the subgroup, counted from 0."""
    max_frequency: int = 0
    """SO(2), O(2): highest angular frequency of the fields, 3 where 0; finite groups: of the kernels, free where 0."""
    nonlinearity: str = "fourier"
    """SO(2), O(2): ``fourier``, ELU at samples over the group, or ``gated``."""
    stem_pooling: bool = False
    """Whether the maps are halved after the first convolution as well."""

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise ModelError(f"no such group: choose one of {' '.join(GROUPS)}", got=self.group)
        if self.depth < 1:
            raise ModelError("an equivariant network needs at least one stage", got_depth=self.depth)
        if self.restrict_to and not (self.restrict_to in GROUPS and is_subgroup(self.restrict_to, self.group)):
            raise ModelError(
                "restrict_to must name a smaller group inside the group", got=self.restrict_to, of=self.group
            )
        if self.nonlinearity not in ("fourier", "gated") or (
            self.nonlinearity == "gated" and self.group not in CONTINUOUS
        ):
            raise ModelError(
                "nonlinearity is fourier or, for so2 and o2, gated", got=self.nonlinearity, group=self.group
            )
        if self.restrict_to and not 1 <= self.restrict_at < self.depth:
            raise ModelError("restrict_at must be a stage after the first", got=self.restrict_at, depth=self.depth)

    def groups(self) -> list[str]:
        """Group of each convolution."""
        inner = self.restrict_to or self.group
        return [self.group if i // 2 < self.restrict_at else inner for i in range(2 * self.depth)]

    def frequency(self, group: str) -> int:
        """Highest angular frequency of a group's fields; 0 for a finite one."""
        return (self.max_frequency or FIELD_FREQUENCY) if group in CONTINUOUS else 0

    def kernels(self) -> list[Request]:
        """What `lenspipe.nn.groups.kernel_basis` is asked for of each convolution."""
        groups = self.groups()
        of_kernels = 0 if self.group in CONTINUOUS else self.max_frequency
        return [
            (
                group,
                "regular" if i else "scalar",
                "regular",
                KERNEL_PX if i else FIRST_KERNEL_PX,
                self.frequency(before),
                of_kernels,
                before if before != group else "",
            )
            for i, (before, group) in enumerate(zip([groups[0], *groups], groups, strict=False))
        ]

    def layers(self) -> list[Layer]:
        """Kernel space of each convolution, sampled."""
        return [self._layer(*request) for request in self.kernels()]

    def _layer(
        self, group: str, source: str, target: str, kernel_px: int, frequency: int, of_kernels: int, outer: str
    ) -> Layer:
        if group in CONTINUOUS or outer in CONTINUOUS:
            basis = kernel_basis(group, source, target, kernel_px, frequency, of_kernels, outer)
            return Layer(basis, len(basis), None, None)
        basis, quotient = lifting_basis(group, kernel_px, of_kernels)
        if source == "scalar":
            return Layer(basis[:, :, None], len(basis), None, None)
        parts = cosets(group, outer) if outer else torch.arange(len(quotient))[None]
        return Layer(basis, len(basis) * parts.numel(), quotient, parts)

    def plan(self, width: int) -> Plan:
        """Layers at a width: that many fields in the first stage, twice and then four times as many in the next."""
        fields = [width * 2 ** min(i // 2, 2) for i in range(2 * self.depth)]
        samples = [
            4 * (self.frequency(g) + 1) * (2 if g == "o2" else 1) if g in CONTINUOUS else 0 for g in self.groups()
        ]
        return Plan(
            tuple(fields),
            tuple(field_size(group, self.frequency(group)) for group in self.groups()),
            tuple(samples),
            tuple(request[3] for request in self.kernels()),
            tuple(i % 2 or int(self.stem_pooling and i == 0) for i in range(2 * self.depth)),
            gated=self.nonlinearity == "gated",
        )


class SteerableConvolution(nn.Module):
    """
    Convolution whose kernels are sums over a fixed basis; padding keeps the side.

    Weights are drawn so that, as He et al. 2015 ask, the variance is kept under a ReLU, with the same share for every
    element of the basis.
    """

    def __init__(self, layer: Layer, n_in: int, n_field: int) -> None:
        super().__init__()
        self.register_buffer("basis", layer.basis, persistent=False)
        self.basis: Tensor
        gain = layer.basis.square().flatten(2).sum(2).mean(1)
        spread = torch.sqrt(2 / (n_in * layer.n_weight * gain))
        n_pair = layer.n_weight // len(gain)
        self.weight = nn.Parameter(torch.randn(n_field, n_in, n_pair, len(gain)) * spread)

    def kernel(self) -> Tensor:
        """Kernel of the ordinary convolution: ``(field * size, field * size, y, x)``."""
        kernel = torch.einsum("oib,bstyx->osityx", self.weight[:, :, 0], self.basis)
        return kernel.flatten(2, 3).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channel, y, x)``."""
        return conv2d(x, self.kernel(), padding=self.basis.shape[-1] // 2)


class GroupConvolution(SteerableConvolution):
    """Steerable convolution between regular fields: a weight a basis element and quotient of group elements."""

    def __init__(self, layer: Layer, n_in: int, n_field: int) -> None:
        super().__init__(layer, n_in, n_field)
        assert layer.quotient is not None and layer.parts is not None
        n_part, order = layer.parts.shape
        # for each target element and source element: which weight, of n_part * order
        index = torch.empty(order, n_part * order, dtype=torch.int64)
        index[:, layer.parts.flatten()] = (
            torch.arange(n_part)[None, :, None] * order + layer.quotient[:, None, :]
        ).flatten(1)
        self.register_buffer("index", index, persistent=False)
        self.index: Tensor

    def kernel(self) -> Tensor:
        """Kernel of the ordinary convolution: ``(field * size, field * size, y, x)``."""
        kernel = torch.einsum("oiuvb,buyx->ouivyx", self.weight[:, :, self.index], self.basis)
        return kernel.flatten(2, 3).flatten(0, 1)


class FieldNorm(nn.Module):
    """
    Batch norm of fields: one variance and one mean a field, over its maps, pixels and stamps.

    Of fields of Fourier coefficients only the first, the mean over the group, has a mean to take off and a shift.
    """

    def __init__(self, n_field: int, size: int, fourier: bool, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_field))
        self.bias = nn.Parameter(torch.zeros(n_field))
        self.register_buffer("running_mean", torch.zeros(n_field))
        self.register_buffer("running_var", torch.ones(n_field))
        constant = torch.zeros(size) if fourier else torch.ones(size)
        constant[0] = 1
        self.register_buffer("constant", constant, persistent=False)
        self.running_mean: Tensor
        self.running_var: Tensor
        self.constant: Tensor
        self.momentum, self.fourier = momentum, fourier

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """In evaluation the layer is ``scale x + shift``, both ``(field * size,)``."""
        scale = self.weight * torch.rsqrt(self.running_var + 1e-5)
        shift = self.bias - self.running_mean * scale
        return scale.repeat_interleave(len(self.constant)), (shift[:, None] * self.constant).flatten()

    def forward(self, x: Tensor) -> Tensor:
        """``(n, field * size, y, x)``."""
        if not self.training:
            scale, shift = self.scale_and_shift()
            return x * scale[:, None, None] + shift[:, None, None]
        size = len(self.constant)
        if not self.fourier:
            # the maps of a field one above the other are a channel of torch's own batch norm: twice as fast a network
            stacked = x.contiguous().view(x.shape[0], len(self.weight), -1, x.shape[3])
            running = self.running_mean, self.running_var
            normed = batch_norm(stacked, *running, self.weight, self.bias, True, self.momentum, 1e-5)
            return normed.view(x.shape)
        fields = x.reshape(x.shape[0], -1, size, *x.shape[2:])
        along = self.constant[:, None, None]
        mean = (fields * along).mean((0, 3, 4)).sum(1) / self.constant.sum()
        centred = fields - mean[:, None, None, None] * along
        variance = centred.square().mean((0, 2, 3, 4))
        with torch.no_grad():
            self.running_mean.lerp_(mean.float(), self.momentum)
            self.running_var.lerp_(variance.float(), self.momentum)
        scale = self.weight * torch.rsqrt(variance + 1e-5)
        out = centred * scale[:, None, None, None] + self.bias[:, None, None, None] * along
        return out.reshape(x.shape)


class EquivariantNet(Network):
    """Stages of two steerable convolutions and a pooling, maximum over the group, invariant numbers, a small head."""

    def __init__(
        self,
        n_channel: int,
        stamp_px: int,
        n_out: int,
        design: Design,
        width: int,
        pooling: str,
        dropout: float,
        mask: bool,
    ) -> None:
        super().__init__()
        self.n_channel, self.stamp_px, self.n_out = n_channel, stamp_px, n_out
        self.pooling, self.masked = pooling, mask
        self.plan = plan = design.plan(width)
        sides = plan.map_sides(stamp_px)
        self.disc = Disc(stamp_px) if mask else nn.Identity()
        self.convolutions, self.norms, self.activations, self.pools = (nn.ModuleList() for _ in range(4))
        n_in = n_channel
        for i, (group, layer) in enumerate(zip(design.groups(), design.layers(), strict=True)):
            # an input of several channels is so many scalar fields
            kind = SteerableConvolution if layer.quotient is None else GroupConvolution
            self.convolutions.append(kind(layer, n_in, plan.fields[i]))
            self.norms.append(FieldNorm(plan.fields[i], plan.sizes[i], group in CONTINUOUS))
            matrices = fourier_matrices(group, design.frequency(group)) if group in CONTINUOUS else None
            gated = plan.gated and i < len(plan.fields) - 1  # the last is sampled for its maximum over the group
            self.activations.append(inner_activation(plan.sizes[i], plan.samples[i], gated, matrices))
            n_map = plan.fields[i] * plan.sizes[i]
            self.pools.append(Blur(n_map, sides[i]) if plan.pooled[i] else nn.Identity())
            n_in = plan.fields[i]
        last = self.activations[-1]
        self.group_max = GroupMax(plan.sizes[-1], last if isinstance(last, FourierELU) else None)
        self.pool = InvariantPool(sides[-1], pooling)
        self.num_features = plan.fields[-1] * self.pool.n_number
        self.head = InvariantHead(self.num_features, n_out, dropout)

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to the invariant numbers of each field."""
        x = self.disc(stamps)
        last = len(self.convolutions) - 1
        for i, (convolution, norm, activation, pool) in enumerate(
            zip(self.convolutions, self.norms, self.activations, self.pools, strict=True)
        ):
            x = norm(convolution(x))
            if i < last:
                x = activation(x)
            x = pool(x)
        x = self.group_max(x)
        if self.group_max.fourier is None:
            x = torch.relu(x)
        numbers: Tensor = self.pool(x)
        return numbers

    def plain_form(self) -> tuple[str, Settings]:
        """The ordinary network of the same channels: one entry per convolution, see `Plan`."""
        plan = self.plan
        return PLAIN_FAMILY, {
            "fields": list(plan.fields),
            "sizes": list(plan.sizes),
            "samples": list(plan.samples),
            "kernels": list(plan.kernels),
            "pooled": list(plan.pooled),
            "gated": plan.gated,
            "pooling": self.pooling,
            "mask": self.masked,
        }

    def plain(self) -> Network:
        """
        The network as ordinary convolutions, in evaluation mode.

        Kernels are expanded and batch norms folded into them, so outputs agree to rounding (1e-5). The weights are
        copies; gradients do not flow back.
        """
        plain = PlainEquivariant(self.n_channel, self.stamp_px, self.n_out, self.plan, self.pooling, self.masked)
        device = next(self.parameters()).device
        with torch.no_grad():
            targets = [layer for layer in plain.modules() if isinstance(layer, nn.Conv2d)]
            for target, convolution, norm in zip(targets, self.convolutions, self.norms, strict=True):
                scale, shift = norm.scale_and_shift()  # type: ignore[operator]
                kernel = convolution.kernel()  # type: ignore[operator]
                target.weight.copy_(kernel * scale[:, None, None, None])
                target.bias.copy_(shift)  # type: ignore[union-attr]
        sources = [layer for layer in self.activations if isinstance(layer, FourierELU)]
        for layer, source in zip([m for m in plain.modules() if isinstance(m, FourierELU)], sources, strict=True):
            layer.load_state_dict(source.state_dict())
        plain.head.load_state_dict(self.head.state_dict())
        return plain.to(device).eval()
