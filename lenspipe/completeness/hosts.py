"""Which rows of a run can be hosts: cuts measured on the run itself, in one pass over its candidates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.bands import selection_band
from lenspipe.catalog.known import read_known_lenses
from lenspipe.catalog.run_rows import Run
from lenspipe.completeness.config import HostConfig
from lenspipe.completeness.places import HostChoice
from lenspipe.completeness.quantities import HOST
from lenspipe.errors import ConfigError
from lenspipe.scan.hosts import LEAST, REDDEST, HostCuts, colour_bands_of, is_host, red_sequence
from lenspipe.sky.sphere import nearest
from lenspipe.tables import open_parquet

COLOUR_BINS = np.arange(-3.0, 7.0, 0.01)
N_SAMPLE = 20_000
NEAR_KNOWN_ARCSEC = 5.0


def measure_cuts(run: Run, config: HostConfig, psf_fwhm_arcsec: dict[str, float]) -> tuple[HostChoice, int]:
    """
    The choice of hosts, by the functions that `lenspipe finder` calls too (`lenspipe.scan.hosts`), and how many rows of
    the run it has.

    Where neither a colour nor a part is given, hosts are redder than where the two modes of the colours of galaxies
    within all other cuts part; a finder asks for other limits, and measures before them.

    Parameters
    ----------
    run : Run
    config : HostConfig
    psf_fwhm_arcsec : dict
        By band; where the selection's band is missing, no size is asked for.

    Raises
    ------
    ConfigError
        No row of the run is within the cuts, or a colour is asked for in a survey of one band.
    """
    band = selection_band(run.bands)
    colour = colour_bands_of(run.bands, config.colour_bands)
    if colour is None and (config.colour_min is not None or config.red_part not in (None, 1.0)):
        raise ConfigError(
            "a survey of one band has no colours: leave hosts.colour_min and hosts.red_part out", band=band
        )
    least = config.radius_min_psf * psf_fwhm_arcsec.get(band, 0.0) / 2
    cuts = HostCuts(
        mag=config.mag,
        half_light_radius_arcsec=(least, np.inf),
        axis_ratio_min=config.axis_ratio_min,
        mask_fraction_max=0.0,
    )
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
    choice = HostChoice(band, colour, cuts)
    if colour is None or config.red_part == 1:
        return dataclasses.replace(choice, said="hosts of every colour"), n_row
    threshold, said = config.colour_min, "given"
    if threshold is None and config.red_part is None and counts.sum() >= 2 * LEAST:
        found = red_sequence(colour, _sample(counts))
        threshold, said = found.threshold_mag, found.said().partition("(")[2].rstrip(")")
    if threshold is None:  # the reddest part, which is also what a few galaxies with one mode give
        above = np.cumsum(counts[::-1])[::-1]  # rows in this bin and redder ones
        edge = int(np.flatnonzero(above >= (config.red_part or REDDEST) * counts.sum())[-1])
        threshold = float(COLOUR_BINS[max(0, edge - 1)])
        said = f"the reddest {config.red_part or REDDEST:.0%} of {counts.sum()} galaxies"
    cuts = dataclasses.replace(cuts, colour_min=threshold)
    n_host = int(counts[int(np.digitize(threshold, COLOUR_BINS)) :].sum())
    return HostChoice(band, colour, cuts, f"hosts have {colour[0]} - {colour[1]} > {threshold:.2f} ({said})"), n_host


def _sample(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Colours at equal steps of their cumulative counts: as good as all of them for two modes, and never many."""
    n = int(min(N_SAMPLE, counts.sum()))
    at = np.searchsorted(np.cumsum(counts), (np.arange(n) + 0.5) * counts.sum() / n)
    return np.asarray(np.r_[COLOUR_BINS, COLOUR_BINS[-1]][at] - (COLOUR_BINS[1] - COLOUR_BINS[0]) / 2)


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
