"""`lenspipe export`: a model in the form that other programs run."""

from __future__ import annotations

from pathlib import Path

import click

from lenspipe.cli.options import Command


@click.command(cls=Command)
@click.argument("model", metavar="MODEL")
@click.option("--format", "form", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="Form to write.")
@click.option("--out", type=click.Path(path_type=Path), default=None, metavar="FILE", help="[default: NAME.onnx]")
def command(model: str, form: str, out: Path | None) -> int:
    """
    Write MODEL (a shipped name or a folder) as one FILE that needs neither lenspipe nor torch to run.

    The file holds the network and, in its metadata, the card, which says how stamps are prepared for it. Before it is
    written it is run beside torch on random stamps and must give the same numbers. Needs lenspipe[onnx].

    Exit code: 0 done, 2 bad request.
    """
    from lenspipe.disk import locked_beside
    from lenspipe.infer.engine import N_CHECKED, OnnxSession, demand_onnx
    from lenspipe.nn.card import digest, find_model
    from lenspipe.nn.checkpoint import load_model
    from lenspipe.nn.committee import is_committee
    from lenspipe.rundir import atomic_path

    if is_committee(model):
        from lenspipe.errors import ConfigError

        raise ConfigError("a committee has a network per member: export its members, one by one", got=model)
    demand_onnx()
    folder = find_model(model)
    module, card = load_model(folder)
    name = digest(folder)
    out = out or Path(f"{card.name}.{form}")
    out.parent.mkdir(parents=True, exist_ok=True)
    session = OnnxSession(module, card, digest=name)
    with locked_beside(out), atomic_path(out) as temporary:
        temporary.write_bytes(session.raw)
    click.echo(f"{out}  {len(session.raw) / 1e6:.1f} MB, of {card.name} ({name})")
    for item, shape in session.shapes():
        click.echo(f"  {item} {shape}")
    click.echo(f"Against torch on {N_CHECKED} random stamps: largest difference {session.difference:.1e}")
    return 0
