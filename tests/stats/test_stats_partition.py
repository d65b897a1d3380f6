"""Agreement of clusters with labels, against scikit-learn and against all assignments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from lenspipe.stats.neighbours import nearest
from lenspipe.stats.partition import (
    adjusted_rand,
    agreement,
    best_assignment,
    contingency,
    mutual_information,
    right_under,
)


@pytest.mark.parametrize(("n_label", "n_cluster"), [(3, 3), (2, 4), (4, 2)])
def test_agreement_is_that_of_scikit_learn(n_label, n_cluster):
    rng = np.random.default_rng(n_label)
    labels = rng.integers(0, n_label, 200)
    clusters = np.where(rng.random(200) < 0.5, labels % n_cluster, rng.integers(0, n_cluster, 200))
    table = contingency(labels, clusters, n_label, n_cluster)
    assert adjusted_rand(table) == pytest.approx(adjusted_rand_score(labels, clusters))
    assert mutual_information(table) == pytest.approx(normalized_mutual_info_score(labels, clusters))
    found = agreement(table)
    for name in ("accuracy", "nmi", "ari"):
        low, high = found[f"{name}_interval95"]
        assert low < found[name] < high and high - low < 0.3


def test_the_assignment_is_the_best_of_all():
    table = np.random.default_rng(1).integers(0, 20, (3, 3))
    best = right_under(table, best_assignment(table))
    assert best == max(sum(table[a, k] for k, a in enumerate(one)) for one in itertools.permutations(range(3)))


def test_neighbours_are_the_nearest_by_direction_without_oneself():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(30, 4))
    there = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = there @ there.T - 9 * np.eye(30)
    np.testing.assert_array_equal(nearest(vectors, 3), np.argsort(-near, axis=1)[:, :3])
    assert nearest(vectors[:3], 20).shape == (3, 2)
