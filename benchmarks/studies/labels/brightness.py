"""
Whether the error of an autoencoder says more than how bright an arc is.

    python -m benchmarks.studies.labels.brightness --data STAMPS --models WORK/sweep/trials --normal LABEL --name NAME

Of the test split: area under the ROC curve of anomalies by the stamp's own brightness, variance and gradients, without
any network; and for each model that of its error and of the error in units of the variance, and how closely the error
follows the variance (rank correlation). With `--smooth`, for lenses, also what the images leave of each other
under a fitted smooth lens, and as a part of their light. Writes `results/anomaly_brightness_NAME.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks import record
from benchmarks.studies.real_sky.ground import area
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import CARD_FILE
from lenspipe.nn.smooth_lens import with_residual
from lenspipe.stamps.format import StampSet

Array = NDArray[np.float64]
EDGE = 6
"""Lines at the edge of a stamp that tell its noise."""


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Stamps with splits.")
@click.option("--models", type=click.Path(path_type=Path, exists=True), required=True, help="A sweep's trials.")
@click.option("--normal", required=True, help="Labels that are normal, A,B.")
@click.option("--name", required=True, help="Name of the record.")
@click.option("--smooth", is_flag=True, help="Fit smooth lenses too, 60 ms per stamp.")
@record.keep_option
def main(data: Path, models: Path, normal: str, name: str, smooth: bool, keep: bool) -> None:
    """Measure, and write the record."""
    stamps = StampSet.open(data)
    members = open_members([str(card.parent) for card in sorted(models.glob(f"*/model/{CARD_FILE}"))], stamps)
    rows: list[pa.Table] = []
    judged(members, stamps, JudgeSettings(split="test"), on_rows=rows.append)
    table = pa.concat_tables(rows)
    spec, card = stamps.images[members[0].image], members[0].card
    pixels = stamps.read_images(members[0].image, split="test")
    seen = stamp_input(pixels, bands=spec.bands, pixel_scale_arcsec=spec.pixel_scale_arcsec, card=card)
    plain = {
        "mean square": (seen**2).mean((1, 2, 3)),
        "variance": seen.var((1, 2, 3)),
        "gradients": (np.diff(seen, axis=-1) ** 2).mean((1, 2, 3)) + (np.diff(seen, axis=-2) ** 2).mean((1, 2, 3)),
    }
    if smooth:
        plain |= smooth_lens(pixels)
    of_model = np.array(table["model"].to_pylist())
    first = table.filter(pa.array(of_model == members[0].name))
    odd = ~np.isin(np.array(first["label"].to_pylist()), normal.split(","))
    found: dict[str, Any] = {"n": len(odd), "by": {key: told(value, odd) for key, value in plain.items()}, "models": []}
    for member in members:
        error = table.filter(pa.array(of_model == member.name))["error"].to_numpy()
        share = error / plain["variance"]
        found["models"].append(
            {
                "family": member.card.family,
                "error": told(error, odd),
                "error over variance": told(share, odd),
                "median error over variance": round(float(np.median(share)), 4),
                "rank correlation with variance": round(float(spearmanr(error, plain["variance"])[0]), 4),
            }
        )
    record.write(f"anomaly_brightness_{name}", {"data": data.name, **found}, keep=keep)


def smooth_lens(pixels: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """What a smooth lens leaves of stamps ``(n, band, y, x)``: its mean square, and that as a part of each pixel's."""
    left = with_residual(pixels)[:, pixels.shape[1] :].astype(np.float64)
    noise = np.median(np.abs(pixels[:, :, :EDGE]), axis=(1, 2, 3), keepdims=True) * 1.4826
    return {
        "residual of a smooth lens": (left**2).mean((1, 2, 3)),
        "residual over light": (left**2 / (pixels.astype(np.float64) ** 2 + noise**2)).mean((1, 2, 3)),
    }


def told(value: NDArray[np.floating], odd: NDArray[np.bool_]) -> dict[str, Any]:
    """Area of anomalies against normal stamps, with its interval."""
    as_number = np.asarray(value, np.float64)
    return area(as_number[odd], as_number[~odd])


if __name__ == "__main__":
    main()
