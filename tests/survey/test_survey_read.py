import gzip
import shutil

import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal
from sky import SCALE_ARCSEC, tan_wcs, write_tile

from lenspipe.errors import TileError
from lenspipe.survey.files import checksum, find_files
from lenspipe.survey.layout import FileRule, SurveyLayout, ZeroPoint, read_layout
from lenspipe.survey.read import read_facts, read_window
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import group_tiles

GENERIC = read_layout("generic")
WINDOW = Box(30, 20, 130, 90)


def read(folder, layout=GENERIC, window=WINDOW, zero_point=None):
    (tile,) = group_tiles(find_files([str(folder)]), layout)
    facts = read_facts(tile, layout, assumed_zero_point_ab=zero_point)
    return read_window(tile, facts, layout, window), facts


def planes(path, image, *, header=None, **others):
    head = tan_wcs(image.shape).to_header()
    head["BUNIT"] = "nJy"
    head.update(header or {})
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(image, head, name="IMAGE")]
    hdus += [fits.ImageHDU(plane, name=name) for name, plane in others.items()]
    fits.HDUList(hdus).writeto(path)


def layout_with(**settings):
    rule = FileRule(
        pattern=r"(?P<tile>\w+)_(?P<band>g)\.fits",
        image_hdu="IMAGE",
        weight_hdu="W",
        mask_hdu=settings.pop("mask_hdu", None),
    )
    return SurveyLayout(name="t", description="t", files=(rule,), zero_point=ZeroPoint(units={"nJy": 31.4}), **settings)


def test_plain_gzipped_and_remote_files_give_the_same_pixels(tmp_path):
    import fsspec

    write_tile(tmp_path / "plain", "a")
    for path in (tmp_path / "plain").glob("*.fits"):
        (tmp_path / "gz").mkdir(exist_ok=True)
        with gzip.open(tmp_path / "gz" / f"{path.name}.gz", "wb") as out:
            out.write(path.read_bytes())
        fsspec.filesystem("memory").pipe(f"/read/{path.name}", path.read_bytes())
    plain, _ = read(tmp_path / "plain")
    zipped, _ = read(tmp_path / "gz")
    (tile,) = group_tiles(find_files(["memory://read"]), GENERIC)
    remote = read_window(tile, read_facts(tile, GENERIC, assumed_zero_point_ab=None), GENERIC, WINDOW)
    whole = fits.getdata(tmp_path / "plain" / "a_r.fits")
    assert_array_equal(plain.image[1], whole[WINDOW.slices])
    assert_array_equal(zipped.image, plain.image)
    assert_array_equal(remote.image, plain.image)
    assert plain.image.dtype == np.float32
    assert plain.image.dtype.isnative


def test_a_window_of_a_tile_compressed_image_equals_that_of_the_whole(tmp_path):
    write_tile(tmp_path, "a", compress=True, suffix=".fits.fz")
    pixels, _ = read(tmp_path)
    assert_array_equal(pixels.image[0], fits.getdata(tmp_path / "a_g.fits.fz", 1)[WINDOW.slices])


def test_counts_become_nanojansky_by_the_zero_point(tmp_path):
    write_tile(tmp_path / "njy", "a")
    write_tile(tmp_path / "counts", "a", BUNIT="adu", MAGZERO=27.5)
    njy, _ = read(tmp_path / "njy")
    counts, facts = read(tmp_path / "counts")
    assert facts.zero_point_ab == {"g": 27.5, "r": 27.5, "i": 27.5}
    assert_allclose(counts.image, njy.image * 10 ** (0.4 * 3.9), rtol=1e-6)


@pytest.mark.parametrize("kind", ["invvar", "variance", "rms"])
def test_every_kind_of_weight_becomes_inverse_variance(tmp_path, rng, kind):
    image = rng.normal(0, 1, (60, 60)).astype("f4")
    noise = rng.uniform(1, 3, (60, 60)).astype("f4")
    noise[5, 7] = 0
    weight = {
        "invvar": np.divide(1, noise**2, where=noise > 0, out=np.zeros_like(noise)),
        "variance": noise**2,
        "rms": noise,
    }
    planes(tmp_path / "t_g.fits", image, W=weight[kind])
    pixels, _ = read(tmp_path, layout_with(weight_kind=kind), Box(0, 0, 60, 60))
    assert pixels.mask[0, 5, 7]
    good = ~pixels.mask[0]
    assert_allclose(pixels.invvar[0][good], noise[good] ** -2.0, rtol=1e-5)
    assert pixels.invvar[0][5, 7] == 0


def test_weights_scale_with_the_square_of_the_units(tmp_path, rng):
    image = (rng.normal(0, 1, (60, 60)) * 1e-12).astype("f4")
    planes(tmp_path / "t_g.fits", image, header={"BUNIT": "maggy"}, W=np.full((60, 60), 1e24, "f4"))
    layout = layout_with(weight_kind="invvar")
    layout = layout.model_copy(update={"zero_point": ZeroPoint(units={"maggy": 0.0})})
    pixels, _ = read(tmp_path, layout, Box(0, 0, 60, 60))
    assert_allclose(pixels.invvar[0], 1 / 3.6307805**2, rtol=1e-5)  # 1e-12 maggies are 3.63 nJy
    assert_allclose(pixels.image[0], image * 3.6307805e12, rtol=1e-5)


def test_an_rms_that_means_no_data_masks(tmp_path, rng):
    noise = np.ones((60, 60), "f4")
    noise[:10] = 1e16
    planes(tmp_path / "t_g.fits", rng.normal(0, 1, (60, 60)).astype("f4"), W=noise)
    pixels, _ = read(tmp_path, layout_with(weight_kind="rms"), Box(0, 0, 60, 60))
    assert pixels.mask[0, :10].all()
    assert not pixels.mask[0, 10:].any()


def test_only_the_named_mask_bits_mask(tmp_path, rng):
    flags = np.zeros((60, 60), "i4")
    flags[3, 3], flags[4, 4], flags[5, 5] = 1 << 2, 1 << 5, (1 << 5) | 1
    image = rng.normal(0, 1, (60, 60)).astype("f4")
    planes(tmp_path / "t_g.fits", image, W=np.ones((60, 60), "f4"), M=flags)
    pixels, _ = read(tmp_path, layout_with(weight_kind="invvar", mask_hdu="M", mask_bits=(5,)), Box(0, 0, 60, 60))
    assert np.argwhere(pixels.mask[0]).tolist() == [[4, 4], [5, 5]]
    everything, _ = read(tmp_path, layout_with(weight_kind="invvar", mask_hdu="M"), Box(0, 0, 60, 60))
    assert everything.mask.sum() == 3


def test_nan_saturated_and_empty_pixels_are_masked_and_zero(tmp_path, rng):
    image = rng.normal(0, 1, (60, 60)).astype("f4")
    image[2, 2], image[8, 8], image[30:40, 30:40], image[50, 50] = np.nan, 5000, 0, 0
    planes(tmp_path / "t_g.fits", image, W=np.ones((60, 60), "f4"), header={"SAT": 4000.0})
    pixels, _ = read(tmp_path, layout_with(weight_kind="invvar", saturation_keyword="SAT"), Box(0, 0, 60, 60))
    assert pixels.mask[0, 2, 2]
    assert pixels.mask[0, 8, 8]
    assert pixels.mask[0, 30:40, 30:40].all()
    assert not pixels.mask[0, 50, 50]  # a single zero is a value that quantisation made
    assert (pixels.image[pixels.mask] == 0).all()
    assert np.isfinite(pixels.image).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"BUNIT": "adu"}, r"no zero-point \(looked for MAGZERO.*--zero-point-ab"),
        ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "no celestial WCS"),
        ({"CTYPE1": "RA---XYZ"}, "WCS"),
    ],
)
def test_a_header_without_what_is_needed_names_the_file(tmp_path, change, message):
    write_tile(tmp_path, "a", **change)
    with pytest.raises(TileError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value.facts["file"]).endswith("a_g.fits")


def test_a_missing_zero_point_can_be_assumed_and_is_recorded(tmp_path):
    write_tile(tmp_path, "a", BUNIT="adu")
    _, facts = read(tmp_path, zero_point=30.0)
    assert facts.zero_point_assumed
    assert set(facts.zero_point_ab.values()) == {30.0}


def test_a_truncated_file_is_a_tile_error(tmp_path):
    write_tile(tmp_path, "a", bands="g")
    path = tmp_path / "a_g.fits"
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(TileError, match=r"truncated or damaged|ends before"):
        read(tmp_path, window=Box(0, 0, 240, 200))


def test_a_file_that_is_not_fits_is_a_tile_error(tmp_path):
    (tmp_path / "a_g.fits").write_text("nothing of the kind")
    with pytest.raises(TileError, match="cannot be read"):
        read(tmp_path)


def test_bands_of_different_shapes_are_refused(tmp_path):
    write_tile(tmp_path, "a", bands="g")
    write_tile(tmp_path, "a", bands="r", shape=(200, 230))
    with pytest.raises(TileError, match=r"different shapes.*shape='\(200, 230\)'"):
        read(tmp_path)


def test_bands_on_different_grids_are_refused(tmp_path):
    write_tile(tmp_path, "a", bands="g")
    write_tile(tmp_path, "a", bands="r", CRPIX1=90.0)
    with pytest.raises(TileError, match="not on one pixel grid"):
        read(tmp_path)


def test_a_pixel_scale_that_is_not_the_surveys_is_refused(tmp_path):
    write_tile(tmp_path, "a")
    for path in tmp_path.glob("*.fits"):
        shutil.move(path, tmp_path / f"DES0001-4914_r1_{path.stem[-1]}.fits")
    layout = read_layout("des")
    layout = layout.model_copy(
        update={
            "files": (layout.files[0].model_copy(update={"image_hdu": None, "weight_hdu": None, "mask_hdu": None}),)
        }
    )
    with pytest.raises(TileError, match=r"pixel scale differs.*got_arcsec=0.2, want_arcsec=0.263"):
        read(tmp_path, layout)


def test_the_pixel_scale_is_that_of_the_middle(tmp_path):
    write_tile(tmp_path, "a")
    _, facts = read(tmp_path)
    assert facts.pixel_scale_arcsec == pytest.approx(SCALE_ARCSEC, rel=1e-6)


def test_a_zpn_frame_has_the_scale_that_astropy_finds_for_its_middle(real_data):
    from astropy.wcs import WCS

    (tile,) = group_tiles([str(real_data / "tiles/vircam_video/image_1.fits")], GENERIC)
    facts = read_facts(tile, GENERIC, assumed_zero_point_ab=30.0)  # its MAGZPT does not say of what
    wcs = WCS(fits.getheader(tile.file, 1))
    a, b = wcs.pixel_to_world([900, 901], [900, 900])
    c, d = wcs.pixel_to_world([900, 900], [900, 901])
    assert facts.pixel_scale_arcsec == pytest.approx(np.sqrt(a.separation(b).arcsec * c.separation(d).arcsec), rel=1e-3)


def test_a_checksum_is_that_of_the_file(tmp_path):
    import hashlib

    (tmp_path / "x").write_bytes(b"lens" * 1000)
    assert checksum(str(tmp_path / "x")) == f"sha256:{hashlib.sha256(b'lens' * 1000).hexdigest()}"


def test_damaged_compressed_pixels_are_a_tile_error(tmp_path, rng):
    write_tile(tmp_path, "a", bands="g", compress=True, suffix=".fits.fz")
    path = tmp_path / "a_g.fits.fz"
    data = bytearray(path.read_bytes())
    for at in rng.integers(len(data) // 2, len(data) - 3000, 400):
        data[at] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(TileError, match="truncated or damaged"):
        read(tmp_path, window=Box(0, 0, 240, 200))


def test_galactic_coordinates_become_equatorial_and_swapped_axes_are_refused(tmp_path):
    from astropy.coordinates import SkyCoord

    from lenspipe.sky.wcs import sky_position

    write_tile(tmp_path / "gal", "a", bands="g", CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN", CRVAL1=120.0, CRVAL2=-30.0)
    _, facts = read(tmp_path / "gal")
    ra, dec = sky_position(facts.wcs, np.array([119.5]), np.array([99.5]))
    want = SkyCoord(120.0, -30.0, unit="deg", frame="galactic").icrs
    assert_allclose([ra[0], dec[0]], [want.ra.deg, want.dec.deg], atol=1e-7)
    write_tile(tmp_path / "swapped", "a", bands="g", CTYPE1="DEC--TAN", CTYPE2="RA---TAN", CRVAL1=-5.0, CRVAL2=30.0)
    with pytest.raises(TileError, match="longitude on axis 1"):
        read(tmp_path / "swapped")


def test_a_header_that_was_edited_is_read_anew_and_one_that_was_not_is_kept(tmp_path, monkeypatch):
    from lenspipe.survey import read as module

    write_tile(tmp_path, "a", bands="g", BUNIT="adu", MAGZERO=27.5)
    before = read(tmp_path)[1].zero_point_ab
    with fits.open(tmp_path / "a_g.fits", mode="update") as hdus:
        hdus[0].header["MAGZERO"] = 28.5
    after = read(tmp_path)[1]
    assert (before, after.zero_point_ab) == ({"g": 27.5}, {"g": 28.5})
    after.wcs.wcs.crval = 0.0, 0.0  # the caller's own
    monkeypatch.setattr(module, "plane_header", lambda *a: pytest.fail("read again"))
    assert read(tmp_path)[1].wcs.wcs.crval[0] == 30.0


@pytest.mark.parametrize("window", [Box(30, 20, 130, 90), Box(5, 20, 230, 90)])
def test_a_narrow_and_a_wide_window_are_those_of_the_whole(tmp_path, window):
    write_tile(tmp_path, "a", bands="g")
    assert_array_equal(read(tmp_path, window=window)[0].image[0], fits.getdata(tmp_path / "a_g.fits")[window.slices])
