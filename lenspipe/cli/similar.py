"""`lenspipe similar`: candidates by likeness to one of them, or to a stamp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lenspipe.cli.options import Command


@click.command(cls=Command)
@click.argument("target", metavar="ID|RA,DEC|STAMP")
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
    "--bands", default=None, metavar="A,B", help="Bands of STAMP in the order of its planes; Parquet names its own."
)
@click.option("--pixel-scale", type=float, default=None, help="Pixel scale of STAMP, arcsec; FITS and Parquet know it.")
@click.option(
    "--zero-point-ab", type=float, default=None, help="AB zero-point of STAMP's pixels. [default: they are nJy]"
)
@click.option("--row", default=None, metavar="ID", help="Stamp of a Parquet file of several: its stamp_id.")
@click.option(
    "--model",
    default=None,
    metavar="DIR",
    help="Where the catalogue's embedding lies now. [default: where the scan read it]",
)
@click.option(
    "--approximate/--exact",
    default=None,
    help="By an index beside the catalogue, which is built where there is none, or by comparing every vector. "
    "[default: exact up to 3 million rows, and where there is no index]",
)
@click.option("--reindex", is_flag=True, help="Build the index anew first.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=None, metavar="FILE", help="Also write a .csv or .parquet."
)
def command(
    target: str,
    catalogue: Path,
    k: int,
    radius: float,
    bands: str | None,
    pixel_scale: float | None,
    zero_point_ab: float | None,
    row: str | None,
    model: str | None,
    approximate: bool | None,
    reindex: bool,
    out: Path | None,
) -> int:
    """
    Rank a catalogue by likeness to a candidate (its identifier, or a position in degrees) or to the stamp of a file.

    STAMP is one stamp without its sky as .npy or .npz (band, y, x), FITS or Parquet; it goes through the model that
    made the catalogue's vectors. Exit code: 0 done, 2 bad request.
    """
    import csv

    from rich.console import Console
    from rich.table import Table

    from lenspipe.catalog.similar import embedder_of, most_similar, vector_at
    from lenspipe.cli import printable
    from lenspipe.disk import locked_beside
    from lenspipe.errors import ConfigError
    from lenspipe.rundir import atomic_path
    from lenspipe.stamps.readers.one import is_stamp_file, read_stamp
    from lenspipe.tables import safe_cell, write_table

    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise ConfigError("the file's name says its form: .csv or .parquet", got=str(out))
    file = Path(target)
    if is_stamp_file(file):
        if not file.is_file():
            raise ConfigError("no such file of a stamp", target=target)
        from lenspipe.infer.embed import embed_stamp

        named, want = embedder_of(catalogue)
        stamp = read_stamp(
            file,
            bands=bands.split(",") if bands else (),
            pixel_scale_arcsec=pixel_scale,
            zero_point_ab=zero_point_ab,
            row=row,
        )
        name, vector = file.name, embed_stamp(stamp, model or named, want)
    else:
        of_stamps = {"--bands": bands, "--pixel-scale": pixel_scale, "--zero-point-ab": zero_point_ab, "--row": row}
        if given := [option for option, value in of_stamps.items() if value is not None]:
            raise ConfigError("these options are about the file of a stamp", given=" ".join(given), target=target)
        name, vector = vector_at(catalogue, target, radius_arcsec=radius)
    facts = _index(catalogue, approximate, reindex)
    if facts is None:
        found = most_similar(catalogue, vector, k)
    else:
        from lenspipe.catalog.index import most_similar_by_index

        found = most_similar_by_index(catalogue, vector, k)
    if out is not None:
        with locked_beside(out), atomic_path(out) as path:
            if out.suffix == ".csv":
                with path.open("w", newline="", encoding="utf-8") as stream:
                    writer = csv.writer(stream)
                    writer.writerow(found.column_names)
                    for cells in zip(*(column.to_pylist() for column in found.columns), strict=True):
                        writer.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in cells])
            else:
                write_table(found, path)
    table = Table(title=f"Most like {printable(name)}", title_justify="left", box=None)
    for column in ("similarity", "candidate_id", "ra", "dec", "score"):
        table.add_column(column, justify="left" if column == "candidate_id" else "right", overflow="fold")
    for one in found.to_pylist():
        score = "" if one["score"] is None else f"{one['score']:.4f}"
        place = f"{one['ra']:.6f}", f"{one['dec']:+.6f}"
        table.add_row(f"{one['similarity']:.4f}", printable(one["candidate_id"]), *place, score)
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    if facts is not None:
        click.echo(
            f"By the index of {facts['made']}: it finds {facts['recall']:.4f} ± {facts['recall_err'] or 0:.4f} of the "
            f"true {facts['recall_of']} nearest ({facts['recall_rows']} rows asked)."
        )
    return 0


def _index(catalogue: Path, approximate: bool | None, reindex: bool) -> dict[str, Any] | None:
    """What is known of the index that answers; None where every vector is compared."""
    from lenspipe.catalog.index import ROWS_EXACT, build_index, facts_of, n_vector
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.errors import ConfigError

    if reindex and approximate is False:
        raise ConfigError("--exact uses no index: leave --reindex out")
    if approximate is False or (approximate is None and not reindex and n_vector(catalogue) <= ROWS_EXACT):
        return None
    facts = None if reindex else facts_of(catalogue)
    if facts is None and (approximate or reindex):
        with ShownProgress("row") as progress:
            progress.stage("index", n_vector(catalogue))
            facts = build_index(catalogue, on_rows=progress.advance)
    elif facts is None:
        click.echo("Every vector is compared; --approximate builds an index, which answers at once.", err=True)
    return facts
