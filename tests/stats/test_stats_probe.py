"""The probe is at chance where two kinds are alike, finds what differs, and does not learn hosts by heart."""

from __future__ import annotations

import numpy as np

from lenspipe.stats.probe import tell_apart


def test_what_is_alike_is_at_chance(rng: np.random.Generator) -> None:
    found = tell_apart(rng.normal(size=(200, 40)), np.arange(200) < 100, np.arange(200), rng)
    low, high = found["interval95"]
    assert low < 0.5 < high and 0.38 < found["auc"] < 0.62


def test_a_shift_is_found_with_the_area_that_it_has(rng: np.random.Generator) -> None:
    x = rng.normal(size=(600, 3))
    x[:300, 1] += 1.0
    found = tell_apart(x, np.arange(600) < 300, np.arange(600), rng)
    assert abs(found["auc"] - 0.76) < 0.05  # Phi(1 / sqrt(2))
    assert found["interval95"][0] < 0.76 < found["interval95"][1]


def test_rows_of_one_host_that_are_the_same_teach_nothing(rng: np.random.Generator) -> None:
    hosts = rng.normal(size=(60, 10))
    both = np.repeat(hosts, 2, axis=0)
    found = tell_apart(both, np.arange(120) % 2 == 0, np.repeat(np.arange(60), 2), rng)
    assert found["auc"] == 0.5


def test_too_few_hosts_say_nothing(rng: np.random.Generator) -> None:
    found = tell_apart(rng.normal(size=(60, 2)), np.arange(60) < 30, np.arange(60) % 30 // 5, rng)
    assert found["auc"] is None and "fewer than 8 hosts" in found["why"]
