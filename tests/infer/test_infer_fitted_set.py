"""Stamps written again with what fitted smooth lenses leave of them."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from lenspipe.cli.stamps import command
from lenspipe.errors import ConfigError, DataError
from lenspipe.infer.fitted_set import priors_of, write_fitted
from lenspipe.learn.job import make_job
from lenspipe.learn.settings import TrainSettings
from lenspipe.nn.sersic_lens import NAMES
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.stamps.format import StampSet

GAIN = 0.0033333333
AS_DRAWN = {
    "image.0.pixel_scale_arcsec": 0.1,
    "image.0.size_px": 44,
    "image.0.supersampling": 3,
    "published.source_brightness_njy": [2.8, 3.6],
    "published.lens_brightness_njy": [4.8, 4.8],
    "published.mass_fraction": [0.05, 0.05],
}


def run(words):
    return command.main(words, standalone_mode=False)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "f"
    simulate(read_recipe("model-f", changes=AS_DRAWN), count=120, seed=3, out=out)
    return StampSet.open(out)


@pytest.fixture(scope="module")
def fitted(simulated, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "left"
    said = write_fitted(simulated, priors_of(simulated), out, band="I", njy_per_electron=GAIN)
    return StampSet.open(out), said


def test_priors_are_the_truth_of_the_training_split(simulated):
    priors = priors_of(simulated)
    told = dict(zip(NAMES, zip(priors.mean.tolist(), priors.width.tolist(), strict=True), strict=True))
    assert told["theta_e_arcsec"] == pytest.approx((1.2, 0.0))
    assert told["log_n"] == pytest.approx((np.log(1.5), 0.0))
    learnt = simulated.column("split") == "train"
    shear, angle = (simulated.column(name)[learnt] for name in ("shear", "shear_angle_rad"))
    assert told["gamma1"] == pytest.approx(((shear * np.cos(2 * angle)).mean(), (shear * np.cos(2 * angle)).std()))
    assert priors.light
    given = priors_of(simulated, given={"theta_e_arcsec": (1.0, 0.2)}, light=False)
    assert (given.mean[0], given.width[0], given.light) == (1.0, pytest.approx(0.2), False)
    with pytest.raises(ConfigError, match=r"no such parameter.*theta_e_arcsec"):
        priors_of(simulated, given={"theta": (1.0, 0.2)})


def test_smooth_lenses_leave_noise_and_others_more(simulated, fitted):
    data, said = fitted
    assert said["no_substructure"] == pytest.approx(1.0, abs=0.05)
    assert min(said["subhalo"], said["vortex"]) > 2
    rows = data.n
    assert rows == simulated.n
    assert data.images["image"].bands == ("I", "I_left")
    np.testing.assert_array_equal(data.read_images()[:, 0], simulated.read_images()[:, 0])
    smooth = data.column("label") == "no_substructure"
    for name in ("x", "y"):
        off = data.column(f"fitted_{name}_arcsec") - data.column(f"source_{name}_arcsec")
        assert np.abs(off[smooth]).max() < 0.05
    left = data.read_images()[:, 1]
    assert np.median(np.square(left[smooth]).mean(axis=(1, 2))) == pytest.approx(
        0.98, abs=0.05
    )  # the middle is left out
    assert data.column("split").tolist() == simulated.column("split").tolist()


def test_a_network_takes_both_bands_each_in_units_of_its_noise(fitted):
    data, _ = fitted
    asked = TrainSettings.model_validate({"input": {"stretch": "sqrt", "channel_scales": "measured"}})
    card = make_job(data.folder, "small-cnn", "classify", "out", asked, seed=1).card
    assert card.bands == ("I", "I_left")
    assert card.stretch.band_scales[1] == pytest.approx(0.01, rel=0.1)  # noise of 1 in pixels of 0.1 arcsec


def test_the_command_takes_its_priors_from_another_set(simulated, tmp_path):
    bare = pq.read_table(simulated.parts[0]).select(["stamp_id", "image", "label", "recipe", "seed", "host", "split"])
    folder = tmp_path / "bare"
    folder.mkdir()
    pq.write_table(bare.slice(0, 8), folder / "part-0.parquet")
    with pytest.raises(DataError, match=r"no true values.*missing='theta_e_arcsec"):
        run(["fit", str(folder), "--out", str(tmp_path / "a")])
    like = ["--like", str(simulated.folder), "--njy-per-electron", str(GAIN)]
    with pytest.raises(DataError, match=r"how wide the PSF is.*seeing_I_arcsec"):
        run(["fit", str(folder), "--out", str(tmp_path / "a"), *like])
    run(["fit", str(folder), "--out", str(tmp_path / "a"), *like, "--fwhm-arcsec", "0.2355"])
    assert StampSet.open(tmp_path / "a").n == 8
    with pytest.raises(ConfigError, match=r"no such image or band.*band='r'"):
        run(["fit", str(simulated.folder), "--out", str(tmp_path / "b"), "--band", "r"])
    with pytest.raises(ConfigError, match=r"NAME=MEAN,WIDTH.*got='gamma1=0.1'"):
        run(["fit", str(simulated.folder), "--out", str(tmp_path / "b"), "--prior", "gamma1=0.1"])
