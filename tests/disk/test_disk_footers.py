import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lenspipe import tables
from lenspipe.errors import DataError
from lenspipe.footers import check_seal, seal
from lenspipe.tables import open_parquet, read_footer, read_parquet, read_schema, table_writer, write_table

TABLE = pa.table({"ra": np.arange(40.0), "id": [f"c{k}" for k in range(40)]})


def footer_of(raw):
    """First and last byte of the footer and its length."""
    return len(raw) - 8 - int.from_bytes(raw[-8:-4], "little"), len(raw) - 4


@pytest.mark.parametrize("read", [read_parquet, open_parquet, read_schema, read_footer])
def test_a_flipped_bit_anywhere_in_a_footer_is_an_error(tmp_path, read):
    write_table(TABLE, tmp_path / "t.parquet")
    raw = (tmp_path / "t.parquet").read_bytes()
    start, end = footer_of(raw)
    rng = np.random.default_rng(1)
    for at, bit in zip(rng.integers(start, end, 60), rng.integers(0, 8, 60), strict=True):
        made = bytearray(raw)
        made[at] ^= 1 << bit
        (tmp_path / "d.parquet").write_bytes(made)
        with pytest.raises(DataError, match="damaged"):
            read(tmp_path / "d.parquet")


def test_a_renamed_column_passes_arrow_and_not_us(tmp_path):
    write_table(TABLE, tmp_path / "t.parquet")
    raw = (tmp_path / "t.parquet").read_bytes()
    start, _ = footer_of(raw)
    (tmp_path / "t.parquet").write_bytes(raw[:start] + raw[start:].replace(b"\x02ra", b"\x02sa"))
    assert pq.read_table(tmp_path / "t.parquet").num_rows == 40
    with pytest.raises(DataError, match="its footer differs from its checksum"):
        read_parquet(tmp_path / "t.parquet")


def test_sealed_tables_are_read_by_others_and_those_of_before_and_of_others_by_us(tmp_path):
    import duckdb
    import polars

    with table_writer(tmp_path / "pieces.parquet", TABLE.schema) as writer:
        writer.write(TABLE)
    write_table(TABLE, tmp_path / "whole.parquet")
    for file in ("pieces.parquet", "whole.parquet"):
        path = tmp_path / file
        assert b"lenspipe:sha256:" in path.read_bytes()
        assert pq.read_table(path, page_checksum_verification=True).equals(TABLE)
        assert polars.read_parquet(path).to_arrow()["ra"].to_pylist() == TABLE["ra"].to_pylist()
        assert duckdb.sql(f"select count(*), max(id) from '{path}'").fetchone() == (40, "c9")
    pq.write_table(TABLE, tmp_path / "old.parquet")
    assert read_parquet(tmp_path / "old.parquet").equals(TABLE)


def test_a_table_of_more_rows_than_its_bytes_can_hold_is_refused_before_they_are_made(tmp_path, monkeypatch):
    pq.write_table(pa.table({"a": pa.array(np.zeros(3_000_000, np.int8))}), tmp_path / "t.parquet", compression="zstd")
    assert read_parquet(tmp_path / "t.parquet").num_rows == 3_000_000
    monkeypatch.setattr(tables, "_CELLS", 1_000_000)
    monkeypatch.setattr(tables, "_CELLS_PER_BYTE", 10)
    with pytest.raises(DataError, match=r"3000000 rows in \d+ bytes"):
        read_parquet(tmp_path / "t.parquet")


def test_a_seal_is_set_once_and_what_is_no_parquet_is_left_to_arrow(tmp_path):
    write_table(TABLE, tmp_path / "t.parquet")
    raw = (tmp_path / "t.parquet").read_bytes()
    seal(tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").read_bytes() == raw
    for n in (0, 3, 11, 40, len(raw) - 1):
        (tmp_path / "cut.parquet").write_bytes(raw[:n])
        check_seal(tmp_path / "cut.parquet")
        with pytest.raises(DataError):
            read_parquet(tmp_path / "cut.parquet")
