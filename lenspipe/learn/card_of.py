"""The card of a model to be trained, from the data set and the settings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from lenspipe.errors import ConfigError, DataError
from lenspipe.learn.objectives.contract import Objective
from lenspipe.learn.settings import AugmentSettings, InputSettings, TrainSettings
from lenspipe.learn.truth import TURNING, Truth
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.nn.fitted import SmoothFit
from lenspipe.nn.preprocess import network_input, surface_brightness
from lenspipe.nn.smooth_lens import with_residual
from lenspipe.robust import robust_sigma
from lenspipe.stamps.format import ImageSpec, StampSet

N_NOISE = 256
"""Stamps whose noise, and the spread of whose channels, are measured."""


def choose_image(data: StampSet, settings: InputSettings) -> tuple[str, ImageSpec]:
    """
    Image column of a data set and its spec, checked against what the settings ask for.

    Raises
    ------
    ConfigError
        The column, a band, the pixel scale or the stamp size are not what the data set has.
    """
    name = settings.image or next(iter(data.images))
    if name not in data.images:
        raise ConfigError("input.image: no such image column", got=name, known=",".join(data.images))
    spec = data.images[name]
    if missing := [band for band in settings.bands or () if band not in spec.bands]:
        raise ConfigError(
            "input.bands: the stamps do not have these bands", missing=",".join(missing), has=",".join(spec.bands)
        )
    want = settings.pixel_scale_arcsec
    if want is not None and abs(want / spec.pixel_scale_arcsec - 1) > 1e-3:
        raise ConfigError(
            "input.pixel_scale_arcsec: the stamps have another pixel scale; simulate or convert them anew",
            got=spec.pixel_scale_arcsec,
            want=want,
        )
    size = settings.stamp_px or spec.size_px
    if size > spec.size_px or (size - spec.size_px) % 2:
        raise ConfigError(
            "input.stamp_px must not exceed the stamps, and be odd where they are odd and even where they are even",
            got=size,
            stamps_px=spec.size_px,
        )
    return name, spec


def augmentation(settings: TrainSettings, objective: Objective) -> AugmentSettings:
    """
    Augmentation of a training; what would change the answer is refused.

    Raises
    ------
    ConfigError
        A regression target turns with the stamp.
    """
    chosen = settings.augment or objective.augment
    turning = [name for name in settings.labels.targets if any(part in f"{name}_" for part in TURNING)]
    if turning and (chosen.dihedral or chosen.affine_fraction > 0):
        raise ConfigError(
            "a target changes when its stamp is turned or moved: set augment.dihedral = false and "
            "augment.affine_fraction = 0",
            target=turning[0],
        )
    return chosen


def noise_levels(stamps_njy: NDArray[np.floating], bands: tuple[str, ...], pixel_scale_arcsec: float) -> list[float]:
    """
    Noise of a pixel in each band, nJy / arcsec^2: median over stamps of the scatter in their outer frame.

    The scatter is `robust_sigma` in a frame an eighth of the side wide.

    Raises
    ------
    DataError
        A band has no noise.
    """
    side = stamps_njy.shape[-1]
    frame = np.ones((side, side), bool)
    width = max(1, side // 8)
    frame[width:-width, width:-width] = False
    levels = []
    for k, band in enumerate(bands):
        pixels = stamps_njy[:, k][:, frame].astype(np.float64)
        scatter = robust_sigma(pixels, 1)
        levels.append(float(np.median(scatter)) / pixel_scale_arcsec**2)
        if not levels[-1] > 0:
            raise DataError("the stamps have no noise in this band: give input.band_scales", band=band)
    return levels


def make_card(
    name: str,
    family: str,
    objective: Objective,
    spec: ImageSpec,
    truth: Truth,
    settings: TrainSettings,
    noise: list[float],
    training: dict[str, Any],
    fitted: SmoothFit | None = None,
) -> ModelCard:
    """
    Card of the model before it is trained.

    Raises
    ------
    ConfigError
        The settings contradict each other.
    """
    shown, scale = settings.input, spec.pixel_scale_arcsec
    bands = shown.bands or spec.bands
    scales = shown.band_scales or tuple(float(f"{1 / level:.6g}") for level in noise)
    outputs = objective.card_outputs(truth, settings)
    told = {"n_feature": len(shown.features)} if shown.features else {}
    try:
        return ModelCard(
            name=name,
            family=family,
            settings=settings.model | told | objective.network_settings(outputs),
            outputs=outputs,
            bands=bands,
            pixel_scale_arcsec=scale,
            scale_tolerance=shown.scale_tolerance,
            min_scale_arcsec=scale * shown.scale_range[0],
            max_scale_arcsec=scale * shown.scale_range[1],
            stamp_px=shown.stamp_px or spec.size_px,
            stretch=objective.stretch(shown, scales),
            features=shown.features,
            feature_means=truth.feature_means,
            feature_spreads=truth.feature_spreads,
            fitted=fitted,
            training=training,
        )
    except ValidationError as error:
        raise ConfigError(f"the settings do not make a model: {error.errors()[0]['msg']}") from error


def with_channel_scales(card: ModelCard, stamps_njy: NDArray[np.float32], pixel_scale_arcsec: float) -> ModelCard:
    """
    The card with one over each channel's standard deviation in some stamps ``(n, band, y, x)`` as its scale.

    Raises
    ------
    ConfigError
        The stretch scales each stamp by itself.
    DataError
        A channel is the same everywhere.
    """
    size = card.stamp_px
    sky = np.stack([surface_brightness(one, pixel_scale_arcsec, size_px=size, card=card) for one in stamps_njy])
    shown = network_input(with_residual(sky) if card.stretch.smooth_residual else sky, card.stretch)
    spreads = shown.std(axis=(0, 2, 3), dtype=np.float64)
    if not (spreads > 0).all():
        raise DataError("a channel is the same in all stamps: it has no scale to be measured", n=len(stamps_njy))
    scales = tuple(float(f"{1 / spread:.6g}") for spread in spreads)
    try:
        stretch = Stretch(**card.stretch.model_dump() | {"channel_scales": scales})
    except ValidationError as error:
        raise ConfigError(f"the settings do not make a model: {error.errors()[0]['msg']}") from error
    return card.model_copy(update={"stretch": stretch})
