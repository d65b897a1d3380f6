"""
Simulated lenses opened by PyAutoLens, in an environment of its own (it wants other versions than ours).

    lenspipe simulate --recipe ground-gri --survey hsc --count 3 --format autolens --out lenses
    python -m benchmarks.studies.other_tools.autolens --lenses lenses          # in the environment that has autolens

Its tracer is read from ``tracer.json`` by its own reader, draws the image under the PSF, and is compared with the data.
Writes `results/autolens.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import record


@click.command()
@click.option(
    "--lenses", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of `--format autolens`."
)
@record.keep_option
def main(lenses: Path, keep: bool) -> None:
    """Open every lens in every band."""
    import autolens as al
    from astropy.io import fits
    from autoconf.dictable import from_json

    rows: list[dict[str, Any]] = []
    for folder in sorted(path.parent for path in lenses.glob("lens-*/*/tracer.json")):
        scale = float(fits.getheader(folder / "data.fits")["PIXSCALE"])
        data = al.Imaging.from_fits(
            data_path=folder / "data.fits",
            noise_map_path=folder / "noise_map.fits",
            psf_path=folder / "psf.fits",
            pixel_scales=scale,
        )
        side, psf = data.data.shape_native[0], data.psf.shape_native[0]
        radius = (side - psf) / 2 * scale  # beyond this, what lies outside the image would be convolved into it
        mask = al.Mask2D.circular(shape_native=data.data.shape_native, pixel_scales=scale, radius=radius)
        data = data.apply_mask(mask=mask)
        tracer = from_json(str(folder / "tracer.json"))
        fit = al.FitImaging(dataset=data, tracer=tracer)
        residual = np.asarray(fit.normalized_residual_map)
        middle = residual[~np.asarray(mask)] if residual.ndim == 2 else residual
        away = np.hypot(*np.asarray(data.grids.lp).T) > 3 * scale  # the cusp of the lens galaxy is a matter of sampling
        middle = middle[away]
        rows.append(
            {
                "lens": f"{folder.parent.name}/{folder.name}",
                "chi_square_per_pixel": round(float((middle**2).mean()), 4),
                "largest_residual_sigma": round(float(np.abs(middle).max()), 3),
                "n_pixel": int(middle.size),
            }
        )
    worst = max(row["chi_square_per_pixel"] for row in rows)
    aims = [record.at_most("chi square per pixel of the worst lens and band", worst, 1.3)]
    record.write("autolens", {"version": al.__version__, "rows": rows}, aims, keep=keep)


if __name__ == "__main__":
    main()
