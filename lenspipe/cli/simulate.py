"""`lenspipe simulate`: labelled stamps from a recipe."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lenspipe.cli import complete
from lenspipe.cli.options import OUT_FOLDER, Command, assigned, runner_option, set_option, workers_option
from lenspipe.simulate.export import FORMATS

if TYPE_CHECKING:
    from lenspipe.runner import Progress, RunnerName, Start, Workers
    from lenspipe.simulate.recipe import Recipe
    from lenspipe.simulate.run import Runner


@click.command(cls=Command)
@click.option(
    "--recipe",
    "recipe_name",
    shell_complete=complete.recipes,
    metavar="NAME|FILE.toml",
    help="A shipped recipe, or a TOML file.",
)
@set_option("image.0.size_px=48", settings="recipe")
@click.option("--count", type=click.IntRange(min=1), help="Number of stamps.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same rows.")
@click.option("--out", type=OUT_FOLDER, help="Folder of the data set.")
@click.option("--pixel-scale", type=float, metavar="ARCSEC", help="Another pixel scale, for recipes with one image.")
@click.option("--survey", default=None, metavar="NAME", help="Only this survey of the recipe. [default: all]")
@click.option(
    "--source-images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of FITS images of real galaxies, to be lensed and to stand among the non-lenses.",
)
@click.option(
    "--source-half",
    type=click.Choice(["even", "odd"]),
    help="Only half of the images, by the hash of their names: the others stay unseen, for a test.",
)
@click.option(
    "--hosts",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Real pixels that every class is painted on: a RUN of `lenspipe scan` (its hosts go to OUT-hosts, --recipe is "
    "optional), or a data set of stamps.",
)
@click.option(
    "--hosts-half",
    "host_half",
    type=click.Choice(["even", "odd"]),
    help="Only half of a data set's hosts, by the hash of their names: the others stay unseen, for a test.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    default=None,
    help="Write smooth lenses as users of this tool keep them, a folder each, in place of stamps.",
)
@runner_option()
@workers_option("CPUs to use")
@click.option("--resume", is_flag=True, help="Resume the run in --out; --count may be larger now.")
@click.option("--list", "list_recipes", is_flag=True, help="List the shipped recipes and stop.")
def command(
    recipe_name: str | None,
    assignments: tuple[str, ...],
    count: int | None,
    seed: int,
    out: Path | None,
    pixel_scale: float | None,
    survey: str | None,
    source_images: Path | None,
    source_half: Literal["even", "odd"] | None,
    hosts: Path | None,
    host_half: Literal["even", "odd"] | None,
    form: str | None,
    runner: RunnerName,
    workers: int | Workers | None,
    resume: bool,
    list_recipes: bool,
) -> int:
    """
    Simulate labelled stamps of lenses and of what looks like them into a Parquet data set.

    Exit code: 0 done, 2 bad request.
    """
    from lenspipe.simulate.recipe import read_recipe, recipe_names

    if list_recipes:
        for name in recipe_names():
            click.echo(f"{name:<16} {read_recipe(name).description}")
        return 0
    of_run = hosts is not None and (hosts / "run.json").is_file()
    if (recipe_name is None and not of_run) or count is None or out is None:
        raise click.UsageError("--recipe, --count and --out are needed (or --list).")
    if of_run and (pixel_scale is not None or survey is not None or source_images is not None):
        raise click.UsageError("--hosts RUN has a pixel scale and a survey of its own, and takes no --source-images.")
    if of_run and host_half is not None:
        raise click.UsageError("--hosts RUN is split by sky area and takes no --hosts-half.")
    recipe = None
    if recipe_name is not None:
        recipe = read_recipe(recipe_name, changes=assigned(assignments), pixel_scale_arcsec=pixel_scale, survey=survey)

    if form is not None:
        if recipe is None or hosts is not None or source_images is not None:
            raise click.UsageError("--format takes --recipe, and neither --hosts nor --source-images.")
        if source_half is not None or host_half is not None:
            raise click.UsageError("--source-half and --hosts-half go with folders that --format does not take.")
        return _export(recipe, count, seed, out, form, resume)

    from lenspipe.cli.progress import ShownProgress
    from lenspipe.distributed.choice import started
    from lenspipe.distributed.session import on_ray
    from lenspipe.simulate.local import simulate_local
    from lenspipe.simulate.run import simulate
    from lenspipe.simulate.sheet import CONTACT_SHEET

    with ShownProgress("stamp") as progress:
        load = partial(on_ray, _on_ray, n_worker=workers)
        make: Start[Runner] = started(runner, simulate_local, load, workers=workers, say=progress.say)
        if of_run:
            assert hosts is not None
            result = _on_run(hosts, recipe, count, seed, out, resume, progress, make)
        else:
            assert recipe is not None
            result = simulate(
                recipe,
                count=count,
                seed=seed,
                out=out,
                runner=make,
                source_folder=source_images,
                source_half=source_half,
                host_folder=hosts,
                host_half=host_half,
                resume=resume,
                progress=progress,
            )
    click.echo(
        f"{result['rows']} stamps in {result['parts']} parts ({result['new_rows']} new, {result['seconds']:.1f} s): "
        f"{out}, {Path(out) / CONTACT_SHEET}"
    )
    return 0


def _export(recipe: Recipe, count: int, seed: int, out: Path, form: str, resume: bool) -> int:
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.simulate.export.run import export

    with ShownProgress("stamp") as progress:
        new = export(recipe, count=count, seed=seed, out=out, form=form, resume=resume, progress=progress)
    click.echo(f"{count} lenses for {form} ({new} new): {out}")
    return 0


def _on_run(
    run: Path,
    recipe: Recipe | None,
    count: int,
    seed: int,
    out: Path,
    resume: bool,
    progress: Progress,
    make: Start[Runner],
) -> dict[str, Any]:
    from lenspipe.finder.paint import paint_on_run
    from lenspipe.finder.request import Runners

    return paint_on_run(
        run, recipe, count=count, seed=seed, out=out, resume=resume, progress=progress, runners=Runners(simulate=make)
    )


def _on_ray(n_worker: int) -> Runner:
    from lenspipe.distributed.simulate import simulate_ray

    return partial(simulate_ray, n_worker=n_worker)
