"""
How a g r i finder does on what it was not trained on: simulated test scenes, real galaxies, real lenses.

    python benchmarks/finder_real_sky.py MODEL --real ../shared/data [--no-record]

Of the Space Warps stamps only a fixed half is opened: names whose SHA-256 is even. The other half is kept for later.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import record
from numpy.typing import NDArray
from scipy.stats import beta

from lenspipe.image.stretch import humvi_inverse
from lenspipe.infer.prepare import cutout_size_px, prepare_stamps
from lenspipe.infer.score import Scorer
from lenspipe.learn.augment import stretch
from lenspipe.learn.ground_hosts import LEAST_SCALE_ARCSEC, hosts_by_scene, split_hosts
from lenspipe.learn.hosts import Host
from lenspipe.learn.real_hosts import cfhtls_tile, tile_hosts
from lenspipe.learn.scenes import MARGIN_PX, make_scenes
from lenspipe.nn.card import find_model, write_card

Scores = NDArray[np.float64]
TEST = {"lens": 2500, "field-lens": 90, "plain": 4000, "companions": 1200, "ring": 300, "spiral": 500, "spoiled": 300}
CFHTLS_SCALE_ARCSEC = 0.186
CANDIDATE_PX, CANDIDATE_RADIUS_PX = (222.0, 230.0), 1.5 / CFHTLS_SCALE_ARCSEC
HUMVI_BANDS = {"i": 0.4, "r": 0.6, "g": 1.7}
HUMVI_ALPHA, HUMVI_Q = 0.09, 1.0


@click.command()
@click.argument("model")
@click.option("--real", type=click.Path(path_type=Path), required=True)
@click.option("--seed", default=2026, show_default=True)
@click.option("--record/--no-record", "write", default=True)
@click.option("--update-card", is_flag=True, help="Write the result into the model's card as well.")
@click.option("--picture", type=click.Path(path_type=Path), help="PNG of the highest scores of each set.")
def main(model: str, real: Path, seed: int, write: bool, update_card: bool, picture: Path | None) -> None:
    """Measure MODEL (a shipped name or a folder)."""
    scorer = Scorer(find_model(model))
    hosts = split_hosts(real, scorer.card, seed=seed, splits=["test"])["test"]
    sets = simulated_scores(scorer, hosts, seed)
    kids_hosts = [h for h in hosts if h.name.startswith("kids") and h.mag_i < 22 and h.radius_arcsec > 0.7]
    kids = score_hosts(scorer, kids_hosts)
    spacewarps, grade, _ = spacewarps_half(scorer, real)
    negatives = np.concatenate([sets[kind] for kind in ("companions", "ring", "spiral", "spoiled")])
    lens, good, poor = sets["lens"], spacewarps[grade >= 2], spacewarps[np.isclose(grade, 0.3)]
    result: dict[str, Any] = {
        "model": scorer.card.name,
        "weights_sha256": scorer.card.weights_sha256[:16],
        "simulated": {
            "n_lens": len(lens),
            "auc_plain": auc(lens, sets["plain"]),
            "auc_lookalikes": auc(lens, negatives),
            "auc_all": auc(lens, np.concatenate([sets["plain"], negatives])),
            "tpr_at_fpr_1e-2_plain": tpr(lens, sets["plain"], 1e-2),
            "tpr_at_fpr_1e-3_plain": tpr(lens, sets["plain"], 1e-3),
            "tpr_at_fpr_1e-2_all": tpr(lens, np.concatenate([sets["plain"], negatives]), 1e-2),
            "tpr_at_fpr_1e-2_of_kind": {
                kind: tpr(lens, sets[kind], 1e-2) for kind in ("companions", "ring", "spiral", "spoiled")
            },
            "parametric_lens_above_fpr_1e-2_plain": tpr(sets["field-lens"], sets["plain"], 1e-2),
        },
        "real": {
            "n_kids_galaxies": len(kids),
            "auc_spacewarps_good_against_kids": auc(good, kids),
            "spacewarps_good_at_kids_fpr_1e-2": tpr(good, kids, 1e-2),
            "kids_above_the_threshold_of_80_percent_of_arcs": fraction(
                int((kids > np.quantile(lens, 0.2)).sum()), len(kids)
            ),
            "auc_spacewarps_good_against_grade_0.3": auc(good, poor),
        },
        "cfhtls": cfhtls_rank(scorer, real),
    }
    assert 0.5 < result["simulated"]["auc_plain"]["value"] <= 1, "worse than chance on its own simulations"
    if picture is not None:
        draw(picture, scorer, kids_hosts, kids, real)
    if update_card:
        folder = find_model(model)
        write_card(folder, scorer.card.model_copy(update={"metrics": scorer.card.metrics | {"held_out": result}}))
    if write:
        record.write(f"finder_real_sky_{scorer.card.name}", result)
    else:
        print(json.dumps(result, indent=1))


def simulated_scores(scorer: Scorer, hosts: list[Host], seed: int) -> dict[str, Scores]:
    """Logits of test scenes, by kind."""
    scenes, truths = make_scenes(
        TEST, hosts_by_scene(hosts), seed=seed, card=scorer.card, least_scale_arcsec=LEAST_SCALE_ARCSEC
    )
    inner = slice(MARGIN_PX, MARGIN_PX + scorer.card.stamp_px)
    kinds = np.array([truth["kind"] for truth in truths])
    logits = batched(scorer, stretch(scenes[:, :, inner, inner].astype(np.float32) * 16, scorer.card))
    return {kind: logits[kinds == kind] for kind in TEST}


def batched(scorer: Scorer, stamps: NDArray[np.float32]) -> Scores:
    size = scorer.batch_size
    return np.concatenate([scorer.logits(stamps[k : k + size]) for k in range(0, len(stamps), size)])


def score_hosts(scorer: Scorer, hosts: list[Host]) -> Scores:
    """Scores of hosts as a scan would give them."""
    scale = hosts[0].pixel_scale_arcsec
    need = cutout_size_px(scorer.card, scale)
    edge = (hosts[0].pixels_njy.shape[-1] - need) // 2
    cutouts = np.stack([h.pixels_njy[:, edge : edge + need, edge : edge + need] for h in hosts])
    score = scorer.score(cutouts, pixel_scale_arcsec=scale)
    return np.log(score / (1 - score))


def spacewarps_half(scorer: Scorer, real: Path) -> tuple[Scores, NDArray[np.float32], NDArray[np.float32]]:
    """
    Logits, grades and pixels (nJy) of half of the Space Warps stamps.

    ASW0006wpc, which lies in the CFHTLS tile, and grade 0.3 stamps within 5" of a known lens are left out.
    """
    folder = real / "stamps/spacewarps"
    stored = np.load(folder / "spacewarps_cfhtls_dev.npz")
    names = stored["name"]
    half = np.array([int(hashlib.sha256(str(name).encode()).hexdigest(), 16) % 2 == 0 for name in names])
    table = np.genfromtxt(folder / "labels_dev.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    by_name = {str(row["name"]): row for row in table}
    known = known_lenses()
    rows = []
    for k in np.flatnonzero(half):
        row = by_name[str(names[k])]
        if row["zoo_id"] == "ASW0006wpc":
            continue
        near = np.hypot(
            (known[:, 0] - row["ra_deg"]) * np.cos(np.radians(row["dec_deg"])), known[:, 1] - row["dec_deg"]
        )
        if np.isclose(stored["grade"][k], 0.3) and near.min() * 3600 < 5:
            continue
        rows.append(k)
    composite = stored["images"][rows][:, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
    counts = humvi_inverse(composite, band_scales=tuple(HUMVI_BANDS.values()), alpha=HUMVI_ALPHA, q=HUMVI_Q)
    njy = np.ascontiguousarray(counts[:, ::-1]) * np.float32(10 ** (0.4 * 1.4))
    score = scorer.score(njy, pixel_scale_arcsec=CFHTLS_SCALE_ARCSEC)
    return np.log(score / (1 - score)), stored["grade"][rows], njy


def known_lenses() -> NDArray[np.float64]:
    """Positions (degrees) of lenscat where it is installed; it only removes false 'non-lenses'."""
    try:
        from lenscat import catalog
    except ImportError:
        return np.array([[0.0, -90.0]])
    return np.stack([np.asarray(catalog["RA"], float), np.asarray(catalog["DEC"], float)], axis=1)


def cfhtls_rank(scorer: Scorer, real: Path) -> dict[str, Any]:
    """Rank of SL2SJ142209+524652 among the sources of its tile."""
    hosts, at = cfhtls_sources(scorer, real)
    logits = score_hosts(scorer, hosts)
    distance = np.hypot(at[:, 0] - CANDIDATE_PX[0], at[:, 1] - CANDIDATE_PX[1])
    near = int(np.argmin(distance))
    order = np.argsort(-logits)
    return {
        "n_sources": len(hosts),
        "rank": int(np.flatnonzero(order == near)[0]) + 1,
        "distance_arcsec": round(float(distance[near]) * CFHTLS_SCALE_ARCSEC, 2),
        "best": [[round(float(at[k, 0])), round(float(at[k, 1])), round(float(logits[k]), 2)] for k in order[:8]],
        "candidate_logit": round(float(logits[near]), 2),
    }


def cfhtls_sources(scorer: Scorer, real: Path) -> tuple[list[Host], NDArray[np.float64]]:
    """Sources of the CFHTLS tile."""
    return tile_hosts(
        cfhtls_tile(real),
        name="cfhtls",
        pixel_scale_arcsec=CFHTLS_SCALE_ARCSEC,
        psf_fwhm_arcsec=np.array([0.9, 0.8, 0.75]),
        size_px=cutout_size_px(scorer.card, CFHTLS_SCALE_ARCSEC),
    )


def auc(lens: Scores, other: Scores, n_boot: int = 500) -> dict[str, Any]:
    """Area under the ROC with ties at one half, and a 95 % bootstrap interval over lenses and others."""
    rng = np.random.default_rng(0)

    def area(a: Scores, b: Scores) -> float:
        b = np.sort(b)
        return float((np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")).mean() / 2 / len(b))

    boots = [area(rng.choice(lens, len(lens)), rng.choice(other, len(other))) for _ in range(n_boot)]
    low, high = np.quantile(boots, [0.025, 0.975])
    return {
        "value": round(area(lens, other), 4),
        "interval95": [round(low, 4), round(high, 4)],
        "n": [len(lens), len(other)],
    }


def tpr(lens: Scores, other: Scores, fpr: float) -> dict[str, Any]:
    """Part of the lenses above the threshold that at most ``fpr`` of the others pass."""
    allowed = int(np.floor(fpr * len(other)))
    threshold = np.sort(other)[::-1][allowed]
    return fraction(int((lens > threshold).sum()), len(lens)) | {"others_passing": allowed, "n_others": len(other)}


def fraction(k: int, n: int) -> dict[str, Any]:
    """K of n with the Clopper-Pearson 95 % interval."""
    low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))
    return {"value": round(k / n, 4), "interval95": [round(low, 4), round(high, 4)], "k": k, "n": n}


def draw(path: Path, scorer: Scorer, kids_hosts: list[Host], kids: Scores, real: Path) -> None:
    """The highest scores of the KiDS galaxies, the CFHTLS tile, and the lowest of the good Space Warps lenses."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    def inputs(hosts: list[Host]) -> NDArray[np.float32]:
        scale = hosts[0].pixel_scale_arcsec
        return prepare_stamps(np.stack([h.pixels_njy for h in hosts]), cutout_scale_arcsec=scale, card=scorer.card)

    tile, _ = cfhtls_sources(scorer, real)
    cfhtls = score_hosts(scorer, tile)
    sw, grade, njy = spacewarps_half(scorer, real)
    warps = prepare_stamps(njy, cutout_scale_arcsec=CFHTLS_SCALE_ARCSEC, card=scorer.card)
    good = np.flatnonzero(grade >= 2)
    rows = [
        ("KiDS", inputs([kids_hosts[k] for k in np.argsort(-kids)[:20]]), np.sort(kids)[::-1][:20]),
        ("CFHTLS", inputs([tile[k] for k in np.argsort(-cfhtls)[:20]]), np.sort(cfhtls)[::-1][:20]),
        ("SW", warps[good[np.argsort(sw[good])]][:20], np.sort(sw[good])[:20]),
    ]
    figure, axes = plt.subplots(6, 10, figsize=(16, 10.5))
    for block, (name, stamps, logits) in enumerate(rows):
        for axis, stamp, logit in zip(axes[2 * block : 2 * block + 2].ravel(), stamps, logits, strict=False):
            axis.imshow(stamp[::-1].transpose(1, 2, 0), origin="lower")
            axis.set_title(f"{name} {logit:.1f}", fontsize=8)
    for axis in axes.ravel():
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=70)


if __name__ == "__main__":
    main()
