# Stars of a shard's window: cut where they show themselves, the PSF measured from them; said where they do not.

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from sky import gaussian_sources, tan_wcs, write_tile
from test_scan_run import rows, scan

from lenspipe.errors import ConfigError
from lenspipe.image.psf import moffat
from lenspipe.image.psf_table import read_psf
from lenspipe.rundir import read_json
from lenspipe.scan.stars import star_lines, star_record
from lenspipe.schema import shards_schema

SHAPE, SCALE = (448, 448), 0.2
PLANTED = {"g": (4.4, 0.9), "r": (3.4, 0.95), "i": (3.0, 0.85)}
"""FWHM in pixels and axis ratio, major axis along y."""
N_STAR, N_GALAXY = 25, 24


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A tile of stars and galaxies on a grid, the PSF of each band its own, and its scan."""
    folder = tmp_path_factory.mktemp("stars")
    rng = np.random.default_rng(5)
    grid = np.arange(32, 448, 64.0)
    x, y = (v.ravel() + rng.uniform(-3, 3, 49) for v in np.meshgrid(grid, grid))
    star = rng.permutation(49) < N_STAR
    flux = 10 ** rng.uniform(3.9, 5.2, 49)
    size = np.geomspace(5.5, 11, 49)
    rows_px, columns = np.indices(SHAPE)
    (folder / "tiles").mkdir()
    for band, (fwhm, ratio) in PLANTED.items():
        image = gaussian_sources(SHAPE, x[~star], y[~star], flux[~star], size[~star])
        shape = np.array([np.log(fwhm), np.log(2.0), 0.5 * np.log(ratio), 0.0])
        for k in np.flatnonzero(star):
            box = np.s_[max(0, int(y[k]) - 40) : int(y[k]) + 41, max(0, int(x[k]) - 40) : int(x[k]) + 41]
            image[box] += flux[k] * moffat(columns[box] - x[k], rows_px[box] - y[k], shape)
        image += rng.normal(0, 5, SHAPE)
        header = tan_wcs(SHAPE).to_header()
        header["BUNIT"] = "nJy"
        fits.writeto(folder / f"tiles/a_{band}.fits", image.astype(np.float32), header)
    scan(folder / "tiles", folder / "run", core_px=512)
    return folder / "run", x, y, star


def is_row(table, x, y):
    return np.hypot(np.array(table["x_px"])[:, None] - x, np.array(table["y_px"])[:, None] - y).min(axis=0) < 2


def test_planted_stars_are_cut_and_planted_galaxies_are_rows(planted):
    run, x, y, star = planted
    found = is_row(rows(run), x, y)
    assert not found[star].any()
    assert found[~star].all()
    shard = rows(run, "shards").to_pylist()[0]
    assert (shard["n_star_cut"], shard["star_cut_from"]) == (N_STAR, "stars")
    assert shard["n_galaxy_cut"] < 2
    assert shard["n_source"] == shard["n_candidate"] + shard["n_star_cut"]


def test_the_psf_of_each_band_is_the_one_that_was_planted(planted):
    run, *_ = planted
    shard, psf = rows(run, "shards").to_pylist()[0], read_psf(run).of("a_x0y0c512")
    assert tuple(psf) == ("g", "r", "i")
    for band, (fwhm, ratio) in PLANTED.items():
        assert shard[f"psf_fwhm_{band}_arcsec"] == pytest.approx(fwhm * SCALE, rel=0.03)
        assert shard[f"psf_ellipticity_{band}"] == pytest.approx(1 - ratio, abs=0.02)
        assert shard[f"psf_from_{band}"] == psf[band].psf_from == "stars"
        assert shard[f"psf_n_star_{band}"] == psf[band].n_star > 15
        assert psf[band].fwhm_arcsec == pytest.approx(shard[f"psf_fwhm_{band}_arcsec"])
        assert psf[band].stack.sum() == pytest.approx(1, abs=1e-4)
        assert np.unravel_index(psf[band].stack.argmax(), psf[band].stack.shape) == (20, 20)
        assert psf[band].psf is psf[band].stack
        assert abs(psf[band].angle_deg) > 80


def test_what_the_stars_say_is_in_the_record_and_the_summary(planted):
    run, *_ = planted
    record = read_json(run / "run.json")["stars"]
    lines = star_lines(record, star_cut=3.0)
    assert f"{N_STAR} sources were cut as stars" in lines[0]
    assert "galaxies" in lines[0]
    assert "g 0.8" in lines[1]
    assert not any("WARNING" in line for line in lines)
    assert star_lines(record, star_cut=0.0)[0] == "no source was cut as a star (select.star_cut = 0)"


def test_no_cut_keeps_stars_and_measures_the_psf_all_the_same(planted, tmp_path):
    run, x, y, star = planted
    scan(run.parent / "tiles", tmp_path / "all", core_px=512, select={"star_cut": 0})
    assert is_row(rows(tmp_path / "all"), x, y)[star].all()
    assert rows(tmp_path / "all", "psf").equals(rows(run, "psf"))


def test_shards_of_a_tile_have_psfs_in_order(planted, tmp_path):
    run, *_ = planted
    scan(run.parent / "tiles", tmp_path / "cut", core_px=256)
    table = rows(tmp_path / "cut", "psf")
    ids = table["shard_id"].to_pylist()
    assert ids == sorted(ids)
    assert table.num_rows == 3 * rows(tmp_path / "cut", "shards").num_rows
    one = read_psf(tmp_path / "cut", shard_id=ids[0])
    assert [row.band for row in one.rows] == ["g", "r", "i"]
    assert read_psf(tmp_path / "cut", tile="nowhere").rows == ()


def test_too_few_stars_fall_back_on_the_layout_and_are_warned_of(tmp_path):
    write_tile(tmp_path / "tiles", "a", n_source=8)
    stated = scan(tmp_path / "tiles", tmp_path / "none", core_px=256)
    record = read_json(stated.folder / "run.json")["stars"]
    assert record["cut"]["shards_by"] == {"none": 1}
    (warning,) = star_lines(record, star_cut=3.0)
    assert "WARNING: 1 of 1 shards have too few stars" in warning
    assert "no source was cut" in warning
    scan(tmp_path / "tiles", tmp_path / "layout", core_px=256, survey=str(layout_of(tmp_path)))
    shard = rows(tmp_path / "layout", "shards").to_pylist()[0]
    assert (shard["star_cut_from"], shard["psf_from_r"], shard["psf_from_g"]) == ("layout", "layout", "none")
    assert shard["psf_fwhm_r_arcsec"] == pytest.approx(1.1)
    assert (shard["psf_fwhm_g_arcsec"], shard["n_galaxy_cut"], shard["psf_ellipticity_r"]) == (None, None, None)
    # 0.9 times half of 1.1": the sources are Gaussians that hold half of their light within half of their FWHM
    kept = np.array(rows(tmp_path / "layout")["half_light_radius_arcsec"])
    assert 0 < len(kept) < 8
    assert kept.min() >= 0.495
    psf = read_psf(tmp_path / "layout").of("a_x0y0c256")
    assert (psf["r"].psf, psf["r"].stack) == (pytest.approx(1.1), None)
    with pytest.raises(ConfigError, match=r"add psf_fwhm_arcsec .*band='g'"):
        _ = psf["g"].psf
    assert read_psf(tmp_path / "layout").typical("g") is None


def layout_of(folder):
    from importlib import resources

    text = (resources.files("lenspipe.survey") / "layouts/generic.toml").read_text()
    path = folder / "mine.toml"
    path.write_text(text + "\n[psf_fwhm_arcsec]\nr = 1.1\n" if "[psf_fwhm_arcsec]" not in text else text)
    return path


def test_a_run_without_the_table_is_told_to_scan_again(tmp_path):
    with pytest.raises(ConfigError, match=r"no psf\.parquet.*scan again"):
        read_psf(tmp_path)


def test_shards_that_failed_say_nothing_of_stars():
    failed = {"shard_id": "a", "status": "failed"}
    record = star_record(pa.Table.from_pylist([failed], shards_schema(("g",))), ("g",))
    assert record["cut"] == {"stars": 0, "galaxies_expected": 0.0, "shards_by": {}}
    assert star_lines(record, star_cut=3.0) == []


def test_on_the_kids_tile_stars_go_and_painted_lenses_stay(real_data):
    from benchmarks.studies.star_cut import lenses, look, plain_stars, read_tile
    from lenspipe.survey.shards import Box

    read, context = read_tile(real_data, Box(0, 1500, 1100, 2600))
    found = look(read, context)
    stars = plain_stars(found, read)
    assert stars.sum() >= 15
    assert (stars & ~found.stars.are_stars).sum() <= 1
    painted = lenses(read, context, n=12, per_round=12, seed=3)
    assert sum(row["found"] for row in painted) >= 10
    assert not any(row["cut"] for row in painted)


def test_the_table_of_psfs_opens_in_astropy_with_its_units(planted):
    from astropy.table import Table

    run, *_ = planted
    assert Table.read(run / "psf.parquet")["stack"].shape == (3, 41 * 41)
    assert pq.read_schema(run / "psf.parquet").field("fwhm_arcsec").metadata[b"unit"] == b"arcsec"


def test_drawn_sources_of_one_size_all_stay(tmp_path):
    """A field as one draws it to try a scan: round, alike, and nothing larger."""
    rng, grid = np.random.default_rng(4), np.arange(30, 300, 60.0)
    x, y = (v.ravel() + rng.uniform(-4, 4, 25) for v in np.meshgrid(grid, grid))
    image = gaussian_sources((300, 300), x, y, rng.uniform(2000, 40_000, 25), np.full(25, 5.2))
    header = tan_wcs((300, 300)).to_header()
    header["BUNIT"] = "nJy"
    (tmp_path / "tiles").mkdir()
    fits.writeto(tmp_path / "tiles/a_i.fits", (image + rng.normal(0, 5, image.shape)).astype(np.float32), header)
    scan(tmp_path / "tiles", tmp_path / "run", core_px=512)
    assert is_row(rows(tmp_path / "run"), x, y).all()
    assert rows(tmp_path / "run", "shards")["star_cut_from"].to_pylist() == ["none"]
