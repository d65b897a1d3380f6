"""Spaces: a setting exists only where it applies; trials depend on their settings alone; chance has no rank."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from torch import nn

from lenspipe.errors import ConfigError
from lenspipe.learn.cost import count_parameters, multiply_adds
from lenspipe.learn.objectives import objective_of
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.sweep.page import _learning_curves, write_page
from lenspipe.learn.sweep.space import SweepSpace, grid, random_trials
from lenspipe.learn.sweep.trials import SCHEMA, at_chance, trial_table, write_result
from lenspipe.learn.train import train
from lenspipe.tables import write_table
from lenspipe.toml import parse_toml, read_toml

SPACE = """
[shared]
"optim.learning_rate" = [0.001, 0.01]
"sampling.batch_size" = 32
[[model]]
family = "small-cnn"
settings = { width = [4, 8, 16] }
[[model]]
family = "timm:resnet18"
train = { "optim.learning_rate" = 0.0003 }
"""


def space(text=SPACE, **more):
    return parse_toml(text, SweepSpace, origin="space.toml").model_copy(update=more)


def test_a_grid_has_every_combination_once_and_settings_only_where_they_apply():
    trials = grid(space())
    assert len(trials) == 3 * 2 + 1
    assert {t.settings.optim.learning_rate for t in trials if t.family == "timm:resnet18"} == {0.0003}
    assert all("model.width" not in t.choice for t in trials if t.family == "timm:resnet18")
    assert {(t.settings.model["width"], t.settings.optim.learning_rate) for t in trials if t.family == "small-cnn"} == {
        (w, r) for w in (4, 8, 16) for r in (0.001, 0.01)
    }
    assert all(t.settings.sampling.batch_size == 32 for t in trials)
    assert len({t.name for t in trials}) == len(trials)


def test_random_trials_keep_their_settings_when_more_are_asked_for():
    text = SPACE.replace("[0.001, 0.01]", "{ low = 1e-4, high = 1e-2, log = true }")
    few, many = (random_trials(space(text, search="random", samples=n), seed=3) for n in (5, 12))
    assert [t.name for t in many[:5]] == [t.name for t in few]
    rates = [t.settings.optim.learning_rate for t in many if t.family == "small-cnn"]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert len(set(rates)) == len(rates)
    assert [t.name for t in random_trials(space(text, samples=5), seed=4)] != [t.name for t in few]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPACE.replace("optim.learning_rate", "optim.lerning_rate"), r"unknown key 'lerning_rate'\. Did you mean"),
        (SPACE.replace("[0.001, 0.01]", "{ low = 1e-4, high = 1e-2 }"), "a range has no end of values"),
        (SPACE.replace("[0.001, 0.01]", "[-1.0]"), r"learning_rate = -1\.0"),
        ('[[model]]\nfamly = "x"\n', r"space\.toml:model\.0: unknown key 'famly'\. Did you mean 'family'"),
    ],
)
def test_a_space_that_is_wrong_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        grid(space(text))


def test_the_shipped_spaces_are_spaces():
    from pathlib import Path

    jobs = Path(__file__).resolve().parents[2] / "jobs"
    assert len(grid(read_toml(jobs / "sweep_smoke.toml", SweepSpace))) == 4
    groups = grid(read_toml(jobs / "sweep_groups.toml", SweepSpace))
    assert len({t.family for t in groups}) == 16
    shipped = {
        path.stem: grid(read_toml(path, SweepSpace))
        for path in sorted(jobs.glob("*.toml"))
        if "denoiser" not in path.stem
    }
    assert {name: len(trials) for name, trials in shipped.items() if name.split("_")[0] != "sweep"} == {
        "adaptation": 22,
        "anomaly_families": 22,
        "dark_matter": 54,
        "generators": 6,
        "graph_networks": 4,
    }


def test_chance_is_one_half_of_an_area_and_one_of_a_scaled_rmse():
    area, rmse = objective_of("find").chance, objective_of("regress").chance
    assert at_chance(area, 0.49, 0.7)
    assert not at_chance(area, 0.51, 0.7)
    assert at_chance(rmse, 0.8, 1.01)
    assert not at_chance(rmse, 0.8, 0.99)
    assert at_chance(area, None, None)


def test_a_task_that_nothing_is_trained_for_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match="no such task; known: find, classify, regress"):
        space('task = "fund"\n' + SPACE)
    with pytest.raises(ConfigError, match=r"no such task of a training; known: find.*task='fund'"):
        objective_of("fund")


def begun(folder, name, *, error=None):
    (folder / name).mkdir(parents=True)
    (folder / name / "trial.json").write_text(json.dumps({"family": "small-cnn", "choice": {"model.width": 4}}))
    if error:
        (folder / name / "error.json").write_text(json.dumps({"error": error}))
    return folder / name


def test_a_crashed_trial_is_a_row_with_its_error_and_the_page_shows_it(tmp_path):
    folders = [begun(tmp_path, "a"), begun(tmp_path, "b", error="ModelError: too <small>")]
    table = trial_table(folders, space(), stopped={"a"})
    assert table.schema.equals(SCHEMA)
    rows = {row["trial"]: row for row in table.to_pylist()}
    assert (rows["a"]["status"], rows["a"]["rank"]) == ("stopped", None)
    assert (rows["b"]["status"], rows["b"]["error"]) == ("error", "ModelError: too <small>")
    write_table(table, tmp_path / "trials.parquet")
    assert pq.read_table(tmp_path / "trials.parquet").num_rows == 2
    write_page(tmp_path, table, {}, space())
    page = (tmp_path / "index.html").read_text()
    assert "ModelError: too &lt;small&gt;" in page
    assert ">status</th>" in page and "audit turns 90" not in page  # nobody audited them
    assert page.count("data:image/png") == 2 and 'media="(max-width: 700px)"' in page


def test_a_trial_on_labels_that_mean_nothing_has_no_rank(tmp_path, toy_stamps, stamp_maker):
    noise = stamp_maker(tmp_path / "noise", 160, contrast=0.0)
    settings = TrainSettings.model_validate(
        {
            "model": {"width": 3},
            "sampling": {"batch_size": 16, "steps_per_epoch": 8},
            "optim": {"epochs": 2, "learning_rate": 0.02, "ema_decay": 0.8, "threads": 1},
        }
    )
    folders = []
    for name, data in (("planted", noise), ("honest", toy_stamps)):
        folders.append(begun(tmp_path, name))
        model = folders[-1] / "model"
        train(data, model="small-cnn", task="find", out=model, settings=settings)
        write_result(folders[-1], {"parameters": 10, "multiply_adds": 100})
    rows = {row["trial"]: row for row in trial_table(folders, space(), stopped=set()).to_pylist()}
    assert (rows["planted"]["status"], rows["planted"]["at_chance"], rows["planted"]["rank"]) == ("done", True, None)
    assert (rows["honest"]["status"], rows["honest"]["at_chance"], rows["honest"]["rank"]) == ("done", False, 1)
    assert rows["planted"]["metric_low"] < 0.5


def test_multiply_adds_are_those_of_the_formula():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 100, 2))
    assert multiply_adds(network, 3, 10) == 8 * 3 * 9 * 100 + 800 * 2
    assert count_parameters(network) == 8 * 3 * 9 + 800 * 2 + 2


def test_a_learning_curve_is_the_best_trial_of_each_family_at_each_part_of_the_data():
    axes = Figure().add_subplot()
    rows = [
        {
            "trial": f"{family}{fraction}{metric}",
            "family": family,
            "metric": metric,
            "metric_low": metric - 0.1,
            "metric_high": metric + 0.1,
            "at_chance": metric < 0.6,
            "fraction": fraction,
        }
        for family, fraction, metric in [
            ("a", 1.0, 0.9),
            ("a", 0.1, 0.55),
            ("a", 0.1, 0.7),
            ("b", 0.1, 0.8),
            ("b", None, 0.95),
        ]
    ]
    fractions = {row["trial"]: row["fraction"] for row in rows}
    _learning_curves(axes, rows, fractions, {"a": "#000000", "b": "#ff0000"}, space())
    drawn = {
        line.get_color(): line.get_xydata().tolist()
        for line in axes.lines
        if line.get_marker() == "None" and len(line.get_xydata())
    }
    assert drawn["#000000"] == [[0.1, 0.7], [1.0, 0.9]]
    assert drawn["#ff0000"] == [[0.1, 0.8]]
    assert axes.get_xscale() == "log"
