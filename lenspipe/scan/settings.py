"""What every worker of a scan needs to know; small, frozen, picklable."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lenspipe.config import ScanConfig
from lenspipe.errors import ConfigError
from lenspipe.nn.card import ModelCard, digest, find_model, fits, read_card, shipped_models
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.shards import Shard
from lenspipe.survey.tile import Tile


@dataclasses.dataclass(frozen=True)
class ChosenModel:
    """The checkpoint that scores a scan."""

    folder: Path
    digest: str
    card: ModelCard


@dataclasses.dataclass(frozen=True)
class ScanSettings:
    """Facts of a run that are the same for all shards."""

    config: ScanConfig
    layout: SurveyLayout
    bands: tuple[str, ...]
    model: ChosenModel | None
    attempts: Path
    """Folder of this session's attempt markers."""


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One unit of work: a shard and the files of its tile."""

    shard: Shard
    tile: Tile


def choose_model(name: str, bands: tuple[str, ...]) -> tuple[ChosenModel | None, str | None]:
    """
    The model of a scan, or None with the reason.

    A model that is asked for by name must fit the bands of the survey; ``auto`` takes the first shipped one that
    does. Whether a model fits a tile's pixel scale is decided tile by tile.

    Raises
    ------
    ConfigError
        The model asked for is not there, is no finder, or needs bands that the tiles do not have.
    """
    if name == "none":
        return None, "scoring is switched off (score.model = none)"
    candidates = [n for n in shipped_models() if can_scan(read_card(find_model(n)))] if name == "auto" else [name]
    for candidate in candidates:
        folder = find_model(candidate)
        card = read_card(folder)
        if not can_scan(card):
            raise ConfigError(
                "the model cannot rank candidates: it needs task find and an odd stamp_px; choose another --model",
                model=name,
                task=card.task,
                stamp_px=card.stamp_px,
            )
        missing = [band for band in card.bands if band not in bands]
        if not missing:
            return ChosenModel(folder, digest(folder), card), None
        if name != "auto":
            raise ConfigError(
                "the model needs bands that the tiles do not have; choose another --model, or none",
                model=name,
                needs=" ".join(card.bands),
                tiles_have=" ".join(bands),
            )
    return None, f"no shipped model fits the bands {' '.join(bands)}"


def can_scan(card: ModelCard) -> bool:
    """Whether a model gives one score for a source in the central pixel."""
    return card.task == "find" and card.stamp_px % 2 == 1 and card.sees == "raw" and not card.features


def model_for(settings: ScanSettings, tile_bands: tuple[str, ...], pixel_scale_arcsec: float) -> ChosenModel | None:
    """The run's model where it fits a tile's bands and pixel scale."""
    model = settings.model
    if model is None or fits(model.card, tile_bands, pixel_scale_arcsec) is not None:
        return None
    return model
