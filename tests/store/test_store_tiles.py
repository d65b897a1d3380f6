"""Tiles in an object store: the same pixels as from the disk, only the bytes of the window, whatever the store does."""

import os
import threading

import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_array_equal
from s3_server import BUCKET
from sky import tan_wcs

from lenspipe.errors import ConfigError, StoreError, TileError
from lenspipe.store.objects import PATIENCE, write_bytes
from lenspipe.store.stream import BLOCK_BYTES
from lenspipe.survey.files import checksum, find_files
from lenspipe.survey.layout import read_layout
from lenspipe.survey.read import read_facts, read_window
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import group_tiles

GENERIC = read_layout("generic")
SHAPE, WINDOW = (40, 20_000), Box(9_000, 10, 9_400, 22)


@pytest.fixture(autouse=True)
def kind(s3, monkeypatch):
    monkeypatch.setenv(PATIENCE, "20")
    yield
    s3.fail, s3.delay_s = lambda method, path: False, 0.0


@pytest.fixture(scope="module")
def tiles(s3, tmp_path_factory):
    """Wide tiles, plain and compressed in rows and in squares, on the disk and in the store."""
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(1)
    image = rng.normal(100, 5, SHAPE).astype(np.int16).astype(np.float32)
    header = tan_wcs(SHAPE).to_header()
    header["BUNIT"] = "nJy"
    fits.PrimaryHDU(image, header).writeto(folder / "plain_i.fits")
    fits.PrimaryHDU(image.astype(np.int16), header).writeto(folder / "integer_i.fits")
    for name, tile in (("rows", None), ("squares", (10, 500))):
        hdu = fits.CompImageHDU(image.astype(np.int16), header, compression_type="RICE_1", tile_shape=tile)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(folder / f"{name}_i.fits.fz")
    for path in folder.iterdir():
        write_bytes(f"s3://{BUCKET}/tiles/{path.name}", path.read_bytes())
    return folder


def pixels(request, window=WINDOW):
    (tile,) = group_tiles(find_files([str(request)]), GENERIC)
    return read_window(tile, read_facts(tile, GENERIC, assumed_zero_point_ab=None), GENERIC, window)


@pytest.mark.parametrize("name", ["plain_i.fits", "integer_i.fits", "rows_i.fits.fz", "squares_i.fits.fz"])
def test_a_window_in_a_store_has_the_pixels_of_the_file_and_takes_its_bytes_only(s3, tiles, name):
    url = f"s3://{BUCKET}/tiles/{name}"
    with s3.counted():
        assert_array_equal(pixels(url).image, pixels(tiles / name).image)
    per_pixel = 4 if name == "plain_i.fits" else 2
    needed = WINDOW.n_px * per_pixel
    if name == "rows_i.fits.fz":  # a row is packed as a whole
        needed *= SHAPE[1] / WINDOW.shape[1]
    headers = 3 * BLOCK_BYTES + (0 if name.endswith("fits") else 24 * SHAPE[0])
    assert s3.sent < 1.1 * needed * (1 if "squares" not in name else 2) + headers
    assert s3.sent < 0.6 * os.path.getsize(tiles / name)
    with s3.counted():  # of the next window neither structure nor headers
        pixels(url, Box(500, 10, 900, 22))
    assert s3.sent < 1.1 * needed * (1 if "squares" not in name else 2) + 24 * SHAPE[0]


def test_rows_of_a_window_are_asked_for_together(s3, tiles):
    s3.delay_s = 0.05
    with s3.counted():
        pixels(f"s3://{BUCKET}/tiles/plain_i.fits")
    assert s3.at_once > WINDOW.shape[0] // 2


def test_errors_of_the_server_that_pass_are_waited_for(s3, tiles):
    (tile,) = group_tiles(find_files([f"s3://{BUCKET}/tiles/integer_i.fits"]), GENERIC)
    refused = iter([True] * 4)
    s3.fail = lambda method, path: next(refused, False)
    with s3.counted():
        facts = read_facts(tile, GENERIC, assumed_zero_point_ab=None)
        found = read_window(tile, facts, GENERIC, WINDOW)
    assert s3.failed == 4
    assert_array_equal(found.image, pixels(tiles / "integer_i.fits").image)


def test_a_server_that_dies_and_comes_back_costs_no_tile(s3, tiles):
    (tile,) = group_tiles(find_files([f"s3://{BUCKET}/tiles/integer_i.fits"]), GENERIC)
    s3.stop()
    back = threading.Timer(0.7, s3.start)
    back.start()
    facts = read_facts(tile, GENERIC, assumed_zero_point_ab=None)
    back.join()
    assert_array_equal(read_window(tile, facts, GENERIC, WINDOW).image, pixels(tiles / "integer_i.fits").image)


def test_a_store_that_stays_away_is_no_broken_tile(s3, tiles, monkeypatch):
    monkeypatch.setenv(PATIENCE, "0.3")
    (tile,) = group_tiles(find_files([f"s3://{BUCKET}/tiles/plain_i.fits"]), GENERIC)
    s3.fail = lambda method, path: True
    with pytest.raises(StoreError, match="the store fails") as found:
        read_facts(tile, GENERIC, assumed_zero_point_ab=None)
    assert "hunter2" not in str(found.value)


def test_a_tile_that_is_cut_short_is_refused_and_read_when_it_is_whole(s3, tiles):
    whole = (tiles / "plain_i.fits").read_bytes()
    url = f"s3://{BUCKET}/cut/plain_i.fits"
    write_bytes(url, whole[: len(whole) // 4])
    with pytest.raises(TileError, match=r"ends before|cannot be read"):
        pixels(url)
    write_bytes(url, whole)
    assert_array_equal(pixels(url).image, pixels(tiles / "plain_i.fits").image)


def test_a_file_in_a_store_has_the_checksum_of_the_file(tiles):
    assert checksum(f"s3://{BUCKET}/tiles/plain_i.fits") == checksum(str(tiles / "plain_i.fits"))


def test_a_bucket_or_object_that_is_not_there_is_one_line(s3):
    for url in (f"s3://{BUCKET}/none/*.fits", "s3://nobucket/a_i.fits"):
        with pytest.raises(ConfigError, match=r"nothing to scan|cannot be listed"):
            find_files([url])
