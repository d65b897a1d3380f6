"""Training stamps from hosts: arcs painted on early types, and all that must not be taken for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lenspipe.errors import DataError
from lenspipe.nn.card import ModelCard
from lenspipe.nn.preprocess import network_input, surface_brightness
from lenspipe.simulate.artefacts import spoil_pixels
from lenspipe.simulate.negatives import NON_LENSES
from lenspipe.simulate.paint.arcs import paint_arcs
from lenspipe.simulate.paint.host import Host, draw_view
from lenspipe.simulate.paint.lookalikes import paint_non_lens
from lenspipe.simulate.population import Range, SourceImage, SourcePopulation
from lenspipe.toml import Table

AS_IT_IS = ("plain", "field-lens")
"""Kinds of scenes that paint nothing: an ordinary host, and one that is a simulated lens already."""
MARGIN_PX = 4
"""Stamps are kept this much wider than the network's input on each side, for shifts."""


class ScenePlan(Table):
    """How scenes are made of hosts; the defaults are those of the stamps that `ground-gri` learnt from."""

    sources: SourcePopulation = SourcePopulation(mag_r=(21.5, 26.5), mag_slope=0.25, radius_arcsec_at_24=0.28)
    """What is lensed."""
    theta_e_arcsec: Range = (1.0, 4.0)
    """Einstein radii, log-uniform between these."""
    min_arc_snr: Range = (30.0, 100.0)
    """The least signal-to-noise of an arc is log-uniform between these."""
    painted_mag: Range = (17.0, 21.0)
    """Magnitude in the last band of what is painted on."""
    near_artefact_fraction: float = Field(0.1, ge=0, le=1)
    """Part of the painted scenes with a bright star, a bleed or an edge off the centre: lenses have them too."""
    clear_arcsec: float = Field(4.5, ge=0)
    """How far off the centre these stay."""
    visible_change: float = Field(0.15, gt=0)
    """An arc is visible in a pixel of the card where it changes the network's input by more than this in a band."""
    min_visible_px: int = Field(45, ge=0)
    """Visible pixels that an arc needs."""


def scene_size_px(card: ModelCard) -> int:
    """Side of a scene, in the card's pixels."""
    return card.stamp_px + 2 * MARGIN_PX


def host_size_px(card: ModelCard, pixel_scale_arcsec: float, least_scale_arcsec: float) -> int:
    """Odd side of the host cutouts whose pixels, taken as ``least_scale_arcsec``, still cover a scene."""
    field = (scene_size_px(card) + 4) * card.pixel_scale_arcsec
    return 2 * int(np.ceil(field / 2 / min(least_scale_arcsec, pixel_scale_arcsec))) + 1


def make_scene(
    kind: str,
    host: Host,
    rng: np.random.Generator,
    *,
    card: ModelCard,
    least_scale_arcsec: float,
    plan: ScenePlan | None = None,
    images: Sequence[SourceImage] = (),
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """
    One training stamp: surface brightness ``(band, y, x)`` in nJy / arcsec^2 on the card's pixels, and its truth.

    Parameters
    ----------
    kind : str
        ``lens`` (arcs are painted), ``plain`` (the host as it is), ``field-lens`` (the host, a simulated lens), or a
        non-lens of `lenspipe.simulate.negatives`.
    host : Host
        In the card's bands. Arcs and what stands around a galaxy are painted on views of it at the plan's magnitudes.
    least_scale_arcsec : float
        Finest pixel scale that a view may take.
    plan : ScenePlan, optional
    images : sequence of SourceImage
        Real galaxies, for the non-lenses that are made of them.

    Raises
    ------
    ConfigError
        There is no such kind, or it needs images.
    DataError
        No source makes an arc that is bright enough on this host (`paint_arcs`), or the arc drowns in its host
        (`visible_px`).
    """
    plan = plan or ScenePlan()
    around = kind == "lens" or (kind in NON_LENSES and NON_LENSES[kind].stands == "around")
    mags = plan.painted_mag if around or host.kind == "early" else (host.mag - 0.2, host.mag + 1.3)
    scales = (least_scale_arcsec, host.pixel_scale_arcsec)
    view = draw_view(host, rng, scale_range_arcsec=scales, mag_range=mags, reddening=host.kind != "parametric")
    truth: dict[str, Any] = {}
    spoilt = False
    if kind == "lens":
        pixels, truth = _paint_visible_arcs(view, rng, card, plan)
    elif kind in AS_IT_IS:
        pixels = view.pixels_njy.copy()
    else:
        pixels, truth = paint_non_lens(view, kind, rng, bands=card.bands, images=images)
        spoilt = NON_LENSES[kind].stands == "anywhere"
    if kind != "plain" and not spoilt and rng.uniform() < plan.near_artefact_fraction:
        spoil_pixels(pixels, view.pixel_scale_arcsec, rng, clear_arcsec=plan.clear_arcsec)
    scene = surface_brightness(pixels, view.pixel_scale_arcsec, size_px=scene_size_px(card), card=card)
    return scene, truth | {
        "kind": kind,
        "host": host.name,
        "host_kind": host.kind,
        "is_lens": kind in ("lens", "field-lens"),
        "mag": view.mag,
    }


def _paint_visible_arcs(
    view: Host, rng: np.random.Generator, card: ModelCard, plan: ScenePlan
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    pixels, arcs, truth = paint_arcs(
        view.pixels_njy,
        bands=card.bands,
        pixel_scale_arcsec=view.pixel_scale_arcsec,
        psf=tuple(view.psf_fwhm_arcsec),
        rng=rng,
        theta_e_range_arcsec=plan.theta_e_arcsec,
        axis_ratio=min(0.95, max(0.5, view.axis_ratio)),
        angle_rad=view.angle_rad,
        sources=plan.sources,
        sky_rms_njy=view.sky_rms_njy,
        min_arc_snr=float(np.exp(rng.uniform(*np.log(plan.min_arc_snr)))),
    )
    seen = visible_px(pixels, arcs, view.pixel_scale_arcsec, card, change=plan.visible_change)
    if seen < plan.min_visible_px:
        raise DataError("the arc cannot be seen", host=view.name, visible_px=seen)
    return pixels, truth | {"visible_px": seen}


def visible_px(
    painted_njy: NDArray[np.float32],
    arcs_njy: NDArray[np.float32],
    pixel_scale_arcsec: float,
    card: ModelCard,
    *,
    change: float,
) -> int:
    """
    Number of the card's pixels in which the arcs change the network's input by more than ``change`` in a band.

    An arc within the saturated core of a bright galaxy has signal to noise and cannot be seen: called a lens, it
    teaches that bright galaxies are lenses.
    """
    size = scene_size_px(card)
    with_arcs, without = (
        network_input(surface_brightness(pixels, pixel_scale_arcsec, size_px=size, card=card), card.stretch)
        for pixels in (painted_njy, painted_njy - arcs_njy)
    )
    return int((np.abs(with_arcs - without).max(axis=0) > change).sum())


def make_scenes(
    counts: dict[str, int],
    hosts: dict[str, list[Host]],
    *,
    seed: int,
    card: ModelCard,
    least_scale_arcsec: float,
    plan: ScenePlan | None = None,
    images: Sequence[SourceImage] = (),
) -> tuple[NDArray[np.float16], list[dict[str, Any]]]:
    """
    Many scenes: ``counts`` per kind, hosts of a kind drawn in turn from ``hosts[kind]``.

    Scene ``k`` of a kind is drawn from (seed, kind, k), so that any part of them can be made alone. Values are stored
    in float16 as nJy / arcsec^2 / 16, clipped to 1e6 nJy / arcsec^2, far above where the stretch saturates.

    Raises
    ------
    DataError
        A kind has no host, or hardly any host of a kind can carry an arc.
    """
    size = scene_size_px(card)
    scenes = np.empty((sum(counts.values()), len(card.bands), size, size), np.float16)
    truths: list[dict[str, Any]] = []
    for kind_number, (kind, count) in enumerate(counts.items()):
        if count and not hosts.get(kind):
            raise DataError("no hosts for a kind of scene", kind=kind)
        made, item = 0, 0
        while made < count:
            rng = np.random.default_rng([seed, kind_number, item])
            host = hosts[kind][int(rng.integers(len(hosts[kind])))]
            item += 1
            if item > 20 * count + 100:
                raise DataError("hardly any host can carry an arc as bright as asked", kind=kind, made=made)
            try:
                scene, truth = make_scene(
                    kind, host, rng, card=card, least_scale_arcsec=least_scale_arcsec, plan=plan, images=images
                )
            except DataError:
                continue
            if not np.isfinite(scene).all():
                raise ValueError(f"scene {item - 1} of kind {kind} on {host.name} is not finite")
            scenes[len(truths)] = np.clip(scene, -1e6, 1e6) / 16
            truths.append(truth)
            made += 1
    return scenes, truths
