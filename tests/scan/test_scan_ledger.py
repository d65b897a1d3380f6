import pyarrow as pa
import pytest

from lenspipe.disk import remove_scratch
from lenspipe.scan import attempts, ledger


def part(**status):
    return pa.table({"shard_id": list(status), "status": list(status.values()), "n_candidate": [1] * len(status)})


def test_only_ok_shards_are_done(tmp_path):
    ledger.write_part(tmp_path, "p1", part(a="ok", b="failed"))
    ledger.write_part(tmp_path, "p2", part(c="ok"))
    assert ledger.done_shards(tmp_path) == {"a", "c"}


def test_the_first_ok_row_counts_else_the_last_failed_and_parts_are_read_once(tmp_path, monkeypatch):
    for name, rows in (("p1", "Ca fb"), ("p2", "fa ob fc"), ("p3", "oa ob fc"), ("p4", "fa ox")):
        table = part(**{one[1]: {"f": "failed", "o": "ok", "C": "failed"}[one[0]] for one in rows.split()})
        ledger.write_part(tmp_path, name, table.set_column(2, "n_candidate", [[int(name[1])] * table.num_rows]))
    read, parts, known = [], ledger.part_files(tmp_path), ledger._read
    monkeypatch.setattr(ledger, "_read", lambda path, columns=None: read.append(path.stem) or known(path, columns))
    rows = pa.concat_tables(ledger.iter_counted(parts, {"a", "b", "c"}, ["shard_id", "n_candidate"])).to_pylist()
    assert [tuple(row.values()) for row in rows] == [("b", 2), ("a", 3), ("c", 3)], "failed ones last"
    assert read == ["p1", "p2", "p3", "p4", "p3"], "again only where a failed row counts"
    everything = pa.concat_tables(ledger.iter_counted(parts))
    assert sorted(everything["shard_id"].to_pylist()) == ["a", "b", "c", "x"] and everything.num_columns == 3
    assert ledger.counted_shards(tmp_path) == {"a", "b", "c", "x"}


def test_a_part_written_twice_under_one_name_is_there_once(tmp_path):
    ledger.write_part(tmp_path, "p", part(a="failed"))
    assert ledger.write_part(tmp_path, "p", part(a="ok")) == {"shards": 1, "failed": 0, "candidates": 1}
    assert len(ledger.part_files(tmp_path)) == 1
    assert ledger.done_shards(tmp_path) == {"a"}


def test_a_write_that_fails_leaves_the_old_part_and_no_leftovers(tmp_path, monkeypatch):
    ledger.write_part(tmp_path, "p", part(a="ok"))

    def full_disk(table, path, **_):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(ledger.pq, "write_table", full_disk)
    with pytest.raises(OSError, match="No space"):
        ledger.write_part(tmp_path, "p", part(a="failed"))
    monkeypatch.undo()
    assert ledger.done_shards(tmp_path) == {"a"}
    assert [p.name for p in tmp_path.iterdir()] == ["p.parquet"]


def test_leftovers_of_a_killed_writer_are_no_parts_and_are_removed(tmp_path):
    (tmp_path / ".p.parquet.12345678.tmp").write_bytes(b"half")
    assert ledger.part_files(tmp_path) == []
    remove_scratch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_catalogue_half_written_is_removed_too(tmp_path):
    (tmp_path / ".catalog.12345678.tmp" / "hats").mkdir(parents=True)
    (tmp_path / ".catalog.12345678.tmp" / "hats" / "properties").write_text("half")
    remove_scratch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_markers_count_deaths_of_one_stage_of_one_shard(tmp_path):
    attempts.begin(tmp_path, "read", "T_x0y0c64")
    attempts.begin(tmp_path, "read", "T_x0y0c64")
    attempts.begin(tmp_path, "score", "T_x0y0c64")
    attempts.begin(tmp_path, "read", "T_x64y0c64")
    assert attempts.deaths(tmp_path, "read", "T_x0y0c64") == 2
    attempts.clear(tmp_path, "read", "T_x0y0c64")
    assert attempts.deaths(tmp_path, "read", "T_x0y0c64") == 0
    assert attempts.deaths(tmp_path, "score", "T_x0y0c64") == 1
    assert attempts.deaths(tmp_path / "none", "read", "a") == 0
