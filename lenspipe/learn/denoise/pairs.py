"""Pairs of a short and a deep exposure of the same sky: simulated, made noisier, or of repeated real frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lenspipe.errors import DataError
from lenspipe.infer.committee import dihedral_view
from lenspipe.learn.denoise.colour import WHITE, coloured_noise, resampled_correlation
from lenspipe.simulate.field import simulate_field
from lenspipe.simulate.instrument import add_noise

Image = NDArray[np.float32]
TRUTH_DEPTH = 10.0
"""A simulated sky is this much deeper than the images made of it: its own noise adds 1 % to their variance."""
NOMINAL_RMS_NJY = (13.0, 15.0, 34.0)
"""Noise of a KiDS pixel of 0.2 arcsec in g, r, i."""
LEAST_RATIO = 1.05
"""Least ratio that is drawn: at 1 there is nothing to learn."""
TAPS, WHITE_PART = (-0.06, 0.15), 0.4
"""How much the noise of simulated images is smoothed (KiDS -0.04, DES 0.08); part that is left white."""


@dataclass(frozen=True, eq=False)
class Sky:
    """
    A field to draw pairs from.

    Attributes
    ----------
    kind : str
        ``model`` (nearly free of noise), ``image`` (real, to be made noisier) or ``frames`` (a short exposure and the
        mean of others of the same sky, on its grid).
    image_njy : float32 array (band, y, x)
        The model; the real image; or the short exposure.
    sky_rms_njy : float64 array (band,)
        ``model``: noise of a pixel of the images to be made of it, which is varied. Else the image's own.
    njy_per_electron : float64 array (band,) or None
        Flux of a photo-electron at that noise, for the photons of sources; None where unknown.
    rest_njy : float32 array (band, y, x), optional
        ``frames``: mean of the other frames, NaN where there is none.
    n_rest : int
        ``frames``: how many others.
    correlation : array (5, 5)
        ``image``: of the noise of neighbouring pixels (`lenspipe.learn.denoise.colour`).
    """

    kind: str
    image_njy: Image
    sky_rms_njy: NDArray[np.float64]
    njy_per_electron: NDArray[np.float64] | None = None
    rest_njy: Image | None = None
    n_rest: int = 0
    correlation: NDArray[np.float64] = field(default_factory=lambda: WHITE)


def exposure_pair(
    model_njy: NDArray[np.floating],
    *,
    sky_rms_njy: ArrayLike,
    njy_per_electron: ArrayLike,
    ratio: float,
    rng: np.random.Generator,
    correlation: NDArray[np.float64] = WHITE,
) -> tuple[Image, Image]:
    """
    A short exposure of a noise-free sky, and the mean of ``ratio`` of them of which it is one.

    The rest of the time is a second realisation: sky noise and the photons of the sources are drawn once for either
    part and never for both, so the deep image's variance is that of the short one over ``ratio``.

    Parameters
    ----------
    model_njy : array (band, y, x)
    sky_rms_njy, njy_per_electron : float per band
        Noise of a pixel and flux of a photo-electron in the short exposure.
    ratio : float
        Deep exposure time over the short one, above 1.
    correlation : array (5, 5)
        Of the sky's noise.

    Returns
    -------
    short, deep : float32 arrays (band, y, x), nJy
    """
    rms, gain = np.asarray(sky_rms_njy, float), np.asarray(njy_per_electron, float)
    short = _expose(model_njy, rms, gain, correlation, rng)
    more = ratio - 1
    rest = _expose(model_njy, rms / np.sqrt(more), gain / more, correlation, rng)
    deep: Image = (short / ratio + rest * (1 - 1 / ratio)).astype(np.float32)
    return short, deep


def noisier_image(
    image_njy: NDArray[np.floating],
    *,
    sky_rms_njy: ArrayLike,
    njy_per_electron: ArrayLike | None,
    ratio: float,
    rng: np.random.Generator,
    correlation: NDArray[np.float64] = WHITE,
) -> Image:
    """
    A real image as ``1 / ratio`` of its exposure would have shown it: Gaussian noise of ``ratio - 1`` its variance.

    Variance of the sky, and of the photons where the flux of an electron is known; the image's own noise stands in
    for the true light there, so pixels below the sky get none. The noise must have the ``correlation`` of the image's
    own: with white noise on a co-added image, what is smooth is mostly the image's and what is not is mostly the
    added noise, and a network learns to keep smooth noise.
    """
    image = np.asarray(image_njy, np.float32)
    variance = np.broadcast_to(np.asarray(sky_rms_njy, float).reshape(-1, 1, 1) ** 2, image.shape)
    if njy_per_electron is not None:
        variance = variance + image.clip(0) * np.asarray(njy_per_electron, float).reshape(-1, 1, 1)
    noise = coloured_noise(image.shape, correlation, rng) * np.sqrt((ratio - 1) * variance)
    noisier: Image = (image + noise).astype(np.float32)
    return noisier


def _expose(
    model_njy: NDArray[np.floating],
    rms: NDArray[np.float64],
    gain: NDArray[np.float64],
    correlation: NDArray[np.float64],
    rng: np.random.Generator,
) -> Image:
    photons = add_noise(model_njy, sky_rms_njy=np.zeros(len(rms)), njy_per_electron=gain, rng=rng)
    return (photons + coloured_noise(photons.shape, correlation, rng) * rms[:, None, None]).astype(np.float32)


def simulated_sky(seed: int, *, shape_px: tuple[int, int] = (640, 640), n_lens: int = 12) -> Sky:
    """A simulated g r i field, nearly noise-free: counts of the sky, arcs, seeing and pixel scale drawn from a seed."""
    rng = np.random.default_rng([seed, 17])
    scale = float(rng.uniform(0.18, 0.30))
    seeing = rng.uniform(0.55, 1.0) * np.array([1.15, 1.0, 0.97])
    rms = np.array(NOMINAL_RMS_NJY) * (scale / 0.2)
    per_arcmin2 = shape_px[0] * shape_px[1] * (scale / 60) ** 2
    field = simulate_field(
        seed=seed,
        shape_px=shape_px,
        pixel_scale_arcsec=scale,
        seeing_fwhm_arcsec=seeing,
        sky_rms_njy=rms / TRUTH_DEPTH,
        n_galaxy=round(40 * per_arcmin2),
        n_star=round(6 * per_arcmin2),
        n_lens=n_lens,
        min_arc_snr=float(rng.uniform(15, 60)) * TRUTH_DEPTH,
        njy_per_electron=0.4 / TRUTH_DEPTH**2,
    )
    return Sky("model", field.image, rms, np.full(3, 0.4))


def draw_pair(
    sky: Sky, ratio: float, rng: np.random.Generator, *, size_px: int, drawn: bool = False
) -> tuple[Image, Image, NDArray[np.float64]]:
    """
    A patch of a sky as a short exposure and as a deep one, and the noise of the short one a band.

    A ``model`` is taken at noise 0.5 to 2.5 times its own, white or correlated. Its deep image is the one expected of
    the short exposure and the sky that is known, ``short / ratio + (1 - 1 / ratio) sky``, which a fit to drawn ones
    tends to: with the noise of the rest in it (``drawn``), most of what a fit sees is that noise. An ``image`` is the
    deep one of the two. The ratio of ``frames`` is what it is, `Sky.n_rest` + 1, and not ``ratio``.

    Raises
    ------
    DataError
        No patch without missing pixels is found.
    """
    for _ in range(50):
        y0, x0 = (int(rng.integers(0, n - size_px + 1)) for n in sky.image_njy.shape[-2:])
        cut = np.s_[:, y0 : y0 + size_px, x0 : x0 + size_px]
        image = sky.image_njy[cut]
        if np.isfinite(image).all() and (sky.rest_njy is None or np.isfinite(sky.rest_njy[cut]).all()):
            break
    else:
        raise DataError("hardly any patch of the sky is without missing pixels", kind=sky.kind, size_px=size_px)
    if sky.kind == "model":
        level = float(np.exp(rng.uniform(np.log(0.5), np.log(2.5))))
        rms, gain = sky.sky_rms_njy * level, np.asarray(sky.njy_per_electron) * level**2
        tap = 0.0 if rng.random() < WHITE_PART else float(rng.uniform(*TAPS))
        colour = resampled_correlation(tap)
        if drawn:
            short, deep = exposure_pair(
                image, sky_rms_njy=rms, njy_per_electron=gain, ratio=ratio, rng=rng, correlation=colour
            )
        else:
            short = _expose(image, rms, gain, colour, rng)
            deep = (short / ratio + image * (1 - 1 / ratio)).astype(np.float32)
    elif sky.kind == "image":
        rms = sky.sky_rms_njy * np.sqrt(ratio)
        short = noisier_image(
            image,
            sky_rms_njy=sky.sky_rms_njy,
            njy_per_electron=sky.njy_per_electron,
            ratio=ratio,
            rng=rng,
            correlation=sky.correlation,
        )
        deep = image
    else:
        assert sky.rest_njy is not None
        ratio = sky.n_rest + 1.0
        short, rms = image, sky.sky_rms_njy
        deep = (short / ratio + sky.rest_njy[cut] * (1 - 1 / ratio)).astype(np.float32)
    return short, deep, rms


def pair_batch(
    skies: Iterable[Sky], rng: np.random.Generator, *, ratios: tuple[float, float], size_px: int, drawn: bool = False
) -> dict[str, NDArray[np.float32]]:
    """
    A pair of each sky, at ratios that are uniform in their logarithm, in units of the short exposure's noise.

    The noise that the network is told is off by 4 % (one sigma), as a measured one is. Each sky is asked for after the
    pair before it is drawn, so that it may be chosen by the same generator (`random_skies`).

    Returns
    -------
    dict
        ``image`` (n, band + 1, y, x), the last plane the exposure ratio; ``target`` (n, band, y, x), the deep image;
        ``gain`` (n, 1, 1, 1), ``1 - 1 / ratio``.
    """
    low, high = np.log(np.maximum(ratios, LEAST_RATIO))
    stamps: list[Image] = []
    target: list[Image] = []
    gain: list[float] = []
    for sky in skies:
        ratio = float(np.exp(rng.uniform(low, high))) if sky.kind != "frames" else sky.n_rest + 1.0
        short, deep, rms = draw_pair(sky, ratio, rng, size_px=size_px, drawn=drawn)
        told = (rms * np.exp(rng.normal(0, 0.04, len(rms)))).astype(np.float32)[:, None, None]
        view = int(rng.integers(8))
        plane = np.full((1, size_px, size_px), ratio, np.float32)
        stamps.append(np.concatenate([dihedral_view(short / told, view), plane]))
        target.append(dihedral_view(deep / told, view))
        gain.append(1 - 1 / ratio)
    return {
        "image": np.stack(stamps),
        "target": np.stack(target),
        "gain": np.array(gain, np.float32).reshape(-1, 1, 1, 1),
    }


def random_skies(skies: Sequence[Sky], n: int, rng: np.random.Generator) -> Iterator[Sky]:
    """``n`` skies, each drawn when it is asked for."""
    return (skies[int(rng.integers(len(skies)))] for _ in range(n))


def joined(batches: Sequence[dict[str, NDArray[np.float32]]]) -> dict[str, NDArray[np.float32]]:
    """Batches as one."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
