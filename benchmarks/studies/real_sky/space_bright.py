"""
Finders of one band on many real lenses against bright galaxies that lens nothing: SLACS and Euclid, JWST and COSMOS.

    python -m benchmarks.studies.real_sky.space_bright space-vis --real ../shared/data

27 SLACS lenses (F814W, 0.05"; the four of `space.py` among them) and 4 Euclid Q1 candidates, against 47 galaxies seen
by JWST (F444W, 0.06") and the COSMOS galaxies of the half that no finder learns from, brighter than 22.5 mag (F814W).
No finder here has seen any of them. JWST's pixels are taken as MJy/sr, which their files do not say and which gives
them 19 to 22 mag; they are brought to the noise per area of the SLACS images, their PSF (0.15") is left. A galaxy at
4.4 um is older and smoother than at 0.8 um, and 54 galaxies say nothing of rates below a few per cent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.studies.real_sky.ground import area
from benchmarks.studies.real_sky.space import (
    BRIGHT_MAG,
    COSMOS_SCALE_ARCSEC,
    COSMOS_ZERO_POINT_AB,
    border_of,
    cosmos_galaxies,
    on_grid,
    real_lenses,
)
from lenspipe.image.photometry import ab_magnitude
from lenspipe.infer.predict import Predictor
from lenspipe.nn.card import ModelCard, find_model

SLACS_SCALE_ARCSEC, JWST_SCALE_ARCSEC = 0.05, 0.06
NJY_PER_EPS = 10 ** (0.4 * (31.4 - COSMOS_ZERO_POINT_AB))
"""Of ACS in F814W, as for COSMOS."""
MASKED_FROM = 1e6
"""Noise of masked pixels."""
WITHIN_PX = 25
"""Half side of the box, 3" wide, that a galaxy's magnitude is of."""


def slacs_lenses(real: Path, card: ModelCard) -> tuple[dict[str, NDArray[np.float32]], float]:
    """Network input of each lens, masked pixels taken from across its centre; and the median noise of a pixel, nJy."""
    found, noise = {}, []
    for folder in sorted((real / "stamps/slacs_f814w").iterdir()):
        stamp, rms = (fits.getdata(folder / f"{name}.fits").astype(np.float32) for name in ("image", "noise"))
        good = rms < MASKED_FROM
        stamp = np.where(good, stamp, np.where(good, stamp, 0)[::-1, ::-1])[None] * np.float32(NJY_PER_EPS)
        level = np.float32(np.median(border_of(stamp)))
        found[f"slacs_f814w/{folder.name}"] = on_grid(stamp - level, SLACS_SCALE_ARCSEC, card)
        noise.append(float(np.median(rms[good])) * NJY_PER_EPS)
    return found, float(np.median(noise))


def jwst_galaxies(
    real: Path, card: ModelCard, noise_njy: float, seed: int
) -> tuple[list[NDArray[np.float32]], NDArray[np.float64]]:
    """Network input and magnitude of each galaxy, on noise that is ``noise_njy`` in a SLACS pixel."""
    with np.load(real / "galaxies/jwst_f444w/f444w_209px.npz") as archive:
        images = archive["images"].astype(np.float64)
    images *= 1e15 * (JWST_SCALE_ARCSEC / 206265) ** 2  # MJy/sr to nJy per pixel
    images -= np.median([border_of(image[None].astype(np.float32)) for image in images], axis=(1, 2))[:, None, None]
    own = np.median([1.4826 * np.median(np.abs(border_of(image[None].astype(np.float32)))) for image in images])
    wanted = noise_njy * JWST_SCALE_ARCSEC / SLACS_SCALE_ARCSEC
    noisy = images + np.random.default_rng(seed).normal(0, np.sqrt(max(0, wanted**2 - own**2)), images.shape)
    middle = images.shape[-1] // 2
    box = slice(middle - WITHIN_PX, middle + WITHIN_PX + 1)
    magnitude = ab_magnitude(images[:, box, box].sum(axis=(1, 2)))
    return [on_grid(image[None].astype(np.float32), JWST_SCALE_ARCSEC, card) for image in noisy], magnitude


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option("--name", default="finders_space_bright", show_default=True, help="Name of the record.")
@record.keep_option
def main(models: tuple[str, ...], real: Path, seed: int, name: str, keep: bool) -> None:
    """Score real lenses and bright galaxies by MODELs of one band."""
    found: dict[str, Any] = {}
    aims = []
    for model in models:
        predictor = Predictor(find_model(model))
        card = predictor.card
        slacs, noise = slacs_lenses(real, card)
        euclid = {k: v for k, v in real_lenses(real, card).items() if k.startswith("euclid_q1/")}
        jwst, jwst_mag = jwst_galaxies(real, card, noise, seed)
        cosmos = [g for g in cosmos_galaxies(real, card, seed=seed) if g.mag < BRIGHT_MAG]
        bare = [on_grid(g.field_njy[None].astype(np.float32), COSMOS_SCALE_ARCSEC, card) for g in cosmos]
        logit = {
            of: predictor.outputs(np.concatenate(stamps))[:, 0]
            for of, stamps in (
                ("slacs", list(slacs.values())),
                ("euclid", list(euclid.values())),
                ("jwst", jwst),
                ("cosmos", bare),
            )
        }
        lens, other = (np.concatenate([logit[k] for k in of]) for of in (("slacs", "euclid"), ("jwst", "cosmos")))
        found[Path(model).name] = {
            "auc": area(lens, other),
            "auc_of": {
                f"{one} against {two}": area(logit[one], logit[two])
                for one in ("slacs", "euclid")
                for two in ("jwst", "cosmos")
            },
            "jwst_mag": [float(q) for q in np.quantile(jwst_mag, (0, 0.5, 1))],
            "sky_rms_njy_per_slacs_pixel": noise,
            "logits": {of: [round(float(one), 3) for one in values] for of, values in logit.items()},
        }
        aims.append(
            record.at_least(
                f"{Path(model).name}: AUC, lenses against bright galaxies",
                found[Path(model).name]["auc"]["value"],
                0.93,
            )
        )
    record.write(name, {"models": found}, aims, keep=keep)


if __name__ == "__main__":
    main()
