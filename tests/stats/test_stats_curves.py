"""Curves and rates against scikit-learn, scipy and the definitions, with ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sk

from lenspipe.errors import DataError
from lenspipe.stats.confusion import ClassCounts, at_threshold, best_f_beta, ratios
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval, rate_name, recall_with_false, roc, tpr0, tpr10, tpr_at_fpr
from lenspipe.stats.intervals import clopper_pearson, is_measurable
from lenspipe.stats.metrics import ClassTally, finder_metrics, thresholds_of


def tied(seed: int, n: int = 400, steps: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=n) < 0.3
    return np.round(rng.beta(np.where(truth, 3, 1), np.where(truth, 1, 3)) * steps) / steps, truth


@pytest.mark.parametrize("seed", range(5))
def test_area_and_curve_agree_with_scikit_learn_on_tied_scores(seed: int) -> None:
    score, truth = tied(seed)
    counts = ScoreCounts.of(score, truth)
    assert auroc(counts) == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-12)
    fpr, tpr, threshold = sk.roc_curve(truth, score, drop_intermediate=False)
    false, true, at = roc(counts)
    np.testing.assert_allclose(false / counts.n_other, fpr, atol=1e-12)
    np.testing.assert_allclose(true / counts.n_lens, tpr, atol=1e-12)
    np.testing.assert_array_equal(at, threshold)


@pytest.mark.parametrize("seed", range(5))
def test_confusion_agrees_with_scikit_learn_on_tied_scores(seed: int) -> None:
    score, truth = tied(seed)
    said = score >= 0.5
    found = at_threshold(ScoreCounts.of(score, truth), 0.5, beta=0.3)
    tn, fp, fn, tp = sk.confusion_matrix(truth, said).ravel()
    assert (found["tp"], found["fp"], found["tn"], found["fn"]) == (tp, fp, tn, fn)
    for name, want in (
        ("accuracy", sk.accuracy_score(truth, said)),
        ("precision", sk.precision_score(truth, said)),
        ("recall", sk.recall_score(truth, said)),
        ("f1", sk.f1_score(truth, said)),
        ("f_beta", sk.fbeta_score(truth, said, beta=0.3)),
    ):
        assert found[name] == pytest.approx(want, abs=1e-12), name


def test_best_f_beta_is_the_best_of_all_thresholds() -> None:
    score, truth = tied(3)
    best = best_f_beta(ScoreCounts.of(score, truth), beta=0.5)
    assert best["f_beta"] == pytest.approx(max(sk.fbeta_score(truth, score >= t, beta=0.5) for t in np.unique(score)))


def test_ratios_of_nothing_are_null() -> None:
    assert ratios(0, 0, 5, 0)["precision"] is None and ratios(0, 0, 5, 0)["recall"] is None
    assert ratios(0, 0, 5, 0)["accuracy"] == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=60), st.integers(0, 12))
def test_recall_at_a_number_of_false_positives_is_the_best_over_all_thresholds(
    rows: list[tuple[int, bool]], n_false: int
) -> None:
    score, truth = np.array([r[0] / 6 for r in rows]), np.array([r[1] for r in rows])
    found = recall_with_false(ScoreCounts.of(score, truth), n_false)
    allowed = [t for t in [np.inf, *np.unique(score)] if (score[~truth] >= t).sum() <= n_false]
    best = max(int((score[truth] >= t).sum()) for t in allowed)
    assert found["k"] == best and found["n_false"] <= n_false


def test_tpr0_is_zero_where_a_nonlens_ties_with_the_best_lens() -> None:
    counts = ScoreCounts.of([1.0, 1.0, 0.9, 0.2], [True, False, True, False])
    assert tpr0(counts)["value"] == 0 and tpr0(counts)["threshold"] is None
    assert tpr0(ScoreCounts.of([0.95, 1.0, 0.9, 0.2], [False, True, True, False]))["value"] == 0.5


def test_tpr10_allows_nine_false_positives_and_not_ten() -> None:
    nine = ScoreCounts.of([0.9] * 9 + [0.5, 0.1], [False] * 9 + [True, False])
    ten = ScoreCounts.of([0.9] * 10 + [0.5, 0.1], [False] * 10 + [True, False])
    assert tpr10(nine)["value"] == 1 and tpr10(ten)["value"] == 0


def test_rates_below_three_in_n_are_not_measurable() -> None:
    score, truth = np.linspace(0, 1, 400), np.arange(400) >= 300
    counts = ScoreCounts.of(score, truth)
    assert tpr_at_fpr(counts, 1e-2)["n_false"] <= 3
    assert tpr_at_fpr(counts, 1e-3) == {"value": None, "why": "not measurable with 300 negatives", "n_other": 300}
    assert is_measurable(1e-2, 300) and not is_measurable(1e-2, 299)


@pytest.mark.parametrize(("k", "n"), [(0, 7), (3, 7), (7, 7), (1, 1000)])
def test_intervals_agree_with_scipy(k: int, n: int) -> None:
    exact = binomtest(k, n).proportion_ci(method="exact")
    assert clopper_pearson(k, n) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_the_interval_of_the_area_is_delongs_and_holds_what_bootstraps_give() -> None:
    score, truth = tied(7, n=300)
    low, high = auroc_interval(ScoreCounts.of(score, truth))
    pairs = (score[truth][:, None] > score[~truth]) + 0.5 * (score[truth][:, None] == score[~truth])
    sd = (pairs.mean(axis=1).var(ddof=1) / len(pairs) + pairs.mean(axis=0).var(ddof=1) / pairs.shape[1]) ** 0.5
    assert (low, high) == pytest.approx((pairs.mean() - 1.959964 * sd, pairs.mean() + 1.959964 * sd), abs=1e-6)


def test_separated_classes_have_an_interval_that_is_not_a_point() -> None:
    low, high = auroc_interval(ScoreCounts.of([0.1, 0.2, 0.8, 0.9], [False, False, True, True]))
    assert low < 0.2 and high == 1


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="both classes"):
        auroc(ScoreCounts.of([0.1, 0.2], [True, True]))
    with pytest.raises(DataError, match="one class only"):
        finder_metrics(ScoreCounts.of([0.1, 0.2], [True, True]))


def test_a_report_names_the_thresholds_that_it_measured() -> None:
    score, truth = tied(1)
    found = finder_metrics(ScoreCounts.of(score, truth))
    assert {"auroc", "tpr0", "tpr10", "tpr_at_fpr"} <= set(found)
    assert (
        list(found["tpr_at_fpr"])
        == [rate_name(r) for r in (1e-1, 1e-2, 1e-3, 1e-4)]
        == ["1e-1", "1e-2", "1e-3", "1e-4"]
    )
    assert set(thresholds_of(found)) == {"fpr 1e-1", "score 0.5"}


@pytest.mark.parametrize("seed", range(3))
def test_three_classes_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, 300)
    p = np.round(rng.dirichlet(np.ones(3), 300) + np.eye(3)[truth] * 0.4, 2)
    p /= p.sum(axis=1, keepdims=True)
    tally = ClassTally(("none", "subhalo", "vortex"))
    for start in range(0, 300, 77):
        tally.add(p[start : start + 77], truth[start : start + 77])
    found = tally.metrics()
    onehot = np.eye(3)[truth]
    assert found["auroc_macro"] == pytest.approx(sk.roc_auc_score(onehot, p, average="macro"), abs=1e-12)
    assert found["auroc_micro"] == pytest.approx(sk.roc_auc_score(onehot, p, average="micro"), abs=1e-12)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, p.argmax(axis=1)))
    np.testing.assert_array_equal(found["confusion"], sk.confusion_matrix(truth, p.argmax(axis=1)))
    assert found["f1_macro"] == pytest.approx(sk.f1_score(truth, p.argmax(axis=1), average="macro"))


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(DataError, match="none of the model's"):
        ClassCounts.of(np.eye(3), [0, 1, 3])
