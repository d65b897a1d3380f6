"""Positions of one tile to stamps: the tile is read in windows, each once and no more of it than is needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import TileError
from lenspipe.image.cutouts import cut_squares
from lenspipe.image.sky import subtract_sky
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.read import TileFacts, read_window
from lenspipe.survey.shards import Box, cut_into_shards
from lenspipe.survey.tile import Tile

BATCH_BYTES = 32 << 20
"""Bytes of pixels that are cut at a time."""


@dataclasses.dataclass(frozen=True)
class SkyMesh:
    """How the sky is subtracted before stamps are cut: as `lenspipe.image.background.estimate_background` does."""

    mesh_px: int
    filter_mesh: int


@dataclasses.dataclass(frozen=True)
class Cells:
    """How a tile is divided into windows: as a scan divides it into shards, so that the sky is the scan's."""

    core_px: int
    halo_px: int
    mesh_px: int


@dataclasses.dataclass(frozen=True, eq=False)
class Stamps:
    """
    Stamps of some positions of one tile.

    ``image`` is (n, band, y, x) float32 in nJy, 0 where ``mask`` (n, band, y, x) is True: there the tile is masked or
    ends. ``invvar`` is (n, band, y, x) float32 in nJy^-2, 0 where masked and in bands whose survey gives none; None
    where it was not asked for.
    """

    rows: NDArray[np.int64]
    """Which of the positions."""
    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    invvar: NDArray[np.float32] | None

    def of(self, these: NDArray[np.bool_]) -> Stamps:
        """Some of them."""
        invvar = None if self.invvar is None else self.invvar[these]
        return Stamps(self.rows[these], self.image[these], self.mask[these], invvar)


@dataclasses.dataclass(frozen=True, eq=False)
class WindowRows:
    """A window of a tile, and the positions whose stamps are cut out of it."""

    window: Box
    rows: NDArray[np.int64]


def windows_of(
    shape: tuple[int, int],
    x_px: NDArray[np.floating],
    y_px: NDArray[np.floating],
    *,
    size_px: int,
    cells: Cells,
    whole: bool,
) -> list[WindowRows]:
    """
    Windows that hold some positions of a tile, in row-major order; each position is in one, and on its tile.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the tile.
    x_px, y_px : arrays (n,)
        Positions, 0-based in the tile.
    size_px : int
        Side of the stamps; the halo is at least half of it.
    cells : Cells
    whole : bool
        Windows are those of a scan's shards, as the sky needs them; else they end where the stamps do.

    Returns
    -------
    list of WindowRows
        Positions outside the tile are in none.
    """
    half = size_px // 2 + 1
    halo_px = max(cells.halo_px, half)
    found = []
    for shard in cut_into_shards("", shape, core_px=cells.core_px, halo_px=halo_px, align_px=cells.mesh_px):
        rows = np.flatnonzero(shard.core.contains(x_px, y_px))
        if not len(rows):
            continue
        window = shard.window
        if not whole:
            x, y = x_px[rows], y_px[rows]
            window = Box(
                max(0, int(x.min()) - half),
                max(0, int(y.min()) - half),
                min(shape[1], int(x.max()) + half + 2),
                min(shape[0], int(y.max()) + half + 2),
            )
        found.append(WindowRows(window, rows))
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class ReadWindow:
    """
    A window of a tile that stamps are cut out of.

    ``image`` (band, y, x) is float32 nJy and 0 where ``mask`` is True; ``invvar`` as of `Stamps`.
    """

    window: Box
    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    invvar: NDArray[np.float32] | None

    def stamps(
        self, x_px: NDArray[np.floating], y_px: NDArray[np.floating], *, size_px: int, batch_bytes: int = BATCH_BYTES
    ) -> Iterator[Stamps]:
        """
        Stamps of positions, 0-based in the tile, in their order and some at a time.

        The pixel nearest to a position is in the centre; of an even side the four in the centre are the nearest
        (`lenspipe.image.cutouts.cut_squares`). Beyond the window a stamp is 0 and masked.
        """
        x, y = np.asarray(x_px, float) - self.window.x0, np.asarray(y_px, float) - self.window.y0
        step = max(1, batch_bytes // (4 * len(self.image) * size_px**2))
        whole = not self.mask.any()
        for start in range(0, len(x), step):
            rows = np.arange(start, min(start + step, len(x)))
            at = x[rows], y[rows]
            yield Stamps(
                rows,
                cut_squares(self.image, *at, size_px=size_px, fill=0),
                self._beyond(*at, size_px=size_px)
                if whole
                else cut_squares(self.mask, *at, size_px=size_px, fill=True),
                None if self.invvar is None else cut_squares(self.invvar, *at, size_px=size_px, fill=0),
            )

    def _beyond(self, x_px: NDArray[np.floating], y_px: NDArray[np.floating], *, size_px: int) -> NDArray[np.bool_]:
        """Masks of a window without a masked pixel: only stamps that reach beyond it have any."""
        masks = np.zeros((len(x_px), len(self.mask), size_px, size_px), bool)
        half, (height, width) = size_px / 2 + 1, self.window.shape
        near = (x_px < half) | (y_px < half) | (x_px > width - 1 - half) | (y_px > height - 1 - half)
        masks[near] = cut_squares(self.mask, x_px[near], y_px[near], size_px=size_px, fill=True)
        return masks


def read_for_stamps(
    tile: Tile,
    facts: TileFacts,
    layout: SurveyLayout,
    window: Box,
    *,
    bands: Sequence[str],
    sky: SkyMesh | None,
    invvar: bool = False,
) -> ReadWindow:
    """
    Read a window of a tile, and subtract its sky.

    Parameters
    ----------
    tile, facts, layout
        The tile, its headers (`lenspipe.survey.read.read_facts`) and the survey.
    window : Box
    bands : sequence of str
        Bands in this order; others are not read.
    sky : SkyMesh or None
        How the sky is subtracted; None leaves it in.
    invvar : bool
        Whether inverse variances are kept.

    Raises
    ------
    TileError
        The tile lacks a band, or cannot be read here; a band is constant.
    """
    have = [files.band for files in tile.bands]
    if missing := [band for band in bands if band not in have]:
        raise TileError("the tile lacks a band of the stamps", tile=tile.name, missing=" ".join(missing))
    wanted = dataclasses.replace(tile, bands=tuple(tile.bands[have.index(band)] for band in bands))
    pixels = read_window(wanted, facts, layout, window)
    image, mask, weights = pixels.image, pixels.mask, None
    if sky is not None:
        flat = subtract_sky(image, mask, bands=bands, mesh_px=sky.mesh_px, filter_mesh=sky.filter_mesh)
        image, mask = flat.image, flat.mask
    if invvar:
        weights = np.stack([np.zeros(window.shape, np.float32) if w is None else w for w in pixels.invvar])
        weights[mask] = 0
    return ReadWindow(window, image, mask, weights)


def cut_tile(
    tile: Tile,
    facts: TileFacts,
    layout: SurveyLayout,
    x_px: NDArray[np.floating],
    y_px: NDArray[np.floating],
    *,
    size_px: int,
    bands: Sequence[str],
    cells: Cells,
    sky: SkyMesh | None,
    invvar: bool = False,
    batch_bytes: int = BATCH_BYTES,
) -> Iterator[Stamps]:
    """
    Stamps of many positions of one tile, window by window: memory is that of a window and ``batch_bytes``.

    With the cells and the sky of a scan the pixels are those of the scan's own cutouts.

    Parameters
    ----------
    tile, facts, layout, bands, sky, invvar
        As of `read_for_stamps`.
    x_px, y_px : arrays (n,)
        Positions, 0-based in the tile.
    size_px : int
        Side of a stamp.
    cells : Cells
        How the tile is divided.
    batch_bytes : int
        Bytes of pixels at a time.

    Yields
    ------
    Stamps
        ``rows`` are numbers of the positions; those outside the tile do not come.

    Raises
    ------
    TileError
        As of `read_for_stamps`.
    """
    x_px, y_px = np.asarray(x_px, float), np.asarray(y_px, float)
    for part in windows_of(facts.shape, x_px, y_px, size_px=size_px, cells=cells, whole=sky is not None):
        read = read_for_stamps(tile, facts, layout, part.window, bands=bands, sky=sky, invvar=invvar)
        for stamps in read.stamps(x_px[part.rows], y_px[part.rows], size_px=size_px, batch_bytes=batch_bytes):
            yield dataclasses.replace(stamps, rows=part.rows[stamps.rows])
