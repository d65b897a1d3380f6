"""The finder: one score per candidate, and its probability where the model is calibrated for what it is shown."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.infer.engine import Engine, Precision, demand_onnx, engine_record
from lenspipe.infer.prepare import cutout_size_px
from lenspipe.nn.card import ModelCard, TrainingSet, find_model, read_card, shipped_models
from lenspipe.nn.outputs import Calibration, Find
from lenspipe.scan.config import ScoreConfig
from lenspipe.scan.readers.contract import Asked, Candidates, Checkpoint, CutoutKey, OneCheckpoint, Work
from lenspipe.schema import ood_field, score_fields
from lenspipe.stats.calibrate import probability, probability_record

OOD = ood_field().name


@dataclasses.dataclass(frozen=True)
class Finder(OneCheckpoint):
    """A finder and how its score is read."""

    denoised: bool
    """Whether cutouts go through a denoiser first."""
    prior: float | None
    batch_size: int | None
    alone: bool = True
    """Whether its columns are a scan's, or those of a committee that it is a member of."""
    engine: Engine = "torch"
    precision: Precision = "float32"

    @property
    def calibration(self) -> Calibration | None:
        """The model's calibration; one that was fitted on raw stamps says nothing about denoised ones."""
        outputs = self.model.card.outputs
        if not isinstance(outputs, Find) or (self.denoised and self.model.card.sees == "raw"):
            return None
        return outputs.calibration

    @property
    def takes(self) -> tuple[str, ...]:
        """Denoised cutouts, where a denoiser was asked for."""
        return ("denoised",) if self.denoised else ()

    @property
    def gives(self) -> tuple[str, ...]:
        """A score, and a probability where there is a calibration."""
        return ("score",) if self.calibration is None else ("score", "probability")

    def cutouts(self, pixel_scale_arcsec: float) -> tuple[CutoutKey, ...]:
        """The card's bands, as wide as its stamps."""
        return (CutoutKey(self.model.card.bands, cutout_size_px(self.model.card, pixel_scale_arcsec)),)

    def fields(self) -> list[pa.Field]:
        """``score``, ``probability`` where there is a calibration, how unlike the training set where that is known."""
        fields = [f for f in score_fields() if f.name in self.gives]
        return [*fields, ood_field()] if self.training_set else fields

    @property
    def training_set(self) -> TrainingSet | None:
        """The card's, where the model is shown what it was trained on: raw stamps."""
        return self.model.card.training_set if self.alone and not self.denoised else None

    def record(self) -> dict[str, Any]:
        """The model with its card and its engine, and what its probabilities assume."""
        model = self.model.record() | engine_record(self.engine, self.precision)
        return {"model": model, "probability": probability_record(self.calibration, self.prior)}

    def digests(self) -> dict[str, str]:
        """Of the one model."""
        return {"digest": self.digest}

    def probabilities(self, scores: NDArray[np.floating], prior: float) -> NDArray[np.float64] | None:
        """By the model's calibration."""
        return None if self.calibration is None else probability(scores, self.calibration, prior)

    def load(self, device: str) -> Work:
        """Candidates to scores and probabilities, these at the calibration's prior where the request states none."""
        from lenspipe.infer.score import Scorer
        from lenspipe.infer.training_set import read_training_set

        scorer = Scorer(
            self.model.folder, device=device, batch_size=self.batch_size, engine=self.engine, precision=self.precision
        )
        familiar = read_training_set(self.model.folder, scorer.card) if self.training_set else None

        def score(candidates: Candidates) -> dict[str, Any]:
            seen = self._seen(scorer.card, candidates)
            if familiar is None:
                said = {"score": scorer.score_prepared(seen)}
            else:
                scores, features = scorer.score_with_features(seen)
                said = {"score": scores, OOD: familiar.quantile(familiar.distance(features))}
            if self.calibration is not None:
                said["probability"] = probability(said["score"], self.calibration, self.prior)
            return said

        return score

    def _seen(self, card: ModelCard, candidates: Candidates) -> NDArray[np.float32]:
        """What the model is shown: raw cutouts, denoised ones, or both."""
        from lenspipe.infer.prepare import prepare_stamps

        scale = candidates.pixel_scale_arcsec
        (key,) = self.cutouts(scale)
        shown = [candidates.cutouts[key]] if not self.denoised or card.sees == "both" else []
        if self.denoised:
            shown.append(candidates.said["denoised"](key))
        parts = [prepare_stamps(cutouts, cutout_scale_arcsec=scale, card=card) for cutouts in shown]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def choose(asked: Asked) -> Finder | str | None:
    """
    The finder of a scan, or why there is none; None where a committee scores.

    A model that is asked for by name must fit the bands of the survey; ``auto`` takes the first shipped one that
    does. Whether a model fits a tile's pixel scale is decided tile by tile.

    Raises
    ------
    ConfigError
        The model asked for is not there, is not a finder, needs bands that the tiles do not have, or was trained on
        denoised stamps and no denoiser is asked for; a prior is stated and no calibration applies; the engine
        is missing.
    """
    score = asked.config.score
    if asked.giving("score") is not None or not isinstance(score.model, str):
        return None
    demand_engine(score)
    denoised = score.denoiser != "none"
    found = _choose(score.model, asked.bands, denoised=denoised)
    if isinstance(found, str):
        if score.prior is not None:
            raise _no_calibration(score.prior, None)
        return found
    finder = Finder(found, denoised, score.prior, score.batch_size, engine=score.engine, precision=score.precision)
    if score.prior is not None and finder.calibration is None:
        if denoised and found.card.sees == "raw":
            raise ConfigError(
                "a calibration of raw stamps gives no probability for denoised ones; leave --prior or --denoiser out",
                model=found.card.name,
                denoiser=score.denoiser,
            )
        raise _no_calibration(score.prior, found.card.name)
    return finder


def demand_engine(score: ScoreConfig) -> None:
    """Raise `ConfigError` where the engine that is asked for is not installed, or is asked to run on a GPU."""
    if score.engine != "onnx":
        return
    demand_onnx()
    if score.precision != "float32":
        raise ConfigError("score.precision is torch's; leave it out, or take score.engine = torch", got=score.precision)
    if score.device == "cuda":
        raise ConfigError("ONNX Runtime scores on CPUs here; leave score.device out, or take score.engine = torch")


def can_scan(card: ModelCard, *, denoised: bool = False) -> bool:
    """Whether a model gives one score for a source in the central pixel, of raw stamps or of denoised ones too."""
    seen = card.sees == "raw" or denoised
    return isinstance(card.outputs, Find) and card.stamp_px % 2 == 1 and seen and not card.features


def _choose(name: str, bands: tuple[str, ...], *, denoised: bool) -> Checkpoint | str:
    if name == "none":
        return "scoring is switched off (score.model = none)"
    if name == "auto":
        for folder in map(find_model, shipped_models()):
            card = read_card(folder)
            if can_scan(card, denoised=denoised) and set(card.bands) <= set(bands):
                return Checkpoint.open(folder)
        return f"no shipped model fits the bands {' '.join(bands)}"
    found = Checkpoint.open(find_model(name))
    demand_scanning(found.card, name, bands, denoised=denoised)
    return found


def demand_scanning(card: ModelCard, name: str, bands: tuple[str, ...], *, denoised: bool) -> None:
    """
    Refuse a model that cannot score the candidates of tiles with these bands.

    Raises
    ------
    ConfigError
        What is wrong, and what to do.
    """
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
    if set(card.bands) - set(bands):
        raise ConfigError(
            "the model needs bands that the tiles do not have; choose another --model, or none",
            model=name,
            needs=" ".join(card.bands),
            tiles_have=" ".join(bands),
        )


def _no_calibration(prior: float, model: str | None) -> ConfigError:
    return ConfigError(
        "a prior needs a model with a calibration; fit one by `lenspipe calibrate`, or leave --prior out",
        prior=prior,
        model=model,
    )
