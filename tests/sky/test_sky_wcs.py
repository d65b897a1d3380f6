import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from lenspipe.sky.wcs import compass


@pytest.mark.parametrize("turn_deg", [0.0, 37.0, 200.0])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dec", [-30.0, 89.5])
def test_the_compass_points_where_an_offset_on_the_sky_goes(turn_deg, mirrored, dec):
    turn, step = np.radians(turn_deg), 0.2 / 3600
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * step
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ("RA---TAN", "DEC--TAN"), (0.01, dec), (100, 100)
    wcs.wcs.cd = matrix @ np.diag([1.0 if mirrored else -1.0, 1.0])
    x, y = np.array([99.0, 20.0]), np.array([99.0, 150.0])
    here = SkyCoord(*wcs.all_pix2world(x, y, 0), unit="deg")
    for got, angle in zip(compass(wcs, x, y), (0, 90), strict=True):
        there = here.directional_offset_by(angle * u.deg, 1 * u.arcsec)
        px, py = wcs.all_world2pix(there.ra.deg, there.dec.deg, 0)
        want = np.degrees(np.arctan2(py - y, px - x))
        np.testing.assert_allclose((got - want + 180) % 360 - 180, 0, atol=0.05)
