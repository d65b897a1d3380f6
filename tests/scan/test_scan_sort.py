import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.scan.sort import write_sorted

SCHEMA = pa.schema([("candidate_id", pa.string()), ("score", pa.float64()), ("x", pa.int32())])


def table_of(scores):
    ids = [f"s_{i * 7919 % 10007}" for i in range(len(scores))]
    return pa.table({"candidate_id": ids, "score": scores, "x": np.arange(len(scores), dtype="i4")}, schema=SCHEMA)


def expected(table):
    rows = table.to_pylist()
    return sorted(rows, key=lambda r: (r["score"] is None, -(r["score"] or 0), r["candidate_id"]))


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(st.one_of(st.none(), st.sampled_from([0.5, 0.25]), st.floats(0, 1)), max_size=200),
    chunk=st.integers(1, 40),
    bucket=st.integers(3, 300),
)
def test_rows_come_out_sorted_whatever_the_chunks_and_buckets(tmp_path_factory, scores, chunk, bucket):
    folder = tmp_path_factory.mktemp("sort")
    table = table_of(scores)
    write_sorted(
        folder / "out.parquet",
        SCHEMA,
        lambda: (table.slice(i, chunk) for i in range(0, table.num_rows, chunk)),
        n_row=table.num_rows,
        scratch=folder / "scratch",
        bucket_rows=bucket,
    )
    assert pq.read_table(folder / "out.parquet").to_pylist() == expected(table)
    assert not (folder / "scratch").exists()


def test_no_bucket_is_much_larger_than_asked(tmp_path, monkeypatch):
    import lenspipe.scan.sort as sort_module

    sizes = []
    real = sort_module._sorted
    monkeypatch.setattr(sort_module, "_sorted", lambda t: sizes.append(t.num_rows) or real(t))
    table = table_of([None] * 3000 + list(np.random.default_rng(0).random(3000)))
    chunks = [table.slice(i, 100) for i in range(0, 6000, 100)]
    write_sorted(tmp_path / "o", SCHEMA, lambda: iter(chunks), n_row=6000, scratch=tmp_path / "s", bucket_rows=1000)
    assert sum(sizes) == 6000
    assert max(sizes) < 1500


def test_an_empty_table_is_written_with_its_columns(tmp_path):
    write_sorted(tmp_path / "o", SCHEMA, lambda: iter(()), n_row=0, scratch=tmp_path / "s")
    assert pq.read_table(tmp_path / "o").schema == SCHEMA


def test_the_scratch_folder_goes_when_a_chunk_fails(tmp_path):
    def chunks():
        yield table_of([0.1] * 50)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_sorted(tmp_path / "o", SCHEMA, chunks, n_row=100, scratch=tmp_path / "s", bucket_rows=10)
    assert not (tmp_path / "s").exists()
