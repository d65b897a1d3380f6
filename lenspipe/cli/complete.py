"""Names that a shell completes: surveys, recipes, finders, network families. Nothing heavy is imported for them."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _files(package: str, folder: str, ending: str) -> Complete:
    def complete(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
        there = importlib.resources.files(package).joinpath(folder).iterdir()
        names = (one.name.removesuffix(ending) for one in there if one.name.endswith(ending) or one.is_dir())
        known = sorted(name for name in names if name.startswith(begun) and not name.startswith("_"))
        return [CompletionItem(name) for name in known] or [CompletionItem(begun, type="file")]

    return complete


surveys = _files("lenspipe.survey", "layouts", ".toml")
recipes = _files("lenspipe.simulate", "recipes", ".toml")
models = _files("lenspipe", "weights", "/")


def families(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """Network families, which only their modules know: torch is imported, so this takes some seconds."""
    from lenspipe.nn.registry import families as known

    return [name for name in known() if name.startswith(begun)]
