import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenspipe.catalog.names import iau_names
from lenspipe.sky.healpix import cells_around, healpix29

PATTERN = re.compile(r"LPC J(\d\d)(\d\d)(\d\d\.\d\d)([+-])(\d\d)(\d\d)(\d\d\.\d)$")


@given(st.floats(0, 360, exclude_max=True), st.floats(-90, 90))
def test_a_name_is_the_position_cut_off_never_rounded(ra_deg, dec_deg):
    h, m, s, sign, d, am, a = PATTERN.match(iau_names([ra_deg], [dec_deg])[0].as_py()).groups()
    assert int(m) < 60 and int(am) < 60 and float(s) < 60 and float(a) < 60
    # exact rational arithmetic; positions are read to a millionth of the last digit
    centiseconds, deciarcsec = Fraction(ra_deg) * 24_000, abs(Fraction(dec_deg)) * 36_000
    named = (int(h) * 60 + int(m)) * 6000 + int(s.replace(".", ""))
    assert -Fraction(1, 10**6) < (centiseconds - named + 4_320_000) % 8_640_000 - 4_320_000 < 1
    named = (int(d) * 60 + int(am)) * 600 + int(a.replace(".", ""))
    assert -Fraction(1, 10**6) < deciarcsec - named < 1
    assert (sign == "-") == (dec_deg < 0)


def test_positions_given_in_round_numbers_keep_them():
    assert iau_names([15.0], [0.7]).to_pylist() == ["LPC J010000.00+004200.0"]


def test_right_ascension_wraps_before_it_reads_24_hours():
    assert iau_names([359.9999999, -1e-15, 720.0], [0.0, 0.0, -90.0]).to_pylist() == [
        "LPC J235959.99+000000.0",
        "LPC J000000.00+000000.0",
        "LPC J000000.00-900000.0",
    ]


def test_a_position_that_is_none_has_no_name():
    with pytest.raises(ValueError, match="finite"):
        iau_names([np.nan], [0.0])


def test_healpix_of_a_cone_lies_in_the_cells_around_its_centre(rng):
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, 300)))
    dec[:20] = np.sign(dec[:20]) * (90 - rng.uniform(0, 5e-4, 20))
    ra = rng.uniform(0, 360, 300)
    radius = 1.0
    cells, order = cells_around(healpix29(ra, dec), radius)
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        # points on the circle, by the exact spherical formula, so that the poles are right
        r = np.radians(radius / 3600)
        d = np.radians(dec)
        d2 = np.arcsin(np.sin(d) * np.cos(r) + np.cos(d) * np.sin(r) * np.cos(angle))
        dra = np.arctan2(np.sin(angle) * np.sin(r) * np.cos(d), np.cos(r) - np.sin(d) * np.sin(d2))
        there = healpix29((ra + np.degrees(dra)) % 360, np.degrees(d2)) >> (2 * (29 - order))
        assert (cells == there[:, None]).any(axis=1).all()
