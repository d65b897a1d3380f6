import base64
import concurrent.futures
import contextlib
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from catalog_runs import scan, write_overlapping_tiles
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sky import write_tile

from lenspipe.catalog.executor import Here
from lenspipe.catalog.gallery.sprites import FLOOR, RANGE, decode, encode
from lenspipe.catalog.gallery.sprites import sheet as sheet_of
from lenspipe.catalog.gallery.viewers import viewers_of
from lenspipe.catalog.gallery.write import write_gallery
from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.catalog.write import write_catalog
from lenspipe.cli import group
from lenspipe.errors import ConfigError
from lenspipe.scan.after.catalog import catalog_run
from lenspipe.survey.layout import read_layout


def catalogue(run, out):
    write_catalog(open_run_folder(run), out, radius_arcsec=1.0, acronym="LPC", matching=None)
    return out


def data(cat):
    text = (cat / "gallery" / "data.js").read_text()
    return json.loads(text[len("LENSPIPE.load(") : -3])


def sheet(cat, number=0):
    text = (cat / "gallery" / "sheets" / f"sheet-{number:04d}.js").read_text()
    return np.array(Image.open(io.BytesIO(base64.b64decode(text.split("base64,")[1].split('"')[0]))))


@given(st.floats(-10, 10_000), st.floats(0.01, 100))
def test_the_code_keeps_surface_brightness_to_its_step(value, noise):
    back = decode(encode(np.full((1, 1, 1), value * noise), np.array([noise])), np.array([noise])).item() / noise
    step = RANGE / 255
    # half a step of asinh(f / 2 sigma)
    assert abs(np.arcsinh(back / 2) - np.arcsinh(value / 2)) <= step / 2 + 1e-9 or np.arcsinh(value / 2) < FLOOR


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    write_overlapping_tiles(folder / "tiles")
    scan(folder / "tiles", folder / "run")
    return folder


def test_a_stamp_shows_the_tiles_pixels_around_the_candidate(made, tmp_path):
    cat = catalogue(made / "run", tmp_path / "cat")
    result = write_gallery(cat, count=1000, stamp_px=31, stamp_arcsec=6.2)
    rows = pq.read_table(cat / "candidates.parquet").to_pylist()
    assert result.n_stamp == result.n_row == len(rows)
    page = data(cat)
    assert page["meta"]["channels"] == ["i", "r", "g"]
    shards = pq.read_table(cat / "shards.parquet")
    noise = np.array([np.median(shards[f"sky_rms_{b}_njy"].to_numpy() / 0.04) for b in "irg"])
    picture = sheet(cat)
    for i, row in enumerate(rows[:16]):
        with fits.open(made / "tiles" / f"{row['tile']}_r.fits") as hdus:
            image = hdus[0].data / 0.04
        x, y = row["x_px"], row["y_px"]
        x0, y0 = int(x), int(y)
        weights = np.outer([y0 + 1 - y, y - y0], [x0 + 1 - x, x - x0])
        centre = (image[y0 : y0 + 2, x0 : x0 + 2] * weights).sum()
        want = encode(np.full((1, 1, 1), centre), noise[1:2]).item()
        assert abs(int(picture[15, i * 31 + 15, 1]) - want) <= 10  # JPEG of a peak; a step is 5 % in flux


def test_the_first_row_of_a_tile_is_at_the_bottom_of_its_stamps(made, tmp_path):
    cat = catalogue(made / "run", tmp_path / "cat")
    write_gallery(cat, count=1000, stamp_px=91, stamp_arcsec=18.2)
    picture = sheet(cat).astype(float)
    inner = [r for r in pq.read_table(cat / "candidates.parquet").to_pylist() if 46 < r["x_px"] < 190]
    rows = pq.read_table(cat / "candidates.parquet")["candidate_id"].to_pylist()
    for row in [r for r in inner if 46 < r["y_px"] < 150][:4]:
        i = rows.index(row["candidate_id"])
        stamp = picture[i // 16 * 91 : i // 16 * 91 + 91, i % 16 * 91 : i % 16 * 91 + 91, 1]
        with fits.open(made / "tiles" / f"{row['tile']}_r.fits") as hdus:
            y, x = round(row["y_px"]), round(row["x_px"])
            patch = np.arcsinh(hdus[0].data[y - 45 : y + 46, x - 45 : x + 46] / 10)
        same, turned = (np.corrcoef(stamp.ravel(), p.ravel())[0, 1] for p in (patch[::-1], patch))
        assert same > 0.9 > turned


def pixels_of(url):
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.split("base64,")[1]))))


def test_what_lies_beyond_the_tile_is_no_data_and_a_whole_sheet_needs_no_mask(made, tmp_path):
    cat = catalogue(made / "run", tmp_path / "cat")
    write_gallery(cat, count=1000, stamp_px=64, stamp_arcsec=12.0)
    text = (cat / "gallery" / "sheets" / "sheet-0000.js").read_text()
    _, _, jpeg, mask = json.loads(f"[{text[len('LENSPIPE.sheet(') : -3]}]")
    there = pixels_of(mask)[..., 1] > 0
    rows = pq.read_table(cat / "candidates.parquet").to_pylist()
    with fits.open(made / "tiles" / f"{rows[0]['tile']}_r.fits") as hdus:
        n_y, n_x = hdus[0].shape
    offset = (np.arange(64) - 31.5) * 12 / 64 / 0.2
    for i, row in enumerate(rows[:48]):
        stamp = there[i // 16 * 64 : i // 16 * 64 + 64, i % 16 * 64 : i % 16 * 64 + 64][::-1]
        x, y = np.floor(row["x_px"] + offset + 0.5), np.floor(row["y_px"] + offset + 0.5)
        inside = ((y >= 0) & (y < n_y))[:, None] & ((x >= 0) & (x < n_x))
        assert not stamp[~inside].any()
        assert row["flags"] & 4 or stamp[inside].mean() > 0.95
    assert (pixels_of(jpeg)[..., 1][:64, :1024][~there[:64]] < 70).all()  # sky, which JPEG smears
    codes = np.full((3, 2, 8, 8), 60, np.uint8)
    assert sheet_of(codes)[1] is None
    codes[1, 1, 2, 3] = 0
    assert np.argwhere(pixels_of(sheet_of(codes)[1])[:8, :24, 1] == 0).tolist() == [[5, 11]]


def test_the_page_of_a_run_is_that_of_its_catalogue_which_is_written_where_there_is_none(made, tmp_path):
    (tmp_path / "run").mkdir()
    for file in (made / "run").iterdir():
        (tmp_path / "run" / file.name).symlink_to(file)
    options = ["gallery", str(tmp_path / "run"), "--count", "3", "--stamp-px", "16"]
    for _ in range(2):
        done = CliRunner().invoke(group, options)
        assert done.exit_code == 0, done.output
    page = data(tmp_path / "run" / "catalog")
    assert page["meta"]["catalogue"] == "run" and len(page["columns"]["rank"]) == 3
    assert page["columns"]["north_deg"] == [90.0] * 3 and page["columns"]["east_deg"] == [180.0] * 3


def test_a_surveys_own_viewers_come_first_and_an_address_that_is_none_is_refused(tmp_path):
    assert next(iter(viewers_of([read_layout("hsc")])))[0] == "HSC in Aladin"
    (tmp_path / "mine.toml").write_text(MINE)
    layout = read_layout(str(tmp_path / "mine.toml"))
    assert viewers_of([layout])[0] == ("Mine", "https://sky.example/?ra={ra}&dec={dec}")
    assert "viewers" in layout.model_dump(mode="json") and "viewers" not in read_layout("hsc").model_dump(mode="json")
    (tmp_path / "mine.toml").write_text(MINE.replace("https://sky.example/", "javascript:alert(1)//"))
    with pytest.raises(ConfigError, match="needs an address"):
        read_layout(str(tmp_path / "mine.toml"))


MINE = """
name = "mine"
description = "One."
viewers = {Mine = "https://sky.example/?ra={ra}&dec={dec}"}
zero_point = {ab = 25.0}
files = [{pattern = '(?P<tile>.+)_(?P<band>r).fits'}]
"""


def test_one_band_is_shown_in_grey(tmp_path):
    write_tile(tmp_path / "tiles", "a", bands="i")
    scan(tmp_path / "tiles", tmp_path / "run")
    cat = catalogue(tmp_path / "run", tmp_path / "cat")
    write_gallery(cat, count=10, stamp_px=16, stamp_arcsec=4.0)
    assert data(cat)["meta"]["channels"] == ["i"]
    assert sheet(cat).ndim == 2


def test_tiles_that_are_gone_leave_rows_without_pictures_and_exit_code_3(made, tmp_path):
    (tmp_path / "tiles").symlink_to(made / "tiles")
    scan(tmp_path / "tiles", tmp_path / "run")
    cat = catalogue(tmp_path / "run", tmp_path / "cat")
    (tmp_path / "tiles").unlink()
    result = CliRunner().invoke(group, ["gallery", str(cat)], catch_exceptions=False, standalone_mode=False)
    assert result.return_value == 3
    assert "no stamps of tile t0" in result.output
    assert set(data(cat)["columns"]["has_stamp"]) == {0}


def test_a_folder_that_is_no_catalogue_is_refused(made, tmp_path):
    with pytest.raises(ConfigError, match="holds no catalogue"):
        write_gallery(made / "run", count=10, stamp_px=16, stamp_arcsec=4.0)
    cat = catalogue(made / "run", tmp_path / "cat")
    with pytest.raises(ConfigError, match="needs stamps"):
        write_gallery(cat, count=10, stamp_px=3, stamp_arcsec=4.0)


def test_the_page_goes_with_the_catalogue_when_it_grows(made, tmp_path):
    cat = catalogue(made / "run", tmp_path / "cat")
    write_gallery(cat, count=10, stamp_px=16, stamp_arcsec=4.0)
    scan(made / "tiles", tmp_path / "again", detect={"threshold_sigma": 3.0})
    write_catalog(
        open_run_folder(tmp_path / "again"), cat, radius_arcsec=1.0, acronym="LPC", matching=None, append=True
    )
    assert (cat / "gallery" / "index.html").exists()


def test_grades_saved_beside_the_page_and_a_linked_page_are_left_alone(made, tmp_path):
    cat = catalogue(made / "run", tmp_path / "cat")
    write_gallery(cat, count=10, stamp_px=16, stamp_arcsec=4.0)
    (cat / "gallery" / "grades-me.csv").write_text("A")
    with pytest.raises(ConfigError, match=r"move that away.*grades-me\.csv"):
        write_gallery(cat, count=10, stamp_px=16, stamp_arcsec=4.0)
    assert (cat / "gallery" / "grades-me.csv").read_text() == "A"
    (cat / "gallery").rename(tmp_path / "elsewhere")
    (cat / "gallery").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="a link is in the way"):
        write_gallery(cat, count=10, stamp_px=16, stamp_arcsec=4.0)
    assert (tmp_path / "elsewhere" / "grades-me.csv").exists()


def test_the_catalogue_of_a_run_is_not_replaced_over_a_users_file(made, tmp_path):
    (tmp_path / "run").mkdir()
    for file in (made / "run").iterdir():
        (tmp_path / "run" / file.name).symlink_to(file)
    catalog_run(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "catalog" / "provenance.json").read_text())
    record["runs"][0]["run_id"] = "another"
    (tmp_path / "run" / "catalog" / "provenance.json").write_text(json.dumps(record))
    (tmp_path / "run" / "catalog" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"move that away.*notes\.txt"):
        catalog_run(tmp_path / "run")
    assert (tmp_path / "run" / "catalog" / "notes.txt").read_text() == "mine"


def test_of_two_runs_appended_at_once_the_second_is_refused(made, tmp_path):
    cat = catalogue(made / "run", tmp_path / "cat")
    (cat / "notes.txt").write_text("mine")
    run = scan(made / "tiles", tmp_path / "again", detect={"threshold_sigma": 3.0}).folder

    def append(**more):
        return write_catalog(
            open_run_folder(run), cat, radius_arcsec=1.0, acronym="LPC", matching=None, append=True, **more
        )

    @contextlib.contextmanager
    def meanwhile():
        with concurrent.futures.ThreadPoolExecutor(1) as pool, pytest.raises(ConfigError, match="another process"):
            pool.submit(append).result()
        yield Here()

    assert len(append(executor=meanwhile)["runs"]) == 2
    assert (cat / "notes.txt").read_text() == "mine"


def test_a_page_opens_on_the_queue_without_what_was_graded(made, tmp_path):
    cat = catalogue(made / "run", tmp_path / "cat")
    rows = pq.read_table(cat / "candidates.parquet").to_pylist()
    graded = tmp_path / "one.csv"
    lines = [f"{row['run_id']},{row['candidate_id']},ada,{grade}" for row, grade in zip(rows, "AABNNNC", strict=False)]
    graded.write_text("\n".join(["run_id,candidate_id,grader,grade", *lines]))
    done = CliRunner().invoke(group, ["gallery", str(cat), "--queue", "8", "--grades", str(graded)])
    assert done.exit_code == 0, done.output
    shown = data(cat)["columns"]
    ids = [row["candidate_id"] for row in rows]
    assert set(shown["candidate_id"]) <= set(ids[7:])
    assert shown["queue"] == ["unlike"] * 8  # without a finder's score there is no top
    # the same places graded in another run of these tiles are graded, by position
    lines = [f"other,{row['candidate_id']},ada,N,{row['ra']},{row['dec']}" for row in rows[: len(rows) - 3]]
    graded.write_text("\n".join(["run_id,candidate_id,grader,grade,ra,dec", *lines]))
    write_gallery(cat, count=99, stamp_px=8, stamp_arcsec=3, queue=8, grades=[str(graded)])
    assert set(data(cat)["columns"]["candidate_id"]) == set(ids[-3:])
    graded.write_text("run_id,candidate_id,grader,grade\nother,c,ada,A")
    with pytest.raises(ConfigError, match="none of the candidates"):
        write_gallery(cat, count=9, stamp_px=8, stamp_arcsec=3, queue=3, grades=[str(graded)])
    with pytest.raises(ConfigError, match="give --queue"):
        CliRunner().invoke(group, ["gallery", str(cat), "--grades", str(graded)], catch_exceptions=False)
