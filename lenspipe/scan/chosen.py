"""The models of a scan: the finder and its denoiser, what a run says of them, and requests that cannot be met."""

from __future__ import annotations

from pathlib import Path

from lenspipe.errors import ConfigError
from lenspipe.nn.card import ModelCard, verdict
from lenspipe.rundir import read_json, write_json
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ChosenModel, choose_denoiser, choose_model
from lenspipe.scan.scoring import calibration_for
from lenspipe.scan.substructure import choose_substructure
from lenspipe.survey.layout import SurveyLayout


def models_of(config: ScanConfig, bands: tuple[str, ...]) -> tuple[ChosenModel | None, str | None, ChosenModel | None]:
    """The finder, or why there is none, and the denoiser."""
    score = config.score
    model, no_model = choose_model(score.model, bands, denoised=score.denoiser != "none")
    return model, no_model, choose_denoiser(score.denoiser, score.denoise_ratio, model)


def substructure_of(
    config: ScanConfig,
    bands: tuple[str, ...],
    layout: SurveyLayout,
    model: ChosenModel | None,
    denoiser: ChosenModel | None,
) -> tuple[ChosenModel, ...]:
    """The models of substructure, where the finder's probabilities allow any."""
    calibrated = calibration_for(model, denoiser) is not None
    return choose_substructure(config, bands, layout, model, calibrated=calibrated)


def same_models(
    path: Path, model: ChosenModel | None, denoiser: ChosenModel | None, substructure: tuple[ChosenModel, ...]
) -> None:
    """
    Write down which models a run uses, or hold a resumed run to those that it began with.

    Raises
    ------
    ConfigError
        The run was begun with others.
    """
    now = {"digest": model.digest if model else None}
    if denoiser:
        now["denoiser"] = denoiser.digest
    if substructure:
        now["substructure"] = " ".join(chosen.digest for chosen in substructure)
    if not path.exists():
        write_json(path, now)
        return
    before = read_json(path)
    if before != now:
        raise ConfigError(
            "the run was begun with another model; resume with that one, or choose another --out",
            out=str(path.parent),
            had=before["digest"],
            got=now["digest"],
        )


def denoiser_note(card: ModelCard) -> str:
    """What a run says about its denoiser: the verdict of the gate."""
    said = verdict(card)
    if said == "passed":
        return f"Cutouts go through {card.name}, which passed its gate."
    why = "has no verdict of the gate" if said == "none" else "FAILED its gate"
    return (
        f"Warning: cutouts go through {card.name}, which {why}; do not use its scores before reading docs/denoiser.md."
    )


def check_prior(config: ScanConfig, model: ChosenModel | None, denoiser: ChosenModel | None) -> None:
    """Raise `ConfigError` where a prior is stated and no calibration applies."""
    if config.score.prior is not None and denoiser is not None and model is not None and model.card.sees == "raw":
        raise ConfigError(
            "a calibration of raw stamps gives no probability for denoised ones; leave --prior or --denoiser out",
            model=model.card.name,
            denoiser=denoiser.card.name,
        )
    if config.score.prior is not None and (model is None or model.card.calibration is None):
        raise ConfigError(
            "a prior needs a model with a calibration; fit one by `lenspipe calibrate`, or leave --prior out",
            prior=config.score.prior,
            model=model.card.name if model else None,
        )
