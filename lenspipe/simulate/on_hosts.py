"""A stamp on real pixels: every class of a recipe painted on a survey's own galaxies and sky."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lenspipe.errors import ConfigError, DataError
from lenspipe.image.resample import cubic_matrix
from lenspipe.simulate.arcs import Optics
from lenspipe.simulate.artefacts import ARTEFACTS, add_artefact
from lenspipe.simulate.hosts import HostStamps
from lenspipe.simulate.instrument import FWHM_PER_SIGMA, kernels_of
from lenspipe.simulate.lensed import DrawDeflector, around_light, draw_lens, from_population
from lenspipe.simulate.negatives import NON_LENSES
from lenspipe.simulate.observe import Conditions
from lenspipe.simulate.paint.host import Host, draw_view
from lenspipe.simulate.paint.lookalikes import paint_non_lens
from lenspipe.simulate.population import SourceImage
from lenspipe.simulate.recipe import REAL, HostTable, ImageTable, Recipe
from lenspipe.simulate.render import add_stamp

CROWD = ("companions", "satellites", "group")
"""Non-lenses whose neighbours stand around what any stamp shows."""
MAX_HOSTS, MAX_DRAWS = 200, 40
"""Hosts that are tried, and lenses on each, before a recipe is refused."""
CONTRAST_SIGMA, CONTRAST_HOST = 1.5, 0.15
"""An arc stands out where it exceeds so many sigma of the noise and this part of the light that is there."""


@dataclass(frozen=True)
class OnHost:
    """A painted stamp."""

    pixels_njy: NDArray[np.float32]
    """``(band, y, x)`` on the recipe's grid."""
    host: str
    """Name of the host."""
    split: str | None
    """The host's; None where the data set does not say."""
    facts: dict[str, Any]
    """True parameters."""


def draw_on_host(
    recipe: Recipe,
    rng: np.random.Generator,
    kind: str,
    hosts: HostStamps,
    source_images: Sequence[SourceImage] = (),
    conditions: Conditions | None = None,
) -> OnHost:
    """
    Paint one stamp of a class on a real host, so that noise, PSF, neighbours and artefacts are the survey's own.

    Arcs and what stands around a galaxy go on early types, what stands alone on empty sky, artefacts and the class
    ``real`` on any source. How hosts are taken (``[hosts]``) and the recipe's artefacts are drawn before the class
    matters, so that nothing but what is painted tells classes apart. ``conditions`` are what a recipe with
    ``hosts.as_survey`` brings them to.

    Raises
    ------
    ConfigError
        There are no hosts of the kind that a class needs, or hardly any can carry what the recipe asks for.
    """
    table, image = recipe.hosts or HostTable(), recipe.image[0]
    for _ in range(MAX_HOSTS):
        row = choose_row(kind, hosts, table, rng)
        host = hosts.hosts[row]
        low, high = (1.0, 1.0) if rng.uniform() < table.native_fraction else table.shrink
        view = draw_view(
            host,
            rng,
            scale_range_arcsec=(low * host.pixel_scale_arcsec, high * host.pixel_scale_arcsec),
            dimming_mag=table.dimming_mag,
            reddening=table.reddening,
        )
        taken, own_rms_njy = conditions if table.as_survey else None, view.sky_rms_njy
        if taken is not None:
            view, own_rms_njy = blurred(view, taken, image)
        try:
            pixels, facts = _painted(recipe, table, kind, view, rng, source_images)
        except DataError:
            continue
        if table.crowd_fraction and rng.uniform() < table.crowd_fraction:
            pixels = crowded(replace(view, pixels_njy=pixels), rng, image.bands)
        if taken is not None:
            gain = taken.njy_per_electron[: len(image.bands)]
            pixels = noisier(pixels, own_rms_njy, view.sky_rms_njy, gain, rng)
        artefact = facts.get("artefact") or ""
        if not artefact and rng.uniform() < recipe.artefact_fraction:
            artefact = ARTEFACTS[int(rng.integers(len(ARTEFACTS)))]
            add_artefact(artefact, pixels, rng, view.sky_rms_njy, pixel_scale_arcsec=view.pixel_scale_arcsec)
        facts |= {"host_kind": host.kind, "host_mag": view.mag, "artefact": artefact}
        for b, band in enumerate(image.bands):
            facts[f"seeing_{band}_arcsec"] = float(view.psf_fwhm_arcsec[b])
            facts[f"sky_rms_{band}_njy"] = float(view.sky_rms_njy[b])
        on_grid = to_grid(pixels, view.pixel_scale_arcsec, image.size_px, image.pixel_scale_arcsec)
        return OnHost(on_grid, host.name, hosts.splits[row], facts)
    raise ConfigError(
        "hardly any host can carry what the recipe asks for: lower min_arc_snr or hosts.arc_snr_min, or brighten the "
        "sources",
        recipe=recipe.name,
        kind=kind,
        hosts=MAX_HOSTS,
    )


def blurred(view: Host, conditions: Conditions, image: ImageTable) -> tuple[Host, NDArray[np.float64]]:
    """
    A view at the PSF of the conditions where it is sharper, by the Gaussian with which FWHMs add in quadrature.

    Returns
    -------
    Host
        Its noise is that of the conditions where it is deeper: what `noisier` brings the pixels to.
    array ``(band,)``
        Noise of a pixel that is left in it, nJy; white noise is taken to have been there.
    """
    bands = slice(0, len(image.bands))
    seeing = conditions.seeing_fwhm_arcsec[bands]
    missing = np.sqrt(np.clip(seeing**2 - view.psf_fwhm_arcsec**2, 0, None)) / FWHM_PER_SIGMA
    sigma_px = missing / view.pixel_scale_arcsec
    pairs = list(zip(view.pixels_njy, sigma_px, strict=True))
    pixels = np.stack([gaussian_filter(plane, sigma, mode="nearest") for plane, sigma in pairs])
    point = np.zeros(101)
    point[50] = 1.0
    left = np.array([np.sum(gaussian_filter(point, sigma) ** 2) for _, sigma in pairs])
    rms = conditions.sky_rms_njy[bands] * view.pixel_scale_arcsec / image.pixel_scale_arcsec
    seen = replace(
        view,
        pixels_njy=pixels,
        psf_fwhm_arcsec=np.maximum(seeing, view.psf_fwhm_arcsec),
        sky_rms_njy=np.maximum(rms, view.sky_rms_njy * left),
    )
    return seen, view.sky_rms_njy * left


def noisier(
    pixels_njy: NDArray[np.float32],
    own_rms_njy: NDArray[np.float64],
    rms_njy: NDArray[np.float64],
    njy_per_electron: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Pixels ``(band, y, x)`` with the sky noise that is missing, and with photon noise of all light in them."""
    sky = np.clip(rms_njy**2 - own_rms_njy**2, 0, None)
    variance = sky[:, None, None] + pixels_njy.clip(0) * njy_per_electron[:, None, None]
    return (pixels_njy + rng.normal(size=pixels_njy.shape) * np.sqrt(variance)).astype(np.float32)


def crowded(host: Host, rng: np.random.Generator, bands: Sequence[str]) -> NDArray[np.float32]:
    """Pixels with the neighbours of a kind of `CROWD`; as they are where the host has no light to draw them by."""
    kind = CROWD[int(rng.integers(len(CROWD)))]
    try:
        return paint_non_lens(host, kind, rng, bands=bands)[0]
    except DataError:
        return host.pixels_njy


def needs(kind: str) -> tuple[str, ...]:
    """Kinds of hosts that a class may be painted on."""
    stands = "around" if kind == "lens" else "anywhere" if kind == REAL else NON_LENSES[kind].stands
    return {"around": ("early",), "alone": ("sky",), "anywhere": ("source", "early", "star", "artefact")}[stands]


def demand_hosts(recipe: Recipe, hosts: HostStamps) -> None:
    """
    Raise `ConfigError` where hosts of a kind that a class of the recipe needs are not there, before any work.

    The shortcut that this forbids: a class with drawn noise beside classes with real noise is told by its noise.
    """
    for kind, share in recipe.classes.items():
        if share > 0 and not any(need in hosts.rows for need in needs(kind)):
            raise ConfigError(
                "a class of the recipe needs real pixels that the hosts do not have; give a survey's run as --hosts, "
                "or switch the class off",
                kind=kind,
                needs=" or ".join(needs(kind)),
                has=" ".join(hosts.rows),
                switch_off=f"--set classes.{kind}=0",
            )


def choose_row(kind: str, hosts: HostStamps, table: HostTable, rng: np.random.Generator) -> int:
    """Row of a host for a class: any early type or piece of sky alike, real sources by kind and brightness."""
    there = [need for need in needs(kind) if need in hosts.rows]
    if not there:
        raise ConfigError("there are no hosts for this class", kind=kind, has=" ".join(hosts.rows))
    if kind != REAL:
        rows = np.concatenate([hosts.rows[need] for need in there])
        if table.luminous:
            return int(rng.choice(rows, p=np.concatenate([hosts.weights[need] for need in there]) / len(there)))
        return int(rows[rng.integers(len(rows))])
    shares = np.array([table.real_shares.get(need, 0.0) for need in there])
    if not shares.sum() > 0:
        shares = np.ones(len(there))
    chosen = there[int(rng.choice(len(there), p=shares / shares.sum()))]
    return int(rng.choice(hosts.rows[chosen], p=hosts.weights[chosen]))


def _painted(
    recipe: Recipe,
    table: HostTable,
    kind: str,
    view: Host,
    rng: np.random.Generator,
    source_images: Sequence[SourceImage],
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    bands = recipe.image[0].bands
    if kind == "lens":
        return _with_arcs(recipe, table, view, rng, source_images)
    if kind in (REAL, "early_type"):
        return view.pixels_njy.copy(), {}
    pixels, facts = paint_non_lens(view, kind, rng, bands=bands, images=source_images)
    if kind in ARTEFACTS or kind == "spoiled":
        facts = facts | {"artefact": kind}
    return pixels, facts


def _with_arcs(
    recipe: Recipe, table: HostTable, view: Host, rng: np.random.Generator, source_images: Sequence[SourceImage]
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    shape = min(0.95, max(0.5, view.axis_ratio)), view.angle_rad
    draw: DrawDeflector = (
        from_population(recipe.deflectors, recipe.sources.redshift, light_shape=shape)
        if table.theta_e_arcsec is None
        else around_light(
            table.theta_e_arcsec, axis_ratio=shape[0], angle_rad=shape[1], shear_scatter=recipe.deflectors.shear_scatter
        )
    )
    least = recipe.min_arc_snr
    if table.arc_snr_min is not None:
        least = float(np.exp(rng.uniform(*np.log(table.arc_snr_min))))
    scale, size = view.pixel_scale_arcsec, view.pixels_njy.shape[-1]
    drawn = draw_lens(
        rng,
        draw,
        Optics(recipe.image[0].bands, scale, kernels_of(tuple(view.psf_fwhm_arcsec), scale), view.sky_rms_njy),
        sources=recipe.sources,
        source_images=source_images,
        min_arc_snr=least,
        min_magnification=recipe.min_magnification,
        visible=lambda arcs: (
            not table.visible_arcsec2 or visible_arcsec2(_layer(arcs.image, size), view) >= table.visible_arcsec2
        ),
        attempts=MAX_DRAWS,
    )
    if drawn is None:
        raise DataError("no source makes an arc as bright as asked on this host", host=view.name)
    pixels = (view.pixels_njy + _layer(drawn.arcs.image, size)).astype(np.float32)
    return pixels, {**drawn.arcs.truth, **drawn.drawn}


def _layer(arcs_njy: NDArray[np.float64], size_px: int) -> NDArray[np.float64]:
    layer = np.zeros((len(arcs_njy), size_px, size_px))
    add_stamp(layer, arcs_njy, size_px // 2, size_px // 2)
    return layer


def visible_arcsec2(arcs_njy: NDArray[np.float64], view: Host) -> float:
    """
    Area in which arcs ``(band, y, x)`` exceed 1.5 sigma of the noise and 15 % of the host's light, in any band.

    An arc lost in the core of a bright galaxy has signal-to-noise and cannot be seen: called a lens, it teaches that
    bright galaxies are lenses.
    """
    noise = CONTRAST_SIGMA * view.sky_rms_njy[:, None, None]
    seen = (arcs_njy > noise) & (arcs_njy > CONTRAST_HOST * np.clip(view.pixels_njy, 0, None))
    return float(seen.any(axis=0).sum()) * view.pixel_scale_arcsec**2


def to_grid(
    pixels_njy: NDArray[np.float32], scale_in_arcsec: float, size_px: int, scale_out_arcsec: float
) -> NDArray[np.float32]:
    """Pixels ``(band, y, x)``, nJy, on a grid of the same centre: cropped where scales agree, resampled elsewhere."""
    side = pixels_njy.shape[-1]
    if side >= size_px and abs(scale_in_arcsec / scale_out_arcsec - 1) < 0.02:
        cut = (side - size_px) // 2
        return np.ascontiguousarray(pixels_njy[:, cut : cut + size_px, cut : cut + size_px])
    matrix = cubic_matrix(side, scale_in_arcsec, size_px, scale_out_arcsec)
    factor = np.float32((scale_out_arcsec / scale_in_arcsec) ** 2)
    resampled: NDArray[np.float32] = np.matmul(np.matmul(matrix, pixels_njy), matrix.T) * factor
    return resampled
