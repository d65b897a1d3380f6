# Every image is scanned, or named in a message with its number; nothing is left out without a word.

import bz2
import gzip
import lzma
import os
import shutil

import numpy as np
import pytest
from astropy.io import fits
from made_files import agrees, field, read, wcs_cards, with_cards, write, write_hdus

from lenspipe.errors import ConfigError, TileError
from lenspipe.survey.files import find_files, packed_otherwise
from lenspipe.survey.layout import read_layout
from lenspipe.survey.manifest import read_manifest
from lenspipe.survey.tile import BadTile, Tile, bands_of, group_tiles, left_out

TRUTH = field()
HEAD = wcs_cards(BUNIT="nJy")
GENERIC = read_layout("generic")
NOISE = np.random.default_rng(0).normal(800, 5, TRUTH.image.shape)


def tiles_of(folder, survey="generic"):
    return group_tiles(find_files([str(folder)]), read_layout(survey))


@pytest.mark.parametrize(
    "names",
    [("WHT", "SCI"), ("SCI", "WHT", "CTX"), ("IMAGE", "MASK", "VARIANCE"), ("WEIGHT", ""), ("VIS_RMS", "VIS_FLUX")],
)
def test_the_science_plane_is_found_by_the_names_of_the_others(tmp_path, names):
    science = {"SCI", "IMAGE", "", "VIS_FLUX"}
    hdus = [(name, TRUTH.image if name in science else NOISE, HEAD) for name in names]
    agrees(read(write_hdus(tmp_path / "t_i.fits", *hdus), TRUTH), TRUTH, band="i")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("CCD0", "CCD1", "CCD2", "CCD3"), "the file holds 4 images, of which 4 can be the image.*1 CCD0 .*4 CCD3"),
        (("g", "r", "i"), "holds 3 images.*for several bands one"),
        (("SCI", "SCI"), "holds 2 images"),
        (("WHT", "CTX"), "holds 2 images, of which 0 can be the image"),
    ],
)
def test_several_images_are_refused_and_named(tmp_path, names, message):
    with pytest.raises(TileError, match=message):
        read(write_hdus(tmp_path / "t_i.fits", *((name, TRUTH.image, HEAD) for name in names)), TRUTH)
    (tile,) = tiles_of(write_hdus(tmp_path / "b" / "t.fits", *((name, TRUTH.image, HEAD) for name in names)))
    assert isinstance(tile, BadTile)  # also where the band is asked from the header


def test_an_hdu_name_that_occurs_twice_is_refused(tmp_path):
    head = wcs_cards(scale_arcsec=0.05, BUNIT="nJy", FILTER="F814W")
    hdus = [(name, TRUTH.image, head) for name in ("SCI", "WHT", "SCI", "WHT")]
    with pytest.raises(TileError, match="2 HDUs of this name"):
        read(write_hdus(tmp_path / "x_drz.fits", *hdus), TRUTH, survey="hst-acs")


@pytest.mark.parametrize(
    "suffix", [".FITS", ".Fits", ".FIT", ".fits.bz2", ".fits.xz", ".FITS.GZ", ".fts", ".fits.gz", ".fits"]
)
def test_files_of_all_suffixes_and_packings_are_scanned(tmp_path, suffix):
    plain = write(tmp_path / "in" / "plain.tmp", TRUTH.image, HEAD)
    data = plain.read_bytes()
    plain.unlink()
    end = suffix.lower().rsplit(".", 1)[1]
    pack = {"bz2": bz2.compress, "gz": gzip.compress, "xz": lzma.compress}.get(end, bytes)
    (tmp_path / "in" / f"t_i{suffix}").write_bytes(pack(data))
    for request in (tmp_path / "in", tmp_path / "in" / f"t_i{suffix}"):
        agrees(read(request, TRUTH), TRUTH, band="i")


def test_siblings_in_capitals_are_found(tmp_path):
    for what in ("image-r", "invvar-r", "maskbits"):
        (tmp_path / f"legacysurvey-1126p222-{what}.FITS").touch()
    (tile,) = tiles_of(tmp_path, "legacysurvey")
    assert tile.bands[0].weight.file.endswith("invvar-r.FITS")
    assert tile.bands[0].mask.file.endswith("maskbits.FITS")


def test_a_packing_that_cannot_be_opened_is_named(tmp_path):
    write(tmp_path / "a_i.fits", TRUTH.image, HEAD)
    for name in ("b_i.fits.zst", "c_i.fits.part", "notes.txt"):
        (tmp_path / name).touch()
    assert [os.path.basename(f) for f in packed_otherwise([str(tmp_path)])] == ["b_i.fits.zst", "c_i.fits.part"]
    (tmp_path / "a_i.fits").unlink()
    with pytest.raises(ConfigError, match=r"nothing to scan .*files=3, first='.*b_i\.fits\.zst'"):
        find_files([str(tmp_path)])


def test_links_to_folders_are_followed_once_and_broken_ones_fail_by_name(tmp_path):
    write(tmp_path / "night1" / "a_i.fits", TRUTH.image, HEAD)
    write(tmp_path / "far" / "b_i.fits", TRUTH.image, HEAD)
    os.symlink(tmp_path / "far", tmp_path / "night1" / "night2")
    os.symlink(tmp_path / "night1", tmp_path / "night1" / "round")
    os.symlink(tmp_path / "gone.fits", tmp_path / "night1" / "c_i.fits")
    tiles = tiles_of(tmp_path / "night1")
    assert [t.name for t in tiles] == ["a", "b", "c"]
    with pytest.raises(TileError, match="cannot be read"):
        read(tmp_path / "night1" / "c_i.fits", TRUTH)


@pytest.mark.parametrize("folder", ["q1 [dr1]", "q[1]", "a*b", "what?", "plain"])
def test_weights_are_found_in_folders_whose_names_are_globs(tmp_path, folder):
    name = "EUC_MER_BGSUB-MOSAIC-VIS_TILE1-A_1.fits"
    head = wcs_cards(scale_arcsec=0.1, BUNIT="nJy")
    rms = np.ones(TRUTH.image.shape)
    rms[:, :50] = 1e20
    write(tmp_path / folder / name, TRUTH.image, head)
    write(tmp_path / folder / "EUC_MER_MOSAIC-VIS-RMS_TILE1-B_1.fits", rms, head)
    for request in (tmp_path / folder, tmp_path / folder / name, tmp_path / folder / "EUC*BGSUB*.fits"):
        measured = read(request, TRUTH, survey="euclid-vis")
        assert measured.mask[0][:, :50].all()
        assert not measured.mask[0][:, 50:].any()


def test_tiles_whose_names_differ_in_dropped_characters_stay_two(tmp_path):
    for name in ("α_g", "β_g", "plain_g"):
        write(tmp_path / f"{name}.fits", TRUTH.image, HEAD)
    names = [t.name for t in tiles_of(tmp_path)]
    assert len(set(names)) == 3
    assert "plain" in names
    table = tmp_path / "tiles.csv"
    table.write_text("tile,band,image\nA 1,g,α_g.fits\nA:1,g,β_g.fits\n")
    tiles = read_manifest(str(table), GENERIC)
    assert len({t.name for t in tiles}) == 2
    assert all(isinstance(t, Tile) for t in tiles)


@pytest.mark.parametrize(("one", "two"), [("y", "Y"), ("Ks", "KS"), ("f814w", "F814W")])
def test_bands_that_differ_by_case_are_refused_with_their_numbers(tmp_path, one, two):
    rows = "".join(f"t{k},{band},{k}{band}.fits\n" for k, band in ((1, one), (2, one), (2, two)))
    (tmp_path / "t.csv").write_text("tile,band,image\n" + rows)
    with pytest.raises(ConfigError, match=rf"differ by case only.*tiles_({one}=2|{two}=1)"):
        bands_of(read_manifest(str(tmp_path / "t.csv"), GENERIC), GENERIC)


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_cubes_of_one_plane_are_read(tmp_path, shape):
    head = with_cards(
        HEAD, {"CTYPE3": "FREQ", "CRVAL3": 1.4e9, "CRPIX3": 1.0, "CDELT3": 1e6} if len(shape) == 1 else {}
    )
    path = write(tmp_path / "t_i.fits", TRUTH.image.reshape(shape + TRUTH.image.shape), head)
    agrees(read(path, TRUTH), TRUTH, band="i")


def test_a_cube_of_several_planes_is_refused_with_its_shape(tmp_path):
    path = write(tmp_path / "t_i.fits", np.stack([TRUTH.image] * 3), HEAD)
    with pytest.raises(TileError, match=r"no HDU of the file holds a two-dimensional image .*\(3, 90, 110\)"):
        read(path, TRUTH)


def test_what_a_survey_leaves_out_is_counted(tmp_path):
    for name in ("KiDS_DR4.0_180.0_-0.5_g_sci", "extra", "other"):
        write(tmp_path / f"{name}.fits", TRUTH.image, HEAD)
    write(tmp_path / "far" / "z.fits", TRUTH.image, HEAD)
    files, layout = find_files([str(tmp_path)]), read_layout("kids")
    lines = left_out(files, group_tiles(files, layout), layout)
    assert any(line.startswith("3 FITS files are left out, not named as survey 'kids'") for line in lines)
    assert any(line.startswith("1 images have no weight file beside them") for line in lines)
    assert any(line.startswith("1 images have no mask file") for line in lines)
    hsc = read_layout("cfhtls")
    (tmp_path / "c").mkdir()
    for band in "gY":
        shutil.copy(tmp_path / "extra.fits", tmp_path / "c" / f"t_{band}.fits")
    files = find_files([str(tmp_path / "c")])
    assert len(left_out(files, group_tiles(files, hsc), hsc)) == 1


def test_file_urls_and_remote_folders_name_what_paths_name(tmp_path):
    import fsspec

    path = write(tmp_path / "in x" / "t_i.fits", TRUTH.image, HEAD)
    agrees(read(f"file://{path}", TRUTH), TRUTH, band="i")
    assert find_files([path.as_uri(), f"file://{tmp_path}"]) == [str(path)] * 2
    memory = fsspec.filesystem("memory")
    memory.pipe("/left/deep/t_i.fits", path.read_bytes())
    for request in ("memory://left", "memory://left/**/*.fits", "memory:///left/deep", "memory://left/deep/t_i.fits"):
        agrees(read(request, TRUTH), TRUTH, band="i")


def test_urls_keep_their_host(monkeypatch):
    from lenspipe.survey import files

    class Server:
        def isdir(self, path):
            return path == "/data"

        def find(self, path):
            return ["/data/t_i.fits", "/data/t_r.fits"]

    monkeypatch.setattr(files, "url_filesystem", lambda url: (Server(), "/data"))
    for host in ("sftp://user@host", "hdfs://namenode:8020"):
        assert find_files([f"{host}/data"]) == [f"{host}/data/t_i.fits", f"{host}/data/t_r.fits"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/t_i.fits", "s3:// needs a package|cannot be listed|cannot be reached|no such FITS file"),
        ("nonsense://bucket/t_i.fits", "the protocol nonsense:// is not known"),
        ("https://example.invalid/t_i.fits", "cannot be listed|needs a package"),
        ("hdfs://namenode:1/t_i.fits", "hdfs:// needs|cannot be reached|cannot be listed"),
        ("sftp://host.invalid/t_i.fits", "sftp:// needs|cannot be reached|cannot be listed"),
        ("s3://bucket/tiles.csv", "needs a package|cannot read|cannot be reached"),
    ],
)
def test_a_url_that_cannot_be_read_is_one_clear_line(url, message):
    with pytest.raises(ConfigError, match=message):
        read_manifest(url, GENERIC) if url.endswith(".csv") else find_files([url])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("t1,i,\n", "row 1 of the manifest has no image"),
        ("t1,i,a.fits\nt2,,b.fits\n", "row 2 of the manifest has no band"),
        (" ,,a.fits\n", "row 1 of the manifest has no tile and no band"),
        ("t1,i,a.fits\nt2,i,b.fits\nt1,i ,./a.fits\n", "rows 1 and 3 of the manifest are the same image"),
    ],
)
def test_a_manifest_row_that_cannot_be_meant_is_named_by_its_number(tmp_path, rows, message):
    (tmp_path / "t.csv").write_text("tile,band,image\n" + rows)
    with pytest.raises(ConfigError, match=message):
        read_manifest(str(tmp_path / "t.csv"), GENERIC)


def test_spaces_around_the_values_of_a_manifest_do_not_count_and_it_may_lie_at_a_url(tmp_path):
    import fsspec

    write(tmp_path / "a.fits", TRUTH.image, HEAD)
    (tmp_path / "t.csv").write_text("tile,band,image,weight\n t1 , i , a.fits , \n")
    (tile,) = read_manifest(str(tmp_path / "t.csv"), GENERIC)
    assert (tile.name, tile.bands[0].band, tile.bands[0].weight) == ("t1", "i", None)
    assert tile.bands[0].image.file == str(tmp_path / "a.fits")
    fsspec.filesystem("memory").pipe("/m/t.csv", b"tile,band,image\nt1,i,a.fits\n")
    (tile,) = read_manifest("memory://m/t.csv", GENERIC)
    assert tile.bands[0].image.file == "memory://m/a.fits"


def test_a_manifest_that_is_no_text_is_one_clear_line(tmp_path):
    for name, data in (("t.csv", b"\xff\xfe\x00"), ("t.parquet", b"PAR"), ("e.csv", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match="manifest"):
            read_manifest(str(tmp_path / name), GENERIC)
    with pytest.raises(ConfigError, match="cannot read the manifest"):
        read_manifest(str(tmp_path / "none.csv"), GENERIC)


def test_an_old_fits_library_without_names_still_finds_the_only_image(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(3))])
    image = fits.ImageHDU(TRUTH.image.astype("f4"), HEAD)
    fits.HDUList([fits.PrimaryHDU(), table, image]).writeto(tmp_path / "t_i.fits")
    agrees(read(tmp_path / "t_i.fits", TRUTH), TRUTH, band="i")
