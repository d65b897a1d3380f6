"""What is wrong with a request is said before any work; cards hold what the data are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lenspipe.cli.train import command
from lenspipe.errors import ConfigError, DataError, ModelError
from lenspipe.learn.card_of import noise_levels
from lenspipe.learn.job import make_job
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.learn.upon import weights_of
from lenspipe.nn.card import find_model
from lenspipe.nn.preprocess import network_input
from lenspipe.stamps.format import StampSet, image_array


def job(data, task="find", model="small-cnn", **tables):
    return make_job(data, model, task, "out", TrainSettings.model_validate(tables), seed=1)


def test_the_card_has_what_the_data_have(toy_stamps):
    card = job(toy_stamps).card
    assert (card.bands, card.pixel_scale_arcsec, card.stamp_px, card.task) == (("g", "r"), 0.2, 13, "find")
    # noise of 1 nJy a pixel of 0.04 square arcsec; rings reach into the frame of some stamps
    np.testing.assert_allclose(card.stretch.band_scales, 0.04, rtol=0.15)
    counts = card.training["n_train"]
    split, label = StampSet.open(toy_stamps).column("split"), StampSet.open(toy_stamps).column("label")
    assert counts["lens"] == ((split == "train") & (label == "lens")).sum()


def test_noise_is_measured_around_the_galaxy(rng):
    stamps = rng.normal(3.0, 2.0, (50, 1, 41, 41))
    stamps[:, :, 10:31, 10:31] += 500
    assert noise_levels(stamps, ("r",), 0.5)[0] == pytest.approx(8.0, rel=0.03)
    with pytest.raises(DataError, match=r"no noise.*band='r'"):
        noise_levels(np.zeros((3, 1, 9, 9)), ("r",), 0.5)


def test_channels_are_brought_to_one_spread(toy_stamps):
    shown = {"stretch": "sqrt", "high_pass_px": 1.0, "high_pass_beside": True, "channel_scales": "measured"}
    card = job(toy_stamps, input=shown).card
    data = StampSet.open(toy_stamps)
    stamps = data.read_images(split="train")
    spreads = network_input(stamps / 0.04, card.stretch).std(axis=(0, 2, 3))
    np.testing.assert_allclose(spreads, np.ones(4), rtol=0.1)
    bare = network_input(stamps / 0.04, card.stretch.model_copy(update={"channel_scales": None}))
    assert bare.std(axis=(0, 2, 3))[:2].min() > 1.5 * bare.std(axis=(0, 2, 3))[2:].max()  # they differed before
    assert card.n_channel == 4
    with pytest.raises(ConfigError, match="standardise scales each stamp"):
        job(toy_stamps, input={"standardise": True, "channel_scales": "measured"})


def test_classes_and_targets_go_to_the_card(toy_stamps):
    assert job(toy_stamps, "classify").card.outputs.classes == ("lens", "nonlens")
    card = job(toy_stamps, "regress", labels={"targets": ["theta_e_arcsec"], "uncertainty": "gaussian"}).card
    assert (card.outputs.targets, card.n_out) == (("theta_e_arcsec",), 2)
    data = StampSet.open(toy_stamps)
    theta = data.column("theta_e_arcsec").astype(float)[data.column("split") == "train"]
    assert card.outputs.target_means[0] == pytest.approx(np.nanmean(theta))
    assert card.outputs.target_spreads[0] == pytest.approx(np.nanstd(theta))


def test_part_of_the_training_split_keeps_the_classes(toy_stamps):
    whole, part = job(toy_stamps).truth, job(toy_stamps, sampling={"fraction": 0.25}).truth
    assert set(part.train) < set(whole.train)
    for name, n in whole.counts(whole.train).items():
        assert part.counts(part.train)[name] == round(n / 4)
    assert np.array_equal(part.validation, whole.validation)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"input": {"bands": ["g", "z"]}}, r"input\.bands: the stamps do not have these bands.*missing='z'"),
        ({"input": {"stamp_px": 12}}, r"input\.stamp_px.*odd where they are odd.*got=12, stamps_px=13"),
        ({"input": {"stamp_px": 15}}, r"must not exceed the stamps"),
        ({"input": {"pixel_scale_arcsec": 0.27}}, r"another pixel scale.*got=0\.2, want=0\.27"),
        ({"input": {"image": "image_vis"}}, r"no such image column.*known='image'"),
        ({"input": {"mix": [[1.0, 1.0, 1.0]]}}, r"do not make a model.*one weight a band"),
        ({"sampling": {"curriculum": "z_lens"}}, r"no such scalar column"),
        ({"labels": {"lens_labels": ["arc"]}}, r"needs lenses and others.*lens_labels='arc'"),
        ({"loss": {"name": "mse"}}, r"loss does not go with the task"),
        ({"labels": {"targets": ["mag"]}}, r"targets belong to the task regress"),
    ],
)
def test_a_request_that_does_not_fit_the_stamps_is_refused(toy_stamps, tables, message):
    with pytest.raises((ConfigError, DataError), match=message):
        job(toy_stamps, **tables)


def test_a_target_that_turns_with_the_stamp_is_not_augmented_away(stamp_maker, toy_stamps):
    tables = {"labels": {"targets": ["theta_e_arcsec", "angle_rad"]}}
    with pytest.raises(ConfigError, match=r"changes when its stamp is turned.*angle_rad"):
        job(toy_stamps, "regress", **tables)


def test_stamps_of_one_class_are_refused(stamp_maker, tmp_path):
    folder = stamp_maker(tmp_path / "one", 30, labels=("lens",))
    with pytest.raises(DataError, match=r"needs lenses and others.*labels='lens'"):
        job(folder)
    with pytest.raises(DataError, match="one class only"):
        job(folder, "classify")


def test_stamps_that_are_not_finite_are_refused_before_the_first_step(stamp_maker, tmp_path, monkeypatch):
    from lenspipe.learn import job as module

    monkeypatch.setattr(module, "read_rows", lambda *_: np.full((2, 2, 13, 13), np.nan, np.float32))
    with pytest.raises(DataError, match="no noise"):
        job(stamp_maker(tmp_path / "nan", 30))


def with_a_nan(folder, split):
    """One pixel of the last part made NaN, past `write_part`, which refuses it; the row of its stamp."""
    data = StampSet.open(folder)
    row, part = int(np.flatnonzero(data.column("split") == split)[-1]), data.parts[-1]
    table = pq.read_table(part)
    stamps = image_array(table, "image").copy()
    stamps[row - data.n, 1, 6, 7] = np.nan
    place, kind = table.schema.get_field_index("image"), table.schema.field("image")
    images = pa.FixedSizeListArray.from_arrays(pa.array(stamps.ravel()), type=kind.type)
    pq.write_table(table.set_column(place, kind, images), part)
    return row


def test_a_stamp_with_one_nan_is_refused_by_its_row(stamp_maker, tmp_path):
    folder = stamp_maker(tmp_path / "nan", 30)
    row = with_a_nan(folder, "train")
    with pytest.raises(DataError, match=rf"stamps must be finite.*n=1, first_row={row}\b"):
        job(folder)


def test_a_stamp_with_one_nan_that_the_noise_did_not_show_ends_the_training(stamp_maker, tmp_path):
    """Noise is measured on training stamps: one of validation is met when the epoch is measured."""
    folder = stamp_maker(tmp_path / "nan", 30)
    row = with_a_nan(folder, "validation")
    tables = {"sampling": {"batch_size": 4, "steps_per_epoch": 1}, "optim": {"epochs": 1, "threads": 1}}
    with pytest.raises(DataError, match=rf"stamps must be finite.*n=1, first_row={row}\b"):
        train(
            folder, model="small-cnn", task="find", out=tmp_path / "out", settings=TrainSettings.model_validate(tables)
        )
    assert not (tmp_path / "out" / "card.json").exists()


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("smal-cnn", {}, r"no such network family\. Did you mean 'small-cnn'\?"),
        ("timm:resnett18", {}, r"Did you mean resnet18"),
        ("small-cnn", {"model": {"widht": 3}}, r"settings that the family does not have.*widht"),
    ],
)
def test_a_network_that_does_not_exist_is_refused_and_the_folder_stays_free(
    toy_stamps, tmp_path, model, settings, message
):
    with pytest.raises(ModelError, match=message):
        train(toy_stamps, model=model, task="find", out=tmp_path / "out", settings=TrainSettings(**settings))
    assert not (tmp_path / "out").exists()


def test_a_pickle_offered_as_weights_is_refused(toy_stamps, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"\x80\x04.")
    for path, message in ((tmp_path / "weights.pth", "a pickle is never loaded"), (tmp_path / "no", "no such file")):
        with pytest.raises(ConfigError, match=message):
            train(
                toy_stamps,
                model="small-cnn",
                task="find",
                out=tmp_path / "out",
                settings=TrainSettings(),
                pretrained=str(path),
            )


def test_more_workers_than_cpus_are_refused_at_once(toy_stamps, tmp_path, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ask = ["--data", str(toy_stamps), "--model", "small-cnn", "--out", str(tmp_path / "out")]
    for more, message in (
        (["--workers", "5000"], r"more workers.*than this machine has CPUs.*workers=5000"),
        (["--workers", "2", "--runner", "local"], "plain loop is one worker"),
    ):
        with pytest.raises(ConfigError, match=message):
            command.main(ask + more, standalone_mode=False)
    assert not (tmp_path / "out").exists()


def test_pretrained_names_a_shipped_model_a_folder_or_a_file(tmp_path: Path) -> None:
    shipped = find_model("ground-gri")
    assert weights_of("ground-gri") == weights_of(str(shipped)) == str(shipped / "weights.safetensors")
    assert weights_of(str(tmp_path / "ground-gri")) == str(tmp_path / "ground-gri")
    assert weights_of("no-such-model") == "no-such-model" and weights_of(None) is None
