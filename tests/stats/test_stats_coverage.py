# Each interval of the package holds the truth as often as it says, at the extremes too: by simulation, or exactly.

import numpy as np
import pytest
from scipy.stats import binom, norm

from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval, recall_with_false
from lenspipe.stats.denoising import flux_errors
from lenspipe.stats.denoising_finder import finder_gain, invented_arcs
from lenspipe.stats.intervals import clopper_pearson, fraction, median_interval, unless_a_point
from lenspipe.stats.regression import ErrorSums
from lenspipe.stats.reliability import reliability


@pytest.mark.parametrize("n", [1, 2, 5, 20, 100, 1000])
@pytest.mark.parametrize("level", [0.68, 0.95])
def test_clopper_pearson_covers_at_least_its_level_for_every_rate(n, level):
    bounds = np.array([clopper_pearson(k, n, level=level) for k in range(n + 1)])
    assert (bounds[:, 1] > bounds[:, 0]).all()
    for p in (0.0, 1e-6, 1e-3, 0.01, 0.1, 0.37, 0.5, 0.9, 0.999, 1 - 1e-6, 1.0):
        holds = (bounds[:, 0] <= p) & (p <= bounds[:, 1])
        assert binom.pmf(np.arange(n + 1), n, p)[holds].sum() >= level - 1e-9


def test_a_fraction_of_nothing_may_be_anything():
    assert fraction(0, 0)["interval95"] == [0.0, 1.0]
    assert fraction(0, 3)["interval95"][1] > 0.7


def sampled_scores(rng, kind, area, n_lens, n_other):
    """Scores in [0, 1] whose true area under the curve is known."""
    if kind == "exponential":
        lens, other = rng.exponential(area / (1 - area), n_lens), rng.exponential(1, n_other)
        raw = np.r_[lens, other]
        return raw / (1 + raw)
    spread = 1.0 if kind == "normal" else 3.0
    lens = rng.normal(np.sqrt(1 + spread**2) * norm.ppf(area), spread, n_lens)
    return norm.cdf(np.r_[lens, rng.normal(0, 1, n_other)] / 4)


@pytest.mark.parametrize(("n_lens", "n_other"), [(5, 5), (10, 200), (40, 40), (100, 500)])
@pytest.mark.parametrize("area", [0.5, 0.9, 0.97, 0.99, 0.999])
@pytest.mark.parametrize("kind", ["normal", "wide lenses", "exponential"])
def test_the_interval_of_an_area_covers_it(n_lens, n_other, area, kind):
    rng = np.random.default_rng(round(1000 * area) + n_lens)
    truth, n = np.r_[np.ones(n_lens, bool), np.zeros(n_other, bool)], 150
    held = 0
    for _ in range(n):
        low, high = auroc_interval(ScoreCounts.of(sampled_scores(rng, kind, area, n_lens, n_other), truth))
        assert high > low
        held += low <= area <= high
    assert held >= 0.87 * n  # 0.95 less 4.5 sigma of 150 samples; DeLong alone falls to 0.02


@pytest.mark.parametrize("n_lens", [2, 3, 7, 13, 26, 40, 49, 58])
def test_a_perfect_and_a_hopeless_finder_have_an_exact_area_and_an_interval_with_a_width(n_lens):
    for n_other in range(2, 60):
        truth = np.r_[np.ones(n_lens, bool), np.zeros(n_other, bool)]
        score = np.r_[0.9 + 1e-4 * np.arange(n_lens), 0.1 + 1e-4 * np.arange(n_other)]
        counts = ScoreCounts.of(score, truth)
        assert auroc(counts) == 1.0
        low, high = auroc_interval(counts)
        assert high == 1.0
        assert low <= clopper_pearson(min(n_lens, n_other), min(n_lens, n_other))[0]
        hopeless = ScoreCounts.of(1 - score, truth)
        assert auroc(hopeless) == 0.0
        assert auroc_interval(hopeless) == pytest.approx((0.0, 1 - low), abs=1e-9)


def test_one_tie_in_a_perfect_finder_is_no_perfect_finder():
    truth = np.r_[np.ones(30, bool), np.zeros(30, bool)]
    score = np.r_[np.linspace(0.5, 0.9, 30), np.linspace(0.1, 0.5, 30)]
    counts = ScoreCounts.of(score, truth)
    assert 0.999 < auroc(counts) < 1
    low, high = auroc_interval(counts)
    assert low < 0.95
    assert high == 1.0


def test_the_recall_at_a_threshold_that_is_given_covers_it(rng):
    held, n_lens, true = 0, 30, 0.9
    for _ in range(400):
        score = np.r_[np.where(rng.uniform(size=n_lens) < true, 0.8, 0.2), np.full(50, 0.5)]
        found = recall_with_false(ScoreCounts.of(score, np.r_[np.ones(n_lens, bool), np.zeros(50, bool)]), 0)
        held += found["interval95"][0] <= true <= found["interval95"][1]
    assert held >= 0.93 * 400


@pytest.mark.parametrize("n", [6, 9, 25, 200])
def test_the_interval_of_a_median_covers_it_for_any_distribution(rng, n):
    for draw in (rng.normal, rng.standard_cauchy, rng.exponential):
        middle = float(np.log(2)) if draw == rng.exponential else 0.0
        held = sum(
            low <= middle <= high
            for low, high in (median_interval(draw(size=n)) for _ in range(300))  # type: ignore[misc]
        )
        assert held >= 0.9 * 300


def test_few_fluxes_have_no_interval_of_their_bias_and_none_is_a_point(rng):
    for n in range(1, 12):
        (row,) = flux_errors(rng.normal(1, 0.1, n), np.ones(n), np.full(n, 20.5), edges=(20, 21))
        if n < 6:
            assert row["bias_interval95"] is None
        else:
            assert row["bias_interval95"][0] < row["bias"] < row["bias_interval95"][1]


def test_a_gain_that_all_stamps_share_is_not_known_exactly():
    truth = np.r_[np.ones(40, bool), np.zeros(400, bool)]
    score = np.tile(np.r_[np.full(40, 0.9), np.linspace(0, 0.5, 400)], (2, 1))
    low, high = finder_gain(score, score, truth, rates=(1e-2,), n_boot=50)["tpr_gain"]["0.01"]["interval95"]
    assert (low, high) == pytest.approx((-0.0881, 0.0881), abs=1e-3)  # none of 40
    low, high = invented_arcs(score, score, truth, n_boot=50)["gain"]["interval95"]
    assert low < 0 < high < 0.01
    assert unless_a_point((1.0, 1.0), 10) == (pytest.approx(1 - 0.3085, abs=1e-4), 1.0)


def test_the_interval_of_a_gain_covers_it(rng):
    n_lens, n_other, gain, held, n = 60, 300, 0.2, 0, 40
    truth = np.r_[np.ones(n_lens, bool), np.zeros(n_other, bool)]
    for _ in range(n):
        others = rng.uniform(0, 0.5, n_other)
        before = np.r_[np.where(rng.uniform(size=n_lens) < 0.5, 0.9, 0.1), others]
        after = np.r_[np.where(rng.uniform(size=n_lens) < 0.5 + gain, 0.9, 0.1), others]
        scores = finder_gain(before[None], after[None], truth, rates=(1e-2,), n_boot=100)
        low, high = scores["tpr_gain"]["0.01"]["interval95"]
        held += low <= gain <= high
    assert held >= 0.81 * n  # 0.95 less 4 sigma


def test_coverage_of_honest_and_of_dishonest_sigmas_is_told_apart():
    error = norm.ppf((np.arange(2000) + 0.5) / 2000)
    honest = ErrorSums.of(error, np.zeros(2000), np.ones(2000)).metrics()["coverage"]["1sigma"]["interval95"]
    proud = ErrorSums.of(error, np.zeros(2000), np.full(2000, 0.5)).metrics()["coverage"]["1sigma"]["interval95"]
    assert honest[0] < 0.6827 < honest[1]
    assert proud[1] < 0.6827


def test_bins_of_a_calibrated_finder_hold_their_probability(rng):
    held = total = 0
    for _ in range(60):
        p = rng.uniform(0, 1, 300)
        for row in reliability(ScoreCounts.of(p, rng.uniform(size=300) < p))["bins"]:
            total += 1
            held += row["interval95"][0] <= row["probability"] <= row["interval95"][1]
    assert held >= 0.93 * total
