import numpy as np
import pyarrow as pa
import pytest
from catalog_rows import candidates, entries_of
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.catalog.merge import merge_duplicates
from lenspipe.errors import ConfigError


def separation(table, i, j):
    ra, dec = np.radians(table["ra"].to_numpy()), np.radians(table["dec"].to_numpy())
    a = np.sin((dec[i] - dec[j]) / 2) ** 2 + np.cos(dec[i]) * np.cos(dec[j]) * np.sin((ra[i] - ra[j]) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(a))) * 3600


def brute_force(table, radius_arcsec):
    """The rule as it is stated, one row after the other."""
    rows = table.to_pylist()

    def quality(i):
        r = rows[i]
        errors = sum(r[k] if r[k] is not None else np.inf for k in r if k.startswith("flux_err_"))
        cover = 1 - r["covered_fraction"]
        return r["score"] is None, r["flags"] & 2, r["mask_fraction"], cover, errors, r["candidate_id"], r["run_id"]

    order = sorted(range(len(rows)), key=quality)
    place = {i: p for p, i in enumerate(order)}
    stands_for, free = list(range(len(rows))), set(range(len(rows)))
    for i in order:
        if i not in free:
            continue
        free.discard(i)
        near = sorted((separation(table, i, j), place[j], j) for j in free if separation(table, i, j) <= radius_arcsec)
        taken = {(rows[i]["run_id"], rows[i]["shard_id"])}
        for _, _, j in near:
            shard = rows[j]["run_id"], rows[j]["shard_id"]
            if shard not in taken:
                taken.add(shard)
                free.discard(j)
                stands_for[j] = i
    return np.array(stands_for)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    centre=st.sampled_from([(0.0, 0.0), (150.0, 2.0), (10.0, 89.9999), (200.0, -90.0), (359.9999, 60.0)]),
    n=st.integers(2, 40),
)
def test_merging_follows_the_stated_rule_also_at_the_poles_and_at_ra_0(seed, centre, n):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-3, 3, (2, n)) / 3600
    if abs(centre[1]) > 89:
        r, angle = np.hypot(x, y), np.degrees(np.arctan2(y, x))
        ra, dec = angle, np.sign(centre[1]) * (90 - r)
    else:
        ra, dec = centre[0] + x / np.cos(np.radians(centre[1])), centre[1] + y
    table = candidates(ra, dec, rng=rng, shard=rng.integers(0, 4, n))
    merged = merge_duplicates(table, radius_arcsec=1.0)
    np.testing.assert_array_equal(merged.stands_for, brute_force(table, 1.0))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_the_result_does_not_depend_on_the_order_of_rows(seed):
    rng = np.random.default_rng(seed)
    table = candidates(150 + rng.uniform(-2, 2, 60) / 3600, rng.uniform(-2, 2, 60) / 3600, rng=rng)
    shuffled = table.take(pa.array(rng.permutation(60)))
    one, two = (
        t.filter(pa.array(merge_duplicates(t, radius_arcsec=1.0).kept)).sort_by("candidate_id")
        for t in (table, shuffled)
    )
    assert one.equals(two)


def test_counts_of_detections_add_up_to_the_rows_that_came_in(rng):
    ra, dec = 150 + rng.uniform(-5, 5, 300) / 3600, rng.uniform(-5, 5, 300) / 3600
    found = entries_of(candidates(ra, dec, rng=rng, shard=rng.integers(0, 6, 300)))
    assert sum(found["n_detection"].to_pylist()) == 300
    assert 0 < found.num_rows < 300


def test_two_sources_of_one_shard_stay_two(rng):
    table = candidates([150.0, 150.0 + 0.3 / 3600], [2.0, 2.0], rng=rng, shard=[0, 0])
    assert entries_of(table).num_rows == 2


def test_the_row_that_no_edge_cuts_is_kept_whatever_the_scores(rng):
    table = candidates([150.0, 150.0], [2.0, 2.0], rng=rng)
    table = table.set_column(table.column_names.index("flags"), "flags", pa.array([2, 0], pa.int32()))
    table = table.set_column(
        table.column_names.index("mask_fraction"), "mask_fraction", pa.array([0, 0.2], pa.float32())
    )
    table = table.set_column(table.column_names.index("score"), "score", pa.array([0.9, 0.1]))
    kept = entries_of(table)
    assert kept["candidate_id"].to_pylist() == ["t_1_n1"]
    assert kept["n_detection"].to_pylist() == [2]


def test_a_nan_score_becomes_null_and_ranks_nowhere(rng):
    table = candidates([150.0, 151.0], [2.0, 2.0], rng=rng)
    table = table.set_column(table.column_names.index("score"), "score", pa.array([np.nan, 0.1]))
    found = entries_of(table)
    assert found["score"].to_pylist() == [0.1, None]
    assert found["rank"].to_pylist() == [1, None]


def test_a_row_without_a_position_is_refused_by_name(rng):
    table = candidates([150.0, np.nan], [2.0, 2.0], rng=rng)
    with pytest.raises(ConfigError, match=r"no position.*t_1_n1"):
        merge_duplicates(table, radius_arcsec=1.0)


@pytest.mark.parametrize("radius", [0.0, -1.0, np.nan, 7200.0])
def test_a_radius_that_is_none_is_refused(radius, rng):
    with pytest.raises(ConfigError, match="radius"):
        merge_duplicates(candidates([1.0], [1.0], rng=rng), radius_arcsec=radius)


def test_a_nan_probability_becomes_null_with_its_prior_and_calibration(rng):
    table = candidates([150.0, 151.0], [2.0, 2.0], rng=rng)
    table = table.set_column(table.column_names.index("probability"), "probability", pa.array([np.nan, 0.1]))
    table = table.set_column(table.column_names.index("score"), "score", pa.array([0.9, 0.2]))
    found = entries_of(table, prior=[0.01, 0.01], calibration=["c", "c"])
    assert found["probability"].to_pylist() == [None, 0.1]
    assert found["prior"].to_pylist() == [None, 0.01]
    assert found["calibration"].to_pylist() == ["", "c"]
