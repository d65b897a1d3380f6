from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_stamps import make_stamps

from lenspipe.cli.train import read_settings, sources_of
from lenspipe.errors import DataError
from lenspipe.learn.batches import order_of
from lenspipe.learn.job import make_job
from lenspipe.learn.order import class_weights, shared_weights
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.stamps.joined import Source

TINY = {
    "sampling": {"batch_size": 8, "steps_per_epoch": 40},
    "optim": {"epochs": 1},
    "model": {"width": 2},
    "augment": {"dihedral": True},
}


def relabelled(folder, **columns):
    """Every value of some columns is another, a function of the value that is there where it is one."""
    for part in sorted(folder.glob("*.parquet")):
        table = pq.read_table(part)
        for name, value in columns.items():
            new = [value(v) if callable(value) else value for v in table["label"].to_pylist()]
            at = table.schema.get_field_index(name)
            table = (
                table.append_column(name, pa.array(new))
                if at < 0
                else table.set_column(at, table.schema.field(at), pa.array(new, table.schema.field(at).type))
            )
        pq.write_table(table, part)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    make_stamps(folder / "a", 120)
    make_stamps(folder / "b", 40, n_part=2)
    return folder


def job_of(sources, **tables):
    return make_job(sources, "small-cnn", "find", "out", TrainSettings.model_validate(TINY | tables), seed=1)


@pytest.mark.parametrize("balance", ["equal", "none"])
def test_shares_are_those_of_the_drawn_rows_of_every_class(two, balance):
    sources = [Source(str(two / "a")), Source(str(two / "b"), 3.0)]
    job = job_of(sources, sampling={**TINY["sampling"], "balance": balance})
    rows = order_of(job, 0).rows
    assert len(rows) == 320
    from_b = rows >= 120
    assert abs(from_b.mean() - 0.75) < 0.03  # every row is drawn as often as its share says, up or down to one
    if balance == "equal":
        lens = job.truth.labels[rows] == 1
        assert abs(lens.mean() - 0.5) < 0.03
        assert abs(from_b[lens].mean() - 0.75) < 0.03


def test_without_shares_every_row_is_drawn_as_from_one_set(two):
    job = job_of([Source(str(two / "a")), Source(str(two / "b"))])
    assert job.shares is None
    weights = class_weights(job.truth.labels[job.truth.train])
    many = order_of(job, 0).rows
    counts = np.array([np.sum(many == row) for row in job.truth.train])
    assert np.abs(counts - 320 * weights / weights.sum()).max() < 1


def test_a_class_that_a_set_lacks_is_shared_by_the_others():
    labels, sets = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 1, 1])
    weights = shared_weights(labels, sets, np.array([3.0, 1.0]))
    np.testing.assert_allclose(weights, [0.375, 0.0625, 0.0625, 0.25, 0.25])
    allowed = np.array([False, True, True, True, True])
    np.testing.assert_allclose(shared_weights(labels, sets, np.array([3.0, 1.0]), allowed), [0, 0.25, 0.25, 0.25, 0.25])


def test_the_card_says_what_each_set_gave(two):
    training = job_of([Source(str(two / "a")), Source(str(two / "b"), 2.0, survey="kids")]).card.training
    assert training["data"] == "a + b"
    one, other = training["data_sets"]
    assert (one["name"], other["name"], other["share"], other["survey"]) == ("a", "b", 2.0, "kids")
    for split in ("n_train", "n_validation"):
        assert {k: one[split][k] + other[split][k] for k in one[split]} == training[split]


def test_one_set_is_laid_out_as_before(two):
    alone, named = job_of(str(two / "a")), job_of([Source(str(two / "a"))])
    assert alone.card == named.card
    assert "data_sets" not in alone.card.training
    assert {"data", "one_sided_surveys"}.isdisjoint(
        {**alone.card.training["settings"], **alone.card.training["settings"]["sampling"]}
    )
    np.testing.assert_array_equal(order_of(alone, 1).rows, order_of(named, 1).rows)


@pytest.fixture(scope="module")
def one_sided(tmp_path_factory):
    """``kids`` has lenses and others, ``cfhtls`` lenses alone, ``des`` others alone."""
    folder = tmp_path_factory.mktemp("surveys")
    relabelled(make_stamps(folder / "k", 60), survey="kids")
    relabelled(make_stamps(folder / "c", 30), survey="cfhtls", label="lens")
    relabelled(make_stamps(folder / "d", 30), survey="des", label="nonlens")
    return folder


def test_a_survey_of_lenses_alone_or_of_others_alone_is_refused_by_name(one_sided):
    sources = [Source(str(one_sided / name)) for name in "kcd"]
    with pytest.raises(
        DataError, match=r"one_sided_surveys = true \[lenses_alone='cfhtls \(18\)', no_lenses='des \(18\)'\]"
    ):
        job_of(sources)
    assert job_of(sources, sampling={**TINY["sampling"], "one_sided_surveys": True}).truth.counts(np.arange(3))
    assert job_of(sources[:1])
    same = [Source(str(one_sided / "k")), *(Source(str(one_sided / n)) for n in "cd")]
    with pytest.raises(DataError, match="cfhtls"):
        job_of(same[:2])


def test_rows_of_one_set_are_checked_by_the_surveys_that_they_name(tmp_path):
    data = relabelled(make_stamps(tmp_path / "s", 60), survey=lambda label: {"lens": "cfhtls"}.get(label, "kids"))
    with pytest.raises(DataError, match=r"lenses_alone='cfhtls.*no_lenses='kids"):
        job_of(str(data))


def test_sets_that_name_no_survey_count_as_one_each(tmp_path):
    relabelled(make_stamps(tmp_path / "lenses", 30), label="lens")
    relabelled(make_stamps(tmp_path / "others", 30), label="nonlens")
    with pytest.raises(DataError, match=r"lenses_alone='lenses.*no_lenses='others"):
        job_of([Source(str(tmp_path / "lenses")), Source(str(tmp_path / "others"))])
    assert job_of([Source(str(tmp_path / "lenses"), survey="x"), Source(str(tmp_path / "others"), survey="x")])


def test_a_joined_training_is_resumed_and_refuses_other_shares(two, tmp_path):
    sources = [Source(str(two / "a")), Source(str(two / "b"), 2.0)]
    settings = TrainSettings.model_validate(TINY | {"sampling": {"batch_size": 8, "steps_per_epoch": 2}})
    ask = {"model": "small-cnn", "task": "find", "out": tmp_path / "m", "settings": settings}
    card = train(sources, **ask)
    assert train(sources, **ask) == card  # finished, and left as it is
    assert card.training["data"] == "a + b"
    with pytest.raises(Exception, match="another request; resume with the same data"):
        train([sources[0], Source(str(two / "b"), 4.0)], **ask)


def test_a_settings_file_names_data_sets(two, tmp_path):
    file = tmp_path / "train.toml"
    one, other = f'path = "{two}/a"\nlabels = ["lens", "nonlens"]', f'path = "{two}/b"\nshare = 2'
    file.write_text(f"[[data]]\n{one}\n[[data]]\n{other}\n")
    sources = sources_of(read_settings(str(file)))
    assert sources == (Source(f"{two}/a", labels=("lens", "nonlens")), Source(f"{two}/b", 2.0))
    assert job_of(sources).card.training["data"] == "a + b"
