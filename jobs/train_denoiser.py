"""
Train a denoiser without a data set of stamps: on simulated fields, or on repeated exposures of one field.

    python jobs/train_denoiser.py --out models/denoise
    python jobs/train_denoiser.py --out models/vircam --frames 'frames/*.fits' --band H --set loss.name=noise2noise

Without --frames: g r i, nearly noise-free fields that are simulated. With it: one band, and no clean image is needed.
Stamps of a survey are trained on by `lenspipe train --task denoise`. Killed and started again with the same arguments,
it resumes after the last whole epoch. See docs/denoiser.md.
"""

from __future__ import annotations

from pathlib import Path

import click

from lenspipe.cli import run_command
from lenspipe.cli.options import set_option, settings_of
from lenspipe.cli.progress import ShownProgress
from lenspipe.errors import ConfigError
from lenspipe.learn.denoise.train import frame_split, simulated_split, train_on_skies
from lenspipe.learn.settings import TrainSettings
from lenspipe.survey.files import find_files

SETTINGS = Path(__file__).with_suffix(".toml")
FIELD_SCALE_ARCSEC = 0.25
"""Of the card; simulated fields have 0.18" to 0.30"."""


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the model.")
@click.option("--fields", type=click.Path(path_type=Path), help="Simulated fields (.npz), kept for the next run.")
@click.option("--frames", multiple=True, help="Repeated exposures of one field: files or globs.")
@click.option("--band", default="H", show_default=True, help="Band of --frames.")
@click.option("--family", default="unet-small", show_default=True, help="Network family.")
@click.option("--config", default=str(SETTINGS), help="Settings. [default: train_denoiser.toml beside this file]")
@set_option("loss.name=l1", settings="train")
@click.option("--epochs", type=click.IntRange(min=1), default=None, help="Epochs. [default: 80]")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
def command(
    out: Path,
    fields: Path | None,
    frames: tuple[str, ...],
    band: str,
    family: str,
    config: str,
    assignments: tuple[str, ...],
    epochs: int | None,
    seed: int,
) -> None:
    """Train a denoiser."""
    settings = settings_of(TrainSettings, config, assignments, {"optim.epochs": epochs})
    bands: tuple[str, ...]
    if frames:
        train, check, scale = frame_split([Path(file) for file in find_files(list(frames))])
        bands, said = (band,), "repeated frames"
    elif settings.loss.name == "noise2noise":
        raise ConfigError("noise2noise is the loss of --frames; without them choose another")
    else:
        train, check = simulated_split(fields)
        bands, scale, said = ("g", "r", "i"), FIELD_SCALE_ARCSEC, "simulated"
    with ShownProgress("step") as progress:
        card = train_on_skies(
            train,
            check,
            bands=bands,
            pixel_scale_arcsec=scale,
            model=family,
            out=out,
            settings=settings,
            seed=seed,
            facts={"pairs": said},
            progress=progress,
        )
    click.echo(f"{out}: {card.metrics['validation']}")


if __name__ == "__main__":
    run_command(command)
