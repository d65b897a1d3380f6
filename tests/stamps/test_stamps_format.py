from __future__ import annotations

import json

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import DataError
from lenspipe.stamps import format as stamp_format
from lenspipe.stamps.format import ImageSpec, StampSet, image_array, image_column, stamp_schema, write_part

SPEC = ImageSpec(("g", "r", "i"), 16, 0.2)


@pytest.fixture
def two_parts(tmp_path, make_table, monkeypatch):
    monkeypatch.setattr(stamp_format, "ROW_GROUP_BYTES", 7 * 3 * 16 * 16 * 4)
    tables = [make_table(30), make_table(23, first=30)]
    for k, table in enumerate(tables):
        write_part(table, tmp_path, f"part-{k}")
    return StampSet.open(tmp_path), pa.concat_tables(tables)


def test_what_is_written_is_read_back_bit_by_bit(two_parts):
    stamps, table = two_parts
    assert stamps.n == 53
    assert stamps.images == {"image": SPEC}
    np.testing.assert_array_equal(stamps.read_images(), image_array(table, "image"))
    for name in ("stamp_id", "label", "host", "split", "theta_e_arcsec"):
        assert list(stamps.column(name)) == table.column(name).to_pylist()


def test_rows_come_in_the_order_asked_for(two_parts):
    stamps, table = two_parts
    everything = image_array(table, "image")

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(0, 52), max_size=20))
    def any_rows(rows):
        np.testing.assert_array_equal(stamps.read_images(indices=rows), everything[np.array(rows, int)])

    any_rows()


@pytest.mark.parametrize("batch_size", [1, 8, 30, 53, 100])
@pytest.mark.parametrize("split", [None, "train", "test"])
def test_batches_hold_every_row_of_a_split_once_and_in_order(two_parts, batch_size, split):
    stamps, table = two_parts
    batches = list(stamps.iter_batches(["stamp_id", "image"], batch_size=batch_size, split=split))
    want = [
        n for n, s in zip(table["stamp_id"].to_pylist(), table["split"].to_pylist(), strict=True) if split in (None, s)
    ]
    assert [name for batch in batches for name in batch["stamp_id"].to_pylist()] == want
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert batches[0].schema.names == ["stamp_id", "image"]
    pixels = np.concatenate([image_array(batch, "image") for batch in batches])
    np.testing.assert_array_equal(pixels, stamps.read_images(split=split))


def test_memory_is_bounded_by_the_batch_and_not_by_the_data_set(tmp_path, make_table):
    spec = ImageSpec(("g",), 128, 0.2)
    schema = stamp_schema({"image": spec})
    rng = np.random.default_rng(1)
    for part in range(4):
        names = [f"{part}-{k}" for k in range(500)]
        pixels = image_column(rng.normal(size=(500, *spec.shape)), spec)
        filler = {"seed": pa.nulls(500, pa.int64()), "stamp_id": pa.array(names)}
        columns = [pixels if n == "image" else filler.get(n, pa.array(["x"] * 500)) for n in schema.names]
        write_part(pa.table(columns, schema=schema), tmp_path, str(part))
    del pixels, columns
    data_bytes = 2000 * 128 * 128 * 4
    before, peak = pa.total_allocated_bytes(), 0
    for _ in StampSet.open(tmp_path).iter_batches(batch_size=32):
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < data_bytes / 5


def test_the_schema_says_what_the_pixels_are(two_parts):
    stamps, _ = two_parts
    facts = stamps.schema.field("image").metadata
    assert json.loads(facts[b"shape"]) == [3, 16, 16]
    assert json.loads(facts[b"bands"]) == ["g", "r", "i"]
    assert float(facts[b"pixel_scale_arcsec"]) == 0.2
    assert facts[b"unit"] == b"nJy"
    assert stamps.schema.field("theta_e_arcsec").metadata[b"unit"] == b"arcsec"


def test_polars_and_duckdb_read_the_same_pixels(two_parts, tmp_path):
    _, table = two_parts
    want = image_array(table, "image")
    np.testing.assert_array_equal(pl.read_parquet(tmp_path / "*.parquet")["image"].to_numpy().reshape(want.shape), want)
    rows = duckdb.sql(f"select image from '{tmp_path}/*.parquet' where stamp_id = 'stamp-31'").fetchall()
    np.testing.assert_array_equal(np.array(rows[0][0], np.float32).reshape(SPEC.shape), want[31])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused(bad, tmp_path, make_table):
    stamps = np.zeros((5, *SPEC.shape), np.float32)
    stamps[3, 1, 2, 2] = bad
    with pytest.raises(DataError, match=r"must be finite.*n=1, first=3"):
        image_column(stamps, SPEC)
    table = make_table(5)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(stamps.ravel()), 3 * 16 * 16)
    at = table.schema.get_field_index("image")
    with pytest.raises(DataError, match="must be finite before they are written"):
        write_part(table.set_column(at, table.schema.field("image"), flat), tmp_path, "part")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_part_and_nothing_else(tmp_path, make_table, monkeypatch):
    write_part(make_table(4), tmp_path, "part")

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(stamp_format.pq.ParquetWriter, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        write_part(make_table(9), tmp_path, "part")
    assert [p.name for p in tmp_path.iterdir()] == ["part.parquet"]
    assert StampSet.open(tmp_path).n == 4


def test_a_part_of_the_same_name_is_replaced(tmp_path, make_table):
    write_part(make_table(4), tmp_path, "part")
    assert write_part(make_table(9), tmp_path, "part.parquet") == tmp_path / "part.parquet"
    assert StampSet.open(tmp_path).n == 9


def test_two_image_columns_live_side_by_side(tmp_path):
    images = {"image_vis": ImageSpec(("VIS",), 20, 0.1), "image_nir": ImageSpec(("J", "Y", "H"), 7, 0.3)}
    schema = stamp_schema(images)
    rng = np.random.default_rng(3)
    pixels = {name: rng.normal(size=(6, *spec.shape)).astype("f4") for name, spec in images.items()}
    columns = [
        image_column(pixels[n], images[n]) if n in images else pa.array([1] * 6 if n == "seed" else ["x"] * 6)
        for n in schema.names
    ]
    write_part(pa.table(columns, schema=schema), tmp_path, "part")
    stamps = StampSet.open(tmp_path)
    assert stamps.images == images
    for name in images:
        np.testing.assert_array_equal(stamps.read_images(name), pixels[name])


def test_an_empty_folder_a_foreign_table_and_mixed_parts_are_refused(tmp_path, make_table):
    with pytest.raises(DataError, match="no Parquet parts"):
        StampSet.open(tmp_path)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"columns are missing.*stamp_id"):
        StampSet.open(tmp_path)
    (tmp_path / "a.parquet").unlink()
    write_part(make_table(3), tmp_path, "a")
    write_part(make_table(3, velocity_km_s=[1.0, 2.0, 3.0]), tmp_path, "b")
    with pytest.raises(DataError, match="different schemas"):
        StampSet.open(tmp_path)
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-40])
    with pytest.raises(DataError, match="cannot be read"):
        StampSet.open(tmp_path)


def test_requests_for_what_is_not_there_are_refused(two_parts):
    stamps, _ = two_parts
    with pytest.raises(DataError, match=r"outside the data set.*highest=53"):
        stamps.read_images(indices=[0, 53])
    with pytest.raises(DataError, match="no such image column"):
        stamps.read_images("image_vis")
    with pytest.raises(DataError, match="no such scalar column"):
        stamps.column("image")
    with pytest.raises(DataError, match=r"not both"):
        stamps.read_images(indices=[1], split="train")
    with pytest.raises(DataError, match=r"no such columns.*colour"):
        next(stamps.iter_batches(["colour"], batch_size=2))


@pytest.mark.parametrize("bands", [(), ("g", "g")])
def test_bands_must_be_named_each_once(bands):
    with pytest.raises(DataError, match="each once"):
        ImageSpec(bands, 16, 0.2)
