from __future__ import annotations

import numpy as np
import pytest

from lenspipe.cli import run_command
from lenspipe.cli.stamps import READER_NAMES, command
from lenspipe.stamps.format import StampSet, image_array, write_part
from lenspipe.stamps.readers import READERS


def run(*args) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command(command, [str(arg) for arg in args])
    return int(ended.value.code or 0)


@pytest.fixture
def arrays_folder(tmp_path, rng):
    for label in ("lens", "nonlens"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for k in range(5):
            np.save(tmp_path / "in" / label / f"{k}.npy", rng.normal(size=(24, 24)))
    return tmp_path / "in"


def test_the_command_knows_every_reader():
    assert tuple(READERS) == READER_NAMES


def test_convert_describe_and_validate_end_well(arrays_folder, tmp_path, capsys):
    out = tmp_path / "out"
    settings = ("--set", "pixel_scale_arcsec=0.05", "--set", "unit=electrons")
    assert run("convert", arrays_folder, "--from", "deeplense", "--out", out, *settings) == 0
    assert StampSet.open(out).images["image"].unit == "electrons"
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "part-00000.parquet"]
    capsys.readouterr()
    assert run("describe", out) == 0
    text = capsys.readouterr().out
    assert "10 stamps, 10 hosts" in text
    assert "1×24×24" in text
    assert "nonlens" in text
    assert run("validate", out) == 0
    assert "no problems" in capsys.readouterr().out


def test_a_conversion_that_drops_a_stamp_ends_with_3_and_names_it(arrays_folder, tmp_path, capsys):
    (arrays_folder / "lens" / "3.npy").write_bytes(b"broken")
    settings = ("--set", "pixel_scale_arcsec=0.05")
    assert run("convert", arrays_folder, "--from", "deeplense", "--out", tmp_path / "out", *settings) == 3
    text = capsys.readouterr().out
    assert "in/lens/3" in text
    assert "[file=" in text  # brackets are not eaten as markup
    assert StampSet.open(tmp_path / "out").n == 9


def test_validate_ends_with_3_where_something_is_planted(tmp_path, make_table, capsys):
    stamps = image_array(make_table(12), "image")
    stamps[11] = stamps[2][:, ::-1]
    hosts = [f"h{k}" for k in range(12)]
    hosts[1] = hosts[0]
    write_part(make_table(12, stamps=stamps, host=hosts), tmp_path, "a")
    assert run("validate", tmp_path) == 3
    text = capsys.readouterr().out
    assert "stamp-2" in text
    assert "h0" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), "missing key 'pixel_scale_arcsec'"),
        (("--set", "pixel_scale=0.05"), "Did you mean 'pixel_scale_arcsec'?"),
        (("--set", "pixel_scale_arcsec=0.05", "--split", "train=0.5"), "must add up to 1"),
        (("--set", "pixel_scale_arcsec"), "--set needs KEY=VALUE"),
    ],
)
def test_a_bad_request_ends_with_2_and_writes_nothing(settings, message, arrays_folder, tmp_path, capsys):
    assert run("convert", arrays_folder, "--from", "deeplense", "--out", tmp_path / "out", *settings) == 2
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_a_file_of_options_that_is_no_toml_is_refused(arrays_folder, tmp_path, capsys):
    (tmp_path / "options.toml").write_text("bands = [")
    settings = ("--options", tmp_path / "options.toml")
    assert run("convert", arrays_folder, "--from", "deeplense", "--out", tmp_path / "out", *settings) == 2
    assert "is not TOML" in capsys.readouterr().err


def test_a_class_that_the_name_of_a_field_does_not_tell_is_null_and_a_line_says_why(tmp_path, rng, capsys):
    from PIL import Image

    y, x = np.mgrid[:80, :80]
    blob = 180 * np.exp(-0.5 * ((x - 40) ** 2 + (y - 38) ** 2) / 9)
    (tmp_path / "in").mkdir()
    for name in ("non-lenses__loners__1", "field_2"):
        picture = blob[..., None] + rng.uniform(8, 12, (80, 80, 3))
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "in" / f"{name}.png")
    settings = ("--set", "pixel_scale_arcsec=0.2", "--set", "size_px=21")
    assert run("convert", tmp_path / "in", "--from", "fields", "--out", tmp_path / "out", *settings) == 0
    said = capsys.readouterr().out
    assert "field_class is null for 1 of 2 stamps" in said and "field_2.png" in said and "--set field_class=" in said
    data = StampSet.open(tmp_path / "out")
    assert sorted(map(str, data.column("field_class"))) == ["None", "loners"]
    named = (*settings, "--set", "field_class=.*_(?P<field>[a-z0-9]+)(__1)?")
    assert run("convert", tmp_path / "in", "--from", "fields", "--out", tmp_path / "all", *named) == 0
    assert "null" not in capsys.readouterr().out


def test_convert_does_not_overwrite(arrays_folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    settings = ("--set", "pixel_scale_arcsec=0.05")
    assert run("convert", arrays_folder, "--from", "deeplense", "--out", tmp_path / "out", *settings) == 2
    assert "the output exists" in capsys.readouterr().err
    assert run("describe", tmp_path / "out") == 2


def test_readers_lists_every_option(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert run("readers") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in READERS)
    assert "pixel_scale_arcsec" in text
