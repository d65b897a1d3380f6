# What a run was told of its inputs can be seen: in shards.parquet, run.json and the summary.

import numpy as np
import pyarrow.parquet as pq
import pytest
from sky import write_tile
from test_scan_run import scan

from lenspipe.rundir import read_json
from lenspipe.scan.provenance import flux_line, overlap_lines


def test_zero_points_their_source_and_bunit_are_in_the_tables_of_a_run(tmp_path):
    write_tile(tmp_path / "in", "a", bands="gr")
    write_tile(tmp_path / "in", "b", bands="gr", seed=1, BUNIT="adu", MAGZERO=31.4)
    write_tile(tmp_path / "in", "c", bands="gr", seed=2, BUNIT="adu", MAGZERO=0.0)
    result = scan(tmp_path / "in", tmp_path / "run")
    assert result.exit_code == 3
    shards = {row["tile"]: row for row in pq.read_table(tmp_path / "run/shards.parquet").to_pylist()}
    assert set(shards) == {"a", "b"}
    assert [shards[t]["zero_point_source_g"] for t in "ab"] == ["BUNIT nJy", "keyword MAGZERO"]
    assert [shards[t]["bunit_r"] for t in "ab"] == ["nJy", "adu"]
    assert shards["a"]["zero_point_g_ab"] == 31.4
    assert shards["a"]["grid_shift_r_px"] == pytest.approx(0, abs=1e-6)
    assert shards["b"]["sentinel_g_px"] == 0
    told = read_json(tmp_path / "run/run.json")["zero_points"]
    assert sorted((row["source"], row["tiles"]) for row in told["g"]) == [("BUNIT nJy", 1), ("keyword MAGZERO", 1)]
    assert flux_line("g", told["g"]).startswith("g: 31.400 AB (")


def test_a_tile_whose_zero_point_is_wrong_is_told_by_its_neighbour(tmp_path):
    write_tile(tmp_path / "in", "a", bands="g", n_source=25)
    write_tile(tmp_path / "in", "b", bands="g", n_source=25, BUNIT="adu", MAGZERO=30.9)
    scan(tmp_path / "in", tmp_path / "run")
    row = read_json(tmp_path / "run/run.json")["overlaps"]["g"]
    assert row["n"] >= 5
    assert row["worst_tiles"] == ["a", "b"]
    assert row["worst_mag"] == pytest.approx(0.5, abs=0.01)
    assert overlap_lines({"g": row})[0].startswith(
        "WARNING: a and b differ by +0.50 mag in g: one of their zero-points"
    )
    assert not overlap_lines({"g": row | {"worst_mag": 0.1}})[0].startswith("WARNING")


def test_shifts_sentinels_and_files_left_out_are_notes_of_the_run(tmp_path, capsys):
    from astropy.io import fits

    write_tile(tmp_path / "in", "a", bands="gr")
    with fits.open(tmp_path / "in/a_r.fits", mode="update") as hdus:
        hdus[0].header["CRPIX1"] += 0.3
        hdus[0].data[:4] = -9999
    (tmp_path / "in/b_g.fits.zst").touch()
    scan(tmp_path / "in", tmp_path / "run")
    notes = read_json(tmp_path / "run/run.json")["notes"]
    assert any("1 files are packed in a way that is not read" in note for note in notes)
    assert any("band r lies up to 0.30 px off" in note for note in notes)
    assert any("960 pixels of band r held a number in place of no data" in note for note in notes)
    assert np.isfinite(pq.read_table(tmp_path / "run/shards.parquet")["masked_r"].to_numpy()).all()
