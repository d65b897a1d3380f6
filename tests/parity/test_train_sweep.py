"""A sweep by Ray Tune: ranks, crashes, chance, and going on after a kill."""

from __future__ import annotations

import pytest
from toy_stamps import make_stamps

from lenspipe.dist.sweep import sweep
from lenspipe.errors import ConfigError
from lenspipe.learn.space import SweepSpace
from lenspipe.nn.checkpoint import load_model

BASE = {
    "sampling": {"batch_size": 16, "steps_per_epoch": 8},
    "optim": {"epochs": 2, "learning_rate": 0.02, "ema_decay": 0.8},
    "augment": {"affine_fraction": 0.0, "gap_fraction": 0.0},
}


def space(**tables) -> SweepSpace:
    models = [{"family": "small-cnn", "settings": {"width": [3, 4]}}]
    return SweepSpace.model_validate({"base": BASE, "model": models} | tables)


@pytest.mark.usefixtures("ray_local")
def test_trials_are_ranked_and_a_crashed_one_is_a_row(tmp_path):
    data = make_stamps(tmp_path / "stamps")
    models = [*space().model_dump()["model"], {"family": "lensflow", "settings": {"nonsense": 1}}]
    seen = []
    table = sweep(data, space(model=models), tmp_path / "out", progress=lambda *counts: seen.append(counts))
    rows = table.to_pylist()
    assert [row["rank"] for row in rows] == [1, 2, None]
    assert rows[0]["metric"] >= rows[1]["metric"] > 0.8
    assert rows[0]["metric_low"] < rows[0]["metric"] <= rows[0]["metric_high"]
    assert rows[2]["status"] == "error"
    assert "settings that the family does not have" in rows[2]["error"]
    assert min(rows[0]["parameters"], rows[0]["multiply_adds"]) > 0
    assert rows[0]["audit_turns_90"] > 0  # an ordinary network is not equivariant
    assert seen[0] == (0, 3)
    assert seen[-1] == (3, 3)
    _, card = load_model(tmp_path / "out" / "best")
    assert card.name == rows[0]["trial"]
    assert (tmp_path / "out" / "index.html").stat().st_size > 20_000
    again = sweep(data, space(model=models), tmp_path / "out", resume=True).to_pylist()
    assert [row["trial"] for row in again] == [row["trial"] for row in rows]
    with pytest.raises(ConfigError, match="holds a run already; add --resume"):
        sweep(data, space(model=models), tmp_path / "out")


def test_optuna_goes_on_with_what_was_cut_off(tmp_path):
    from lenspipe.dist.search import StudySearch

    models = [{"family": "small-cnn", "settings": {"width": {"low": 2, "high": 9, "integer": True}}}]
    asked = space(model=models, search="optuna", samples=3)
    first = StudySearch(asked, tmp_path / "journal", seed=1)
    assert first.n_left == 3
    done, cut = first.suggest("a"), first.suggest("b")
    first.on_trial_complete("a", {"auc": 0.7})
    again = StudySearch(asked, tmp_path / "journal", seed=1)
    assert again.n_left == 2
    assert again.suggest("c")["name"] == cut["name"]
    assert 2 <= done["settings"]["model"]["width"] <= 9
