from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_stamps import make_stamps

from lenspipe.cli import run_command
from lenspipe.cli.stamps import command
from lenspipe.errors import DataError
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.joined import Source, open_stamps, surveys_of
from lenspipe.stamps.merge import merge


def renamed(folder, prefix, **columns):
    for part in sorted(folder.glob("*.parquet")):
        table = pq.read_table(part)
        for name in ("stamp_id", "host"):
            at = table.schema.get_field_index(name)
            values = pa.array([prefix + value for value in table[name].to_pylist()])
            table = table.set_column(at, table.schema.field(at), values)
        for name, value in columns.items():
            table = table.append_column(name, pa.array([value] * table.num_rows))
        pq.write_table(table, part)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    renamed(make_stamps(folder / "a", 20), "a-", grade=2)
    renamed(make_stamps(folder / "b", 15), "b-", survey="kids")
    return folder


def test_a_merged_set_is_what_the_two_are_together(two, tmp_path):
    merged = merge([two / "a", two / "b"], tmp_path / "c")
    assert merged.n == {"a": 20, "b": 15}
    assert merged.hosts_in_two_splits == ()
    whole, parts = StampSet.open(tmp_path / "c"), open_stamps([Source(str(two / "a")), Source(str(two / "b"))])
    assert whole.schema.names == parts.schema.names
    assert whole.images == parts.images
    (one,), (other,) = (list(stamps.iter_batches(batch_size=100)) for stamps in (whole, parts))
    assert one.to_pylist() == other.to_pylist()
    assert list(surveys_of(whole)) == ["a"] * 20 + ["kids"] * 15


def test_what_was_merged_before_keeps_where_it_is_from(two, tmp_path):
    merge([two / "a", two / "b"], tmp_path / "c")
    renamed(make_stamps(tmp_path / "d", 5), "d-")
    merge([tmp_path / "c", tmp_path / "d"], tmp_path / "e")
    assert list(StampSet.open(tmp_path / "e").column("data_set")) == ["a"] * 20 + ["b"] * 15 + ["d"] * 5


def test_a_name_that_occurs_twice_is_refused_with_both_sets(two, tmp_path):
    renamed(make_stamps(tmp_path / "a2", 5), "a-")
    with pytest.raises(DataError, match=r"same name.*stamp_id='a-s0000', one='a', other='a2'"):
        merge([two / "a", tmp_path / "a2"], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_command_says_which_host_lies_in_two_splits(two, tmp_path, capsys):
    folder = make_stamps(tmp_path / "x", 3, n_part=1)
    (part,) = folder.glob("*.parquet")
    table = pq.read_table(part)
    for name, values in (("stamp_id", ["x0", "x1", "x2"]), ("host", ["a-h0"] * 3), ("split", ["test"] * 3)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values))
    pq.write_table(table, part)
    with pytest.raises(SystemExit) as ended:
        run_command(command, ["merge", str(two / "a"), str(folder), "--out", str(tmp_path / "c")])
    assert ended.value.code == 3
    assert "1 hosts are in one split here and in another there, such as a-h0" in capsys.readouterr().out
