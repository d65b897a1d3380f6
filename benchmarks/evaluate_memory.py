"""
Whether statistics of scores stay small and exact: 0.1, 1 and 10 million scores, counted batch by batch.

    python -m benchmarks.evaluate_memory [--no-record]
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.stats.counts import MAX_KEYS, Tally
from lenspipe.stats.curves import auroc, auroc_error_max, recall_with_false
from lenspipe.stats.metrics import finder_metrics

SIZES = (100_000, 1_000_000, 10_000_000)
EXACT = 1_000_000
BATCH = 50_000


def batches(n: int) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Confident scores of one lens in fifty."""
    for start in range(0, n, BATCH):
        rng = np.random.default_rng([n, start])
        lens = rng.uniform(size=min(BATCH, n - start)) < 0.02
        yield 1 / (1 + np.exp(-rng.normal(np.where(lens, 2.0, -4.0), 2.5))), lens


@click.command()
@record.keep_option
def main(keep: bool) -> None:
    """Count, time and compare."""
    rows = [measure(n) for n in SIZES]
    for row in rows:
        assert row["keys"] <= MAX_KEYS
        assert row["auroc_error_max"] < 1e-6
        if row["auroc_error"] is not None:
            assert abs(row["auroc_error"]) < 1e-9 and row["tpr_at_1e-3_error"] < 1e-4
    aims = [
        record.at_most("MiB of counts", max(row["state_mib"] for row in rows), 24),
        record.at_most("MiB more with ten times the scores", rows[-1]["peak_rss_mib"] - rows[1]["peak_rss_mib"], 150),
    ]
    record.write("evaluate_memory", {"max_keys": MAX_KEYS, "sizes": rows}, aims, keep=keep)


def measure(n: int) -> dict[str, Any]:
    """One size; the exact numbers up to a million, before whose sorting the peak of memory is read."""
    clock = Clock()
    tally = Tally()
    for score, lens in batches(n):
        tally.add(score, lens)
    counts = tally.total
    finder_metrics(counts)
    seconds = clock.cpu_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    allowed = int(1e-3 * counts.n_other)
    row: dict[str, Any] = {
        "scores": n,
        "keys": len(counts.keys),
        "bits_dropped": counts.level,
        "state_mib": len(counts.keys) * 24 / 2**20,
        "cpu_s": round(seconds, 2),
        "peak_rss_mib": round(peak),
        "auroc": auroc(counts),
        "auroc_error_max": auroc_error_max(counts),
        "auroc_error": None,
        "tpr_at_1e-3_error": None,
    }
    if n <= EXACT:
        score, lens = (np.concatenate(parts) for parts in zip(*batches(n), strict=True))
        row["auroc_error"] = auroc(counts) - float(roc_auc_score(lens, score))
        truly = (score[lens] > np.sort(score[~lens])[::-1][allowed]).mean()
        row["tpr_at_1e-3_error"] = abs(recall_with_false(counts, allowed)["value"] - float(truly))
    return row


if __name__ == "__main__":
    main()
