"""Pictures and HDF5 files as data sets of stamps: small ones, made in the test."""

from __future__ import annotations

import importlib.util
import struct
import zlib

import h5py
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from PIL import Image

from lenspipe.cli import group
from lenspipe.errors import ConfigError
from lenspipe.stamps.format import StampSet, image_array
from lenspipe.stamps.readers import READERS
from lenspipe.stamps.spec import image_specs


def read(name, folder, **options):
    reader = READERS[name]
    stream = reader.read(folder, reader.options(**options))
    tables = list(stream.tables)
    return (pa.concat_tables(tables) if tables else None), dict(stream.dropped)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def test_pictures_take_their_class_from_their_folder_and_their_rows_from_the_bottom(tmp_path, rng):
    shown = {
        name: save(tmp_path / f"{name}.png", rng.integers(1, 255, (9, 9, 3), np.uint8))
        for name in ("lens/a", "lens/b", "nonlens/a", "loose")
    }
    table, dropped = read("pictures", tmp_path, pixel_scale_arcsec=0.2, bands=("i", "r", "g"))
    assert not dropped
    assert dict(zip(table["stamp_id"].to_pylist(), table["label"].to_pylist(), strict=True)) == {
        "lens/a": "lens", "lens/b": "lens", "nonlens/a": "nonlens", "loose": None,
    }  # fmt: skip
    for name, pixels in zip(table["stamp_id"].to_pylist(), image_array(table, "image"), strict=True):
        np.testing.assert_array_equal(pixels, np.moveaxis(shown[name][::-1].astype(np.float32), -1, 0))
    assert image_specs(table.schema, "t")["image"].unit == "uint8 stretch"


def test_a_csv_labels_pictures_by_path_or_name_and_brings_its_columns(tmp_path, rng):
    for name in ("a.png", "deep/b.png", "c.png"):
        save(tmp_path / name, rng.integers(1, 255, (8, 8), np.uint8))
    (tmp_path / "labels.csv").write_text("file,label,grade,galaxy\na.png,lens,2.5,g1\nb,nonlens,0.1,g2\n")
    table, dropped = read(
        "pictures", tmp_path, pixel_scale_arcsec=0.2, bands=("grey",), labels="labels.csv", host_column="galaxy"
    )
    assert table["label"].to_pylist() == ["lens", "nonlens"]
    assert table["grade"].to_pylist() == [2.5, 0.1] and table["host"].to_pylist() == ["g1", "g2"]
    (reason,) = dropped.values()
    assert "not in the CSV" in reason and "c.png" in reason


def test_sixteen_bits_stay_and_transparent_pixels_are_masked(tmp_path, rng):
    deep = save(tmp_path / "deep" / "x" / "a.png", rng.integers(300, 60000, (8, 8)).astype(np.uint16))
    table, _ = read("pictures", tmp_path / "deep", pixel_scale_arcsec=0.2, bands=("r",), flip_y=False)
    np.testing.assert_array_equal(image_array(table, "image")[0, 0], deep)
    assert image_specs(table.schema, "t")["image"].unit == "uint16 stretch"
    clear = np.full((8, 8, 4), 200, np.uint8)
    clear[:2, :, 3] = 0
    save(tmp_path / "clear" / "x" / "a.png", clear)
    table, _ = read("pictures", tmp_path / "clear", pixel_scale_arcsec=0.2)
    assert table["mask_fraction_red"].to_pylist() == [0.25]
    assert (image_array(table, "image")[0, :, -2:] == 0).all()  # the top rows lie at the end


def test_pictures_of_another_size_depth_or_colour_and_damaged_ones_are_dropped_and_named(tmp_path, rng):
    save(tmp_path / "a.png", rng.integers(1, 255, (8, 8), np.uint8))
    save(tmp_path / "b.png", rng.integers(1, 255, (8, 9), np.uint8))
    save(tmp_path / "c.png", rng.integers(1, 60000, (8, 8)).astype(np.uint16))
    save(tmp_path / "d.png", rng.integers(1, 255, (8, 8, 3), np.uint8))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "e.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "f.jpg").write_bytes(b"not a picture")
    table, dropped = read("pictures", tmp_path, pixel_scale_arcsec=0.2, bands=("grey",))
    assert table["stamp_id"].to_pylist() == ["a"]
    said = [dropped[str(tmp_path / name)] for name in ("b.png", "c.png", "d.png", "e.png", "f.jpg")]
    for words, reason in zip(("shape", "depth", "colours", "damaged", "damaged"), said, strict=True):
        assert words in reason


def test_a_bare_name_that_two_folders_have_labels_neither_and_one_stem_stands_for_one_picture(tmp_path, rng):
    for name in ("train/1.png", "test/1.png", "test/2.png"):
        save(tmp_path / name, rng.integers(1, 255, (8, 8), np.uint8))
    (tmp_path / "labels.csv").write_text("file,label\n1.png,lens\n2.png,nonlens\n")
    table, dropped = read("pictures", tmp_path, pixel_scale_arcsec=0.2, bands=("grey",), labels="labels.csv")
    assert table["stamp_id"].to_pylist() == ["test/2"] and sum(map(len, dropped.values())) > 0
    save(tmp_path / "test" / "2.jpg", rng.integers(1, 255, (8, 8), np.uint8))
    with pytest.raises(ConfigError, match="but for their suffix"):
        read("pictures", tmp_path, pixel_scale_arcsec=0.2, bands=("grey",))


def test_colours_of_sixteen_bits_are_refused_and_not_cut_to_eight(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\x00" + struct.pack(">24H", *range(1000, 1024)) for _ in range(8))
    head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    with pytest.raises(ConfigError, match="16 bits per channel"):
        read("pictures", tmp_path, pixel_scale_arcsec=0.2)


def test_the_command_says_that_pixels_of_pictures_are_not_flux(tmp_path, rng):
    for k in range(6):
        save(tmp_path / "in" / ("lens", "nonlens")[k % 2] / f"{k}.jpg", rng.integers(1, 255, (16, 16, 3), np.uint8))
    words = ["stamps", "convert", tmp_path / "in", "--from", "pictures", "--set", "pixel_scale_arcsec=0.2", "--out"]
    done = CliRunner().invoke(group, list(map(str, [*words, tmp_path / "out"])), standalone_mode=False)
    assert done.return_value == 0, done.output
    assert "not flux" in " ".join(done.output.split())
    assert StampSet.open(tmp_path / "out").n == 6


@pytest.fixture
def h5(tmp_path, rng):
    pixels = rng.normal(0, 1, (70, 5, 5, 2)).astype(np.float32)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["train/images"] = pixels
        file["train/y"] = np.arange(70) % 2
        file["train/name"] = [f"n{k}" for k in range(70)]
        file["train/theta"] = np.linspace(0.5, 2, 70)
        file["other/images"] = pixels[:3]
    return tmp_path, pixels


OPTIONS = {"bands": ("g", "r"), "pixel_scale_arcsec": 0.2, "images": "train/images", "axes": "nyxb"}


def test_an_hdf5_file_gives_stamps_classes_names_and_columns(h5):
    folder, pixels = h5
    table, dropped = read(
        "hdf5", folder, labels="train/y", classes=("nonlens", "lens"), names="train/name", columns=("train/theta",),
        zero_point_ab=27.4, **OPTIONS,
    )  # fmt: skip
    assert not dropped and table.num_rows == 70
    want = np.moveaxis(pixels, -1, 1) * np.float32(10 ** (0.4 * (31.4 - 27.4)))
    np.testing.assert_allclose(image_array(table, "image"), want, rtol=1e-6)
    assert table["label"].to_pylist() == ["nonlens", "lens"] * 35
    assert table["stamp_id"].to_pylist()[:2] == ["n0", "n1"]
    np.testing.assert_array_equal(table["theta"].to_numpy(), np.linspace(0.5, 2, 70))


def test_hdf5_arrays_that_are_missing_misshapen_or_lie_in_other_files_are_refused(h5, monkeypatch):
    folder, _ = h5
    with pytest.raises(ConfigError, match=r"no such array.*other,train"):
        read("hdf5", folder, **OPTIONS | {"images": "images"})
    with pytest.raises(ConfigError, match="as many bands as are named"):
        read("hdf5", folder, **OPTIONS | {"bands": ("g",)})
    with pytest.raises(ConfigError, match=r"one number or word per stamp.*other/images"):
        read("hdf5", folder, labels="other/images", **OPTIONS)
    with h5py.File(folder / "s.h5", "a") as file:
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "x")
        layout = h5py.VirtualLayout((3, 5, 5, 2), np.float32)
        layout[:] = h5py.VirtualSource("other.h5", "images", (3, 5, 5, 2))
        file.create_virtual_dataset("virtual", layout)
    for name, words in (("elsewhere", "another file"), ("virtual", "other files")):
        with pytest.raises(ConfigError, match=words):
            read("hdf5", folder, **OPTIONS | {"images": name})
    (folder / "s.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ConfigError, match="damaged"):
        read("hdf5", folder, **OPTIONS)
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "h5py" else found(name))
    with pytest.raises(ConfigError, match=r"lenspipe\[hdf5\]"):
        read("hdf5", folder, **OPTIONS)
