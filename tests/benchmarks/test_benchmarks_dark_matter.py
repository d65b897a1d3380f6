from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.metrics import roc_auc_score

from benchmarks.studies.dark_matter.cells import cell_of, cells, read_queue, recipe_of
from benchmarks.studies.dark_matter.figures import COMPARED, seeds_table, tables
from benchmarks.studies.dark_matter.ideal import (
    best_errors,
    coordinates,
    information_of_spread,
    marginalised_products,
    told_of_sets,
    told_posteriors,
    untold_posteriors,
    whitened,
)
from benchmarks.studies.dark_matter.masses import known
from benchmarks.studies.dark_matter.sets import superposed
from benchmarks.studies.dark_matter.smooth import smooth_lens
from lenspipe.simulate.substructure import draw_subhalo_masses, mean_subhalo_mass_msun


def test_every_cell_of_the_comparison_comes_once_and_the_pair_that_decides_comes_first():
    found = cells(*read_queue())
    names = [cell.name for cell in found]
    assert len(set(names)) == len(names)
    compared = [cell for cell in found if cell.steps == COMPARED and cell.seed == 0]
    assert len(compared) == 4 * 18 * 3  # recipes, models, parts
    assert {cell.name for cell in found[: len(compared)]} == {cell.name for cell in compared}
    assert names[:2] == [f"dark_matter_fitted_model-f_equivariant-c8-{part}-400_0" for part in (100, 10)]
    assert names[3:5] == [f"dark_matter_fitted_model-f_timm-resnet18-{part}-400_0" for part in (100, 10)]


def test_records_that_there_are_are_those_of_cells():
    """A cell that has a record is not run again: names have not moved."""
    names = {cell.name for cell in cells(*read_queue())}
    results = Path(__file__).parents[2] / "benchmarks/results"
    there = {path.stem for path in results.glob("dark_matter_fitted_*-1600_*.json")}
    there |= {path.stem for path in results.glob("dark_matter_fitted_*-400_*.json")}
    there |= {path.stem for path in results.glob("dark_matter_fitted_*-masses_*.json")}
    assert len(there) >= 14 and there <= names
    whole = cell_of("model-f", "timm:resnet18+", 0.1, seed=2, steps=4800, plain=True)
    assert whole.name == "dark_matter_fitted_model-f_timm-resnet18+-10-plain_2"
    assert "channels" not in whole.trial.choice and "model.channels" not in whole.trial.choice
    with pytest.raises(ValueError, match=r"the space has no resnet on 0\.1"):
        cell_of("model-f", "resnet", 0.1)


def test_marginalised_products_are_those_under_the_whole_covariance(rng):
    signals, jacobian, sd = rng.normal(size=(3, 40)), rng.normal(size=(5, 40)), rng.uniform(0, 2, 5)
    covariance = np.eye(40) + (jacobian.T * sd**2) @ jacobian
    want = signals @ np.linalg.solve(covariance, signals.T)
    np.testing.assert_allclose(marginalised_products(signals, jacobian, sd), want, rtol=1e-9)
    np.testing.assert_allclose(marginalised_products(signals, jacobian, 0 * sd), signals @ signals.T)
    x = coordinates(want)
    np.testing.assert_allclose(x @ x.T, want, rtol=1e-9)


@pytest.mark.parametrize("strength", [0.5, 1.5, 3.0])
def test_a_known_signal_is_told_with_the_area_of_two_gaussians(rng, strength):
    truth = rng.integers(0, 2, 40000)
    posterior = told_posteriors(np.array([[0.0, 0.0], [0.6 * strength, 0.8 * strength]]), truth, rng)
    assert roc_auc_score(truth, posterior[:, 1]) == pytest.approx(norm.cdf(strength / np.sqrt(2)), abs=0.006)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    # calibrated: of what is said to be so likely, so much is
    sure = posterior[:, 1] > 0.5
    assert truth[sure].mean() == pytest.approx(posterior[sure, 1].mean(), abs=0.01)


def test_who_knows_all_masses_is_right_on_average(rng):
    """The truth lies as often above posterior means as below, a slope of 1 relates them, and more masses tell more."""
    slopes, fractions, masses = np.linspace(-2.1, -1.7, 60), np.geomspace(0.003, 0.03, 60), (1e7, 1e10)
    off = {}
    for whole in (3e10, 3e12):
        truth, told = [], []
        for _ in range(400):
            slope, fraction = rng.uniform(-2.1, -1.7), np.exp(rng.uniform(*np.log((0.003, 0.03))))
            n = rng.poisson(fraction * whole / mean_subhalo_mass_msun(slope, masses))
            told.append(known(draw_subhalo_masses(rng, int(n), slope, masses), whole, slopes, fractions, masses))
            truth.append((slope, fraction))
        truth, told = np.array(truth), np.array(told)
        away = (truth - told) / truth.std(0)
        assert (np.abs(away.mean(0)) < 3 * away.std(0) / 20).all()
        for k in (0, 1):
            assert np.polyfit(told[:, k], truth[:, k], 1)[0] == pytest.approx(1, abs=0.2)
        off[whole] = away.std(0)
    assert (off[3e12] < 0.5 * off[3e10]).all()


def test_without_a_signal_everything_is_chance(rng):
    truth = rng.integers(0, 3, 300)
    np.testing.assert_allclose(told_posteriors(np.zeros((3, 2)), truth, rng), 1 / 3)


def test_gaussian_signals_at_unknown_places_are_told_as_well_as_their_likelihood_allows(rng):
    axes, spread = 6, np.array([3.0, 2.0, 1.0, 0.5, 0.1, 0.0])
    draws = rng.normal(size=(600, axes)) * spread
    truth = rng.integers(0, 2, 3000)
    data = rng.normal(size=(3000, axes)) + np.where(truth[:, None], rng.normal(size=(3000, axes)) * spread, 0)
    got = roc_auc_score(truth, untold_posteriors(data, [np.zeros((1, axes)), draws])[:, 1])
    true = [multivariate_normal(np.zeros(axes), np.diag(1 + k * spread**2)).logpdf(data) for k in (0, 1)]
    assert got == pytest.approx(roc_auc_score(truth, true[1] - true[0]), abs=0.006)


def test_whitened_signals_have_the_marginalised_products(rng):
    signals, jacobian, sd = rng.normal(size=(3, 40)), rng.normal(size=(5, 40)), rng.uniform(0, 2, 5)
    x = whitened(signals, jacobian, sd)
    np.testing.assert_allclose(x @ x.T, marginalised_products(signals, jacobian, sd), rtol=1e-9)


def test_who_is_told_larger_sets_comes_down_to_what_the_distribution_allows(rng):
    # signals of one length in any direction of a plane: with all of them the likelihood is Bessel's function of |data|
    n, size = 1500, 512
    angle = rng.uniform(0, 2 * np.pi, size)
    draws = 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    truth, own = np.repeat([0, 1], n), np.concatenate([np.zeros(n, int), rng.integers(0, size, n)])
    data = rng.normal(size=(2 * n, 2)) + np.where(truth[:, None] == 1, draws[own], 0)
    sizes = [1, 4, 16, size]
    posterior = told_of_sets(data, truth, own, [np.zeros((1, 2)), draws], sizes)
    np.testing.assert_allclose(posterior.sum(axis=2), 1)
    got = [roc_auc_score(truth, one[:, 1]) for one in posterior]
    assert got[0] == pytest.approx(norm.cdf(2 / np.sqrt(2)), abs=0.015)
    assert got[0] > got[1] > got[2] > got[3] - 0.003
    assert got[3] == pytest.approx(roc_auc_score(truth, np.linalg.norm(data, axis=1)), abs=0.005)


def test_an_observer_who_is_not_told_the_signal_sees_less(rng):
    directions = rng.normal(size=(400, 30))
    signals = 3 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    draws, own = signals[:300], signals[300:]
    data = np.concatenate([rng.normal(size=(1000, 30)), np.repeat(own, 10, axis=0) + rng.normal(size=(1000, 30))])
    area = roc_auc_score(np.repeat([0, 1], 1000), untold_posteriors(data, [np.zeros((1, 30)), draws])[:, 1])
    assert 0.6 < area < norm.cdf(3 / np.sqrt(2)) - 0.1


def test_the_amount_of_one_gaussian_signal_is_known_as_well_as_a_variance(rng):
    # of z ~ N(0, 1 + f), the information on ln f is f^2 / (2 (1 + f)^2)
    draws = rng.normal(size=(20000, 1)) * 2.0
    assert information_of_spread(draws) == pytest.approx(0.5 * (4 / 5) ** 2, rel=0.03)


@pytest.mark.parametrize(("sd", "ratio"), [(1e3, 1.0), (0.1, 0.1)])
def test_an_amount_is_known_by_its_prior_or_by_its_measurement(rng, sd, ratio):
    low, high = np.log(1.0), np.log(1.5)
    truth = rng.uniform(low, high, 4000)
    error = best_errors(truth, np.full(4000, sd * (high - low)), (low, high), rng)
    want = np.exp(truth).std() if sd > 1 else ratio * (high - low) * np.sqrt(np.mean(np.exp(2 * truth)))
    assert np.sqrt(np.mean(error**2)) == pytest.approx(want, rel=0.1)


def test_every_table_of_the_page_is_made_from_the_records():
    page = (Path(__file__).parents[2] / "docs/results/dark-matter.md").read_text()
    made = tables()
    assert len(made) >= 5
    for table in made:
        assert table in page, table


def test_networks_of_several_seeds_have_a_row_and_others_none():
    shown = {"plain": False, "steps": COMPARED, "fraction": 1.0}
    found = [
        shown | {"family": family, "recipe": recipe, "seed": seed, "test": {"auroc_micro": 0.9 + 0.01 * seed}}
        for family, seeds in (("equivariant-c8", 3), ("small-cnn", 1))
        for recipe in ("model-f", "model-j")
        for seed in range(seeds)
    ]
    (row,) = seeds_table([*found, found[0] | {"steps": 1600, "seed": 9}]).split("\n")[2:]
    assert row.startswith("| equivariant-c8 | 3 | 0.9100 (0.9000 to 0.9200) |")
    assert not seeds_table(found[6:])


def test_sums_of_single_subhalos_are_as_strong_as_what_the_recipe_draws(rng):
    coarse = {"image.0.pixel_scale_arcsec": 0.2, "image.0.size_px": 28, "image.0.supersampling": 2}
    lens = smooth_lens(recipe_of(cell_of("substructure-1", "equivariant-c8", 1.0).data, coarse), 7, 3)
    smooth = lens.truth()
    of_singles, errors = superposed(lens, smooth, rng, 300, 400)
    sums = of_singles(lambda signals: signals)
    whole = np.array([lens.perturbed(lens.draw(rng, "subhalo")[0]) - smooth for _ in range(300)])
    got, want = (np.quantile(np.linalg.norm(one, axis=1), [0.25, 0.5, 0.75]) for one in (sums, whole))
    np.testing.assert_allclose(got, want, rtol=0.3)
    assert np.median(errors) < 0.05
    # where they lie, too: the mean power of each pixel
    power = [np.square(one / np.linalg.norm(one, axis=1, keepdims=True)).mean(axis=0) for one in (sums, whole)]
    assert np.corrcoef(power[0], power[1])[0, 1] > 0.75
