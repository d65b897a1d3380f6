"""`lenspipe denoise`: survey tiles in, tiles with less noise out."""

from __future__ import annotations

from pathlib import Path

import click

from lenspipe.cli import complete
from lenspipe.cli.options import OUT_FOLDER, Command, assigned, for_survey, set_option
from lenspipe.errors import ConfigError, TileError
from lenspipe.toml import put_over


@click.command(cls=Command)
@click.argument("tiles", nargs=-1, metavar="TILES...", required=True)
@click.option("--model", required=True, metavar="NAME|DIR", help="Denoiser: a shipped model or a folder.")
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder of the denoised files.")
@click.option(
    "--survey",
    shell_complete=complete.surveys,
    default="generic",
    show_default=True,
    metavar="NAME|FILE",
    help="Survey layout.",
)
@set_option("survey.zero_point.ab=25", settings="survey")
@click.option("--ratio", type=float, default=2.0, show_default=True, help="Exposure time wanted over that of the tile.")
@click.option("--window-px", type=click.IntRange(min=64, max=8192), default=512, show_default=True)
@click.option("--zero-point-ab", type=float, default=None, help="Zero-point for images that have none.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
def command(
    tiles: tuple[str, ...],
    model: str,
    out: Path,
    survey: str,
    assignments: tuple[str, ...],
    ratio: float,
    window_px: int,
    zero_point_ab: float | None,
    device: str,
    overwrite: bool,
) -> int:
    """
    Denoise survey TILES (files, folders, globs or URLs) as RATIO times their exposure would show them.

    One FITS file a tile and band: IMAGE in nJy with the tile's WCS, and FLAGS. Exit code: 0 done, 2 bad request, 3
    done with failures.
    """
    from lenspipe.disk import locked
    from lenspipe.infer.denoise import Denoiser
    from lenspipe.nn.card import find_model, read_card, verdict
    from lenspipe.nn.outputs import Denoise
    from lenspipe.scan.config import ScanConfig
    from lenspipe.scan.context import ScanContext
    from lenspipe.scan.denoise_tiles import denoise_files, file_of, outside_training
    from lenspipe.survey.files import find_files
    from lenspipe.survey.layout import read_layout
    from lenspipe.survey.tile import BadTile, bands_of, demand_bands, group_tiles

    if not 1 <= ratio <= 1e4:
        raise ConfigError("the exposure ratio must be at least 1", ratio=ratio)
    folder = find_model(model)
    card = read_card(folder)
    if not isinstance(card.outputs, Denoise):
        raise ConfigError("this model is not a denoiser; choose one of task denoise", model=card.name, task=card.task)
    about_others, about_layout = for_survey(assignments)
    if about_others:
        raise ConfigError("--set takes keys of the survey layout here: survey.KEY=VALUE", got=about_others[0])
    layout = put_over(read_layout(survey), assigned(about_layout), origin="--set survey")
    found = group_tiles(find_files(list(tiles)), layout)
    bands = bands_of(found, layout)
    if missing := [band for band in card.bands if band not in bands]:
        raise ConfigError(
            "the denoiser needs bands that the tiles do not have",
            model=card.name,
            missing=" ".join(missing),
            tiles_have=" ".join(bands),
        )
    there = [file_of(out, t.name, b) for t in found for b in card.bands if file_of(out, t.name, b).exists()]
    if there and not overwrite:
        raise ConfigError("the file is there already; pass --overwrite or another --out", file=str(there[0]))
    denoiser = Denoiser(folder, device=device)
    if verdict(card) != "passed":
        click.echo(
            f"Warning: {card.name} has not passed its gate (verdict: {verdict(card)}); see docs/denoiser.md", err=True
        )
    if outside_training(denoiser, ratio):
        low, high = denoiser.exposure_ratios
        click.echo(f"Warning: ratio {ratio:g} is outside the training ({low:g} to {high:g}); DNEXTRAP is set", err=True)
    context = ScanContext(ScanConfig(zero_point_ab=zero_point_ab), layout, bands, Path())
    failed = 0
    with locked(out):
        for tile in demand_bands(found, card.bands):
            try:
                if isinstance(tile, BadTile):
                    raise tile.error
                done = denoise_files(tile, context, denoiser, out, ratio=ratio, window_px=window_px)
            except TileError as error:
                failed += 1
                click.echo(f"{tile.name}: {error}", err=True)
                continue
            click.echo(
                f"{tile.name}: {done.n_px / 1e6:.1f} Mpx at {done.n_px / 1e6 / done.seconds:.2f} Mpx/s; "
                f"{done.masked_fraction:.2%} masked, {done.bright_fraction:.3%} brighter than the training, "
                f"{done.bound_fraction:.3%} changed by the bound"
            )
    return 3 if failed else 0
