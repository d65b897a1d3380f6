import dataclasses
import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from catalog_runs import Silent, local, scan, scan_request, write_overlapping_tiles
from click.testing import CliRunner

from lenspipe.catalog import write as writing
from lenspipe.catalog.gallery.write import write_gallery
from lenspipe.catalog.hats import read_pixels
from lenspipe.catalog.known import read_known_lenses
from lenspipe.catalog.provenance import Matching
from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.catalog.write import read_tree, write_catalog
from lenspipe.cli import group
from lenspipe.errors import ConfigError
from lenspipe.nn.card import read_card, write_card
from lenspipe.nn.outputs import Calibration
from lenspipe.runner import here
from lenspipe.scan.after.known import RIM
from lenspipe.scan.run import run_scan
from lenspipe.stats.calibrate import probability


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("made")
    truth = write_overlapping_tiles(folder / "tiles")
    scan(folder / "tiles", folder / "run", model=tiny_model)
    scan(folder / "tiles", folder / "again", model=tiny_model, detect={"threshold_sigma": 3.0})
    scan(folder / "tiles", folder / "unscored")
    return folder, truth


def write(run, out, **options):
    options = {"radius_arcsec": 1.0, "acronym": "LPC", "matching": None, **options}
    return write_catalog(open_run_folder(run), out, **options)


def table(out):
    return pq.read_table(out / "candidates.parquet")


def test_an_object_that_two_tiles_show_is_one_row_with_two_detections(made, tmp_path):
    folder, truth = made
    record = write(folder / "run", tmp_path / "cat")
    rows = table(tmp_path / "cat")
    n_raw = pq.read_table(folder / "run" / "candidates.parquet").num_rows
    assert truth["n_shared"] >= 5
    assert pc.sum(pc.equal(rows["n_detection"], 2)).as_py() >= truth["n_shared"]
    assert pc.sum(rows["n_detection"]).as_py() == n_raw == record["counts"]["candidates"]
    assert record["counts"]["rows"] + record["counts"]["merged"] == n_raw
    # each source of the truth once, across RA 0
    d_ra = (truth["ra"][:, None] - rows["ra"].to_numpy() + 180) % 360 - 180
    near = np.hypot(d_ra * np.cos(np.radians(5)), truth["dec"][:, None] - rows["dec"].to_numpy()) * 3600 < 0.5
    assert (near.sum(axis=1) == 1).all()


def test_rows_are_ranked_named_and_traced_and_equal_in_all_formats(made, tmp_path):
    folder, _ = made
    write(folder / "run", tmp_path / "cat")
    rows = table(tmp_path / "cat")
    assert rows["rank"].to_pylist() == list(range(1, rows.num_rows + 1))
    assert (np.diff(rows["score"].to_numpy()) <= 0).all()
    assert rows["probability"].null_count == rows["prior"].null_count == rows.num_rows
    assert pc.all(pc.starts_with(rows["name"], "LPC J")).as_py()
    run = json.loads((folder / "run" / "run.json").read_text())
    assert set(rows["model"].to_pylist()) == {run["model"]["digest"]}
    assert rows["tile_checksum"].null_count == 0
    assert len(set(rows["tile_checksum"].to_pylist())) == 2
    for r in rows.to_pylist():
        assert r["window_x0_px"] <= r["x_px"] < r["window_x1_px"]
        assert r["window_y0_px"] <= r["y_px"] < r["window_y1_px"]
    tree = read_tree(tmp_path / "cat" / "hats").sort_by([("rank", "ascending")])
    for name in rows.column_names:  # text that is not known is empty in the flat file, and empty or null in the tree
        want, got = ([v or None if isinstance(v, str) else v for v in t[name].to_pylist()] for t in (rows, tree))
        assert got == want, name


def test_appending_a_run_of_the_same_tiles_adds_detections_not_objects(made, tmp_path):
    folder, _ = made
    write(folder / "run", tmp_path / "cat")
    n_before = table(tmp_path / "cat").num_rows
    record = write(folder / "again", tmp_path / "cat", append=True)
    rows = table(tmp_path / "cat")
    assert rows.num_rows <= n_before + 2
    assert pc.sum(rows["n_detection"]).as_py() == record["counts"]["candidates"]
    assert [r["run_id"] for r in record["runs"]] == list(dict.fromkeys(r["run_id"] for r in record["runs"]))
    shards = pq.read_table(tmp_path / "cat" / "shards.parquet")
    assert shards.num_rows == record["counts"]["shards"]


def test_a_run_is_appended_to_a_catalogue_of_an_older_version(made, tmp_path):
    folder, _ = made
    write(folder / "run", tmp_path / "cat")
    file = tmp_path / "cat" / "shards.parquet"
    whole = pq.read_table(file)
    since = [n for n in whole.column_names if n.startswith(("zero_point_", "bunit_", "grid_shift_", "sentinel_"))]
    pq.write_table(whole.drop_columns(since), file)
    write(folder / "again", tmp_path / "cat", append=True)
    both = pq.read_table(file)
    assert both.schema.equals(whole.schema, check_metadata=True)
    assert both.num_rows == 2 * whole.num_rows
    assert set(both["bunit_g"].to_pylist()) == {"", "nJy"}


def test_what_cannot_be_appended_is_refused_with_the_reason(made, tmp_path):
    folder, _ = made
    write(folder / "run", tmp_path / "cat")
    with pytest.raises(ConfigError, match="in the catalogue already"):
        write(folder / "run", tmp_path / "cat", append=True)
    with pytest.raises(ConfigError, match="another model"):
        write(folder / "unscored", tmp_path / "cat", append=True)
    with pytest.raises(ConfigError, match="another radius"):
        write(folder / "again", tmp_path / "cat", append=True, radius_arcsec=2.0)
    with pytest.raises(ConfigError, match="exists"):
        write(folder / "again", tmp_path / "cat")
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="holds no catalogue"):
        write(folder / "again", tmp_path / "other", append=True)
    write(folder / "unscored", tmp_path / "cat", append=True, other_model=True)
    assert table(tmp_path / "cat")["score"].null_count == 0, "where a scored row is there it is the better one"


def test_more_candidates_than_one_process_holds_are_left_to_ray(made, tmp_path, monkeypatch):
    folder, _ = made
    n_first = write(folder / "run", tmp_path / "cat")["counts"]["candidates"]
    monkeypatch.setattr(writing, "MAX_CANDIDATES", n_first + 3)
    with pytest.raises(ConfigError, match="add --distributed"):
        write(folder / "again", tmp_path / "cat", append=True)


@pytest.mark.parametrize("append", [False, True])
def test_a_full_disk_in_the_middle_leaves_the_old_catalogue_whole(made, tmp_path, monkeypatch, append):
    folder, _ = made
    out = tmp_path / "cat"
    if append:
        write(folder / "run", out)
    before = {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "write_fits", full)
    with pytest.raises(OSError, match="No space"):
        write(folder / "again", out, append=append)
    assert {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == (["cat"] if append else [])


def test_a_catalogue_left_aside_by_a_killed_writer_comes_back(made, tmp_path):
    folder, _ = made
    write(folder / "run", tmp_path / "cat")
    (tmp_path / "cat").rename(tmp_path / ".cat.old")
    with pytest.raises(ConfigError, match="exists"):
        write(folder / "again", tmp_path / "cat")
    assert read_pixels(tmp_path / "cat" / "hats")


def test_a_run_without_candidates_is_a_catalogue_of_nothing(made, tmp_path):
    folder, _ = made
    scan(folder / "tiles", tmp_path / "run", select={"mag_max": 5.0})
    matching = Matching(source="lenscat", lenses=read_known_lenses("lenscat"), radius_arcsec=2.0)
    record = write(tmp_path / "run", tmp_path / "cat", matching=matching)
    assert record["counts"]["rows"] == 0
    assert record["area"]["footprint_deg2"] > 0
    assert read_tree(tmp_path / "cat" / "hats").num_rows == 0


class KilledError(Exception):
    pass


def test_an_unfinished_run_is_refused_and_taken_in_part_when_told(made, tmp_path, tiny_model):
    folder, _ = made

    class Dies:
        def __call__(self, tasks, settings, parts, **more):
            with local() as run:
                run(tasks[:1], settings, parts, **more)
            raise KilledError

    with pytest.raises(KilledError):
        scan(folder / "tiles", tmp_path / "run", model=tiny_model, runner=here(Dies()))
    call = ["catalog", str(tmp_path / "run"), "--out", str(tmp_path / "cat"), "--match", "none"]
    with pytest.raises(ConfigError, match=r"has not ended.*--resume.*--partial"):
        CliRunner().invoke(group, call, catch_exceptions=False, standalone_mode=False)
    result = CliRunner().invoke(group, [*call, "--partial"], catch_exceptions=False, standalone_mode=False)
    assert "1 of 2 shards are done" in result.output
    rows = table(tmp_path / "cat")
    assert set(rows["tile"].to_pylist()) == {"t0"}
    record = json.loads((tmp_path / "cat" / "provenance.json").read_text())
    assert record["runs"][0]["status"] == "partial: 1 of 2 shards"
    # the run itself is named, not the scratch folder that the part was taken in: explain goes there
    assert record["runs"][0]["folder"] == str(tmp_path / "run")
    explained = ["explain", rows["candidate_id"][0].as_py(), "--run", str(tmp_path / "cat"), "--json"]
    with pytest.raises(ConfigError, match="has not ended"):
        CliRunner().invoke(group, explained, catch_exceptions=False, standalone_mode=False)
    request = scan_request(folder / "tiles", model=tiny_model)
    run_scan(request, tmp_path / "run", local, Silent(), resume=True)
    result = CliRunner().invoke(group, explained, catch_exceptions=False, standalone_mode=False)
    assert json.loads(result.output)["same"] is True
    # what is there in part is there: the whole run would count it twice
    with pytest.raises(ConfigError, match="in the catalogue already"):
        write(tmp_path / "run", tmp_path / "cat", append=True)


def test_a_scan_of_files_that_changed_is_another_run_and_one_of_the_same_files_is_not(made, tmp_path):
    shutil.copytree(made[0] / "tiles", tmp_path / "tiles")
    scan(tmp_path / "tiles", tmp_path / "run")
    scan(tmp_path / "tiles", tmp_path / "same")
    for file in (tmp_path / "tiles").glob("t1_*"):
        with fits.open(file, mode="update") as hdus:
            hdus[0].data *= np.float32(1.01)  # as if reduced anew
    scan(tmp_path / "tiles", tmp_path / "later")
    run, same, later = (open_run_folder(tmp_path / name) for name in ("run", "same", "later"))
    assert run.request_id == same.request_id == later.request_id
    assert run.run_id == same.run_id != later.run_id
    write(tmp_path / "run", tmp_path / "cat")
    with pytest.raises(ConfigError, match="in the catalogue already"):
        write(tmp_path / "same", tmp_path / "cat", append=True)
    record = write(tmp_path / "later", tmp_path / "cat", append=True)
    assert [r["run_id"] for r in record["runs"]] == [run.run_id, later.run_id]
    assert pc.sum(table(tmp_path / "cat")["n_detection"]).as_py() == record["counts"]["candidates"]


def test_known_lenses_inside_have_a_fate_and_those_of_the_training_are_left_out(made, tmp_path):
    folder, truth = made
    rng = np.random.default_rng(1)
    faint = {"ra": (truth["ra"][0] - 3.6 / 3600) % 360, "dec": truth["dec"][0]}
    lenses = pa.table(
        {
            "Name": ["one", "two", "trained", "empty", "far"],
            "RA [deg]": [*truth["ra"][:3], faint["ra"], 100.0],
            "DEC [deg]": [*(truth["dec"][:3] + rng.uniform(-0.1, 0.1, 3) / 3600), faint["dec"], 40.0],
        }
    )
    pa.csv.write_csv(lenses, tmp_path / "mine.csv")
    pq.write_table(lenses.slice(2, 1), tmp_path / "trained.parquet")
    call = ["catalog", str(folder / "run"), "--out", str(tmp_path / "cat"), "--match", str(tmp_path / "mine.csv")]
    call += ["--trained-on", str(tmp_path / "trained.parquet")]
    CliRunner().invoke(group, call, catch_exceptions=False, standalone_mode=False)
    fate = {r["name"]: r for r in pq.read_table(tmp_path / "cat" / "known_lenses.parquet").to_pylist()}
    assert set(fate) == {"one", "two", "trained", "empty"}
    assert [fate[n]["fate"] for n in ("one", "two", "empty")] == ["ranked", "ranked", "not detected"]
    rows = {r["candidate_id"]: r for r in table(tmp_path / "cat").to_pylist()}
    assert rows[fate["one"]["candidate_id"]]["known_lens"] == "one"
    assert rows[fate["one"]["candidate_id"]]["rank"] == fate["one"]["rank"]
    found = json.loads((tmp_path / "cat" / "provenance.json").read_text())["known_lenses"]["recall"]
    assert (found["inside"], found["left_out"], found["counted"], found["ranked"]) == (4, 1, 3, 2)
    assert found["recall"] == pytest.approx(2 / 3)


def test_a_catalogue_names_its_run_from_the_root_so_that_it_is_found_from_anywhere(made, tmp_path, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(folder)
    record = write_catalog(
        open_run_folder(Path("run")), tmp_path / "cat", radius_arcsec=1.0, acronym="LPC", matching=None
    )
    assert record["runs"][0]["folder"] == str(folder / "run")


def test_a_run_is_not_added_to_rows_that_were_matched_with_another_list(made, tmp_path):
    folder, truth = made
    lenses = pa.table({"name": ["l"], "ra": truth["ra"][:1], "dec": truth["dec"][:1]})
    pq.write_table(lenses, tmp_path / "l.parquet")
    lenses = read_known_lenses(str(tmp_path / "l.parquet"))
    mine = Matching(source="mine", lenses=lenses, radius_arcsec=2.0)
    write(folder / "run", tmp_path / "cat", matching=mine)
    for other in (None, dataclasses.replace(mine, source="yours"), dataclasses.replace(mine, radius_arcsec=3.0)):
        with pytest.raises(ConfigError, match=r"other known lenses.*catalogue='mine within 2 arcsec'"):
            write(folder / "again", tmp_path / "cat", append=True, matching=other)
    write(folder / "again", tmp_path / "cat", append=True, matching=mine)
    assert table(tmp_path / "cat")["known_lens"].to_pylist().count("l") == 1


def test_what_a_later_run_sees_of_an_absent_lens_takes_the_place_of_less(made, tmp_path):
    folder, truth = made
    (tmp_path / "l.csv").write_text(f"name,ra,dec\nempty,{(truth['ra'][0] - 3.6 / 3600) % 360},{truth['dec'][0]}\n")
    out, fate = tmp_path / "cat", lambda: pq.read_table(tmp_path / "cat" / "known_lenses.parquet")["fate"].to_pylist()
    call = ["--out", str(out), "--match", str(tmp_path / "l.csv")]
    CliRunner().invoke(group, ["catalog", str(folder / "run"), *call], catch_exceptions=False, standalone_mode=False)
    assert fate() == ["not detected"]
    known = pq.read_table(out / "known_lenses.parquet")
    place = known.schema.get_field_index("fate")
    known = known.set_column(place, known.schema.field(place), pa.array([RIM]))  # as if run had ended short of it
    pq.write_table(known, out / "known_lenses.parquet")
    call = ["catalog", str(folder / "again"), *call, "--append"]
    CliRunner().invoke(group, call, catch_exceptions=False, standalone_mode=False)
    assert fate() == ["not detected"]


def test_runs_of_two_priors_are_added_and_both_priors_are_said(made, tmp_path, tiny_model):
    folder, _ = made
    shutil.copytree(tiny_model, tmp_path / "model")
    calibration = Calibration(
        method="platt", slope=0.7, intercept=-0.4, prior=0.4, n_lens=40, n_other=60, data="an example"
    )
    write_card(tmp_path / "model", read_card(tiny_model).with_outputs(calibration=calibration))
    for name, prior in (("one", 0.01), ("two", 0.2)):
        scan(folder / "tiles", tmp_path / name, score={"model": str(tmp_path / "model"), "prior": prior})
    assert write(tmp_path / "one", tmp_path / "cat")["probability"]["prior"] == 0.01
    call = ["catalog", str(tmp_path / "two"), "--out", str(tmp_path / "cat"), "--append", "--match", "none"]
    result = CliRunner().invoke(group, call, catch_exceptions=False, standalone_mode=False)
    assert "prior of 0.01 " in result.output and "prior of 0.2 " in result.output
    stated = json.loads((tmp_path / "cat" / "provenance.json").read_text())["probability"]
    assert stated["prior"] is None and [one["prior"] for one in stated["of_runs"]] == [0.01, 0.2]
    rows = table(tmp_path / "cat")
    for row in rows.to_pylist():
        assert row["probability"] == pytest.approx(probability(row["score"], calibration, row["prior"]), rel=1e-12)


def test_a_run_of_which_every_shard_failed_is_a_catalogue_and_a_page_of_nothing(tmp_path):
    write_overlapping_tiles(tmp_path / "tiles")
    for file in (tmp_path / "tiles").iterdir():
        with file.open("r+b") as stream:
            stream.truncate(2880 * 3)  # the header is there, the pixels are not
    scan(tmp_path / "tiles", tmp_path / "run")
    record = write(tmp_path / "run", tmp_path / "cat")
    assert record["counts"]["shards_ok"] == record["counts"]["rows"] == 0
    assert record["area"] == {"sum_of_shards_deg2": 0.0, "footprint_deg2": 0.0}
    assert write_gallery(tmp_path / "cat", count=10, stamp_px=16, stamp_arcsec=4.0).n_row == 0
