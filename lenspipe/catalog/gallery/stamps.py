"""Stamps of candidates, cut again from their tiles and sampled on one grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import TileError
from lenspipe.image.contact import sample_covered, sample_stamps
from lenspipe.image.sky import subtract_sky
from lenspipe.sky.wcs import compass
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.read import read_facts, read_window
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import Tile


@dataclasses.dataclass(frozen=True, eq=False)
class Stamps:
    """Stamps of one shard's candidates, or the reason why there are none."""

    rows: NDArray[np.int64]
    """Their rows in the table."""
    surface_brightness: NDArray[np.float32] | None
    """(n, channel, y, x), nJy / arcsec^2, sky subtracted, 0 where there are no data."""
    noise: NDArray[np.float64] | None
    """(channel,) sky noise, nJy / arcsec^2."""
    covered: NDArray[np.bool_] | None = None
    """(n, channel, y, x), False where there are no data: beyond the tile, or masked."""
    compass_deg: NDArray[np.float64] | None = None
    """(2, n) directions of north and east (`lenspipe.sky.wcs.compass`)."""
    reason: str | None = None


def cut_stamps(
    rows: pa.Table,
    tile: Tile,
    layout: SurveyLayout,
    *,
    channels: tuple[str, ...],
    zero_point_ab: float | None,
    mesh_px: int,
    filter_mesh: int,
    stamp_px: int,
    stamp_arcsec: float,
) -> Iterator[Stamps]:
    """
    Cut the stamps of one tile's candidates, shard by shard, as the scan saw them: calibrated, sky subtracted.

    They are sampled bilinearly on ``stamp_px`` by ``stamp_px`` pixels over ``stamp_arcsec``, with the candidate in
    the middle and the axes of the tile; columns and rows grow as in FITS, the first row is the lowest.

    Parameters
    ----------
    rows : pa.Table
        Catalogue rows of the tile, with a column ``row``.
    channels : tuple of str
        Bands to cut; a band that the tile lacks is the mean of those that it has.

    Yields
    ------
    Stamps
        One for each shard.
    """
    windows = [f"window_{edge}_px" for edge in ("x0", "y0", "x1", "y1")]
    for group in (
        rows.group_by(windows, use_threads=False)
        .aggregate([("row", "list"), ("x_px", "list"), ("y_px", "list")])
        .to_pylist()
    ):
        members = np.array(group["row_list"])
        if None in group["x_px_list"] or None in group["y_px_list"] or None in group.values():
            yield Stamps(members, None, None, reason="a row does not say where in its tile it is")
            continue
        try:
            window = Box(*(int(group[name]) for name in windows))
            facts = read_facts(tile, layout, assumed_zero_point_ab=zero_point_ab)
            pixels = read_window(tile, facts, layout, window)
            flat = subtract_sky(pixels.image, pixels.mask, bands=pixels.bands, mesh_px=mesh_px, filter_mesh=filter_mesh)
        except TileError as error:
            yield Stamps(members, None, None, reason=str(error))
            continue
        sky_rms = [np.nan if rms is None else rms for rms in flat.median_rms]
        x_px = np.array(group["x_px_list"]) - window.x0
        y_px = np.array(group["y_px_list"]) - window.y0
        step_px = stamp_arcsec / stamp_px / facts.pixel_scale_arcsec
        grid: dict[str, Any] = {"channels": channels, "stamp_px": stamp_px, "step_px": step_px}
        shown = sample_stamps(flat.image, pixels.bands, x_px, y_px, **grid)
        covered = sample_covered(flat.mask, pixels.bands, x_px, y_px, **grid)
        north_east = np.stack(compass(facts.wcs, np.array(group["x_px_list"]), np.array(group["y_px_list"])))
        order = [pixels.bands.index(c) if c in pixels.bands else None for c in channels]
        per_arcsec2 = 1 / facts.pixel_scale_arcsec**2
        noise = [np.nanmean(sky_rms) if b is None else sky_rms[b] for b in order]
        yield Stamps(members, shown * np.float32(per_arcsec2), np.array(noise) * per_arcsec2, covered, north_east)
