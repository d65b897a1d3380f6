"""Which tile shows a position: by the tiles' footprints, from their headers."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from astropy.wcs import NoConvergence
from numpy.typing import NDArray

from lenspipe.errors import TileError
from lenspipe.sky.sphere import unit_vectors
from lenspipe.sky.wcs import sky_position
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.read import TileFacts, read_facts
from lenspipe.survey.tile import BadTile, Tile

READERS = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Places:
    """
    Where positions lie: ``tile`` (n,) is the number of the tile, -1 where none shows the position, and ``x_px``,
    ``y_px`` (n,) are 0-based in it.

    Where several tiles show a position it is the one in which it lies farthest from the edge.
    """

    tile: NDArray[np.int64]
    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]
    facts: dict[int, TileFacts]
    """Headers of the tiles that show a position."""
    bad: list[tuple[str, str]]
    """Name and reason of tiles that could not be looked at."""


def places_of(
    tiles: Sequence[Tile | BadTile],
    layout: SurveyLayout,
    ra_deg: NDArray[np.floating],
    dec_deg: NDArray[np.floating],
    *,
    zero_point_ab: float | None = None,
    on_tile: Callable[[], None] = lambda: None,
) -> Places:
    """
    The tile and pixel of each position; headers are read, and no pixels.

    Parameters
    ----------
    tiles : sequence of Tile or BadTile
    layout : SurveyLayout
    ra_deg, dec_deg : arrays (n,)
        ICRS degrees.
    zero_point_ab : float, optional
        For tiles whose headers state none.
    on_tile : callable
        Called after each tile.
    """
    n = len(ra_deg)
    best = Places(np.full(n, -1), np.full(n, np.nan), np.full(n, np.nan), {}, [])
    depth = np.full(n, -1.0)
    by_dec = np.argsort(dec_deg, kind="stable")
    sorted_dec = dec_deg[by_dec]

    def facts_of(tile: Tile | BadTile) -> TileFacts | TileError:
        if isinstance(tile, BadTile):
            return tile.error
        try:
            return read_facts(tile, layout, assumed_zero_point_ab=zero_point_ab)
        except TileError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(READERS if len(tiles) > 1 else 1) as pool:
        for number, (tile, facts) in enumerate(zip(tiles, pool.map(facts_of, tiles), strict=True)):
            on_tile()
            if isinstance(facts, TileError):
                best.bad.append((tile.name, str(facts)))
                continue
            rows, x_px, y_px = _inside(facts, by_dec, sorted_dec, ra_deg, dec_deg)
            height, width = facts.shape
            edge = np.min([x_px + 0.5, width - 0.5 - x_px, y_px + 0.5, height - 0.5 - y_px], axis=0)
            better = edge > depth[rows]
            rows, x_px, y_px = rows[better], x_px[better], y_px[better]
            depth[rows] = edge[better]
            best.tile[rows], best.x_px[rows], best.y_px[rows] = number, x_px, y_px
            if len(rows):
                best.facts[number] = facts
    for number in set(best.facts) - set(best.tile.tolist()):
        del best.facts[number]
    return best


def _inside(
    facts: TileFacts,
    by_dec: NDArray[np.int64],
    sorted_dec: NDArray[np.floating],
    ra_deg: NDArray[np.floating],
    dec_deg: NDArray[np.floating],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Positions on a tile, and their pixels; of a survey's positions only those about the tile are looked at."""
    height, width = facts.shape
    x = np.array([0.5, 0, 0.5, 1, 0, 1, 0, 0.5, 1]) * width - 0.5
    y = np.array([0.5, 0, 0, 0, 0.5, 0.5, 1, 1, 1]) * height - 0.5
    ra, dec = sky_position(facts.wcs, x, y)
    corners = unit_vectors(ra, dec)
    # a tenth wider than to corners and edges, for the sides of a distorted tile are bent
    radius = 1.1 * float(np.max(np.linalg.norm(corners[1:] - corners[0], axis=1)))
    reach_deg = np.degrees(2 * np.arcsin(min(1.0, radius / 2)))
    about = slice(*np.searchsorted(sorted_dec, [dec[0] - reach_deg, dec[0] + reach_deg]))
    rows = by_dec[about]
    rows = np.sort(rows[np.linalg.norm(unit_vectors(ra_deg[rows], dec_deg[rows]) - corners[0], axis=1) <= radius])
    if not len(rows):
        return rows, np.empty(0), np.empty(0)
    x_px, y_px = pixel_position(facts, ra_deg[rows], dec_deg[rows])
    inside = (x_px >= -0.5) & (x_px < width - 0.5) & (y_px >= -0.5) & (y_px < height - 0.5)
    return rows[inside], x_px[inside], y_px[inside]


def pixel_position(
    facts: TileFacts, ra_deg: NDArray[np.floating], dec_deg: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels (0-based) of ICRS positions near a tile; NaN where its distortion cannot be inverted."""
    wcs = facts.wcs
    try:
        if wcs.wcs.radesys in ("", "ICRS") and wcs.wcs.lngtyp == "RA":
            x_px, y_px = wcs.all_world2pix(ra_deg, dec_deg, 0)
        else:
            from astropy.coordinates import SkyCoord
            from astropy.wcs.utils import skycoord_to_pixel

            x_px, y_px = skycoord_to_pixel(SkyCoord(ra_deg, dec_deg, unit="deg"), wcs, origin=0)
    except NoConvergence as error:  # of positions off the tile
        x_px, y_px = error.best_solution.T
        lost = np.union1d(*(np.asarray([] if k is None else k, int) for k in (error.divergent, error.slow_conv)))
        x_px[lost] = y_px[lost] = np.nan
    return np.asarray(x_px, float), np.asarray(y_px, float)
