"""Trainings that build on a trained model: they see stamps as it does, and its network is theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lenspipe.errors import ConfigError
from lenspipe.learn.fit_state import STATE_FILE
from lenspipe.learn.settings import InputSettings, TrainSettings
from lenspipe.nn.card import CARD_FILE, WEIGHTS_FILE, ModelCard, find_model, read_card, shipped_models
from lenspipe.nn.outputs import Classify, Embed, Find
from lenspipe.store.copies import local_folder
from lenspipe.store.urls import is_url


def weights_of(pretrained: str | None) -> str | None:
    """The file of weights that ``--pretrained`` names: itself, or that of a shipped model or a folder, or at a URL."""
    if is_url(pretrained or ""):
        pretrained = str(local_folder(str(pretrained)))
    if pretrained is not None and (Path(pretrained) / CARD_FILE).is_file():
        return str(Path(pretrained) / WEIGHTS_FILE)
    if pretrained in shipped_models() and not Path(str(pretrained)).exists():
        return str(find_model(str(pretrained)) / WEIGHTS_FILE)
    return pretrained


def base_folder(pretrained: str | None, task: str) -> Path:
    """
    Folder of the model that a training builds on.

    Raises
    ------
    ConfigError
        None is named, or the file lies in no model's folder.
    """
    if pretrained is None:
        raise ConfigError("this builds on a trained model: name its folder by --pretrained", task=task)
    path = Path(pretrained)
    folder = path.parent if path.is_file() else find_model(pretrained)
    if not (folder / CARD_FILE).is_file():
        raise ConfigError("this builds on a model, and its card is not beside the weights", got=pretrained, task=task)
    return folder


def begun_from(
    task: str, model: str | None, settings: TrainSettings, pretrained: str | None
) -> tuple[str, TrainSettings, str]:
    """
    Family, settings and weights of a training that goes on with the network of a trained model.

    An equivariant network goes on in the form that keeps its symmetry, where its training's state is there.

    Raises
    ------
    ConfigError
        No model is named, or the request says otherwise than its card.
    """
    folder = base_folder(pretrained, task)
    card = read_card(folder)
    family, own, weights = card.family, dict(card.settings), folder / WEIGHTS_FILE
    if "family" in card.training and (folder / STATE_FILE).is_file():
        family, own, weights = card.training["family"], card.training["settings"]["model"], folder / STATE_FILE
    if model not in (None, family) or settings.model not in ({}, own):
        raise ConfigError("the network is that of the pretrained model: leave --model out", got=model, has=family)
    return family, as_seen(card, settings).model_copy(update={"model": own}), str(weights)


def fitted_on(
    task: str, method: str, model: str | None, settings: TrainSettings, pretrained: str | None
) -> tuple[str, TrainSettings, str]:
    """Family, settings and weights of a score that is fitted on what a trained model gives (family ``outlier``)."""
    folder = base_folder(pretrained, task)
    card = read_card(folder)
    if model not in (None, "outlier"):
        raise ConfigError("the network is that of the pretrained model: leave --model out", got=model)
    own: dict[str, Any] = {
        "score": method,
        "of": card.family,
        "logits": isinstance(card.outputs, Find | Classify),
        "vectors": isinstance(card.outputs, Embed),
        "of_out": card.n_out,
        "of_settings": json.dumps(card.settings, sort_keys=True),
    }
    settings = as_seen(card, settings)
    return "outlier", settings.model_copy(update={"model": settings.model | own}), str(folder / WEIGHTS_FILE)


def as_seen(card: ModelCard, settings: TrainSettings) -> TrainSettings:
    """Settings with the input of a card: bands, side, pixel scale and stretch."""
    asked = settings.input
    if asked != InputSettings(image=asked.image):
        raise ConfigError("stamps are seen as the pretrained model sees them: leave the table input out", has=card.name)
    if card.features or card.sees != "raw":
        raise ConfigError("this builds on a model that sees stamps alone, as they are", got=card.name)
    seen = InputSettings(image=asked.image, pixel_scale_arcsec=card.pixel_scale_arcsec, **input_of(card))
    return settings.model_copy(update={"input": seen})


def input_of(card: ModelCard) -> dict[str, Any]:
    """Bands, side and stretch of a card, as the keys of `lenspipe.learn.settings.InputSettings`."""
    stretch = card.stretch
    return {
        "bands": card.bands,
        "stamp_px": card.stamp_px,
        "stretch": stretch.name,
        "band_scales": stretch.band_scales,
        "alpha": stretch.alpha,
        "q": stretch.q,
        "mix": stretch.mix,
        "standardise": stretch.standardise,
        "smooth_residual": stretch.smooth_residual,
        "high_pass_px": stretch.high_pass_px,
        "high_pass_beside": stretch.high_pass_beside,
        "channel_scales": stretch.channel_scales,
    }
