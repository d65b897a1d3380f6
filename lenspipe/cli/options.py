"""Options that commands share: settings from a file, ``--set``, options of their own; and each of them once."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from lenspipe.errors import ConfigError
from lenspipe.runner import Workers
from lenspipe.store.copies import copy_of
from lenspipe.store.place import place_at, shown
from lenspipe.store.urls import is_remote, is_url, local_path
from lenspipe.toml import Table, parse_assignment, put_over, read_toml

if TYPE_CHECKING:
    from lenspipe.stamps.joined import Data

TableT = TypeVar("TableT", bound=Table)
CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def data_option(what: str, *, required: bool = True) -> Callable[[CommandT], CommandT]:
    """
    The option ``--data`` of a command, which may be repeated; parameter ``folders``, read by `data_of`.

    Parameters
    ----------
    what : str
        What it asks for.
    required : bool
        Whether the command cannot do without.
    """
    return click.option(
        "--data",
        "folders",
        multiple=True,
        required=required,
        metavar="FOLDER[:SHARE]",
        help=f"{what}; several are read as one, a share says how much is drawn from it.",
    )


def data_of(folders: Sequence[str]) -> Data:
    """What `data_option` was given; raises `ConfigError` where a folder is not there."""
    from lenspipe.stamps.joined import parse_sources

    data = parse_sources(folders)
    for path in [data] if isinstance(data, str | Path) else [source.path for source in data]:
        if is_remote(path):
            copy_of(str(path))  # which says what is wrong with it
        elif not Path(local_path(str(path)) if is_url(path) else path).is_dir():
            raise ConfigError("no such folder of stamps", data=str(path))
    return data


class WorkersType(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click
    """``8``, or ``0:64`` of a cluster that grows."""

    name = "workers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Workers:
        """A number of workers, or the least and the most of them."""
        if isinstance(value, int | Workers):
            return value
        least, colon, most = str(value).partition(":")
        try:
            found = Workers(int(least or 0), int(most)) if colon else int(least)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor LEAST:MOST", param, ctx)
        first, last = found if isinstance(found, Workers) else (found, found)
        if last < 1 or not 0 <= first <= last:
            self.fail(f"{value!r}: at least one, and LEAST not above MOST", param, ctx)
        return found


def workers_option(what: str) -> Callable[[CommandT], CommandT]:
    """
    The option ``--workers`` of a command that may run on a cluster; `int`, `Workers` or None.

    Parameters
    ----------
    what : str
        What they are for.
    """
    return click.option(
        "--workers",
        type=WorkersType(),
        default=None,
        metavar="N|LEAST:MOST",
        help=f"{what}; LEAST:MOST on a cluster that grows with the work. [default: all]",
    )


def gpus_options(command: CommandT) -> CommandT:
    """The options ``--gpus`` and ``--scorers-per-gpu`` of a command that scores with Ray."""
    shared = click.option(
        "--scorers-per-gpu",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Processes that share a GPU, each with all models.",
    )
    asked = click.option(
        "--gpus",
        type=WorkersType(),
        default=None,
        metavar="N|LEAST:MOST",
        help="GPUs that score, there when the scan begins or not; LEAST:MOST on a cluster that grows with the work. "
        "One must come in the end, even of 0:MOST. [default: those there when it begins]",
    )
    return asked(shared(command))


def runner_option(default: str = "auto") -> Callable[[CommandT], CommandT]:
    """
    The option ``--runner`` of a command that runs in the plain loop or with Ray.

    Parameters
    ----------
    default : str
        ``auto``, or the plain loop of a command that is usually short. The scripts in ``jobs/`` take Ray by default.
    """
    return click.option(
        "--runner",
        type=click.Choice(["auto", "ray", "local"]),
        default=default,
        show_default=True,
        help="Ray, the plain loop, or Ray only where a cluster is named (RAY_ADDRESS) or it saves time.",
    )


class FolderType(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click
    """
    A folder of this machine, or one of an object store by its URL; the command gets a path in either case.

    Parameters
    ----------
    writes : bool
        Whether the command writes there.
    exists : bool
        Refuse a local folder that is not there.
    """

    name = "path"

    def __init__(self, *, writes: bool, exists: bool = False) -> None:
        self.writes = writes
        self._local = click.Path(path_type=Path, exists=exists, file_okay=not exists)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A path, or a URL that `Command` makes a path of when it begins."""
        if is_remote(value):
            return str(value)
        return self._local.convert(local_path(value) if is_url(value) else value, param, ctx)


OUT_FOLDER, RUN_FOLDER = FolderType(writes=True), FolderType(writes=False)
"""A folder that a command writes, and one that it reads."""


@contextlib.contextmanager
def opened(url: str, *, writes: bool) -> Iterator[Path]:
    """A folder here that stands for one in a store; what is printed says the URL."""
    with place_at(url, writes=writes) as folder, contextlib.redirect_stdout(_Said(sys.stdout)):
        yield folder


class _Said:
    """Standard output, in which URLs stand for the folders that stand for them."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(shown(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Command(click.Command):
    """
    A command that refuses an option which is given twice and can hold one value only; click takes the last one.

    Folders in object stores (`FolderType`) are taken when it begins, and put back when it ends. Every command of
    lenspipe is one: ``@click.command(cls=Command)``.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Carry out the command, with a folder of this machine for each one in a store."""
        with contextlib.ExitStack() as stack:
            for parameter in self.params:
                name, kind = parameter.name or "", parameter.type
                if isinstance(kind, FolderType) and is_remote(url := ctx.params.get(name) or ""):
                    ctx.params[name] = stack.enter_context(opened(str(url), writes=kind.writes))
            return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse what is given twice, then parse as click does."""
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        once = [one for one in given if isinstance(one, click.Option) and not one.multiple and not one.count]
        if twice := next((one for one in once if once.count(one) > 1), None):
            said = " or ".join((*twice.opts, *twice.secondary_opts))
            raise click.UsageError(f"{said} is given {once.count(twice)} times, and may be given once.", ctx)
        return super().parse_args(ctx, args)


class Group(click.Group):
    """A group whose commands are `Command`."""

    command_class = Command


def set_option(example: str, *, settings: str) -> Callable[[CommandT], CommandT]:
    """
    The option ``--set KEY=VALUE`` of a command, parameter ``assignments``.

    Parameters
    ----------
    example : str
        A setting that somebody may want to change.
    settings : str
        The word after ``lenspipe settings`` that lists the keys.
    """
    return click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help=f"Put a setting over the file's, as TOML: --set {example} (keys: `lenspipe settings {settings}`).",
    )


def assigned(assignments: Sequence[str]) -> dict[str, Any]:
    """Values of ``--set`` by dotted key; the last of two counts."""
    return dict(map(parse_assignment, assignments))


def settings_of(
    table: type[TableT], file: str | None, assignments: Sequence[str], options: Mapping[str, Any] | None = None
) -> TableT:
    """
    Settings: the file's, or the defaults; over them those of ``--set``; over them a command's own options.

    Parameters
    ----------
    table : type of Table
    file : str or None
        TOML file.
    assignments : sequence of str
        ``KEY=VALUE``.
    options : mapping
        Options by dotted key; None stands for one that was not given.

    Raises
    ------
    ConfigError
        A key is unknown (the nearest known one is named) or a value is not allowed.
    """
    settings = put_over(read_toml(file, table) if file else table(), assigned(assignments), origin="--set")
    given = {key: value for key, value in (options or {}).items() if value is not None}
    return put_over(settings, given, origin="command line")


def for_survey(assignments: Sequence[str]) -> tuple[list[str], list[str]]:
    """
    Assignments that are not about the survey's layout, and those that are, without their leading ``survey.``.

    Examples
    --------
    >>> for_survey(["detect.threshold_sigma=2", "survey.zero_point.ab=25"])
    (['detect.threshold_sigma=2'], ['zero_point.ab=25'])
    """
    others = [text for text in assignments if not text.lstrip().startswith("survey.")]
    return others, [text.lstrip().removeprefix("survey.") for text in assignments if text not in others]
