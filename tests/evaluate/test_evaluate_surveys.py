from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluate_models_made import make_data, make_model

from lenspipe.cli.evaluate import print_report
from lenspipe.errors import DataError
from lenspipe.evaluate.report import PAGE, ReportSettings, evaluate_models
from lenspipe.rundir import read_json
from lenspipe.stamps.format import image_array, image_column
from lenspipe.stamps.joined import Source, open_stamps
from lenspipe.stamps.spec import ImageSpec
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc


def changed(folder, *, survey, brighter=0.0, stamps_per_host=1):
    """A made data set of a survey whose pixels in r are brighter, and whose hosts are seen several times."""
    for part in sorted(folder.glob("*.parquet")):
        table = pq.read_table(part)
        pixels = image_array(table, "image")
        pixels[:, 1] += np.float32(brighter)
        host = [f"h{int(name[1:]) // stamps_per_host}" for name in table["stamp_id"].to_pylist()]
        for name, values in (
            ("image", None),
            ("host", pa.array(host)),
            ("survey", pa.array([survey] * table.num_rows)),
            ("tile", pa.array([f"t{int(name[1:]) % 7}" for name in table["stamp_id"].to_pylist()])),
        ):
            at = table.schema.get_field_index(name)
            if name == "image":
                spec = ImageSpec.of_field(table.schema.field(at))
                table = table.set_column(at, table.schema.field(at), image_column(pixels, spec))
            elif at < 0:
                table = table.append_column(name, values)
            else:
                table = table.set_column(at, table.schema.field(at), values)
        pq.write_table(table, part)
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surveys")
    for name, seed, brighter in (("k", 1, 0.0), ("d", 2, 0.9)):
        make_data(folder / name, 300, seed=seed)
        changed(folder / name, survey={"k": "kids", "d": "des"}[name], brighter=brighter, stamps_per_host=3)
    model = make_model(folder / "bright", [0, 1, 0, 0])
    sources = [Source(str(folder / "k")), Source(str(folder / "d"))]
    return evaluate_models([model], sources, folder / "report", ReportSettings()), folder


def test_a_finder_that_tells_surveys_is_said_to(report, capsys):
    made, folder = report
    record = read_json(folder / "report/metrics.json")
    probe = record["survey_probe"]
    rows = pq.read_table(folder / "report/scores.parquet").to_pandas()
    others = ~rows["is_lens"]
    from_d = np.arange(len(rows)) >= np.cumsum(probe_order(folder))[0]
    want = auroc(ScoreCounts.of(rows["score"][others], from_d[others]))
    assert probe["worst"]["higher"] == "des" and probe["worst"]["auroc"] == pytest.approx(want, rel=1e-9) and want > 0.7
    print_report(made)
    out = capsys.readouterr().out
    assert "Warning: bright tells surveys: of ordinary galaxies those of des score above those of kids" in out
    assert "Survey probe" in (folder / "report" / PAGE).read_text()


def probe_order(folder):
    """Rows of the split test of each data set, in the order in which they were judged."""
    return [
        sum(np.sum(np.array(pq.read_table(p)["split"]) == "test") for p in (folder / n).glob("*.parquet")) for n in "kd"
    ]


def test_the_data_and_their_number_of_hosts_are_said(report, capsys):
    made, folder = report
    record = read_json(folder / "report/metrics.json")
    assert [one["name"] for one in record["data"]["data_sets"]] == ["k", "d"]
    found = record["models"][0]["metrics"]["false_positives"]
    rows = pq.read_table(folder / "report/scores.parquet").to_pandas()
    hosts = {int(name[1:]) // 3 for name in rows["stamp_id"][~rows["is_lens"]]}
    assert found["by_host"]["n_group"] == len(hosts)
    assert found["by_tile"]["n_group"] == 7
    assert found["by_host"]["n_stamp"] == record["n_other"]
    at = found["by_host"]["score 0.5"]
    assert at["k"] == record["fp"]
    print_report(made)
    assert f"others of {len(hosts)} hosts" in capsys.readouterr().out


def test_one_survey_has_no_probe(report, tmp_path):
    _, folder = report
    evaluate_models([folder / "bright"], folder / "k", tmp_path / "r", ReportSettings())
    assert read_json(tmp_path / "r/metrics.json")["survey_probe"] is None
    assert "Survey probe" not in (tmp_path / "r" / PAGE).read_text()


def test_stamps_of_several_pixel_grids_are_judged_at_once_and_each_as_alone(report, tmp_path):
    """A survey whose stamps are larger and hold a further band."""
    _, folder = report
    (tmp_path / "wide").mkdir()
    for part in sorted((folder / "k").glob("*.parquet")):
        table = pq.read_table(part)
        pixels = image_array(table, "image")
        wide = np.pad(np.concatenate([pixels, pixels[:, :1]], axis=1), ((0, 0), (0, 0), (2, 2), (2, 2)))
        spec = ImageSpec(("g", "r", "i"), 24, 0.25)
        at = table.schema.get_field_index("image")
        pq.write_table(
            table.set_column(at, spec.field("image"), image_column(wide, spec)), tmp_path / "wide" / part.name
        )
    sources = [Source(str(folder / "d")), Source(str(tmp_path / "wide"), survey="x")]
    with pytest.raises(DataError, match="differ in bands"):
        open_stamps(sources)
    evaluate_models([folder / "bright"], sources, tmp_path / "both", ReportSettings())
    evaluate_models([folder / "bright"], tmp_path / "wide", tmp_path / "alone", ReportSettings())
    both, alone = (pq.read_table(tmp_path / name / "scores.parquet") for name in ("both", "alone"))
    assert both.slice(both.num_rows - alone.num_rows)["score"].equals(alone["score"])
    data = read_json(tmp_path / "both/metrics.json")["data"]
    assert [one["images"]["image"]["size_px"] for one in data["data_sets"]] == [20, 24]
