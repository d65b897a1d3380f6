"""Which rows of a run can be hosts: cuts measured on the run itself, in one pass over its candidates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.bands import by_wavelength, selection_band
from lenspipe.catalog.known import read_known_lenses
from lenspipe.catalog.run_rows import Run
from lenspipe.completeness.config import HostConfig
from lenspipe.completeness.places import HOST, HostCuts, is_host
from lenspipe.errors import ConfigError
from lenspipe.sky.sphere import nearest
from lenspipe.tables import open_parquet

COLOUR_BINS = np.arange(-3.0, 7.0, 0.01)
NEAR_KNOWN_ARCSEC = 5.0


def measure_cuts(run: Run, config: HostConfig, psf_fwhm_arcsec: dict[str, float]) -> tuple[HostCuts, int]:
    """
    Cuts in numbers, and how many rows of the run lie within them.

    The colour is that of the bluest band from g on (of any, where there is no other) against the band of the selection;
    the reddest part is counted among rows within all other cuts.

    Parameters
    ----------
    run : Run
    config : HostConfig
    psf_fwhm_arcsec : dict
        By band; where the selection's band is missing, no size is asked for.

    Raises
    ------
    ConfigError
        No row of the run is within the cuts.
    """
    band = selection_band(run.bands)
    others = sorted((b for b in run.bands if b != band), key=by_wavelength)
    bluest = next((b for b in others if b != "u"), others[0] if others else None)
    colour = None
    if bluest is not None:
        colour = (bluest, band) if by_wavelength(bluest) < by_wavelength(band) else (band, bluest)
    least = config.radius_min_psf * psf_fwhm_arcsec.get(band, 0.0) / 2
    cuts = HostCuts(band, config.mag, colour, -np.inf, least, config.axis_ratio_min)
    counts, n_row = np.zeros(len(COLOUR_BINS) + 1, np.int64), 0
    names = [
        "half_light_radius_arcsec",
        "axis_ratio",
        "flags",
        "mask_fraction",
        *(f"mag_{b}" for b in colour or (band,)),
    ]
    for batch in open_parquet(run.folder / "candidates.parquet").iter_batches(columns=names):
        value = {name: _numbers(batch.column(name)) for name in names}
        shade = value[f"mag_{colour[0]}"] - value[f"mag_{colour[1]}"] if colour else None
        keep = is_host(
            value[f"mag_{band}"],
            shade,
            value["half_light_radius_arcsec"],
            value["axis_ratio"],
            value["flags"].astype(np.int64),
            value["mask_fraction"],
            cuts,
        )
        n_row += int(keep.sum())
        if shade is not None:
            counts += np.bincount(np.digitize(shade[keep], COLOUR_BINS), minlength=len(counts))
    if not n_row:
        raise ConfigError(
            "no row of the run can carry arcs; widen [hosts] (`lenspipe settings completeness`)",
            band=band,
            mag=f"{config.mag[0]:g} to {config.mag[1]:g}",
            half_light_radius_min_arcsec=round(least, 3),
        )
    if colour is None or config.red_part == 1:
        return cuts, n_row
    above = np.cumsum(counts[::-1])[::-1]  # rows in this bin and redder ones
    edge = int(np.flatnonzero(above >= config.red_part * n_row)[-1])
    return dataclasses.replace(cuts, colour_min=float(COLOUR_BINS[max(0, edge - 1)])), int(above[edge])


def _numbers(column: pa.Array) -> NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))


def without_known_lenses(places: pa.Table, lists: tuple[str, ...]) -> pa.Table:
    """Places whose hosts are not within 5" of a known lens."""
    if not lists or not places.num_rows:
        return places
    lenses = pa.concat_tables([read_known_lenses(name) for name in lists])
    which, _ = nearest(
        places["ra"].to_numpy(),
        places["dec"].to_numpy(),
        lenses["ra"].to_numpy(),
        lenses["dec"].to_numpy(),
        radius_arcsec=NEAR_KNOWN_ARCSEC,
    )
    is_galaxy = np.array([kind == HOST for kind in places["kind"].to_pylist()])
    return places.filter(pa.array(~(is_galaxy & (which >= 0))))
