"""Single-band finders on real images from space: SLACS lenses, Euclid Q1 candidates, COSMOS galaxies without arcs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from benchmarks.studies.real_sky.ground import Logits, area, completeness
from lenspipe.errors import ConfigError
from lenspipe.image.resample import cubic_matrix
from lenspipe.infer.predict import Predictor
from lenspipe.nn.card import ModelCard
from lenspipe.nn.preprocess import network_input
from lenspipe.simulate.paint import paint_arcs
from lenspipe.stamps.format import image_array
from lenspipe.stamps.readers import READERS
from lenspipe.stamps.splits import half_of
from lenspipe.stats.intervals import fraction
from lenspipe.stats.recall import threshold_passed_by
from lenspipe.toml import validate

COSMOS_SCALE_ARCSEC, COSMOS_ZERO_POINT_AB = 0.03, 25.94
HST_FWHM_ARCSEC = 0.1
PAINTED_THETA_E_ARCSEC = (0.5, 2.6)
"""Einstein radii of the lenses that `space-vis` learnt from."""
COSMOS_SETS = (("real_galaxy_catalog_26_extension_example.fits", "."), ("real_galaxy_catalog_23.5.fits", "bright10"))
PASSING = (0.05, 0.01)
LEAST_FOR_ONE_PERCENT = 300
BRIGHT_MAG = 22.5
"""Most of the COSMOS galaxies are far fainter than any lens here, which alone tells them apart; these are not."""


def real_lenses(real: Path, card: ModelCard) -> dict[str, NDArray[np.float32]]:
    """
    Network input of each SLACS lens (F814W, 0.05") and Euclid Q1 candidate (VIS, 0.1"), by name.

    The SLACS images have different sky left in them: the median of their outermost 8 pixels is taken off, which
    takes 1 to 2 sigma a pixel from those whose galaxy reaches that far. Cosmic rays stay.
    """
    readers: dict[str, tuple[str, dict[str, Any], float]] = {
        "slacs_hst": (
            "fits-folder",
            {"bands": {"F814W": 1}, "size_px": 198, "label": "lens", "pixel_scale_arcsec": 0.05},
            0.05,
        ),
        "euclid_q1": ("euclid-q1", {"bands": ("VIS",), "size_px": 100}, 0.1),
    }
    found = {}
    for folder, (reader, options, scale) in readers.items():
        chosen = READERS[reader]
        stream = chosen.read(real / "stamps" / folder, validate(options, chosen.options, origin=folder))
        for table in stream.tables:
            for name, stamp in zip(table["stamp_id"].to_pylist(), image_array(table, "image"), strict=True):
                level = np.median(border_of(stamp)) if folder == "slacs_hst" else 0.0
                found[f"{folder}/{name}"] = on_grid(stamp - np.float32(level), scale, card)
    return found


def border_of(stamp: NDArray[np.float32], width_px: int = 8) -> NDArray[np.float32]:
    """Pixels of a stamp within its outermost ones."""
    inside = np.zeros(stamp.shape[-2:], bool)
    inside[width_px:-width_px, width_px:-width_px] = True
    return stamp[:, ~inside]


@dataclass(frozen=True)
class CosmosGalaxy:
    """A real galaxy that lenses nothing, on sky of its own noise."""

    field_njy: NDArray[np.float64]
    """Pixels ``(y, x)`` of 0.03", nJy."""
    mag: float
    """F814W magnitude, AB."""
    sky_rms_njy: float
    """Noise of a pixel."""


def cosmos_galaxies(real: Path, card: ModelCard, *, seed: int = 0) -> list[CosmosGalaxy]:
    """
    Real COSMOS galaxies, on fields that the model's stamp fits into.

    The half whose names are "odd" (`lenspipe.stamps.splits.half_of`): finders may learn from the other. Their postage
    stamps are small: around them lies Gaussian noise of the variance that their catalogue states.
    """
    folder = real / "galaxies/cosmos_hst"
    found = []
    njy = 10 ** (0.4 * (31.4 - COSMOS_ZERO_POINT_AB))
    n = int(np.ceil(card.stamp_px * card.pixel_scale_arcsec / COSMOS_SCALE_ARCSEC / 2)) * 2 + 9
    for number, (catalogue, place) in enumerate(COSMOS_SETS):
        for k, (row, pixels) in enumerate(_cosmos_rows(folder / place, catalogue)):
            if half_of(str(row["IDENT"])) == "even":
                continue
            image = pixels().astype(np.float64)
            rng = np.random.default_rng([seed, number, k])
            rms = float(row["NOISE_VARIANCE"]) ** 0.5
            field = rng.normal(0, rms, (n, n))
            y, x = (min(n, side) for side in image.shape)
            top, left = (image.shape[0] - y) // 2, (image.shape[1] - x) // 2
            below, right = (n - y) // 2, (n - x) // 2
            field[below : below + y, right : right + x] = image[top : top + y, left : left + x]
            found.append(CosmosGalaxy(field * njy, float(row["MAG"]), rms * njy))
    return found


def _cosmos_rows(folder: Path, catalogue: str) -> Iterator[tuple[fits.FITS_record, Callable[[], NDArray[Any]]]]:
    """Rows of a catalogue, and what reads the pixels of each; every file is opened once, as it has a hundred HDUs."""
    with ExitStack() as stack:
        opened: dict[str, fits.HDUList] = {}
        for row in fits.getdata(folder / catalogue, 1):
            name = row["GAL_FILENAME"].strip()
            if name not in opened:
                opened[name] = stack.enter_context(fits.open(folder / name))
            yield row, lambda hdus=opened[name], k=int(row["GAL_HDU"]): hdus[k].data


def painted_on_cosmos(
    predictor: Predictor, galaxies: Sequence[CosmosGalaxy], *, seed: int = 2026, n_arc: int = 36
) -> list[dict[str, Any]]:
    """
    Arcs painted around the galaxies brighter than 22.5 mag, ``n_arc`` around each, and scored.

    An SIE with shear around the centre, Einstein radii log-uniform from 0.5" to 2.6", arcs of a signal-to-noise from
    20 on by the noise of single pixels: drizzled pixels share noise, so the true one is lower. The PSF is a Moffat of
    0.1".

    Returns
    -------
    list of dict
        One row an arc: ``theta_e_arcsec``, ``arc_snr`` and ``logit``.
    """
    stamps, rows = [], []
    for number, galaxy in enumerate(g for g in galaxies if g.mag < BRIGHT_MAG):
        for k in range(n_arc):
            painted, _, truth = paint_arcs(
                galaxy.field_njy[None],
                bands=("VIS",),
                pixel_scale_arcsec=COSMOS_SCALE_ARCSEC,
                psf=(HST_FWHM_ARCSEC,),
                rng=np.random.default_rng([seed, number, k]),
                theta_e_range_arcsec=PAINTED_THETA_E_ARCSEC,
                sky_rms_njy=galaxy.sky_rms_njy,
                min_arc_snr=20.0,
            )
            stamps.append(on_grid(painted, COSMOS_SCALE_ARCSEC, predictor.card))
            rows.append({key: truth[key] for key in ("theta_e_arcsec", "arc_snr")})
    logits = predictor.outputs(np.concatenate(stamps))[:, 0]
    return [row | {"logit": float(value)} for row, value in zip(rows, logits, strict=True)]


def on_grid(stamp_njy: NDArray[np.float32], scale_arcsec: float, card: ModelCard) -> NDArray[np.float32]:
    """Network input ``(1, channel, y, x)`` of a stamp ``(1, y, x)`` of any pixel scale; sky outside it is empty."""
    matrix = cubic_matrix(stamp_njy.shape[-1], scale_arcsec, card.stamp_px, card.pixel_scale_arcsec)
    brightness = np.matmul(np.matmul(matrix, stamp_njy), matrix.T) / np.float32(scale_arcsec**2)
    return network_input(brightness[None], card.stretch)


def space_real_sky(predictor: Predictor, real: Path, *, seed: int = 0, n_arc: int = 36) -> dict[str, Any]:
    """
    A single-band finder on SLACS lenses, Euclid Q1 candidates and arcs painted on COSMOS galaxies, against those bare.

    Bands are taken as the model's own whatever they are, and the PSFs are left as they are: HST's is sharper than
    Euclid's.

    Raises
    ------
    ConfigError
        The model takes more than one band.
    """
    card = predictor.card
    if len(card.bands) != 1:
        raise ConfigError("only models of one band are judged on these stamps", model=card.name, bands=len(card.bands))
    lenses = real_lenses(real, card)
    lens: Logits = predictor.outputs(np.concatenate(list(lenses.values())))[:, 0]
    galaxies = cosmos_galaxies(real, card, seed=seed)
    magnitude = np.array([galaxy.mag for galaxy in galaxies])
    bare = [on_grid(g.field_njy[None].astype(np.float32), COSMOS_SCALE_ARCSEC, card) for g in galaxies]
    other: Logits = predictor.outputs(np.concatenate(bare))[:, 0]
    arcs = painted_on_cosmos(predictor, galaxies, n_arc=n_arc)
    found: dict[str, Any] = {
        "n_galaxies": len(other),
        "auc_lenses_against_galaxies": area(lens, other),
        "auc_lenses_against_galaxies_to_22.5": area(lens, other[magnitude < BRIGHT_MAG]),
        "n_painted_hosts": int((magnitude < BRIGHT_MAG).sum()),
        "auc_painted_arcs_against_galaxies_to_22.5": area(
            np.array([row["logit"] for row in arcs]), other[magnitude < BRIGHT_MAG]
        ),
        "lens_logits": dict(zip(lenses, map(float, lens), strict=True)),
    }
    for part in PASSING:
        if part < 0.05 and len(other) < LEAST_FOR_ONE_PERCENT:
            found[f"where_{part:g}_of_galaxies_pass"] = {
                "value": None,
                "why": f"not measured with {len(other)} galaxies",
            }
            continue
        at = threshold_passed_by(other, part)
        recovered = completeness(arcs, at, theta_e_edges_arcsec=(0.5, 0.75, 1.0, 1.5, 2.0, 2.6))
        recovered.pop("detected")  # nothing is detected here: the hosts' places are known
        found[f"where_{part:g}_of_galaxies_pass"] = {
            "threshold_logit": at,
            "galaxies_passing": fraction(int((other > at).sum()), len(other)),
            "lenses": fraction(int((lens > at).sum()), len(lens)),
            "painted_arcs": recovered,
        }
    return found
