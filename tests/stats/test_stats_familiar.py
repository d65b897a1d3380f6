"""Distance to a training set among features, and its quantile."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from lenspipe.stats.familiar import FeatureSums, fit_familiar

N_CLASS, N_FEATURE = 3, 12


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(4)
    mix = np.eye(N_FEATURE) + rng.normal(0, 0.2, (N_FEATURE, N_FEATURE))  # no direction is narrow
    means = rng.normal(0, 6, (N_CLASS, N_FEATURE))

    def draw(n):
        classes = rng.integers(0, N_CLASS, n)
        return means[classes] + rng.normal(size=(n, N_FEATURE)) @ mix, classes

    train, held, test = draw(3000), draw(1500), draw(1500)
    fitted = fit_familiar(FeatureSums.of(*train, N_CLASS))
    familiar = fit_familiar(FeatureSums.of(*train, N_CLASS), fitted.distance(held[0]))
    return train, test, familiar


def test_the_distance_is_that_of_mahalanobis_to_the_nearest_mean(drawn):
    (features, classes), (other, _), familiar = drawn
    roots, others = (np.sign(x) * np.sqrt(np.abs(x)) for x in (features, other))
    means = np.stack([roots[classes == c].mean(axis=0) for c in range(N_CLASS)])
    within = sum(np.cov(roots[classes == c].T) * ((classes == c).sum() - 1) for c in range(N_CLASS))
    inverse = np.linalg.inv(within / (len(features) - N_CLASS))
    want = cdist(others, means, "mahalanobis", VI=inverse).min(axis=1)
    np.testing.assert_allclose(familiar.distance(other), want, rtol=1e-5)


def test_sums_of_parts_are_those_of_the_whole_and_a_row_does_not_depend_on_others_to_the_bit(drawn):
    (features, classes), (other, _), familiar = drawn
    whole, some = FeatureSums.of(features, classes, N_CLASS), slice(0, 700)
    parts = FeatureSums.of(features[some], classes[some], N_CLASS) + FeatureSums.of(
        features[700:], classes[700:], N_CLASS
    )
    for name in ("n", "sums", "products"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12)
    alone = np.concatenate([familiar.distance(other[k : k + 1]) for k in range(50)])
    np.testing.assert_array_equal(alone, familiar.distance(other)[:50])


def test_stamps_like_the_training_set_are_uniform_and_unlike_ones_are_beyond_all(drawn):
    (features, _), (other, _), familiar = drawn
    said = familiar.quantile(familiar.distance(other))
    assert stats.ks_2samp(said, familiar.quantile(familiar.held_out)).pvalue > 0.01
    unlike = familiar.quantile(familiar.distance(features[:100] + 60))
    assert (unlike == 1500 / 1501).all() and said.max() < 1
