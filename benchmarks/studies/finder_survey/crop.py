"""
Rows 0 to 1690 of the KiDS tile, which a finder may learn from, as a tile of its own; those above are for judging.

    python -m benchmarks.studies.finder_survey.crop --real ../shared/data --out tiles/kids_train
    lenspipe finder tiles/kids_train --survey kids --runner local --out fresh --set stamps.count=16000 \
        --set survey.psf_fwhm_arcsec.g=1.11 --set survey.psf_fwhm_arcsec.r=0.86 --set survey.psf_fwhm_arcsec.i=0.92 \
        --set train.optim.threads=1 --set 'train.optim.precision="bfloat16"' --set train.optim.channels_last=true

The widened recipe of `docs/results/finder_survey.md` is the same with ``--set stamps.theta_e_arcsec=[0.9,6.0] --set
stamps.crowd_fraction=0.5 --set stamps.luminous=true``, and both with ``--set train.optim.epochs=4 --set
train.input.stretch=humvi --set train.input.band_scales=[0.016199,0.0057171,0.0038114] --set train.input.alpha=0.09``;
`judge` gives the table. The record was made without the three of ``survey.psf_fwhm_arcsec``: with what the stars gave.
"""

from __future__ import annotations

from pathlib import Path

import click
from astropy.io import fits

from benchmarks.studies.data import KIDS_ROWS

KEPT = ("CTYPE", "CRVAL", "CRPIX", "CDELT", "CD", "PC", "CUNIT", "RADESYS", "BUNIT", "MAGZERO", "PHOTZP")


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the cropped tile.")
def main(real: Path, out: Path) -> None:
    """Crop the tile."""
    out.mkdir(parents=True)
    for band in "ugri":
        with fits.open(real / "tiles/kids_viking" / f"{band}.fits") as hdus:
            cropped = fits.ImageHDU(hdus[1].data[: KIDS_ROWS["test"][0]].astype("f4"))
            for card in hdus[1].header.cards:
                if card.keyword.startswith(KEPT):
                    cropped.header[card.keyword] = card.value
        fits.HDUList([fits.PrimaryHDU(), cropped]).writeto(out / f"{band}.fits")


if __name__ == "__main__":
    main()
