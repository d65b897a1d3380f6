"""The order of an epoch: every row its share, the same for the same seed, few row groups at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.learn.order import Order, class_weights, curriculum_mask, epoch_order, in_turn

GROUPS = np.array([0, 30, 50, 90, 100])


def order(rows, weights, n_total, *, seed=1, epoch=0, window=2):
    return epoch_order(rows, weights, GROUPS, n_total=n_total, window=window, seed=seed, epoch=epoch)


@given(st.integers(1, 200), st.integers(0, 5), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_equal_weights_show_each_row_once_and_again_only_when_all_were_shown(n_total, epoch, window):
    rows = np.arange(3, 118)
    counts = np.bincount(order(rows, np.ones(len(rows)), n_total, epoch=epoch, window=window).rows, minlength=118)[3:]
    assert counts.sum() == n_total
    assert counts.max() - counts.min() <= 1


def test_the_same_seed_and_epoch_give_the_same_order_and_others_another():
    rows = np.arange(120)
    first = order(rows, np.ones(120), 120)
    assert np.array_equal(first.rows, order(rows, np.ones(120), 120).rows)
    assert not np.array_equal(first.rows, order(rows, np.ones(120), 120, epoch=1).rows)
    assert not np.array_equal(first.rows, order(rows, np.ones(120), 120, seed=2).rows)


def test_balanced_classes_have_equal_shares_whatever_their_numbers():
    labels = np.array([0] * 90 + [1] * 20 + [2] * 10)
    shown = order(np.arange(120), class_weights(labels), 120).rows
    np.testing.assert_allclose(np.bincount(labels[shown]), 40, atol=1)


def test_a_window_holds_whole_row_groups_and_each_group_lies_in_one_window():
    shown = order(np.arange(120), np.ones(120), 120)
    group = np.searchsorted(GROUPS, shown.rows, side="right") - 1
    assert (np.diff(shown.windows) >= 0).all()
    for number in range(len(GROUPS)):
        assert len(set(shown.windows[group == number])) == 1
    assert max(len(set(group[shown.windows == w])) for w in set(shown.windows)) == 2


@given(st.integers(1, 7), st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_workers_share_an_epoch_without_loss_and_blocks_are_whole_batches(n_worker, n_batch):
    batch = 4
    whole = order(np.arange(120), np.ones(120), n_batch * n_worker * batch)
    shares = [whole.share(rank, n_worker) for rank in range(n_worker)]
    assert np.array_equal(np.concatenate([share.rows for share in shares]), whole.rows)
    for share in shares:
        assert len(share.rows) == n_batch * batch
        blocks = share.blocks(batch)
        assert np.array_equal(np.concatenate(blocks), share.rows)
        assert all(len(block) % batch == 0 for block in blocks)


def test_rows_in_turn_may_end_within_a_batch_and_be_fewer_than_the_workers():
    shown = in_turn(np.arange(10), GROUPS, 1)
    parts = [shown.share(rank, 3).rows.tolist() for rank in range(3)]
    assert [row for part in parts for row in part] == list(range(10))
    assert [len(block) for block in shown.blocks(4)] == [10]
    few = in_turn(np.arange(1), GROUPS, 1)
    assert sorted(len(few.share(rank, 3).rows) for rank in range(3)) == [0, 0, 1]
    assert Order(np.array([], int), np.array([], int)).blocks(4) == []


def test_a_curriculum_starts_with_the_largest_and_keeps_what_has_no_size():
    sizes = np.array([1.0, 2.0, 3.0, 4.0, np.nan])
    assert curriculum_mask(sizes, epoch=0, start=0.5, epochs=4).tolist() == [False, False, True, True, True]
    assert curriculum_mask(sizes, epoch=4, start=0.5, epochs=4).all()
    admitted = [curriculum_mask(sizes, epoch=e, start=0.25, epochs=4).sum() for e in range(5)]
    assert admitted == sorted(admitted)


def test_rows_that_are_not_allowed_are_never_shown():
    labels, allowed = np.array([0, 0, 1, 1] * 30), np.arange(120) % 4 != 2
    shown = order(np.arange(120), class_weights(labels, allowed), 240).rows
    assert allowed[shown].all()
    assert np.bincount(labels[shown]).tolist() == pytest.approx([120, 120], abs=1)
