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
from lenspipe.learn.adapt.target import refuse_same
from lenspipe.learn.card_of import N_NOISE, augmentation, choose_image, make_card, noise_levels, with_channel_scales
from lenspipe.learn.fitted import learnt_fit
from lenspipe.learn.objectives import objective_of
from lenspipe.learn.objectives.contract import Objective
from lenspipe.learn.settings import AugmentSettings, TrainSettings
from lenspipe.learn.stream import StampIndex, read_rows
from lenspipe.learn.truth import Truth, read_truth
from lenspipe.nn.card import PICKLES, ModelCard
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.joined import Data, JoinedStamps, digest_of_data, open_stamps, surveys_of


@dataclass(frozen=True)
class Shares:
    """How much of an epoch is drawn from each of several data sets."""

    data_set: NDArray[np.int16]
    """Number of each row's data set ``(n,)``."""
    values: NDArray[np.float64]
    """Relative share by that number."""


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
    shares: Shares | None = None
    """Of several data sets; None where every row is drawn alike."""
    keep_head: bool = False
    """Whether the head is taken from them as well: the same task goes on."""
    beside: Any = None
    """What the objective keeps of the data (`lenspipe.learn.objectives.contract.Objective.begin`)."""

    @property
    def objective(self) -> Objective:
        """What the training is for."""
        return objective_of(self.card.outputs, self.settings.method, family=self.card.family)


def make_job(
    source: Data,
    model: str,
    task: str,
    out: str | Path,
    settings: TrainSettings,
    *,
    seed: int,
    n_worker: int = 1,
    pretrained: str | None = None,
    keep_head: bool = False,
) -> TrainJob:
    """
    Lay out a training of a data set of stamps.

    Parameters
    ----------
    source : path, or sequence of `lenspipe.stamps.joined.Source`
        Data set (`lenspipe.stamps.format`), or several that are read as one.
    model : str
        Network family.
    task : str
        Name in `lenspipe.learn.objectives.METHODS`; ``settings.method`` is how it is learnt.
    out : path
        Folder of the model.
    settings : TrainSettings
    seed : int
    n_worker : int
        Workers that share a step.
    pretrained : path, optional
        Weights to begin from, safetensors.
    keep_head : bool
        Begin from their head too.

    Raises
    ------
    ConfigError, DataError, ModelError
        Whatever is wrong with the request, the data or the network, before any work.
    """
    objective = objective_of(task, settings.method, family=model)
    data = open_stamps(source)
    image, spec = choose_image(data, settings.input)
    objective.check(settings)
    if objective.adapts and settings.adapt is not None and settings.adapt.target:
        refuse_same(data, settings.adapt.target)
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
    surveys = surveys_of(data)
    if surveys is not None and not settings.sampling.one_sided_surveys:
        objective.check_surveys(truth, surveys)
    index = StampIndex.of(data, image)
    names = settings.input.bands or spec.bands
    bands = [spec.bands.index(band) for band in names]
    sample = np.sort(np.random.default_rng([seed, 61]).permutation(truth.train)[:N_NOISE])
    stamps = read_rows(index, sample)[:, bands]
    beside = objective.begin(stamps, settings, truth, spec, seed)
    if settings.input.band_scales is None:
        noise = noise_levels(stamps, names, spec.pixel_scale_arcsec)
    else:
        noise = [1.0 / scale for scale in settings.input.band_scales]
    training = {
        "data": data.title,
        "data_digest": digest_of_data(data),
        "unit": spec.unit,
        "recipe": ",".join(sorted({str(r) for r in data.column("recipe")})),
        "n_train": truth.counts(truth.train),
        "n_validation": truth.counts(truth.validation),
        "n_left_out": truth.n_left_out,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
    }
    if pretrained is not None:
        with Path(pretrained).open("rb") as weights:
            training["pretrained_sha256"] = hashlib.file_digest(weights, "sha256").hexdigest()
    if isinstance(data, JoinedStamps):
        training["data_sets"] = _data_sets(data, truth)
    fitted = learnt_fit(data, names, settings.input.features, truth.train)
    name = settings.name or Path(out).name
    card = make_card(name, model, objective, spec, truth, settings, noise, training, fitted)
    if settings.input.channel_scales == "measured":
        card = with_channel_scales(card, stamps, spec.pixel_scale_arcsec)
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
        shares=_shares(data),
        keep_head=keep_head,
        beside=beside,
    )


def _shares(data: StampSet) -> Shares | None:
    if not isinstance(data, JoinedStamps) or all(source.share is None for source in data.sources):
        return None
    return Shares(data.number, np.array([1.0 if s.share is None else s.share for s in data.sources]))


def _data_sets(data: JoinedStamps, truth: Truth) -> list[dict[str, Any]]:
    """What the card says of each of several data sets."""
    number, found = data.number, []
    for k, (name, source, member) in enumerate(zip(data.names, data.sources, data.members, strict=True)):
        facts: dict[str, Any] = {"name": name, "digest": digest_of_data(member)}
        for key in ("share", "labels", "survey"):
            if (said := getattr(source, key)) is not None:
                facts[key] = list(said) if isinstance(said, tuple) else said
        for split, rows in (("n_train", truth.train), ("n_validation", truth.validation)):
            facts[split] = truth.counts(rows[number[rows] == k])
        found.append(facts)
    return found


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
