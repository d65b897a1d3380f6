"""`lenspipe explain`: scan and score one candidate again, and show that it comes back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenspipe.cli.options import RUN_FOLDER, Command, opened

if TYPE_CHECKING:
    from lenspipe.catalog.run_rows import Run


@click.command(cls=Command)
@click.argument("candidate_id")
@click.option("--run", "folder", type=RUN_FOLDER, required=True, help="Run folder, or a catalogue.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Picture. [default: CANDIDATE_ID.png]")
@click.option("--json", "as_json", is_flag=True, help="Print the whole comparison as JSON.")
def command(candidate_id: str, folder: Path, out: Path | None, as_json: bool) -> int:
    """
    Open the tile of CANDIDATE_ID again, detect, measure, cut and score, and compare with what is stored.

    Exit code: 0 every value came back bit for bit, 2 bad request, 3 something differs.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from lenspipe.disk import locked_beside
    from lenspipe.scan.after.explain import draw, explain, to_json

    found = explain(_run_of(folder, candidate_id), candidate_id)
    if as_json:
        click.echo(to_json(found))
        return 0 if found.same else 3
    out = out or Path(f"{candidate_id}.png")
    with locked_beside(out):
        draw(found, out)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    table = Table("", "stored", "again", title=candidate_id, title_justify="left", box=box.SIMPLE)
    for name in dict.fromkeys(("ra", "dec", "score", *found.differs)):
        again = "–" if found.again is None else repr(found.again[name])
        table.add_row(name, repr(found.stored[name]), again)
    console.print(table)
    if found.again is None:
        console.print("The shard does not show this candidate any more.")
    elif found.same:
        console.print(f"All {len(found.again)} values came back bit for bit.")
    else:
        console.print(f"{len(found.differs)} of {len(found.again)} values differ.")
    if found.engine:
        console.print(f"Scored with {found.engine}.")
    for line in found.changed:
        console.print(f"Changed since the run: {line}", soft_wrap=True)
    console.print(f"{out}  picture", soft_wrap=True)
    return 0 if found.same else 3


def _run_of(folder: Path, candidate_id: str) -> Run:
    """The run itself, or the one of a catalogue that the candidate is from."""
    from lenspipe.catalog import folder as names
    from lenspipe.catalog.read import runs_of_candidate
    from lenspipe.catalog.records import catalog_record, run_of
    from lenspipe.catalog.run_rows import open_run_folder
    from lenspipe.errors import ConfigError
    from lenspipe.store.urls import is_remote

    if not (folder / names.PROVENANCE).exists():
        return open_run_folder(folder)
    runs = runs_of_candidate(folder, candidate_id)
    if len(runs) != 1:
        reason = (
            "the catalogue has no such candidate" if not runs else "several runs have it; name one of them by --run"
        )
        raise ConfigError(reason, candidate_id=candidate_id, runs=" ".join(runs))
    known = run_of(catalog_record(folder / names.PROVENANCE), runs[0], folder)
    home = known["folder"]
    if is_remote(home):
        return open_run_folder(click.get_current_context().with_resource(opened(home, writes=False)))
    return open_run_folder(Path(home))
