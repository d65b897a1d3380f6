"""A training laid out before it begins: everything that is wrong with the request is said here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.learn.card_of import N_NOISE, augmentation, choose_image, make_card, noise_levels
from lenspipe.learn.objectives import Objective, objective_of
from lenspipe.learn.settings import AugmentSettings, TrainSettings
from lenspipe.learn.stream import StampIndex, read_rows
from lenspipe.learn.truth import Truth, read_truth
from lenspipe.nn.card import PICKLES, ModelCard
from lenspipe.stamps.format import StampSet


@dataclass(frozen=True)
class TrainJob:
    """What a worker needs to train: plain values, so that it can be sent."""

    out: str
    """Folder of the model."""
    seed: int
    """Seed of weights, order, augmentation and dropout."""
    settings: TrainSettings
    """Settings as given."""
    card: ModelCard
    """Card before the training."""
    index: StampIndex
    """Where the stamps are."""
    truth: Truth
    """What they are."""
    bands: tuple[int, ...] | None
    """Positions of the card's bands in the stamps; None where they are the same."""
    noise: tuple[float, ...]
    """Noise of a pixel in the card's bands, nJy / arcsec^2."""
    augment: AugmentSettings
    """Augmentation that applies."""
    curriculum: NDArray[np.float64] | None
    """Value of each row by which a curriculum admits it; NaN where it has none."""
    steps: int
    """Steps an epoch."""
    pretrained: str | None = None
    """Weights to begin from."""
    beside: Any = None
    """What the objective keeps of the data (`lenspipe.learn.objectives.contract.Objective.begin`)."""

    @property
    def objective(self) -> Objective:
        """What the training is for."""
        return objective_of(self.card.outputs)


def make_job(
    data_folder: str | Path,
    model: str,
    task: str,
    out: str | Path,
    settings: TrainSettings,
    *,
    seed: int,
    n_worker: int = 1,
    pretrained: str | None = None,
) -> TrainJob:
    """
    Lay out a training of a data set of stamps.

    Parameters
    ----------
    data_folder : path
        Data set (`lenspipe.stamps.format`).
    model : str
        Network family.
    task : str
        Name in `lenspipe.learn.objectives.OBJECTIVES`.
    out : path
        Folder of the model.
    settings : TrainSettings
    seed : int
    n_worker : int
        Workers that share a step.
    pretrained : path, optional
        Weights to begin from, safetensors.

    Raises
    ------
    ConfigError, DataError, ModelError
        Whatever is wrong with the request, the data or the network, before any work.
    """
    objective = objective_of(task)
    data = StampSet.open(data_folder)
    image, spec = choose_image(data, settings.input)
    objective.check(settings)
    augment = augmentation(settings, objective)
    refuse_pickle(pretrained)
    batch_size = settings.sampling.batch_size
    if batch_size % n_worker:
        raise ConfigError(
            "sampling.batch_size must be a multiple of the number of workers", got=batch_size, workers=n_worker
        )
    truth = read_truth(
        data,
        lambda train: objective.answers(data, settings.labels, train),
        features=settings.input.features,
        fraction=settings.sampling.fraction,
        seed=seed,
    )
    index = StampIndex.of(data, image)
    names = settings.input.bands or spec.bands
    bands = [spec.bands.index(band) for band in names]
    sample = np.sort(np.random.default_rng([seed, 61]).permutation(truth.train)[:N_NOISE])
    stamps = read_rows(index, sample)[:, bands]
    beside = objective.begin(stamps, settings)
    if settings.input.band_scales is None:
        noise = noise_levels(stamps, names, spec.pixel_scale_arcsec)
    else:
        noise = [1.0 / scale for scale in settings.input.band_scales]
    training = {
        "data": Path(data_folder).name,
        "data_digest": data_digest(data),
        "unit": spec.unit,
        "recipe": ",".join(sorted({str(r) for r in data.column("recipe")})),
        "n_train": truth.counts(truth.train),
        "n_validation": truth.counts(truth.validation),
        "n_left_out": truth.n_left_out,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
    }
    card = make_card(settings.name or Path(out).name, model, objective, spec, truth, settings, noise, training)
    return TrainJob(
        out=str(out),
        seed=seed,
        settings=settings,
        card=card,
        index=index,
        truth=truth,
        bands=None if bands == list(range(len(spec.bands))) else tuple(bands),
        noise=tuple(noise),
        augment=augment,
        curriculum=_curriculum(data, settings.sampling.curriculum, objective, truth),
        steps=settings.sampling.steps_per_epoch or max(1, len(truth.train) // batch_size),
        pretrained=pretrained,
        beside=beside,
    )


def data_digest(data: StampSet) -> str:
    """Name of a data set's content by the names and sizes of its parts: 16 hex digits of SHA-256."""
    facts = "\n".join(f"{part.name} {part.stat().st_size}" for part in data.parts)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def refuse_pickle(path: str | None) -> None:
    """Raise `ConfigError` where weights are a pickle or not there."""
    if path is None:
        return
    if Path(path).suffix.lower() in PICKLES:
        raise ConfigError("a pickle is never loaded: convert the weights to safetensors first", got=path)
    if not Path(path).is_file():
        raise ConfigError("no such file of weights; nothing is downloaded", got=path)


def _curriculum(data: StampSet, column: str | None, objective: Objective, truth: Truth) -> NDArray[np.float64] | None:
    if column is None:
        return None
    values = objective.curriculum(np.asarray(data.column(column), np.float64), truth)
    if not np.isfinite(values[truth.train]).any():
        raise DataError("sampling.curriculum: no training stamp has a value", column=column)
    return values


def facts_of(job: TrainJob, history: Sequence[dict[str, Any]], *, n_worker: int, device: str) -> dict[str, Any]:
    """What the card says about a finished training."""
    return job.card.training | {
        "epochs": len(history),
        "steps": len(history) * job.steps,
        "workers": n_worker,
        "device": device,
        "seconds": round(sum(row.get("seconds", 0.0) for row in history), 1),
        "augment": job.augment.model_dump(mode="json"),
        "pretrained": None if job.pretrained is None else Path(job.pretrained).name,
    }
