# Magnitudes of a run against those of a list: the median is told, and beyond 0.3 mag it is a warning.

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from click.testing import CliRunner
from sky import tan_wcs, write_tile

from lenspipe.catalog.magnitudes import magnitude_column, magnitude_differences, magnitude_lines
from lenspipe.cli import group

SHAPE = (160, 160)


def table(**columns):
    return pa.table({name: np.asarray(values, float) for name, values in columns.items()})


@pytest.fixture
def pairs(rng):
    ra, dec = 150 + np.arange(30) * 0.01, np.full(30, 2.0)
    mag = rng.uniform(19, 23, 30)
    listed = table(ra=ra[::-1], dec=dec, gmag=mag[::-1] - 0.5, e_gmag=np.ones(30), mag_r=mag[::-1])
    return table(ra=ra + 0.3 / 3600, dec=dec, mag_g=mag, mag_r=mag, mag_i=mag), listed


def test_the_median_difference_is_ours_less_the_lists(pairs):
    found = magnitude_differences(*pairs, ("g", "r", "i"))
    assert {band: row["n"] for band, row in found.items()} == {"g": 30, "r": 30}
    assert found["g"]["median_mag"] == pytest.approx(0.5)
    assert found["r"]["median_mag"] == pytest.approx(0, abs=1e-12)
    warned, quiet = magnitude_lines({"ref.csv": found})
    assert warned.startswith(
        "WARNING: magnitudes in g differ by +0.500 mag from gmag of ref.csv (median of 30 sources)"
    )
    assert not quiet.startswith("WARNING")


@pytest.mark.parametrize("bad", [99.0, -99.0, 0.0, np.nan])
def test_numbers_that_stand_for_none_do_not_count(pairs, bad):
    ours, listed = pairs
    some = listed["mag_r"].to_numpy().copy()
    some[:20] = bad
    listed = listed.set_column(listed.schema.get_field_index("mag_r"), "mag_r", pa.array(some))
    assert magnitude_differences(ours, listed, ("r",))["r"]["n"] == 10
    some[:26] = bad
    listed = listed.set_column(listed.schema.get_field_index("mag_r"), "mag_r", pa.array(some))
    assert magnitude_differences(ours, listed, ("r",)) == {}


def test_sources_beyond_an_arcsecond_are_others(pairs):
    ours, listed = pairs
    moved = listed.set_column(1, "dec", pa.array(listed["dec"].to_numpy() + 1.2 / 3600))
    assert magnitude_differences(ours, moved, ("g", "r")) == {}
    assert magnitude_differences(ours.slice(0, 0), listed, ("g",)) == {}


def test_a_column_of_words_holds_no_magnitudes(pairs):
    ours, listed = pairs
    words = listed.set_column(listed.schema.get_field_index("gmag"), "gmag", pa.array(["faint"] * 30))
    assert magnitude_differences(ours, words, ("g",)) == {}


@pytest.mark.parametrize(
    ("names", "band", "column"),
    [
        (["gmag", "rmag"], "r", "rmag"),
        (["Rmag", "rmag"], "r", "rmag"),
        (["Rmag", "rmag"], "R", "Rmag"),
        (["MAG_AUTO_I", "MAGERR_AUTO_I"], "i", "MAG_AUTO_I"),
        (["mag_VIS"], "VIS", "mag_VIS"),
        (["MAG_R", "R_MAG"], "r", None),
        (["r", "e_rmag", "image"], "r", None),
    ],
)
def test_the_column_of_a_band_is_found_by_its_usual_names(names, band, column):
    assert magnitude_column(names, band) == column


def test_a_scan_with_a_list_tells_the_difference_in_its_summary_and_in_run_json(tmp_path):
    truth = write_tile(tmp_path / "tiles", "a", shape=SHAPE, n_source=14, bands="r", seed=2)
    ra, dec = tan_wcs(SHAPE, dec_deg=-4.8).all_pix2world(truth["x_px"], truth["y_px"], 0)
    mag = 31.4 - 2.5 * np.log10(0.6 * truth["flux_njy"])
    Table({"RAJ2000": ra, "DEJ2000": dec, "rmag": mag - 1.0, "class": ["g"] * 14}).write(tmp_path / "ref.fits")
    scan = ["scan", str(tmp_path / "tiles"), "--runner", "local", "--model", "none", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(group, [*scan, "--match", str(tmp_path / "ref.fits")], standalone_mode=False)
    assert done.return_value == 0, done.output
    assert "Note: WARNING: magnitudes in r differ by +1.0" in done.output
    run, catalogue = (
        json.loads((tmp_path / "run" / name).read_text()) for name in ("run.json", "catalog/provenance.json")
    )
    row = run["magnitudes"][str(tmp_path / "ref.fits")]["r"]
    assert row["median_mag"] == pytest.approx(1.0, abs=0.1)
    assert row["n"] >= 8
    assert catalogue["runs"][0]["magnitudes"] == run["magnitudes"]
    assert set(pq.read_table(tmp_path / "run/catalog/candidates.parquet")["known_lens_grade"].to_pylist()) >= {"g"}
    again = ["catalog", str(tmp_path / "run"), "--out", str(tmp_path / "cat"), "--match", "lenscat"]
    assert "magnitudes in" not in CliRunner().invoke(group, again, standalone_mode=False).output


def test_a_list_that_cannot_be_read_is_refused_before_the_scan(tmp_path):
    write_tile(tmp_path / "tiles", "a", shape=(64, 64), n_source=1, bands="r")
    scan = ["scan", str(tmp_path / "tiles"), "--runner", "local", "--model", "none", "--out", str(tmp_path / "run")]
    for more, said in ((["--match", "no.csv"], "no such list"), (["--match", "x", "--no-catalog"], "is about the cat")):
        done = CliRunner().invoke(group, [*scan, *more], standalone_mode=False)
        assert said in str(done.exception)
        assert not (tmp_path / "run").exists()
