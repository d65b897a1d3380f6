"""
Stamps of each class beside what their fits leave and the maps of point masses.

    python -m benchmarks.studies.dark_matter.sheet --work FOLDER

Takes the set that `fitted.py --masses` makes: of each class the stamps whose substructure is at quartiles of
signal-to-noise, of the class without any one source of the fewest and one of the most clumps. Draws
`docs/img/dark_matter_maps.png`.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.studies.dark_matter.figures import IMAGES, SHORT, picture
from lenspipe.report.picture import write_png
from lenspipe.stamps.format import StampSet

COLUMNS = (
    ("stamp, root", None, "gray"),
    ("left, sigma", 4.0, "RdBu_r"),
    ("point mass, sigma", 8.0, "RdBu_r"),
    ("log odds, small mass", 5.0, "RdBu_r"),
    ("log odds, large mass", 15.0, "RdBu_r"),
)
"""Title of each band, value at the end of its colours, and colours."""


def chosen(data: StampSet) -> list[tuple[str, int]]:
    """A title and a row for each stamp that is shown."""
    label, snr = data.column("label"), data.column("perturbation_snr").astype(float)
    found: list[tuple[str, int]] = []
    for name, short in SHORT.items():
        rows = np.flatnonzero(label == name)
        value = data.column("source_n_clump").astype(float)[rows] if short == "none" else snr[rows]
        parts = (0.0, 1.0) if short == "none" else (0.25, 0.5, 0.75)
        for q in parts:
            best = int(np.argmin(np.abs(value - np.quantile(value, q))))
            said = f"{value[best]:.0f} clumps" if short == "none" else f"S/N {value[best]:.0f}"
            found.append((f"{short}\n{said}", int(rows[best])))
    return found


def draw(images: NDArray[np.float32], titles: list[str]) -> Figure:
    """A row per stamp, a column per band."""
    figure = Figure(figsize=(1.5 * len(COLUMNS), 1.5 * len(titles)), layout="constrained")
    grid = figure.subplots(len(titles), len(COLUMNS), squeeze=False)
    for axis, (name, _, _) in zip(grid[0], COLUMNS, strict=True):
        axis.set_title(name, fontsize=9)
    for axes, bands, title in zip(grid, images, titles, strict=True):
        for one, band, (_, most, colours) in zip(axes, bands, COLUMNS, strict=True):
            shown = np.sqrt(band.clip(0)) if most is None else band
            one.imshow(shown, origin="lower", cmap=colours, vmin=None if most is None else -most, vmax=most)
            one.set(xticks=(), yticks=())
        axes[0].set_ylabel(title, fontsize=9)
    return figure


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="The folder of `fitted.py`.")
@click.option("--out", type=click.Path(path_type=Path), default=IMAGES / "dark_matter_maps.png", show_default=False)
def main(work: Path, out: Path) -> None:
    """Draw."""
    data = StampSet.open(work / "data" / "substructure-1-1-fitted-masses")
    rows = chosen(data)
    images = data.read_images()[[row for _, row in rows]]
    write_png(out, picture(draw(images, [title for title, _ in rows])))


if __name__ == "__main__":
    main()
