"""Votes of neighbours, the linear probe and the uniformity against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest

from lenspipe.stats.neighbours import at_parts, labelled_part, uniformity, votes


def two_directions(rng, n, spread=0.2):
    labels = rng.integers(0, 2, n)
    return np.eye(2)[labels] + rng.normal(0, spread, (n, 2)), labels


def test_the_only_neighbour_decides_and_no_vector_votes_for_itself():
    known, labels = np.array([[1.0, 0], [0, 1], [1, 0.1]]), np.array([0, 1, 2])
    np.testing.assert_array_equal(votes(known * 5, known, labels, 3, k=1), np.eye(3))
    alone = votes(known, known, labels, 3, k=1, itself=True)
    np.testing.assert_array_equal(alone.argmax(axis=1), [2, 2, 0])


def test_votes_in_blocks_are_those_of_the_whole(monkeypatch):
    vectors, labels = two_directions(np.random.default_rng(1), 40)
    whole = votes(vectors, vectors, labels, 2, itself=True)
    monkeypatch.setattr("lenspipe.stats.neighbours.BLOCK", 7)
    np.testing.assert_allclose(votes(vectors, vectors, labels, 2, itself=True), whole)


def test_uniformity_is_nothing_where_all_are_one_and_falls_with_the_spread():
    rng = np.random.default_rng(2)
    assert uniformity(np.ones((20, 8)) * rng.uniform(1, 2, (20, 1))) == pytest.approx(0)
    assert uniformity(rng.normal(size=(400, 64))) == pytest.approx(-4, abs=0.2)


def test_parts_of_the_labels_hold_every_class_and_lie_within_each_other():
    labels = np.repeat([0, 1, 2], [100, 10, 1])
    small, large = (labelled_part(labels, part, np.random.default_rng(0)) for part in (0.1, 0.5))
    assert np.bincount(labels[small]).tolist() == [10, 1, 1]
    assert set(small) <= set(large)


def test_more_labels_tell_more_and_shuffled_ones_nothing():
    rng = np.random.default_rng(4)
    known, labels = two_directions(rng, 300)
    query, answers = two_directions(rng, 300)
    few, all_of_them = at_parts(query, answers, known, labels, 2, parts=(0.01, 1.0), seed=0)
    assert all_of_them["knn"]["auc"] > 0.98 and all_of_them["linear"]["auc"] > 0.98
    assert few["n_label"] <= 4
    (shuffled,) = at_parts(query, answers, known, rng.permutation(labels), 2, parts=(1.0,), seed=0)
    assert shuffled["linear"]["auc_interval95"][0] < 0.6
