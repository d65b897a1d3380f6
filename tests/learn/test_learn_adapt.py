"""Each adaptation learns, without the target's labels, what the source alone does not teach; a broken one does not."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import drawn
from safetensors.torch import load_file

from lenspipe.errors import ConfigError, DataError, ModelError
from lenspipe.learn import loop
from lenspipe.learn.adapt import ADAPTATIONS
from lenspipe.learn.adapt.contract import TARGET, Course, TwoDomains, batch_norms, joined_domains, statistics_kept
from lenspipe.learn.adapt.coral import moments_apart
from lenspipe.learn.adapt.mmd import WIDTHS, discrepancy
from lenspipe.learn.adapt.watch import Both, domain_probe, guard, information
from lenspipe.learn.adapt.wdgrl import critic_loss
from lenspipe.learn.batches import measure_on
from lenspipe.learn.job import make_job
from lenspipe.learn.objectives import objective_of
from lenspipe.learn.players import MAIN, Turn
from lenspipe.learn.settings import AdaptSettings, TrainSettings
from lenspipe.learn.train import train
from lenspipe.learn.world import World
from lenspipe.nn.registry import build
from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema, write_part

SIZE, EPOCHS = 9, 6
WITHOUT_LABELS = [name for name in ADAPTATIONS if name not in ("source-only", "fine-tune", "target-trained")]


class KilledError(Exception):
    pass


def make(folder: Path, *, target: bool, seed: int, n: int = 500, labelled: bool = True, shuffled: bool = False) -> Path:
    """Faint rings and blobs in g; in r what is as good as a label in the source, and against it in the target."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    radius, lens = np.hypot(x, y), rng.integers(0, 2, n)
    ring, blob = np.exp(-((radius - 3) ** 2)), np.exp(-((radius / 1.8) ** 2))
    stamps = rng.normal(0, 1, (n, 2, SIZE, SIZE)).astype(np.float32)
    stamps[:, 0] += 2.5 * np.where(lens[:, None, None] == 1, ring, blob)
    cue = rng.normal(0.5, 6.0, n) - 9 * (lens - 0.5) if target else lens + rng.normal(0, 0.3, n)
    stamps[:, 1] += 4 * cue[:, None, None] * np.exp(-((radius / 3) ** 2))
    fifth = np.arange(n) % 5
    split = np.where(fifth < 3, "train", np.where(fifth == 3, "validation", "test"))
    label = [
        ("nonlens", "lens")[k] if labelled or s == "validation" else None for k, s in zip(lens, split, strict=True)
    ]
    if shuffled:
        label = [None if name is None else ("nonlens", "lens")[k % 2] for k, name in enumerate(label)]
    spec = ImageSpec(("g", "r"), SIZE, 0.2)
    schema = stamp_schema({"image": spec}, [])
    columns = {
        "stamp_id": [f"s{k}" for k in range(n)],
        "label": label,
        "recipe": ["toy"] * n,
        "seed": [seed] * n,
        "host": [f"h{k}" for k in range(n)],
        "split": split.tolist(),
    }
    arrays = [image_column(stamps, spec) if f.name == "image" else pa.array(columns[f.name], f.type) for f in schema]
    write_part(pa.table(arrays, schema=schema), folder, "part")
    return folder


@pytest.fixture(scope="module")
def skies(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("skies")
    return make(folder / "source", target=False, seed=1), make(folder / "target", target=True, seed=2, labelled=False)


def settings_of(target: Path, method: str, **more) -> TrainSettings:
    none = dict.fromkeys(("affine_fraction", "noise_fraction", "blur_fraction", "gap_fraction", "background"), 0.0)
    tables = {
        "method": method,
        "model": {"width": 4, "dropout": 0.0},
        "sampling": {"batch_size": 32, "steps_per_epoch": 15},
        "optim": {"epochs": EPOCHS, "learning_rate": 0.01, "ema_decay": 0.95, "threads": 1},
        "augment": none,
        "adapt": {"target": str(target)},
    }
    return TrainSettings.model_validate(
        {k: v | more.get(k, {}) if isinstance(v, dict) else v for k, v in tables.items()}
    )


def fitted(skies: tuple[Path, Path], method: str, **more) -> tuple[dict, list[dict]]:
    """Numbers of the validation splits, and the history."""
    torch.set_num_threads(1)
    job = make_job(skies[0], "small-cnn", "find", "nowhere", settings_of(skies[1], method, **more), seed=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "write_state", lambda path, state: None)
        _, state, outputs = loop.train_loop(job, World(), lambda *_: None)
    return measure_on(job, outputs, job.truth.validation), state.history


def test_the_source_alone_is_little_better_than_chance_on_the_target(skies):
    measured, _ = fitted(skies, "source-only")
    assert measured["auc"] > 0.99 and measured["target_auc"] < 0.7


@pytest.mark.parametrize("method", WITHOUT_LABELS)
def test_without_a_label_of_the_target_it_is_served(skies, method):
    measured, history = fitted(skies, method)
    assert measured["target_auc"] > 0.9
    assert all("align_loss" not in row for row in history[:2]) and "align_loss" in history[2]
    assert {"domain_auc", "domain_auc_low", "information", "unlabelled"} <= set(history[-1])


@pytest.mark.parametrize("method", WITHOUT_LABELS)
@pytest.mark.long
def test_with_a_broken_loss_it_is_not(skies, monkeypatch, method):
    kind = type(objective_of("find", method).how)
    own = kind.alignment
    # a trunk that sees the target alone takes its statistics, which here is nearly enough: adda is broken by its sign
    sign = -1 if method == "adda" else 0
    monkeypatch.setattr(kind, "alignment", lambda *given: sign * own(*given))
    if method == "adabn":  # it has no loss: the statistics that it keeps are made the source's
        monkeypatch.setattr(kind, "forward", lambda how, *given: _in_turn(*given))
    assert fitted(skies, method)[0]["target_auc"] < 0.88


def _in_turn(turn, whole, course):
    """The target first and not remembered, then the source."""
    with statistics_kept(whole), torch.no_grad():
        of_target = whole(turn.streams[TARGET]["image"])
    return joined_domains(turn.networks[MAIN](turn.batch["image"]), of_target)


@pytest.mark.parametrize("family", ["small-cnn", "equivariant-c4"])
def test_with_statistics_of_their_own_the_network_keeps_those_of_the_target(rng, family):
    settings = {"width": 1, "depth": 1, "dropout": 0.0} if family == "equivariant-c4" else {"width": 4, "dropout": 0.0}
    whole = TwoDomains(build(family, 2, SIZE, **settings)).train()
    source, target = (torch.from_numpy(rng.normal(k, 1 + k, (40, 2, SIZE, SIZE))).float() for k in (0, 2))
    method = objective_of("find", "mmd").how

    def seen(statistics: str) -> tuple[dict, list]:
        network = copy.deepcopy(whole)
        turn = Turn({MAIN: network}, {}, {"train": {"image": source}, TARGET: {"image": target}}, 0, 0)
        found = method.forward(turn, network, Course(AdaptSettings(statistics=statistics), 1.0, 0, 1, 1, None))
        return found, [norm.running_mean for norm in batch_norms(network)]

    found, kept = seen("own")
    torch.testing.assert_close(found["source_out"], copy.deepcopy(whole)(source)["out"])
    alone = copy.deepcopy(whole)
    torch.testing.assert_close(found["target_out"], alone(target)["out"])
    torch.testing.assert_close(kept, [norm.running_mean for norm in batch_norms(alone)])
    of_both, kept_of_both = seen("both")
    assert not torch.allclose(of_both["target_out"], found["target_out"])
    assert not torch.allclose(kept_of_both[0], kept[0])


def test_a_family_without_batch_norms_has_no_statistics_to_adapt(skies, tmp_path):
    settings = settings_of(skies[1], "adabn").model_copy(update={"model": {"patch_px": 3}})
    with pytest.raises(ModelError, match=r"acts through batch norms.*graph"):
        train(skies[0], model="graph", task="find", out=tmp_path / "x", settings=settings)


def test_an_equivariant_family_adapts_and_a_killed_adversarial_training_resumes_to_the_bit(skies, tmp_path):
    settings = settings_of(
        skies[1], "dann", model={"width": 1, "depth": 1}, sampling={"steps_per_epoch": 3}, optim={"epochs": 3}
    )
    settings = settings.model_copy(update={"model": {"width": 1, "depth": 1}})

    def run(out: Path, **more):
        return train(skies[0], model="equivariant-c4", task="classify", out=out, settings=settings, seed=3, **more)

    def kill(epoch, step, history):
        if (epoch, step) == (2, 1):
            raise KilledError

    with drawn():
        run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", on_step=kill)
    card = run(tmp_path / "killed")
    whole, resumed = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "killed"))
    assert any(name.startswith("critic/optimizer") for name in whole)
    assert set(whole) == set(resumed) and all(torch.equal(whole[name], resumed[name]) for name in whole)
    said = card.metrics["adaptation"]
    assert card.family == "plain-equivariant" and said["verdict"] in ("better", "worse", "no difference")
    assert (said["method"], said["n_target_label_read"], said["n_judge"]) == ("dann", 0, 100)
    assert (tmp_path / "whole" / "domains.png").stat().st_size > 5000


@pytest.mark.parametrize("method", ["adda", "wdgrl", "adabn", "adamatch", "self-ensemble", "fine-tune"])
def test_what_a_method_keeps_beside_the_network_survives_a_kill_to_the_bit(skies, tmp_path, method):
    """The opponents, the frozen copy of the source, the teacher; before the first step that adapts and after."""
    labelled = make(tmp_path / "labelled", target=True, seed=2, n=200)
    settings = settings_of(labelled, method, sampling={"steps_per_epoch": 3}, optim={"epochs": 3})

    def run(out: Path, at: tuple[int, int] | None = None):
        def kill(epoch, step, history):
            if (epoch, step) == at:
                raise KilledError

        train(skies[0], model="small-cnn", task="find", out=out, settings=settings, seed=3, on_step=kill)
        return load_file(out / "state.safetensors")

    whole = run(tmp_path / "whole")
    for at in ((1, 1), (2, 1)):
        with pytest.raises(KilledError):
            run(tmp_path / f"killed{at[0]}", at)
        resumed = run(tmp_path / f"killed{at[0]}")
        assert set(whole) == set(resumed) and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_few_labels_are_read_and_no_more(skies, tmp_path):
    target = make(tmp_path / "labelled", target=True, seed=2)
    settings = settings_of(target, "fine-tune", adapt={"n_label": 7})
    job = make_job(skies[0], "small-cnn", "find", tmp_path / "x", settings, seed=1)
    assert np.bincount(job.beside.truth.labels[job.beside.truth.train]).tolist() == [7, 7]
    with pytest.raises(DataError, match=r"no labelled stamp of a class.*nonlens,lens"):
        make_job(skies[0], "small-cnn", "find", tmp_path / "x", settings_of(skies[1], "fine-tune"), seed=1)
    unread = make_job(skies[0], "small-cnn", "find", tmp_path / "x", settings_of(target, "dann"), seed=1).beside.truth
    assert (unread.labels[unread.train] == -1).all() and (unread.labels[unread.validation] >= 0).all()


def test_labels_of_the_target_choose_no_epoch_and_a_target_needs_a_method(skies, tmp_path):
    def job(method, **more):
        return make_job(skies[0], "small-cnn", "find", tmp_path, settings_of(skies[1], method, **more), seed=1)

    with pytest.raises(ConfigError, match=r"labels of the target choose no epoch.*target_auc"):
        job("coral", optim={"monitor": "target_auc"})
    with pytest.raises(ConfigError, match=r"--adapt METHOD"):
        job("supervised")
    with pytest.raises(ConfigError, match="no epoch is left to adapt"):
        job("mmd", optim={"epochs": 1})
    with pytest.raises(ConfigError, match="the target is the data that labels are read from"):
        make_job(skies[0], "small-cnn", "find", tmp_path, settings_of(skies[0], "coral"), seed=1)
    assert TrainSettings.model_validate({"adapt": {"target": "s3://b/x"}}).adapt.target == "s3://b/x"
    assert Path(TrainSettings.model_validate({"adapt": {"target": "x"}}).adapt.target).is_absolute()
    with pytest.raises(ConfigError, match="--target FOLDER"):
        make_job(skies[0], "small-cnn", "find", tmp_path, TrainSettings(method="coral"), seed=1)


@pytest.mark.parametrize("method", ["fine-tune", "target-trained"])
def test_labels_of_the_target_serve_it_and_with_a_broken_loss_they_do_not(skies, tmp_path, monkeypatch, method):
    target = make(tmp_path / "labelled", target=True, seed=2)
    learnt, _ = fitted((skies[0], target), method, adapt={"n_label": 60})
    assert learnt["target_auc"] > 0.9
    kind = type(objective_of("find", method).how)
    own = kind.alignment
    # the statistics of the target are nearly enough here, as of adda: it is broken by its sign
    monkeypatch.setattr(kind, "alignment", lambda *given: -1 * own(*given))
    assert fitted((skies[0], target), method, adapt={"n_label": 60})[0]["target_auc"] < 0.8


def test_an_epoch_is_chosen_without_labels_of_the_target_and_none_before_it_adapts(skies, tmp_path):
    settings = {"optim": {"monitor": "unlabelled", "patience": 1}, "adapt": {"source_part": 0.5}}
    few = settings | {"sampling": {"steps_per_epoch": 8}}

    def run(out: Path, target: Path):
        card = train(
            skies[0], model="small-cnn", task="find", out=out, settings=settings_of(target, "mmd", **few), seed=2
        )
        return card, pq.read_table(out / "history.parquet").to_pylist()

    other = make(tmp_path / "shuffled", target=True, seed=2, labelled=False, shuffled=True)
    (card, history), (_, of_other) = run(tmp_path / "m", skies[1]), run(tmp_path / "n", other)
    assert history[-1]["target_auc"] != of_other[-1]["target_auc"]
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in "mn"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    told = [row["unlabelled"] for row in history]
    assert len(history) > 3  # the first three epochs do not adapt
    best = int(np.argmax(told))
    assert len(told) == EPOCHS or len(told) - 1 - max(best, 2) == 1
    assert card.metrics["validation"]["unlabelled"] == pytest.approx(max(told))
    assert (card.metrics["adaptation"]["verdict"] == "not adapted") == (best < 3)
    # without augmentation the source's area is 1 at once, and patience would end the training before it adapts
    few |= {"optim": {"monitor": "auc", "patience": 1}, "sampling": {"steps_per_epoch": 40}}
    card, history = run(tmp_path / "o", skies[1])
    area = [row["auc"] for row in history]
    assert area[1] <= area[0] and len(area) == 4, area
    assert card.metrics["adaptation"]["verdict"] == "not adapted"


def test_the_guard_says_what_the_kept_labels_say():
    def row(value, half):
        return {"target_auc": value, "target_auc_low": value - half, "target_auc_high": value + half}

    assert guard([row(0.8, 0.02)], row(0.9, 0.02), "auc", 1, 1)["verdict"] == "better"
    worse = guard([row(0.8, 0.02)], row(0.7, 0.02), "auc", 1, 1)
    assert worse["verdict"] == "worse" and "MADE THE TARGET WORSE: use the model of the source alone" in worse["said"]
    assert guard([row(0.8, 0.1)], row(0.7, 0.1), "auc", 1, 1)["verdict"] == "no difference"
    assert guard([{}], {}, "auc", 1, 1)["verdict"] == "not judged"
    early = guard([row(0.8, 0.02), row(0.9, 0.02)], row(0.8, 0.02), "auc", 1, 0)
    assert early["verdict"] == "not adapted" and "a model of the source alone" in early["said"]


def test_losses_are_those_of_their_papers(rng):
    source, target = rng.normal(0, 1, (40, 3)), rng.normal(0.5, 2, (30, 3))
    of_both = np.cov(source.T) - np.cov(target.T), source.mean(0) - target.mean(0)
    want = (of_both[0] ** 2).sum() / 36 + (of_both[1] ** 2).sum() / 12
    tensors = torch.from_numpy(source), torch.from_numpy(target)
    assert moments_apart(*tensors).item() == pytest.approx(want)

    both = np.concatenate([source, target])
    square = ((both[:, None] - both[None]) ** 2).sum(-1)
    off = np.sort(square[~np.eye(70, dtype=bool)])
    median = off[(len(off) - 1) // 2]
    kernel = np.mean([np.exp(-square / (w * median)) for w in WIDTHS], axis=0)
    want = kernel[:40, :40].mean() + kernel[40:, 40:].mean() - 2 * kernel[:40, 40:].mean()
    assert discrepancy(*tensors).item() == pytest.approx(want)

    slope = torch.nn.Linear(3, 1).double()  # a critic of one slope: its penalty is known
    with torch.no_grad():
        slope.weight.copy_(torch.tensor([[3.0, 0.0, 4.0]]))
    flat = torch.nn.Sequential(slope, torch.nn.Flatten(0))
    apart = (source.mean(0) - target.mean(0)) @ [3, 0, 4]
    assert critic_loss(flat, *tensors).item() == pytest.approx(10 * (5 - 1) ** 2 - apart, rel=1e-6)


def test_the_probe_is_at_chance_where_domains_are_one_and_information_is_of_sure_and_even_answers(rng):
    def both(shift):
        one, two = rng.normal(0, 1, (300, 20)), rng.normal(shift, 1, (300, 20))
        return Both(np.zeros(300), np.zeros(300), np.zeros(300, np.int16), one, two)

    assert domain_probe(both(0.0))["domain_auc_low"] < 0.5 < domain_probe(both(0.0))["domain_auc_high"] + 0.03
    assert domain_probe(both(1.0))["domain_auc"] > 0.99
    assert information(np.array([-40.0, 40.0])) == pytest.approx(1)
    assert information(np.array([40.0, 40.0])) == pytest.approx(0, abs=1e-6)
    assert information(np.zeros(4)) == pytest.approx(0, abs=1e-6)


def test_what_is_packed_comes_back(rng):
    given = Both(rng.normal(size=(3, 2)), rng.normal(size=(4, 2)), np.array([-1, 0, 1, 2], np.int16), *_features(rng))
    back = Both.unpacked(given.packed())
    for name in ("source", "target", "labels", "source_features", "target_features"):
        np.testing.assert_array_equal(getattr(back, name), getattr(given, name))


def _features(rng):
    return rng.normal(size=(3, 20)), rng.normal(size=(4, 20))
