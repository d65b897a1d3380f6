"""Lenses with a small mass beside them are told from plain ones by a network that saw plain ones alone, bent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import drawn
from safetensors.torch import load_file

from benchmarks.studies.labels.anomalies import judged_rows, write
from lenspipe.errors import ConfigError, ModelError
from lenspipe.evaluate.report import ReportSettings, evaluate_models
from lenspipe.learn.deflect_batch import DAMPING, LINE, PLAIN, POINTS, bent, comes_from, lit, masses
from lenspipe.learn.job import make_job
from lenspipe.learn.network import fresh_network
from lenspipe.learn.objectives import deflect
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.card import read_card
from lenspipe.stamps.format import ImageSpec, StampSet, image_column, stamp_schema, write_part

SIZE = 21
SETTINGS = {
    "method": "deflect",
    "labels": {"normal": ["plain"]},
    "model": {"width": 6, "dropout": 0.0},
    "sampling": {"batch_size": 32, "steps_per_epoch": 30},
    "deflect": {"radius_arcsec": [0.2, 0.6]},
    "optim": {"epochs": 3, "learning_rate": 0.01, "ema_decay": 0.9, "threads": 1},
    "augment": {"affine_fraction": 0, "blur_fraction": 0, "gap_fraction": 0, "background": 0, "noise": [0.3, 0.5]},
}


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def rings(tmp_path_factory) -> Path:
    """A round source behind isothermal spheres by the lens equation; a third of these have a point mass at the arc."""
    rng, n, folder = np.random.default_rng(4), 480, tmp_path_factory.mktemp("rings") / "stamps"
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2 + 1e-3
    label = np.where(np.arange(n) % 3 == 0, "perturbed", "plain")
    theta, angle = rng.uniform(4, 6, (n, 1, 1)), rng.uniform(-np.pi, np.pi, (n, 1, 1))
    away = rng.uniform(0.7, 2, (n, 1, 1))  # of the source, whose brighter image lies as far beyond the ring
    near = angle + rng.normal(0, 0.3, (n, 1, 1))
    u, v = x - (theta + away) * np.cos(near), y - (theta + away) * np.sin(near)
    bend = np.where(label == "perturbed", rng.uniform(1.5, 2.5, n) ** 2, 0)[:, None, None] / (u**2 + v**2)
    beta_x = x - theta * x / np.hypot(x, y) - bend * u - away * np.cos(angle)
    beta_y = y - theta * y / np.hypot(x, y) - bend * v - away * np.sin(angle)
    ring = 30 * np.exp(-(beta_x**2 + beta_y**2) / 2) + rng.normal(0, 1, (n, SIZE, SIZE))
    spec = ImageSpec(("r",), SIZE, 0.2)
    columns = {
        "stamp_id": [f"s{row:04d}" for row in range(n)],
        "image": image_column(ring[:, None].astype(np.float32), spec),
        "label": label.tolist(),
        "recipe": ["toy"] * n,
        "seed": [4] * n,
        "host": [f"h{row}" for row in range(n)],
        "split": np.where(
            np.arange(n) % 10 < 6, "train", np.where(np.arange(n) % 10 < 8, "validation", "test")
        ).tolist(),
    }
    schema = stamp_schema({"image": spec}, [])
    table = pa.table(
        [columns["image"] if f.name == "image" else pa.array(columns[f.name], f.type) for f in schema], schema=schema
    )
    write_part(table, folder, "part-0")
    return folder


def run(data: Path, out: Path, task: str = "anomaly", *, tables=None, model: str = "small-cnn", **more):
    settings = TrainSettings.model_validate(SETTINGS | (tables or {}))
    return train(data, model=model, task=task, out=out, settings=settings, seed=2, **more)


@pytest.fixture(scope="module")
def trained(rings, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("deflect") / "anomaly"
    with drawn():
        run(rings, out)
    return out


def test_perturbed_lenses_are_found_though_none_was_seen(trained, rings, tmp_path):
    card = read_card(trained)
    assert card.metrics["validation"]["auc"] > 0.9 and card.outputs.logit
    report = evaluate_models([trained], rings, tmp_path / "report", ReportSettings()).record
    assert report["models"][0]["metrics"]["per_class"]["perturbed"]["auc"] > 0.9
    assert np.array(pq.read_table(tmp_path / "report" / "scores.parquet")["error"]).min() >= 0


def test_with_a_broken_loss_they_are_like_the_rest(rings, tmp_path, monkeypatch):
    monkeypatch.setattr(deflect, "plain_or_bent", lambda logits, batch: 0 * logits.sum())
    once = {"optim": SETTINGS["optim"] | {"epochs": 1}, "sampling": {"batch_size": 32, "steps_per_epoch": 4}}
    assert run(rings, tmp_path / "out", tables=once).metrics["validation"]["auc"] < 0.8


def test_killed_and_resumed_it_ends_with_the_same_bits(rings, trained, tmp_path):
    def kill(epoch, step, history):
        if (epoch, step) == (1, 3):
            raise KilledError

    with pytest.raises(KilledError):
        run(rings, tmp_path / "out", on_step=kill)
    run(rings, tmp_path / "out")
    whole, resumed = (load_file(f / "state.safetensors") for f in (trained, tmp_path / "out"))
    assert set(whole) == set(resumed)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_embedding_tells_kinds_of_bends_and_is_a_start(rings, tmp_path):
    tables = {"labels": {}, "embed": {"size": 8}}
    card = run(rings, tmp_path / "embed", "embed", tables=tables)
    told = pq.read_table(tmp_path / "embed" / "history.parquet")["val_loss"].to_pylist()
    assert told[-1] < 0.95  # 1.04 where nothing is told
    assert (card.outputs.method, card.outputs.size) == ("deflect", 8)
    job = make_job(
        rings,
        "small-cnn",
        "classify",
        tmp_path / "classes",
        TrainSettings.model_validate({"model": SETTINGS["model"]}),
        seed=1,
        pretrained=str(tmp_path / "embed" / "state.safetensors"),
    )
    module, loaded = fresh_network(job)
    weights = load_file(tmp_path / "embed" / "weights.safetensors")
    assert loaded and all(torch.equal(module.state_dict()[name], weights[name]) for name in loaded)


AT = np.arange(41) - 20.0
PIXEL = np.stack(np.meshgrid(AT, AT), axis=-1)


def test_an_embedding_with_a_broken_loss_tells_no_bends(rings, tmp_path, monkeypatch):
    monkeypatch.setattr(deflect, "told_apart", lambda logits, batch: 0 * logits.sum())
    once = {"optim": SETTINGS["optim"] | {"epochs": 1}, "sampling": {"batch_size": 32, "steps_per_epoch": 4}}
    run(rings, tmp_path / "out", "embed", tables=once | {"labels": {}, "embed": {"size": 8}})
    assert pq.read_table(tmp_path / "out" / "history.parquet")["val_loss"][-1].as_py() > 1.0


def test_light_comes_from_where_the_smooth_lens_shows_what_small_masses_show():
    place, square, ring = np.array([[[12.0, 3.0], [-7.0, 5.0]]]), np.array([[4e-3, 1e-3]]), 9.0
    was = comes_from(PIXEL, np.array([ring]), place, square)[0].astype(float)

    def source(x):
        return x - ring * x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6)

    apart = PIXEL[None] - place[0][:, None, None]
    bend = (square[0][:, None, None, None] * apart / ((apart**2).sum(-1, keepdims=True) + 0.25)).sum(0)
    radius = np.maximum(np.linalg.norm(PIXEL, axis=-1, keepdims=True), 1e-6)
    radial = (bend * PIXEL).sum(-1, keepdims=True) * PIXEL / radius**2
    stretch = 1 - ring / radius
    asked = radial + (bend - radial) * stretch**2 / (stretch**2 + DAMPING)  # all of it, but near the critical curve
    there = (radius > 2)[..., 0]
    np.testing.assert_allclose((source(PIXEL) - source(was))[there], asked[there], atol=2e-5)
    far = (np.abs(stretch) > 0.8)[..., 0] & there
    np.testing.assert_allclose((source(PIXEL) - source(was))[far], bend[far], rtol=0.1, atol=2e-5)
    assert np.abs(bend).max() > 2e-3


def test_without_masses_light_stays_where_it_is():
    place, none = np.ones((1, 12, 2)), np.zeros((1, 12))
    np.testing.assert_array_equal(comes_from(PIXEL, np.array([9.0]), place, none)[0], PIXEL)


def test_masses_lie_in_the_light_and_add_up_to_the_radius():
    light = np.full((200, 41, 41), 1e-12)
    light[:, 18:23, 30:35] = 1.0
    kinds = np.arange(200) % 3
    rng = np.random.default_rng(1)
    place, square = masses(light.reshape(200, -1), PIXEL.reshape(-1, 2), kinds, rng, radius_px=(2.0, 3.0))
    radius = np.sqrt(square.sum(axis=1))
    assert (radius[kinds == PLAIN] == 0).all()
    assert (radius[kinds != PLAIN] > 2).all() and (radius[kinds != PLAIN] < 3).all()
    middle = np.array([12.0, 0.0])
    assert (np.abs(place[kinds == POINTS] - middle) <= 2).all()
    line = place[kinds == LINE]
    assert (np.abs(line.mean(axis=1) - middle) < 2.001).all()
    length = np.linalg.norm(line[:, -1] - line[:, 0], axis=1)
    assert length.min() > 0.15 * 40 - 1e-6 and length.max() < 0.5 * 40 + 1e-6
    number = (square[kinds == POINTS] > 0).sum(axis=1)
    assert number.min() == 1 and number.max() == 12


def test_a_plain_copy_is_the_stamp_moved_by_less_than_a_pixel_and_surface_brightness_is_kept():
    y, x = np.mgrid[:31, :31] - 15.0
    blob = torch.from_numpy(np.exp(-(x**2 + y**2) / 18)).float()[None, None].repeat(8, 1, 1, 1)
    plain = bent(blob, np.full(8, PLAIN), np.random.default_rng(2), radius_px=(1.0, 3.0), noise=(0.0,))
    assert not torch.equal(plain, blob)
    torch.testing.assert_close(plain.amax((1, 2, 3)), torch.ones(8), atol=0.03, rtol=0)
    light = plain[:, 0] / plain[:, 0].sum((1, 2), keepdim=True)
    centre = torch.stack([(light * torch.from_numpy(a).float()).sum((1, 2)) for a in (x, y)], 1)
    assert (centre.abs() < 0.55).all() and centre.abs().max() > 0.2
    other = bent(blob, np.full(8, LINE), np.random.default_rng(2), radius_px=(1.0, 3.0), noise=(0.0,))
    assert (other - plain).abs().amax((1, 2, 3)).min() > 0.02


def test_far_from_arcs_noise_tells_nothing_of_the_bending():
    rng, n, side = np.random.default_rng(5), 300, 64
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    away = np.hypot(x, y)
    arcs = 10 * np.exp(-((away - 9) ** 2) / 4.5) * (1 + 0.6 * np.cos(np.arctan2(y, x)))
    sky = torch.from_numpy((arcs + rng.normal(0, 1, (n, 1, side, side))).astype(np.float32))
    kinds = np.where(np.arange(n) % 2, LINE, POINTS)
    plain, other = (
        bent(sky, kind, rng, radius_px=(1.0, 6.0), noise=(1.0,))[:, 0].numpy() for kind in (np.full(n, PLAIN), kinds)
    )
    far = away[4:-4, 4:-4].reshape(7, 8, 7, 8).min((1, 3)) > 18

    def patchiness(copies):
        return copies[:, 4:-4, 4:-4].reshape(n, 7, 8, 7, 8).std((2, 4))[:, far].std(1)

    auc = (patchiness(other)[:, None] > patchiness(plain)).mean()
    assert 0.4 < auc < 0.6  # .74 with the bending everywhere
    moved = np.abs(other - plain)[:, away < 12].std(1) / np.abs(other - plain)[:, away > 20].std(1)
    assert np.median(moved) > 1.5, "the arcs are bent"


def test_light_is_seen_above_the_noise_alone():
    sky = torch.from_numpy(np.random.default_rng(6).normal(0, 1, (50, 2, 41, 41)).astype(np.float32))
    assert (lit(sky, (1.0, 1.0), sigma_px=2.0) > 0).float().mean() < 1e-3
    assert (lit(sky, (0.1, 0.1), sigma_px=2.0) > 0).float().mean() > 0.1
    sky[:, :, 20, 20] += 100
    part = lit(sky, (1.0, 1.0), sigma_px=2.0)
    assert (part[:, 18:23, 18:23] > 0.99).all() and part.max() <= 1


def test_a_row_of_the_study_says_how_stamps_were_bent_seen_and_what_it_started_from(trained, rings, tmp_path):
    once = {"optim": SETTINGS["optim"] | {"epochs": 1}, "sampling": {"batch_size": 32, "steps_per_epoch": 2}}
    weights = trained / "state.safetensors"
    run(rings, tmp_path / "next", tables=once | {"deflect": None}, pretrained=str(weights))
    first, then = judged_rows([trained, tmp_path / "next"], StampSet.open(rings), "test")
    assert first["deflect.radius_arcsec"] == [0.2, 0.6] and then["deflect.radius_arcsec"] == [0.1, 0.6]
    assert first["augment.noise"] == [0.3, 0.5] and first["augment.dihedral"] is True
    assert first["pretrained"] is None and first["pretrained_sha256"] is None
    assert then["pretrained"] == "state.safetensors"
    assert then["pretrained_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    write(tmp_path / "rows", [first, then])
    assert pq.read_table(tmp_path / "rows.parquet")["deflect.radius_arcsec"][0].as_py() == "[0.2, 0.6]"


def test_what_does_not_go_with_it_is_refused(rings, tmp_path):
    with pytest.raises(ModelError, match="takes a network that finds, such as small-cnn"):
        run(rings, tmp_path / "x", model="ae", tables={"model": {}})
    with pytest.raises(ModelError, match=r"takes a network that finds, such as small-cnn .*Outlier"):
        run(rings, tmp_path / "x", model="outlier", tables={"model": {}})
    with pytest.raises(ConfigError, match=r"deflect takes the image alone: leave out input\.features"):
        run(rings, tmp_path / "x", tables={"input": {"features": ["seed"]}})
    with pytest.raises(ConfigError, match="rebuild takes the image alone"):
        run(
            rings, tmp_path / "x", model="ae", tables={"method": None, "deflect": None, "input": {"features": ["seed"]}}
        )
    with pytest.raises(ModelError, match="gives another shape than its card"):
        run(rings, tmp_path / "x", "embed", model="outlier", tables={"model": {}, "labels": {}})
    with pytest.raises(ConfigError, match="the table deflect belongs to the method deflect"):
        run(rings, tmp_path / "x", "embed", tables={"method": "simclr", "labels": {}, "deflect": {}})
    with pytest.raises(ValueError, match="a range of positive radii"):
        TrainSettings.model_validate({"deflect": {"radius_arcsec": [0.5, 0.2]}})
    assert "deflect" not in TrainSettings().model_dump(mode="json"), "requests of before stay the same"
