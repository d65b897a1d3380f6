import pytest
from sky import write_tile

from lenspipe.errors import ConfigError
from lenspipe.survey.files import find_files
from lenspipe.survey.layout import FileRule, read_layout
from lenspipe.survey.manifest import read_manifest
from lenspipe.survey.read import read_facts, read_window
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import BadTile, Tile, bands_of, demand_bands, group_tiles

GENERIC = read_layout("generic")


def names(tiles):
    return [t.name for t in tiles]


def test_folders_globs_and_files_name_the_same_tiles(tmp_path):
    write_tile(tmp_path, "a")
    write_tile(tmp_path / "deep", "b")
    by_folder = group_tiles(find_files([str(tmp_path)]), GENERIC)
    by_glob = group_tiles(find_files([str(tmp_path / "**/*.fits")]), GENERIC)
    by_file = group_tiles(find_files([str(p) for p in tmp_path.rglob("*.fits")]), GENERIC)
    assert by_folder == by_glob == by_file
    assert names(by_folder) == ["a", "b"]


def test_a_remote_folder_is_listed_by_fsspec(tmp_path):
    import fsspec

    write_tile(tmp_path, "far", bands="g")
    memory = fsspec.filesystem("memory")
    memory.pipe("/survey/far_g.fits", (tmp_path / "far_g.fits").read_bytes())
    (tile,) = group_tiles(find_files(["memory://survey"]), GENERIC)
    assert tile.bands[0].image.file == "memory://survey/far_g.fits"


def test_an_empty_glob_is_refused_with_its_text(tmp_path):
    with pytest.raises(ConfigError, match=r"glob is empty: nothing to scan .*none\*\.fits"):
        find_files([str(tmp_path / "none*.fits")])
    write_tile(tmp_path / "kids", "a")
    with pytest.raises(ConfigError, match=r"glob is empty \(FITS files lie one folder further down; give the folder\)"):
        find_files([str(tmp_path / "*.fits")])
    for mistyped in ("kds", "missing.fits"):  # no hint at what lies beside it
        with pytest.raises(ConfigError, match="no such FITS file or folder: nothing to scan"):
            find_files([str(tmp_path / mistyped)])


def test_a_folder_without_images_of_the_survey_is_refused(tmp_path):
    write_tile(tmp_path, "a")
    with pytest.raises(ConfigError, match="no file is named as survey 'des' names its images"):
        group_tiles(find_files([str(tmp_path)]), read_layout("des"))


def test_a_tile_survives_its_json(tmp_path):
    write_tile(tmp_path, "a")
    (tile,) = group_tiles(find_files([str(tmp_path)]), GENERIC)
    assert Tile.from_json(tile.to_json()) == tile


def test_two_files_of_one_band_make_a_bad_tile(tmp_path):
    write_tile(tmp_path, "a", bands="g")
    write_tile(tmp_path, "a", bands="g", suffix=".fits.gz")
    (tile,) = group_tiles(find_files([str(tmp_path)]), GENERIC)
    assert isinstance(tile, BadTile)
    assert "two files claim the same band" in str(tile.error)


def test_equal_names_in_two_folders_are_two_tiles(tmp_path):
    write_tile(tmp_path / "one", "a")
    write_tile(tmp_path / "two", "a")
    assert names(group_tiles(find_files([str(tmp_path)]), GENERIC)) == ["one.a", "two.a"]


def test_a_tile_that_lacks_a_band_is_bad_and_names_it(tmp_path):
    write_tile(tmp_path, "a", bands="gri")
    write_tile(tmp_path, "b", bands="gi", seed=1)
    tiles = group_tiles(find_files([str(tmp_path)]), GENERIC)
    good, bad = demand_bands(tiles, bands_of(tiles, GENERIC))
    assert isinstance(good, Tile)
    assert isinstance(bad, BadTile)
    assert "no image in band r" in str(bad.error)


def test_bands_come_in_order_of_wavelength(tmp_path):
    write_tile(tmp_path, "a", bands="izgru")
    tiles = group_tiles(find_files([str(tmp_path)]), GENERIC)
    assert bands_of(tiles, GENERIC) == ("u", "g", "r", "i", "z")


def test_a_header_names_the_band_where_the_file_does_not(tmp_path):
    write_tile(tmp_path, "x", bands="g", FILTER="r.MP9601")
    (tmp_path / "x_g.fits").rename(tmp_path / "picture.fits")
    (tile,) = group_tiles(find_files([str(tmp_path)]), GENERIC)
    assert tile.name == "picture"
    assert tile.bands[0].band == "r"


def test_a_manifest_gives_tiles_bands_and_weights(tmp_path):
    write_tile(tmp_path, "a", bands="gr")
    table = tmp_path / "tiles.csv"
    table.write_text("tile,band,image,weight\nT1,g,a_g.fits,\nT1,r,a_r.fits,a_g.fits\n")
    (tile,) = read_manifest(str(table), GENERIC)
    assert tile.name == "T1"
    assert [b.band for b in tile.bands] == ["g", "r"]
    assert tile.bands[0].weight is None
    assert tile.bands[1].weight.file == str(tmp_path / "a_g.fits")


def test_a_manifest_without_a_needed_column_says_which(tmp_path):
    table = tmp_path / "tiles.csv"
    table.write_text("tile,image\nT1,a_g.fits\n")
    with pytest.raises(ConfigError, match=r"missing='band'"):
        read_manifest(str(table), GENERIC)


def test_a_file_that_holds_several_bands_is_one_tile_of_all_of_them(tmp_path):
    from astropy.io import fits

    write_tile(tmp_path, "a", bands="gr")
    planes = [fits.ImageHDU(*fits.getdata(tmp_path / f"a_{b}.fits", header=True), name=f"{b}_SCI") for b in "gr"]
    (tmp_path / "mef").mkdir()
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(tmp_path / "mef/night1.fits")
    rules = tuple(
        FileRule(pattern=r"(?P<tile>night\d)\.fits", band=band, image_hdu=f"{band}_SCI") for band in ("g", "r")
    )
    layout = GENERIC.model_copy(update={"files": rules})
    (tile,) = group_tiles(find_files([str(tmp_path / "mef")]), layout)
    assert [(b.band, b.image.hdu) for b in tile.bands] == [("g", "g_SCI"), ("r", "r_SCI")]
    facts = read_facts(tile, layout, assumed_zero_point_ab=None)
    pixels = read_window(tile, facts, layout, Box(10, 10, 60, 60))
    assert (pixels.image[1] == fits.getdata(tmp_path / "a_r.fits")[10:60, 10:60]).all()


def test_bands_in_folders_of_their_own_make_one_tile(tmp_path):
    for band in "gr":
        write_tile(tmp_path / band, "t1", bands=band)
    (tile,) = group_tiles(find_files([str(tmp_path)]), GENERIC)
    assert tile.name == "t1"
    assert [b.band for b in tile.bands] == ["g", "r"]


def test_a_mask_in_the_images_own_file_leaves_the_image_a_tile(tmp_path):
    write_tile(tmp_path, "a", bands="g")
    rule = FileRule(pattern=r"(?P<tile>\w+)_(?P<band>g)\.fits", mask_hdu=0)
    layout = GENERIC.model_copy(update={"files": (rule,)})
    assert names(group_tiles(find_files([str(tmp_path)]), layout)) == ["a"]


def test_a_manifest_keeps_the_zeros_of_a_tile_name(tmp_path):
    table = tmp_path / "tiles.csv"
    table.write_text("tile,band,image\n0012,g,a.fits\n")
    (tile,) = read_manifest(str(table), GENERIC)
    assert tile.name == "0012"
