import runpy
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from heard import Heard

from lenspipe.errors import ConfigError
from lenspipe.runner import here
from lenspipe.simulate.local import simulate_local
from lenspipe.simulate.parts import Part, plan_parts
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.rows import simulate_rows
from lenspipe.simulate.run import simulate
from lenspipe.simulate.sheet import CONTACT_SHEET
from lenspipe.stamps.format import StampSet


def small_recipe(part_rows=5):
    recipe = read_recipe("ground-gri")
    image = recipe.image[0].model_copy(update={"size_px": 32, "supersampling": 2})
    return recipe.model_copy(update={"image": (image,), "part_rows": part_rows, "min_arc_snr": 10.0})


def rows_of(folder):
    data = StampSet.open(folder)
    return sorted(
        (row for batch in data.iter_batches(batch_size=8) for row in batch.to_pylist()), key=lambda r: r["stamp_id"]
    )


def on_ray(n_worker):
    from lenspipe.distributed.simulate import simulate_ray

    return here(partial(simulate_ray, n_worker=n_worker))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "run"
    simulate(small_recipe(), count=23, seed=3, out=out)
    return rows_of(out)


@pytest.mark.parametrize("n_worker", [3])
def test_any_number_of_workers_gives_the_rows_of_the_plain_loop(ray_local, reference, tmp_path, n_worker):
    result = simulate(small_recipe(), count=23, seed=3, out=tmp_path / "run", runner=on_ray(n_worker))
    assert result["rows"] == 23
    assert rows_of(tmp_path / "run") == reference


def test_real_sources_and_hosts_reach_the_workers_of_ray(ray_local, tmp_path, rng):
    y, x = np.indices((49, 49)) - 24
    (tmp_path / "sources").mkdir()
    for k, turn in enumerate((0.3, 1.1)):
        galaxy = np.exp(-np.hypot(x, 2 * y) / 5) * (1 + np.cos(2 * np.arctan2(y, x) - turn * np.hypot(x, y)))
        fits.writeto(tmp_path / "sources" / f"galaxy-{k}.fits", galaxy.astype(np.float32))
    recipe = read_recipe("ground-gri", survey="kids")
    hosts = recipe.model_copy(update={"classes": {"early_type": 1.0}, "image": small_recipe().image})
    simulate(hosts, count=4, seed=8, out=tmp_path / "hosts")
    painted = hosts.model_copy(update={"classes": {"lens": 1.0}, "part_rows": 2, "min_arc_snr": 10.0})
    painted = painted.model_copy(update={"sources": painted.sources.model_copy(update={"image_fraction": 1.0})})
    real = {"source_folder": tmp_path / "sources", "host_folder": tmp_path / "hosts"}
    runs = {}
    for name, runner in (("local", here(simulate_local)), ("ray", on_ray(1))):
        simulate(painted, count=6, seed=5, out=tmp_path / name, runner=runner, **real)
        runs[name] = rows_of(tmp_path / name)
    assert runs["ray"] == runs["local"]
    assert {row["source_image"] for row in runs["ray"]} == {"galaxy-0", "galaxy-1"}
    assert {row["host"] for row in runs["ray"]} <= {f"ground-gri-8-{k:08d}" for k in range(4)}


@pytest.mark.parametrize("part_rows", [1, 7, 50])
def test_rows_do_not_depend_on_the_size_of_the_parts(reference, tmp_path, part_rows):
    simulate(small_recipe(part_rows), count=23, seed=3, out=tmp_path / "run")
    assert rows_of(tmp_path / "run") == reference


def test_rows_can_be_made_in_any_order(reference):
    order = np.random.default_rng(0).permutation(23)
    made = simulate_rows(small_recipe(), seed=3, items=order.tolist()).to_pylist()
    assert sorted(made, key=lambda r: r["stamp_id"]) == reference


def test_a_run_that_was_cut_off_is_resumed_and_made_longer(reference, tmp_path):
    out = tmp_path / "run"
    simulate(small_recipe(), count=12, seed=3, out=out)
    (out / "part-000000005.parquet").unlink()
    (out / ".part-000000005.parquet.99.tmp").write_bytes(b"half a part")
    heard = Heard()
    result = simulate(small_recipe(), count=23, seed=3, out=out, resume=True, progress=heard)
    assert result["new_rows"] == 18  # the lost part, the short last one, and the new ones
    assert (heard.at_first, heard.total, heard.done) == (5, 23, 23)
    assert rows_of(out) == reference
    again = simulate(small_recipe(), count=23, seed=3, out=out, resume=True)
    assert again["new_rows"] == 0


def test_a_folder_of_another_run_is_refused(tmp_path):
    out = tmp_path / "run"
    simulate(small_recipe(), count=3, seed=3, out=out)
    with pytest.raises(ConfigError, match="--resume"):
        simulate(small_recipe(), count=3, seed=3, out=out)
    with pytest.raises(ConfigError, match="another request"):
        simulate(small_recipe(), count=3, seed=4, out=out, resume=True)


def test_the_folder_holds_parts_a_contact_sheet_and_no_other_parquet(tmp_path):
    out = tmp_path / "run"
    simulate(small_recipe(), count=6, seed=3, out=out)
    assert sorted(p.name for p in out.rglob("*.parquet")) == ["part-000000000.parquet", "part-000000005.parquet"]
    assert (out / CONTACT_SHEET).read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob(".*.tmp"))


def test_parts_begin_at_the_same_rows_whatever_the_count():
    assert plan_parts(11, 5) == [Part(0, 5), Part(5, 10), Part(10, 11)]
    assert plan_parts(5, 5) == [Part(0, 5)]


def test_the_command_simulates_and_refuses_what_it_does_not_know(tmp_path):
    from click.testing import CliRunner

    from lenspipe.cli.simulate import command

    run = CliRunner().invoke(
        command, ["--recipe", "ground-gri", "--count", "2", "--out", str(tmp_path / "s"), "--runner", "local"]
    )
    assert run.exit_code == 0, run.output
    assert "2 stamps in 1 parts" in run.output
    assert "Simulating: 0/2 stamps" in run.output  # a bar on a terminal
    assert StampSet.open(tmp_path / "s").n == 2
    assert "substructure-3" in CliRunner().invoke(command, ["--list"]).output
    assert CliRunner().invoke(command, ["--recipe", "ground-gri"]).exit_code == 2
    assert isinstance(
        CliRunner().invoke(command, ["--recipe", "no", "--count", "1", "--out", str(tmp_path / "t")]).exception,
        ConfigError,
    )


def test_the_job_is_the_command(tmp_path, monkeypatch, capsys):
    job = Path(__file__).resolve().parents[2] / "jobs" / "simulate_lenses.py"
    ask = ["--recipe", "ground-gri", "--count", "1", "--out", str(tmp_path / "s"), "--runner", "local"]
    monkeypatch.setattr(sys, "argv", [str(job), *ask])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(job), run_name="__main__")
    assert ended.value.code == 0
    assert "1 stamps in 1 parts" in capsys.readouterr().out
