"""
Train the g r i denoiser on simulated fields, a KiDS tile and DES galaxies that are made noisier.

    python -m benchmarks.studies.denoiser.train --real ../shared/data --out models/denoise-ground

Settings in train.toml. Killed and started again with the same arguments, it resumes after the last whole epoch. The
denoiser of repeated VIRCAM frames is `jobs/train_denoiser.py --frames`.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from astropy.io import fits

from benchmarks.studies.data import NJY_AT_ZERO_POINT_30, kids_tile
from lenspipe.cli import run_command
from lenspipe.cli.options import set_option, settings_of
from lenspipe.cli.progress import ShownProgress
from lenspipe.learn.denoise.pairs import Image
from lenspipe.learn.denoise.skies import cutout_skies, real_sky
from lenspipe.learn.denoise.train import simulated_split, train_on_skies
from lenspipe.learn.settings import TrainSettings

SETTINGS = Path(__file__).with_suffix(".toml")
KIDS_TRAIN, KIDS_CHECK = slice(0, 1430), slice(1430, 1690)
"""Rows of the KiDS tile, as for the finder."""
KIDS_WEIGHT, DES_LAST, DES_EVERY = 8, 27, 6
SCALE_ARCSEC = 0.25


@click.command()
@click.option("--real", type=click.Path(path_type=Path), required=True, help="Folder of real survey pixels.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the model.")
@click.option("--fields", type=click.Path(path_type=Path), help="Simulated fields (.npz), kept for the next run.")
@click.option("--family", default="unet-small", show_default=True)
@set_option("loss.name=l1", settings="train")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
def command(real: Path, out: Path, fields: Path | None, family: str, assignments: tuple[str, ...], seed: int) -> None:
    """Train the denoiser."""
    settings = settings_of(TrainSettings, str(SETTINGS), assignments)
    train, check = simulated_split(fields)
    tile = real_sky(kids_tile(real)[:, KIDS_TRAIN], name="kids")
    train += [tile] * KIDS_WEIGHT + cutout_skies(des_cutouts(real)[:DES_LAST:DES_EVERY])
    check.append(real_sky(kids_tile(real)[:, KIDS_CHECK], name="kids"))
    with ShownProgress("step") as progress:
        card = train_on_skies(
            train,
            check,
            bands=("g", "r", "i"),
            pixel_scale_arcsec=SCALE_ARCSEC,
            model=family,
            out=out,
            settings=settings,
            seed=seed,
            facts={"pairs": "simulated, KiDS and DES made noisier"},
            progress=progress,
        )
    click.echo(f"{out}: {card.metrics['validation']}")


def des_cutouts(real: Path) -> list[Image]:
    """The DES early types, g r i of 91 x 91 pixels, in nJy (AB zero-point 30)."""
    planes = [fits.getdata(real / "stamps/des_early_types" / f"{band}.fits") for band in "gri"]
    stamps = np.stack(planes, axis=1).astype(np.float32) * np.float32(NJY_AT_ZERO_POINT_30)
    return list(stamps)


if __name__ == "__main__":
    run_command(command)
