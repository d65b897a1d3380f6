"""A sweep by Ray Tune: ranks, crashes, chance, and going on after a kill."""

from __future__ import annotations

from lenspipe.learn.space import SweepSpace

BASE = {
    "sampling": {"batch_size": 16, "steps_per_epoch": 8},
    "optim": {"epochs": 2, "learning_rate": 0.02, "ema_decay": 0.8},
    "augment": {"affine_fraction": 0.0, "gap_fraction": 0.0},
}


def space(**tables) -> SweepSpace:
    models = [{"family": "small-cnn", "settings": {"width": [3, 4]}}]
    return SweepSpace.model_validate({"base": BASE, "model": models} | tables)


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
