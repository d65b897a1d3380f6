import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM, LambdaCDM
from lenstronomy.Cosmo.lens_cosmo import LensCosmo

from lenspipe.errors import ConfigError
from lenspipe.simulate.cosmology import (
    critical_density_msun_arcsec2,
    einstein_radius_arcsec,
    lens_distances_mpc,
    point_mass_einstein_radius_arcsec,
)

FLAT = FlatLambdaCDM(H0=70, Om0=0.3)


@pytest.mark.parametrize("universe", [FLAT, LambdaCDM(H0=68, Om0=0.3, Ode0=0.6), LambdaCDM(H0=68, Om0=0.4, Ode0=0.7)])
def test_lens_distances_are_astropys_angular_diameter_distances(universe):
    z_lens, z_source = np.array([0.1, 0.5, 0.9]), np.array([0.6, 2.0, 3.0])
    d_lens, d_source, d_between = lens_distances_mpc(z_lens, z_source, cosmology=universe)
    np.testing.assert_allclose(d_lens, universe.angular_diameter_distance(z_lens).value, rtol=1e-9)
    np.testing.assert_allclose(d_source, universe.angular_diameter_distance(z_source).value, rtol=1e-9)
    want = [universe.angular_diameter_distance(a, b).value for a, b in zip(z_lens, z_source, strict=True)]
    np.testing.assert_allclose(d_between, want, rtol=1e-9)


def test_einstein_radius_follows_from_dispersion_with_angular_diameter_distances():
    lens = LensCosmo(0.5, 2.0, cosmo=FLAT)
    got = einstein_radius_arcsec(np.array([200.0, 300.0]), 0.5, 2.0)
    np.testing.assert_allclose(got, [lens.sis_sigma_v2theta_E(200.0), lens.sis_sigma_v2theta_E(300.0)], rtol=1e-4)
    by_hand = 4 * np.pi * (200 / 299792.458) ** 2 * lens.dds / lens.ds * 206264.806
    assert got[0] == pytest.approx(by_hand, rel=1e-7)
    luminosity = FLAT.luminosity_distance([0.5, 2.0]).value
    wrong = 4 * np.pi * (200 / 299792.458) ** 2 * (luminosity[1] - luminosity[0]) / luminosity[1] * 206264.806
    assert abs(wrong / got[0] - 1) > 0.2  # the fault of a public simulator is far outside the tolerance above


def test_critical_density_and_point_mass_radius_agree_with_lenstronomy():
    lens = LensCosmo(0.4, 1.5, cosmo=FLAT)
    density = critical_density_msun_arcsec2(0.4, 1.5)
    assert density == pytest.approx(lens.sigma_crit_angle, rel=5e-4)  # lenstronomy's G is of 2010
    mass = [1e8, 1e11]
    want = np.sqrt(4 * 4.30091727e-9 * np.array(mass) / 299792.458**2 * lens.dds / (lens.dd * lens.ds)) * 206264.806
    np.testing.assert_allclose(point_mass_einstein_radius_arcsec(mass, density), want, rtol=1e-6)


def test_a_source_in_front_of_its_lens_is_refused():
    with pytest.raises(ConfigError, match="behind lenses"):
        einstein_radius_arcsec(200.0, 0.8, 0.5)
