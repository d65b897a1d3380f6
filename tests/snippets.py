"""
Snippets of the documentation: the fenced blocks of its pages, in order, and the commands in them.

A block that no test can run has a comment in the line above it that says what it needs::

    <!-- not run: a cluster -->

The commands of such a block are parsed like all others. A settings file has its name there:
``<!-- file: mine.toml -->``.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from lenspipe.cli import group
from lenspipe.cli.options import FolderType

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(
    r"(?:<!-- (?:not run: (?P<needs>[^\n]*?)|file: (?P<file>\S+)) -->\n)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
LANGUAGES = {"sh", "python", "toml", "text", "csv", "{code-cell} ipython3", "{eval-rst}"}
JOBS = ROOT / "jobs"


@dataclass(frozen=True)
class Snippet:
    """A block of a page; what it ``needs`` keeps it from being run."""

    page: str
    line: int
    language: str
    text: str
    needs: str | None
    file: str | None


def pages() -> list[str]:
    """Pages that people read, from the root of the checkout."""
    found = [ROOT / "README.md", ROOT / "cluster/README.md"]
    for kind in ("md", "ipynb"):
        found += sorted((ROOT / "docs").rglob(f"*.{kind}"))
    return [str(path.relative_to(ROOT)) for path in found]


def text_of(page: str) -> str:
    """A page as Markdown; of a notebook its text, and its commands as blocks."""
    path = ROOT / page
    if path.suffix != ".ipynb":
        return path.read_text()
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        commands = "\n".join(line[1:] for line in text.splitlines() if line.startswith("!"))
        parts.append(text if cell["cell_type"] == "markdown" else f"```sh\n{commands}\n```" if commands else "")
    return "\n\n".join(parts)


@functools.cache
def snippets(page: str) -> tuple[Snippet, ...]:
    """Blocks of a page in the order shown."""
    text = text_of(page)
    return tuple(
        Snippet(page, text.count("\n", 0, m.start("text")), m["language"], m["text"], m["needs"], m["file"])
        for m in FENCE.finditer(text)
    )


def words_of(snippet: Snippet) -> Iterator[list[str]]:
    """Words of each command of a block of shell, without comments, pipes and variables."""
    for line in re.sub(r"\\\n\s*", " ", snippet.text).splitlines():
        for part in re.split(r"\s(?:&&|\|)\s", line):
            words = shlex.split(re.sub(r"\s2>\s?\S+", "", part), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*|chrt|--idle|0|nice|-n|19|uv|run", words[0]):
                words.pop(0)
            if words:
                yield words


def program(words: list[str]) -> tuple[click.Command, list[str]] | None:
    """The click command that words call, and the arguments it is given; None where it is not of this project."""
    if words[:3] == ["ray", "job", "submit"]:
        words = words[words.index("--") + 1 :]
    if ">" in words:
        words = words[: words.index(">")]
    words = words[1:] if words[0] == "python" and words[1].endswith(".py") else words
    if words[0] == "lenspipe":
        command, args = group.get_command(click.Context(group), words[1]), words[2:]
        if command is None:
            raise click.UsageError(f"no command {words[1]}")
        if isinstance(command, click.Group) and args:
            return command.commands[args[0]], args[1:]
        return command, args
    if words[0].startswith("jobs/"):
        text = (ROOT / words[0]).read_text()
        if called := re.search(r'main\("(\w+)"', text):
            return program(["lenspipe", called[1], *words[1:]])
        sys.path.insert(0, str(JOBS))
        try:
            return importlib.import_module(Path(words[0]).stem).command, words[1:]
        finally:
            sys.path.remove(str(JOBS))
    if words[:2] == ["python", "-m"] and words[2].startswith(("benchmarks", "lenspipe")):
        module = importlib.import_module(words[2])
        return next(one for one in vars(module).values() if isinstance(one, click.Command)), words[3:]
    return None


def parse(command: click.Command, args: list[str]) -> dict[str, object]:
    """
    Options and arguments as the command's own parser reads them, without a run.

    Raises
    ------
    click.ClickException
        An option is unknown, is missing or has a value that it cannot have. Files need not be there.
    """
    context = click.Context(command, info_name=command.name)
    found, rest, _ = command.make_parser(context).parse_args(list(args))
    values = {name: value for name, value in found.items() if isinstance(value, bool | int | str | list | tuple)}
    if rest:
        raise click.UsageError(f"{rest} is left over")
    for parameter in command.params:
        value = values.get(parameter.name)
        empty = value is None or value in ((), [])
        if parameter.required and empty:
            raise click.MissingParameter(ctx=context, param=parameter)
        if not empty and not isinstance(parameter.type, click.Path | click.File | FolderType):
            parameter.type_cast_value(context, value)
    return values
