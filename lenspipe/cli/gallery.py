"""`lenspipe gallery`: a page to look at the candidates of a run or a catalogue and grade them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenspipe.cli.options import OUT_FOLDER, Command

if TYPE_CHECKING:
    from lenspipe.catalog.gallery.likeness import MapMethod


@click.command(cls=Command)
@click.argument("catalogue", metavar="RUN|CATALOGUE", type=OUT_FOLDER)
@click.option("--count", type=int, default=10_000, show_default=True, help="The best so many candidates.")
@click.option("--stamp-px", type=int, default=64, show_default=True, help="Side of a stamp on the page, pixels.")
@click.option("--stamp-arcsec", type=float, default=12.0, show_default=True, help="Side of a stamp on the sky.")
@click.option(
    "--queue",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Of these only the N to look at next, in that order: half the best, a quarter where grades part, a quarter "
    "unlike what was graded before.",
)
@click.option(
    "--grades",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="Grade files of earlier rounds, for --queue; give each once.",
)
@click.option(
    "--map",
    "map_method",
    type=click.Choice(["auto", "tsne", "pca"]),
    default="auto",
    show_default=True,
    help="Map of a catalogue with vectors; auto: t-SNE where lenspipe[map] is installed, else principal components.",
)
def command(
    catalogue: Path,
    count: int,
    stamp_px: int,
    stamp_arcsec: float,
    queue: int | None,
    grades: tuple[str, ...],
    map_method: MapMethod,
) -> int:
    """
    Write gallery/index.html into a CATALOGUE, or into that of a RUN; it opens from disk, without a server or a network.

    Exit code: 0 done, 2 bad request, 3 done, but some tiles could not be opened.
    """
    from lenspipe.catalog.gallery.write import write_gallery
    from lenspipe.cli import printable
    from lenspipe.errors import ConfigError
    from lenspipe.scan.after.catalog import catalogue_of

    if grades and queue is None:
        raise ConfigError("--grades is about the queue: give --queue N too")
    result = write_gallery(
        catalogue_of(catalogue.absolute()),
        count=count,
        stamp_px=stamp_px,
        stamp_arcsec=stamp_arcsec,
        queue=queue,
        grades=grades,
        map_method=map_method,
    )
    click.echo(f"{result.index}  {result.n_row} candidates, {result.n_stamp} with a stamp")
    for tile, reason in sorted(result.reasons.items()):
        click.echo(printable(f"no stamps of tile {tile}: {reason}"), err=True)
    return 3 if result.reasons else 0
