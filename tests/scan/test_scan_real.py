# Real survey pixels, as a user would scan them; they are not part of the project.

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from test_scan_run import rows, scan

# lenscat's row for SL2SJ142209+524652, degrees.
SL2SJ142209 = SkyCoord(215.53862, 52.78123, unit="deg")


def test_the_kids_tile_is_measured_without_a_failure(real_data, tmp_path):
    result = scan(real_data / "tiles/kids_viking", tmp_path / "k", survey="kids", core_px=2048)
    assert result.exit_code == 0
    assert result.totals.sources > 1500
    magnitudes = np.array(rows(tmp_path / "k")["mag_r"].drop_null())
    assert 21 < np.median(magnitudes) < 25


def test_the_lens_candidate_in_the_cfhtls_tile_is_among_the_best_five(real_data, tmp_path):
    result = scan(real_data / "tiles/cfhtls", tmp_path / "c", survey="cfhtls", model="auto", core_px=2048)
    table = rows(tmp_path / "c")
    apart = SkyCoord(table["ra"].to_numpy(), table["dec"].to_numpy(), unit="deg").separation(SL2SJ142209).arcsec
    assert result.exit_code == 0
    assert table.num_rows >= 40
    assert apart.min() < 1.5
    assert int(np.argmin(apart)) < 5


def test_euclid_candidates_lead_their_cutouts_by_the_finder_for_space(real_data, tmp_path):
    result = scan(
        real_data / "stamps/euclid_q1/EUCLJ*.fits", tmp_path / "e", survey="euclid-vis", model="auto", core_px=2048
    )
    table = rows(tmp_path / "e")
    assert result.exit_code == 0
    assert result.totals.tiles == 2
    for tile in set(table["tile"].to_pylist()):
        best = table.filter(np.array(table["tile"]) == tile).slice(0, 1)
        middle = [best["x_px"][0].as_py(), best["y_px"][0].as_py()]
        assert np.allclose(middle, 49.5, atol=2)  # the candidate, in the middle of the cutout


def test_zpn_frames_are_scanned_without_scores(real_data, tmp_path):
    tiles = real_data / "tiles/vircam_video/image_[12].fits"
    # Their MAGZPT says neither of which system nor of what exposure it is.
    result = scan(tiles, tmp_path / "v", survey="generic", model="auto", core_px=2048, zero_point_ab=30.0)
    assert result.exit_code == 0
    assert result.totals.tiles == 2
    assert result.totals.sources > 1000
    assert result.totals.scored == 0
    seen = [rows(tmp_path / "v").filter(np.array(rows(tmp_path / "v")["tile"]) == f"image_{i}") for i in (1, 2)]
    bright = [t.filter(np.array(t["mag_H"].fill_null(99)) < 19) for t in seen]
    one, two = (SkyCoord(t["ra"].to_numpy(), t["dec"].to_numpy(), unit="deg") for t in bright)
    apart = one.match_to_catalog_sky(two)[1].arcsec
    matched = apart[apart < 1.0]
    assert len(matched) > 50  # the frames overlap, and their sources fall on one another on the sky
    assert np.median(matched) < 0.25


@pytest.mark.parametrize(
    ("tile", "key"), [("cfht_a370/a370II.fits", "MAGZERO"), ("vircam_video/swarp_med.fits", "MAGZERO")]
)
def test_an_image_without_zero_point_fails_by_name_of_the_key_and_scans_with_an_assumed_one(
    real_data, tmp_path, tile, key
):
    path = real_data / "tiles" / tile
    failed = scan(path, tmp_path / "without", core_px=2048)
    assert failed.exit_code == 3
    message = pq.read_table(tmp_path / "without/failures.parquet")["message"][0].as_py()
    assert key in message
    assert "--zero-point-ab" in message
    assert path.name in message
    result = scan(path, tmp_path / "with", core_px=2048, zero_point_ab=30.0)
    assert result.exit_code == 0
    assert result.totals.sources > 500
    from lenspipe.rundir import read_json

    assert "30.0 AB" in read_json(tmp_path / "with/run.json")["assumptions"][0]


def test_the_stack_of_the_frames_has_its_empty_border_masked(real_data, tmp_path):
    path = real_data / "tiles/vircam_video/swarp_med.fits"
    scan(path, tmp_path / "s", core_px=4096, zero_point_ab=30.0)
    empty = (fits.getdata(path, 1) == 0).mean()
    masked = pq.read_table(tmp_path / "s/shards.parquet")["masked_unknown"][0].as_py()
    assert masked == pytest.approx(empty, abs=2e-3)
