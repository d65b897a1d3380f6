"""Which lenses a tile carries in a pass, and what they look like; drawn from the seed and names alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.completeness.quantities import HOST, SKY
from lenspipe.completeness.seeds import rng_of
from lenspipe.errors import DataError
from lenspipe.simulate.arcs import Optics
from lenspipe.simulate.instrument import photon_noise
from lenspipe.simulate.lensed import around_light, draw_lens
from lenspipe.simulate.population import Range, SourcePopulation

MAX_DRAWS = 300
Place = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Lensing:
    """What is drawn."""

    theta_e_arcsec: Range
    arc_snr: Range
    shear_scatter: float
    sources: SourcePopulation


@dataclasses.dataclass(frozen=True, eq=False)
class Injection:
    """One lens, at its place in the tile."""

    injection_id: str
    place: Place
    host: Place
    """Whose light and shape it has: the place itself, or a galaxy from elsewhere."""
    x_px: float
    y_px: float
    """Centre in the tile."""


def choose_places(
    places: Sequence[Place],
    donors: Sequence[Place],
    *,
    tile: str,
    name: str,
    seed: int,
    n: Mapping[str, int],
    apart_px: float,
) -> list[Injection]:
    """
    Places of a tile that carry a lens in a pass.

    Parameters
    ----------
    places : sequence
        Of the tile.
    donors : sequence
        Hosts whose light can be put down on empty sky. Of those in other tiles one is drawn where there are any.
    tile, name : str
        Tile and pass.
    n : mapping
        How many of each kind are wanted.
    apart_px : float
        Least distance of two of them.
    """
    rng = rng_of(seed, "places", tile, name)
    kept: list[Place] = []
    left = dict(n)
    for k in rng.permutation(len(places)):
        place = places[k]
        if left.get(place["kind"], 0) < 1 or (place["kind"] == SKY and not donors):
            continue
        if all(np.hypot(place["x_px"] - p["x_px"], place["y_px"] - p["y_px"]) >= apart_px for p in kept):
            kept.append(place)
            left[place["kind"]] -= 1
    elsewhere = [d for d in donors if d["tile"] != tile] or list(donors)
    chosen = []
    for place in kept:
        host, x, y = place, float(place["x_px"]), float(place["y_px"])
        injection_id = f"{place['place_id']}_{name}"
        if place["kind"] == SKY:
            host = elsewhere[int(rng_of(seed, "donor", injection_id).integers(len(elsewhere)))]
            # light moves by whole pixels: the host keeps its place within the pixel
            x, y = (
                float(np.floor(at + 0.5) + own - np.floor(own + 0.5))
                for at, own in ((x, host["x_px"]), (y, host["y_px"]))
            )
        chosen.append(Injection(injection_id, place, host, x, y))
    return chosen


def draw_arcs_of(
    injection: Injection,
    lensing: Lensing,
    *,
    bands: Sequence[str],
    snr_bands: Sequence[str],
    pixel_scale_arcsec: float,
    kernels: Sequence[NDArray[np.floating]],
    sky_rms_njy: NDArray[np.float64],
    njy_per_electron: Mapping[str, float],
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, Any]]:
    """
    The arcs of an injection on an odd stamp around the pixel that holds its centre.

    Lens and source are drawn as for training stamps (`lenspipe.simulate.lensed`); then the source's brightness is set
    by a signal-to-noise that is log-uniform in its range, so that the selection function is measured as well for bright
    arcs, which are rare, as for faint ones.

    Returns
    -------
    arcs, noisy : arrays (band, y, x)
        nJy, without noise, and with the photon noise of the bands whose gain is known.
    truth : dict
    """
    rng = rng_of(seed, "arcs", injection.injection_id)
    host, scale = injection.host, pixel_scale_arcsec
    offset = [(at - np.floor(at + 0.5)) * scale for at in (injection.x_px, injection.y_px)]
    lens = draw_lens(
        rng,
        around_light(
            lensing.theta_e_arcsec,
            axis_ratio=float(host["axis_ratio"]),
            angle_rad=float(np.radians(host["angle_deg"])),
            shear_scatter=lensing.shear_scatter,
            offset_arcsec=(float(offset[0]), float(offset[1])),
        ),
        Optics(bands, scale, kernels, sky_rms_njy),
        sources=lensing.sources,
        attempts=MAX_DRAWS,
    )
    if lens is None:
        raise DataError("no source of this population is imaged twice and magnified", injection=injection.injection_id)
    arcs, truth = lens.arcs.image, dict(lens.arcs.truth)
    of = [list(bands).index(band) for band in snr_bands]
    snr = float(np.sqrt(np.sum((arcs[of] / sky_rms_njy[of, None, None]) ** 2)))
    wanted = float(np.exp(rng.uniform(*np.log(lensing.arc_snr))))
    arcs = arcs * (wanted / snr)
    for key in truth:
        if key.startswith(("arc_mag_", "source_mag_")):
            truth[key] = truth[key] - 2.5 * np.log10(wanted / snr)
    truth["arc_snr"] = wanted
    noisy = arcs.copy()
    for b, band in enumerate(bands):
        if band in njy_per_electron:
            noisy[b] = photon_noise(arcs[b : b + 1], [njy_per_electron[band]], rng)[0]
    return arcs, noisy, truth


def numbers_of(
    area_arcmin2: float, *, per_arcmin2: float, on_sky: float, tile: str, name: str, seed: int
) -> dict[str, int]:
    """
    Lenses of each kind in a pass of a tile of an area; fractions are rounded at random, by the names of both.

    Examples
    --------
    >>> of = [numbers_of(1.0, per_arcmin2=0.6, on_sky=0.5, tile="a", name=f"p{k}", seed=0)["host"] for k in range(100)]
    >>> sorted(set(of)), sum(of) in range(20, 40)
    ([0, 1], True)
    """
    wanted = {HOST: area_arcmin2 * per_arcmin2 * (1 - on_sky), SKY: area_arcmin2 * per_arcmin2 * on_sky}
    return {kind: int(np.floor(n + rng_of(seed, "n", kind, tile, name).uniform())) for kind, n in wanted.items()}
