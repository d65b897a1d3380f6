# `lenspipe denoise`: files with WCS, unit, flags and history; masks carried through; requests that cannot be met.

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from click.testing import CliRunner
from denoisers import write_denoiser
from sky import write_tile

from lenspipe.cli import group


def run(*arguments):
    return CliRunner().invoke(group, ["denoise", *map(str, arguments)], standalone_mode=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_denoiser(tmp_path_factory.mktemp("models") / "denoise")


@pytest.fixture
def tiles(tmp_path):
    write_tile(tmp_path / "tiles", "a", EXPTIME=90.0)
    file = tmp_path / "tiles" / "a_r.fits"
    with fits.open(file, mode="update") as hdus:
        hdus[0].data[50:53, 60:63] = np.nan
        hdus[0].data += 100
    return tmp_path / "tiles"


def test_tiles_come_out_with_their_sky_wcs_unit_flags_and_history(tiles, model, tmp_path):
    result = run(tiles, "--model", model, "--out", tmp_path / "out", "--ratio", 2, "--window-px", 64)
    assert result.return_value == 0, result.output
    assert "has not passed its gate" in result.stderr
    assert "Mpx/s" in result.stdout
    before = fits.getdata(tiles / "a_r.fits")
    with fits.open(tmp_path / "out" / "a_r.fits") as hdus:
        image, header, flags = hdus["IMAGE"].data, hdus["IMAGE"].header, hdus["FLAGS"].data
    bad = np.isnan(before)
    np.testing.assert_array_equal(np.isnan(image), bad)
    np.testing.assert_array_equal(flags == 1, bad)
    change = (image - before)[~bad]
    assert 0.05 < change.std() < 25
    assert abs(np.median(image[~bad]) - 100) < 3
    assert (header["BUNIT"], header["DNRATIO"], header["DNGATE"]) == ("nJy", 2.0, "none")
    assert header["DNEXTRAP"] is False
    assert "tiny-denoiser" in str(header["HISTORY"])
    want, got = WCS(fits.getheader(tiles / "a_r.fits")), WCS(header)
    np.testing.assert_allclose(got.all_pix2world([[3, 7]], 0), want.all_pix2world([[3, 7]], 0), rtol=0, atol=1e-9)


def test_a_ratio_outside_the_training_is_said_and_written(tiles, model, tmp_path):
    result = run(tiles, "--model", model, "--out", tmp_path / "out", "--ratio", 20)
    assert "outside the training (1.5 to 8)" in result.stderr
    assert fits.getheader(tmp_path / "out" / "a_g.fits", "IMAGE")["DNEXTRAP"] is True


def test_a_ratio_of_one_gives_the_pixels_back(tiles, model, tmp_path):
    run(tiles, "--model", model, "--out", tmp_path / "out", "--ratio", 1)
    np.testing.assert_array_equal(
        fits.getdata(tmp_path / "out" / "a_r.fits", "IMAGE"), fits.getdata(tiles / "a_r.fits")
    )


def test_a_tile_that_cannot_be_used_is_named_and_the_others_are_done(tiles, model, tmp_path):
    write_tile(tiles, "b", seed=1, BUNIT="adu")
    result = run(tiles, "--model", model, "--out", tmp_path / "out")
    assert result.return_value == 3
    assert "b: the header has no zero-point" in result.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_g.fits", "a_i.fits", "a_r.fits"]


def test_requests_that_cannot_be_met_are_refused(tiles, model, tmp_path, tiny_model):
    out = ["--out", str(tmp_path / "out")]
    u_only = write_denoiser(tmp_path / "u", bands=("u",))
    for arguments, message in [
        (["--model", u_only], "needs bands that the tiles do not have"),
        (["--model", tiny_model], "is not a denoiser"),
        (["--model", "nothing"], "no such model"),
        (["--model", model, "--ratio", 0.5], "at least 1"),
    ]:
        result = run(tiles, *arguments, *out)
        assert result.exit_code != 0 and result.return_value is None
        assert message in str(result.exception)
    run(tiles, "--model", model, *out)
    assert "is there already" in str(run(tiles, "--model", model, *out).exception)
    assert run(tiles, "--model", model, *out, "--overwrite").return_value == 0
