"""
Draw the pictures of the page "lenspipe from Python" (docs/python.md).

    python -m benchmarks.python_pictures

Each is what the function shown beside it returns: `docs/img/python_*.png`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
from matplotlib.figure import Figure

import lenspipe as lp
from lenspipe.api.table import astropy_table
from lenspipe.report.picture import write_png
from lenspipe.robust import robust_sigma
from lenspipe.scan.after.best import best_candidates
from lenspipe.scan.sample import make_sample

IMAGES = Path(__file__).parents[1] / "docs" / "img"


@click.command(help=__doc__)
def main() -> None:
    """Draw all."""
    lens = lp.simulate_lens(theta_e_arcsec=1.6)
    torn = lens.pixels_njy.copy()
    torn[:, :, :14] = np.nan
    rgb = [
        ("rgb(lens.pixels_njy, bands='gri')", lp.rgb(lens.pixels_njy, bands="gri")),
        ("the left side has no data", lp.rgb(torn, bands="gri")),
        ("one band: rgb(r, bands='r')", lp.rgb(lens.pixels_njy[1:2], bands="r")),
    ]
    _row("rgb", rgb)

    host = lp.simulate_lens(theta_e_arcsec=1.6, source_mag=40.0).pixels_njy
    painted = lp.paint(
        host,
        bands="gri",
        pixel_scale_arcsec=0.2,
        psf_fwhm_arcsec=0.7,
        theta_e_arcsec=1.6,
        sky_rms_njy={band: float(robust_sigma(plane)) for band, plane in zip("gri", host, strict=True)},
        min_arc_snr=120.0,
        seed=4,
    )
    assert painted.arcs_njy is not None
    named = (("host", host), ("painted", painted.pixels_njy), ("arcs_njy", painted.arcs_njy))
    _row("paint", [(name, lp.rgb(one, bands="gri")) for name, one in named])

    with tempfile.TemporaryDirectory() as folder:
        tiles = make_sample(Path(folder) / "sample")
        run = lp.scan_survey(tiles, survey="sample", out=Path(folder) / "run", catalog=False)
        best = astropy_table(best_candidates(run.folder, 3))
        cut = lp.cutouts(tiles, best["ra"], best["dec"], size_px=41, survey="sample")
    words = [f"score {score:.3f}" for score in best["score"]]
    _row("cutouts", list(zip(words, cut.rgb(), strict=True)))


def _row(name: str, pictures: list[tuple[str, np.ndarray]]) -> None:
    figure = Figure(figsize=(2.6 * len(pictures), 2.9), layout="constrained")
    for axes, (words, picture) in zip(figure.subplots(1, len(pictures)), pictures, strict=True):
        axes.imshow(picture, origin="lower")
        axes.set_title(words, fontsize=9)
        axes.set_axis_off()
    write_png(IMAGES / f"python_{name}.png", figure)


if __name__ == "__main__":
    main()
