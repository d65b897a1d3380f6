"""
The pages of ``docs/reference``, written by the code that they describe: ``python -m lenspipe.cli.reference``.

`tests/cli/test_cli_reference.py` fails where a page differs from what this writes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from lenspipe.cli import COMMANDS, group
from lenspipe.cli.settings import KINDS, settings_class
from lenspipe.settings.text import reference_page

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
ELSEWHERE = {"sweep": ("base",)}
"""Tables of a settings file that another page has."""
NOTES = {
    "sweep": "`[base]` takes every key of [a training](settings-train.md), such as `[base.optim]`.",
    "recipe": "The shipped recipes are lists of these keys: `lenspipe/simulate/recipes/`.",
    "survey": "The shipped layouts are examples to copy: `lenspipe/survey/layouts/`. On the command line their keys "
    "begin with `survey.`: `--set survey.zero_point.ab=25`.",
}
GENERATED = "This page is generated: `python -m lenspipe.cli.reference`."


def pages() -> dict[str, str]:
    """Text of each page by file name."""
    found = {f"settings-{kind}.md": _settings_page(kind) for kind in KINDS}
    found["commands.md"] = _commands_page()
    found["index.md"] = _index()
    return found


def _settings_page(kind: str) -> str:
    lead = (
        f"Keys of the TOML file of `{KINDS[kind][2]}`, and of `--set KEY=VALUE`. `lenspipe settings {kind}` prints "
        f"them as a file to edit. A key that is not set is left out of the file, or `null` after `--set`. {GENERATED}"
    )
    if kind in NOTES:
        lead += f"\n\n{NOTES[kind]}"
    return reference_page(settings_class(kind), title=f"Settings: {kind}", lead=lead, leave_out=ELSEWHERE.get(kind, ()))


def _commands_page() -> str:
    parts = ["# Commands", f"`lenspipe COMMAND --help` says the same. {GENERATED}"]
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        parts += _command_parts(command, f"lenspipe {name}")
    return "\n\n".join(parts) + "\n"


def _command_parts(command: click.Command, title: str) -> Iterator[str]:
    words = [p.metavar or (p.name or "").upper() for p in command.params if isinstance(p, click.Argument)]
    yield f"## `{' '.join([title, *words])}`"
    yield inspect.cleandoc(command.help or "")
    options = [p for p in command.params if isinstance(p, click.Option)]
    if options:
        yield "\n".join(["| option | meaning |", "|---|---|", *map(_option_row, options)])
    for name, below in getattr(command, "commands", {}).items():
        yield from _command_parts(below, f"{title} {name}")


def _option_row(option: click.Option) -> str:
    names = " / ".join([*option.opts, *option.secondary_opts])
    kind = option.type
    values = "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else option.metavar or kind.name.upper()
    values = "" if option.is_flag else " " + values.split(" ")[0].replace("|", "\\|")
    meaning = (option.help or "").replace("|", "\\|")
    if option.show_default and not option.is_flag:
        meaning = f"{meaning} [default: {option.default}]".strip()
    facts = " (required)" if option.required else " (may be repeated)" if option.multiple else ""
    return f"| `{names}{values}` | {meaning}{facts} |"


def _index() -> str:
    lines = ["# Reference", "Generated from the code, which is what counts.", "- [commands](commands.md)"]
    rows = [f"- [settings: {kind}](settings-{kind}.md), for `{use}`" for kind, (_, _, use) in KINDS.items()]
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join([lines[2], *rows]) + "\n"


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        click.echo(FOLDER / name)


if __name__ == "__main__":
    main()
