"""Counts of scores: bounded, exact where they can be, the same for any split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lenspipe.errors import DataError
from lenspipe.stats.counts import ScoreCounts, Tally, scores_of_keys, sort_keys, sum_counts
from lenspipe.stats.curves import auroc, auroc_error_max, recall_with_false

SCORES = st.floats(0, 1)


@given(st.lists(SCORES, max_size=40))
def test_keys_sort_and_tie_as_scores_do_and_come_back_exactly(scores: list[float]) -> None:
    keys = sort_keys(scores)
    values = np.array(scores)
    for k, one in enumerate(values):
        np.testing.assert_array_equal(np.sign(keys - keys[k]), np.sign(values - one))
    np.testing.assert_array_equal(scores_of_keys(keys), values)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.5, np.inf])
def test_what_is_no_score_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match=r"from 0 to 1.*first_row=1"):
        ScoreCounts.of([0.5, bad], [True, False])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(SCORES | st.sampled_from([0.0, 0.5, 1.0]), st.booleans(), st.integers(0, 3)), max_size=80),
    st.sampled_from([4, 16, 1 << 20]),
)
def test_any_split_adds_up_to_the_whole(rows: list[tuple[float, bool, int]], max_keys: int) -> None:
    scores, classes, part = (np.array(c) for c in zip(*rows, strict=True)) if rows else (np.empty(0),) * 3
    whole = ScoreCounts.of(scores, classes.astype(bool), max_keys=max_keys)
    parts = [ScoreCounts.of(scores[part == k], classes[part == k].astype(bool), max_keys=max_keys) for k in range(4)]
    assert sum_counts(parts).equals(whole)
    assert ((parts[3] + parts[1]) + (parts[0] + parts[2])).equals(whole)
    assert len(whole.keys) <= max_keys
    assert whole.n_lens == classes.sum() and whole.n_lens + whole.n_other == len(rows)


def test_a_tally_gives_what_all_scores_at_once_give() -> None:
    rng = np.random.default_rng(0)
    scores, classes = rng.beta(0.3, 2, 300_000), rng.uniform(size=300_000) < 0.1
    tally = Tally(max_keys=1000)
    for start in range(0, len(scores), 7001):
        tally.add(scores[start : start + 7001], classes[start : start + 7001])
    assert tally.total.equals(ScoreCounts.of(scores, classes, max_keys=1000))


def test_a_million_and_a_half_scores_in_a_million_keys_have_the_exact_area_to_one_part_in_a_million() -> None:
    rng = np.random.default_rng(1)
    classes = rng.uniform(size=1_500_000) < 0.2
    logits = rng.normal(np.where(classes, 1.5, -3.0), 2.0)
    scores = 1 / (1 + np.exp(-logits))
    counts = ScoreCounts.of(scores, classes)
    assert counts.level > 0 and len(counts.keys) <= 1 << 20
    exact = roc_auc_score(classes, scores)
    assert abs(auroc(counts) - exact) < 1e-9
    assert abs(auroc(counts) - exact) <= auroc_error_max(counts) < 1e-6
    ranked = np.sort(scores[~classes])[::-1]
    for n_false in (0, 9, 1200, 120_000):
        truly = (scores[classes] > ranked[n_false]).mean()
        assert abs(recall_with_false(counts, n_false)["value"] - truly) < 2e-5


def test_confident_scores_stay_apart_when_keys_get_wide() -> None:
    odds = np.linspace(-30, 30, 5000)
    counts = ScoreCounts.of(np.concatenate([1 / (1 + np.exp(-odds))] * 2), np.arange(10000) < 5000, max_keys=1000)
    gaps = np.diff(np.log(counts.scores) - np.log1p(-counts.scores))
    assert gaps.max() < 0.4
    assert (counts.scores > 1 - 1e-9).sum() > 50


def test_above_counts_what_has_the_threshold_or_more() -> None:
    counts = ScoreCounts.of([0.2, 0.4, 0.4, 0.9], [False, True, False, True])
    assert counts.above(0.4) == (2, 1)
    assert counts.above(0.41) == (1, 0)
    assert counts.above(None) == (0, 0)
