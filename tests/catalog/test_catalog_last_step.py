import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from catalog_runs import scan, write_overlapping_tiles
from click.testing import CliRunner

from lenspipe.catalog.known import read_known_lenses
from lenspipe.scan.after.catalog import FOLDER, catalog_run, n_absent


@pytest.fixture
def run(tmp_path):
    write_overlapping_tiles(tmp_path / "tiles")
    scan(tmp_path / "tiles", tmp_path / "run")
    return tmp_path / "run"


def test_a_scan_ends_with_the_catalogue_of_its_objects(tmp_path):
    from lenspipe.cli.scan import command

    truth = write_overlapping_tiles(tmp_path / "tiles")
    arguments = [str(tmp_path / "tiles"), "--out", str(tmp_path / "run"), "--runner", "local", "--model", "none"]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert done.return_value == 0, done.output
    rows = pq.read_table(tmp_path / "run" / FOLDER / "candidates.parquet")
    detections = pq.read_table(tmp_path / "run" / "candidates.parquet").num_rows
    # in both tiles' pixels for sure, and at most: a source over an edge may be seen by its flank
    shared = [np.sum((truth["x_px"] > 160 + edge) & (truth["x_px"] < 240 - edge)) for edge in (6, -4)]
    assert shared[0] > 4
    assert shared[0] <= detections - rows.num_rows <= shared[1]
    assert np.sum(rows["n_detection"].to_numpy()) == detections
    assert "candidates.parquet" in done.output


def test_without_the_step_there_is_no_catalogue(tmp_path):
    from lenspipe.cli.scan import command

    write_overlapping_tiles(tmp_path / "tiles")
    arguments = [str(tmp_path / "tiles"), "--out", str(tmp_path / "run"), "--runner", "local", "--model", "none"]
    done = CliRunner().invoke(command, [*arguments, "--no-catalog"], standalone_mode=False)
    assert done.return_value == 0, done.output
    assert not (tmp_path / "run" / FOLDER).exists()


def test_a_catalogue_that_holds_all_of_the_run_stays_as_it_is(run):
    first = catalog_run(run)
    again = catalog_run(run)
    assert first is not None
    assert again == json.loads((run / FOLDER / "provenance.json").read_text())
    assert again["written"] == first["written"]


def test_a_catalogue_of_less_than_the_run_is_replaced(run):
    catalog_run(run)
    path = run / FOLDER / "provenance.json"
    record = json.loads(path.read_text())
    record["runs"][0]["counts"]["sources"] -= 1  # as a run that was resumed since
    path.write_text(json.dumps(record))
    again = catalog_run(run)
    assert again is not None
    assert again["runs"][0]["counts"]["sources"] == record["runs"][0]["counts"]["sources"] + 1


def test_more_candidates_than_one_process_holds_give_no_catalogue(run, monkeypatch):
    import lenspipe.scan.after.catalog as module

    monkeypatch.setattr(module, "MAX_ROWS_IN_MEMORY", 3)
    assert catalog_run(run) is None
    assert not (run / FOLDER).exists()


def test_many_absent_lenses_are_left_unexamined(tmp_path, monkeypatch):
    import lenspipe.scan.after.catalog as module

    lenses = read_known_lenses("lenscat")
    ra, dec = lenses["ra"].to_numpy(), lenses["dec"].to_numpy()
    far = np.hypot((ra - ra[:50, None] + 180) % 360 - 180, dec - dec[:50, None]) > 0.1
    lone = int(np.flatnonzero((~far).sum(axis=1) == 1)[0])  # a lens with no other beside it
    # the middle of the tiles is a source: the lens falls between sources, 18 pixels of 0.2 arcsec off on both axes
    at = ra[lone] - 3.6 / 3600 / np.cos(np.radians(dec[lone])), dec[lone] - 3.6 / 3600
    write_overlapping_tiles(tmp_path / "tiles", ra_deg=at[0], dec_deg=at[1])
    scan(tmp_path / "tiles", tmp_path / "run")
    monkeypatch.setattr(module, "MAX_EXAMINED", 0)
    record = catalog_run(tmp_path / "run")
    assert record is not None
    assert n_absent(record["known_lenses"]["recall"]) == 1
    assert record["known_lenses"]["recall"]["fates"] == {"not a candidate": 1}


def test_a_scan_killed_while_it_wrote_its_catalogue_is_resumed_to_a_whole_one(run):
    catalog_run(run)
    want = pq.read_table(run / FOLDER / "candidates.parquet")
    (run / FOLDER).rename(run / f".{FOLDER}.12345678.tmp")  # its scratch folder, as SIGKILL leaves it
    scan(run.parent / "tiles", run, resume=True)
    catalog_run(run)
    assert pq.read_table(run / FOLDER / "candidates.parquet").equals(want)
    assert not list(run.glob(f".{FOLDER}*"))
