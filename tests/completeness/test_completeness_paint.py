"""Painted lenses are searched as if the files held them, and are the same however the work is cut up."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from painted_survey import CONFIG, Watching, make_tile, paint, scan_tiles
from scipy.spatial import cKDTree
from sky import write_tile

from lenspipe.catalog.run_rows import Run
from lenspipe.completeness.chosen import CHOSEN, UNTOLD, hold_hosts
from lenspipe.completeness.draw import numbers_of
from lenspipe.completeness.paint import Painter
from lenspipe.completeness.passes import BARE, PAINTED, home_and_pass, name_of
from lenspipe.completeness.places import HostChoice
from lenspipe.completeness.run import PLACES, Painted
from lenspipe.errors import ConfigError
from lenspipe.scan.hosts import HostCuts
from lenspipe.scan.ledger import done_shards, part_files, write_part
from lenspipe.scan.plan import tasks_of
from lenspipe.scan.read import read_shard, task_of
from lenspipe.survey.shards import Box


def test_rows_are_those_of_a_scan_of_files_that_hold_the_lenses(
    run: Run, painted: Painted, watching: Watching, tiles: Path, tiny_model: Path, tmp_path: Path
) -> None:
    task = tasks_of(run.plan)[0]
    context = watching.contexts[-1]
    table = painted.injections
    assert set(table["kind"].to_pylist()) == {"host", "sky"}
    compared = 0
    for number in (0,):
        whole = task_of(task.tile, Box(0, 0, 320, 220))
        shard = dataclasses.replace(whole.shard, shard_id=f"a_{name_of(number)}")
        pixels = context.change(read_shard(dataclasses.replace(whole, shard=shard), context)).pixels
        folder = tmp_path / str(number)
        shutil.copytree(tiles, folder / "tiles")
        for b, band in enumerate(pixels.bands):
            with fits.open(folder / "tiles" / f"a_{band}.fits", mode="update") as hdus:
                hdus[0].data = pixels.image[b]
        scan_tiles(folder / "tiles", folder / "run", model=str(tiny_model))
        found = pq.read_table(folder / "run/candidates.parquet")
        tree = cKDTree(np.c_[found["x_px"], found["y_px"]])
        for row in table.filter(pa.compute.equal(table["pass"], name_of(number))).to_pylist():
            near = tree.query_ball_point((row["x_px"], row["y_px"]), CONFIG.match_arcsec / 0.2)
            scores = [(found["score"][k].as_py(), found["candidate_id"][k].as_py()) for k in near]
            assert row["selected"] == bool(scores)
            if scores:
                score, name = max(scores)
                home, index = row["candidate_id"].rsplit("_n", 1)
                assert (row["score"], f"{home_and_pass(home)[0]}_n{index}") == (score, name)
                compared += 1
    assert compared > 2


def test_a_run_that_was_cut_off_is_finished_with_the_same_table(
    run: Run, painted: Painted, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sel"
    for after in (1, 2):  # of two shards: in the bare pass, and among the painted ones
        with pytest.raises(KeyboardInterrupt):
            paint(run, tiny_model, out, watching=Watching(break_after=after), resume=after == 2)
    assert paint(run, tiny_model, out, resume=True).injections.equals(painted.injections)


def test_a_folder_keeps_to_the_choice_of_hosts_that_it_was_begun_with(
    run: Run, painted: Painted, tiny_model: Path, tmp_path: Path
) -> None:
    out, older, finished = (tmp_path / name for name in ("sel", "older", "finished"))
    with pytest.raises(KeyboardInterrupt):
        paint(run, tiny_model, out, watching=Watching(break_after=1))
    shutil.copytree(out, older)
    (older / CHOSEN).unlink()  # as folders of before were
    with pytest.raises(ConfigError, match="1 of 2 shards are not looked at yet: their hosts would be others"):
        paint(run, tiny_model, older, resume=True)
    said = json.loads((out / CHOSEN).read_text())
    (out / CHOSEN).write_text(json.dumps(said | {"cuts": said["cuts"] | {"mag": [5.0, 6.0]}}))
    with pytest.raises(KeyboardInterrupt):  # among the painted ones
        paint(run, tiny_model, out, watching=Watching(break_after=1), resume=True)
    places = pq.read_table(out / PLACES)
    looked_at_then = tasks_of(run.plan)[0].shard.shard_id
    assert set(places.filter(pa.compute.equal(places["kind"], "host"))["shard_id"].to_pylist()) == {looked_at_then}
    shutil.copytree(painted.folder, finished)
    (finished / CHOSEN).unlink()
    again = paint(run, tiny_model, finished, resume=True)  # nothing is chosen any more
    assert again.injections.equals(painted.injections) and UNTOLD in again.notes
    assert painted.hosts.said == "hosts of every colour" and "hosts of every colour" in painted.notes


def test_an_older_folder_that_is_half_painted_is_refused_and_one_that_is_not_painted_yet_is_taken_up(
    run: Run, painted: Painted, tiny_model: Path, tmp_path: Path
) -> None:
    half, older = tmp_path / "half", tmp_path / "older"
    shutil.copytree(painted.folder, older)
    (older / CHOSEN).unlink()
    shutil.rmtree(older / PAINTED)
    with pytest.raises(KeyboardInterrupt):
        paint(run, tiny_model, older, watching=Watching(break_after=1), resume=True)
    shutil.copytree(older, half)
    (half / CHOSEN).unlink()
    with pytest.raises(ConfigError, match="shards are not painted yet: their lenses would be others; begin anew"):
        paint(run, tiny_model, half, resume=True)
    whole = paint(run, tiny_model, older, resume=True)
    assert whole.injections.equals(painted.injections) and UNTOLD in whole.notes


@pytest.mark.parametrize("stage", [BARE, PAINTED])
def test_a_failed_shard_of_a_finished_older_folder_counts_as_through_and_is_not_tried_again(
    stage: str, run: Run, painted: Painted, tiny_model: Path, tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(painted.folder, older)
    (older / CHOSEN).unlink()
    part = part_files(older / stage)[-1]
    rows = pq.read_table(part)
    status = [*rows["status"].to_pylist()[:-1], "failed"]
    failed = pa.array(status, rows.schema.field("status").type)
    write_part(older / stage, part.stem, rows.set_column(rows.schema.get_field_index("status"), "status", failed))
    before = done_shards(older / stage)
    watching = Watching()
    again = paint(run, tiny_model, older, watching=watching, resume=True)
    assert not watching.contexts and done_shards(older / stage) == before and UNTOLD in again.notes
    (told := tmp_path / "told").mkdir()
    shutil.copytree(older, told, dirs_exist_ok=True)
    shutil.copyfile(painted.folder / CHOSEN, told / CHOSEN)
    assert paint(run, tiny_model, told, resume=True).injections.equals(
        painted.injections
    )  # failed ones are tried again


@pytest.mark.parametrize(("colour", "colour_min"), [(("g", "i"), 1.31), (None, -np.inf)])
def test_a_choice_of_hosts_is_read_as_it_was_written(
    colour: tuple[str, str] | None, colour_min: float, tmp_path: Path
) -> None:
    cuts = HostCuts(
        mag=(16.0, 21.5),
        half_light_radius_arcsec=(0.6, np.inf),
        axis_ratio_min=0.4,
        mask_fraction_max=0.1,
        colour_min=colour_min,
    )
    chosen = HostChoice("r", colour, cuts, "hosts have g - i > 1.31 (given)"), 117
    assert hold_hosts(tmp_path, *chosen, looking=[], painting=[]) == chosen
    other = dataclasses.replace(chosen[0], band="i", cuts=dataclasses.replace(cuts, colour_min=0.2))
    assert hold_hosts(tmp_path, other, 5, looking=[], painting=[]) == chosen


def test_lenses_of_a_pass_keep_apart_and_every_one_is_drawn_within_its_ranges(painted: Painted) -> None:
    table = painted.injections.to_pandas()
    for _, of in table.groupby("pass"):
        apart = cKDTree(np.c_[of["x_px"], of["y_px"]]).query(np.c_[of["x_px"], of["y_px"]], k=2)[0][:, 1]
        assert (apart * 0.2 >= CONFIG.apart_arcsec - 0.3).all()
    assert table["injection_id"].is_unique
    assert table["theta_e_arcsec"].between(*CONFIG.theta_e_arcsec).all()
    assert table["arc_snr"].between(*CONFIG.arc_snr).all()
    assert table["detected"].mean() > 0.8


def test_a_finder_of_bands_that_the_survey_lacks_is_refused_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    make_tile(tmp_path / "tiles", bands="r")
    run = scan_tiles(tmp_path / "tiles", tmp_path / "run")
    with pytest.raises(ConfigError, match="needs bands that the tiles do not have"):
        paint(run, tiny_model, tmp_path / "sel")
    assert not (tmp_path / "sel").exists()


def test_a_finder_that_fits_no_tile_is_refused_before_a_pixel_is_read_and_the_line_says_why(
    run: Run, tmp_path: Path
) -> None:
    finer = one_band_model(tmp_path / "finer", scales=(0.05, 0.15))
    with pytest.raises(ConfigError, match=r'can score no candidate.*of 0\.05" to 0\.15", the data have 0\.2"'):
        paint(run, finer, tmp_path / "sel")
    assert not (tmp_path / "sel").exists()


def test_nothing_is_painted_where_no_threshold_can_be_measured_and_a_resume_with_one_repeats_no_work(
    run: Run, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sel"
    with pytest.raises(ConfigError, match=r"no operating point.*--resume.*repeats no work.*a rate of 0\.0001 cannot"):
        paint(run, tiny_model, out, rates=(1e-4,), first=())
    assert done_shards(out / BARE) and not (out / PAINTED).exists()
    watching = Watching(break_after=0)
    with pytest.raises(KeyboardInterrupt):
        paint(run, tiny_model, out, watching=watching, resume=True, rates=(), first=(5,))
    assert [type(context.change) for context in watching.contexts] == [Painter]


def test_tiles_that_the_finder_does_not_fit_are_named_beside_the_candidates_that_have_no_score(tmp_path: Path) -> None:
    coarse = {"CDELT1": -0.5 / 3600, "CDELT2": 0.5 / 3600}
    make_tile(tmp_path / "tiles", bands="r")
    write_tile(tmp_path / "tiles", "b", bands="r", shape=(220, 180), n_source=6, seed=1, **coarse)
    run = scan_tiles(tmp_path / "tiles", tmp_path / "run")
    why = 'the data have 0.5"'
    with pytest.raises(ConfigError, match=rf"\d+ of \d+ candidates have no score: .*{why}"):
        paint(run, one_band_model(tmp_path / "model"), tmp_path / "sel", rates=(1e-4,), first=())


def test_a_survey_without_a_host_is_refused_in_one_line(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    bright = CONFIG.hosts.model_copy(update={"mag": (5.0, 6.0)})
    with pytest.raises(ConfigError, match="no row of the run can carry arcs"):
        paint(run, tiny_model, tmp_path / "sel", hosts=bright)


def test_where_no_lens_finds_room_one_line_says_so(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not one lens found room.*no empty sky in tile a"):
        paint(run, tiny_model, tmp_path / "sel", on_sky=1.0, clear_arcsec=18.0)
    with pytest.raises(ConfigError, match="no tile holds a galaxy that can carry arcs and stands alone"):
        paint(run, tiny_model, tmp_path / "crowded", clear_arcsec=80.0)


def test_a_tile_too_small_for_a_lens_in_each_pass_gets_them_in_some() -> None:
    of = [
        numbers_of(1.78, per_arcmin2=0.6, on_sky=0.5, tile="a", name=name_of(k), seed=0)  # .53 of each kind
        for k in range(200)
    ]
    for kind in ("host", "sky"):
        assert 85 <= sum(one[kind] for one in of) <= 128  # 107, three sigma of 7


def test_a_band_without_a_psf_is_refused_in_one_line(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set psf_fwhm_arcsec\.g"):
        paint(run, tiny_model, tmp_path / "sel", psf_fwhm_arcsec={})


def test_a_tile_without_hosts_of_a_survey_of_one_band_gets_lenses_on_empty_sky_and_a_line_says_so(
    tmp_path: Path,
) -> None:
    make_tile(tmp_path / "tiles", bands="r")
    write_tile(tmp_path / "tiles", "b", bands="r", shape=(220, 180), n_source=0, seed=1)
    run = scan_tiles(tmp_path / "tiles", tmp_path / "run")
    painted = paint(run, one_band_model(tmp_path / "model"), tmp_path / "sel", count=10)
    assert [note for note in painted.notes if note.startswith("no host in tile b:")]
    table = painted.injections.to_pandas()
    assert set(table["tile"]) == {"a", "b"} and set(table[table["tile"] == "b"]["kind"]) == {"sky"}
    assert all(name.startswith("a_") for name in table["host_id"])  # the only tile with hosts
    assert table["score"].notna().sum() > 3


def one_band_model(folder: Path, scales: tuple[float, float] = (0.1, 0.4)) -> Path:
    from lenspipe.nn.card import ModelCard
    from lenspipe.nn.checkpoint import save_model
    from lenspipe.nn.registry import build

    card = ModelCard(
        name="one",
        family="small-cnn",
        settings={"width": 4, "dropout": 0.0},
        bands=("r",),
        pixel_scale_arcsec=scales[1] / 2,
        scale_tolerance=0.1,
        min_scale_arcsec=scales[0],
        max_scale_arcsec=scales[1],
        stamp_px=33,
        stretch={"band_scales": (0.01,), "alpha": 0.1, "q": 1.0},
    )
    save_model(folder, build("small-cnn", 1, 33, width=4, dropout=0.0), card)
    return folder
