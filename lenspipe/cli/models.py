"""`lenspipe models`: the network families and the models that ship with the package."""

from __future__ import annotations

import inspect
import sys

import click

from lenspipe.cli.options import Command


@click.command("models", cls=Command)
def command() -> None:
    """List the network families with their parameters and input, and the models that ship with the package."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from lenspipe.nn.card import SHIPPED, digest, read_card, shipped_models
    from lenspipe.nn.registry import TIMM, family_facts

    wide = None if sys.stdout.isatty() else 120
    console = Console(width=wide, highlight=False)
    shown = Table("family", "parameters", "at input", "what it is", box=box.SIMPLE, title="Network families")
    shown.columns[0].no_wrap = True
    for name, family in family_facts().items():
        size = "any" if family.by_settings else f"{family.n_channel} x {family.stamp_px} px"
        count = "by settings" if family.by_settings else f"{family.n_parameter:,}"
        shown.add_row(name, count, size, (inspect.getdoc(family.builder) or "").partition("\n")[0])
    shown.add_row(
        f"{TIMM}NAME", "", "any", "Any model of the timm library: ViT, Swin, ResNet, EfficientNet, ConvNeXt, ..."
    )
    console.print(shown)
    shown = Table(title="Shipped models", box=box.SIMPLE)
    for heading in ("model", "family", "bands", "input", "data it takes", "digest"):
        shown.add_column(heading)
    for name in shipped_models():
        card = read_card(SHIPPED / name)
        shown.add_row(
            name,
            card.family,
            " ".join(card.bands),
            f'{card.stamp_px} px at {card.pixel_scale_arcsec:g}"',
            f'{card.min_scale_arcsec:g}" to {card.max_scale_arcsec:g}" pixels',
            digest(SHIPPED / name),
        )
    console.print(shown)
    console.print("Parameters are those of default settings and one output; families take other inputs too.")
    console.print("A model's card says how it was trained and measured: `card.json` in " + str(SHIPPED) + "/NAME")
