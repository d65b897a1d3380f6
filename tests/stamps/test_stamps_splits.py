from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from cdshealpix.nested import vertices
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import ConfigError
from lenspipe.stamps.splits import SKY_ORDER, splits_by_key, splits_by_position


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("ab/ 0é☉", min_size=1), min_size=1), st.randoms(use_true_random=False))
def test_a_host_keeps_its_split_whatever_the_other_rows_are(keys, random):
    together = dict(zip(keys, splits_by_key(keys, seed=3), strict=True))
    shuffled = random.sample(keys, len(keys))
    assert dict(zip(shuffled, splits_by_key(shuffled, seed=3), strict=True)) == together
    assert all(splits_by_key([key], seed=3)[0] == together[key] for key in keys)


def test_fractions_of_hosts_are_kept_within_four_sigma():
    keys = [f"host-{k}" for k in range(20_000)]
    fractions = {"train": 0.7, "validation": 0.1, "test": 0.2}
    splits = splits_by_key(keys, seed=0, fractions=fractions)
    for name, fraction in fractions.items():
        assert abs((splits == name).mean() - fraction) < 4 * np.sqrt(fraction * (1 - fraction) / len(keys))
    again = splits_by_key(keys, seed=1, fractions=fractions)
    assert 0.3 < (again != splits).mean() < 0.6  # another seed deals anew: 1 - sum of squares is 0.46


def test_stamps_nearer_than_the_margin_are_never_in_two_splits():
    """Pairs around the corners and edges of cells, where it is hardest; also at the poles and across RA 0."""
    rng = np.random.default_rng(5)
    lon, lat = vertices(rng.integers(0, 12 * 4**SKY_ORDER, 1000), SKY_ORDER)
    ra, dec = lon.deg.ravel(), lat.deg.ravel()
    margin = 5.0

    def near(ra, dec):
        radius, angle = rng.random(len(ra)) * margin / 3600, rng.random(len(ra)) * 2 * np.pi
        start = SkyCoord(ra % 360, dec, unit="deg")
        return start.directional_offset_by(angle * u.rad, radius * u.deg)

    one, two = near(ra, dec), near(ra, dec)
    half = {"train": 0.5, "test": 0.5}
    a, b = (splits_by_position(p.ra.deg, p.dec.deg, seed=2, margin_arcsec=margin, fractions=half) for p in (one, two))
    close = one.separation(two).arcsec < margin
    assert close.sum() > 1250
    assert not any(x != y and x is not None and y is not None for x, y in zip(a[close], b[close], strict=True))
    without = [splits_by_position(p.ra.deg, p.dec.deg, seed=2, margin_arcsec=0.0, fractions=half) for p in (one, two)]
    assert (without[0][close] != without[1][close]).sum() > 250  # the margin is what keeps them apart


def test_the_margin_costs_little_sky():
    rng = np.random.default_rng(6)
    ra, dec = rng.random(20_000) * 360, np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000)))
    splits = splits_by_position(ra, dec, seed=0, margin_arcsec=5.0)
    assert np.mean([split is None for split in splits]) < 0.004


@pytest.mark.parametrize("fractions", [{"train": 0.5}, {"train": 0.5, "holdout": 0.5}, {"train": 1.5, "test": -0.5}])
def test_fractions_that_do_not_add_up_are_refused(fractions):
    with pytest.raises(ConfigError, match="must add up to 1"):
        splits_by_key(["a"], seed=0, fractions=fractions)
