"""A training from stamps to a model folder: it learns, goes on after a kill, and leaves what it should."""

from __future__ import annotations

import itertools
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from forked import Forked
from pictures import drawn
from safetensors.torch import load_file

from lenspipe.cli.train import read_settings
from lenspipe.errors import ConfigError, ModelError
from lenspipe.infer.score import Scorer
from lenspipe.learn.job import make_job
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.learn.world import World
from lenspipe.nn.card import read_card
from lenspipe.nn.checkpoint import load_model
from lenspipe.nn.registry import build, families
from lenspipe.stamps.format import StampSet
from lenspipe.toml import validate

SETTINGS = {
    "model": {"width": 4, "dropout": 0.1},
    "sampling": {"batch_size": 16, "steps_per_epoch": 12},
    "optim": {"epochs": 3, "learning_rate": 0.02, "ema_decay": 0.9, "threads": 1},
    "augment": {"affine_fraction": 0.2, "gap_fraction": 0.0},
}


def run(data, out, task="find", seed=2, model="small-cnn", **tables):
    raw = SETTINGS | {"model": SETTINGS["model"] if model == "small-cnn" else {}} | tables
    return train(data, model=model, task=task, out=out, settings=TrainSettings.model_validate(raw), seed=seed)


@pytest.fixture(scope="module")
def finder(toy_stamps, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("trained") / "finder"
    with drawn():
        run(toy_stamps, out)
    return out


def test_it_learns_and_the_folder_is_a_model_with_its_history(finder):
    card = read_card(finder)
    assert card.metrics["validation"]["auc"] > 0.9
    assert card.training["epochs"] == 3
    history = pq.read_table(finder / "history.parquet").to_pydict()
    assert history["epoch"] == [1, 2, 3]
    assert history["loss"][-1] < history["loss"][0]
    assert (finder / "loss.png").stat().st_size > 5000
    assert (finder / "roc.png").stat().st_size > 5000


def test_what_the_training_measured_is_what_scoring_gives(finder, toy_stamps):
    data = StampSet.open(toy_stamps)
    rows = np.flatnonzero(data.column("split") == "validation")
    scores = Scorer(finder).score(data.read_images("image", rows), pixel_scale_arcsec=0.2)
    lens = data.column("label")[rows] == "lens"
    above = (scores[lens][:, None] > scores[~lens]).mean()
    assert read_card(finder).metrics["validation"]["auc"] == pytest.approx(above, abs=1e-6)


def test_the_same_command_again_leaves_a_finished_model_and_another_is_refused(finder, toy_stamps):
    before = (finder / "weights.safetensors").stat().st_mtime_ns
    assert run(toy_stamps, finder) == read_card(finder)
    assert (finder / "weights.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="run of another request; resume with the same seed"):
        run(toy_stamps, finder, seed=3)


def test_killed_in_the_middle_of_an_epoch_it_ends_with_the_same_weights(finder, toy_stamps, tmp_path):
    def train_on(on_step):
        settings = TrainSettings.model_validate(SETTINGS)
        train(toy_stamps, model="small-cnn", task="find", out=out, settings=settings, seed=2, on_step=on_step)

    def tell(epoch, step, history):
        with (tmp_path / "steps").open("a") as steps:
            steps.write(f"{epoch} {step}\n")
        if (epoch, step) == (1, 5):
            time.sleep(60)

    out, steps = tmp_path / "killed", tmp_path / "steps"
    process = Forked(lambda: train_on(tell))
    while process.poll() is None and not (steps.exists() and steps.read_text().endswith("1 5\n")):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (out / "card.json").exists()
    shown = []
    train_on(lambda epoch, step, history: shown.append((epoch, step)))
    assert shown[0] == (1, 1)
    whole, resumed = (load_file(folder / "weights.safetensors") for folder in (finder, out))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_interrupted_state_file_is_refused_by_name(toy_stamps, finder, tmp_path):
    import shutil

    out = tmp_path / "broken"
    shutil.copytree(finder, out)
    (out / "card.json").unlink()
    state = out / "state.safetensors"
    state.write_bytes(state.read_bytes()[: 1 << 12])
    with pytest.raises(ModelError, match=r"state cannot be read.*delete it to start anew.*state\.safetensors"):
        run(toy_stamps, out)


def test_three_classes_learn_with_their_shares(stamp_maker, tmp_path):
    data = stamp_maker(tmp_path / "three", 240, labels=("ring", "blob", "wide"))
    with drawn():
        card = run(data, tmp_path / "classes", "classify")
    assert (tmp_path / "classes" / "roc.png").stat().st_size > 5000
    assert card.outputs.classes == ("blob", "ring", "wide")
    measured = card.metrics["validation"]
    assert measured["auc"] > 0.85
    assert measured["auc_low"] < measured["auc"] <= measured["auc_high"]


def test_a_radius_is_regressed_with_an_uncertainty(toy_stamps, tmp_path):
    tables = {"labels": {"targets": ["theta_e_arcsec"], "uncertainty": "gaussian"}, "augment": None}
    with drawn():
        card = run(toy_stamps, tmp_path / "radius", "regress", optim=SETTINGS["optim"] | {"epochs": 6}, **tables)
    module, _ = load_model(tmp_path / "radius")
    assert module(torch.zeros(3, 2, 13, 13)).shape == (3, 2)
    assert card.metrics["validation"]["val_rmse"] < 0.8
    assert (tmp_path / "radius" / "targets.png").stat().st_size > 5000


def test_training_ends_early_and_keeps_the_best_epoch(toy_stamps, tmp_path):
    optim = SETTINGS["optim"] | {
        "epochs": 30,
        "learning_rate": 0.2,
        "monitor": "val_loss",
        "patience": 1,
        "schedule": "constant",
    }
    card = run(toy_stamps, tmp_path / "early", optim=optim)
    losses = pq.read_table(tmp_path / "early" / "history.parquet")["val_loss"].to_pylist()
    assert len(losses) < 30
    assert np.argmin(losses) == len(losses) - 2
    assert card.metrics["validation"]["val_loss"] == pytest.approx(min(losses), abs=1e-6)


FAST = SETTINGS["optim"] | {"precision": "bfloat16", "channels_last": True}


def test_in_bfloat16_and_channels_last_it_learns_as_well(toy_stamps, finder, tmp_path):
    run(toy_stamps, tmp_path / "fast", optim=FAST)
    fast, plain = (read_card(folder).metrics["validation"]["auc"] for folder in (tmp_path / "fast", finder))
    assert fast == pytest.approx(plain, abs=0.05)
    module, _ = load_model(tmp_path / "fast")
    assert all(p.is_contiguous() and p.dtype == torch.float32 for p in module.parameters())


def test_kernels_of_five_axes_train_in_channels_last_too(toy_stamps, tmp_path):
    few = {"batch_size": 16, "steps_per_epoch": 2}
    run(toy_stamps, tmp_path / "d4", model="equivariant-d4", optim=FAST | {"epochs": 1}, sampling=few)
    assert read_card(tmp_path / "d4").metrics["validation"]["auc"] > 0


def test_the_command_line_is_put_over_the_file(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text('[optim]\nepochs = 7\noptimizer = "adam"\n[sampling]\ncurriculum = "theta_e_arcsec"\n')
    settings = read_settings(str(path), epochs=3, targets="a, b")
    assert (settings.optim.epochs, settings.optim.optimizer) == (3, "adam")
    assert settings.sampling.curriculum == "theta_e_arcsec"
    assert settings.labels.targets == ("a", "b")
    path.write_text('[optim]\nmonitor = "loss"\n')
    with pytest.raises(ConfigError, match="monitor takes a number of the validation split"):
        read_settings(str(path))
    path.write_text("[optim]\nepoch = 7\n")
    with pytest.raises(ConfigError, match=r"train\.toml:optim: unknown key 'epoch'. Did you mean 'epochs'\?"):
        read_settings(str(path))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"input": {"bands": ["g", "g"]}}, "named twice: g"),
        ({"input": {"features": ["mag", "mag"]}}, "named twice: mag"),
        ({"labels": {"targets": ["mag", "mag"]}}, "named twice: mag"),
        ({"labels": {"classes": ["lens", "lens"]}}, "named twice: lens"),
        ({"input": {"high_pass_px": 0.05}}, "nothing would be left"),
    ],
)
def test_what_would_count_twice_or_leave_nothing_is_refused(tables, message):
    with pytest.raises(ConfigError, match=message):
        validate(tables, TrainSettings, origin="train.toml")


def test_large_lenses_come_first(toy_stamps):
    from lenspipe.learn.batches import order_of

    raw = SETTINGS | {"sampling": SETTINGS["sampling"] | {"curriculum": "theta_e_arcsec", "curriculum_epochs": 2}}
    job = make_job(toy_stamps, "small-cnn", "find", "x", TrainSettings.model_validate(raw), seed=1)
    theta = StampSet.open(toy_stamps).column("theta_e_arcsec").astype(float)
    least = [np.nanmin(theta[order_of(job, epoch).rows]) for epoch in range(3)]
    assert least[0] > least[1] > least[2]
    shares = [job.truth.labels[order_of(job, epoch).rows].mean() for epoch in range(3)]
    np.testing.assert_allclose(shares, 0.5, atol=0.02)


def test_views_of_a_stamp_are_augmented_apart_and_the_first_is_the_only_one_there_was(toy_stamps):
    from lenspipe.learn.batches import epoch_batches, prepare_batch

    raw = SETTINGS | {"augment": {"affine_fraction": 1.0, "noise_fraction": 1.0}}
    job = make_job(toy_stamps, "small-cnn", "find", "x", TrainSettings.model_validate(raw), seed=1)
    batch = next(epoch_batches(job, World(), 0))
    one, three, again = (prepare_batch(job, World(), batch, 0, 0, n_view=n) for n in (1, 3, 3))
    assert set(three) - set(one) == {"image_1", "image_2"}
    assert torch.equal(one["image"], three["image"]) and torch.equal(one["label"], three["label"])
    assert all(torch.equal(three[name], again[name]) for name in three)
    views = [three[name] for name in ("image", "image_1", "image_2")]
    for a, b in itertools.combinations(views, 2):
        assert a.shape == b.shape
        assert (a != b).flatten(1).any(dim=1).all(), "no stamp looks the same in two views"


def test_training_starts_from_local_weights_head_first(finder, toy_stamps, tmp_path):
    optim = SETTINGS["optim"] | {"epochs": 1, "ema_decay": 0.0, "frozen_epochs": 1}
    settings = TrainSettings.model_validate(SETTINGS | {"optim": optim})
    card = train(
        toy_stamps,
        model="small-cnn",
        task="find",
        out=tmp_path / "on",
        settings=settings,
        seed=9,
        pretrained=str(finder / "weights.safetensors"),
    )
    before, after = (load_file(folder / "weights.safetensors") for folder in (finder, tmp_path / "on"))
    assert torch.equal(before["trunk.0.weight"], after["trunk.0.weight"])
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert card.training["pretrained"] == "weights.safetensors"
    assert card.metrics["validation"]["auc"] > 0.9


def test_an_equivariant_network_is_stored_in_its_plain_form(toy_stamps, tmp_path):
    optim = SETTINGS["optim"] | {"epochs": 1}
    card = train(
        toy_stamps,
        model="equivariant-c4",
        task="find",
        out=tmp_path / "c4",
        seed=1,
        settings=TrainSettings.model_validate(
            SETTINGS | {"model": {"width": 2, "depth": 1}, "optim": optim, "sampling": {"steps_per_epoch": 2}}
        ),
    )
    assert (card.family, card.training["family"]) == ("plain-equivariant", "equivariant-c4")
    module, _ = load_model(tmp_path / "c4")
    stamps = torch.randn(4, 2, 13, 13)
    turned = module(torch.rot90(stamps, 1, (2, 3)))
    torch.testing.assert_close(module(stamps), turned, atol=1e-4, rtol=1e-4)


def test_columns_of_numbers_go_beside_the_image(toy_stamps, tmp_path):
    optim = SETTINGS["optim"] | {"epochs": 1}
    settings = TrainSettings.model_validate(
        SETTINGS
        | {"model": {"trunk": "resnet10t"}, "optim": optim, "sampling": {"steps_per_epoch": 2}}
        | {"input": {"features": ["mag"]}}
    )
    card = train(toy_stamps, model="hybrid", task="find", out=tmp_path / "h", settings=settings)
    data = StampSet.open(toy_stamps)
    mags = data.column("mag")[data.column("split") == "train"]
    assert card.settings["n_feature"] == 1
    assert card.feature_means[0] == pytest.approx(mags.mean())
    assert card.feature_spreads[0] == pytest.approx(mags.std())


# families of other commands, and those that are trained above
ELSEWHERE = (
    "equivariant-",
    "plain-equivariant",
    "kernel-",
    "unet",
    "hybrid",
    "small-cnn",
    "ae",
    "vae",
    "aae",
    "acae",
    "scae",
    "rnn-ae",
    "vrae",
    "transformer-ae",
    "gan",
    "dcgan",
    "wgan",
    "stylegan",
    "conditional",
    "diffusion",
)
# odd sides of families that refuse the toy stamps of 13 px
SIDE_PX = {
    "cas-swinburne": 27,
    "lastro-baseline": 35,
    "lastro-invariant": 35,
    "lastro-residual": 45,
    "lastro-views": 35,
    "lensflow": 25,
}


@pytest.mark.parametrize("name", [*(n for n in families() if not n.startswith(ELSEWHERE)), "timm:resnet10t"])
def test_two_steps_move_every_weight_of_a_family_and_its_model_loads(stamp_maker, tmp_path, name):
    """Two steps, as residual networks of timm begin with branches of weight zero."""
    size = SIDE_PX.get(name, 13)
    data = stamp_maker(tmp_path / "data", 20, size=size, n_part=1)
    few, once = {"batch_size": 4, "steps_per_epoch": 2}, SETTINGS["optim"] | {"epochs": 1, "ema_decay": 0.0}
    card = run(data, tmp_path / "out", model=name, sampling=few, optim=once, seed=1)
    module, loaded = load_model(tmp_path / "out")
    assert loaded == card
    assert (card.family, card.stamp_px, card.training["steps"]) == (name, size, 2)
    torch.manual_seed(1)
    before = dict(build(name, 2, size).named_parameters())
    for key, weight in module.named_parameters():
        assert torch.isfinite(weight).all() and not torch.equal(weight, before[key]), key
