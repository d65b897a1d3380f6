"""
Whether a finder's quantile of unlikeness tells the truth: uniform for held-out stamps, near 1 for planted strange ones.

    python -m benchmarks.studies.labels.familiarity --data STAMPS --model MODEL --name NAME

What the model keeps of its training set is learnt from the split train of the data and compared with validation, as
`lenspipe calibrate --training-set` does; the split test is judged. Strange stamps are test stamps with ten times the
noise, with bands in another order, with a satellite trail, and blank ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.evaluate.familiarity import learn_training_set
from lenspipe.evaluate.judging import open_members
from lenspipe.infer.stamps import stamp_input
from lenspipe.robust import robust_sigma
from lenspipe.scan.familiarity import BEYOND
from lenspipe.stamps.format import StampSet

N_TEST = 1000


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Stamps with splits.")
@click.option("--model", default="ground-gri", show_default=True)
@click.option("--name", required=True, help="Name of the record.")
@record.keep_option
def main(data: Path, model: str, name: str, keep: bool) -> None:
    """Measure, and write `results/familiarity_NAME.json`."""
    stamps = StampSet.open(data)
    member = open_members([model], stamps, device="cpu")[0]
    with Clock() as clock:
        familiar, n = learn_training_set(member, stamps)
    spec = stamps.images[member.image]
    test = stamps.read_images(member.image, split="test")[:N_TEST]

    def distances(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
        found = []
        for start in range(0, len(pixels), 256):
            seen = stamp_input(
                pixels[start : start + 256],
                bands=spec.bands,
                pixel_scale_arcsec=spec.pixel_scale_arcsec,
                card=member.card,
            )
            found.append(familiar.distance(member.predictor.features(seen)))
        return np.concatenate(found)

    plain = distances(test)
    told = {kind: _told(familiar.quantile(distances(pixels))) for kind, pixels in strange(test).items()}
    same = ks_2samp(plain, familiar.held_out)
    record.write(
        f"familiarity_{name}",
        {
            "model": model,
            "data": data.name,
            "n": {"train": n, "held_out": len(familiar.held_out), "test": len(test)},
            "labels": len(familiar.means),
            "learning": clock.seconds(),
            "test": {"ks": round(float(same.statistic), 4), "p": round(float(same.pvalue), 4)}
            | _told(familiar.quantile(plain)),
            "strange": told,
        },
        [
            record.at_least("p of held-out against test stamps", same.pvalue, 0.01),
            *(record.at_least(f"median quantile, {kind}", row["median"], 0.99) for kind, row in told.items()),
        ],
        keep=keep,
    )


def strange(stamps: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The stamps with something wrong, by what it is."""
    rng, side = np.random.default_rng(4), stamps.shape[-1]
    noise = np.array([robust_sigma(stamps[:, band]) for band in range(stamps.shape[1])], np.float32)[:, None, None]
    noisy = stamps + 10 * noise * rng.normal(size=stamps.shape).astype(np.float32)
    trails = stamps.copy()
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    for stamp in trails:
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-side / 4, side / 4)
        away = x * np.cos(angle) + y * np.sin(angle) - offset
        stamp += 50 * noise * np.exp(-(away**2) / 4).astype(np.float32)
    return {
        "ten times the noise": noisy,
        "bands in another order": stamps[:, ::-1],
        "a trail": trails,
        "blank": np.zeros_like(stamps),
    }


def _told(quantile: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "median": round(float(np.median(quantile)), 4),
        "tenth": round(float(np.quantile(quantile, 0.1)), 4),
        "beyond": round(float((quantile >= BEYOND).mean()), 4),
    }


if __name__ == "__main__":
    main()
