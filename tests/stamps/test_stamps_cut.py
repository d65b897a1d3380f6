from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from heard import Heard
from sky import write_tile

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.cli import run_command
from lenspipe.cli.stamps import command
from lenspipe.errors import ConfigError
from lenspipe.image.cutouts import cut_squares, extract_cutouts
from lenspipe.rundir import read_json
from lenspipe.runner import Silent, here
from lenspipe.scan.after.context import context_of
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.local import scan_local
from lenspipe.scan.plan import tasks_of
from lenspipe.scan.read import flatten, read_shard
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.run import run_scan
from lenspipe.stamps.cut import parts
from lenspipe.stamps.cut.local import cut_local
from lenspipe.stamps.cut.pixels import Cells, SkyMesh, cut_tile
from lenspipe.stamps.cut.places import places_of
from lenspipe.stamps.cut.positions import read_positions
from lenspipe.stamps.cut.select import selection
from lenspipe.stamps.format import StampSet
from lenspipe.survey.layout import read_layout
from lenspipe.survey.read import read_facts
from lenspipe.survey.request import requested_tiles

CELLS = Cells(core_px=64, halo_px=64, mesh_px=64)


def run(*args) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command(command, ["cut", *(str(arg) for arg in args)])
    return int(ended.value.code or 0)


def write_csv(path, rows):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def sky_of(file, x_px, y_px):
    sky = WCS(fits.getheader(file)).pixel_to_world(x_px, y_px)
    return np.atleast_1d(sky.ra.deg), np.atleast_1d(sky.dec.deg)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Two tiles that overlap by 40 columns, and a list of positions on them and off them."""
    folder = tmp_path_factory.mktemp("survey")
    write_tile(folder / "tiles", "a", shape=(100, 120), n_source=3)
    write_tile(folder / "tiles", "b", shape=(100, 120), n_source=3, seed=1)
    for band in "gri":
        file = folder / f"tiles/b_{band}.fits"
        with fits.open(file, mode="update") as hdus:
            hdus[0].header.update(fits.getheader(folder / f"tiles/a_{band}.fits"))
            hdus[0].header["CRPIX1"] -= 80.0  # column 0 of b is column 80 of a
    x, y = np.array([30.2, 61.7, 100.0, 150.4]), np.array([40.0, 50.5, 60.0, 20.0])
    ra, dec = sky_of(folder / "tiles/a_g.fits", x, y)
    rows = [
        {"name": f"p{i}", "ra": f"{a:.9f}", "dec": f"{d:.9f}", "label": "lens" if i % 2 else "nonlens", "grade": i}
        for i, (a, d) in enumerate(zip(ra, dec, strict=True))
    ]
    rows.append({"name": "far", "ra": 200.0, "dec": 40.0, "label": "lens", "grade": 3})
    write_csv(folder / "list.csv", rows)
    return folder


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """The run of a scan of one tile in several shards, without scores."""
    folder = tmp_path_factory.mktemp("scanned")
    write_tile(folder / "tiles", "a", n_source=10)
    config = ScanConfig.model_validate({"shard": {"core_px": 128, "halo_px": 64}, "score": {"model": "none"}})
    request = ScanRequest((str(folder / "tiles"),), read_layout("generic"), config, None)
    run_scan(request, folder / "run", here(scan_local), Silent(), resume=False)
    return folder / "run"


@pytest.mark.parametrize("size_px", [1, 7, 33])
def test_odd_squares_are_those_of_extract_cutouts(rng, size_px):
    image = rng.normal(size=(2, 20, 30)).astype(np.float32)
    x, y = rng.uniform(-5, 35, 50), rng.uniform(-5, 25, 50)
    want, _ = extract_cutouts(image, np.zeros(image.shape, bool), x, y, size_px=size_px)
    np.testing.assert_array_equal(cut_squares(image, x, y, size_px=size_px, fill=0), want)


@pytest.mark.parametrize("size_px", [8, 9])
def test_a_position_is_within_half_a_pixel_of_the_middle_of_its_square(rng, size_px):
    columns = np.broadcast_to(np.arange(40.0), (1, 40, 40))
    x = rng.uniform(10, 29, 200)
    cut = cut_squares(columns, x, np.full(200, 20.0), size_px=size_px, fill=-1)
    assert np.abs(cut.mean(axis=(1, 2, 3)) - x).max() <= 0.5


def test_stamps_are_the_pixels_of_the_file_in_njy_and_zero_and_masked_beyond_it(survey):
    layout = read_layout("generic")
    tile = requested_tiles([str(survey / "tiles/a_*.fits")], layout)[0]
    facts = read_facts(tile, layout, assumed_zero_point_ab=None)
    x, y = np.array([60.0, 2.0, -30.0]), np.array([30.0, 97.0, 10.0])
    (stamps,) = cut_tile(
        tile, facts, layout, x, y, size_px=11, bands=("i", "g"), cells=dataclasses.replace(CELLS, core_px=256), sky=None
    )
    whole = [fits.getdata(survey / f"tiles/a_{band}.fits") for band in "ig"]
    assert stamps.rows.tolist() == [0, 1]  # the third lies off the tile
    np.testing.assert_allclose(stamps.image[0], [w[25:36, 55:66] for w in whole], rtol=1e-6)
    assert not stamps.mask[0].any()
    np.testing.assert_allclose(stamps.image[1, :, :8, 3:], [w[92:100, 0:8] for w in whole], rtol=1e-6)
    assert stamps.mask[1, :, 8:].all() and stamps.mask[1, :, :, :3].all() and not stamps.mask[1, :, :8, 3:].any()
    assert (stamps.image[stamps.mask] == 0).all()


def test_every_window_is_read_once_and_no_more_of_it_than_the_stamps_need(survey, monkeypatch):
    from lenspipe.stamps.cut import pixels

    layout = read_layout("generic")
    tile = requested_tiles([str(survey / "tiles/a_*.fits")], layout)[0]
    facts = read_facts(tile, layout, assumed_zero_point_ab=None)
    read, boxes = pixels.read_window, []
    monkeypatch.setattr(pixels, "read_window", lambda *a, **k: boxes.append(a[3]) or read(*a, **k))
    x, y = np.tile([10.0, 20.0, 100.0], 50), np.tile([15.0, 15.0, 80.0], 50)
    found = list(cut_tile(tile, facts, layout, x, y, size_px=9, bands=("g",), cells=CELLS, sky=None, batch_bytes=2000))
    assert len(found) > 6  # bounded batches
    assert sorted(np.concatenate([s.rows for s in found]).tolist()) == list(range(150))
    assert len(boxes) == 2
    assert sum(box.n_px for box in boxes) < 0.1 * 100 * 120


def test_a_position_on_two_tiles_is_cut_where_it_lies_farther_from_the_edge(survey):
    layout = read_layout("generic")
    tiles = requested_tiles([str(survey / "tiles")], layout)
    ra, dec = sky_of(survey / "tiles/a_g.fits", np.array([90.0, 110.0, 300.0]), np.array([50.0, 50.0, 50.0]))
    places = places_of(tiles, layout, ra, dec)
    assert [tiles[i].name if i >= 0 else None for i in places.tile] == ["a", "b", None]
    np.testing.assert_allclose(places.x_px[:2], [90.0, 30.0], atol=1e-6)
    assert np.isnan(places.x_px[2])


def test_the_command_cuts_a_data_set_and_names_what_lies_outside(survey, tmp_path, capsys):
    out = tmp_path / "out"
    code = run(
        survey / "tiles",
        "--positions",
        survey / "list.csv",
        "--size",
        16,
        "--out",
        out,
        "--sky",
        "keep",
        "--with",
        "mask",
    )
    assert code == 3
    assert "outside every tile" in capsys.readouterr().out
    assert (out / "left_out.csv").read_text().splitlines() == ["stamp_id,reason", "far,outside every tile"]
    stamps = StampSet.open(out)
    assert stamps.images["image"].bands == ("g", "r", "i")
    assert stamps.images["image"].pixel_scale_arcsec == pytest.approx(0.2, rel=1e-4)
    (table,) = stamps.iter_batches(batch_size=100)
    rows = {row["stamp_id"]: row for row in table.to_pylist()}
    assert [rows[f"p{i}"]["tile"] for i in range(4)] == ["a", "a", "b", "b"]
    assert [rows[f"p{i}"]["grade"] for i in range(4)] == [0, 1, 2, 3]
    assert rows["p1"]["label"] == "lens" and rows["p1"]["host"] == "p1" and rows["p1"]["survey"] == "generic"
    assert len({row["split"] for row in rows.values()}) == 1  # one cell of the sky
    pixels = np.reshape(rows["p0"]["image"], (3, 16, 16))
    at = fits.getdata(survey / "tiles/a_g.fits")[32:48, 23:39]
    np.testing.assert_allclose(pixels[0], at, rtol=1e-5)
    assert np.sum(rows["p3"]["mask"]) == 0
    assert read_json(out / "cut.json")["left_out"] == {"outside every tile": 1}


def test_stamps_of_a_run_are_what_the_scan_cut_out(scanned, tmp_path):
    out = tmp_path / "out"
    assert run(scanned, "--select", "mag_r < 21.5 and x_px > 20", "--size", 21, "--label", "x", "--out", out) == 0
    found = pq.read_table(scanned / "candidates.parquet")
    wanted = {r["candidate_id"]: r for r in found.to_pylist() if r["mag_r"] < 21.5 and r["x_px"] > 20}
    stamps = StampSet.open(out)
    assert set(stamps.column("candidate_id")) == set(wanted)
    assert set(stamps.column("label")) == {"x"}
    assert all(
        n == f"{r}/{c}" for n, r, c in zip(*map(stamps.column, ("stamp_id", "run_id", "candidate_id")), strict=True)
    )

    run_folder = open_run_folder(scanned)
    shards = {}
    for task in tasks_of(run_folder.plan):
        flat = flatten(read_shard(task, context_of(run_folder)), context_of(run_folder))
        shards[task.shard.shard_id] = task.shard.window, flat
    for name, pixels in zip(stamps.column("candidate_id"), stamps.read_images(), strict=True):
        row = wanted[name]
        window, flat = shards[row["shard_id"]]
        at = np.array([row["x_px"] - window.x0]), np.array([row["y_px"] - window.y0])
        want, _ = extract_cutouts(flat.image, flat.mask, *at, size_px=21)
        np.testing.assert_array_equal(pixels, want[0])


def test_a_list_of_candidates_brings_its_labels_and_an_unknown_one_is_named(scanned, tmp_path, capsys):
    ids = pq.read_table(scanned / "candidates.parquet")["candidate_id"].to_pylist()[:2]
    listed = write_csv(tmp_path / "ids.csv", [{"candidate_id": i, "label": "lens", "split": "test"} for i in ids])
    assert run(scanned, "--ids", listed, "--size", 9, "--out", tmp_path / "out") == 0
    stamps = StampSet.open(tmp_path / "out")
    assert sorted(stamps.column("candidate_id")) == sorted(ids)
    assert set(stamps.column("label")) == {"lens"} and set(stamps.column("split")) == {"test"}
    (tmp_path / "ids.txt").write_text(f"{ids[0]}\nnobody\n")
    assert run(scanned, "--ids", tmp_path / "ids.txt", "--size", 9, "--out", tmp_path / "two") == 2
    assert "no such candidates [candidate_id='nobody'" in capsys.readouterr().err


@pytest.mark.parametrize("said", [["--set", "survey.zero_point.ab=10"], ["--zero-point-ab", "10"]])
def test_a_run_has_the_zero_point_that_it_was_scanned_with_and_another_is_refused(scanned, tmp_path, capsys, said):
    assert run(scanned, "--select", "mag_r < 21.5", "--size", 9, *said, "--out", tmp_path / "out") == 2
    assert "--set and --zero-point-ab are for TILES" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["fits", "npy"])
def test_other_formats_hold_the_same_pixels(survey, tmp_path, form):
    common = [survey / "tiles", "--positions", survey / "list.csv", "--size", 12, "--bands", "r,g"]
    run(*common, "--out", tmp_path / "p")
    run(*common, "--out", tmp_path / "o", "--format", form, "--with", "mask")
    stamps = StampSet.open(tmp_path / "p")
    want = dict(zip(stamps.column("stamp_id"), stamps.read_images(), strict=True))
    if form == "npy":
        with (tmp_path / "o/part-000000.csv").open() as stream:
            names = [row["stamp_id"] for row in csv.DictReader(stream)]
        got = dict(zip(names, np.load(tmp_path / "o/part-000000.npy"), strict=True))
    else:
        got = {}
        for name, row in zip(stamps.column("stamp_id"), stamps.column("ra_deg"), strict=True):
            with fits.open(tmp_path / f"o/{name}.fits") as hdus:
                assert [h.name for h in hdus[1:]] == ["R", "R_MASK", "G", "G_MASK"]
                assert hdus[0].header["RA"] == row and hdus["R"].header["BUNIT"] == "nJy"
                middle = WCS(hdus["R"].header).pixel_to_world(5.5, 5.5)
                assert abs(middle.ra.deg - row) * 3600 < 0.15
                got[name] = np.stack([hdus["R"].data, hdus["G"].data])
    assert set(got) == set(want)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])


def test_fits_stamps_may_have_sides_of_their_own_and_a_data_set_may_not(survey, tmp_path, capsys):
    with (survey / "list.csv").open() as stream:
        rows = [{**row, "size": 8 + 4 * i} for i, row in enumerate(csv.DictReader(stream))]
    listed = write_csv(tmp_path / "sizes.csv", rows[:3])
    assert run(survey / "tiles", "--positions", listed, "--out", tmp_path / "p") == 2
    assert "stamps of one data set have one side" in capsys.readouterr().err
    assert run(survey / "tiles", "--positions", listed, "--out", tmp_path / "f", "--format", "fits") == 0
    assert [fits.getdata(tmp_path / f"f/p{i}.fits", "g").shape for i in range(3)] == [(8, 8), (12, 12), (16, 16)]


class CutOffError(Exception):
    pass


def test_a_cutting_that_was_cut_off_is_resumed_to_the_same_rows(survey, tmp_path, monkeypatch):
    from lenspipe.cli import stamps_cut

    monkeypatch.setattr(parts, "PART_BYTES", 1)  # a part per window
    args = [survey / "tiles", "--positions", survey / "list.csv", "--size", 8]
    run(*args, "--out", tmp_path / "whole")

    def dies(todo, task, *, on_part):
        cut_local(todo[:1], task, on_part=on_part)
        raise CutOffError

    with monkeypatch.context() as broken, pytest.raises(CutOffError):
        broken.setattr(stamps_cut, "_start", lambda *_: here(dies))
        run_command(command, ["cut", *map(str, args), "--out", str(tmp_path / "some")])
    assert len(list((tmp_path / "some").glob("*.parquet"))) == 1
    first = (tmp_path / "some/part-000000.parquet").stat().st_mtime_ns
    assert run(*args, "--out", tmp_path / "some", "--resume") == 3
    assert (tmp_path / "some/part-000000.parquet").stat().st_mtime_ns == first
    for part in sorted((tmp_path / "whole").glob("*.parquet")):
        assert pq.read_table(part).equals(pq.read_table(tmp_path / "some" / part.name))
    assert run(*args, "--out", tmp_path / "some", "--resume") == 3  # what is whole is left as it is
    args[-1] = 9
    assert run(*args, "--out", tmp_path / "some", "--resume") == 2


def test_a_tile_that_cannot_be_read_costs_its_own_positions_only(survey, tmp_path):
    layout = read_layout("generic")
    (tmp_path / "tiles").mkdir()
    for file in (survey / "tiles").glob("*.fits"):
        content = file.read_bytes()
        (tmp_path / "tiles" / file.name).write_bytes(
            content[: len(content) // 2] if file.name == "b_r.fits" else content
        )
    assert run(tmp_path / "tiles", "--positions", survey / "list.csv", "--size", 8, "--out", tmp_path / "o") == 3
    with (tmp_path / "o/left_out.csv").open() as stream:
        left_out = {row["stamp_id"]: row["reason"] for row in csv.DictReader(stream)}
    assert set(left_out) == {"p2", "p3", "far"}
    assert "b_r.fits" in left_out["p2"]
    assert set(StampSet.open(tmp_path / "o").column("stamp_id")) == {"p0", "p1"}
    assert layout.name == "generic"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("score >", "cannot be read"),
        ("scor > 1", "no such column to select by.*column='scor'"),
        ("score", "compares columns"),
        ("__import__('os').system('x') > 1", "a selection has columns"),
        ("score is None", "not a comparison"),
    ],
)
def test_a_selection_that_cannot_be_meant_is_refused(text, match):
    with pytest.raises(ConfigError, match=match):
        selection(text, ["score"])


def test_selections_are_those_of_python():
    rows = pa.table({"a": [1.0, 2.0, 3.0, None], "b": [4.0, 1.0, 3.0, 1.0], "c": ["x", "y", "z", "x"]})
    for text in ("a > 1 and b < 4", "not (a - b > -1) or c == 'y'", "1 < a <= 3", "c in ('x', 'z') and a * 2 >= b - 2"):
        want = [eval(text, dict(r)) for r in rows.to_pylist() if r["a"] is not None]
        assert rows.slice(0, 3).filter(selection(text, rows.column_names)) == rows.slice(0, 3).filter(pa.array(want))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("ra,dec\n", "no rows"),
        ("x,y\n1,2\n", "needs columns ra and dec"),
        ("ra,dec\n1,2\n1,95\n", "not a position on the sky.*row=2"),
        ("ra,dec\n12:30:00,-5\n", "must be numbers, in degrees"),
        ("id,ra,dec\n7,1,2\n7,3,4\n", "a name occurs twice.*name='7'"),
        ("ra,dec,size\n1,2,10.5\n", "whole pixels"),
    ],
)
def test_a_list_that_is_not_one_of_positions_is_refused(tmp_path, text, match):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ConfigError, match=match):
        read_positions(tmp_path / "list.csv")


def test_lists_in_csv_parquet_and_fits_are_the_same_positions(tmp_path):
    from astropy.table import Table

    columns = {"RA": [10.0, 370.0 - 20], "Dec": [-5.0, 6.5], "label": ["lens", "nonlens"], "ID": ["0012", "0013"]}
    Table(columns).write(tmp_path / "list.fits")
    pq.write_table(pa.table(columns), tmp_path / "list.parquet")
    Table(columns).write(tmp_path / "list.csv")
    one, two, three = (read_positions(tmp_path / f"list.{end}") for end in ("csv", "parquet", "fits"))
    assert one.to_pylist() == two.to_pylist() == three.to_pylist()
    assert one["stamp_id"].to_pylist() == ["0012", "0013"]


def test_progress_counts_every_position(survey, tmp_path):
    from lenspipe.cli.stamps_cut import _as_a_scan
    from lenspipe.stamps.cut.run import cut_stamps, labelled, locate
    from lenspipe.stamps.spec import ImageSpec

    layout, heard = read_layout("generic"), Heard()
    rows = labelled(read_positions(survey / "list.csv"), None)
    tiles = requested_tiles([str(survey / "tiles")], layout)
    located = locate(tiles, layout, rows, size_px=8, zero_point_ab=None)
    spec = ImageSpec(("g",), 8, located.pixel_scale_arcsec)
    task = parts.CutTask(layout, spec, SkyMesh(64, 3), _as_a_scan()[0], None, "parquet", (), str(tmp_path / "o"))
    result = cut_stamps(located, task, tmp_path / "o", {}, progress=heard)
    assert result.n == 4
    assert result.reasons == {"outside every tile": 1}
