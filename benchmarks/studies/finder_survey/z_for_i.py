"""
A finder of g r i that is shown g r z: arcs painted around DES early types, the same arcs in both.

    python -m benchmarks.studies.finder_survey.z_for_i ground-gri ground-gri-graded --real ../shared/data

No g r z tile is at hand, so no finder of g r z can be made by `lenspipe finder`; the 46 DES early types have z. Arcs of
1 to 2.5 arcsec and a signal-to-noise of 30 and more in g r i z are painted once per host and draw, and shown as g r i
and as g r z, against the same hosts without arcs. `ground-gri` has learnt from most of these hosts, never in z.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.studies.data import DES_FWHM_ARCSEC, DES_SCALE_ARCSEC, NJY_AT_ZERO_POINT_30, des_early_counts
from benchmarks.studies.real_sky.ground import area, logits
from lenspipe.infer.predict import Predictor
from lenspipe.nn.card import find_model
from lenspipe.robust import robust_sigma
from lenspipe.simulate.paint import paint_arcs

BANDS = "griz"
SHOWN = {"g r i": (0, 1, 2), "g r z": (0, 1, 3)}


def des_early(real: Path) -> NDArray[np.float32]:
    """Early types ``(n, 4, 91, 91)``, nJy, their sky taken off."""
    stamps = des_early_counts(real)
    return (stamps - np.median(stamps, axis=(2, 3), keepdims=True)) * np.float32(NJY_AT_ZERO_POINT_30)


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--draws", type=click.IntRange(min=1), default=6, show_default=True, help="Arcs per host.")
@click.option("--seed", type=int, default=2026, show_default=True)
@click.option("--name", default="finders_z_for_i", show_default=True, help="Name of the record.")
@record.keep_option
def main(models: tuple[str, ...], real: Path, draws: int, seed: int, name: str, keep: bool) -> None:
    """Score arcs around DES galaxies in g r i and in g r z by MODELs of g r i."""
    hosts = des_early(real)
    painted: list[NDArray[np.float32]] = []
    for number, host in enumerate(hosts):
        for k in range(draws):
            stamp, _, _ = paint_arcs(
                host,
                bands=BANDS,
                pixel_scale_arcsec=DES_SCALE_ARCSEC,
                psf=DES_FWHM_ARCSEC,
                rng=np.random.default_rng([seed, number, k]),
                theta_e_range_arcsec=(1.0, 2.5),
                sky_rms_njy=robust_sigma(host, (1, 2)),
                min_arc_snr=30.0,
            )
            painted.append(stamp.astype(np.float32))
    arcs = np.stack(painted)
    found: dict[str, Any] = {}
    for model in models:
        predictor = Predictor(find_model(model))
        of_bands: dict[str, Any] = {}
        for bands, order in SHOWN.items():
            bare, lens = (logits(predictor, stamps[:, list(order)], DES_SCALE_ARCSEC) for stamps in (hosts, arcs))
            of_bands[bands] = {
                "auc": area(lens, bare),
                "above_its_own_host": float((lens.reshape(len(hosts), draws) > bare[:, None]).mean()),
                "median_logit": {"hosts": float(np.median(bare)), "arcs": float(np.median(lens))},
            }
        found[Path(model).name] = of_bands
    record.write(name, {"hosts": len(hosts), "arcs": len(arcs), "models": found}, keep=keep)


if __name__ == "__main__":
    main()
