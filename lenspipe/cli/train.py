"""`lenspipe train`: a network from a data set of labelled stamps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lenspipe.cli import complete
from lenspipe.cli.options import OUT_FOLDER, Command, data_of, data_option, runner_option, set_option, settings_of
from lenspipe.errors import ConfigError
from lenspipe.learn.adapt import ADAPTATIONS
from lenspipe.learn.objectives import METHODS, method_names

if TYPE_CHECKING:
    from lenspipe.learn.boards import MLflow, TensorBoard
    from lenspipe.learn.settings import TrainSettings
    from lenspipe.learn.train import Runner
    from lenspipe.nn.card import ModelCard
    from lenspipe.runner import Progress, RunnerName, Start
    from lenspipe.stamps.joined import Data


@click.command(cls=Command)
@data_option("Data set of stamps with splits, or the folder of a scan (or [[data]] in the settings)", required=False)
@click.option(
    "--model",
    shell_complete=complete.families,
    default=None,
    metavar="NAME",
    help="Network family (`lenspipe models`), or timm:NAME; what builds on --pretrained has its network.",
)
@click.option("--task", type=click.Choice(list(METHODS)), default=next(iter(METHODS)), show_default=True)
@click.option(
    "--method",
    type=click.Choice(method_names()),
    default=None,
    help="How the task is learnt. [default: the task's first, or the one that the family is named after]",
)
@click.option(
    "--adapt",
    type=click.Choice(list(ADAPTATIONS)),
    default=None,
    help="Method that adapts to --target, for --task find and classify.",
)
@click.option("--target", default=None, metavar="FOLDER", help="Stamps of the survey to adapt to; needs no labels.")
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder of the model.")
@click.option("--config", "config_file", default=None, metavar="FILE", help="Settings (`lenspipe settings train`).")
@set_option("optim.weight_decay=0.1", settings="train")
@click.option("--epochs", type=click.IntRange(min=1), default=None, help="Epochs. [default: 20]")
@click.option("--batch-size", type=click.IntRange(min=2), default=None, help="Stamps per step. [default: 64]")
@click.option("--learning-rate", type=float, default=None, help="Peak learning rate. [default: 0.001]")
@click.option(
    "--targets",
    default=None,
    metavar="A,B",
    help="Columns to predict, or that can be asked for: --task regress, generate.",
)
@click.option("--normal", default=None, metavar="A,B", help="Labels that are not anomalies, for --task anomaly.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same weights."
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Ray workers.")
@runner_option()
@click.option(
    "--pretrained", default=None, metavar="FOLDER|FILE", help="Model to begin from or to build on, or its weights."
)
@click.option("--tensorboard", is_flag=True, help="Write OUT/.tensorboard too (lenspipe[tensorboard]).")
@click.option(
    "--mlflow", "tracking", default=None, metavar="URI", help="Follow the training in MLflow too (lenspipe[mlflow])."
)
def command(
    folders: tuple[str, ...],
    model: str | None,
    task: str,
    method: str | None,
    adapt: str | None,
    target: str | None,
    out: Path,
    config_file: str | None,
    assignments: tuple[str, ...],
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    targets: str | None,
    normal: str | None,
    seed: int,
    workers: int,
    runner: RunnerName,
    pretrained: str | None,
    tensorboard: bool,
    tracking: str | None,
) -> int:
    """
    Train a network on a data set of labelled stamps.

    Killed at any moment, the same command resumes after the last whole epoch. Exit code: 0 done, 2 bad request.
    """
    from lenspipe.learn.train import said

    if adapt and method and adapt != method:
        raise ConfigError("--adapt is the method: leave --method out", adapt=adapt, method=method)
    settings = read_settings(
        config_file, assignments, epochs, batch_size, learning_rate, targets, adapt or method, normal, target
    )
    data = data_of(folders) if folders else sources_of(settings)

    from lenspipe.cli.progress import ShownProgress
    from lenspipe.learn.train import train

    start = _start(runner, workers)
    asked = {"model": model, "task": task, "seed": seed, **settings.model_dump(mode="json")}
    with _boards(out, asked, tensorboard=tensorboard, tracking=tracking) as boards, ShownProgress("step") as progress:
        data = stamps_of(data, settings, pretrained, progress)
        card = train(
            data,
            model=model,
            task=task,
            out=out,
            settings=settings,
            seed=seed,
            runner=start,
            n_worker=workers,
            pretrained=pretrained,
            progress=progress,
            on_step=boards if boards.there else None,
        )
        boards.card = card
    click.echo(f"{card.name}: {said(card.metrics['validation'])}; {out}")
    if judged := card.metrics.get("adaptation", {}).get("said"):
        click.echo(f"{card.metrics['adaptation']['method']}: {judged}")
    return 0


def sources_of(settings: TrainSettings) -> Data:
    """Data sets of a settings file; raises `ConfigError` where it names none."""
    from lenspipe.stamps.joined import Source

    if not settings.data:
        raise ConfigError("say what to train on: --data FOLDER, or [[data]] in the settings")
    return tuple(Source(one.path, one.share, one.labels, one.survey) for one in settings.data)


def stamps_of(data: Data, settings: TrainSettings, pretrained: str | None, progress: Progress) -> Data:
    """
    Data sets, with the stamps of a scan's candidates in the place of its folder.

    Raises
    ------
    ConfigError
        Neither the settings nor the model that is built on say how wide the stamps are.
    """
    from dataclasses import replace

    from lenspipe.nn.card import CARD_FILE, read_card
    from lenspipe.scan.after.stamps import is_run, stamps_of_run

    def found(path: str | Path) -> str:
        if not is_run(path):
            return str(path)
        size = settings.input.stamp_px
        if size is None and pretrained is not None and (Path(pretrained) / CARD_FILE).is_file():
            size = read_card(Path(pretrained)).stamp_px
        if size is None:
            raise ConfigError("say how wide the stamps of the scan are to be: --set input.stamp_px=65", run=str(path))
        return str(stamps_of_run(Path(path), size_px=size, progress=progress))

    if isinstance(data, str | Path):
        return found(data)
    return tuple(replace(source, path=found(source.path)) for source in data)


def read_settings(
    file: str | None,
    assignments: Sequence[str] = (),
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    targets: str | None = None,
    method: str | None = None,
    normal: str | None = None,
    target: str | None = None,
) -> TrainSettings:
    """Settings of a file, with what the command line says put over them."""
    from lenspipe.learn.settings import TrainSettings

    options = {
        "method": method,
        "adapt.target": target,
        "optim.epochs": epochs,
        "sampling.batch_size": batch_size,
        "optim.learning_rate": learning_rate,
        "labels.targets": None if targets is None else tuple(name.strip() for name in targets.split(",")),
        "labels.normal": None if normal is None else tuple(name.strip() for name in normal.split(",")),
    }
    return settings_of(TrainSettings, file, assignments, options)


def _start(name: RunnerName, workers: int) -> Start[Runner]:
    """
    The runner that is asked for, with workers that this machine or the cluster can have.

    ``auto`` takes Ray where a cluster is named or several workers are: a single one trains no faster with it.
    """
    from lenspipe.distributed.choice import is_cluster_named
    from lenspipe.distributed.session import on_ray
    from lenspipe.learn import local
    from lenspipe.runner import here

    if name == "local" or (name == "auto" and workers == 1 and not is_cluster_named()):
        local.refuse_workers(workers)
        return here(local.train_local)
    from lenspipe.distributed.train import refuse_workers

    refuse_workers(workers)
    return on_ray(_on_ray, keep_idle=True)


def _on_ray(n_cpu: int) -> Runner:
    from lenspipe.distributed.train import train_ray

    return train_ray


class _Boards:
    """Boards that are told what the training tells."""

    def __init__(self, there: Sequence[TensorBoard | MLflow]) -> None:
        self.there = there
        self.card: ModelCard | None = None

    def __call__(self, epoch: int, step: int, history: list[dict[str, Any]]) -> None:
        for board in self.there:
            board(epoch, step, history)


@contextlib.contextmanager
def _boards(out: Path, asked: dict[str, Any], *, tensorboard: bool, tracking: str | None) -> Iterator[_Boards]:
    """The boards that are asked for, closed whether the training ends well or not."""
    from lenspipe.learn.boards import MLflow, TensorBoard

    chosen: list[TensorBoard | MLflow] = [TensorBoard(out)] if tensorboard else []
    if tracking:
        chosen.append(MLflow(out, tracking, asked))
    boards = _Boards(chosen)
    try:
        yield boards
    finally:
        for board in chosen:
            board.close(boards.card)
