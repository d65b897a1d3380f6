"""Distances of made and taken stamps against brute force and other people's code; what physics says of drawn stamps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from lenspipe.stats.generated import frechet_distance, nearest, profile_distance, support, wasserstein
from lenspipe.stats.stamp_physics import noise_facts, opposition, per_stamp


def test_the_frechet_distance_is_that_of_the_matrix_root(rng):
    one, other = rng.normal(0, 1, (200, 6)) @ rng.normal(0, 1, (6, 6)), rng.normal(0.3, 2, (150, 6))
    first, second = np.cov(one.T), np.cov(other.T)
    want = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(one, other) == pytest.approx(want, rel=1e-9)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_neighbours_and_supports_are_those_of_brute_force(rng):
    taken, made = rng.normal(0, 1, (90, 3)), rng.normal(0.4, 0.7, (70, 3))

    def distances(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    assert np.allclose(nearest(made, taken, 4), np.sort(distances(made, taken), axis=1)[:, :4])
    radius = {name: np.sort(distances(x, x), axis=1)[:, 3] for name, x in (("taken", taken), ("made", made))}
    precision = (distances(made, taken) <= radius["taken"]).any(axis=1).mean()
    recall = (distances(taken, made) <= radius["made"]).any(axis=1).mean()
    assert support(taken, made) == (precision, recall) and 0.3 < recall < precision
    assert nearest(taken + 1e6, taken + 1e6, 1).max() == 0  # large numbers lose digits in a product, not here


def test_a_shift_of_one_spread_is_a_distance_of_one(rng):
    stamps = rng.normal(0, 1, (300, 1, 8, 8)) + rng.normal(0, 3, (300, 1, 1, 1))
    value, (low, high) = profile_distance(stamps + 3, stamps)
    assert value == pytest.approx(1, abs=0.1) and low <= value <= high
    assert profile_distance(stamps[:150], stamps[150:])[0] < 0.2
    assert wasserstein(np.ones(3), np.ones(3)) == 0 and wasserstein(np.zeros(3), np.ones(3)) == float("inf")


def test_opposite_arcs_are_told_from_one_sided_ones(rng):
    y, x = np.mgrid[:32, :32] - 15.5
    right, left = (np.exp(-((x - a) ** 2 + y**2) / 8) for a in (9, -9))
    both, one, neither = (opposition(10 * image + rng.normal(0, 1, (20, 32, 32))) for image in (right + left, right, 0))
    assert both.min() > 0.8 and one.max() < 0.2 and abs(neither).mean() < 0.4
    assert (opposition(np.zeros((2, 8, 8))) == 0).all()


def test_noise_and_its_correlation_are_those_that_were_drawn(rng):
    white = rng.normal(0, 2, (150, 2, 24, 24))
    facts = noise_facts(white, ("g", "r"))
    assert facts["sigma_g"] == pytest.approx(2, rel=0.03)
    assert all(abs(facts[name]) < 0.02 for name in ("lag_0_1", "lag_1_0", "lag_1_1", "bands_g_r"))
    smeared = white + np.roll(white, 1, axis=3)
    facts = noise_facts(smeared + 3 * smeared[:, ::-1], ("g", "r"))
    assert facts["lag_0_1"] == pytest.approx(0.5, abs=0.05) and abs(facts["lag_1_0"]) < 0.03
    assert facts["bands_g_r"] == pytest.approx(0.6, abs=0.05)
    numbers = per_stamp(white + 5, ("g", "r"))
    assert np.median(numbers["flux_g"]) == pytest.approx(np.arcsinh(5 * 24 / 2), abs=0.05)
    assert np.median(numbers["profile_r_0"]) == pytest.approx(np.arcsinh(2.5), abs=0.1)
