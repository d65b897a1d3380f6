"""Options that several commands share: settings from a file, ``--set``, and options of their own, in this order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lenspipe.errors import ConfigError
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
