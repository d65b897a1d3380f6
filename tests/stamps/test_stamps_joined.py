from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_stamps import make_stamps

from lenspipe.errors import ConfigError, DataError
from lenspipe.stamps.format import StampSet, image_array
from lenspipe.stamps.joined import JoinedStamps, Source, open_stamps, parse_sources, surveys_of


def with_column(folder, name, values):
    for part in sorted(folder.glob("*.parquet")):
        table = pq.read_table(part)
        pq.write_table(table.append_column(name, pa.array([values] * table.num_rows)), part)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Data sets a (20 stamps, a column of its own) and b (12 stamps, a survey)."""
    folder = tmp_path_factory.mktemp("two")
    make_stamps(folder / "a", 20)
    make_stamps(folder / "b", 12, n_part=2)
    with_column(folder / "a", "grade", 3)
    with_column(folder / "b", "survey", "kids")
    return folder


def joined(folder, **b):
    return open_stamps([Source(str(folder / "a")), Source(str(folder / "b"), **b)])


def test_two_sets_are_read_as_the_rows_of_one_after_those_of_the_other(two):
    stamps, a, b = joined(two), StampSet.open(two / "a"), StampSet.open(two / "b")
    assert stamps.n == 32
    for name in ("stamp_id", "label", "split", "host"):
        assert list(stamps.column(name)) == [*a.column(name), *b.column(name)]
    np.testing.assert_array_equal(stamps.read_images()[[3, 25]], [a.read_images()[3], b.read_images()[5]])
    assert list(stamps.column("data_set")) == ["a"] * 20 + ["b"] * 12
    np.testing.assert_array_equal(stamps.column("grade"), [3.0] * 20 + [np.nan] * 12)
    assert list(stamps.column("survey")) == [None] * 20 + ["kids"] * 12


def test_batches_cross_from_one_set_to_the_other_and_hold_the_same_values(two):
    stamps = joined(two)
    batches = list(stamps.iter_batches(["data_set", "image", "survey", "grade"], batch_size=7, split="train"))
    assert [b.num_rows for b in batches[:-1]] == [7] * (len(batches) - 1)
    rows = np.flatnonzero(stamps.column("split") == "train")
    assert [v for b in batches for v in b["data_set"].to_pylist()] == list(stamps.column("data_set")[rows])
    pixels = np.concatenate([image_array(b, "image") for b in batches])
    np.testing.assert_array_equal(pixels, stamps.read_images("image", rows))
    assert [v for b in stamps.iter_batches(["data_set"], batch_size=50) for v in b["data_set"].to_pylist()] == list(
        stamps.column("data_set")
    )


def test_labels_that_do_not_count_are_null_and_a_survey_is_named_where_there_is_none(two):
    stamps = open_stamps([Source(str(two / "a"), survey="des"), Source(str(two / "b"), labels=("lens",), survey="x")])
    label, b = stamps.column("label"), StampSet.open(two / "b").column("label")
    assert [v for v in label[20:] if v is not None] == [v for v in b if v == "lens"]
    assert None not in label[:20]
    assert list(stamps.column("survey")) == ["des"] * 20 + ["kids"] * 12  # b names its own


def test_a_set_that_names_no_survey_is_one_of_its_own(two):
    assert set(surveys_of(joined(two))) == {"a", "kids"}
    assert surveys_of(StampSet.open(two / "a")) is None


def test_folders_of_one_name_are_told_apart_and_one_that_is_named_twice_is_refused(two, tmp_path):
    make_stamps(tmp_path / "a", 10)
    stamps = open_stamps([Source(str(two / "a")), Source(str(tmp_path / "a"))])
    assert isinstance(stamps, JoinedStamps)
    assert stamps.names == (f"{two.name}/a", f"{tmp_path.name}/a")
    with pytest.raises(ConfigError, match="a data set is named twice"):
        open_stamps([Source(str(two / "a")), Source(str(two / "b/../a"))])


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"size": 15}, r"differ in size.*one='.*/a: 13 px', other='.*/c: 15 px'"),
        ({"bands": ("g", "i")}, r"differ in bands.*/a: g r', other='.*/c: g i'"),
    ],
)
def test_stamps_that_differ_are_refused_by_the_names_of_both(two, tmp_path, other, match):
    make_stamps(tmp_path / "c", 10, **other)
    with pytest.raises(DataError, match=match):
        open_stamps([Source(str(two / "a")), Source(str(tmp_path / "c"))])


def test_a_column_of_words_and_one_of_numbers_do_not_join(two, tmp_path):
    make_stamps(tmp_path / "c", 10)
    with_column(tmp_path / "c", "grade", "A")
    with pytest.raises(DataError, match=r"a column is of another type in two data sets.*column='grade'"):
        open_stamps([Source(str(two / "a")), Source(str(tmp_path / "c"))])


def test_one_folder_is_opened_as_ever(two):
    assert type(open_stamps(parse_sources([str(two / "a")]))) is StampSet


def test_a_share_is_the_number_behind_a_colon_unless_a_folder_has_that_name(tmp_path):
    (tmp_path / "x:3").mkdir()
    assert parse_sources([f"{tmp_path}/x:3", "b:0.5"]) == (Source(f"{tmp_path}/x:3"), Source("b", 0.5))
    assert parse_sources(["s3:bucket"]) == "s3:bucket"
    with pytest.raises(ConfigError, match="a positive number"):
        parse_sources(["a:0", "b"])
