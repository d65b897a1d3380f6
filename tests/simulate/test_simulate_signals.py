"""Substructure drawn without images is the substructure that stamps have."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Cosmo.lens_cosmo import LensCosmo
from scipy.stats import ks_2samp

from lenspipe.errors import ConfigError
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.simulate.signals import N_POINT, OF_LENSES, draw_signals
from lenspipe.stamps.format import StampSet

RECIPE = read_recipe("substructure-1")
LENSES = {
    "theta_e_arcsec": np.array([1.4, 0.9, 1.1]),
    "z_lens": np.array([0.3, 0.5, 0.6]),
    "z_source": np.array([1.5, 2.0, 2.5]),
    "velocity_dispersion_km_s": np.array([280.0, 230.0, 260.0]),
}


@pytest.fixture(scope="module")
def drawn():
    return draw_signals(RECIPE, LENSES, n=300, seed=4)


def lists(table, label, name):
    return [np.array(one) for one in table.filter([x == label for x in table["label"].to_pylist()])[name].to_pylist()]


def test_draws_come_by_class_and_rising_einstein_radius(drawn):
    assert drawn["label"].to_pylist() == ["subhalo"] * 300 + ["vortex"] * 300
    for first in (0, 300):
        radii = drawn["theta_e_arcsec"].to_numpy()[first : first + 300]
        assert (np.diff(radii) >= 0).all()
        assert set(radii) == {0.9, 1.1, 1.4}
    assert drawn.equals(draw_signals(RECIPE, LENSES, n=300, seed=4))
    assert not drawn.equals(draw_signals(RECIPE, LENSES, n=300, seed=5))


def test_draws_say_what_they_were_drawn_by(drawn):
    """The heaviest mass first; of a vortex its square is the sum of its points'."""
    squares = {label: lists(drawn, label, "square_arcsec2") for label in ("subhalo", "vortex")}
    assert all((np.diff(one) <= 0).all() for one in squares["subhalo"])
    rows = {label: drawn.filter(pc.equal(drawn["label"], label)) for label in squares}
    assert not any(rows["subhalo"]["line"].to_pylist())
    assert all(rows["vortex"]["line"].to_pylist())
    np.testing.assert_allclose(
        rows["vortex"]["vortex_square_arcsec2"], [one.sum() for one in squares["vortex"]], rtol=1e-5
    )
    assert rows["vortex"]["subhalo_slope"].null_count == 300
    fraction, slope = (rows["subhalo"][f"subhalo_{name}"].to_numpy() for name in ("mass_fraction", "slope"))
    assert 0.003 <= fraction.min() < fraction.max() <= 0.03
    assert -2.1 <= slope.min() < slope.max() <= -1.7
    # the whole mass goes by the fraction
    assert np.corrcoef(np.log(fraction), np.log([one.sum() for one in squares["subhalo"]]))[0, 1] > 0.4


def test_masses_lie_where_a_recipe_puts_them(drawn):
    for x, y in zip(lists(drawn, "subhalo", "x"), lists(drawn, "subhalo", "y"), strict=True):
        assert (np.hypot(x, y) <= 1.5 + 1e-6).all()
    for x, y in zip(lists(drawn, "vortex", "x"), lists(drawn, "vortex", "y"), strict=True):
        assert len(x) == N_POINT
        assert 0.5 - 1e-6 <= np.hypot(x.mean(), y.mean()) <= 1.2 + 1e-6
        spread = np.linalg.svd(np.stack([x - x.mean(), y - y.mean()]), compute_uv=False)
        assert spread[1] < 1e-5 * max(spread[0], 1)  # on a line


def test_a_vortex_has_the_mass_that_lenstronomys_critical_density_says(drawn):
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3)
    for theta, z_lens, z_source in zip(*(LENSES[name] for name in OF_LENSES[:3]), strict=True):
        density = LensCosmo(z_lens, z_source, cosmology).sigma_crit_angle
        rows = zip(*(drawn[name].to_pylist() for name in ("label", "theta_e_arcsec", "square_arcsec2")), strict=True)
        mass = (
            np.pi * density * np.array([sum(square) for label, r, square in rows if label == "vortex" and r == theta])
        )
        assert mass.min() == pytest.approx(3e9, rel=0.15)
        assert mass.max() == pytest.approx(2e10, rel=0.15)


def test_masses_are_those_of_simulated_stamps(tmp_path):
    """Einstein radii squared against the masses that stamps say, whatever the lens: the same distributions."""
    small = {"image.0.size_px": 40, "image.0.pixel_scale_arcsec": 0.15, "image.0.supersampling": 2}
    simulate(read_recipe("substructure-1", changes=small), count=400, seed=2, out=tmp_path / "s")
    data = StampSet.open(tmp_path / "s")
    table = draw_signals(RECIPE, {name: data.column(name).astype(float) for name in OF_LENSES}, n=400, seed=1)
    label = data.column("label")
    counts = [len(one) for one in lists(table, "subhalo", "x")]
    assert ks_2samp(counts, data.column("n_subhalo")[label == "subhalo"].astype(float)).pvalue > 0.01
    length = [
        np.hypot(x[-1] - x[0], y[-1] - y[0]) * N_POINT / (N_POINT - 1) * theta
        for x, y, theta in zip(
            lists(table, "vortex", "x"),
            lists(table, "vortex", "y"),
            table.filter([x == "vortex" for x in table["label"].to_pylist()])["theta_e_arcsec"].to_numpy(),
            strict=True,
        )
    ]
    own = data.column("vortex_length_arcsec")[label == "vortex"].astype(float)
    assert ks_2samp(length, own).pvalue > 0.01
    assert ks_2samp(np.array(length) * 1.3, own).pvalue < 0.05


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="draws no substructure"):
        draw_signals(read_recipe("model-f"), LENSES, n=2, seed=1)
    halos = read_recipe("substructure-1", changes={"substructure.point_masses": False})
    with pytest.raises(ConfigError, match="point masses"):
        draw_signals(halos, LENSES, n=2, seed=1)
    with pytest.raises(ConfigError, match="no lens says"):
        draw_signals(RECIPE, {name: np.array([np.nan]) for name in OF_LENSES}, n=2, seed=1)
