"""How large an equivariant network is, without building it; and how wide one of a given size."""

from __future__ import annotations

from lenspipe.errors import ModelError
from lenspipe.nn.families.equivariant import Design
from lenspipe.nn.families.plain_equivariant import HIDDEN, LEAST_RINGS_PX
from lenspipe.nn.groups import n_basis


def n_parameters(design: Design, width: int, n_channel: int, stamp_px: int, n_out: int, pooling: str = "rings") -> int:
    """Trainable parameters of an equivariant network, without building it."""
    plan = design.plan(width)
    total, n_in = 0, n_channel
    for n_field, request in zip(plan.fields, design.kernels(), strict=True):
        total += n_in * n_field * n_basis(*request) + 2 * n_field
        n_in = n_field
    n_number = 1 if pooling != "rings" else 4 if plan.map_sides(stamp_px)[-1] >= LEAST_RINGS_PX else 2
    return total + (n_in * n_number + 1) * HIDDEN + (HIDDEN + 1) * n_out


def n_multiply_adds(design: Design, width: int, n_channel: int, stamp_px: int) -> int:
    """Multiply-adds of the convolutions for one stamp."""
    plan = design.plan(width)
    total, n_in = 0, n_channel
    for n_field, size, kernel_px, side in zip(
        plan.fields, plan.sizes, plan.kernels, plan.map_sides(stamp_px), strict=False
    ):
        total += side**2 * n_in * n_field * size * kernel_px**2
        n_in = n_field * size
    return total


def width_for(
    group: str,
    *,
    n_parameter: int = 0,
    n_multiply_add: int = 0,
    n_channel: int = 3,
    stamp_px: int = 65,
    n_out: int = 1,
    depth: int = 3,
    restrict_to: str = "",
    restrict_at: int = 1,
    max_frequency: int = 0,
    stem_pooling: bool = False,
) -> int:
    """
    Width at which a group's network comes nearest, as a ratio, to a number of parameters or of multiply-adds.

    Raises
    ------
    ModelError
        Not exactly one of the two is given, or even one field is more than twice as much.
    """
    if (n_parameter > 0) == (n_multiply_add > 0):
        raise ModelError(
            "give either n_parameter or n_multiply_add", n_parameter=n_parameter, n_multiply_add=n_multiply_add
        )
    design = Design(group, depth, restrict_to, restrict_at, max_frequency, stem_pooling=stem_pooling)

    def amount(width: int) -> int:
        if n_parameter:
            return n_parameters(design, width, n_channel, stamp_px, n_out)
        return n_multiply_adds(design, width, n_channel, stamp_px)

    want = n_parameter or n_multiply_add
    if amount(1) > 2 * want:
        raise ModelError("a network of one field is larger than asked for", group=group, got=want, least=amount(1))
    width = 1
    while amount(width + 1) <= want:
        width += 1
    return width if want**2 < amount(width) * amount(width + 1) else width + 1
