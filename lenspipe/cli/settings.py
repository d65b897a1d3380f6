"""`lenspipe settings`: a commented settings file with every key."""

from __future__ import annotations

import importlib

import click

from lenspipe.cli.options import Command
from lenspipe.toml import Table

KINDS = {
    "scan": ("lenspipe.scan.config", "ScanConfig", "lenspipe scan --config FILE"),
    "train": ("lenspipe.learn.settings", "TrainSettings", "lenspipe train --config FILE"),
    "sweep": ("lenspipe.learn.sweep.space", "SweepSpace", "lenspipe sweep --space FILE"),
    "recipe": ("lenspipe.simulate.recipe", "Recipe", "lenspipe simulate --recipe FILE"),
    "finder": ("lenspipe.finder.settings", "FinderSettings", "lenspipe finder --config FILE"),
    "survey": ("lenspipe.survey.layout", "SurveyLayout", "lenspipe scan --survey FILE"),
    "completeness": ("lenspipe.completeness.config", "CompletenessConfig", "lenspipe completeness RUN --config FILE"),
    "catalog": ("lenspipe.scan.config", "CatalogSettings", "lenspipe catalog --config FILE"),
}
"""Module and class of a settings file, and where it is used."""


def settings_class(kind: str) -> type[Table]:
    """The class of a kind of settings file."""
    module, name, _ = KINDS[kind]
    found: type[Table] = getattr(importlib.import_module(module), name)
    return found


@click.command(cls=Command)
@click.argument("kind", type=click.Choice(list(KINDS)))
def command(kind: str) -> int:
    """
    Print a settings file with every key: default, unit, choices and meaning.

    It holds the defaults; what has none is commented out. Keep what you change and delete the rest.
    """
    from lenspipe.settings.text import commented_toml

    click.echo(f"# Settings for `{KINDS[kind][2]}`, or one by one: --set KEY=VALUE.\n")
    click.echo(commented_toml(settings_class(kind)), nl=False)
    return 0
