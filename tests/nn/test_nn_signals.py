"""Odds of drawn substructure: against dense likelihoods, lenstronomy's images, and what odds must be in noise."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from lenspipe.nn import draws as of_draws
from lenspipe.nn import lines as of_lines
from lenspipe.nn import signals as of_signals
from lenspipe.nn.damped import Damped, n_clump_of
from lenspipe.nn.draws import Masses
from lenspipe.nn.lines import Lines
from lenspipe.nn.response import Response
from lenspipe.nn.sersic_image import NAMES
from lenspipe.nn.sersic_lens import Others, Priors, SersicFit
from lenspipe.nn.signals import Signals, compared, told
from tests.nn.test_nn_sersic_lens import MEAN, SCALE, WIDTH, drawn, lenstronomys

SIDE, FWHM = 44, 0.2355
PRIORS = Priors(torch.tensor(MEAN, dtype=torch.float32), torch.tensor(WIDTH, dtype=torch.float32), False)
FIT = SersicFit.of(SIDE, SCALE, FWHM, PRIORS, finer=4)


def log_odds(fit, stamps, sigma, values, signals):
    return compared(fit, stamps, sigma, values, signals)[:, : len(signals.labels)]


def table_of(masses, theta_e=1.2, labels=("subhalo",), line=False):
    """Of each draw its masses: Einstein radius, x and y in arcsec, the heaviest first."""
    lists = {"x": [], "y": [], "square_arcsec2": []}
    for some in masses:
        lists["x"].append([x / theta_e for _, x, _ in some])
        lists["y"].append([y / theta_e for _, _, y in some])
        lists["square_arcsec2"].append([theta**2 for theta, _, _ in some])
    own = {"amount": [sum(theta**2 for theta, _, _ in some) for some in masses]}
    if line:
        own["length"] = [np.hypot(some[-1][1] - some[0][1], some[-1][2] - some[0][2]) for some in masses]
    n = len(masses)
    columns = {name: pa.array(values * len(labels), pa.list_(pa.float32())) for name, values in lists.items()}
    label = [one for one in labels for _ in range(n)]
    columns |= {f"{name}_{labels[0]}": pa.array(np.tile(values, len(labels))) for name, values in own.items()}
    said = {"label": label, "line": [line] * len(label), "theta_e_arcsec": pa.array([theta_e] * len(label))}
    return pa.table(said | columns)


def made(rng, sigma, masses=(), n=1):
    planted = drawn(rng, 1)[0]
    # what masses change is lenstronomy's; a smooth image that differs by a thousandth would be a mass, too
    clean = FIT.image(FIT.fine, torch.tensor(planted[None]).float())[0].numpy()
    clean = clean + lenstronomys(planted, light=False, masses=masses) - lenstronomys(planted, light=False)
    stamps = torch.tensor(clean + rng.normal(0, sigma, (n, SIDE, SIDE)), dtype=torch.float32)
    noise = torch.full_like(stamps, sigma)
    return planted, stamps, noise, FIT(stamps, noise)[0]


def dense(stamps, noise, values):
    """What is left, and the covariance of noise and parameters, of one stamp, as plain matrices."""
    rest = Damped(FIT, FIT.fine, stamps, FIT.fine.kept / noise, *FIT.known(values))
    _, off = rest.cost(values)
    _, slopes, _ = rest.normal(values)
    jacobian = slopes[0].double().numpy()
    spread = rest.width[0].double().numpy()
    away = (values[:, rest.free] - rest.mean)[0].double().numpy()
    left = jacobian.T @ away - off.flatten().double().numpy()
    return left, np.eye(len(left)) + jacobian.T @ (jacobian * spread[:, None] ** 2)


def test_products_are_those_of_the_whole_covariance(rng):
    _, stamps, noise, values = made(rng, 0.05, [(0.12, 1.1, 0.3)])
    response = Response(FIT, stamps, noise, values)
    left, covariance = dense(stamps, noise, values)
    images = torch.tensor(rng.normal(size=(6, SIDE**2))).float()
    white = response.whitened(0, images).double().numpy()
    inverse = np.linalg.inv(covariance)
    np.testing.assert_allclose(white @ white.T, images.numpy() @ inverse @ images.numpy().T, rtol=1e-3, atol=0.5)
    np.testing.assert_allclose(
        white @ response.left[0].double().numpy(), images.numpy() @ inverse @ left, rtol=1e-3, atol=0.5
    )


@pytest.mark.parametrize("n_clump", [0, 1, 2])
def test_evidence_is_that_of_the_whole_covariance(rng, n_clump):
    """As a Gaussian of many dimensions has it; clumps may change names, and what may be there besides is left out."""
    _, stamps, noise, values = made(rng, 0.05, [(0.12, 1.1, 0.3)])
    x, y, size = (values[0, NAMES.index(name)] for name in ("x_arcsec", "y_arcsec", "log_radius"))
    clumps = [torch.stack([x + 0.03 * k, y - 0.02, torch.tensor(0.1), size - 1.5]) for k in range(n_clump)]
    values = torch.cat([values, *(one[None] for one in clumps)], 1)
    response = Response(FIT, stamps, noise, values)
    left, covariance = dense(stamps, noise, values)
    want = multivariate_normal(np.zeros(len(left)), covariance).logpdf(left) + 0.5 * len(left) * np.log(2 * np.pi)
    assert float(response.log_evidence[0]) == pytest.approx(want + np.log(max(n_clump, 1)), rel=1e-4)


def test_a_search_gives_back_what_it_passed(rng):
    """More stamps than are fitted at once: each minimum is of the stamp that it is said to be of."""
    fit = SersicFit.of(SIDE, SCALE, FWHM, PRIORS, finer=2, clumps=2, rounds=1)
    planted = torch.tensor(drawn(rng, 18)).float()
    clean = fit.image(fit.fine, planted)
    x, y, size = (planted[:, NAMES.index(name)] for name in ("x_arcsec", "y_arcsec", "log_radius"))
    clump = torch.stack([x + 0.04, y, planted[:, NAMES.index("log_brightness")] + 2, size - 1.8], 1)
    clean[1::2] = fit.image(fit.fine, torch.cat([planted, clump], 1))[1::2]
    noise = torch.full_like(clean, 0.05)
    stamps = clean + torch.tensor(rng.normal(0, 0.05, clean.shape)).float()
    values, left, others = fit.sought(stamps, noise, others=True)
    torch.testing.assert_close((values, left), fit(stamps, noise), equal_nan=True)
    assert set(others.row.tolist()) == set(range(18))
    clumps = n_clump_of(others.values)
    assert (clumps == 0).any() and (clumps > 0).any()
    # what is left of its own stamp is less than of another
    some = torch.nonzero(clumps == 0)[:, 0]
    model = fit.image(fit.fine, others.values[some, : len(NAMES)])
    off = [((model - stamps[(others.row[some] + k) % 18]) / noise[0]).square().flatten(1).mean(1) for k in (0, 1)]
    assert (off[0] < off[1]).all()


def test_what_is_left_does_not_depend_on_where_the_fit_stopped(rng):
    """A step away the residual is another, and what no parameter can take up is the same."""
    _, stamps, noise, values = made(rng, 0.05, [(0.12, 1.1, 0.3)])
    moved = values + 0.002 * torch.tensor(WIDTH).float() * (torch.tensor(WIDTH) < 1) * torch.randn(len(NAMES))
    one, two = (Response(FIT, stamps, noise, v).left[0] for v in (values, moved))
    rest = [Damped(FIT, FIT.fine, stamps, FIT.fine.kept / noise, *FIT.known(v)).cost(v)[1] for v in (values, moved)]
    assert float((rest[1] - rest[0]).norm()) > 1
    assert float((one - two).norm()) < 0.1 * float((rest[1] - rest[0]).norm())


def test_masses_lie_around_a_lens_that_is_off_the_centre(rng):
    """Of an odd stamp that was cut out, whose PSF brings in light from beyond."""
    width = list(WIDTH)
    width[NAMES.index("centre_x_arcsec")] = width[NAMES.index("centre_y_arcsec")] = 0.2
    fit = SersicFit.of(
        45, SCALE, FWHM, Priors(torch.tensor(MEAN), torch.tensor(width), False), finer=4, lit_beyond=True
    )
    planted = drawn(rng, 1)[0]
    planted[[NAMES.index("centre_x_arcsec"), NAMES.index("centre_y_arcsec")]] = 0.35, -0.2
    x, y = 0.35 + 1.05, -0.2 + 0.4
    clean = fit.image(fit.fine, torch.tensor(planted[None]).float())[0].numpy()
    clean = (
        clean + lenstronomys(planted, 45, light=False, masses=[(0.08, x, y)]) - lenstronomys(planted, 45, light=False)
    )
    stamps = torch.tensor(clean + rng.normal(0, 0.02, (1, 45, 45))).float()
    noise, values = torch.full_like(stamps, 0.02), torch.tensor(planted[None]).float()
    there, elsewhere = (
        float(log_odds(fit, stamps, noise, values, widened(table_of([[(0.08, *at)]], theta_e=float(planted[0])))))
        for at in ((1.05, 0.4), (x, y))
    )
    assert there > 10
    assert there > elsewhere + 10


@pytest.mark.parametrize(
    ("seed", "theta", "sigma", "side", "off"),
    # masses that are of first order, on fine places; then of a recipe's, on places as they are
    [
        *((seed, 0.02, 0.006, 61, 0.02) for seed in (0, 3)),
        *((seed, 0.05, 0.05, of_draws.N_SIDE, 0.2) for seed in (0, 5, 6)),
    ],
)
def test_odds_are_the_mean_likelihood_over_the_draws(monkeypatch, seed, theta, sigma, side, off):
    """Of whole images of lenstronomy with the masses less those without, and matrices inverted as they are."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(of_draws, "N_SIDE", side)
    at = [(1.1, 0.3), (-0.4, 1.2), (0.9, -0.8), (-1.2, -0.1), (0.2, -1.2)]
    masses = [[(part * theta, x, y)] for x, y in at for part in (0.5, 1.0)]
    masses += [[(theta, *at[k]), (0.8 * theta, *at[(k + 2) % 5])] for k in range(5)]
    _, stamps, noise, values = made(rng, sigma, masses[-2])
    found = log_odds(FIT, stamps, noise, values, widened(table_of(masses, theta_e=float(values[0, 0]))))
    here = values[0].numpy().astype(float)
    smooth = lenstronomys(here, light=False)
    # the heaviest mass of a draw may be where any mass of any draw is, and each of the five places has as many
    moved = [[(some[0][0], *place), *some[1:]] for some in masses for place in at]
    signal = np.stack([((lenstronomys(here, light=False, masses=m) - smooth) / sigma).ravel() for m in moved])
    left, covariance = dense(stamps, noise, values)
    along = np.linalg.solve(covariance, signal.T)
    gain = left @ along - 0.5 * np.einsum("sp,ps->s", signal, along)
    assert gain.max() > 5
    want = logsumexp(gain) - np.log(len(moved))
    assert found.shape == (1, 1)
    assert float(found[0, 0]) == pytest.approx(want, rel=off)


def lines_of(rng, n, theta_e=1.2, strength=0.12):
    """Lines as a vortex is drawn: 0.5 to 1.2 Einstein radii away, in any direction; 16 points each."""
    r, turn, angle = (
        theta_e * np.sqrt(rng.uniform(0.25, 1.44, n)),
        rng.uniform(0, 2 * np.pi, n),
        rng.uniform(0, np.pi, n),
    )
    length, theta = np.exp(rng.uniform(*np.log((0.3, 1.5)), n)), strength * np.exp(rng.uniform(-0.5, 0.5, n))
    step = (np.arange(16) + 0.5) / 16 - 0.5
    x, y = (one(turn) * r + step[:, None] * length * one(angle) for one in (np.cos, np.sin))
    return [[(float(theta[k]) / 4, float(x[j, k]), float(y[j, k])) for j in range(16)] for k in range(n)]


@pytest.fixture(scope="module")
def around_a_lens():
    """Axes around a fitted lens and its Einstein radius."""
    rng = np.random.default_rng(2)
    _, stamps, noise, values = made(rng, 0.05)
    theta = float(values[0, 0])
    lines = Signals.of(table_of(lines_of(rng, 1024, theta), theta, ("vortex",), line=True))
    return of_signals.in_few_axes(Response(FIT, stamps, noise, values), 0, values[0], lines)[0], theta


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_odds_of_lines_are_those_of_many_more_plain_draws(around_a_lens, seed):
    """Of which each counts as it was drawn: none is drawn around the best, and strengths are the draw's own."""
    along, theta = around_a_lens
    rng = np.random.default_rng(seed)
    lines = Signals.of(table_of(lines_of(rng, 4096, theta, 0.04), theta, ("vortex",), line=True))
    plain = lines_of(rng, 60000, theta, 0.04)
    plain = Lines.of(table_of(plain, theta, ("vortex",), line=True))
    signals = (plain.squares * plain.square[:, None]) @ along
    medium = int(torch.argmin((signals.norm(dim=1) - 5).abs()))
    data = signals[medium] + torch.tensor(rng.normal(size=along.shape[1])).float()
    keep = torch.arange(len(signals)) != medium
    gain = (signals[keep] @ data - 0.5 * signals[keep].square().sum(1)).double()
    want = float(torch.logsumexp(gain, 0)) - np.log(len(gain))
    found, _, _ = told(lines, theta, along, data[None])
    assert float(found[0, 0]) == pytest.approx(want, abs=0.3)


def test_a_line_is_found_with_its_strength_and_length(around_a_lens):
    along, theta = around_a_lens
    rng = np.random.default_rng(8)
    lines = Signals.of(table_of(lines_of(rng, 8192, theta), theta, ("vortex",), line=True))
    planted = table_of(lines_of(rng, 300, theta), theta, ("vortex",), line=True)
    truth = np.stack([planted[name].to_numpy() for name in ("amount_vortex", "length_vortex")], 1)
    truth[:, 1] *= 16 / 15  # the points do not reach the ends
    own = Lines.of(planted)
    signals = (own.squares * own.square[:, None]) @ along
    seen = np.flatnonzero(signals.norm(dim=1).numpy() > 12)[:30]
    data = signals[seen] + torch.tensor(rng.normal(size=(len(seen), along.shape[1]))).float()
    odds, mean, error = (one.numpy() for one in told(lines, theta, along, data))
    assert lines.amounts == ("amount_vortex", "length_vortex")
    assert np.median(odds) > 30
    away = (mean - truth[seen]) / error
    assert (np.abs(away) < 1).mean(0).min() > 0.5
    assert (np.abs(away) < 3).mean() > 0.9
    assert (error.mean(0) < 0.5 * truth.std(0)).all()


def widened(table, times=4):
    """A quarter of the draws is compared: of as many times the draws, all are."""
    return Signals.of(pa.concat_tables([table] * times))


@pytest.mark.parametrize("line", [False, True])
def test_in_noise_odds_have_a_mean_of_one(rng, monkeypatch, line):
    """Whatever the signals: of a lens that is all but known, so that nothing is taken up."""
    monkeypatch.setattr(of_draws, "N_SIDE", 9)
    monkeypatch.setattr(of_lines, "N_MORE", 128)
    at = drawn(rng, 1)[0]
    width = torch.zeros(len(NAMES))
    width[NAMES.index("log_brightness")] = 1e-6
    fit = SersicFit.of(SIDE, SCALE, FWHM, Priors(torch.tensor(at).float(), width, False), finer=1)
    values = torch.tensor(at).float().expand(500, -1)
    noise = torch.tensor(rng.normal(size=(500, SIDE, SIDE))).float()
    turns = rng.uniform(0, 2 * np.pi, 40)
    masses = [[(0.05, 1.2 * np.cos(turn), 1.2 * np.sin(turn))] for turn in turns]
    signals = widened(table_of(masses))
    if line:
        signals = Signals.of(table_of(lines_of(rng, 2048, strength=0.05), 1.2, ("vortex",), line=True))
    stamps = fit.image(fit.fine, values[:1]) + noise
    odds = log_odds(fit, stamps, torch.ones_like(noise), values, signals).double()
    assert odds.std() > 0.2
    assert float(odds.exp().mean()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("strength", [0.5, 1.5, 4.0])
def test_odds_of_heavy_masses_are_sums_over_all_their_places(monkeypatch, strength):
    """Brute force over all places of three masses; those of the draws lie anywhere but where the data have them."""
    monkeypatch.setattr(of_draws, "N_SIDE", 5)
    rng = np.random.default_rng(4)
    along = torch.tensor(rng.normal(size=(25, 24))).float()
    masses = strength * torch.tensor([1.0, 0.7, 0.4])
    data = masses @ along[[6, 13, 17]] + torch.tensor(rng.normal(size=(3, 24))).float()
    theta = 1.2
    axis = np.linspace(-of_draws.REACH, of_draws.REACH, 5) * theta
    # the places at the edges are not drawn, and so are none
    at = [(float(x), float(y)) for y in axis[1:-1] for x in axis[1:-1]]
    every = [[(float(m) ** 0.5, *p) for m in masses] for p in at]
    signals = Signals.of(pa.concat_tables([table_of(every, theta)] * 300))
    found = told(signals, theta, along, data)[0][:, 0]
    used = along.view(5, 5, 24)[1:-1, 1:-1].reshape(9, 24)
    one, two, three = (mass * used for mass in masses)
    sums = one[:, None, None] + two[:, None] + three
    gain = torch.einsum("pqra,na->npqr", sums, data) - 0.5 * sums.square().sum(3)
    want = torch.logsumexp(gain.double().flatten(1), 1) - 3 * np.log(9)
    torch.testing.assert_close(found, want, atol=0.1, rtol=0.0)


def test_what_is_there_has_the_larger_odds(rng):
    ends = [[(0.02, 1.2 * np.cos(a), 1.2 * np.sin(a))] for a in rng.uniform(0, 2 * np.pi, 100)]
    lines = [
        [(0.05, r * np.cos(a) + t * np.cos(b), r * np.sin(a) + t * np.sin(b)) for t in np.linspace(-0.5, 0.5, 9)]
        for r, a, b in rng.uniform((0.6, 0, 0), (1.4, 2 * np.pi, np.pi), (400, 3))
    ]
    both = pa.concat_tables(
        [table_of(ends * 4), table_of(lines, labels=("vortex",), line=True)], promote_options="default"
    )
    signals = Signals.of(both)
    assert signals.labels == ("subhalo", "vortex")
    _, stamps, noise, values = made(rng, 0.05, lines[7], n=2)
    with_line = log_odds(FIT, stamps, noise, values, signals)
    assert (with_line[:, 1] > with_line[:, 0] + 3).all()
    assert (with_line[:, 1] > 3).all()
    _, stamps, noise, values = made(rng, 0.05, n=2)
    assert (log_odds(FIT, stamps, noise, values, signals)[:, 1] < 0).all()


def test_draws_of_the_nearest_einstein_radii_are_compared():
    radii = np.linspace(0.8, 1.8, 40)
    one = [table_of([[(0.1, 0.0, 0.0)]], theta_e=r) for r in radii]
    signals = Signals.of(pa.concat_tables(one))
    n = round(of_draws.NEAR * 40)
    own = signals.of_class["subhalo"]
    assert isinstance(own, Masses)
    for theta, first in ((0.1, 0), (1.3, 15), (9.0, 40 - n)):
        assert own.near(theta) == slice(first, first + n)
    assert own.heavy[0].tolist() == pytest.approx([0.01, *[0.0] * (of_draws.N_HEAVY - 1)])
    assert own.squares.sum() == 0
    # a mass at the lens lies on the middle place, a mass beyond the places on none
    heavy = [(0.2, 0.5, 0.0)] * of_draws.N_HEAVY
    table = table_of([[*heavy, (0.1, 0.0, 0.0), (0.1, 9.0, 0.0)]])
    other = Signals.of(table).of_class["subhalo"]
    assert other.squares[0, of_draws.N_SIDE**2 // 2] == pytest.approx(0.01)
    assert other.squares.sum() == pytest.approx(0.01)


def test_a_lens_beyond_the_draws_has_no_odds_and_one_that_shows_no_mass_even_ones(rng):
    _, stamps, noise, values = made(rng, 0.05, n=2)
    wide = widened(table_of([[(0.1, 1.0, 0.0)]], theta_e=3.0))
    assert torch.isnan(log_odds(FIT, stamps, noise, values, wide)).all()
    values[0, NAMES.index("log_brightness")] = -60.0
    found = log_odds(FIT, stamps, noise, values, widened(table_of([[(0.1, 1.0, 0.0)]])))
    assert float(found[0, 0]) == pytest.approx(0, abs=1e-3)
    assert torch.isfinite(found).all()


def test_odds_are_those_of_the_minima_that_are_probable(rng):
    _, stamps, noise, values = made(rng, 0.05, [(0.15, 1.1, 0.3)])
    ends = [[(0.15, 1.2 * np.cos(a), 1.2 * np.sin(a))] for a in np.linspace(0, 2 * np.pi, 60)]
    signals = widened(table_of(ends, theta_e=float(values[0, 0])))
    lost = values.clone()
    lost[0, :2] += torch.tensor([0.05, 0.1])
    right = compared(FIT, stamps, noise, values, signals)
    for best, other in ((values, lost), (lost, values), (values, torch.full_like(values, torch.nan)), (values, values)):
        both = compared(FIT, stamps, noise, best, signals, Others(torch.tensor([0]), other))
        torch.testing.assert_close(both, right, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(compared(FIT, stamps, noise, lost, signals), right, rtol=0.1)


def test_evidence_of_minima_is_added():
    """Of none and of a class alike; amounts are means over minima, and their errors hold what minima differ by."""
    signals = Signals.of(table_of([[(0.1, 1.0, 0.0)]] * 8))
    evidence = torch.tensor([-10.0, -12.0, torch.nan]).double()
    told_by = torch.tensor([[1.0, 3.0, 0.5], [4.0, 5.0, 0.1], [9.0, 9.0, 9.0]]).double()
    found = of_signals._over_minima(evidence, told_by, signals)
    p = np.exp([-9.0, -8.0])
    assert float(found[0]) == pytest.approx(np.log(p.sum() / np.exp([-10, -12]).sum()))
    weight = p / p.sum()
    mean = weight @ [3, 5]
    assert float(found[1]) == pytest.approx(mean)
    assert float(found[2]) == pytest.approx(np.sqrt(weight @ (np.array([0.25, 0.01]) + (np.array([3, 5]) - mean) ** 2)))
    assert torch.isnan(of_signals._over_minima(evidence * torch.nan, told_by, signals)).all()


def test_a_stamp_without_a_finite_fit_has_no_odds(rng):
    _, stamps, noise, values = made(rng, 0.05, n=2)
    values[0, 0] = torch.nan
    found = log_odds(FIT, stamps, noise, values, widened(table_of([[(0.1, 1.0, 0.0)]])))
    assert torch.isnan(found[0]).all()
    assert torch.isfinite(found[1]).all()


def test_likelihoods_are_raised_and_weights_are_not():
    """At any power a draw counts as it was drawn, strengths of a line are one draw, and what is not drawn is none."""
    weight = torch.tensor([[0.9, 0.0], [0.1, 0.0]]).double().log()
    even = of_signals._spread(weight.repeat(40, 1), torch.zeros(80, 2).double())
    torch.testing.assert_close(even[0, 0] / even[1, 0], torch.tensor(9.0).double())
    sharp = torch.zeros(80, 2).double()
    sharp[3] = 1e7
    found = of_signals._spread(weight.repeat(40, 1), sharp)
    assert torch.isfinite(found).all()
    assert not found[:, 1].any()
    assert of_signals._in_effect(found) >= of_signals.LEAST_DRAWS - 1e-6
    assert found[3, 0] / found[1, 0] >= 1


def test_draws_without_any_mass_have_even_odds_and_the_amounts_of_all(around_a_lens):
    along, theta = around_a_lens
    signals = Signals.of(table_of([[]] * 40, theta))
    odds, mean, _ = told(signals, theta, along, torch.zeros(1, along.shape[1]))
    assert float(odds[0, 0]) == pytest.approx(0, abs=1e-4)
    assert float(mean[0, 0]) == 0


def test_lines_of_one_length_have_finite_odds(around_a_lens):
    along, theta = around_a_lens
    lines = [[(0.01, 1.1 + step, 0.4) for step in np.linspace(-0.3, 0.3, 16)]] * 400
    odds, mean, error = told(
        Signals.of(table_of(lines, theta, ("vortex",), line=True)), theta, along, torch.zeros(1, along.shape[1])
    )
    assert torch.isfinite(odds).all()
    assert float(mean[0, 1]) == pytest.approx(0.64, rel=0.05)
    assert torch.isfinite(error).all()
