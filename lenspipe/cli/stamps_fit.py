"""`lenspipe stamps fit`: what fitted smooth lenses leave of stamps, as one more band."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenspipe.cli import EXIT_DONE
from lenspipe.cli.options import OUT_FOLDER, Command, runner_option, workers_option
from lenspipe.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from lenspipe.infer.fitted_run import Runner
    from lenspipe.nn.fitted import DrawnSignals, SmoothFit
    from lenspipe.runner import RunnerName, Start, Workers
    from lenspipe.stamps.format import StampSet

DRAWS, SEED, ROUNDS = 16384, 0, 4
"""Draws per class where the command does not say, and their seed; likewise how often fits with clumps begin again."""
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("fit", cls=Command)
@click.argument("folder", type=FOLDER)
@click.option("--out", type=OUT_FOLDER, required=True, help="New data set.")
@click.option("--band", default=None, help="Band that is fitted.  [default: the first]")
@click.option("--image", default=None, help="Image column.  [default: the first]")
@click.option(
    "--like",
    type=FOLDER,
    help="Simulated stamps whose true parameters say what to expect, or a model, for fits like those of its training.  "
    "[default: FOLDER itself]",
)
@click.option(
    "--prior",
    "priors",
    multiple=True,
    metavar="NAME=MEAN,WIDTH",
    help="Mean and width of a parameter, in place of what the stamps say; width 0 fixes it. May be repeated.",
)
@click.option("--lens-light/--no-lens-light", default=None, help="Whether the lens galaxy is in the images.")
@click.option("--fwhm-arcsec", type=click.FloatRange(min=0, min_open=True), help="Of a Gaussian PSF.")
@click.option(
    "--njy-per-electron",
    type=click.FloatRange(min=0),
    default=None,
    help="For the noise of photons, where stamps do not say it; 0: that of the sky alone.  [default: what the stamps "
    "say in njy_per_electron_BAND, as simulated ones do; else 0, or the model's]",
)
@click.option("--finer", type=click.IntRange(1, 8), help="Model points per pixel.  [default: 2, or the model's]")
@click.option(
    "--clumps",
    type=click.IntRange(0, 8),
    help="Clumps that a source may have; each is kept where it makes the fit better by much.  [default: 0, or the "
    "model's]",
)
@click.option(
    "--rounds",
    type=click.IntRange(0, 4),
    help="Times that lenses with clumps are sought again, from other starts: their fits have many minima. Each takes "
    "about as long as their fit.  [default: 4 with --clumps, or the model's]",
)
@click.option(
    "--point-masses",
    is_flag=True,
    help="Three more bands: how significant a point mass would be at each place (BAND_point_mass, in sigma), and the "
    "logarithms of the odds of small and of large ones (BAND_small_mass, BAND_large_mass).",
)
@click.option(
    "--signals",
    metavar="RECIPE",
    help="Columns per class of substructure of this recipe: the logarithm of how much more probable a stamp is with it "
    "than with none (fitted_CLASS_log_odds), and how much of it there is (fitted_AMOUNT, fitted_AMOUNT_error). Lenses "
    "are those of the training split of FOLDER or --like.",
)
@click.option(
    "--draws", type=click.IntRange(1024, 262144), default=None, help="Draws per class of --signals.  [default: 16384]"
)
@click.option(
    "--cut-out",
    is_flag=True,
    help="The stamps were cut from larger images: lenses lie anywhere in the middle pixel, the PSF brings light "
    "from beyond the edges, and pixels of exactly 0 are no data.",
)
@runner_option()
@workers_option("CPUs to use")
@click.option("--resume", is_flag=True, help="Finish the fit in --out.")
def command(
    folder: Path,
    out: Path,
    band: str | None,
    image: str | None,
    like: Path | None,
    priors: tuple[str, ...],
    lens_light: bool | None,
    fwhm_arcsec: float | None,
    njy_per_electron: float | None,
    finer: int | None,
    clumps: int | None,
    rounds: int | None,
    point_masses: bool,
    signals: str | None,
    draws: int | None,
    cut_out: bool,
    runner: RunnerName,
    workers: int | Workers | None,
    resume: bool,
) -> int:
    """Fit a smooth lens with a Sérsic source to every stamp, and write what it leaves as one more band."""
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.distributed.choice import started
    from lenspipe.distributed.session import on_ray
    from lenspipe.infer.fitted import anywhere_in_a_pixel, priors_of_fit
    from lenspipe.infer.fitted_run import fit_local, gains_told, write_fitted
    from lenspipe.infer.fitted_set import priors_of
    from lenspipe.nn.fitted import ODDS_WAY
    from lenspipe.stamps.format import StampSet

    given = [_prior(text) for text in priors]
    if twice := sorted({name for name, _ in given if [other for other, _ in given].count(name) > 1}):
        raise ConfigError("--prior is given more than once for one parameter", twice=",".join(twice))
    data = StampSet.open(folder)
    name, model = image or next(iter(data.images)), _fit_of(like)
    chosen = band or (model.band if model else data.images[name].bands[0] if name in data.images else "")
    if rounds and model is None and not clumps:
        raise ConfigError("--rounds is of lenses with clumps: give --clumps", got=rounds)
    if draws is not None and signals is None:
        raise ConfigError("--draws is of --signals, which is not given", got=draws)
    drawn = None
    if model is None:
        true = StampSet.open(like) if like else data
        told = priors_of(true, light=lens_light, given=dict(given))
        drawn = _drawn(signals, true, draws or DRAWS) if signals else None
    else:
        asked = (lens_light, finer, clumps, rounds)
        if given or point_masses or signals or any(one is not None for one in asked):
            raise ConfigError(
                "a model says how to fit: leave --prior, --lens-light, --finer, --clumps, --rounds, --point-masses and "
                "--signals out",
                like=str(like),
            )
        if model.signals is not None and model.signals.way != ODDS_WAY:
            raise ConfigError(
                "the model learnt from odds that this version makes otherwise: train it again on stamps that are "
                "fitted anew",
                like=str(like),
            )
        if model.signals is not None:
            raise ConfigError(
                "the model learnt from odds of drawn signals, which it does not keep: give --like the simulated stamps "
                f"that it learnt from, --signals {model.signals.recipe} --draws {model.signals.draws}, and "
                "--clumps, --rounds, --finer and --point-masses as then",
                like=str(like),
            )
        _demand_like(model, data, name, chosen)
        told, finer, clumps, rounds = priors_of_fit(model), model.finer, model.clumps, model.rounds
        point_masses = model.point_masses
        cut_out = cut_out or model.lit_beyond
        if njy_per_electron is None and not len(gains_told(data, chosen)):
            njy_per_electron = model.njy_per_electron
            if njy_per_electron is None:
                raise ConfigError(
                    "the model's stamps told their noise of photons, and these do not: give --njy-per-electron (0: "
                    "leave photons out)",
                    like=str(like),
                )
    if cut_out and (fixed := [one for one, _ in given if one.startswith("centre_")]):
        raise ConfigError("--cut-out says where lenses lie: leave these priors out", given=",".join(fixed))
    if cut_out and name in data.images:
        told = anywhere_in_a_pixel(told, data.images[name].pixel_scale_arcsec)
    with ShownProgress("stamp") as progress:
        load = partial(on_ray, _on_ray, n_worker=workers)
        fit: Start[Runner] = started(runner, fit_local, load, workers=workers, say=progress.say)
        result = write_fitted(
            data,
            told,
            out,
            band=chosen,
            image=name,
            fwhm_arcsec=fwhm_arcsec,
            njy_per_electron=njy_per_electron,
            finer=finer or 2,
            clumps=clumps or 0,
            rounds=ROUNDS if rounds is None and clumps else rounds or 0,
            point_masses=point_masses,
            signals=drawn,
            lit_beyond=cut_out,
            runner=fit,
            resume=resume,
            progress=progress,
        )
    left = ", ".join(f"{label} {value:.3f}" for label, value in result["mean_square_left"].items())
    click.echo(f"{out}: {result['rows']} stamps ({result['new_rows']} new, {result['seconds']:.1f} s)")
    click.echo(f"mean square left of band {chosen}, in units of the noise, median: {left}")
    click.echo(f"noise: of the sky, and {result['photons']}")
    return EXIT_DONE


def _on_ray(n_worker: int) -> Runner:
    from lenspipe.distributed.fit import fit_ray

    return partial(fit_ray, n_worker=n_worker)


def _drawn(name: str, data: StampSet, draws: int) -> tuple[DrawnSignals, pa.Table]:
    """Substructure of a recipe around the lenses of the split train of simulated stamps."""
    from lenspipe.infer.fitted_run import drawn_signals
    from lenspipe.simulate.recipe import read_recipe
    from lenspipe.simulate.signals import draw_signals, lenses_of

    recipe = read_recipe(name)
    table = draw_signals(recipe, lenses_of(data), n=draws, seed=SEED)
    assert recipe.substructure is not None
    return drawn_signals(recipe.name, recipe.substructure.model_dump_json(), table, seed=SEED)


def _fit_of(like: Path | None) -> SmoothFit | None:
    """How the stamps of a model were fitted; None where the folder is none of a model."""
    from lenspipe.nn.card import CARD_FILE, read_card

    if like is None or not (like / CARD_FILE).is_file():
        return None
    fit = read_card(like).fitted
    if fit is None:
        raise ConfigError("the model was shown no fitted stamps, and does not say how to fit any", like=str(like))
    return fit


def _demand_like(model: SmoothFit, data: StampSet, image: str, band: str) -> None:
    """Stamps must be what the model's were, or what is left of them is in other units."""
    if band != model.band:
        raise ConfigError("the model was shown fits of another band", got=band, want=model.band)
    if image not in data.images:
        return
    scale = data.images[image].pixel_scale_arcsec
    if not model.has_pixels_of(scale):
        raise ConfigError(
            "the model's fits were made on other pixels, and noise per pixel is not that of these: cut the stamps at "
            "its scale, or let a scan do it",
            got=scale,
            want=model.pixel_scale_arcsec,
        )


def _prior(text: str) -> tuple[str, tuple[float, float]]:
    name, _, numbers = text.partition("=")
    try:
        mean, width = (float(number) for number in numbers.split(","))
    except ValueError:
        raise ConfigError("--prior needs NAME=MEAN,WIDTH", got=text) from None
    if not (math.isfinite(mean) and 0 <= width < math.inf):
        raise ConfigError("a prior has a finite mean and a finite width from 0 on", got=text)
    return name.strip(), (mean, width)
