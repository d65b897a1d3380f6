import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lenspipe.errors import ModelError
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.infer.prepare import input_of
from lenspipe.learn.augment_batch import VIEWS_ONLY
from lenspipe.learn.device_input import device_input
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.card import Stretch, read_card
from lenspipe.nn.preprocess import network_input
from lenspipe.nn.smooth_lens import fit_smooth, smooth_residual
from lenspipe.simulate.instrument import gaussian_kernel
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.render import Grid, convolve, render, shoot_rays
from lenspipe.simulate.substructure import Subhalos
from lenspipe.stamps.format import StampSet
from tests.toy_stamps import make_stamps

GRID = Grid(56, 0.1, 3)
LENSES = [
    (1.2, 0.1, 0.3, 0.2, 0.1),
    (1.0, 0.03, 1.2, -0.3, 0.4),
    (1.5, 0.15, 2.5, 0.05, -0.1),
    (1.3, 0.08, 0.0, 0.4, 0.2),
]
"""Einstein radius, shear and its direction, place of the source."""
BLOB = Subhalos(np.array([0.9]), np.array([0.8]), np.array([0.15]), np.zeros(1))


def image(theta, shear, angle, x, y, *others):
    lens = MacroLens(theta_e_arcsec=theta, shear=shear, shear_angle_rad=angle)
    source = Component(Sersic(radius_arcsec=0.35, x_arcsec=x, y_arcsec=y), np.array([100.0]))
    sharp = render([source], shoot_rays([lens, *others], GRID), GRID, 1)
    return convolve(sharp, [gaussian_kernel(0.2, 0.1)])


@pytest.fixture(scope="module")
def smooth():
    return torch.tensor(np.stack([image(*lens) for lens in LENSES]), dtype=torch.float32)


@pytest.fixture(scope="module")
def fitted(smooth):
    return fit_smooth(smooth)


def test_einstein_radius_and_shear_are_found(fitted):
    theta, shear, angle, _, _ = np.array(LENSES).T
    np.testing.assert_allclose(fitted[:, 0] * 2.8, theta, atol=0.04)
    np.testing.assert_allclose(fitted[:, 1], shear * np.cos(2 * angle), atol=0.03)
    np.testing.assert_allclose(fitted[:, 2], shear * np.sin(2 * angle), atol=0.03)


def test_a_smooth_lens_leaves_little_and_a_mass_on_the_arc_leaves_more_where_it_is(smooth, fitted):
    left = smooth_residual(smooth, fitted)
    part = (left.square().sum((1, 2, 3)) / smooth.square().sum((1, 2, 3))).sqrt()
    assert part.max() < 0.2
    blobbed = torch.tensor(image(*LENSES[0], BLOB)[None], dtype=torch.float32)
    with_blob = smooth_residual(blobbed, fitted[:1])
    change = (with_blob - left[:1])[0, 0].abs().numpy()
    assert change.max() > 0.1 * float(smooth[0].max())
    row, column = np.unravel_index(change.argmax(), change.shape)
    y, x = (np.array([row, column]) - 27.5) * 0.1
    here, there = np.hypot(x - 0.9, y - 0.8), np.hypot(x + 0.9, y + 0.8)
    assert min(here, there) < 1.0  # at the mass, or where the arc's other image is


@pytest.mark.parametrize("view", (3, 6))
def test_turned_and_mirrored_stamps_leave_turned_and_mirrored_planes(smooth, view):
    def seen(x):
        x = torch.rot90(x, view % 4, dims=(-2, -1))
        return x.flip(-1) if view >= 4 else x

    # noise keeps ties of the trial shears apart
    noisy = smooth[:2] + torch.randn(smooth[:2].shape, generator=torch.manual_seed(1))
    want = seen(smooth_residual(noisy))
    assert (smooth_residual(seen(noisy).contiguous()) - want).abs().mean() < 0.01 * want.abs().mean() + 1e-6


def test_the_input_has_the_bands_and_then_what_is_left_of_them(smooth, fitted):
    one = smooth[:1]
    rule = Stretch(name="asinh", band_scales=(0.5,), alpha=0.1, q=1.0, smooth_residual=True)
    got = input_of(one.numpy(), rule)
    assert rule.n_channel == got.shape[1] == 2
    plain = rule.model_copy(update={"smooth_residual": False})
    np.testing.assert_array_equal(got[:, :1], network_input(one.numpy(), plain))
    np.testing.assert_allclose(got[:, 1:], np.arcsinh(0.05 * smooth_residual(one, fitted[:1]).numpy()), atol=2e-2)
    np.testing.assert_array_equal(input_of(one.numpy(), rule), got)
    np.testing.assert_allclose(device_input(one, rule), got, atol=2e-2)
    with pytest.raises(ModelError, match="what smooth lenses leave"):
        network_input(one.numpy(), rule)
    there = torch.cat([one, 0 * one], dim=1)
    np.testing.assert_array_equal(device_input(there, rule)[:, 1], 0)


def test_an_old_card_does_not_hear_of_it_and_colours_do_not_go_with_it():
    rule = Stretch(name="asinh", band_scales=(0.5,), alpha=0.1, q=1.0)
    assert "smooth_residual" not in rule.model_dump(mode="json")
    with pytest.raises(ValidationError, match="neither mix nor humvi"):
        Stretch(name="humvi", band_scales=(0.5,), alpha=0.1, q=1.0, smooth_residual=True)


@pytest.mark.parametrize(
    "shown", [{"smooth_residual": True}, {"high_pass_px": 1.5}, {"high_pass_px": 1.5, "standardise": True, "q": 0.1}]
)
def test_what_is_trained_on_is_what_is_predicted_on(tmp_path, shown):
    data = make_stamps(tmp_path / "stamps", n=20, bands=("r",), labels=("lens", "blob"), n_part=1)
    settings = {
        "model": {"width": 2},
        "input": shown,
        "sampling": {"batch_size": 4, "steps_per_epoch": 1},
        "optim": {"epochs": 1, "threads": 1, "ema_decay": 0.0},
        "augment": VIEWS_ONLY.model_dump(),
    }
    train(data, model="small-cnn", task="classify", out=tmp_path / "m", settings=TrainSettings.model_validate(settings))
    stamps = StampSet.open(data)
    judge = judged(open_members([tmp_path / "m"], stamps), stamps, JudgeSettings(split="validation"))
    card = read_card(tmp_path / "m")
    assert card.n_channel == 1 + card.stretch.smooth_residual
    assert card.stretch.high_pass_px == shown.get("high_pass_px", 0)
    told = judge.metrics()["m"]
    assert told["auroc_micro"] == pytest.approx(card.metrics["validation"]["auc"], abs=1e-6)
    assert told["accuracy"] == card.metrics["validation"]["accuracy"]
