"""Train a denoiser on skies that are no data set of stamps: simulated fields, whole images, repeated frames."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.learn.denoise.frames import frame_skies, read_frames
from lenspipe.learn.denoise.pairs import Sky, joined, pair_batch, random_skies, simulated_sky
from lenspipe.learn.fit import Batch
from lenspipe.learn.job import TrainJob
from lenspipe.learn.objectives import objective_of
from lenspipe.learn.objectives.denoise import PATCH_PX, Skies
from lenspipe.learn.settings import DenoiseSettings, TrainSettings
from lenspipe.learn.stream import StampIndex
from lenspipe.learn.train import PLAIN, Runner, run_job
from lenspipe.learn.truth import Truth
from lenspipe.nn.card import ModelCard
from lenspipe.nn.outputs import Denoise
from lenspipe.runner import SILENT, Progress, Start
from lenspipe.sky.wcs import pixel_scale_arcsec

STEPS, CHECK_STEPS, CHECK_SEED = 100, 12, 1_000_000
FRAME_TRAIN, FRAME_CHECK = 0.54, 0.65
N_FIELD, N_FIELD_CHECK, FIELD_SEED = 30, 4, 1000


def train_on_skies(
    train: Sequence[Sky],
    check: Sequence[Sky],
    *,
    bands: tuple[str, ...],
    pixel_scale_arcsec: float,
    model: str,
    out: str | Path,
    settings: TrainSettings,
    seed: int = 0,
    facts: dict[str, Any] | None = None,
    runner: Start[Runner] = PLAIN,
    n_worker: int = 1,
    progress: Progress = SILENT,
) -> ModelCard:
    """
    Train a denoiser and write it, or resume a training that was cut off, as `lenspipe.learn.train.train` does.

    Parameters
    ----------
    train, check : sequences of Sky
        To draw patches from, and to measure on.
    bands : tuple of str
        Bands of the skies.
    pixel_scale_arcsec : float
        Of the skies; how far others may be from it is `InputSettings.scale_range`.
    model : str
        Network family.
    out : path
    settings : TrainSettings
        ``denoise.ratios`` are of no use to repeated frames, whose number is the ratio. 100 steps an epoch where
        ``sampling.steps_per_epoch`` is null.
    seed : int
    facts : dict, optional
        For the card's training.
    runner, n_worker, progress
        As of `lenspipe.learn.train.train`.

    Raises
    ------
    ConfigError, DataError, ModelError
        What is wrong with the request, the skies, the network or the stored state.
    """
    job = _job(train, check, bands, pixel_scale_arcsec, model, out, settings, seed, facts or {}, n_worker)
    request = {
        "command": "train on skies",
        "skies": _digest([*train, *check]),
        "model": model,
        "seed": seed,
        "workers": n_worker,
        "settings": settings.model_dump(mode="json"),
    }
    return run_job(job, request, runner=runner, n_worker=n_worker, progress=progress)


def frame_split(files: Sequence[Path]) -> tuple[list[Sky], list[Sky], float]:
    """
    Repeated exposures of one field in one band, as skies to train and to measure on, and their pixel scale.

    The lower rows of every frame are to train on, some above to measure on, and the rest for tests.

    Raises
    ------
    DataError, TileError
        As of `lenspipe.learn.denoise.frames.read_frames` and `frame_skies`.
    """
    read = read_frames(files)
    train, check = [], []
    for sky in frame_skies(read):
        edges = [int(part * sky.image_njy.shape[1]) for part in (FRAME_TRAIN, FRAME_CHECK)]
        train.append(_rows_of(sky, slice(0, edges[0])))
        check.append(_rows_of(sky, slice(*edges)))
    return train, check, pixel_scale_arcsec(read[0][1], read[0][0].shape)


def simulated_split(kept: Path | None = None) -> tuple[list[Sky], list[Sky]]:
    """
    Simulated g r i fields of fixed seeds, to train and to measure on.

    Parameters
    ----------
    kept : path, optional
        File (.npz) that an earlier call wrote, or that this one is to write: the fields take minutes.

    Raises
    ------
    ConfigError
        The file holds other fields.
    """
    seeds = list(range(FIELD_SEED, FIELD_SEED + N_FIELD + N_FIELD_CHECK))
    if kept is not None and kept.exists():
        arrays = np.load(kept)
        if arrays["seeds"].tolist() != seeds:
            raise ConfigError("the file holds other fields; give another --fields", file=str(kept))
        whole = zip(arrays["image"], arrays["rms"], arrays["gain"], strict=True)
        skies = [Sky("model", image, rms, gain) for image, rms, gain in whole]
    else:
        skies = [simulated_sky(seed) for seed in seeds]
        if kept is not None:
            names = {"image": "image_njy", "rms": "sky_rms_njy", "gain": "njy_per_electron"}
            arrays = {key: np.stack([getattr(sky, name) for sky in skies]) for key, name in names.items()}
            np.savez(kept, seeds=seeds, **arrays)
    return skies[:N_FIELD], skies[N_FIELD:]


def _job(
    train: Sequence[Sky],
    check: Sequence[Sky],
    bands: tuple[str, ...],
    scale: float,
    family: str,
    out: str | Path,
    settings: TrainSettings,
    seed: int,
    facts: dict[str, Any],
    n_worker: int,
) -> TrainJob:
    objective, shown, asked = objective_of(Denoise.model_fields["task"].default), settings.input, settings.denoise
    objective.check(settings)
    if settings.sampling.batch_size % n_worker:
        raise ConfigError(
            "sampling.batch_size must be a multiple of the number of workers",
            got=settings.sampling.batch_size,
            workers=n_worker,
        )
    repeated = [sky.n_rest + 1.0 for sky in train if sky.n_rest]
    ratios = (1.0, max(repeated)) if repeated else (asked or DenoiseSettings()).ratios
    card = ModelCard(
        name=settings.name or Path(out).name,
        family=family,
        settings=settings.model,
        outputs=Denoise(exposure_ratios=ratios),
        bands=bands,
        pixel_scale_arcsec=scale,
        scale_tolerance=shown.scale_tolerance,
        min_scale_arcsec=scale * shown.scale_range[0],
        max_scale_arcsec=scale * shown.scale_range[1],
        stamp_px=(asked and asked.patch_px) or PATCH_PX,
        stretch=objective.stretch(shown, (1.0,) * len(bands)),
        training=facts | {"n_sky": len(train), "seed": seed, "settings": settings.model_dump(mode="json")},
    )
    nothing: NDArray[np.float32] = np.empty((0, 0), np.float32)
    truth = Truth(
        labels=np.empty(0, np.int16),
        targets=nothing,
        features=nothing,
        train=np.arange(len(train)),
        validation=np.arange(CHECK_STEPS * settings.sampling.batch_size),
    )
    return TrainJob(
        out=os.path.abspath(out),
        seed=seed,
        settings=settings,
        card=card,
        index=StampIndex((), (), (), np.zeros(1, np.int64), "", 0),  # no stamps are read: the skies go with the job
        truth=truth,
        bands=None,
        noise=(1.0,) * len(bands),
        augment=objective.augment,
        curriculum=None,
        steps=settings.sampling.steps_per_epoch or STEPS,
        beside=Skies(tuple(train), _pairs_of(check, settings, seed)),
    )


def _pairs_of(check: Sequence[Sky], settings: TrainSettings, seed: int) -> Batch:
    asked, batches = settings.denoise or DenoiseSettings(), []
    for step in range(CHECK_STEPS):
        rng = np.random.default_rng([seed + CHECK_SEED, 23, 0, step])
        skies = random_skies(check, settings.sampling.batch_size, rng)
        size = asked.patch_px or PATCH_PX
        batches.append(pair_batch(skies, rng, ratios=asked.ratios, size_px=size, drawn=asked.drawn))
    return joined(batches)


def _rows_of(sky: Sky, rows: slice) -> Sky:
    assert sky.rest_njy is not None
    return dataclasses.replace(
        sky, image_njy=np.ascontiguousarray(sky.image_njy[:, rows]), rest_njy=sky.rest_njy[:, rows]
    )


def _digest(skies: Sequence[Sky]) -> str:
    digest = hashlib.sha256()
    for sky in skies:
        for array in (sky.image_njy, sky.rest_njy, sky.sky_rms_njy):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
