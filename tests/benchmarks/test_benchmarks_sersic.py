"""Smooth lenses with Sérsic sources: their images are lenstronomy's, and fits find what was planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.simulation_util import data_configure_simple

from benchmarks.studies.dark_matter.fitted import noise_of, priors
from benchmarks.studies.dark_matter.queue import read_queue
from benchmarks.studies.dark_matter.sersic import COARSE, MASK_ARCSEC, N_ARC, NAMES, Pixels, fitted
from lenspipe.simulate.published_image import published_stamp
from lenspipe.simulate.recipe import read_recipe

SIDE, SCALE, FWHM = 44, 0.1, 0.2355


def recipe(**changes):
    data = next(one for one in read_queue()[0].data if one.recipe == "model-f")
    return read_recipe("model-f", changes=data.changes | {"image.0.size_px": SIDE} | changes)


def lenstronomys(values):
    v = dict(zip(NAMES, values, strict=True))

    def sersic(prefix, **place):
        # lenstronomy's ellipticity is (1 - q) / (1 + q)
        e = np.hypot(v[f"{prefix}e1"], v[f"{prefix}e2"])
        q = np.sqrt((1 - e) / (1 + e))
        own = (1 - q) / (1 + q) / e
        return {
            "amp": np.exp(v[f"{prefix}log_brightness"]),
            "R_sersic": np.exp(v[f"{prefix}log_radius"]),
            "n_sersic": np.exp(v[f"{prefix}log_n"]),
            "e1": v[f"{prefix}e1"] * own,
            "e2": v[f"{prefix}e2"] * own,
        } | place

    data = ImageData(**data_configure_simple(SIDE, SCALE, exposure_time=1, background_rms=1))
    model = ImageModel(
        data,
        PSF("GAUSSIAN", fwhm=FWHM, pixel_size=SCALE, truncation=5),
        lens_model_class=LensModel(["SIS", "SHEAR"]),
        source_model_class=LightModel(["SERSIC_ELLIPSE"]),
        lens_light_model_class=LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": 4, "supersampling_convolution": True},
    )
    return model.image(
        [{"theta_E": v["theta_e_arcsec"]}, {"gamma1": v["gamma1"], "gamma2": v["gamma2"]}],
        [sersic("", center_x=v["x_arcsec"], center_y=v["y_arcsec"])],
        [sersic("light_", center_x=0.0, center_y=0.0)],
    )


def test_an_image_is_lenstronomys():
    values = [1.2, 0.12, -0.05, 0.3, -0.2, 1.1, -0.7, 0.4, 0.2, 0.1, 1.5, -0.7, 0.9, 0.3, -0.1]
    pixels = Pixels(SIDE, SCALE, FWHM, finer=4)
    ours, theirs = pixels.image(torch.tensor(values)).numpy(), lenstronomys(values) / SCALE**2
    kept = pixels.kept.numpy() > 0
    kept[[*range(4), *range(-4, 0)]] = kept[:, [*range(4), *range(-4, 0)]] = False  # the PSF brings light from outside
    assert np.abs(ours - theirs)[kept].max() < 0.005 * ours[kept].max()


def drawn(kind, n, mass_fraction):
    """Stamps of the recipe, with a tenth of its noise."""
    quiet = {"survey.0.band.I.depth_mag": [32.625, 0.0], "survey.0.band.I.njy_per_electron": 3.3333333e-5}
    made = recipe(**quiet, **{"published.mass_fraction": [mass_fraction] * 2})
    some = [published_stamp(np.random.default_rng([5, k]), made, kind, seed=5) for k in range(n)]
    stamps = torch.from_numpy(np.stack([pixels[0] for pixels, _ in some]))
    sky = torch.tensor([facts["sky_rms_I_njy"] for _, facts in some], dtype=torch.float32)
    return made, stamps, noise_of(stamps, sky, made), [facts for _, facts in some]


@pytest.fixture(scope="module")
def grids():
    return Pixels(SIDE, SCALE, FWHM, finer=2), Pixels(SIDE // COARSE, SCALE * COARSE, FWHM, finer=1)


def test_of_a_smooth_lens_a_fit_leaves_noise_and_finds_what_was_drawn(grids):
    made, stamps, sigma, facts = drawn("no_substructure", 12, 0.01)
    values, left = fitted(stamps, sigma, *grids, *priors(made.published))
    found = dict(zip(NAMES, values.T.numpy(), strict=True))
    for name in ("x", "y"):
        truth = [one[f"source_{name}_arcsec"] for one in facts]
        np.testing.assert_allclose(found[f"{name}_arcsec"], truth, atol=0.015)
    shear = np.hypot(found["gamma1"], found["gamma2"])
    np.testing.assert_allclose(shear, [one["shear"] for one in facts], atol=0.01)
    square = np.square(left.numpy()).sum(axis=(1, 2)) / float(grids[0].kept.sum())
    assert square.max() < 2  # of noise a tenth of the recipe's: what the coarse sampling adds is below that
    assert not left[:, grids[0].kept == 0].any()


@pytest.mark.parametrize("kind", ["subhalo", "vortex"])
def test_what_is_not_smooth_is_left(grids, kind):
    made, stamps, sigma, _ = drawn(kind, 8, 0.03)
    _, left = fitted(stamps, sigma, *grids, *priors(made.published))
    assert np.median(np.square(left.numpy()).mean(axis=(1, 2))) > 10


def test_priors_are_the_recipes_ranges():
    mean, width = priors(recipe().published)
    v = dict(zip(NAMES, zip(mean.tolist(), width.tolist(), strict=True), strict=True))
    assert v["theta_e_arcsec"] == pytest.approx((1.2, 0.0003))
    assert v["log_n"][0] == pytest.approx(np.log(1.5), abs=1e-3)
    assert v["gamma1"][0] == pytest.approx(0.15, abs=0.01)
    assert len(mean) == len(NAMES) > N_ARC
    assert MASK_ARCSEC < 1.2
    with pytest.raises(ValueError, match="only round lenses"):
        priors(read_recipe("deeplense-1").published)
