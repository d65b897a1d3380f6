"""Stamps come in the order asked for, and what is wrong with a file is said with its name."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lenspipe.errors import DataError
from lenspipe.learn.order import epoch_order, in_turn
from lenspipe.learn.stream import StampIndex, ahead, batches_of, read_rows
from lenspipe.stamps.format import StampSet


def test_any_rows_in_any_order_are_those_of_the_data_set(toy_stamps: Path) -> None:
    data = StampSet.open(toy_stamps)
    index = StampIndex.of(data, "image")
    rows = np.array([239, 0, 80, 81, 80, 160, 3])
    np.testing.assert_array_equal(read_rows(index, rows), data.read_images("image", rows))


def test_an_epoch_comes_batch_by_batch_with_the_stamps_of_its_rows(toy_stamps: Path) -> None:
    data = StampSet.open(toy_stamps)
    index = StampIndex.of(data, "image")
    order = epoch_order(np.arange(0, 240, 2), np.ones(120), index.group_starts, n_total=128, window=2, seed=1, epoch=0)
    seen = list(batches_of(index, order, batch_size=16))
    assert [len(rows) for rows, _ in seen] == [16] * 8
    assert np.array_equal(np.concatenate([rows for rows, _ in seen]), order.rows)
    np.testing.assert_array_equal(np.concatenate([s for _, s in seen]), data.read_images("image", order.rows))


def test_leaving_early_ends_the_reading_thread(toy_stamps: Path) -> None:
    index = StampIndex.of(StampSet.open(toy_stamps), "image")
    batches = batches_of(index, in_turn(np.arange(240), index.group_starts, 1), batch_size=8)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "read-stamps"]


def test_an_error_of_the_reader_comes_out_in_its_place() -> None:
    def read(block):
        if block[0] == 2:
            raise DataError("broken", block=2)
        return block[0]

    stream = ahead(read, [np.array([k]) for k in range(4)])
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(DataError, match="broken"):
        next(stream)


def test_a_stamp_that_is_not_finite_is_named_by_its_row(stamp_maker, tmp_path: Path) -> None:
    folder = stamp_maker(tmp_path / "stamps", 20, n_part=2)
    path = folder / "part-1.parquet"
    table = pq.read_table(path)
    values = table.column("image").combine_chunks().flatten().to_numpy(zero_copy_only=False).copy()
    size = table.schema.field("image").type.list_size
    values[3 * size + 7] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(values), size)
    pq.write_table(table.set_column(1, table.schema.field("image"), column), path)  # as other software may
    index = StampIndex.of(StampSet.open(folder), "image")
    with pytest.raises(DataError, match=r"must be finite.*n=1, first_row=13"):
        read_rows(index, np.arange(20))


def test_a_damaged_part_is_named(stamp_maker, tmp_path: Path) -> None:
    folder = stamp_maker(tmp_path / "stamps", 20, n_part=2)
    index = StampIndex.of(StampSet.open(folder), "image")
    path = folder / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cannot be read.*part-0\.parquet"):
        read_rows(index, np.arange(3))
