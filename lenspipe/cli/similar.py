"""`lenspipe similar`: candidates by likeness to one of them."""

from __future__ import annotations

from pathlib import Path

import click

from lenspipe.cli.options import Command


@click.command(cls=Command)
@click.argument("target", metavar="ID|RA,DEC")
@click.option(
    "--catalog",
    "catalogue",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Catalogue of a scan with --embed.",
)
@click.option(
    "-k", "k", type=click.IntRange(min=1), default=100, show_default=True, help="How many, the most alike first."
)
@click.option("--radius", type=float, default=2.0, show_default=True, help="How far a row may be from RA,DEC, arcsec.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=None, metavar="FILE", help="Also write a .csv or .parquet."
)
def command(target: str, catalogue: Path, k: int, radius: float, out: Path | None) -> int:
    """
    Rank a catalogue by likeness to one candidate: its identifier, or a position in degrees.

    Every vector is compared. Exit code: 0 done, 2 bad request.
    """
    import csv

    from rich.console import Console
    from rich.table import Table

    from lenspipe.catalog.similar import most_similar, vector_at
    from lenspipe.errors import ConfigError
    from lenspipe.rundir import atomic_path
    from lenspipe.tables import safe_cell, write_table

    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise ConfigError("the file's name says its form: .csv or .parquet", got=str(out))
    name, vector = vector_at(catalogue, target, radius_arcsec=radius)
    found = most_similar(catalogue, vector, k)
    if out is not None:
        with atomic_path(out) as path:
            if out.suffix == ".csv":
                with path.open("w", newline="", encoding="utf-8") as stream:
                    writer = csv.writer(stream)
                    writer.writerow(found.column_names)
                    for row in zip(*(column.to_pylist() for column in found.columns), strict=True):
                        writer.writerow([safe_cell(value) if isinstance(value, str) else value for value in row])
            else:
                write_table(found, path)
    table = Table(title=f"Most like {name}", title_justify="left", box=None)
    for column in ("similarity", "candidate_id", "ra", "dec", "score"):
        table.add_column(column, justify="left" if column == "candidate_id" else "right", overflow="fold")
    for row in found.to_pylist():
        score = "" if row["score"] is None else f"{row['score']:.4f}"
        table.add_row(f"{row['similarity']:.4f}", row["candidate_id"], f"{row['ra']:.6f}", f"{row['dec']:+.6f}", score)
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    return 0
