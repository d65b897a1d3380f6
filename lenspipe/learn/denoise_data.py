"""Train a denoiser on a data set of stamps: each is the deep exposure, and is made noisier."""

from __future__ import annotations

from pathlib import Path

from lenspipe.errors import DataError
from lenspipe.learn.denoise_pairs import Sky
from lenspipe.learn.denoise_skies import cutout_skies
from lenspipe.learn.denoise_train import DenoiseSettings, train_denoiser
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.nn.outputs import Denoise
from lenspipe.stamps.format import StampSet

RATIOS = (1.25, 8.0)
MAX_STAMPS = 20_000
SCALE_RANGE = (0.7, 1.4)


def train_on_stamps(
    data: Path,
    *,
    family: str,
    out: Path,
    epochs: int = 20,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    loss: str = "huber",
    seed: int = 0,
    image: str | None = None,
) -> ModelCard:
    """
    A denoiser for the bands of a data set.

    Sky and noise of a stamp are the median and the median absolute deviation of its pixels, band by band: stamps that
    a galaxy fills look noisier than they are. At most 20,000 stamps are held in memory.

    Parameters
    ----------
    data : Path
        Data set in the format of `lenspipe.stamps`, with splits ``train`` and ``validation``.
    family : str
        ``unet`` or ``unet-small``.
    image : str, optional
        Image column; the first where not given.

    Raises
    ------
    DataError
        A split has no stamps, or a stamp has no noise.
    ConfigError, ModelError
        No such loss, or no such family.
    """
    stamps = StampSet.open(data)
    name = image or next(iter(stamps.images))
    spec = stamps.images[name]
    train, check = (_skies(stamps, name, split) for split in ("train", "validation"))
    low, high = SCALE_RANGE
    card = ModelCard(
        name=out.name,
        family=family,
        bands=spec.bands,
        pixel_scale_arcsec=spec.pixel_scale_arcsec,
        scale_tolerance=0.3,
        min_scale_arcsec=low * spec.pixel_scale_arcsec,
        max_scale_arcsec=high * spec.pixel_scale_arcsec,
        stamp_px=spec.size_px,
        stretch=Stretch(name="linear", band_scales=(1.0,) * len(spec.bands), alpha=1.0, q=1.0),
        outputs=Denoise(exposure_ratios=RATIOS),
    )
    settings = DenoiseSettings(
        epochs=epochs,
        batch_size=batch_size,
        patch_px=min(64, spec.size_px),
        loss=loss,
        learning_rate=learning_rate,
        seed=seed,
    )
    facts = {"pairs": "stamps made noisier", "data": data.name, "n_sky": len(train)}
    return train_denoiser(train, check, card, settings, out, facts=facts)


def _skies(stamps: StampSet, name: str, split: str) -> list[Sky]:
    rows = (stamps.column("split") == split).nonzero()[0][:MAX_STAMPS]
    if not len(rows):
        raise DataError("the data set has no stamps in a split that training needs", split=split)
    skies = cutout_skies(list(stamps.read_images(name, rows)))
    for row, sky in zip(rows, skies, strict=True):
        if not (sky.sky_rms_njy > 0).all():
            raise DataError("a stamp has no noise in a band: a denoiser cannot learn from it", row=int(row))
    return skies
