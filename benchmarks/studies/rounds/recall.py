"""
Recall after each round of looking, by the queue, by score alone and at random; the answers are known.

    python -m benchmarks.studies.rounds.recall STAMPS --model ground-gri

STAMPS are those of a finder's folder (`lenspipe finder`): painted arcs among galaxies and look-alikes of a survey. A
sky is drawn of them in which few are lenses; a finder scores it, a grader who knows looks at some, the finder's last
layer is fitted again to all grades (logistic regression on its features, beside its own score), and so on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks import record
from lenspipe.infer.predict import Predictor
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import find_model
from lenspipe.stamps.format import StampSet
from lenspipe.stats.queue import learning_queue

RULES = ("queue", "score", "random")
Numbers = NDArray[np.float64]


def seen_by(predictor: Predictor, data: StampSet, rows: NDArray[np.int64]) -> tuple[Numbers, Numbers]:
    """Log odds ``(n,)`` and features ``(n, k)`` that a finder has of stamps."""
    spec = data.images["image"]
    odds, features = [], []
    for start in range(0, len(rows), 256):
        stamps = stamp_input(
            data.read_images("image", rows[start : start + 256]),
            bands=spec.bands,
            pixel_scale_arcsec=spec.pixel_scale_arcsec,
            card=predictor.card,
        )
        odds.append(predictor.outputs(stamps)[:, 0])
        features.append(predictor.features(stamps))
    return np.concatenate(odds), StandardScaler().fit_transform(np.concatenate(features)).astype(float)


def found_by(
    rule: str, odds: Numbers, features: Numbers, truth: NDArray[np.bool_], *, looks: int, rounds: int, seed: int
) -> list[int]:
    """Lenses that a grader who knows has found after each round."""
    rng = np.random.default_rng(seed)
    label, score, found = np.full(len(truth), np.nan), odds, []
    inputs = np.c_[odds / odds.std(), features / np.sqrt(features.shape[1])]
    for _ in range(rounds):
        left = np.flatnonzero(np.isnan(label))
        if rule == "queue":
            rows = learning_queue(score, features, label, looks)[0]
        elif rule == "score":
            rows = left[np.argsort(-score[left], kind="stable")[:looks]]
        else:
            rows = rng.choice(left, looks, replace=False)
        label[rows] = truth[rows]
        found.append(int(np.nansum(label)))
        known = np.isfinite(label)
        if 0 < label[known].sum() < known.sum():
            fitted = LogisticRegression(class_weight="balanced", C=0.3, max_iter=500).fit(inputs[known], label[known])
            score = fitted.decision_function(inputs)
    return found


@click.command()
@click.argument("stamps", type=click.Path(path_type=Path, exists=True))
@click.option("--model", default="ground-gri", show_default=True, help="The first finder.")
@click.option("--lenses", default=60, show_default=True, help="In each sky.")
@click.option("--looks", default=40, show_default=True, help="Of a round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--most", default=4000, show_default=True, help="Stamps that are used.")
@click.option("--skies", default=20, show_default=True)
@click.option("--name", default="rounds_recall", show_default=True, help="Name of the record.")
def main(stamps: Path, model: str, lenses: int, looks: int, rounds: int, most: int, skies: int, name: str) -> None:
    """Count what each rule finds."""
    data = StampSet.open(stamps)
    usable = np.flatnonzero([one is not None for one in data.column("label")])[:most]
    is_lens = data.column("label")[usable] == "lens"
    odds, features = seen_by(Predictor(find_model(model)), data, usable)
    found: dict[str, list[list[int]]] = {rule: [] for rule in RULES}
    for sky in range(skies):
        rng = np.random.default_rng([sky, 11])
        rows = np.r_[rng.choice(np.flatnonzero(is_lens), lenses, replace=False), np.flatnonzero(~is_lens)]
        for rule in RULES:
            asked: dict[str, Any] = {"looks": looks, "rounds": rounds, "seed": sky}
            found[rule].append(found_by(rule, odds[rows], features[rows], is_lens[rows], **asked))
    recall = {rule: np.array(counts) / lenses for rule, counts in found.items()}
    record.write(
        name,
        {
            "model": model,
            "stamps": len(usable),
            "lenses": lenses,
            "others": int((~is_lens).sum()),
            "looks_per_round": looks,
            "skies": skies,
            "recall_mean": {rule: r.mean(axis=0).round(4).tolist() for rule, r in recall.items()},
            "recall_standard_error": {
                rule: (r.std(axis=0, ddof=1) / np.sqrt(skies)).round(4).tolist() for rule, r in recall.items()
            },
            "queue_less_score": (recall["queue"] - recall["score"]).mean(axis=0).round(4).tolist(),
            "queue_less_score_standard_error": (
                (recall["queue"] - recall["score"]).std(axis=0, ddof=1) / np.sqrt(skies)
            )
            .round(4)
            .tolist(),
        },
    )


if __name__ == "__main__":
    main()
