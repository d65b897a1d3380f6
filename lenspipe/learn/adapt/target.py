"""The target domain of a training: where its stamps lie, and which of its labels are ever read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.learn.card_of import N_NOISE, choose_image, noise_levels
from lenspipe.learn.order import Rows
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.stream import StampIndex, read_rows
from lenspipe.learn.truth import Truth
from lenspipe.stamps.format import ImageSpec, StampSet
from lenspipe.stamps.joined import digest_of_data, each_of

if TYPE_CHECKING:
    from lenspipe.learn.job import TrainJob

SEED = 104_729
"""Added to the training's seed: what is drawn of the target is not what is drawn of the source."""


@dataclass(frozen=True)
class Target:
    """The other domain, as plain values that can be sent to a worker."""

    title: str
    index: StampIndex
    truth: Truth
    """Labels of the rows that a method may read and of those that judge; -1 everywhere else."""
    bands: tuple[int, ...] | None
    pixel_scale_arcsec: float
    noise: tuple[float, ...]
    n_judge: int
    """Labelled stamps of its validation split."""

    def job(self, job: TrainJob) -> TrainJob:
        """The same training with this domain's stamps in place of its own."""
        card = job.card.model_copy(update={"pixel_scale_arcsec": self.pixel_scale_arcsec})
        return dataclasses.replace(
            job,
            seed=job.seed + SEED,
            card=card,
            index=self.index,
            truth=self.truth,
            bands=self.bands,
            noise=self.noise,
            curriculum=None,
            shares=None,
        )


def open_target(
    settings: TrainSettings,
    source: Truth,
    spec: ImageSpec,
    *,
    reads: Literal["none", "few", "all"],
    numbered: Callable[[NDArray[np.object_]], NDArray[np.int16]],
    seed: int,
) -> Target:
    """
    Open the target of a training.

    Parameters
    ----------
    settings : TrainSettings
    source : Truth
        Of the source's stamps.
    spec : ImageSpec
        Of the source's images.
    reads : str
        Which labels of its training split are read.
    numbered : function of labels, objects (n,)
        Their numbers among the source's classes; -1 where they have none.
    seed : int

    Raises
    ------
    ConfigError, DataError
        It does not go with the source, has no stamps in a split, or lacks labels that are to be read.
    """
    adapt = settings.adapt
    if adapt is None or not adapt.target:
        raise ConfigError("an adaptation needs a target: --target FOLDER, or adapt.target in the settings")
    data = StampSet.open(adapt.target)
    asked = settings.input
    names = asked.bands or spec.bands
    there = asked.model_copy(
        update={"bands": names, "stamp_px": asked.stamp_px or spec.size_px, "pixel_scale_arcsec": None}
    )
    image, own = choose_image(data, there)
    _refuse_other_pixels(own, spec, asked.scale_tolerance)
    split = data.column("split")
    rows = {name: np.flatnonzero(split == name) for name in ("train", "validation")}
    for name, some in rows.items():
        if len(some) < 2:
            raise DataError("the target needs stamps in its splits train and validation", split=name, n=len(some))
    labels = np.full(data.n, -1, np.int16)
    told = numbered(data.column("label"))
    labels[rows["validation"]] = told[rows["validation"]]
    if reads != "none":
        rows["train"] = _read(rows["train"], told, source.classes, adapt.n_label if reads == "few" else None, seed)
        labels[rows["train"]] = told[rows["train"]]
    index = StampIndex.of(data, image)
    bands = [own.bands.index(band) for band in names]
    sample = np.sort(np.random.default_rng([seed, 61]).permutation(np.flatnonzero(split == "train"))[:N_NOISE])
    noise = noise_levels(read_rows(index, sample)[:, bands], names, own.pixel_scale_arcsec)
    nothing = np.empty((data.n, 0), np.float32)
    truth = Truth(
        labels=labels,
        classes=source.classes,
        targets=nothing,
        features=nothing,
        train=rows["train"],
        validation=rows["validation"],
    )
    return Target(
        title=data.title,
        index=index,
        truth=truth,
        bands=None if bands == list(range(len(own.bands))) else tuple(bands),
        pixel_scale_arcsec=own.pixel_scale_arcsec,
        noise=tuple(noise),
        n_judge=int((labels[rows["validation"]] >= 0).sum()),
    )


def refuse_same(source: StampSet, target: str) -> None:
    """Raise `ConfigError` where a target is what is learnt from with its labels: it is no other domain."""
    there = StampSet.open(target)
    for one in each_of(source):
        if digest_of_data(one) == digest_of_data(there) and np.array_equal(_first_stamp(one), _first_stamp(there)):
            raise ConfigError("the target is the data that labels are read from: name another --target", target=target)


def _first_stamp(data: StampSet) -> NDArray[np.float32]:
    return data.read_images(next(iter(data.images)), [0])


def _refuse_other_pixels(target: ImageSpec, source: ImageSpec, tolerance: float) -> None:
    if target.unit != source.unit:
        raise ConfigError("the target has another unit than the source", target=target.unit, source=source.unit)
    if abs(target.pixel_scale_arcsec / source.pixel_scale_arcsec - 1) > tolerance:
        raise ConfigError(
            "the target's pixel scale differs by more than input.scale_tolerance: resample one of the two",
            target=target.pixel_scale_arcsec,
            source=source.pixel_scale_arcsec,
            tolerance=tolerance,
        )


def _read(train: Rows, told: NDArray[Any], classes: tuple[str, ...], n_label: int | None, seed: int) -> Rows:
    """Rows whose labels are read: all that have one, or so many per class."""
    turn = np.random.default_rng([seed, 97]).permutation(train)
    found = [turn[told[turn] == k][:n_label] for k in range(len(classes))]
    if missing := [name for name, rows in zip(classes, found, strict=True) if not len(rows)]:
        raise DataError("no labelled stamp of a class in the target's training split", missing=",".join(missing))
    return np.sort(np.concatenate(found))
