"""`lenspipe finder`: a survey teaches its own finder."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lenspipe.cli import complete
from lenspipe.cli.options import (
    OUT_FOLDER,
    Command,
    assigned,
    for_survey,
    runner_option,
    set_option,
    settings_of,
    workers_option,
)
from lenspipe.errors import ConfigError
from lenspipe.runner import Workers
from lenspipe.toml import put_over

if TYPE_CHECKING:
    from lenspipe.finder.request import Runners
    from lenspipe.runner import RunnerName, RunnerT, Start

STEPS = ("scan", "sources", "hosts", "stamps", "train", "page")


@click.command(cls=Command)
@click.argument("tiles", nargs=-1, required=True, metavar="RUN|TILES...")
@click.option(
    "--survey",
    shell_complete=complete.surveys,
    default=None,
    metavar="NAME|FILE",
    help="Survey layout of TILES; a run has its own. [default: generic]",
)
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder of the finder.")
@click.option("--bands", default=None, metavar="A,B", help="Bands of the finder. [default: the optical ones]")
@click.option(
    "--model", "families", multiple=True, metavar="NAME", help="Network family of fresh weights. [default: small-cnn]"
)
@click.option(
    "--members", type=click.IntRange(min=1), default=1, show_default=True, help="Networks of a committee; 1 is none."
)
@click.option("--pretrained", default=None, metavar="NAME|DIR", help="Finder or committee whose weights to begin from.")
@click.option(
    "--replace-band", "replaced", multiple=True, metavar="I=Z", help="Let the survey's band Z stand in for its band I."
)
@click.option(
    "--grades",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Graded candidates: files of the page, a CSV with ra, dec, grade, or a folder of labelled stamps. "
    "Other grades than the last round's make another round.",
)
@click.option(
    "--match",
    "lists",
    multiple=True,
    metavar="FILE",
    help="Known lenses or contaminants, which are neither hosts nor negatives; 'none' for no list. [default: lenscat]",
)
@click.option("--until", type=click.Choice(STEPS), default=STEPS[-1], show_default=True, help="Last step to take.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of areas, stamps and weights.")
@runner_option()
@workers_option("CPUs to use")
@click.option("--config", "config_file", default=None, metavar="FILE", help="Settings (`lenspipe settings finder`).")
@set_option("stamps.count=30000 or train.optim.epochs=20", settings="finder")
def command(
    tiles: tuple[str, ...],
    survey: str | None,
    out: Path,
    bands: str | None,
    families: tuple[str, ...],
    members: int,
    pretrained: str | None,
    replaced: tuple[str, ...],
    grades: tuple[Path, ...],
    lists: tuple[str, ...],
    until: str,
    seed: int,
    runner: RunnerName,
    workers: int | Workers | None,
    config_file: str | None,
    assignments: tuple[str, ...],
) -> int:
    """
    Make a calibrated finder of a survey from its own pixels: a RUN of `lenspipe scan`, or TILES that are scanned first.

    Hosts and negatives are chosen from the run's own sources, arcs and look-alikes painted on them, a network trained
    and calibrated; the folder is what `lenspipe scan --model` takes. Killed at any moment, the same command resumes.
    Exit code: 0 done, 2 bad request.
    """
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.finder.request import FinderRequest
    from lenspipe.finder.run import make_finder
    from lenspipe.finder.settings import FinderSettings
    from lenspipe.report.page import with_interval
    from lenspipe.rundir import REQUEST
    from lenspipe.survey.layout import read_layout

    own, about_survey = for_survey(assignments)
    layout = put_over(read_layout(survey or "generic"), assigned(about_survey), origin="--set survey")
    request = FinderRequest(
        tuple(t if "://" in t else os.path.abspath(os.path.expanduser(t)) for t in tiles),
        layout,
        settings_of(FinderSettings, config_file, own),
        bands=tuple(name.strip() for name in bands.split(",")) if bands else (),
        families=families,
        n_member=max(members, len(families)),
        pretrained=pretrained,
        replaced=dict(_pair(text) for text in replaced),
        lists=() if lists == ("none",) else lists or ("lenscat",),
        grades=tuple(path.absolute() for path in grades),
        seed=seed,
    )
    # a folder that was begun with them, when they were not heard, is taken up as it was
    if request.is_run and (survey or about_survey) and not (out / REQUEST).exists():
        raise ConfigError(
            "--survey and --set survey.KEY are for TILES; a RUN has the layout that it was scanned with",
            run=request.tiles[0],
        )
    with ShownProgress("unit") as progress:
        result = make_finder(
            request, out, progress=progress, runners=_runners(runner, workers, progress.say), until=until
        )
    for one in result.record.get("rounds", []):
        test = one["test"]
        graded = test.get("graded")
        click.echo(
            f"Round {one['round']}: painted arcs against all else on held-out sky, AUC "
            f"{with_interval(test['painted']['auc'], test['painted']['interval95'])}"
            + (f"; graded {with_interval(graded['auc'], graded['interval95'])}" if graded and graded["auc"] else "")
        )
    for key, what in (("failures", "read"), ("uncut", "cut into stamps")):
        if failures := result.record.get(key):
            click.echo(f"Shards that could not be {what}: {len(failures)}")
    if until in ("train", "page"):
        click.echo(f"{result.folder}  scan with it: lenspipe scan TILES --model {result.folder}")
    else:
        click.echo(f"{result.folder}  done until {until}")
    return 0


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise ConfigError("--replace-band is written BAND=BAND, the finder's first, such as i=z", got=text)
    return old, new


def _runners(name: RunnerName, workers: int | Workers | None, say: Callable[[str], None]) -> Runners:
    from lenspipe.finder.request import Runners

    if name == "local":
        return Runners()
    from lenspipe.catalog.executor import Here
    from lenspipe.distributed.choice import is_cluster_named, started
    from lenspipe.distributed.session import on_ray
    from lenspipe.learn.train import PLAIN
    from lenspipe.scan.local import scan_local
    from lenspipe.simulate.local import simulate_local

    def of(local: RunnerT, load: Callable[[int], RunnerT]) -> Start[RunnerT]:
        return started(name, local, partial(on_ray, load, n_worker=workers), workers=workers, say=say)

    alone = name == "auto" and not is_cluster_named()  # one worker trains no faster with Ray
    return Runners(
        scan=of(scan_local, partial(_scan, say)),
        executor=of(Here(), _tasks),
        simulate=of(simulate_local, _simulate),
        train=PLAIN if alone else on_ray(_train, n_worker=workers, keep_idle=True),
        n_worker=1,
    )


def _scan(say: Callable[[str], None], n_worker: int) -> Any:
    from lenspipe.distributed.scan import scan_ray

    return partial(scan_ray, n_worker=n_worker, say=say)


def _tasks(n_worker: int) -> Any:
    from lenspipe.distributed.catalog import RayTasks

    return RayTasks(n_worker)


def _simulate(n_worker: int) -> Any:
    from lenspipe.distributed.simulate import simulate_ray

    return partial(simulate_ray, n_worker=n_worker)


def _train(n_worker: int) -> Any:
    from lenspipe.distributed.train import train_ray

    return train_ray
