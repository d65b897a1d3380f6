import re
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

import lenspipe
from lenspipe.sky.sphere import (
    arcsec_of_chord,
    chord,
    first_of_each,
    inside_corners,
    nearest,
    ring_around,
    separation_arcsec,
    tangent_plane,
    unit_vectors,
)

RA, DEC = st.floats(0, 360, exclude_max=True), st.floats(-90, 90)


@settings(deadline=None, max_examples=40)
@given(RA, DEC, RA, DEC)
def test_separations_are_astropys(ra, dec, other_ra, other_dec):
    want = SkyCoord(ra, dec, unit="deg").separation(SkyCoord(other_ra, other_dec, unit="deg")).arcsec
    assert float(separation_arcsec(ra, dec, other_ra, other_dec)) == pytest.approx(want, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(RA, DEC, st.floats(1e-3, 3600), st.floats(0, 360))
def test_a_chord_is_as_long_as_its_angle_wherever_it_lies(ra, dec, radius_arcsec, angle_deg):
    one = SkyCoord(ra, dec, unit="deg")
    two = one.directional_offset_by(angle_deg * one.ra.unit, radius_arcsec / 3600 * one.ra.unit)
    ends = unit_vectors(np.array([ra, two.ra.deg]), np.array([dec, two.dec.deg]))
    # astropy finds the other declination by an arcsine, which near a pole has few digits
    astropys = 1e-15 / max(np.cos(np.radians(dec)), np.radians(radius_arcsec / 3600))
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(chord(radius_arcsec), rel=1e-6, abs=1e-14 + astropys)
    assert float(arcsec_of_chord(chord(radius_arcsec))) == pytest.approx(radius_arcsec, rel=1e-9)


def test_the_nearest_across_ra_0_and_the_pole_is_found_and_the_radius_counts_itself():
    ra, dec = np.array([359.9999, 10.0, 200.0]), np.array([0.0, 89.9999, 0.0])
    other, apart = nearest(ra, dec, np.array([0.0001, 190.0]), np.array([0.0, 89.9999]), radius_arcsec=0.7201)
    assert other.tolist() == [0, 1, -1]
    assert apart[:2] == pytest.approx([0.72, 0.72], rel=1e-6)
    assert np.isnan(apart[2])
    on_it = float(apart[0])
    assert nearest(ra[:1], dec[:1], np.array([0.0001]), np.array([0.0]), radius_arcsec=on_it)[0].tolist() == [0]
    assert nearest(ra[:1], dec[:1], np.array([0.0001]), np.array([0.0]), radius_arcsec=0.7199)[0].tolist() == [-1]
    assert nearest(ra[:0], dec[:0], ra, dec, radius_arcsec=1.0)[0].tolist() == []
    assert nearest(ra, dec, ra[:0], dec[:0], radius_arcsec=1.0)[0].tolist() == [-1, -1, -1]


def test_of_the_rows_of_one_object_the_first_is_kept():
    ra, dec = np.array([0.0, 359.9997, 0.0009, 180.0]), np.array([60.0, 60.0, 60.0, -60.0])
    assert first_of_each(ra, dec, radius_arcsec=1.0) == [0, 2, 3]
    assert first_of_each(ra, dec, radius_arcsec=0.5) == [0, 1, 2, 3]


@pytest.mark.parametrize("dec_deg", [-90.0, -89.9995, 0.0, 80.0])
def test_a_ring_keeps_its_distance_across_the_pole_too(dec_deg):
    for ra, dec in ring_around(np.array([40.0]), np.array([dec_deg]), radius_arcsec=5.0, n=16):
        assert abs(dec[0]) <= 90
        if abs(dec_deg) < 81:
            assert float(separation_arcsec(40.0, dec_deg, ra, dec)[0]) == pytest.approx(5.0, rel=1e-4)


def test_the_tangent_plane_is_astropys_gnomonic_projection(rng):
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ("RA---TAN", "DEC--TAN"), (359.5, 70.0), (1.0, 1.0)
    ra, dec = rng.uniform(350, 370, 50) % 360, rng.uniform(65, 75, 50)
    want = np.radians(wcs.wcs_world2pix(np.stack([ra, dec], axis=1), 0) + 1)
    got = tangent_plane(ra, dec, centre_ra_deg=359.5, centre_dec_deg=70.0)
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert np.isnan(tangent_plane([179.5], [-70.0], centre_ra_deg=359.5, centre_dec_deg=70.0)).all()


def test_geometry_on_the_sphere_stands_in_sky_alone():
    """A cosine of a declination elsewhere is a separation of somebody's own."""
    package = Path(lenspipe.__file__).parent
    own = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "sky" not in path.parts and re.search(r"cos\(\s*(np\.|math\.)?radians\([^)]*dec|58\.63", path.read_text())
    ]
    assert own == []


def test_positions_inside_corners_are_those_that_spherical_geometry_puts_on_the_same_side_of_every_edge(rng):
    ra, dec = np.array([359.4, 0.8, 0.9, 359.5]), np.array([69.7, 69.6, 70.3, 70.2])
    at_ra, at_dec = rng.uniform(-1, 1.5, 500) % 360, rng.uniform(69.3, 70.6, 500)
    corner, place = unit_vectors(ra, dec), unit_vectors(at_ra, at_dec)
    want = (np.cross(corner, np.roll(corner, -1, axis=0)) @ place.T > 0).all(axis=0)
    assert 50 < want.sum() < 300
    assert (inside_corners(at_ra, at_dec, ra, dec) == want).all()
    assert (inside_corners(at_ra, at_dec, ra[::-1], dec[::-1]) == want).all()
    assert not inside_corners([179.9, np.nan], [-70.0, 70.0], ra, dec).any()
