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

from lenspipe.errors import ConfigError
from lenspipe.nn.sersic_lens import CENTRE, N_ARC, NAMES, Pixels, Priors, SersicFit

SIDE, SCALE, FWHM = 44, 0.1, 0.2355
MEAN = [1.2, 0, 0, 0, 0, 0, 0, 0, np.log(0.5), np.log(1.5), 0, 0, 0, 0, 0, np.log(0.5), np.log(2.5), 0, 0]
WIDTH = [0.1, 0.1, 0.1, 0.05, 0.05, 0.4, 0.4, 9.0, 0.1, 0.1, 0.2, 0.2, 0, 0, 9.0, 0.1, 0.1, 0.2, 0.2]
BRIGHT = [NAMES.index("log_brightness"), NAMES.index("light_log_brightness")]


def ratio_of(e):
    """Lenstronomy's ellipticity (1 - q) / (1 + q) of ours, (1 - q^2) / (1 + q^2), as a factor."""
    size = np.hypot(*e)
    if size == 0:
        return 1.0
    q = np.sqrt((1 - size) / (1 + size))
    return (1 - q) / (1 + q) / size


def lenstronomys(values, side=SIDE, light=True):
    v = dict(zip(NAMES, values, strict=True))

    def sersic(prefix, x, y):
        e = v[f"{prefix}e1"], v[f"{prefix}e2"]
        return {
            "amp": np.exp(v[f"{prefix}log_brightness"]) / SCALE**2,
            "R_sersic": np.exp(v[f"{prefix}log_radius"]),
            "n_sersic": np.exp(v[f"{prefix}log_n"]),
            "e1": e[0] * ratio_of(e),
            "e2": e[1] * ratio_of(e),
            "center_x": x,
            "center_y": y,
        }

    e = v["lens_e1"], v["lens_e2"]
    at = v["centre_x_arcsec"], v["centre_y_arcsec"]
    lens = {"theta_E": v["theta_e_arcsec"], "e1": e[0] * ratio_of(e), "e2": e[1] * ratio_of(e)}
    lens |= {"center_x": at[0], "center_y": at[1]}
    model = ImageModel(
        ImageData(**data_configure_simple(side, SCALE, exposure_time=1, background_rms=1)),
        PSF("GAUSSIAN", fwhm=FWHM, pixel_size=SCALE, truncation=5),
        lens_model_class=LensModel(["SIE", "SHEAR"]),
        source_model_class=LightModel(["SERSIC_ELLIPSE"]),
        lens_light_model_class=LightModel(["SERSIC_ELLIPSE"] if light else []),
        kwargs_numerics={"supersampling_factor": 4, "supersampling_convolution": True},
    )
    return model.image(
        [lens, {"gamma1": v["gamma1"], "gamma2": v["gamma2"], "ra_0": at[0], "dec_0": at[1]}],
        [sersic("", at[0] + v["x_arcsec"], at[1] + v["y_arcsec"])],
        [sersic("light_", *at)] if light else [],
    )


def drawn(rng, n):
    """Values of lenses whose images lie within the stamps."""
    values = np.array(MEAN) + np.array(WIDTH) * rng.uniform(-1, 1, (n, len(NAMES)))
    values[:, BRIGHT] = rng.uniform(0.5, 1.5, (n, 2))
    return values


def test_an_image_is_lenstronomys(rng):
    pixels = Pixels(SIDE, SCALE, FWHM, finer=4, mask_arcsec=0.3)
    kept = pixels.kept.numpy() > 0
    kept[[*range(4), *range(-4, 0)]] = kept[:, [*range(4), *range(-4, 0)]] = False  # the PSF brings light from outside
    for values in drawn(rng, 3):
        one = torch.tensor(values, dtype=torch.float32)
        ours, theirs = (
            (pixels.arcs(one[:N_ARC]) + pixels.light(torch.cat([one[N_ARC:], one[CENTRE]]))).numpy(),
            lenstronomys(values),
        )
        assert np.abs(ours - theirs)[kept].max() < 0.006 * ours[kept].max()


@pytest.mark.parametrize(("side", "light"), [(SIDE, True), (SIDE + 1, True), (SIDE, False)])
def test_a_fit_finds_what_lenstronomy_drew_and_leaves_noise(rng, side, light):
    planted, sigma = drawn(rng, 10), 0.02
    clean = np.stack([lenstronomys(values, side, light) for values in planted])
    stamps = torch.tensor(clean + rng.normal(0, sigma, clean.shape), dtype=torch.float32)
    priors = Priors(torch.tensor(MEAN, dtype=torch.float32), torch.tensor(WIDTH, dtype=torch.float32), light)
    fit = SersicFit.of(side, SCALE, FWHM, priors, finer=4)
    fit.fine.kept[[*range(4), *range(-4, 0)]] = fit.fine.kept[:, [*range(4), *range(-4, 0)]] = 0
    values, left = fit(stamps, torch.full_like(stamps, sigma))
    square = left.square().sum((1, 2)).numpy() / float(fit.fine.kept.sum())
    assert np.median(square) < 1.3
    off = np.abs(values.numpy() - planted)
    good = square < 1.5
    assert good.sum() >= 8
    for name, within in {"theta_e_arcsec": 0.005, "x_arcsec": 0.01, "y_arcsec": 0.01, "log_radius": 0.03}.items():
        assert off[good, NAMES.index(name)].max() < within, name
    assert bool(left[:, fit.fine.kept == 0].any()) is False


def test_a_lens_off_the_centre_of_its_stamp_is_found_where_that_has_a_width(rng):
    """As in a scan, where a source lies anywhere in the pixel that its stamp is cut around."""
    planted = drawn(rng, 6)
    planted[:, CENTRE] = rng.uniform(-0.08, 0.08, (6, 2))
    clean = np.stack([lenstronomys(values) for values in planted])
    stamps = torch.tensor(clean + rng.normal(0, 0.02, clean.shape), dtype=torch.float32)
    square, off = {}, None
    for width in (0.0, 0.1):
        widths = torch.tensor(WIDTH, dtype=torch.float32)
        widths[CENTRE] = width
        fit = SersicFit.of(SIDE, SCALE, FWHM, Priors(torch.tensor(MEAN, dtype=torch.float32), widths), finer=4)
        fit.fine.kept[[*range(4), *range(-4, 0)]] = fit.fine.kept[:, [*range(4), *range(-4, 0)]] = 0
        values, left = fit(stamps, torch.full_like(stamps, 0.02))
        square[width] = left.square().sum((1, 2)).numpy() / float(fit.fine.kept.sum())
        off = np.abs(values.numpy() - planted)
    assert np.median(square[0.1]) < 1.3
    assert np.median(square[0.0]) > 3
    assert np.median(off[:, CENTRE]) < 0.005


def test_what_is_not_smooth_is_left(rng):
    planted = drawn(rng, 4)
    clean = np.stack([lenstronomys(values) for values in planted])
    clean[:, 8:12, 20:24] += 0.3  # a source that no smooth lens makes
    priors = Priors(torch.tensor(MEAN, dtype=torch.float32), torch.tensor(WIDTH, dtype=torch.float32))
    stamps = torch.tensor(clean + rng.normal(0, 0.02, clean.shape), dtype=torch.float32)
    _, left = SersicFit.of(SIDE, SCALE, FWHM, priors)(stamps, torch.full_like(stamps, 0.02))
    assert left[:, 8:12, 20:24].mean((1, 2)).min() > 5


def test_what_has_no_width_stays_where_it_is(rng):
    width = np.where(np.isin(NAMES, ["theta_e_arcsec", "light_log_brightness"]), 0, WIDTH)
    mean = np.where(np.array(NAMES) == "light_log_brightness", 1.0, MEAN)
    priors = Priors(torch.tensor(mean, dtype=torch.float32), torch.tensor(width, dtype=torch.float32))
    stamps = torch.tensor(np.stack([lenstronomys(values) for values in drawn(rng, 2)]), dtype=torch.float32)
    values, _ = SersicFit.of(SIDE, SCALE, FWHM, priors)(stamps, torch.full_like(stamps, 0.02))
    assert (values[:, 0] == np.float32(1.2)).all()
    assert (values[:, BRIGHT[1]] == 1.0).all()
    with pytest.raises(ConfigError, match="a finite width from 0 on"):
        Priors(priors.mean, -priors.width)


def test_lenses_whose_radii_are_hardly_known_are_found(rng):
    width = np.where(np.array(NAMES) == "theta_e_arcsec", 0.3, WIDTH)
    planted, sigma = drawn(rng, 12), 0.02
    planted[:, 0] = np.tile([0.6, 1.7], 6)
    clean = np.stack([lenstronomys(values, light=False) for values in planted])
    stamps = torch.tensor(clean + rng.normal(0, sigma, clean.shape), dtype=torch.float32)
    priors = Priors(torch.tensor(MEAN, dtype=torch.float32), torch.tensor(width, dtype=torch.float32), False)
    fit = SersicFit.of(SIDE, SCALE, FWHM, priors, finer=4)
    fit.fine.kept[[*range(4), *range(-4, 0)]] = fit.fine.kept[:, [*range(4), *range(-4, 0)]] = 0
    values, _ = fit(stamps, torch.full_like(stamps, sigma))
    assert (np.abs(values[:, 0].numpy() - planted[:, 0]) < 0.01).all()
