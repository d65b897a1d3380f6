# Pairs of exposures have the noise that their exposure times say, and a fit on them takes noise off.

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from astropy.wcs import WCS
from click.testing import CliRunner
from pictures import drawn
from scipy import ndimage
from sky import gaussian_sources, tan_wcs
from torch import nn

from lenspipe.cli import group
from lenspipe.errors import ConfigError, DataError
from lenspipe.infer.denoise import Denoiser
from lenspipe.learn.denoise.colour import WHITE, coloured_noise, noise_correlation, resampled_correlation
from lenspipe.learn.denoise.frames import frame_skies, resample
from lenspipe.learn.denoise.losses import LOSSES
from lenspipe.learn.denoise.pairs import Sky, draw_pair, exposure_pair, noisier_image, pair_batch, random_skies
from lenspipe.learn.denoise.skies import cutout_skies, real_sky
from lenspipe.learn.denoise.train import train_on_skies
from lenspipe.learn.job import make_job
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.world import World
from lenspipe.runner import SILENT, Silent
from lenspipe.stamps.format import write_part
from lenspipe.stamps.spec import ImageSpec, image_column, stamp_schema
from lenspipe.toml import put_over


@pytest.mark.parametrize("ratio", [1.5, 4.0])
def test_a_deep_exposure_has_the_variance_of_the_short_one_over_the_ratio(rng, ratio):
    model = np.stack([np.zeros((400, 400)), np.full((400, 400), 2000.0)])
    short, deep = exposure_pair(model, sky_rms_njy=[10, 20], njy_per_electron=[0.4, 0.4], ratio=ratio, rng=rng)
    variance = np.array([100.0, 400.0 + 0.4 * 2000])
    # the variance of a variance of 160,000 pixels is known to 0.35 %
    np.testing.assert_allclose((short - model).var(axis=(1, 2)), variance, rtol=0.02)
    np.testing.assert_allclose((deep - model).var(axis=(1, 2)), variance / ratio, rtol=0.02)
    shared = ((short - model) * (deep - model)).mean(axis=(1, 2))
    np.testing.assert_allclose(shared, variance / ratio, rtol=0.03)


def test_a_real_image_is_made_noisier_by_what_the_shorter_exposure_would_have(rng):
    image = np.stack([np.zeros((400, 400)), np.full((400, 400), 1000.0)]).astype(np.float32)
    short = noisier_image(image, sky_rms_njy=[10, 20], njy_per_electron=[0.4, 0.4], ratio=3.0, rng=rng)
    np.testing.assert_allclose((short - image).var(axis=(1, 2)), [200.0, 2 * (400 + 400)], rtol=0.02)


def test_a_simulated_deep_exposure_is_on_average_the_one_that_a_fit_is_held_to(rng):
    model = np.array([[[0.0, 300.0]]]) * np.ones((1, 120, 2))
    sky = Sky("model", np.repeat(model, 60, axis=2).astype(np.float32), np.array([10.0]), np.array([0.4]))
    apart = []
    for seed in range(20):
        drawn, expected = (
            draw_pair(sky, 3.0, np.random.default_rng(seed), size_px=120, drawn=drawn) for drawn in (True, False)
        )
        np.testing.assert_array_equal(drawn[0], expected[0])
        np.testing.assert_allclose(expected[1], drawn[0] / 3 + sky.image_njy * 2 / 3, atol=1e-3)
        apart.append((drawn[1] - expected[1]) / drawn[2])
    # the rest is 2 / 3 of the deep exposure, with half of the variance; photons add 1.2 to it in every other pixel
    spread = 2 / 3 * (1.6 / 2) ** 0.5
    assert np.std(apart) == pytest.approx(spread, rel=0.02)
    assert abs(np.mean(apart)) < 5 * 1.6 * spread / (20 * 120 * 120) ** 0.5  # smoothed noise varies more on average


@pytest.mark.parametrize("tap", [-0.08, 0.0, 0.15])
def test_noise_has_the_correlation_that_was_asked_for_and_it_is_measured_beside_sources(rng, tap):
    want = resampled_correlation(tap)
    kernel = np.outer(*2 * [[tap, 1, tap]])
    filtered = ndimage.convolve(rng.normal(size=(500, 500)), kernel / np.sqrt((kernel**2).sum()), mode="wrap")
    image = coloured_noise((1, 500, 500), want, rng)
    assert image.std() == pytest.approx(1, abs=0.01)
    for noise in (filtered[None], image):
        np.testing.assert_allclose(noise_correlation([noise], [[1.0]]), want, atol=0.015)
    x, y = rng.uniform(10, 490, (2, 60))
    sources = gaussian_sources((500, 500), x, y, np.full(60, 3000.0), fwhm_px=5.0)
    np.testing.assert_allclose(noise_correlation([image + sources], [[1.0]]), want, atol=0.02)


def test_too_little_empty_sky_says_nothing_of_correlation(rng):
    assert np.array_equal(noise_correlation([rng.normal(size=(1, 20, 20))], [[1.0]]), WHITE)


def test_an_image_made_noisier_keeps_the_spectrum_of_its_noise(rng):
    colour = resampled_correlation(0.15)
    image = coloured_noise((1, 400, 400), colour, rng)
    short = noisier_image(image, sky_rms_njy=[1.0], njy_per_electron=None, ratio=4.0, rng=rng, correlation=colour)
    np.testing.assert_allclose(noise_correlation([short], [[2.0]]), colour, atol=0.02)
    assert short.std() == pytest.approx(2, rel=0.01)


def test_a_batch_is_the_same_again_and_in_units_of_the_noise(rng):
    sky = Sky("image", rng.normal(0, 5, (2, 90, 90)).astype(np.float32), np.array([5.0, 5.0]))

    def draw(seed):
        generator = np.random.default_rng(seed)
        return pair_batch(random_skies([sky], 6, generator), generator, ratios=(2.0, 4.0), size_px=32)

    batch, again, other = draw(3), draw(3), draw(4)
    assert all(np.array_equal(batch[name], again[name]) for name in batch)
    assert not np.array_equal(batch["image"], other["image"])
    assert batch["image"].shape == (6, 3, 32, 32)
    np.testing.assert_allclose(batch["image"][:, :2].std(), 1.0, atol=0.08)
    ratio = batch["image"][:, 2, 0, 0]
    np.testing.assert_allclose(batch["gain"][:, 0, 0, 0], 1 - 1 / ratio, rtol=1e-6)
    np.testing.assert_allclose(batch["target"].std(axis=(1, 2, 3)), ratio**-0.5, rtol=0.15)


def test_skies_are_drawn_alike(rng):
    skies = [Sky("image", np.zeros((1, 9, 9), np.float32), np.array([float(k)])) for k in range(4)]
    drawn = [float(sky.sky_rms_njy[0]) for sky in random_skies(skies, 400, rng)]
    assert len(drawn) == 400
    # 5 sigma of a binomial number of 400 at 1 in 4
    assert all(abs(drawn.count(k) - 100) < 5 * 75**0.5 for k in range(4))


def test_a_sky_full_of_holes_is_refused(rng):
    holes = np.where(np.arange(40) % 10 == 0, np.nan, 1.0).astype(np.float32)
    with pytest.raises(DataError, match="without missing pixels"):
        draw_pair(Sky("image", np.tile(holes, (1, 40, 1)), np.ones(1)), 2.0, rng, size_px=16)


def test_frames_come_to_one_grid_and_bad_pixels_out(rng):
    """The same sky through shifted WCS; a hot pixel in one frame is no data there."""
    shape, frames = (96, 96), []
    for k, (dx, dy) in enumerate([(0.0, 0.0), (3.4, -1.7), (-2.2, 4.6)]):
        x, y = np.array([30.0, 62.3, 48.1]) + dx, np.array([40.0, 33.2, 66.8]) + dy
        image = gaussian_sources(shape, x, y, np.array([5000.0, 8000.0, 3000.0]), fwhm_px=5.0)
        wcs: WCS = tan_wcs(shape)
        wcs.wcs.crpix += dx, dy
        frames.append(((image + rng.normal(0, 1.0, shape)).astype(np.float32), wcs))
        if k == 0:
            frames[0][0][10, 12] = 1e5
    skies = frame_skies(frames)
    first = skies[0]
    assert first.n_rest == 2
    assert np.isnan(first.image_njy[0, 10, 12])
    both = np.isfinite(first.image_njy[0]) & np.isfinite(first.rest_njy[0])
    assert both.mean() > 0.75
    apart = (first.image_njy[0] - first.rest_njy[0])[both]
    assert 0.9 < apart.std() < 1.5  # 1 from the frame and about 0.6 from the mean of the two others, resampled
    with pytest.raises(DataError, match="at least two"):
        frame_skies(frames[:1])


def test_resampling_keeps_flux_and_says_where_there_is_nothing(rng):
    shape = (80, 80)
    image = gaussian_sources(shape, np.array([38.3]), np.array([41.1]), np.array([1000.0]), fwhm_px=5.0)
    to = tan_wcs(shape)
    to.wcs.crpix += 5.5, -3.25
    moved = resample(image.astype(np.float32), tan_wcs(shape), to, shape)
    assert np.isnan(moved[:, 0]).all() and np.isnan(moved[-1]).all()
    assert np.nansum(moved) == pytest.approx(1000.0, rel=1e-3)


SETTINGS = {
    "model": {"width": 6},
    "sampling": {"batch_size": 8, "steps_per_epoch": 20},
    "optim": {"epochs": 2, "learning_rate": 2e-3, "weight_decay": 1e-3, "ema_decay": 0.995, "threads": 1},
    "denoise": {"ratios": [1.5, 8.0], "patch_px": 32},
}


@pytest.fixture(scope="module")
def sky():
    rng = np.random.default_rng(3)
    x, y = rng.uniform(10, 150, (2, 40))
    model = gaussian_sources((160, 160), x, y, rng.uniform(200, 3000, 40))[None].astype(np.float32)
    return Sky("model", model, np.array([5.0]), np.array([0.4]))


def fit_sky(sky, out, progress=SILENT, **tables):
    settings = TrainSettings.model_validate(SETTINGS | tables)
    kind = {"bands": ("r",), "pixel_scale_arcsec": 0.2, "model": "unet-small"}
    return train_on_skies([sky], [sky], out=out, settings=settings, seed=1, progress=progress, **kind)


@pytest.mark.parametrize("loss", ["huber", "l1"])
def test_a_fit_takes_noise_off(tmp_path, rng, sky, loss):
    with drawn():
        written = fit_sky(sky, tmp_path / "whole", loss={"name": loss})
    found = written.metrics["validation"]
    assert found["l1"] < 0.7 * found["l1_of_input"]
    assert found["noise_left"] == pytest.approx(found["l1"] / found["l1_of_input"])
    assert found["noise_left_low"] < found["noise_left"] < found["noise_left_high"] < 1
    assert found["val_loss"] == pytest.approx(found[loss])
    assert (tmp_path / "whole" / "noise_left.png").stat().st_size > 3000
    short = sky.image_njy[None] + rng.normal(0, 5, (1, 1, 160, 160))
    after = Denoiser(tmp_path / "whole").denoise(short, np.array([[[5.0]]]), ratio=8.0)
    assert np.std(after - sky.image_njy) < 0.6 * np.std(short - sky.image_njy)


def test_a_fit_on_skies_goes_on_where_it_was_cut_off(tmp_path, sky):
    class Cut(Silent):
        def say(self, message):
            raise KeyboardInterrupt  # after the first epoch's state was written

    few = SETTINGS["sampling"] | {"steps_per_epoch": 4}
    fit_sky(sky, tmp_path / "whole", sampling=few)
    with pytest.raises(KeyboardInterrupt):
        fit_sky(sky, tmp_path / "cut", sampling=few, progress=Cut())
    assert not (tmp_path / "cut" / "card.json").exists()
    other = replace(sky, image_njy=sky.image_njy + 1)
    with pytest.raises(ConfigError, match="another request; resume with the same skies"):
        fit_sky(other, tmp_path / "cut", sampling=few)
    fit_sky(sky, tmp_path / "cut", sampling=few)
    one, two = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == two


def test_frames_teach_a_denoiser_for_their_own_number(tmp_path, rng):
    image = rng.normal(0, 5, (1, 64, 64)).astype(np.float32)
    repeated = Sky("frames", image, np.array([5.0]), None, rng.normal(0, 3, (1, 64, 64)).astype(np.float32), 3)
    few = {"batch_size": 4, "steps_per_epoch": 2}
    card = fit_sky(repeated, tmp_path / "m", loss={"name": "noise2noise"}, sampling=few)
    assert card.outputs.exposure_ratios == (1.0, 4.0)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_least_where_the_deep_image_is_met(name):
    torch.manual_seed(0)
    target = torch.randn(2, 3, 16, 16) * 3
    batch = {"target": target, "gain": torch.full((2, 1, 1, 1), 0.5)}
    at, off = (float(LOSSES[name](target + d, batch)) for d in (0.0, 0.3 * torch.randn(2, 3, 16, 16)))
    assert at == pytest.approx(0, abs=1e-6)
    assert off > 0.01


def test_an_unknown_loss_is_named_with_those_that_there_are(sky, tmp_path):
    with pytest.raises(ConfigError, match="denoise takes huber or l1 or l2 or l1\\+kl or noise2noise"):
        fit_sky(sky, tmp_path, loss={"name": "bce"})


def test_the_noise_of_an_image_and_of_cutouts_is_measured(rng):
    image = rng.normal(100, 7, (1, 256, 256)).astype(np.float32)
    image[0, 3, 4] = np.nan
    sky = real_sky(image, name="a")
    assert sky.sky_rms_njy[0] == pytest.approx(7, rel=0.05)
    assert np.isnan(sky.image_njy[0, 3, 4])
    assert abs(np.nanmean(sky.image_njy)) < 1
    assert cutout_skies([np.nan_to_num(image, nan=100.0)])[0].sky_rms_njy[0] == pytest.approx(7, rel=0.05)


def noisy_stamps(folder, rng, *, sigma=10.0):
    """A data set of 24 stamps of a galaxy in two bands, 16 of them to train on."""
    n, spec = 24, ImageSpec(("g", "r"), 24, 0.2)
    stamps = rng.normal(3, sigma, (n, 2, 24, 24)) + gaussian_sources(
        (24, 24), np.array([12.0]), np.array([12.0]), np.array([200 * sigma])
    )
    table = {
        "stamp_id": [f"s{k}" for k in range(n)],
        "image": image_column(stamps.astype(np.float32), spec),
        "label": ["nonlens"] * n,
        "recipe": ["made"] * n,
        "seed": [0] * n,
        "host": [f"h{k}" for k in range(n)],
        "split": ["train"] * 16 + ["validation"] * 8,
    }
    write_part(pa.table(table, schema=stamp_schema({"image": spec})), folder, "part")
    return folder


def test_a_data_set_of_stamps_trains_a_denoiser_by_command(tmp_path, rng):
    data, out = noisy_stamps(tmp_path / "data", rng), tmp_path / "model"
    (tmp_path / "t.toml").write_text('[input]\nbands = ["r"]\n[denoise]\nratios = [1.5, 4.0]\n[optim]\nthreads = 1\n')
    options = {
        "--data": data,
        "--model": "unet-small",
        "--task": "denoise",
        "--out": out,
        "--config": tmp_path / "t.toml",
        "--epochs": 2,
        "--batch-size": 8,
        "--runner": "local",
    }
    arguments = [str(word) for pair in options.items() for word in pair]
    result = CliRunner().invoke(group, ["train", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    card = Denoiser(out).card
    assert (card.bands, card.outputs.exposure_ratios, card.training["steps"]) == (("r",), (1.5, 4.0), 4)
    assert card.training["n_train"] == {"stamps": 16} and card.metrics["validation"]["n"] == {"stamps": 8}
    assert {"loss.png", "noise_left.png", "history.parquet"} <= {path.name for path in out.iterdir()}


def test_pairs_of_stamps_are_noisier_by_their_ratio_and_checked_on_the_same_ones(tmp_path, rng):
    data = noisy_stamps(tmp_path / "data", rng)
    job = make_job(
        data, "unet-small", "denoise", "x", TrainSettings.model_validate({"sampling": {"batch_size": 8}}), seed=1
    )
    streams = job.objective.streams(job, World())
    first, again, second = (next(iter(streams["train"](epoch))) for epoch in (0, 0, 1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["image"], second["image"])
    added = (first["image"][:, :2] - first["target"]).var(axis=(1, 2, 3))
    ratio = first["image"][:, 2, 0, 0]
    np.testing.assert_allclose(added, 1 - 1 / ratio, rtol=0.25)  # in units of the short exposure's noise
    left = job.objective.outputs_on(job, Same(), job.truth.validation, World())
    some = job.objective.outputs_on(job, Same(), job.truth.validation[3:5], World())
    assert np.array_equal(left[3:5], some)
    assert len(set(left[:, 4])) == len(left), "every pair has a ratio of its own"
    ranks = (World(rank=rank, size=2) for rank in range(2))
    halves = [job.objective.outputs_on(job, Same(), job.truth.validation, world) for world in ranks]
    assert np.array_equal(np.concatenate(halves), left), "each pair is measured once, whoever measures it"
    np.testing.assert_array_equal(left[:, 0], left[:, 2])
    assert job.objective.measure(left, job.truth, job.truth.validation)["noise_left"] == 1.0


class Same(nn.Module):
    """A denoiser that does nothing."""

    def forward(self, images):
        return images[:, :-1]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"input": {"stretch": "log"}}, r"units of the noise: leave out.*input='stretch'"),
        ({"input": {"high_pass_px": 1.5, "smooth_residual": True}}, "leave out.*'smooth_residual,high_pass_px'"),
        ({"augment": {"dihedral": False}}, "turned, and nothing else: leave out the table augment"),
        ({"denoise": {"patch_px": 40}}, r"patch_px must not exceed the stamps.*got=40, stamps_px=24"),
        ({"labels": {"targets": ["z"]}}, "targets belong to the task regress"),
    ],
)
def test_settings_that_a_denoiser_has_no_use_for_are_refused(tmp_path, rng, tables, message):
    data = noisy_stamps(tmp_path / "data", rng)
    with pytest.raises(ConfigError, match=message):
        make_job(data, "unet-small", "denoise", "x", TrainSettings.model_validate(tables), seed=1)


def test_stamps_without_noise_are_refused_and_so_are_pairs_for_another_task(tmp_path, rng):
    data = noisy_stamps(tmp_path / "flat", rng, sigma=0.0)
    with pytest.raises(DataError, match="a stamp has no noise in a band"):
        make_job(data, "unet-small", "denoise", "x", TrainSettings(), seed=1)
    with pytest.raises(ConfigError, match="table denoise belongs to the task denoise"):
        make_job(data, "small-cnn", "find", "x", TrainSettings.model_validate({"denoise": {}}), seed=1)


def test_a_table_of_another_task_leaves_requests_as_they_were():
    assert "denoise" not in TrainSettings().model_dump(mode="json")
    assert put_over(TrainSettings(), {"denoise.drawn": True}, origin="--set").denoise.drawn
