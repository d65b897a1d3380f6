"""Non-lenses painted on hosts: every kind that `lenspipe.simulate.negatives` knows, in the host's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.simulate.artefacts import add_artefact
from lenspipe.simulate.instrument import kernels_of
from lenspipe.simulate.negatives import NON_LENSES, Galaxy, Place
from lenspipe.simulate.paint.host import Host
from lenspipe.simulate.photometry import red_sequence
from lenspipe.simulate.population import SourceImage
from lenspipe.simulate.unlensed import View, draw_unlensed, shine

APERTURE_ARCSEC = 2.0
"""Radius within which a host's light is counted."""
MOFFAT_BETA = 3.0


def paint_non_lens(
    host: Host, kind: str, rng: np.random.Generator, *, bands: Sequence[str], images: Sequence[SourceImage] = ()
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """
    Paint a non-lens on a host; the host's pixels and their noise stay as they are.

    What stands around a galaxy is drawn around the host, in proportion to its magnitude and at its redshift where it
    asks for them (`host_galaxy`). What stands alone is added at the centre: give it a host of empty sky.

    Parameters
    ----------
    host : Host
    kind : str
        One of `lenspipe.simulate.negatives.NON_LENSES`.
    rng : numpy Generator
    bands : sequence of str
        Names of the host's bands.
    images : sequence of SourceImage
        Real galaxies, for the kinds that are made of them.

    Returns
    -------
    pixels : float32 array (band, y, x)
        nJy.
    facts : dict
        True parameters of what was painted.

    Raises
    ------
    ConfigError
        There is no such kind, it needs images and none are given, or bands and host differ in number.
    DataError
        What is drawn depends on the host's brightness, and it has none.

    Examples
    --------
    >>> sky = Host("empty", "sky", np.zeros((1, 41, 41), np.float32), 0.2, np.array([0.7]), np.array([10.0]),
    ...            float("nan"), 1.0, 0.0)
    >>> pixels, _ = paint_non_lens(sky, "star", np.random.default_rng(1), bands=("r",))
    >>> [int(i) for i in np.unravel_index(pixels.argmax(), pixels.shape)]
    [0, 20, 20]
    """
    if kind not in NON_LENSES:
        raise ConfigError("no such kind of non-lens", kind=kind, known=", ".join(NON_LENSES))
    if len(bands) != len(host.pixels_njy):
        raise ConfigError("one name per band of the host is needed", bands=len(bands), host=len(host.pixels_njy))
    chosen = NON_LENSES[kind]
    if chosen.of_images and not images:
        raise ConfigError("this kind is made of real galaxies: give images of some", kind=kind)
    sky = chosen.draw(rng, Place(bands, images=images, galaxy=partial(host_galaxy, host, bands)))
    view = view_of(host)
    sky.galaxies += [component for part in sky.scaled for component in shine(part, view)]
    pixels = host.pixels_njy.copy()
    if sky.galaxies or sky.stars:
        pixels = (pixels + draw_unlensed(sky, view)).astype(np.float32)
    if sky.artefact:
        add_artefact(sky.artefact, pixels, rng, host.sky_rms_njy, pixel_scale_arcsec=host.pixel_scale_arcsec)
    return pixels, sky.facts


def view_of(host: Host) -> View:
    """The host's pixels, Moffat PSFs and noise."""
    return View(
        host.pixels_njy.shape[-1],
        host.pixel_scale_arcsec,
        kernels_of(tuple(host.psf_fwhm_arcsec), host.pixel_scale_arcsec),
        host.sky_rms_njy,
        moffat=(host.psf_fwhm_arcsec, MOFFAT_BETA),
    )


def host_galaxy(host: Host, bands: Sequence[str]) -> Galaxy:
    """
    Redshift and r magnitude of a host, taken as an early type: where its colours lie on the red sequence.

    Raises
    ------
    DataError
        A band has no light within 2 arcsec.
    """
    y, x = (np.indices(host.pixels_njy.shape[1:]) - host.pixels_njy.shape[-1] // 2) * host.pixel_scale_arcsec
    flux = host.pixels_njy[:, np.hypot(x, y) < APERTURE_ARCSEC].sum(axis=1, dtype=np.float64)
    if not (flux > 0).all():
        raise DataError("the host has no light to draw a non-lens around", host=host.name, kind=host.kind)
    return Galaxy(*red_sequence(flux, bands))
