"""
Train a denoiser on pairs of exposures.

    python jobs/train_denoiser.py --out models/denoise --real ../shared/data
    python jobs/train_denoiser.py --out models/vircam --frames 'frames/*.fits' --band H --loss noise2noise

Without --frames: g r i, simulated fields and, with --real, a KiDS tile and DES galaxies that are made noisier. With it:
repeated exposures of one field in one band, with no clean image. Killed and started again with the same arguments, it
goes on after the last whole epoch. See docs/denoiser.md.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.studies.data import kids_tile
from lenspipe.cli import run_command
from lenspipe.errors import ConfigError
from lenspipe.learn.denoise_losses import LOSSES
from lenspipe.learn.denoise_pairs import Sky, simulated_sky
from lenspipe.learn.denoise_skies import cutout_skies, des_cutouts, frame_skies, read_frames, real_sky
from lenspipe.learn.denoise_train import DenoiseSettings, train_denoiser
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.nn.outputs import Denoise
from lenspipe.sky.wcs import pixel_scale_arcsec
from lenspipe.survey.files import find_files

N_FIELD, N_CHECK, FIELD_SEED = 30, 4, 1000
KIDS_TRAIN, KIDS_CHECK = slice(0, 1430), slice(1430, 1690)
KIDS_WEIGHT, DES_EVERY = 8, 6
FRAME_TRAIN, FRAME_CHECK = 0.54, 0.65
RATIOS = (1.25, 8.0)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the model.")
@click.option("--real", type=click.Path(path_type=Path), help="Folder of real survey pixels to make noisier.")
@click.option("--fields", type=click.Path(path_type=Path), help="Simulated fields (.npz), kept for the next run.")
@click.option("--frames", multiple=True, help="Repeated exposures of one field: files or globs.")
@click.option("--band", default="H", show_default=True, help="Band of --frames.")
@click.option("--family", type=click.Choice(["unet", "unet-small"]), default="unet-small", show_default=True)
@click.option("--loss", type=click.Choice(list(LOSSES)), default="huber", show_default=True)
@click.option("--drawn", is_flag=True, help="Simulated deep exposures with their own noise, not the expected ones.")
@click.option("--epochs", type=int, default=80, show_default=True, help="Epochs of 100 batches.")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--patch-px", type=int, default=64, show_default=True, help="Side of a patch.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--name", default=None, help="Name on the card. [default: the folder's]")
def command(
    out: Path,
    real: Path | None,
    fields: Path | None,
    frames: tuple[str, ...],
    band: str,
    family: str,
    loss: str,
    drawn: bool,
    epochs: int,
    batch_size: int,
    patch_px: int,
    seed: int,
    name: str | None,
) -> None:
    """Train a denoiser."""
    torch.set_num_threads(1)
    settings = DenoiseSettings(
        epochs=epochs, batch_size=batch_size, patch_px=patch_px, loss=loss, drawn=drawn, seed=seed
    )
    if frames and real:
        raise ConfigError("--frames makes a denoiser of one band, --real one of g r i; give one of the two")
    bands: tuple[str, ...]
    if frames:
        train, check, scale = split_frames(list(frames))
        bands, scales, ratios = (band,), (0.8 * scale, 1.25 * scale), (1.0, train[0].n_rest + 1.0)
        said = "frames"
    else:
        if loss == "noise2noise":
            raise ConfigError("noise2noise is the loss of --frames; without them choose another")
        train, check = split_fields(real, fields)
        bands, scale, scales, ratios = ("g", "r", "i"), 0.25, (0.15, 0.36), RATIOS
        said = "simulated" if real is None else "simulated, KiDS and DES made noisier"
    card = ModelCard(
        name=name or out.name,
        family=family,
        bands=bands,
        pixel_scale_arcsec=scale,
        scale_tolerance=0.3,
        min_scale_arcsec=scales[0],
        max_scale_arcsec=scales[1],
        stamp_px=patch_px,
        stretch=Stretch(name="linear", band_scales=(1.0,) * len(bands), alpha=1.0, q=1.0),
        outputs=Denoise(exposure_ratios=ratios),
    )
    given = f"--frames 'FRAMES' --band {band}" if frames else "" if real is None else "--real ../shared/data"
    facts = {
        "command": f"python jobs/train_denoiser.py --out OUT {given} --family {family} --loss {loss} --epochs {epochs} "
        f"--batch-size {batch_size} --patch-px {patch_px} --seed {seed}",
        "hosts": {"validation": len(check), "train": len(train)},
        "pairs": said,
        "unit": "pixels over the noise of the sky, ln(1 + |x|) inside",
    }
    written = train_denoiser(train, check, card, settings, out, facts=facts)
    click.echo(f"{out}: {written.metrics['validation']}")


def split_fields(real: Path | None, kept: Path | None) -> tuple[list[Sky], list[Sky]]:
    """Simulated fields and, where there are any, real pixels; rows of the KiDS tile as for the finder."""
    fields = simulated_skies(kept)
    train, check = fields[:N_FIELD], fields[N_FIELD:]
    if real is not None:
        tile = real_sky(kids_tile(real)[:, KIDS_TRAIN], name="kids")
        train += [tile] * KIDS_WEIGHT + cutout_skies(des_cutouts(real)[:27:DES_EVERY])
        check.append(real_sky(kids_tile(real)[:, KIDS_CHECK], name="kids"))
    return train, check


def simulated_skies(kept: Path | None) -> list[Sky]:
    """Fields of fixed seeds, read from a file that an earlier run wrote."""
    seeds = range(FIELD_SEED, FIELD_SEED + N_FIELD + N_CHECK)
    if kept is not None and kept.exists():
        arrays = np.load(kept)
        if arrays["seeds"].tolist() != list(seeds):
            raise ConfigError("the file holds other fields; give another --fields", file=str(kept))
        return [
            Sky("model", image, rms, gain)
            for image, rms, gain in zip(arrays["image"], arrays["rms"], arrays["gain"], strict=True)
        ]
    skies = [simulated_sky(seed) for seed in seeds]
    if kept is not None:
        gains = [sky.njy_per_electron for sky in skies]
        images, noise = ([getattr(sky, name) for sky in skies] for name in ("image_njy", "sky_rms_njy"))
        np.savez(kept, seeds=list(seeds), image=images, rms=noise, gain=np.stack([g for g in gains if g is not None]))
    return skies


def split_frames(patterns: list[str]) -> tuple[list[Sky], list[Sky], float]:
    """The lower rows of every frame to train on, some above to validate, the rest for tests; and the pixel scale."""
    read = read_frames([Path(file) for file in find_files(patterns)])
    train, check = [], []
    for sky in frame_skies(read):
        edges = [int(part * sky.image_njy.shape[1]) for part in (FRAME_TRAIN, FRAME_CHECK)]
        train.append(rows_of(sky, slice(0, edges[0])))
        check.append(rows_of(sky, slice(*edges)))
    return train, check, pixel_scale_arcsec(read[0][1], read[0][0].shape)


def rows_of(sky: Sky, rows: slice) -> Sky:
    """Part of a sky."""
    assert sky.rest_njy is not None
    return dataclasses.replace(
        sky, image_njy=np.ascontiguousarray(sky.image_njy[:, rows]), rest_njy=sky.rest_njy[:, rows]
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(command)
