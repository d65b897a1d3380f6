"""
Two looks behind the numbers of the ground finders: which galaxies set a threshold, and what grades go with.

    python -m benchmarks.studies.finder_ground.causes --data STAMPS --scores REPORT --real ../shared/data MODEL...

`--scores` is the folder of scores that `benchmarks.studies.real_sky.finders` wrote for MODELs (names of its files).
For each, the ordinary galaxies above the threshold that a thousandth of them pass are counted by host: the test stamps
show few galaxies in many views. On the Space Warps half for choosing, the shipped finder's score and simple
features are set against the experts' grade.
"""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from benchmarks import record
from benchmarks.studies.real_sky.ground import CFHTLS_SCALE_ARCSEC, logits, spacewarps_stamps
from lenspipe.infer.predict import Predictor
from lenspipe.nn.card import find_model
from lenspipe.stamps.format import StampSet

RATE = 1e-3
CORE_ARCSEC, RING_ARCSEC = 1.0, (1.5, 4.0)


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Simulated stamps.")
@click.option("--scores", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of finders.py.")
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
def main(names: tuple[str, ...], data: Path, scores: Path, real: Path) -> None:
    """Look behind the numbers of the models NAMES."""
    stamps = StampSet.open(data)
    host = np.asarray(stamps.column("host"))[np.asarray(stamps.column("split")) == "test"]
    stored = {name: dict(np.load(scores / f"{name}.npz")) for name in names}
    looks = [threshold_hosts(name, stored[name], host) for name in names]
    leading = sorted({h for h, _ in looks[0]["hosts_above"]})
    for name, look in zip(names, looks, strict=True):
        look["tpr_without_the_first_models_hosts"] = round(tpr(stored[name], ~np.isin(host, leading)), 4)
    record.write(
        "finder_causes",
        {"data": data.name, "rate": RATE, "first_models_hosts": leading, "models": looks, "spacewarps": grades(real)},
    )


def ordinary(stored: Any) -> NDArray[np.bool_]:
    """Ordinary galaxies and stars among the test stamps."""
    return np.asarray(~stored["is_lens"] & (stored["kind"] == "plain"))


def threshold(stored: Any, use: NDArray[np.bool_]) -> float:
    """Score that a thousandth of the ordinary stamps in use exceed."""
    score = np.sort(stored["score"][ordinary(stored) & use])[::-1]
    return float(score[int(RATE * len(score))])


def tpr(stored: Any, use: NDArray[np.bool_]) -> float:
    """Part of the lenses above that threshold."""
    return float((stored["score"][stored["is_lens"]] > threshold(stored, use)).mean())


def threshold_hosts(name: str, stored: Any, host: NDArray[Any]) -> dict[str, Any]:
    """Hosts of the ordinary stamps above the threshold, the most frequent first."""
    plain = ordinary(stored)
    everything = np.ones(len(host), bool)
    above = plain & (stored["score"] > threshold(stored, everything))
    counted = collections.Counter(host[above].tolist()).most_common()
    return {
        "model": name,
        "tpr": round(tpr(stored, everything), 4),
        "n_above": int(above.sum()),
        "hosts_above": [list(pair) for pair in counted],
        "n_host": len(set(host[plain].tolist())),
        "stamps_of_these_hosts": {h: int((host[plain] == h).sum()) for h, _ in counted},
    }


def grades(real: Path) -> dict[str, Any]:
    """AUC of grade 2 and more against 0.3, of the score and of features, and their rank correlation with the score."""
    njy, grade = spacewarps_stamps(real)
    score = logits(Predictor(find_model("ground-gri")), njy, CFHTLS_SCALE_ARCSEC)
    good, poor = grade >= 2, np.isclose(grade, 0.3)
    y, x = np.mgrid[: njy.shape[-1], : njy.shape[-1]] - (njy.shape[-1] - 1) / 2
    radius = np.hypot(x, y) * CFHTLS_SCALE_ARCSEC
    core = njy[:, :, radius < CORE_ARCSEC].sum(-1)
    ring = njy[:, :, (radius >= RING_ARCSEC[0]) & (radius < RING_ARCSEC[1])].sum(-1)
    features = {
        "core_g_minus_i": colour(core),
        "ring_bluer_than_core": colour(core) - colour(ring),
        "core_i_flux": core[:, 2],
        "ring_g_flux": ring[:, 0],
        "ring_over_core_i": ring[:, 2] / core[:, 2],
    }
    both = good | poor
    return {
        "half": "for choosing",
        "n": [int(good.sum()), int(poor.sum())],
        "score_auc": round(float(roc_auc_score(good[both], score[both])), 3),
        "features": {
            name: {
                "auc": round(float(roc_auc_score(good[both], value[both])), 3),
                "spearman_with_score_good": round(float(spearmanr(value[good], score[good]).statistic), 2),
                "spearman_with_score_poor": round(float(spearmanr(value[poor], score[poor]).statistic), 2),
            }
            for name, value in features.items()
        },
    }


def colour(flux: NDArray[np.floating]) -> NDArray[np.float64]:
    """Colour g - i, mag, of fluxes ``(n, band)``; those below 1 nJy are taken as 1."""
    clipped = flux.astype(np.float64).clip(1.0)
    return np.asarray(-2.5 * np.log10(clipped[:, 0] / clipped[:, 2]))


if __name__ == "__main__":
    main()
