import contextlib
import dataclasses
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from heard import Heard
from scipy.spatial import cKDTree
from sky import write_tile

from lenspipe.errors import ConfigError
from lenspipe.rundir import read_json
from lenspipe.runner import Silent, here
from lenspipe.scan import finished
from lenspipe.scan import run as scan_run
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.finalize import finalize
from lenspipe.scan.ledger import session_name
from lenspipe.scan.local import scan_local
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.run import run_scan
from lenspipe.survey.layout import read_layout

local = here(scan_local)


def config_of(model="none", core_px=128, **more):
    return ScanConfig.model_validate(
        {"shard": {"core_px": core_px, "halo_px": 64}, "score": {"model": str(model)}, **more}
    )


def scan(tiles, out, *, resume=False, limit=None, survey="generic", runner=local, progress=None, **config):
    request = ScanRequest((str(tiles),), read_layout(survey), config_of(**config), limit)
    return run_scan(request, out, runner, progress or Silent(), resume=resume)


def rows(out, table="candidates"):
    return pq.read_table(out / f"{table}.parquet")


def test_a_scan_finds_and_measures_what_was_put_in(tmp_path, tiny_model):
    truth = write_tile(tmp_path / "tiles", "a", n_source=10)
    result = scan(tmp_path / "tiles", tmp_path / "run", model=tiny_model)
    found = rows(tmp_path / "run")
    apart, which = cKDTree(np.c_[found["x_px"], found["y_px"]]).query(np.c_[truth["x_px"], truth["y_px"]])
    assert apart.max() < 0.5
    np.testing.assert_allclose(np.array(found["flux_r_njy"])[which], truth["flux_njy"], rtol=0.1)
    assert result.exit_code == 0
    scores = found["score"].to_pylist()
    assert scores == sorted(scores, reverse=True)
    assert set(found["model"].to_pylist()) == {result.model.digest}
    assert len(set(found["candidate_id"].to_pylist())) == found.num_rows


def test_positions_on_the_sky_are_those_of_astropy(tmp_path):
    from astropy.wcs import WCS

    write_tile(tmp_path / "tiles", "a")
    scan(tmp_path / "tiles", tmp_path / "run")
    found = rows(tmp_path / "run")
    sky = WCS(fits.getheader(tmp_path / "tiles/a_g.fits")).pixel_to_world(
        found["x_px"].to_numpy(), found["y_px"].to_numpy()
    )
    np.testing.assert_allclose(found["ra"].to_numpy(), sky.ra.deg, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["dec"].to_numpy(), sky.dec.deg, rtol=0, atol=1e-10)


def test_counts_of_all_files_add_up(tmp_path):
    write_tile(tmp_path / "tiles", "a")
    write_tile(tmp_path / "tiles", "b", seed=1)
    result = scan(tmp_path / "tiles", tmp_path / "run")
    shards, run = rows(tmp_path / "run", "shards"), read_json(tmp_path / "run/run.json")
    assert sum(shards["n_candidate"].to_pylist()) == rows(tmp_path / "run").num_rows == run["counts"]["candidates"]
    assert sum(shards["n_source"].to_pylist()) == run["counts"]["sources"]
    assert run["counts"] == dataclasses.asdict(result.totals)
    assert run["status"] == "done"
    assert {i["file"].rsplit("/")[-1] for i in run["inputs"]} == {f"{t}_{b}.fits" for t in "ab" for b in "gri"}
    area = 2 * 200 * 240 * (0.2 / 3600) ** 2
    assert sum(shards["area_deg2"].to_pylist()) == pytest.approx(area, rel=1e-6)


def test_shards_of_any_size_find_the_same_sources(tmp_path):
    write_tile(tmp_path / "tiles", "a", shape=(500, 500), n_source=40)
    found = {}
    for core in (100, 192, 1024):
        scan(tmp_path / "tiles", tmp_path / str(core), core_px=core)
        table = rows(tmp_path / str(core))
        bright = table.filter(np.array(table["flux_r_njy"]) > 500)
        found[core] = np.c_[bright["x_px"], bright["y_px"]]
    for core in (100, 192):
        assert len(found[core]) == len(found[1024])
        assert cKDTree(found[core]).query(found[1024])[0].max() < 0.1


def test_a_resumed_whole_run_makes_tables_again_only_where_what_they_are_made_of_changed(tmp_path, monkeypatch):
    write_tile(tmp_path / "tiles", "a", shape=(100, 100))
    first = scan(tmp_path / "tiles", tmp_path / "run")
    run, before, made = tmp_path / "run", rows(tmp_path / "run"), []
    monkeypatch.setattr(scan_run, "finalize", lambda *a, **k: made.append(1) or finalize(*a, **k))

    def resumed():
        def never(plain_s):
            raise AssertionError("nothing is left to scan")

        made.clear()
        result = scan(tmp_path / "tiles", run, resume=True, runner=never)
        assert result.totals == first.totals and result.exit_code == 0 and rows(run).equals(before)
        return bool(made)

    said = (run / "run.json").read_bytes()
    assert not resumed() and (run / "run.json").read_bytes() == said
    (run / "candidates.parquet").write_bytes(b"damaged")
    assert resumed() and not resumed()
    (run / "psf.parquet").unlink()
    assert resumed() and not resumed()
    (part,) = (run / "parts").iterdir()
    os.utime(part, ns=(0, 0))  # as in a copy
    assert not resumed()
    pq.write_table(pq.read_table(part), part)
    assert resumed() and not resumed()
    monkeypatch.setattr(finished, "versions", lambda: {"lenspipe": "another"})
    assert resumed()


def test_a_mended_tile_is_scanned_on_resume_and_the_others_are_not_scanned_again(tmp_path):
    write_tile(tmp_path / "tiles", "a")
    write_tile(tmp_path / "tiles", "b", seed=1)
    good = (tmp_path / "tiles/b_r.fits").read_bytes()
    (tmp_path / "tiles/b_r.fits").write_bytes(good[:40_000])
    first = scan(tmp_path / "tiles", tmp_path / "run")
    assert first.exit_code == 3
    (tmp_path / "tiles/b_r.fits").write_bytes(good)
    seen = []

    @contextlib.contextmanager
    def watched(plain_s):
        yield lambda tasks, *a, **k: (seen.extend(t.tile.name for t in tasks), scan_local(tasks, *a, **k))

    second = scan(tmp_path / "tiles", tmp_path / "run", resume=True, runner=watched)
    scan(tmp_path / "tiles", tmp_path / "fresh")
    assert set(seen) == {"b"}
    assert second.exit_code == 0
    assert rows(tmp_path / "run").equals(rows(tmp_path / "fresh"))
    assert rows(tmp_path / "run", "failures").num_rows == 0


BROKEN = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[: len(p.read_bytes()) // 2]), "truncated or damaged"),
    "no pixels at all": (lambda p: p.write_bytes(b""), "cannot be read"),
    "without WCS": (lambda p: edit(p, drop=("CTYPE1", "CTYPE2")), "no celestial WCS"),
    "without zero-point": (lambda p: edit(p, drop=("BUNIT",)), "no zero-point"),
    "all NaN": (lambda p: edit(p, fill=np.nan), "no usable pixel in band r"),
    "all zero": (lambda p: edit(p, fill=0.0), "no usable pixel in band r"),
    "constant": (lambda p: edit(p, fill=3.0), "the image is constant"),
    "of another shape": (lambda p: edit(p, crop=50), "different shapes"),
    "missing": (lambda p: p.unlink(), "no image in band r"),
}


def edit(path, drop=(), fill=None, crop=None):
    with fits.open(path) as hdus:
        data, header = hdus[0].data.copy(), hdus[0].header
    for key in drop:
        del header[key]
    if fill is not None:
        data[:] = fill
    fits.writeto(path, data[:crop] if crop else data, header, overwrite=True)


@pytest.mark.parametrize("damage", BROKEN)
def test_one_broken_tile_of_five_is_a_failure_row_and_the_rest_goes_on(tmp_path, damage):
    for i in range(5):
        write_tile(tmp_path / "tiles", f"t{i}", seed=i, shape=(140, 140), n_source=4)
    breaks, message = BROKEN[damage]
    breaks(tmp_path / "tiles/t2_r.fits")
    survey = tmp_path / "survey.toml"
    pattern = r"pattern = '(?P<tile>t\d)_(?P<band>[gri])\.fits'"
    survey.write_text(f"name='t'\ndescription='t'\n[zero_point.units]\nnJy=31.4\n[[files]]\n{pattern}\n")
    result = scan(tmp_path / "tiles", tmp_path / "run", survey=survey)
    failures = rows(tmp_path / "run", "failures").to_pylist()
    assert result.exit_code == 3
    assert {f["tile"] for f in failures} == {"t2"}
    assert message in failures[0]["message"]
    assert "t2_" in failures[0]["file"]
    assert set(rows(tmp_path / "run")["tile"].to_pylist()) >= {"t0", "t1", "t3", "t4"}
    assert read_json(tmp_path / "run/run.json")["exit_code"] == 3


def test_a_tile_without_a_source_is_no_failure(tmp_path):
    write_tile(tmp_path / "tiles", "a", n_source=0, shape=(140, 140))
    result = scan(tmp_path / "tiles", tmp_path / "run", detect={"threshold_sigma": 8.0})
    assert result.exit_code == 0
    assert result.totals.candidates == 0
    assert rows(tmp_path / "run").num_rows == 0
    assert rows(tmp_path / "run", "failures").num_rows == 0
    assert rows(tmp_path / "run", "shards")["status"].to_pylist() == ["ok"]


def test_where_no_model_fits_the_scan_goes_on_without_scores_and_says_so_once(tmp_path):
    write_tile(tmp_path / "tiles", "a", bands="H")
    progress = Heard()
    result = scan(tmp_path / "tiles", tmp_path / "run", model="auto", progress=progress)
    assert result.totals.candidates > 0
    assert rows(tmp_path / "run")["score"].null_count == result.totals.candidates
    assert [m for m in progress.said if "No scores: no shipped model fits the bands H" in m] == progress.said


def test_a_model_that_was_asked_for_must_fit(tmp_path, tiny_model):
    write_tile(tmp_path / "tiles", "a", bands="gr")
    with pytest.raises(ConfigError, match=r"needs bands that the tiles do not have.*needs='g r i', tiles_have='g r'"):
        scan(tmp_path / "tiles", tmp_path / "run", model=tiny_model)


def test_a_run_is_not_resumed_with_another_model(tmp_path, tiny_model):
    import shutil

    write_tile(tmp_path / "tiles", "a")
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    scan(tmp_path / "tiles", tmp_path / "run", model=folder)
    card = folder / "card.json"
    card.write_text(card.read_text().replace('"name": "tiny"', '"name": "other"'))
    with pytest.raises(ConfigError, match="begun with another model"):
        scan(tmp_path / "tiles", tmp_path / "run", model=folder, resume=True)


def test_limit_takes_the_first_tiles(tmp_path):
    for i in range(3):
        write_tile(tmp_path / "tiles", f"t{i}", seed=i)
    scan(tmp_path / "tiles", tmp_path / "run", limit=2)
    assert set(rows(tmp_path / "run", "shards")["tile"].to_pylist()) == {"t0", "t1"}


def test_the_selection_decides_which_sources_are_rows(tmp_path):
    write_tile(tmp_path / "tiles", "a", n_source=20)
    scan(tmp_path / "tiles", tmp_path / "all")
    everything = rows(tmp_path / "all")
    limit = float(np.median(everything["mag_i"])) + 1e-5  # rows hold rounded magnitudes
    scan(tmp_path / "tiles", tmp_path / "bright", select={"mag_max": limit})
    bright = rows(tmp_path / "bright")
    want = {r["candidate_id"] for r in everything.to_pylist() if r["mag_i"] <= limit}
    assert set(bright["candidate_id"].to_pylist()) == want
    colours = [r["mag_g"] - r["mag_r"] for r in everything.to_pylist()]
    scan(tmp_path / "tiles", tmp_path / "red", select={"colour": {"g-r": (float(np.median(colours)), 9.0)}})
    assert rows(tmp_path / "red").num_rows == sum(c >= np.median(colours) for c in colours)


def test_a_bug_stops_the_run_names_the_shard_and_keeps_what_was_written(tmp_path, monkeypatch):
    import lenspipe.scan.search as search_module

    for i in range(6):
        write_tile(tmp_path / "tiles", f"t{i}", seed=i, shape=(140, 140))
    real = search_module.measure_window

    def buggy(flat, pixels, *args, **kwargs):
        if buggy.calls == 5:
            raise ZeroDivisionError("a bug")
        buggy.calls += 1
        return real(flat, pixels, *args, **kwargs)

    buggy.calls = 0
    monkeypatch.setattr(search_module, "measure_window", buggy)
    with pytest.raises(RuntimeError, match="a bug stopped the scan at shard t5_x0y0c128"):
        scan(tmp_path / "tiles", tmp_path / "run")
    monkeypatch.undo()
    assert len(list((tmp_path / "run/parts").glob("*.parquet"))) == 1
    assert scan(tmp_path / "tiles", tmp_path / "run", resume=True).exit_code == 0


def test_a_shard_that_two_workers_died_of_is_a_failure_row(tmp_path):
    from lenspipe.scan import attempts
    from lenspipe.scan.context import ScanContext
    from lenspipe.scan.plan import plan_tiles, tasks_of
    from lenspipe.scan.request import find_tiles
    from lenspipe.scan.shard import scan_shard

    write_tile(tmp_path / "tiles", "a")
    request = ScanRequest((str(tmp_path / "tiles"),), read_layout("generic"), config_of(), None)
    tiles, bands = find_tiles(request)
    task = tasks_of(plan_tiles(tiles, request.layout, request.config))[0]
    settings = ScanContext(request.config, request.layout, bands, tmp_path / "attempts")
    attempts.begin(settings.attempts, "read", task.shard.shard_id)
    assert scan_shard(task, settings)["status"].to_pylist() == ["ok"]
    for _ in range(2):
        attempts.begin(settings.attempts, "read", task.shard.shard_id)
    row = scan_shard(task, settings).to_pylist()[0]
    assert row["status"] == "failed"
    assert row["error_type"] == "WorkerDied"
    assert "2 worker processes died" in row["message"]


def test_schema_says_unit_ucd_and_description_of_every_column(tmp_path):
    from astropy.io.votable.ucd import check_ucd

    write_tile(tmp_path / "tiles", "a")
    scan(tmp_path / "tiles", tmp_path / "run")
    for name in ("candidates", "shards", "failures"):
        for column in rows(tmp_path / "run", name).schema:
            assert column.metadata[b"description"], column.name
            assert check_ucd(column.metadata[b"ucd"].decode(), check_controlled_vocabulary=True), column.name
    assert rows(tmp_path / "run").schema.field("flux_g_njy").metadata[b"unit"] == b"nJy"


def test_astropy_pandas_polars_and_duckdb_open_the_catalogue(tmp_path, tiny_model):
    import duckdb
    import pandas as pd
    import polars as pl
    from astropy.table import Table

    write_tile(tmp_path / "tiles", "a")
    scan(tmp_path / "tiles", tmp_path / "run", model=tiny_model)
    file = str(tmp_path / "run/candidates.parquet")
    want = rows(tmp_path / "run")["score"].to_pylist()
    assert list(Table.read(file)["score"]) == want
    assert pd.read_parquet(file)["score"].tolist() == want
    assert pl.read_parquet(file)["score"].to_list() == want
    assert [r[0] for r in duckdb.sql(f"select score from '{file}'").fetchall()] == want


def test_the_picture_of_the_best_shows_each_object_once(tmp_path, tiny_model):
    from PIL import Image

    from lenspipe.scan.after.best import best_candidates, ranked_rows
    from lenspipe.scan.after.catalog import catalog_run
    from lenspipe.scan.after.sheet import N_COLUMN, SIDE_PX

    write_tile(tmp_path / "tiles", "a", shape=(300, 300), n_source=30)
    for band in "gri":
        path = tmp_path / f"tiles/a_{band}.fits"
        (tmp_path / f"tiles/twin_{band}.fits").write_bytes(path.read_bytes())
    scan(tmp_path / "tiles", tmp_path / "run", model=tiny_model)
    best = best_candidates(tmp_path / "run", 24)
    apart = cKDTree(np.c_[best["ra"], best["dec"]]).query(np.c_[best["ra"], best["dec"]], k=2)[0][:, 1] * 3600
    assert apart.min() > 2.9
    picture = Image.open(tmp_path / "run/best.png")
    assert picture.width >= N_COLUMN * SIDE_PX
    assert np.asarray(picture).std() > 5
    catalog_run(tmp_path / "run")  # numbers them alike, and so does a first part of the run
    catalogue = pq.read_table(tmp_path / "run/catalog/candidates.parquet", columns=["candidate_id", "rank"]).to_pylist()
    ranks = {row["candidate_id"]: row["rank"] for row in catalogue}
    for n in (1000, 12):
        rows = ranked_rows(tmp_path / "run", n).select(["candidate_id", "rank"]).to_pylist()
        assert rows == catalogue[: len(rows)] and len(rows) >= min(n, len(catalogue)) // 4
    assert [ranks[name] for name in best["candidate_id"].to_pylist()] == best["rank"].to_pylist()


def test_an_unscored_run_has_no_picture(tmp_path):
    write_tile(tmp_path / "tiles", "a")
    scan(tmp_path / "tiles", tmp_path / "run")
    assert not (tmp_path / "run/best.png").exists()


def test_a_bad_request_leaves_the_folder_free_for_the_right_one(tmp_path):
    write_tile(tmp_path / "tiles", "a")
    for wrong in ({"detect": {"image": "R"}}, {"model": "no-such-model"}, {"select": {"band": "z"}}):
        with pytest.raises(ConfigError):
            scan(tmp_path / "tiles", tmp_path / "run", **wrong)
    with pytest.raises(ConfigError, match="glob is empty"):
        scan(tmp_path / "tipo*", tmp_path / "run")
    assert scan(tmp_path / "tiles", tmp_path / "run").exit_code == 0


def test_tasks_are_the_same_again_after_they_travelled(tmp_path):
    from lenspipe.scan.plan import plan_tiles, table_of, tasks_of
    from lenspipe.scan.request import find_tiles

    write_tile(tmp_path / "tiles", "a", shape=(300, 400), n_source=3)
    request = ScanRequest((str(tmp_path / "tiles"),), read_layout("generic"), ScanConfig(), None)
    config = ScanConfig.model_validate({"shard": {"core_px": 128}})
    tasks = tasks_of(plan_tiles(find_tiles(request)[0], request.layout, config))
    assert len(tasks) > 3
    assert tasks_of(table_of(tasks)) == tasks


@pytest.mark.parametrize("last", ["20991231T235959-ffffff", "20991231T235959123456-ffffff", "20991231T2359590-ffffff"])
def test_a_session_comes_after_all_earlier_ones_whatever_the_clock_says(tmp_path, last):
    names = [f"part-{last}-000000.parquet", "part-20200101T000000-000000-000009.parquet", "another.parquet"]
    for name in names:
        (tmp_path / name).touch()
    for _ in range(3):
        name = f"part-{session_name(tmp_path)}-000000.parquet"
        assert name > max(n for n in names if n.startswith("part-"))
        (tmp_path / name).touch()
        names.append(name)
