"""
How a ground finder bears other pixels, seeing and depth: simulated lenses and others on a grid of the three.

    python -m benchmarks.studies.finder_ground.tolerance [MODEL] [--count N]

The recipe `ground-gri` with surveys of one seeing in all bands (0.5", 0.8", 1.2") and of three depths (KiDS, one
magnitude less, one more), at 0.17", 0.20" and 0.27" a pixel. Galaxies are simulated whole, so a cell says how the
model changes from cell to cell, not how good it is on the sky.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from click.testing import CliRunner

from benchmarks import record
from lenspipe.cli.simulate import command as simulate
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.stamps.format import StampSet
from lenspipe.stats import curves
from lenspipe.stats.counts import ScoreCounts

SCALES_ARCSEC, SEEING_ARCSEC, DEEPER_MAG = (0.17, 0.20, 0.27), (0.5, 0.8, 1.2), (-1.0, 0.0, 1.0)
KIDS = {"g": (25.1, 0.7), "r": (25.0, 0.4), "i": (24.0, 0.8)}
"""5 sigma depth and nJy an electron of the recipe's survey of that name."""
FIELD_ARCSEC = 17.9
RECIPE = """
name = "tolerance"
description = "Recipe ground-gri on a grid of seeing and depth"
kind = "finder"
min_arc_snr = 20.0
min_magnification = 3.0
companion_density_arcmin2 = 30.0
[[image]]
bands = ["g", "r", "i"]
size_px = {size_px}
pixel_scale_arcsec = {scale}
{surveys}
[classes]
lens = 10.0
early_type = 2.5
satellites = 1.8
spiral = 1.6
ring = 1.2
merger = 0.8
group = 0.8
star = 0.5
[deflectors]
redshift = [0.15, 0.9]
velocity_dispersion_km_s = [160.0, 400.0]
theta_e_arcsec = [1.0, 3.2]
shear_scatter = 0.05
[sources]
mag_r = [21.5, 25.5]
"""


@click.command()
@click.argument("model", default="ground-gri")
@click.option("--count", default=3600, show_default=True, help="Stamps a pixel scale.")
def main(model: str, count: int) -> None:
    """Measure MODEL."""
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for scale in SCALES_ARCSEC:
            data = made(Path(folder) / f"{scale}", scale, count)
            cells += cells_of(model, data, scale)
    aurocs = [cell["auroc"] for cell in cells]
    record.write("finder_tolerance", {"model": model, "count": count, "cells": cells, "least_auroc": min(aurocs)})
    print(table_of(cells))


def made(folder: Path, scale: float, count: int) -> StampSet:
    """Stamps of one pixel scale, of all seeings and depths."""
    folder.mkdir()
    surveys = "\n".join(
        f'[[survey]]\nname = "{survey_of(seeing, deeper)}"\n'
        + "\n".join(
            f"band.{band} = {{ seeing_fwhm_arcsec = [{seeing}, 0.0], depth_mag = [{depth + deeper}, 0.0], "
            f"njy_per_electron = {njy} }}"
            for band, (depth, njy) in KIDS.items()
        )
        for seeing, deeper in itertools.product(SEEING_ARCSEC, DEEPER_MAG)
    )
    size_px = 2 * round(FIELD_ARCSEC / scale / 2) + 1
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(size_px=size_px, scale=scale, surveys=surveys))
    asked = ["--recipe", recipe, "--count", count, "--seed", 5, "--out", folder / "stamps", "--runner", "local"]
    ran = CliRunner().invoke(simulate, [str(part) for part in asked], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return StampSet.open(folder / "stamps")


def survey_of(seeing: float, deeper: float) -> str:
    """Name of a cell's survey."""
    return f"seeing{seeing:g}depth{deeper:+g}"


def cells_of(model: str, data: StampSet, scale: float) -> list[dict[str, Any]]:
    """Numbers of each seeing and depth."""
    rows: list[pa.Table] = []
    judged(open_members([model], data), data, JudgeSettings(split=None), on_rows=rows.append)
    table = pa.concat_tables(rows)
    of_stamp = dict(zip(data.column("stamp_id"), data.column("survey"), strict=True))
    survey = np.array([of_stamp[name] for name in table["stamp_id"].to_pylist()])
    is_lens, score = table["is_lens"].to_numpy(), table["score"].to_numpy()
    cells = []
    for seeing, deeper in itertools.product(SEEING_ARCSEC, DEEPER_MAG):
        mine = survey == survey_of(seeing, deeper)
        counts = ScoreCounts.of(score[mine], is_lens[mine])
        cells.append(
            {
                "pixel_scale_arcsec": scale,
                "seeing_arcsec": seeing,
                "depth_r_mag": KIDS["r"][0] + deeper,
                "n_lens": counts.n_lens,
                "n_other": counts.n_other,
                "auroc": curves.auroc(counts),
                "auroc_interval95": list(curves.auroc_interval(counts)),
                "tpr_at_fpr_1e-1": curves.tpr_at_fpr(counts, 0.1)["value"],
            }
        )
    return cells


def table_of(cells: list[dict[str, Any]]) -> str:
    """A Markdown table: one row per seeing and depth, one column per pixel scale."""
    lines = ["| seeing, depth in r | " + " | ".join(f'{s:g}"' for s in SCALES_ARCSEC) + " |", "|---|---|---|---|"]
    for seeing, deeper in itertools.product(SEEING_ARCSEC, DEEPER_MAG):
        depth = KIDS["r"][0] + deeper
        mine = [c for c in cells if c["seeing_arcsec"] == seeing and c["depth_r_mag"] == depth]
        shown = (f"{c['auroc']:.3f} [{c['auroc_interval95'][0]:.3f}, {c['auroc_interval95'][1]:.3f}]" for c in mine)
        lines.append(f'| {seeing:g}", {depth:g} | ' + " | ".join(shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
