import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from click.testing import CliRunner
from drawn_survey import BANDS, drawn_tile, write_tile

import lenspipe as lp
from lenspipe.cli.scan import command
from lenspipe.errors import ConfigError


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    image, _ = drawn_tile(n_red=12, n_blue=12, n_star=25)
    return write_tile(tmp_path_factory.mktemp("survey") / "tiles", image)


@pytest.fixture(scope="module")
def run(tiles, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return lp.scan_survey(tiles, out=out, settings={"select.mag_max": 20.0}, model="none")


def test_python_and_the_command_make_the_same_rows(run, tiles, tmp_path):
    arguments = [str(tiles), "--out", str(tmp_path / "run"), "--runner", "local", "--model", "none"]
    arguments += ["--set", "select.mag_max=20", "--no-catalog"]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert done.return_value == 0, done.output
    assert run.arrow().equals(pq.read_table(tmp_path / "run" / "candidates.parquet"))
    assert run.arrow().num_rows > 10


def test_tables_have_units_and_missing_values_stay_missing(run):
    rows = run.candidates
    assert str(rows["ra"].unit) == "deg"
    assert rows["ra"].description
    assert rows["score"].mask.all()
    assert run.best(3)["candidate_id"].tolist() == rows["candidate_id"][:3].tolist()
    assert run.arrow("searched").to_pandas()["area_deg2"].sum() > 0
    assert len(run.failures) == 0


def test_a_run_shows_itself(run):
    shown = run._repr_html_()
    assert "candidates, 0 failures" in shown
    assert run.best(1)["candidate_id"][0] in shown
    assert (run.folder / "catalog").is_dir()


def test_a_candidate_comes_back_bit_for_bit(run):
    assert run.explain(run.best(1)["candidate_id"][0]).same


def test_a_setting_that_does_not_exist_is_refused_before_any_work(tiles, tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'mag_max'"):
        lp.scan_survey(tiles, out=tmp_path / "run", settings={"select.mag_maxx": 20.0})
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not a run folder"):
        lp.Run.open(tmp_path)


def test_cutouts_are_the_tiles_own_pixels_and_what_is_outside_is_missing(tiles):
    header = fits.getheader(tiles / "t_r.fits")
    ra, dec = WCS(header).pixel_to_world_values([300.2, 40.0], [200.1, 500.0])
    cut = lp.cutouts(tiles, [*ra, 10.0], [*dec, -50.0], size_px=21, bands=["r", "g"], subtract_sky=False)
    assert cut.bands == ("r", "g") and cut.pixel_scale_arcsec == pytest.approx(0.5, rel=1e-3)
    image = fits.getdata(tiles / "t_r.fits")
    assert np.array_equal(cut.pixels_njy[0, 0], image[190:211, 290:311])
    assert np.array_equal(cut.pixels_njy[1, 0], image[490:511, 30:51])
    assert np.isnan(cut.pixels_njy[2]).all()
    assert list(cut.missing) == [2] and "outside" in cut.missing[2]
    assert lp.cutouts(tiles, ra, dec, size_px=21).bands == BANDS
