import re
from pathlib import Path

import numpy as np
import pytest
from astropy.stats import mad_std

import lenspipe
from lenspipe.robust import robust_sigma


def test_agrees_with_astropy_to_the_rounding_of_the_factor(rng):
    values = rng.normal(3.0, 2.0, (4, 5, 100))
    np.testing.assert_allclose(robust_sigma(values, (1, 2)), mad_std(values, axis=(1, 2)), rtol=2e-6)
    assert float(robust_sigma(values)) == pytest.approx(mad_std(values), rel=2e-6)
    assert robust_sigma(values, (1, 2), keepdims=True).shape == (4, 1, 1)


def test_deviations_are_counted_from_what_is_given(rng):
    values = rng.normal(5.0, 1.0, 1000)
    assert float(robust_sigma(values, around=0.0)) == pytest.approx(1.4826 * np.median(values), rel=1e-12)


def test_a_tenth_of_wild_values_raises_it_by_a_seventh_and_float32_stays(rng):
    values = rng.normal(0, 1, 30_000).astype(np.float32)
    values[:3000] = 1e6
    assert robust_sigma(values) == pytest.approx(1.14, abs=0.03)
    assert robust_sigma(values).dtype == np.float32


def test_the_factor_stands_in_one_place_of_the_package():
    package = Path(lenspipe.__file__).parent
    holders = [
        p.relative_to(package).as_posix() for p in package.rglob("*.py") if re.search(r"1\.4826\b", p.read_text())
    ]
    assert [name for name in holders if name != "robust.py"] == []
