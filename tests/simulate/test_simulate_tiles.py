"""Hosts of a tile: found where they are, told apart by the cuts, searched as the caller says."""

from __future__ import annotations

import numpy as np
import pytest

from lenspipe.errors import DataError
from lenspipe.image.sky import subtract_sky
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.measure import measure_window
from lenspipe.simulate.paint import HostCuts, TileSources, search_tile, sky_hosts, tile_hosts
from lenspipe.survey.read import Pixels
from lenspipe.survey.shards import Box

SEARCH = {
    "mesh_px": 64,
    "filter_mesh": 3,
    "threshold_sigma": 1.5,
    "min_area_px": 5,
    "deblend_levels": 32,
    "deblend_contrast": 0.005,
}
CUTS = HostCuts(
    early_mag=(15.5, 20.8),
    early_colour=(1.35, 3.3),
    early_radius_arcsec=(0.62, 3.0),
    star_mag_max=17.5,
    star_radius_max_arcsec=0.70,
)


@pytest.fixture
def image():
    """Two red galaxies on noise, and a strip of one band without data."""
    image = np.random.default_rng(0).normal(0, 10, (3, 300, 300)).astype(np.float32)
    y, x = np.indices((300, 300))
    for x0, y0 in ((80, 200), (220, 90)):
        light = 4000 * np.array([0.2, 0.7, 1.0])[:, None, None] * np.exp(-np.hypot(x - x0, y - y0) / 3)
        image += light.astype(np.float32)
    image[1, :20] = np.nan
    return image


def hosts_of(image, cuts=CUTS, **changes):
    found = search_tile(image, **(SEARCH | changes))
    return tile_hosts(found, name="t", pixel_scale_arcsec=0.3, psf_fwhm_arcsec=np.ones(3), size_px=65, cuts=cuts)


def test_sources_are_found_where_they_were_put(image):
    hosts, at = hosts_of(image)
    bright = at[[h.mag < 20 for h in hosts]]
    np.testing.assert_allclose(sorted(bright.tolist()), [[80, 200], [220, 90]], atol=0.2)
    assert all(np.isfinite(host.pixels_njy).all() for host in hosts)
    assert {h.kind for h in hosts if h.mag < 20} == {"early"}


def test_the_search_is_the_callers_and_a_higher_threshold_finds_fewer(image):
    image[:, 150, 150] += 300  # one pixel: large enough for a search by single pixels alone
    deep, shallow = hosts_of(image, min_area_px=1)[0], hosts_of(image, threshold_sigma=20.0)[0]
    assert 2 <= len(shallow) < len(deep)
    with pytest.raises(TypeError, match="threshold_sigma"):
        search_tile(image, **{key: value for key, value in SEARCH.items() if key != "threshold_sigma"})


def test_the_cuts_decide_what_is_early(image):
    blue = HostCuts(**(vars(CUTS) | {"early_colour": (-1.0, 0.5)}))
    assert {h.kind for h in hosts_of(image, cuts=blue)[0] if h.mag < 20} == {"source"}


def test_a_band_without_data_is_refused(image):
    image[2] = np.nan
    with pytest.raises(DataError, match=r"holds no data.*band=2"):
        search_tile(image, **SEARCH)


def test_empty_places_are_clear_of_every_source_and_hold_data(image):
    found = search_tile(image, **SEARCH)
    ask = {"name": "t", "pixel_scale_arcsec": 0.3, "psf_fwhm_arcsec": np.ones(3), "size_px": 41}
    hosts = sky_hosts(found, 12, np.random.default_rng(2), clear_arcsec=8.0, **ask)
    assert len(hosts) == 12 and {host.kind for host in hosts} == {"sky"}
    for host in hosts:
        x, y = map(int, host.name.split("-")[1:])
        assert np.hypot(found.sources.x_px - x, found.sources.y_px - y).min() * 0.3 >= 8.0
        assert y - 20 >= 20  # the strip without data
        np.testing.assert_array_equal(host.pixels_njy, found.images_njy[:, y - 20 : y + 21, x - 20 : x + 21])
    with pytest.raises(DataError, match="hardly any empty place"):
        sky_hosts(found, 3, np.random.default_rng(2), clear_arcsec=500.0, **ask)


def test_with_a_scans_values_the_search_is_the_scans_and_the_scans_sources_make_the_same_hosts(image):
    config = ScanConfig()
    box = Box(0, 0, image.shape[2], image.shape[1])
    mask = ~np.isfinite(image)
    pixels = Pixels(("g", "r", "i"), np.where(mask, np.float32(0), image), (None,) * 3, mask, (0, 0, 0))
    sky = {"mesh_px": config.background.mesh_px, "filter_mesh": config.background.filter_mesh}
    flat = subtract_sky(pixels.image, pixels.mask, bands=pixels.bands, **sky)
    measured = measure_window(flat, pixels, config.detect, core=box, window=box).core
    keys = ("threshold_sigma", "min_area_px", "deblend_levels", "deblend_contrast")
    found = search_tile(image, **sky, **{key: getattr(config.detect, key) for key in keys})
    np.testing.assert_array_equal(found.sources.x_px, measured.sources.x_px)
    np.testing.assert_array_equal(found.flux_njy, measured.flux_njy)
    scans = TileSources(
        flat.image, flat.mask, np.array(flat.median_rms), measured.sources, measured.apertures, measured.flux_njy
    )
    ask = {"name": "t", "pixel_scale_arcsec": 0.3, "psf_fwhm_arcsec": np.ones(3), "size_px": 41, "cuts": CUTS}
    mine, theirs = tile_hosts(found, **ask)[0], tile_hosts(scans, **ask)[0]
    assert len(mine) == 2
    for a, b in zip(mine, theirs, strict=True):
        assert (a.name, a.kind, a.mag) == (b.name, b.kind, b.mag)
        np.testing.assert_array_equal(a.pixels_njy, b.pixels_njy)
