"""A sweep by the plain loop: every trial is a training, a crash is a row, and what is done is not done again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from heard import Heard
from pictures import drawn
from safetensors.torch import load_file
from toy_stamps import SIZE, make_stamps

from lenspipe.errors import ConfigError
from lenspipe.evaluate.audit import largest_changes
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.sweep.run import sweep
from lenspipe.learn.sweep.space import SweepSpace
from lenspipe.learn.sweep.trial import begin_trial
from lenspipe.learn.train import train
from lenspipe.runner import here
from lenspipe.toml import put_over, read_toml

BASE = {
    "sampling": {"batch_size": 16, "steps_per_epoch": 6},
    "optim": {"epochs": 1, "learning_rate": 0.02, "ema_decay": 0.8},
    "augment": {"affine_fraction": 0.0, "gap_fraction": 0.0},
}
WIDTHS = {"family": "small-cnn", "settings": {"width": [3, 4]}}


def space(**tables) -> SweepSpace:
    return SweepSpace.model_validate({"base": BASE, "model": [WIDTHS]} | tables)


def test_every_trial_is_a_training_and_a_crashed_one_is_a_row(toy_stamps, tmp_path):
    asked = space(model=[WIDTHS, {"family": "lensflow", "settings": {"nonsense": 1}}])
    heard = Heard()
    with drawn():
        rows = sweep(toy_stamps, asked, tmp_path / "out", progress=heard).to_pylist()
    assert (heard.total, heard.done) == (3, 3)
    assert [row["status"] for row in rows] == ["done", "done", "error"]
    assert "settings that the family does not have" in rows[2]["error"]
    assert rows[0]["multiply_adds"] > 0
    assert rows[0]["audit_turns_90"] is None, "nobody audited"
    with (tmp_path / "out" / "trials.csv").open(newline="") as file:
        flat = list(csv.DictReader(file))
    assert [(row["trial"], row["model.width"]) for row in flat[:2]] == [
        (row["trial"], str(json.loads(row["settings"])["model.width"])) for row in rows[:2]
    ]
    assert float(flat[0]["validation.auc"]) == json.loads(rows[0]["metrics"])["auc"]
    row = rows[1]
    settings = TrainSettings.model_validate(BASE | {"model": {"width": json.loads(row["settings"])["model.width"]}})
    optim = settings.optim.model_copy(update={"threads": 1})
    settings = settings.model_copy(update={"optim": optim})
    train(toy_stamps, model="small-cnn", task="find", out=tmp_path / "alone", settings=settings)
    trial = tmp_path / "out" / "trials" / row["trial"] / "model"
    alone, ours = (load_file(folder / "weights.safetensors") for folder in (tmp_path / "alone", trial))
    assert all(torch.equal(alone[name], ours[name]) for name in alone)
    with pytest.raises(ConfigError, match="holds a run already; add --resume"):
        sweep(toy_stamps, asked, tmp_path / "out")
    written = (trial / "weights.safetensors").stat().st_mtime_ns
    heard = Heard()
    again = sweep(toy_stamps, asked, tmp_path / "out", resume=True, progress=heard).to_pylist()
    assert heard.total == 1, "the crashed one alone is tried again"
    assert again == rows
    assert (trial / "weights.safetensors").stat().st_mtime_ns == written


SMALL = {
    "equivariant-c8": {"width": 1, "depth": 1},
    "equivariant-d4": {"width": 1, "depth": 1},
    "graph": {"patch_px": 3, "width": 4},
    "transformer-ae": {"width": 8, "patch": 6},
    "equivariant-ae": {"latent": 8},
    "diffusion": {"width": 4, "steps": 2},
    "stylegan": {"width": 4, "latent": 8},
}


@pytest.mark.parametrize(
    ("name", "n_trial"), [("adaptation", 22), ("generators", 6), ("graph_networks", 4), ("anomaly_families", 9)]
)
@pytest.mark.long
def test_a_shipped_space_runs_at_small_size(tmp_path, name, n_trial):
    data = make_stamps(tmp_path / "stamps", 60, n_part=1, size=12 if name == "anomaly_families" else SIZE)
    asked = read_toml(Path(__file__).parents[2] / "jobs" / f"{name}.toml", SweepSpace)
    small = {"base.sampling.batch_size": 8, "base.sampling.steps_per_epoch": 1, "base.optim.epochs": 2}
    small |= {
        "adaptation": {"base.adapt.target": str(make_stamps(tmp_path / "target", 60, n_part=1, contrast=4.0))},
        "generators": {"base.input.stamp_px": SIZE, "base.generate.watched": 8},
        "anomaly_families": {"base.input.stamp_px": 12, "base.labels.normal": ("lens",)},
    }.get(name, {})
    asked = put_over(asked, small, origin="test")
    models = []
    for model in asked.model:
        own = {key: value for key, value in model.settings.items() if key == "nodes"}
        models.append(model.model_copy(update={"settings": own | SMALL.get(model.family, {"width": 4})}))
    table = sweep(data, asked.model_copy(update={"model": tuple(models)}), tmp_path / "out", audit=largest_changes)
    rows = table.to_pylist()
    assert [row["error"] for row in rows] == [None] * n_trial
    assert {row["status"] for row in rows} == {"done"} and all(row["multiply_adds"] > 0 for row in rows)
    assert (rows[0]["audit_turns_90"] is None) == (name == "generators")


@pytest.mark.parametrize("tables", [{}, {"asha": {}}])
def test_a_trial_that_was_lost_before_it_began_is_unfinished(toy_stamps, tmp_path, tables):
    asked = space(**tables)
    with drawn():
        rows = sweep(toy_stamps, asked, tmp_path / "out", runner=here(only_begun)).to_pylist()
    assert [row["status"] for row in rows] == ["unfinished"] * 2


def only_begun(search, job, *, on_trial):
    """A runner whose processes are lost."""
    while (trial := search.ask("")) is not None:
        begin_trial(trial, job.out)
    return {}


def test_optuna_learns_from_the_plain_loop_and_early_stopping_is_refused_there(toy_stamps, tmp_path):
    models = [{"family": "small-cnn", "settings": {"width": {"low": 2, "high": 9, "integer": True}}}]
    asked = space(model=models, search="optuna", samples=2)
    seen = []
    table = sweep(toy_stamps, asked, tmp_path / "out", audit=lambda model, data: seen.append(model) or {"mirrors": 0.5})
    assert set(table["status"].to_pylist()) == {"done"}
    assert set(table["audit_mirrors"].to_pylist()) == {0.5}
    assert len(seen) == table.num_rows
    assert (tmp_path / "out" / ".optuna.log").read_text().count('"state":1,"values":[') == 2
    with pytest.raises(ConfigError, match="stops no trial early"):
        sweep(toy_stamps, space(asha={}), tmp_path / "asha")


def test_a_sweep_of_denoisers_ranks_by_the_noise_that_is_left(toy_stamps, tmp_path):
    base = BASE | {"augment": None, "optim": BASE["optim"] | {"learning_rate": 0.005}}
    models = [{"family": "unet-small", "settings": {"width": [2, 4]}}]
    rows = sweep(toy_stamps, space(task="denoise", base=base, model=models), tmp_path / "out").to_pylist()
    assert [row["metric_name"] for row in rows] == ["noise_left"] * 2
    assert [row["rank"] for row in rows] == [1, 2]
    assert rows[0]["metric"] <= rows[1]["metric"] < rows[1]["metric_high"] < 1
