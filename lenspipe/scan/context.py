"""What every worker of a scan needs to know; small, frozen, picklable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lenspipe.errors import ConfigError
from lenspipe.infer.prepare import cutout_size_px
from lenspipe.nn.card import ModelCard, digest, find_model, fits, read_card, shipped_models
from lenspipe.scan.config import ScanConfig
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.shards import Shard
from lenspipe.survey.tile import Tile

if TYPE_CHECKING:
    from lenspipe.scan.read import ReadShard


@dataclasses.dataclass(frozen=True)
class ChosenModel:
    """The checkpoint that scores a scan."""

    folder: Path
    digest: str
    card: ModelCard


@dataclasses.dataclass(frozen=True)
class ScanContext:
    """Facts of a run that are the same for all shards."""

    config: ScanConfig
    layout: SurveyLayout
    bands: tuple[str, ...]
    model: ChosenModel | None
    attempts: Path
    """Folder of this session's attempt markers."""
    denoiser: ChosenModel | None = None
    """The checkpoint that cutouts go through before they are scored."""
    substructure: tuple[ChosenModel, ...] = ()
    """Classifier and regression of substructure, for candidates above ``substructure.above``."""
    change: Callable[[ReadShard], ReadShard] | None = None
    """Changes pixels between reading and search, such as painting arcs into them; picklable."""


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One unit of work: a shard and the files of its tile."""

    shard: Shard
    tile: Tile


def choose_model(name: str, bands: tuple[str, ...], *, denoised: bool = False) -> tuple[ChosenModel | None, str | None]:
    """
    The model of a scan, or None with the reason.

    A model that is asked for by name must fit the bands of the survey; ``auto`` takes the first shipped one that
    does. Whether a model fits a tile's pixel scale is decided tile by tile. With ``denoised``, models that were trained
    on denoised stamps can scan as well.

    Raises
    ------
    ConfigError
        The model asked for is not there, is no finder, or needs bands that the tiles do not have.
    """
    if name == "none":
        return None, "scoring is switched off (score.model = none)"
    candidates = (
        [n for n in shipped_models() if can_scan(read_card(find_model(n)), denoised=denoised)]
        if name == "auto"
        else [name]
    )
    for candidate in candidates:
        folder = find_model(candidate)
        card = read_card(folder)
        if card.sees != "raw" and can_scan(card, denoised=True) and not denoised:
            raise ConfigError(
                "the model was trained on denoised stamps; name its denoiser by --denoiser", model=name, sees=card.sees
            )
        if not can_scan(card, denoised=denoised):
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


def can_scan(card: ModelCard, *, denoised: bool = False) -> bool:
    """Whether a model gives one score for a source in the central pixel, of raw stamps or of denoised ones too."""
    seen = card.sees == "raw" or denoised
    return card.task == "find" and card.stamp_px % 2 == 1 and seen and not card.features


def choose_denoiser(name: str, ratio: float, model: ChosenModel | None) -> ChosenModel | None:
    """
    The denoiser of a scan; None where it is ``none``.

    Raises
    ------
    ConfigError
        It is not there or is no denoiser, no model scores, the model does not have all of its bands, or it was not
        trained with the exposure ratio.
    """
    if name == "none":
        return None
    if model is None:
        raise ConfigError("a denoiser changes scores only, and no model scores; leave --denoiser out", denoiser=name)
    folder = find_model(name)
    card = read_card(folder)
    if card.task != "denoise" or card.exposure_ratios is None:
        raise ConfigError("the model is no denoiser; choose one of task denoise", denoiser=name, task=card.task)
    if missing := [band for band in card.bands if band not in model.card.bands]:
        raise ConfigError(
            "the denoiser needs bands that the finder does not take; choose another --denoiser",
            denoiser=name,
            missing=" ".join(missing),
            finder=model.card.name,
            finder_takes=" ".join(model.card.bands),
        )
    low, high = card.exposure_ratios
    if ratio != 1 and not low <= ratio <= high:
        raise ConfigError(
            "the denoiser was not trained with this exposure ratio; change score.denoise_ratio",
            got=ratio,
            least=low,
            largest=high,
        )
    return ChosenModel(folder, digest(folder), card)


def model_for(settings: ScanContext, tile_bands: tuple[str, ...], pixel_scale_arcsec: float) -> ChosenModel | None:
    """The run's model where it and the run's denoiser fit a tile's bands and pixel scale."""
    model = settings.model
    for chosen in (model, settings.denoiser):
        if chosen is not None and fits(chosen.card, tile_bands, pixel_scale_arcsec) is not None:
            return None
    return model


def substructure_bands(chosen: tuple[ChosenModel, ...]) -> tuple[str, ...]:
    """Bands that the models of substructure take, each once."""
    return tuple(dict.fromkeys(band for model in chosen for band in model.card.bands))


def substructure_side_px(chosen: tuple[ChosenModel, ...], pixel_scale_arcsec: float) -> int:
    """Side of the cutouts that all of them are shown the middle of, odd, so that the source lies in a pixel."""
    return max(cutout_size_px(model.card, pixel_scale_arcsec) // 2 * 2 + 1 for model in chosen)


def substructure_fits(settings: ScanContext, tile_bands: tuple[str, ...], pixel_scale_arcsec: float) -> bool:
    """Whether the run's models of substructure, if any, fit a tile's bands and pixel scale."""
    chosen = settings.substructure
    return bool(chosen) and all(fits(model.card, tile_bands, pixel_scale_arcsec) is None for model in chosen)
