"""Options that commands share: settings from a file, ``--set``, options of their own; and each of them once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lenspipe.errors import ConfigError
from lenspipe.runner import Workers
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
        if not Path(path).is_dir():
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
        "[default: those there when it begins]",
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


class Command(click.Command):
    """
    A command that refuses an option which is given twice and can hold one value only; click takes the last one.

    Every command of lenspipe is one: ``@click.command(cls=Command)``.
    """

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
