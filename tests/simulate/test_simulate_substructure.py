import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lenstronomy.LensModel.Profiles.point_mass import PointMass
from lenstronomy.LensModel.Profiles.tnfw import TNFW
from scipy import stats
from scipy.integrate import quad

from lenspipe.errors import ConfigError
from lenspipe.simulate.substructure import (
    TRUNCATION,
    Subhalos,
    Vortex,
    draw_subhalo_masses,
    draw_subhalos,
    draw_vortex,
    mean_subhalo_mass_msun,
    scale_radius_kpc,
)

MASSES = (1e7, 1e10)
LENS = {"theta_e_arcsec": 1.2, "critical_density": 6e10, "kpc_per_arcsec": 6.0}


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 4), st.floats(-3, 3), st.integers(0, 99))
def test_vortex_deflection_equals_numerical_integration_of_point_masses(length, angle, seed):
    x, y = np.random.default_rng(seed).uniform(-3, 3, 2)
    vortex = Vortex(0.3, -0.2, length, angle, 0.4)

    def pull(s, axis):
        d = np.array([x - 0.3 - s * np.cos(angle), y + 0.2 - s * np.sin(angle)])
        return 0.4**2 / length * d[axis] / (d @ d)

    want = [quad(pull, -length / 2, length / 2, args=(axis,), limit=500)[0] for axis in (0, 1)]
    np.testing.assert_allclose(vortex.deflection(np.array(x), np.array(y)), want, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, np.pi / 2, 0.4])
def test_a_ray_at_the_very_end_of_a_vortex_is_bent_by_a_number(angle):
    vortex = Vortex(0.0, 0.0, 1.0, angle, 0.3)
    ends = np.array([0.5, -0.5])
    bent = vortex.deflection(ends * np.cos(angle), ends * np.sin(angle))
    assert np.isfinite(bent).all()
    near = vortex.deflection(0.49 * np.sign(ends) * np.cos(angle), 0.49 * np.sign(ends) * np.sin(angle))
    assert (np.hypot(*bent) > np.hypot(*near)).all()


def test_a_short_vortex_is_a_point_mass_and_mass_inside_a_circle_is_the_vortexs():
    x, y = np.array([1.0, -0.4]), np.array([0.5, 2.0])
    np.testing.assert_allclose(
        Vortex(0, 0, 1e-4, 0.7, 0.3).deflection(x, y), PointMass().derivatives(x, y, theta_E=0.3), rtol=1e-6
    )
    turn = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    ax, ay = Vortex(0.1, 0.2, 1.0, 0.7, 0.3).deflection(2 * np.cos(turn), 2 * np.sin(turn))
    flux = np.mean(ax * np.cos(turn) + ay * np.sin(turn)) * 2  # Gauss: mean radial deflection times radius
    assert flux == pytest.approx(0.3**2, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.2, 5), st.floats(-3, 3), st.floats(-2, 2), st.floats(-2, 2))
def test_the_part_of_a_vortex_within_a_circle_is_that_of_many_points_on_it(length, angle, x, y):
    s = ((np.arange(20000) + 0.5) / 20000 - 0.5) * length
    near = np.hypot(x + s * np.cos(angle), y + s * np.sin(angle)) < 1.2
    assert Vortex(x, y, length, angle, 0.3).fraction_within(1.2) == pytest.approx(near.mean(), abs=2e-4)


def test_truncated_subhalos_agree_with_lenstronomy(rng):
    x, y = rng.uniform(-3, 3, (2, 50))
    halo = Subhalos(np.array([0.2]), np.array([-0.1]), np.array([0.05]), np.array([0.3]))
    far, _ = TNFW().derivatives(np.array([1e7]), np.array([0.0]), Rs=0.3, alpha_Rs=1.0, r_trunc=0.3 * TRUNCATION)
    amplitude = 0.05**2 / (far[0] * 1e7)
    want = TNFW().derivatives(x, y, Rs=0.3, alpha_Rs=amplitude, r_trunc=0.3 * TRUNCATION, center_x=0.2, center_y=-0.1)
    np.testing.assert_allclose(halo.deflection(x, y), want, atol=1e-6)


def test_point_subhalos_agree_with_lenstronomy(rng):
    x, y = rng.uniform(-3, 3, (2, 50))
    halos = Subhalos(np.array([0.2, 1.0]), np.array([-0.1, 0.4]), np.array([0.05, 0.02]), np.zeros(2))
    one = np.array(PointMass().derivatives(x, y, theta_E=0.05, center_x=0.2, center_y=-0.1))
    two = np.array(PointMass().derivatives(x, y, theta_E=0.02, center_x=1.0, center_y=0.4))
    np.testing.assert_allclose(halos.deflection(x, y), one + two, rtol=1e-6, atol=1e-12)


def test_the_number_of_subhalos_is_poisson_about_its_mean():
    drawn = [
        draw_subhalos(np.random.default_rng([8, k]), mass_fraction=0.01, slope=-1.9, mass_range_msun=MASSES, **LENS)
        for k in range(1500)
    ]
    n, mean = np.array([f["n_subhalo"] for _, f in drawn]), drawn[0][1]["n_subhalo_expected"]
    assert [len(s.x_arcsec) for s, _ in drawn] == n.tolist()  # the number that was drawn is the number that lenses
    assert n.mean() == pytest.approx(mean, abs=4 * np.sqrt(mean / 1500))
    assert n.var() == pytest.approx(mean, rel=4 * np.sqrt(2 / 1500))
    assert (
        stats.kstest(
            n + np.random.default_rng(0).uniform(-0.5, 0.5, len(n)), stats.norm(mean, np.sqrt(mean)).cdf
        ).statistic
        < 0.06
    )
    total = np.mean([f["subhalo_mass_msun"] for _, f in drawn])
    assert total == pytest.approx(0.01 * np.pi * 1.2 * 1.8 * 6e10, rel=0.1)


@pytest.mark.parametrize("slope", [-1.9, -1.0, -2.0, -1.5])
def test_subhalo_masses_follow_their_mass_function(slope):
    masses = draw_subhalo_masses(np.random.default_rng(3), 40000, slope, MASSES)
    m = np.geomspace(*MASSES, 4000)
    density = m**slope
    cumulative = np.concatenate([[0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(m))])
    assert stats.kstest(masses, lambda v: np.interp(v, m, cumulative / cumulative[-1])).pvalue > 1e-3
    by_hand = np.trapezoid(m * density, m) / np.trapezoid(density, m)
    assert mean_subhalo_mass_msun(slope, MASSES) == pytest.approx(by_hand, rel=1e-3)


def test_the_vortex_is_as_long_as_the_de_broglie_wavelength():
    from astropy import constants
    from astropy import units as u

    ask = {"axion_mass_ev": 2e-23, "velocity_dispersion_km_s": 250.0, "mass_msun": 1e10} | LENS
    vortex, facts = draw_vortex(np.random.default_rng(1), **ask)
    mass = 2e-23 * u.eV / constants.c**2
    want = (constants.h / (mass * 250 * u.km / u.s)).to_value("kpc")
    assert vortex.length_arcsec * 6.0 == pytest.approx(want, rel=1e-3)
    assert facts["vortex_density_msun_kpc"] == pytest.approx(1e10 / want, rel=1e-3)
    assert vortex.einstein_radius_arcsec == pytest.approx(np.sqrt(1e10 / (np.pi * 6e10)))


def test_scale_radii_are_about_half_a_kiloparsec_at_1e8():
    assert float(scale_radius_kpc(np.array(1e8))) == pytest.approx(0.47, abs=0.05)


def test_a_falling_range_of_masses_is_refused():
    with pytest.raises(ConfigError, match="must rise"):
        draw_subhalo_masses(np.random.default_rng(0), 3, -1.9, (1e9, 1e8))
