"""Shards: the pixel windows that a tile is cut into, the unit of work, of retry and of the searched area."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, order=True)
class Box:
    """Half-open rectangle of pixels: columns x0 <= x < x1, rows y0 <= y < y1."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def n_px(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an array of the whole tile."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def contains(self, x_px: NDArray[np.floating], y_px: NDArray[np.floating]) -> NDArray[np.bool_]:
        """
        Which positions belong to the box: pixel i covers [i - 0.5, i + 0.5), so each belongs to one core.

        Examples
        --------
        >>> Box(0, 0, 10, 10).contains(np.array([-0.5, 9.49, 9.5]), np.array([0.0, 0.0, 0.0]))
        array([ True,  True, False])
        """
        inside_x = (x_px >= self.x0 - 0.5) & (x_px < self.x1 - 0.5)
        inside_y = (y_px >= self.y0 - 0.5) & (y_px < self.y1 - 0.5)
        return inside_x & inside_y


@dataclasses.dataclass(frozen=True)
class Shard:
    """One window of one tile: sources in ``core`` are kept, pixels of ``window`` (core and halo) are read."""

    shard_id: str
    tile: str
    core: Box
    window: Box
    first_of_tile: bool


def cut_into_shards(
    tile: str, shape: tuple[int, int], *, core_px: int, halo_px: int, align_px: int = 64
) -> list[Shard]:
    """
    Cut a tile into shards in row-major order.

    Cores tile the image without gap or overlap. Both core and halo are rounded up to multiples of
    ``align_px`` (the background mesh), so that neighbours see the same mesh; a last strip narrower than
    half a core joins its neighbour. The id depends only on tile name, corner and core size.

    Parameters
    ----------
    tile : str
        Name of the tile.
    shape : (int, int)
        Rows and columns of the tile.
    core_px, halo_px : int
        Size of a core, and the border that is read around it.
    align_px : int
        Mesh that cores and halos are aligned to.

    Returns
    -------
    list of Shard

    Raises
    ------
    ValueError
        ``core_px`` or ``align_px`` below 1, or a negative halo.

    Examples
    --------
    >>> [s.core for s in cut_into_shards("A", (100, 150), core_px=64, halo_px=0)]
    [Box(x0=0, y0=0, x1=64, y1=64), Box(x0=64, y0=0, x1=150, y1=64), Box(x0=0, y0=64, x1=64, y1=100), Box(x0=64, y0=64, x1=150, y1=100)]
    """  # noqa: E501
    if core_px < 1 or align_px < 1 or halo_px < 0:
        raise ValueError(
            f"core_px and align_px must be positive, halo_px not negative; got {core_px=} {align_px=} {halo_px=}"
        )
    core, halo = _round_up(core_px, align_px), _round_up(halo_px, align_px)
    n_row, n_column = shape
    shards: list[Shard] = []
    for y0, y1 in _edges(n_row, core):
        for x0, x1 in _edges(n_column, core):
            window = Box(max(0, x0 - halo), max(0, y0 - halo), min(n_column, x1 + halo), min(n_row, y1 + halo))
            shard_id = f"{tile}_x{x0}y{y0}c{core}"
            shards.append(Shard(shard_id, tile, Box(x0, y0, x1, y1), window, first_of_tile=not shards))
    return shards


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _edges(length: int, core: int) -> list[tuple[int, int]]:
    starts = list(range(0, length, core))
    if len(starts) > 1 and length - starts[-1] < core / 2:
        starts.pop()
    return list(zip(starts, [*starts[1:], length], strict=True))
