"""Layouts of which there is no real sample here: small files of the same layout, made in the test."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from lenspipe.cli.stamps import READER_NAMES
from lenspipe.errors import ConfigError
from lenspipe.stamps.format import image_array
from lenspipe.stamps.readers import READERS

BOLOGNA2_COLUMNS = [
    "ID",
    "x_crit",
    "y_crit",
    "source_ID",
    "z_source",
    "z_lens",
    "mag_source",
    "ein_area",
    "n_crit",
    "r_source",
    "crit_area",
    "n_pix_source",
    "source_flux",
    "n_pix_lens",
    "lens_flux",
    "n_source_im",
    "mag_eff",
    "sb_contrast",
    "color_diff",
    "n_gal_3",
    "n_gal_5",
    "n_gal_10",
    "halo_mass",
    "star_mass",
    "mag_lens",
    "n_sources",
]


def read(name, folder, **options):
    reader = READERS[name]
    stream = reader.read(folder, reader.options(**options))
    tables = list(stream.tables)
    return (pa.concat_tables(tables) if tables else None), dict(stream.dropped)


def write_fits(path, pixels, **header):
    path.parent.mkdir(parents=True, exist_ok=True)
    hdu = fits.PrimaryHDU(np.asarray(pixels, ">f4"))
    hdu.header.update(header)
    hdu.writeto(path)


# Bologna 1


def test_a_band_of_bologna_that_is_masked_whole_is_zero_and_counted(tmp_path, rng):
    for letter in "UGRI":
        pixels = rng.normal(0, 1e-12, (101, 101)) if letter != "G" else np.full((101, 101), 100.0)
        write_fits(tmp_path / "Public" / "Band9" / f"imageSDSS_{letter}-77.fits", pixels)
    (tmp_path / "classifications.csv").write_text(
        "# a comment\nID,is_lens,Einstein_area,numb_pix_lensed_image,flux_lensed_image_in_sigma\n77,1,2.5e-10,40,90\n"
    )
    table, dropped = read("bologna1", tmp_path)
    assert dropped == {}
    stamps = image_array(table, "image")
    assert (stamps[0, 1] == 0).all()
    assert (np.abs(stamps[0, [0, 2, 3]]).max(axis=(1, 2)) > 1).all()
    assert [table[f"mask_fraction_{band}"][0].as_py() for band in "ugri"] == [0, 1, 0, 0]
    assert (table["label"][0].as_py(), table["numb_pix_lensed_image"][0].as_py()) == ("lens", 40)


def test_a_bologna_stamp_without_one_of_its_bands_is_dropped_and_named(tmp_path):
    for number, letters in (("1", "UGRI"), ("2", "URI")):
        for letter in letters:
            write_fits(tmp_path / "lens" / f"Band_{letter}" / f"imageSDSS_{letter}-{number}.fits", np.eye(101))
    table, dropped = read("bologna1", tmp_path)
    assert table["stamp_id"].to_pylist() == ["bologna1-ground/1"]
    (reason,) = dropped.values()
    assert "imageSDSS_G-2.fits" in reason


def test_ground_and_space_in_one_folder_are_refused(tmp_path):
    write_fits(tmp_path / "a" / "imageSDSS_R-1.fits", np.eye(101))
    write_fits(tmp_path / "b" / "imageEUC_VIS-1.fits", np.eye(101))
    with pytest.raises(ConfigError, match="both ground and space"):
        read("bologna1", tmp_path)


# Bologna 2


def bologna2(tmp_path, rows):
    for row in rows:
        for band, size in (("VIS", 200), ("J", 66), ("Y", 66), ("H", 66)):
            name = f"EUC_{band}/imageEUC_{band}-{row['ID']}.fits"
            write_fits(tmp_path / "Public" / name, np.full((size, size), row["ID"] + size / 1000) * 1e-12)
    header = "".join(f"# line {k} of the description\n" for k in range(26))
    lines = [",".join(["", *BOLOGNA2_COLUMNS])]
    lines += [",".join([str(k), *(str(row.get(c, 0.5)) for c in BOLOGNA2_COLUMNS)]) for k, row in enumerate(rows)]
    (tmp_path / "image_catalog2.0train.csv").write_text(header + "\n".join(lines) + "\n")


def test_bologna_2_lenses_are_what_the_challenge_defines(tmp_path):
    edge = {"n_source_im": 1, "mag_eff": 1.61, "n_pix_source": 21}
    bologna2(
        tmp_path,
        [
            {"ID": 200001 + k, **edge, **one}
            for k, one in enumerate([{}, {"n_source_im": 0}, {"mag_eff": 1.6}, {"n_pix_source": 20}])
        ],
    )
    table, dropped = read("bologna2", tmp_path)
    assert dropped == {}
    assert table["label"].to_pylist() == ["lens", "nonlens", "nonlens", "nonlens"]
    assert table["mag_eff"].to_pylist() == [1.61, 1.61, 1.6, 1.61]
    assert set(BOLOGNA2_COLUMNS[1:]) <= set(table.schema.names)
    vis, nir = image_array(table, "image_vis"), image_array(table, "image_nir")
    assert (vis.shape, nir.shape) == ((4, 1, 200, 200), (4, 3, 66, 66))
    np.testing.assert_allclose(vis[2], 200003.2e-12, rtol=1e-6)
    np.testing.assert_allclose(nir[3], 200004.066e-12, rtol=1e-6)
    assert table.schema.field("image_vis").metadata[b"unit"] == b"challenge flux"
    in_njy, _ = read("bologna2", tmp_path, zero_point_ab=0.0)
    assert in_njy.schema.field("image_nir").metadata[b"unit"] == b"nJy"
    np.testing.assert_allclose(image_array(in_njy, "image_vis")[2], 200003.2e-12 * 3631e9, rtol=1e-4)


def test_a_blind_bologna_2_set_has_no_labels(tmp_path):
    bologna2(tmp_path, [{"ID": 200001}])
    (tmp_path / "image_catalog2.0train.csv").unlink()
    table, _ = read("bologna2", tmp_path)
    assert table["label"].to_pylist() == [None]


# DeepLense


def test_deeplense_classes_are_folders_and_scalars_become_columns(tmp_path, rng):
    stamps = rng.random((3, 150, 150)).astype(np.float32)
    for name, pixels in zip(("axion", "cdm", "no_sub"), stamps, strict=True):
        (tmp_path / name).mkdir()
        if name == "axion":
            np.savez(tmp_path / name / "a1.npz", image=pixels, axion_mass=1.5e-23)
        else:
            np.save(tmp_path / name / f"{name}_1.npy", pixels[None] if name == "cdm" else pixels)
    table, dropped = read("deeplense", tmp_path, pixel_scale_arcsec=0.05)
    assert dropped == {}
    assert table["label"].to_pylist() == ["axion", "cdm", "no_sub"]
    assert table["axion_mass"].to_pylist() == [1.5e-23, None, None]
    np.testing.assert_array_equal(image_array(table, "image")[:, 0], stamps)


def test_deeplense_stacks_and_colour_images_are_read_row_by_row(tmp_path, rng):
    stack = rng.random((5, 3, 64, 64))
    (tmp_path / "cdm").mkdir()
    np.save(tmp_path / "cdm" / "train.npy", stack)
    table, _ = read("deeplense", tmp_path, pixel_scale_arcsec=0.1, bands=["a", "b", "c"])
    np.testing.assert_array_equal(image_array(table, "image"), stack.astype(np.float32))
    assert len(set(table["stamp_id"].to_pylist())) == 5
    np.save(tmp_path / "cdm" / "train.npy", np.moveaxis(stack, 1, -1))
    last, _ = read("deeplense", tmp_path, pixel_scale_arcsec=0.1, bands=["a", "b", "c"], channels_last=True)
    np.testing.assert_array_equal(image_array(last, "image"), stack.astype(np.float32))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_object_array_is_refused_unopened_with_the_conversion_that_works(suffix, tmp_path, monkeypatch):
    """The published axion files hold [image, mass] as objects; the refusal's own command makes them readable."""

    class Mine:
        def __reduce__(self):
            return (print, ("pickle code was run",))

    (tmp_path / "axion").mkdir()
    file = tmp_path / "axion" / f"x{suffix}"
    objects = np.array([np.ones((64, 64)), 2e-23], dtype=object)
    evil = np.array([Mine(), 1.0], dtype=object)
    np.save(file, evil) if suffix == ".npy" else np.savez(file, image=evil)
    with pytest.raises(ConfigError, match=r"pickle.*allow_pickle=True.*np\.savez") as refusal:
        read("deeplense", tmp_path, pixel_scale_arcsec=0.05)
    if suffix == ".npy":
        np.save(file, objects)
        command = str(refusal.value).split('python -c "')[1].split('"')[0]
        monkeypatch.chdir(tmp_path / "axion")
        exec(command)
        file.unlink()
        table, _ = read("deeplense", tmp_path, pixel_scale_arcsec=0.05)
        assert table["axion_mass"].to_pylist() == [2e-23]
        assert image_array(table, "image").shape == (1, 1, 64, 64)


def test_a_damaged_deeplense_file_is_dropped_and_the_others_are_kept(tmp_path):
    (tmp_path / "cdm").mkdir()
    for name, size in (("a", 64), ("b", 64), ("c", 32), ("d", 64)):
        np.save(tmp_path / "cdm" / f"{name}.npy", np.ones((size, size)))
    whole = (tmp_path / "cdm" / "b.npy").read_bytes()
    (tmp_path / "cdm" / "b.npy").write_bytes(whole[:1000])
    (tmp_path / "cdm" / "d.npy").write_bytes(b"not an array")
    table, dropped = read("deeplense", tmp_path, pixel_scale_arcsec=0.05)
    assert [name[-1] for name in table["stamp_id"].to_pylist()] == ["a"]
    reasons = {name[-1]: reason for name, reason in dropped.items()}
    assert "ends early" in reasons["b"]
    assert "(1, 32, 32)" in reasons["c"]
    assert "cannot be read" in reasons["d"]


# LSST 2025


def lsst_stamp(folder, stem, value, bands="grizy", name="object"):
    folder.mkdir(parents=True, exist_ok=True)
    for k, band in enumerate(bands):
        pixels = np.full((1, 41 * 41), value + k, float)
        pixels[0, 41] += 100  # second row, first column
        columns = [fits.Column("id", "24A", array=[name]), fits.Column("image", "1681D", dim="(41,41)", array=pixels)]
        fits.BinTableHDU.from_columns(columns).writeto(folder / f"{stem}_{band}.fits")


def test_lsst_2025_folders_tell_class_and_origin_and_broken_files_are_named(tmp_path):
    lsst_stamp(tmp_path / "slsim_lenses" / "slsim_lenses", "D1_L_00000001", 10, name="lens 7")
    lsst_stamp(tmp_path / "slsim_nonlenses", "D1_N_00000001", 20)
    lsst_stamp(tmp_path / "hsc_lenses" / "hsc_lenses", "D2_L_00000001", 30)
    lsst_stamp(tmp_path / "hsc_nonlenses" / "hsc_nonlenses", "D2_N_00000001", 40)
    lsst_stamp(tmp_path / "hsc_nonlenses" / "hsc_nonlenses", "D2_N_00025866", 50)
    broken = tmp_path / "hsc_nonlenses" / "hsc_nonlenses" / "D2_N_00025866_y.fits"
    broken.write_bytes(broken.read_bytes()[:4000])
    lsst_stamp(tmp_path / "blind", "T_00000001", 60)
    table, dropped = read("lsst2025", tmp_path)
    rows = {row["stamp_id"]: row for row in table.select(["stamp_id", "label", "origin", "host"]).to_pylist()}
    assert {name.split("/")[1]: (row["label"], row["origin"]) for name, row in rows.items()} == {
        "slsim_lenses": ("lens", "slsim"),
        "slsim_nonlenses": ("nonlens", "slsim"),
        "hsc_lenses": ("lens", "hsc"),
        "hsc_nonlenses": ("nonlens", "hsc"),
        "blind": (None, None),
    }
    assert rows["lsst2025/slsim_lenses/D1_L_00000001"]["host"] == "lsst2025/slsim/lens 7"
    ((name, reason),) = dropped.items()
    assert "D2_N_00025866" in name
    assert "cannot be read" in reason
    row = table["stamp_id"].to_pylist().index("lsst2025/hsc_lenses/D2_L_00000001")
    stamp = image_array(table, "image")[row]
    assert stamp.shape == (5, 41, 41)
    assert stamp[:, 0, 0].tolist() == [30, 31, 32, 33, 34]
    assert stamp[0, 1, 0] == 130


# FITS folders and catalogues


def test_labels_hosts_and_splits_of_a_fits_folder_come_from_its_csv(tmp_path):
    for name in ("a", "b"):
        write_fits(tmp_path / f"{name}.fits", np.ones((20, 20)), MAGZERO=28.9)
    (tmp_path / "labels.csv").write_text(
        "file,kind,galaxy,split,ra_deg,dec_deg\nb.fits,ring,G2,test,1.5,2\na.fits,lens,G1,,1,2\n"
    )
    options = {
        "bands": {"r": 0},
        "size_px": 15,
        "labels": "labels.csv",
        "label_column": "kind",
        "host_column": "galaxy",
        "sky_position": "labels",
        "pixel_scale_arcsec": 0.2,
    }
    table, dropped = read("fits-folder", tmp_path, **options)
    assert dropped == {}
    assert table["label"].to_pylist() == ["lens", "ring"]
    assert table["host"].to_pylist() == ["G1", "G2"]
    assert table["split"].to_pylist() == [None, "test"]
    assert table["ra_deg"].to_pylist() == [1.0, 1.5]
    np.testing.assert_allclose(image_array(table, "image"), 10.0, rtol=1e-6)  # 31.4 - 28.9 = 2.5 mag


def test_a_fits_folder_without_zero_point_drops_the_stamp_and_says_what_to_state(tmp_path):
    write_fits(tmp_path / "a.fits", np.ones((20, 20)))
    options = {"bands": {"r": 0}, "size_px": 20, "pixel_scale_arcsec": 0.2, "sky_position": "none"}
    table, dropped = read("fits-folder", tmp_path, **options)
    assert table is None
    assert "zero_point_ab" in next(iter(dropped.values()))
    table, _ = read("fits-folder", tmp_path, **options, zero_point_ab=31.4)
    np.testing.assert_allclose(image_array(table, "image"), 1.0)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({}, "looked for MAGZERO, PHOTFLAM, BUNIT.*zero_point_ab.*file='a.fits', hdu=0, band='r'"),
        ({"MAGZERO": 0.0}, "MAGZERO = 0 is not a zero-point.*or pass zero_point_ab.*hdu=0"),
        ({"MAGZERO": "thirty"}, "MAGZERO = 'thirty' is text"),
        ({"MAGZERO": 27.0, "BUNIT": "nJy"}, "means a zero-point of 31.40, but keyword MAGZERO says 27.00"),
        ({"BUNIT": "mag"}, "BUNIT = 'mag' is not a linear flux"),
    ],
)
def test_a_fits_folder_says_which_keyword_it_looked_for_and_where(tmp_path, header, message):
    write_fits(tmp_path / "a.fits", np.ones((20, 20)), **header)
    options = {"bands": {"r": 0}, "size_px": 20, "pixel_scale_arcsec": 0.2, "sky_position": "none"}
    _, dropped = read("fits-folder", tmp_path, **options)
    assert re.search(message, next(iter(dropped.values())))


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_stamp_without_a_pixel_is_dropped_and_named(tmp_path, value):
    write_fits(tmp_path / "empty.fits", np.full((20, 20), value), MAGZERO=31.4)
    write_fits(tmp_path / "full.fits", np.ones((20, 20)), MAGZERO=31.4)
    options = {"bands": {"r": 0}, "size_px": 20, "pixel_scale_arcsec": 0.2, "sky_position": "none", "label": "lens"}
    table, dropped = read("fits-folder", tmp_path, **options)
    assert table["stamp_id"].to_pylist() == ["full"]
    assert "all pixels of the stamp are NaN or zero" in next(iter(dropped.values()))


def test_files_of_another_pixel_scale_are_dropped(tmp_path):
    for name, scale in (("a", 0.2), ("b", 0.25)):
        wcs = {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRPIX1": 10.5,
            "CRPIX2": 10.5,
            "CRVAL1": 150.0,
            "CRVAL2": 2.0,
        }
        write_fits(
            tmp_path / f"{name}.fits", np.ones((20, 20)), **wcs, CDELT1=-scale / 3600, CDELT2=scale / 3600, MAGZERO=30
        )
    table, dropped = read("fits-folder", tmp_path, bands={"r": 0}, size_px=20)
    assert table["stamp_id"].to_pylist() == ["a"]
    assert (table["ra_deg"][0].as_py(), table["dec_deg"][0].as_py()) == (pytest.approx(150), pytest.approx(2))
    assert "want_arcsec=0.2]" in next(iter(dropped.values()))


def test_nan_pixels_become_zero_and_are_counted(tmp_path):
    pixels = np.ones((20, 20))
    pixels[:5] = np.nan
    write_fits(tmp_path / "a.fits", pixels, MAGZERO=31.4)
    options = {"bands": {"r": 0}, "size_px": 20, "pixel_scale_arcsec": 0.2, "sky_position": "none"}
    table, _ = read("fits-folder", tmp_path, **options)
    assert table["mask_fraction_r"].to_pylist() == [0.25]
    assert image_array(table, "image").sum() == 300


def test_a_catalogue_with_a_key_twice_or_without_its_column_is_refused(tmp_path):
    write_fits(tmp_path / "a.fits", np.ones((20, 20)))
    options = {"bands": {"r": 0}, "size_px": 20, "pixel_scale_arcsec": 0.2, "labels": "l.csv"}
    (tmp_path / "l.csv").write_text("file,label\na.fits,x\na.fits,y\n")
    with pytest.raises(ConfigError, match=r"occurs twice.*a\.fits"):
        read("fits-folder", tmp_path, **options)
    (tmp_path / "l.csv").write_text("name,label\na,x\n")
    with pytest.raises(ConfigError, match=r"no line of the catalogue names this column.*'file'"):
        read("fits-folder", tmp_path, **options)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in READERS
        if n
        not in ("fits-folder", "fits-cubes", "deeplense", "colour-npz", "npz", "pictures", "hdf5", "blends", "fields")
    ],
)
def test_an_empty_folder_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match="no "):
        read(name, tmp_path)


# blends and fields

BLENDS = {"bands": ["g", "r"], "pixel_scale_arcsec": 0.2, "zero_point_ab": 31.4, "size_px": 7}


def test_every_command_name_of_a_reader_is_one():
    assert sorted(READER_NAMES) == sorted(READERS)


def test_a_blend_is_masked_where_it_has_no_weight_and_beyond_its_edge_and_a_broken_one_is_named(tmp_path):
    pixels = np.arange(40, dtype=np.float32).reshape(2, 4, 5) + 1
    weights = np.ones_like(pixels)
    weights[1, 3, 4] = 0
    np.savez(tmp_path / "a.npz", images=pixels, weights=weights, peaks=[[0, 0], [3, 2]])
    np.savez(tmp_path / "b.npz", images=pixels, weights=weights, peaks=[[9, 9]])
    table, dropped = read("blends", tmp_path, **BLENDS)
    (stamp,) = image_array(table, "image")
    np.testing.assert_array_equal(stamp[0, 1:5, 0:5], pixels[0])  # the peak at x 3, y 2 in the middle
    assert stamp[1, 4, 4] == 0 and table["mask_fraction_r"][0].as_py() == pytest.approx(1 - 19 / 49)
    assert list(dropped) == ["b.npz"] and "within the image" in dropped["b.npz"]
    with pytest.raises(ConfigError, match=r"no \.npz files"):
        (tmp_path / "none").mkdir()
        read("blends", tmp_path / "none", **BLENDS)


def test_fields_without_pictures_an_even_side_and_a_pattern_without_its_group_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no PNG or JPEG"):
        read("fields", tmp_path, pixel_scale_arcsec=0.2)
    (tmp_path / "a__b__c.png").write_bytes(b"not a picture")
    for wrong, said in (
        ({"size_px": 10}, "odd"),
        ({"field_class": "x"}, "group named field"),
        ({"bands": ["i"]}, "three"),
    ):
        with pytest.raises(ConfigError, match=said):
            read("fields", tmp_path, pixel_scale_arcsec=0.2, **wrong)
    table = READERS["fields"].read(tmp_path, READERS["fields"].options(pixel_scale_arcsec=0.2))
    assert list(table.tables) == [] and table.dropped[0][0] == "a__b__c.png"


# npz of fluxes


def npz_folder(folder, images, text, **arrays):
    np.savez(folder / "stamps.npz", images=images, **arrays)
    (folder / "stamps.csv").write_text(text)


def test_an_npz_of_fluxes_is_read_by_row_with_its_axes_its_zero_point_and_its_classes(tmp_path, rng):
    images = rng.normal(size=(3, 8, 8, 2)).astype(np.float64)
    npz_folder(
        tmp_path, images, "name,class,field,RA,DEC,split\na,lens,f1,10,-5,test\nb,,f1,20,-6,\nc,ring,f2,,,train\n"
    )
    options = {"bands": ["g", "r"], "pixel_scale_arcsec": 0.2, "axes": "nyxb", "zero_point_ab": 30.0}
    more = {"label_column": "class", "host_column": "field", "ra": "RA", "dec": "DEC"}
    table, dropped = read("npz", tmp_path, **options, **more)
    assert dropped == {}
    want = np.moveaxis(images, -1, 1) * 10**0.56
    np.testing.assert_allclose(image_array(table, "image"), want, rtol=1e-5)
    assert table["label"].to_pylist() == ["lens", None, "ring"]
    assert table["host"].to_pylist() == ["f1", "f1", "f2"]
    assert table["split"].to_pylist() == ["test", None, "train"]
    assert table["ra_deg"].to_pylist() == [10.0, 20.0, None]


def test_names_in_the_archive_say_which_row_is_whose_and_a_stamp_without_one_is_dropped(tmp_path, rng):
    images = rng.normal(size=(3, 1, 6, 6)).astype(np.float32)
    npz_folder(tmp_path, images, "name,mag\nc,21.5\na,20.0\n", who=np.array(["a", "b", "c"]))
    table, dropped = read("npz", tmp_path, bands=["i"], pixel_scale_arcsec=0.2, names="who", label="lens")
    assert table["stamp_id"].to_pylist() == ["a", "c"] and list(dropped) == ["b"]
    assert table["mag"].to_pylist() == [20.0, 21.5]
    np.testing.assert_array_equal(image_array(table, "image")[1], images[2])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"images": "pixels"}, r"no such array; name it by images \[images='pixels', has='images'"),
        ({"axes": "nyxb"}, "square, and as many bands as are named"),
        ({"bands": ["g", "r"]}, "as many bands as are named"),
        ({"label_column": "class"}, "lacks a column"),
    ],
)
def test_an_npz_that_is_not_what_the_options_say_is_refused(tmp_path, rng, options, match):
    npz_folder(tmp_path, rng.normal(size=(2, 1, 6, 6)), "name\na\nb\n")
    with pytest.raises(ConfigError, match=match):
        read("npz", tmp_path, **{"bands": ["i"], "pixel_scale_arcsec": 0.2, **options})


def test_an_npz_of_objects_is_never_opened(tmp_path):
    npz_folder(tmp_path, np.array([{}, {}], dtype=object), "name\na\nb\n")
    with pytest.raises(ConfigError, match="pickle"):
        read("npz", tmp_path, bands=["i"], pixel_scale_arcsec=0.2)
