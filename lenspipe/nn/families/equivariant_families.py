"""The families ``equivariant-GROUP``, one a group of the plane."""

from __future__ import annotations

from lenspipe.nn.families.equivariant import PREFIX, Design, EquivariantNet
from lenspipe.nn.families.equivariant_amounts import n_parameters, width_for
from lenspipe.nn.groups import GROUPS, group_order
from lenspipe.nn.network import Network
from lenspipe.nn.registry import register

WIDTH = 4


def _enter(group: str) -> None:
    def count(n_channel: int, stamp_px: int, n_out: int) -> int:
        return n_parameters(Design(group), WIDTH, n_channel, stamp_px, n_out)

    @register(PREFIX + group, count=count)
    def equivariant(
        n_channel: int,
        stamp_px: int,
        n_out: int = 1,
        *,
        width: int = WIDTH,
        depth: int = 3,
        pooling: str = "rings",
        dropout: float = 0.2,
        restrict_to: str = "",
        restrict_at: int = 1,
        max_frequency: int = 0,
        nonlinearity: str = "fourier",
        stem_pooling: bool = False,
        mask: bool = True,
        n_parameter: int = 0,
        n_multiply_add: int = 0,
    ) -> Network:
        design = Design(group, depth, restrict_to, restrict_at, max_frequency, nonlinearity, stem_pooling)
        if n_parameter or n_multiply_add:
            width = width_for(
                group,
                n_parameter=n_parameter,
                n_multiply_add=n_multiply_add,
                n_channel=n_channel,
                stamp_px=stamp_px,
                n_out=n_out,
                depth=depth,
                restrict_to=restrict_to,
                restrict_at=restrict_at,
                max_frequency=max_frequency,
                stem_pooling=stem_pooling,
            )
        return EquivariantNet(n_channel, stamp_px, n_out, design, width, pooling, dropout, mask)

    title = {"so2": "all turns", "o2": "all turns and mirror images"}.get(group)
    if title is None:
        order = group_order(group)
        turns = order if group[0] == "c" else order // 2
        parts = [f"{turns} turns"] if turns > 1 else []
        parts += ["mirror images"] if group[0] == "d" else []
        title = " and ".join(parts) or "no symmetry"
    equivariant.__doc__ = f"""Steerable convolutions over {group.upper()} ({title}; Weiler & Cesa 2019).

    Weiler & Cesa 2019 (NeurIPS), kernels by escnn (Cesa et al. 2022), in the architecture of the DeepLense networks:
    scalar channels in, regular fields inside, a convolution of 7 px and then of 5 px with inner batch norm and ReLU,
    antialiased pooling after each pair, maximum over the group, a dense layer of 64 with ELU. SO(2) and O(2) have
    fields of Fourier coefficients and an ELU at samples over the group. Theirs flattens the last map before the dense
    layers, which undoes the invariance: ours takes means over rings and the maximum (``pooling``). Theirs pads the
    stamp to an odd side: our pooling is symmetric on odd and even ones.

    Parameters
    ----------
    width : int
        Fields in the first stage; twice and four times as many in the next ones.
    depth : int
        Stages of two convolutions and a pooling.
    pooling : str
        ``rings``, ``mean`` or ``max`` over the last map.
    dropout : float
        Before the last layer.
    restrict_to, restrict_at : str, int
        Subgroup, and the first stage (from 0) that is equivariant to it only.
    max_frequency : int
        SO(2), O(2): highest angular frequency of the fields, 3 where 0. Finite groups: of the kernels, free where 0.
    nonlinearity : str
        SO(2), O(2): ``fourier`` as above, or ``gated``: coefficients times the logistic function of the first.
    stem_pooling : bool
        Halve the maps after the first convolution as well, as ResNets do: a fourth of the cost, for wide stamps.
    mask : bool
        Zero outside the inscribed circle, with a soft edge.
    n_parameter, n_multiply_add : int
        Where given, the width is chosen to come nearest to it.
    """


for _group in GROUPS:
    _enter(_group)
