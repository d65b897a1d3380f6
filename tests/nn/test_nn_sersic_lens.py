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
from lenspipe.nn import sersic_lens
from lenspipe.nn.point_mass import LARGE_ARCSEC, LEAST_ODDS, log_mean, point_mass_maps
from lenspipe.nn.sersic_image import CENTRE, CLUMP, N_ARC, NAMES, Pixels, of_light
from lenspipe.nn.sersic_lens import Priors, SersicFit

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


def lenstronomys(values, side=SIDE, light=True, clumps=(), masses=()):
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
        lens_model_class=LensModel(["SIE", "SHEAR", *["POINT_MASS"] * len(masses)]),
        source_model_class=LightModel(["SERSIC_ELLIPSE", *["SERSIC"] * len(clumps)]),
        lens_light_model_class=LightModel(["SERSIC_ELLIPSE"] if light else []),
        kwargs_numerics={"supersampling_factor": 4, "supersampling_convolution": True},
    )
    points = [{"theta_E": theta, "center_x": x, "center_y": y} for theta, x, y in masses]
    return model.image(
        [lens, {"gamma1": v["gamma1"], "gamma2": v["gamma2"], "ra_0": at[0], "dec_0": at[1]}, *points],
        [sersic("", at[0] + v["x_arcsec"], at[1] + v["y_arcsec"]), *(clump_of(one, *at) for one in clumps)],
        [sersic("light_", *at)] if light else [],
    )


def clump_of(values, lens_x, lens_y):
    x, y, brightness, radius = values
    own = {"R_sersic": np.exp(radius), "n_sersic": 1.0, "center_x": lens_x + x, "center_y": lens_y + y}
    return own | {"amp": np.exp(brightness) / SCALE**2}


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
        ours, theirs = (pixels.arcs(one[:N_ARC]) + pixels.light(of_light(one))).numpy(), lenstronomys(values)
        assert np.abs(ours - theirs)[kept].max() < 0.006 * ours[kept].max()


def test_an_image_with_clumps_is_lenstronomys(rng):
    pixels = Pixels(SIDE, SCALE, FWHM, finer=4, mask_arcsec=-1)
    values, clumps = drawn(rng, 1), np.array([[0.2, -0.1, 1.5, np.log(0.1)], [-0.1, 0.15, 1.0, np.log(0.12)]])
    one, parts = torch.tensor(values, dtype=torch.float32), torch.tensor(clumps[None], dtype=torch.float32)
    ours, theirs = pixels.arcs(one[:, :N_ARC], parts)[0].numpy(), lenstronomys(values[0], light=False, clumps=clumps)
    inside = slice(4, -4)
    assert np.abs(ours - theirs)[inside, inside].max() < 0.01 * ours.max()
    alone = pixels.lone_clumps(one, parts).sum(1)
    torch.testing.assert_close(pixels.arcs(one[:, :N_ARC]) + alone, pixels.arcs(one[:, :N_ARC], parts))


def test_slopes_are_differences(rng):
    pixels = Pixels(20, SCALE, FWHM, finer=2, mask_arcsec=-1)
    pixels.x, pixels.y, pixels.blur = (one.double() for one in (pixels.x, pixels.y, pixels.blur))
    values = torch.tensor(drawn(rng, 2))
    values[:, CENTRE] = torch.tensor(rng.uniform(-0.08, 0.08, (2, 2)))
    clumps = torch.tensor([[[0.2, -0.1, 1.5, -2.3], [0.1, 0.2, 1.0, -2.0]]]).double().expand(2, -1, -1)
    arcs = torch.cat([values[:, :N_ARC], clumps.flatten(1)], 1)
    for see, slopes, at in (
        (lambda v: pixels.arcs(v[:, :N_ARC], v[:, N_ARC:].unflatten(1, (-1, len(CLUMP)))), None, arcs),
        (pixels.light, pixels.light_slopes(of_light(values), range(7)), of_light(values)),
    ):
        got = pixels.arc_slopes(values[:, :N_ARC], clumps, range(N_ARC)) if slopes is None else slopes
        assert got.shape[1] == at.shape[1]
        for k in range(at.shape[1]):
            step = torch.zeros(at.shape[1]).double()
            step[k] = 1e-6
            want = (see(at + step) - see(at - step)) / 2e-6
            assert (got[:, k] - want).abs().max() < 0.01 * want.abs().max(), k
    some = pixels.arc_slopes(values[:, :N_ARC], clumps, [2, 8])
    torch.testing.assert_close(
        some, pixels.arc_slopes(values[:, :N_ARC], clumps, range(N_ARC))[:, [2, 8, *range(14, 22)]]
    )


def test_an_index_out_of_all_bounds_is_one_at_the_edge(rng):
    pixels = Pixels(20, SCALE, FWHM, finer=2, mask_arcsec=-1)
    values = torch.tensor(drawn(rng, 1), dtype=torch.float32)[:, :N_ARC].repeat(4, 1)
    values[:, NAMES.index("log_n")] = torch.tensor([-5.0, -1.6, 2.2, 9.0])
    images, slopes = pixels.arcs(values), pixels.arc_slopes(values, None, range(N_ARC))
    torch.testing.assert_close(images[[0, 3]], images[[1, 2]])
    assert torch.isfinite(slopes).all()
    assert not slopes[[0, 3], NAMES.index("log_n")].any()


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


def test_clumps_are_found_where_there_are_some_and_nowhere_else(rng, monkeypatch):
    planted, sigma = drawn(rng, 8), 0.02
    planted[:, 10:12] = 0
    # two each for the first four, two thirds of a radius from the middle
    radius = np.exp(planted[:, 8])
    middle = planted[:, 5:7]
    clumps = [
        [(x + 0.7 * r, y, 1.8, np.log(0.16 * r)), (x - 0.3 * r, y - 0.6 * r, 1.8, np.log(0.16 * r))]
        for (x, y), r in zip(middle[:4], radius[:4], strict=True)
    ] + [()] * 4
    clean = np.stack([lenstronomys(v, light=False, clumps=c) for v, c in zip(planted, clumps, strict=True)])
    stamps = torch.tensor(clean + rng.normal(0, sigma, clean.shape), dtype=torch.float32)
    priors = Priors(torch.tensor(MEAN, dtype=torch.float32), torch.tensor(WIDTH, dtype=torch.float32), False)
    square, search = {}, sersic_lens.SEARCH
    monkeypatch.setattr(sersic_lens, "SEARCH", 4)
    for n in (0, 3):
        fit = SersicFit.of(SIDE, SCALE, FWHM, priors, finer=4, clumps=n)
        fit.fine.kept[[*range(4), *range(-4, 0)]] = fit.fine.kept[:, [*range(4), *range(-4, 0)]] = 0
        values, left = fit(stamps, torch.full_like(stamps, sigma))
        square[n] = (left.square().sum((1, 2)) / fit.fine.kept.sum()).numpy()
    found = values[:, len(NAMES) :].unflatten(1, (-1, len(CLUMP)))
    n_found = torch.isfinite(found[..., 0]).sum(1)
    assert (n_found[4:] == 0).all()
    assert (n_found[:4] >= 1).all()
    assert np.median(square[0][:4]) > 1.3
    assert np.median(square[3][:4]) < 1.1
    np.testing.assert_allclose(square[0][4:], square[3][4:], rtol=1e-5)
    good = square[3][:4] < 1.1
    for want, got, r in zip(np.array(clumps[:4])[good], found[:4].numpy()[good], radius[:4][good], strict=True):
        for x, y in want[:, :2]:
            assert np.nanmin(np.hypot(got[:, 0] - x, got[:, 1] - y)) < 0.1 * r

    # with fewer points to seek with it is the last steps that make it as good
    monkeypatch.setattr(sersic_lens, "SEARCH", search)
    for finer in (search, 4):
        fit = SersicFit.of(SIDE, SCALE, FWHM, priors, finer=finer, clumps=3)
        fit.fine.kept[[*range(4), *range(-4, 0)]] = fit.fine.kept[:, [*range(4), *range(-4, 0)]] = 0
        _, left = fit(stamps, torch.full_like(stamps, sigma))
        square[finer] = (left.square().sum((1, 2)) / fit.fine.kept.sum()).numpy()
    assert (square[4] <= 1.03 * square[3]).all()
    assert np.median(square[search] / square[4]) > 1.03


def test_lenses_that_are_sought_again_are_lost_less_often():
    """Three bright clumps bend a source that is fitted without them: a first search ends in many a shallow minimum."""
    rng, n, sigma = np.random.default_rng(0), 20, 0.006
    planted = drawn(rng, n)
    planted[:, 10:12] = 0
    radius = np.exp(planted[:, 8:9])
    turn, r = rng.uniform(0, 2 * np.pi, (n, 3)), rng.uniform(0.3, 1.3, (n, 3)) * radius
    x, y = planted[:, 5:6] + r * np.cos(turn), planted[:, 6:7] + r * np.sin(turn)
    clumps = np.stack([x, y, planted[:, 7:8] + np.full((n, 3), 2.0), np.log(0.14 * radius) + 0 * r], 2)
    values = torch.tensor(np.concatenate([planted, clumps.reshape(n, -1)], 1)).float()
    priors = Priors(torch.tensor(MEAN, dtype=torch.float32), torch.tensor(WIDTH, dtype=torch.float32), False)
    square, smooth = {}, {}
    for rounds in (0, 4):
        fit = SersicFit.of(SIDE, SCALE, FWHM, priors, finer=2, clumps=4, rounds=rounds)
        clean = torch.cat([fit.image(fit.fine, values), fit.image(fit.fine, values[:2, : len(NAMES)])])
        stamps = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        found, left = fit(stamps, torch.full_like(stamps, sigma))
        square[rounds], smooth[rounds] = left.square().mean((1, 2))[:n], found[n:]
    assert int((square[0] > 1.2).sum()) >= 4
    assert int((square[4] > 1.2).sum()) <= 2
    assert (square[4] < 1.2 * square[0] + 0.01).all()
    torch.testing.assert_close(smooth[0], smooth[4], rtol=0, atol=0, equal_nan=True)  # nothing to seek again


def test_what_is_fixed_stays_so_and_noise_makes_no_clump_where_lenses_are_sought_again():
    rng, sigma = np.random.default_rng(4), 0.02
    planted, width = drawn(rng, 12), np.array(WIDTH)
    planted[:, [9, 10, 11]] = np.log(2.0), 0.2, -0.1
    width[[9, 10, 11]] = 0.0
    mean = np.array(MEAN)
    mean[[9, 10, 11]] = planted[0, [9, 10, 11]]
    priors = Priors(torch.tensor(mean).float(), torch.tensor(width).float(), False)
    fit = SersicFit.of(SIDE, SCALE, FWHM, priors, finer=2, clumps=2, rounds=4)
    clean = fit.image(fit.fine, torch.tensor(planted).float())
    stamps = clean + 1.15 * sigma * torch.tensor(rng.normal(size=clean.shape)).float()  # noise that is understated
    found, _ = fit(stamps, torch.full_like(stamps, sigma))
    np.testing.assert_allclose(found[:, [9, 10, 11]].numpy(), np.tile(mean[[9, 10, 11]], (12, 1)), atol=1e-6)
    once = SersicFit.of(SIDE, SCALE, FWHM, priors, finer=2, clumps=2)(stamps, torch.full_like(stamps, sigma))[0]
    n_clump = [int(torch.isfinite(one[:, len(NAMES) :: len(CLUMP)]).sum()) for one in (once, found)]
    assert n_clump[1] <= n_clump[0]


def test_fewer_clumps_are_kept_the_more_they_must_gain(rng, monkeypatch):
    planted, sigma = drawn(rng, 1), 0.05
    x, y, r = *planted[0, 5:7], np.exp(planted[0, 8])
    clumps = [(x + 0.7 * r, y, 1.5, np.log(0.16 * r)), (x - 0.3 * r, y - 0.6 * r, 1.0, np.log(0.16 * r))]
    clean = lenstronomys(planted[0], light=False, clumps=clumps)
    stamps = torch.tensor(clean[None] + rng.normal(0, sigma, clean.shape), dtype=torch.float32)
    priors = Priors(torch.tensor(MEAN, dtype=torch.float32), torch.tensor(WIDTH, dtype=torch.float32), False)
    fit, counts = SersicFit.of(SIDE, SCALE, FWHM, priors, clumps=3), []
    for least in 2.0 ** np.arange(3, 26, 2):  # between two of them a clump is promising and not kept
        monkeypatch.setattr(sersic_lens, "LEAST_GAIN", least)
        values, _ = fit(stamps, torch.full_like(stamps, sigma))
        counts.append(int(torch.isfinite(values[0, len(NAMES) :: len(CLUMP)]).sum()))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] >= 2
    assert counts[-1] == 0


def mapped(stamps, sigma, light=False, clumps=0):
    priors = Priors(torch.tensor(MEAN, dtype=torch.float32), torch.tensor(WIDTH, dtype=torch.float32), light)
    fit = SersicFit.of(SIDE, SCALE, FWHM, priors, finer=4, clumps=clumps)
    fit.fine.kept[[*range(4), *range(-4, 0)]] = fit.fine.kept[:, [*range(4), *range(-4, 0)]] = 0
    noise = torch.full_like(stamps, sigma)
    values, left = fit(stamps, noise)
    return fit, values, left, point_mass_maps(fit, stamps, noise, values)[:, 0].numpy()


def test_a_point_mass_is_seen_where_it_lies_and_noise_has_a_spread_of_one(rng):
    planted, sigma = drawn(rng, 22), 0.05
    masses = [[(0.15, 1.2 * np.cos(a), 1.2 * np.sin(a))] for a in rng.uniform(0, 2 * np.pi, 6)] + [[]] * 16
    clean = np.stack([lenstronomys(v, light=False, masses=m) for v, m in zip(planted, masses, strict=True)])
    stamps = torch.tensor(clean + rng.normal(0, sigma, clean.shape), dtype=torch.float32)
    _, _, _, found = mapped(stamps, sigma)
    assert 0.8 < found[6:].std() < 1.2
    assert np.abs(found[6:]).max() < 5
    height = found[:6].max((1, 2))
    bright = height > 6
    assert bright.sum() >= 4  # the others lie where there is no arc
    axis = (np.arange(SIDE) - (SIDE - 1) / 2) * SCALE
    for one, ((_, x, y),) in zip(found[:6][bright], np.array(masses[:6])[bright], strict=True):
        row, column = np.unravel_index(one.argmax(), one.shape)
        assert np.hypot(axis[column] - x, axis[row] - y) < 0.3


@pytest.mark.parametrize("side", [44, 45])
def test_a_mirrored_stamp_has_the_mirrored_map(rng, side):
    planted = drawn(rng, 2)
    clean = np.stack([lenstronomys(v, side, light=False, masses=[(0.1, 1.0, 0.6)]) for v in planted])
    stamps = torch.tensor(clean + rng.normal(0, 0.05, clean.shape), dtype=torch.float32)
    values = torch.tensor(planted, dtype=torch.float32)
    other = values.clone()
    other[:, [NAMES.index(name) for name in ("lens_e2", "gamma2", "x_arcsec", "e2")]] *= -1
    priors = Priors(torch.tensor(MEAN, dtype=torch.float32), torch.tensor(WIDTH, dtype=torch.float32), False)
    fit = SersicFit.of(side, SCALE, FWHM, priors)
    noise = torch.full_like(stamps, 0.05)
    one, two = point_mass_maps(fit, stamps, noise, values), point_mass_maps(fit, stamps.flip(-1), noise, other)
    assert one[:, 0].abs().max() > 3
    torch.testing.assert_close(two.flip(-1), one, rtol=0.02, atol=0.05)


def test_odds_of_point_masses_are_ratios_of_likelihoods(rng):
    """In noise alone odds have a mean of 1, whatever the masses, and at a mass that is there they are its own."""
    at = drawn(rng, 1)[0]
    width = torch.zeros(len(NAMES))
    width[NAMES.index("log_brightness")] = 1e-6  # all but known: what is left is noise
    priors = Priors(torch.tensor(at, dtype=torch.float32), width, False)
    fit = SersicFit.of(SIDE, SCALE, FWHM, priors, finer=2)
    values = torch.tensor(at, dtype=torch.float32).expand(300, -1)
    draws, smooth = torch.tensor(rng.normal(size=(300, SIDE, SIDE))).float(), fit.image(fit.fine, values[:1])
    for sigma in (1.0, 3.0):
        maps = point_mass_maps(fit, smooth + sigma * draws, torch.full_like(draws, sigma), values)
        odds, spread = maps[:, 1:].double().exp(), maps[:, 1].std(0)
        dim = (spread > 0.02) & (spread < 0.5)  # a mass would show, and no stamp alone makes the mean
        assert dim.sum() > 500
        assert odds[:, 0].mean(0)[dim].mean() == pytest.approx(1, abs=0.05)
        assert maps[:, 1:].min() >= LEAST_ODDS
        np.testing.assert_allclose(log_mean(maps[:, 1]), odds[:, 0].flatten(1).mean(1).log(), atol=1e-4)
    # with a mass: twice the logarithm of its odds is what it takes off the sum of squares
    sigma, without = 0.05, 0.05 * draws[:8]
    heavy = torch.tensor(
        lenstronomys(at, light=False, masses=[(0.08, 1.1, 0.4)]) - lenstronomys(at, light=False)
    ).float()
    there = point_mass_maps(fit, smooth + heavy + without, torch.full_like(without, sigma), values[:8])
    gain = (np.square((without + heavy) / sigma) - np.square(without / sigma)).sum((1, 2))
    best = there[:, 1:].amax((1, 2, 3)) + np.log(len(LARGE_ARCSEC))
    assert np.median(gain) > 30
    np.testing.assert_allclose(best, gain / 2, rtol=0.35)


def test_the_significance_of_a_point_mass_is_that_of_whole_images(rng):
    """Against lenstronomy's images with a small mass less those without, other parameters projected out by hand."""
    planted, sigma = drawn(rng, 1), 0.02
    clean = lenstronomys(planted[0], light=False, masses=[(0.1, 1.1, 0.4)])
    stamps = torch.tensor(clean[None] + rng.normal(0, sigma, clean.shape), dtype=torch.float32)
    fit, values, left, found = mapped(stamps, sigma)
    kept = fit.fine.kept.numpy().ravel() > 0
    at = values[0].numpy().astype(float)
    free = [k for k in range(N_ARC) if WIDTH[k] > 0]
    smooth = lenstronomys(at, light=False)

    def change(image):
        return ((image - smooth) / sigma).ravel()[kept]

    slopes = np.stack([change(lenstronomys(at + 1e-4 * np.eye(len(NAMES))[k], light=False)) / 1e-4 for k in free], 1)
    inner = slopes.T @ slopes + np.diag(np.array(WIDTH)[free] ** -2.0)
    rest = left[0].numpy().ravel()[kept].astype(float)
    pull = slopes.T @ rest - (at - MEAN)[free] / np.array(WIDTH)[free] ** 2
    axis = (np.arange(SIDE) - (SIDE - 1) / 2) * SCALE
    # places of the map are corners of four pixels
    row, column = np.unravel_index(found[0].argmax(), found[0].shape)
    want, got = [], []
    for dy, dx in [(dy, dx) for dy in (-6, -2, 0, 4) for dx in (-4, 0, 2)]:
        y, x = row // 2 * 2 + dy, column // 2 * 2 + dx
        signal = change(lenstronomys(at, light=False, masses=[(0.02, axis[x] + SCALE / 2, axis[y] + SCALE / 2)]))
        absorbed = slopes.T @ signal
        length = signal @ signal - absorbed @ np.linalg.solve(inner, absorbed)
        want.append((signal @ rest - absorbed @ np.linalg.solve(inner, pull)) / np.sqrt(length))
        got.append(found[0, y, x])
    assert max(want) > 5
    assert np.corrcoef(want, got)[0, 1] > 0.98
    np.testing.assert_allclose(got, want, atol=0.2 * max(want))
