"""Training stamps from hosts: arcs painted on early types, and all that must not be taken for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import DataError
from lenspipe.nn.card import ModelCard
from lenspipe.nn.preprocess import network_input, surface_brightness
from lenspipe.simulate.paint.arcs import paint_arcs
from lenspipe.simulate.paint.host import Host, draw_view
from lenspipe.simulate.paint.lookalikes import BANDS, paint_companions, paint_ring, paint_spiral, spoil_pixels
from lenspipe.simulate.population import SourcePopulation

ARC_SOURCES = SourcePopulation(mag_r=(21.5, 26.5), mag_slope=0.25, radius_arcsec_at_24=0.28)
THETA_E_ARCSEC = (1.0, 4.0)
MIN_ARC_SNR = (30.0, 100.0)
NEAR_ARTEFACT, CLEAR_ARCSEC = 0.1, 4.5
"""Part of the painted scenes with a bright star, a bleed or an edge this far from the centre: lenses have them too."""
VISIBLE_CHANGE, MIN_VISIBLE_PX = 0.15, 45
"""An arc counts as visible where it changes this many of the card's pixels by this much of the input's range."""
MARGIN_PX = 4
"""Stamps are kept this much wider than the network's input on each side, for shifts."""


def scene_size_px(card: ModelCard) -> int:
    """Side of a scene, in the card's pixels."""
    return card.stamp_px + 2 * MARGIN_PX


def host_size_px(card: ModelCard, pixel_scale_arcsec: float, least_scale_arcsec: float) -> int:
    """Odd side of the host cutouts whose pixels, taken as ``least_scale_arcsec``, still cover a scene."""
    field = (scene_size_px(card) + 4) * card.pixel_scale_arcsec
    return 2 * int(np.ceil(field / 2 / min(least_scale_arcsec, pixel_scale_arcsec))) + 1


def make_scene(
    kind: str, host: Host, rng: np.random.Generator, *, card: ModelCard, least_scale_arcsec: float
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """
    One training stamp: surface brightness ``(band, y, x)`` in nJy / arcsec^2 on the card's pixels, and its truth.

    Parameters
    ----------
    kind : str
        ``lens`` (arcs are painted) or ``field-lens`` (the host is a simulated lens as it is); or ``plain`` (the host as
        it is), ``companions``, ``ring``, ``spiral``, ``spoiled``.
    host : Host
        ``lens``, ``companions``, ``ring`` and ``spiral`` are painted on views of it at i = 17 to 21.
    least_scale_arcsec : float
        Finest pixel scale that a view may take.

    Raises
    ------
    DataError
        No source makes an arc that is bright enough on this host (`paint_arcs`), or the arc drowns in its host
        (`visible_px`).
    """
    painted = kind not in ("plain", "spoiled", "field-lens") or host.kind == "early"
    mags = (17.0, 21.0) if painted else (host.mag - 0.2, host.mag + 1.3)
    scales = (least_scale_arcsec, host.pixel_scale_arcsec)
    view = draw_view(host, rng, scale_range_arcsec=scales, mag_range=mags, reddening=host.kind != "parametric")
    truth: dict[str, Any] = {}
    arcs = None
    if kind == "lens":
        pixels, arcs, truth = paint_arcs(
            view.pixels_njy,
            bands=BANDS,
            pixel_scale_arcsec=view.pixel_scale_arcsec,
            psf=tuple(view.psf_fwhm_arcsec),
            rng=rng,
            theta_e_range_arcsec=THETA_E_ARCSEC,
            axis_ratio=min(0.95, max(0.5, view.axis_ratio)),
            angle_rad=view.angle_rad,
            sources=ARC_SOURCES,
            sky_rms_njy=view.sky_rms_njy,
            min_arc_snr=float(np.exp(rng.uniform(*np.log(MIN_ARC_SNR)))),
        )
    elif kind == "companions":
        pixels = paint_companions(view, rng)
    elif kind == "ring":
        pixels = paint_ring(view, rng)
    elif kind == "spiral":
        pixels = paint_spiral(view, rng)
    else:
        pixels = view.pixels_njy.copy()
    if arcs is not None:
        truth["visible_px"] = visible_px(pixels, arcs, view.pixel_scale_arcsec, card)
        if truth["visible_px"] < MIN_VISIBLE_PX:
            raise DataError("the arc cannot be seen", host=host.name, visible_px=truth["visible_px"])
    if kind == "spoiled":
        spoil_pixels(pixels, view.pixel_scale_arcsec, rng)
    elif kind != "plain" and rng.uniform() < NEAR_ARTEFACT:
        spoil_pixels(pixels, view.pixel_scale_arcsec, rng, clear_arcsec=CLEAR_ARCSEC)
    scene = surface_brightness(pixels, view.pixel_scale_arcsec, size_px=scene_size_px(card), card=card)
    return scene, truth | {
        "kind": kind,
        "host": host.name,
        "host_kind": host.kind,
        "is_lens": kind in ("lens", "field-lens"),
        "mag": view.mag,
    }


def visible_px(
    painted_njy: NDArray[np.float32], arcs_njy: NDArray[np.float32], pixel_scale_arcsec: float, card: ModelCard
) -> int:
    """
    Number of the card's pixels in which the arcs change the network's input by more than `VISIBLE_CHANGE` in a band.

    An arc within the saturated core of a bright galaxy has signal to noise and cannot be seen: called a lens, it
    teaches that bright galaxies are lenses.
    """
    size = scene_size_px(card)
    with_arcs, without = (
        network_input(surface_brightness(pixels, pixel_scale_arcsec, size_px=size, card=card), card.stretch)
        for pixels in (painted_njy, painted_njy - arcs_njy)
    )
    return int((np.abs(with_arcs - without).max(axis=0) > VISIBLE_CHANGE).sum())


def make_scenes(
    counts: dict[str, int], hosts: dict[str, list[Host]], *, seed: int, card: ModelCard, least_scale_arcsec: float
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
                scene, truth = make_scene(kind, host, rng, card=card, least_scale_arcsec=least_scale_arcsec)
            except DataError:
                continue
            if not np.isfinite(scene).all():
                raise ValueError(f"scene {item - 1} of kind {kind} on {host.name} is not finite")
            scenes[len(truths)] = np.clip(scene, -1e6, 1e6) / 16
            truths.append(truth)
            made += 1
    return scenes, truths
