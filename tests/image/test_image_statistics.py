"""Statistics of stamps see what they are named after."""

from __future__ import annotations

import numpy as np

from lenspipe.image.statistics import image_statistics


def named(stamps: np.ndarray) -> dict[str, np.ndarray]:
    values, names = image_statistics(stamps, bands=("g", "r"), pixel_scale_arcsec=0.25)
    assert np.isfinite(values).all()
    return dict(zip(names, values.T, strict=True))


def galaxy(rng: np.random.Generator, n: int = 20, side: int = 49) -> np.ndarray:
    y, x = np.indices((side, side)) - side // 2
    light = 30 * np.exp(-(x**2 + y**2) / 30)
    return rng.normal(0, 1, (n, 2, side, side)) + light * np.array([0.5, 1.0])[:, None, None]


def test_correlated_noise_is_seen_and_its_direction(rng: np.random.Generator) -> None:
    white = galaxy(rng)
    smeared = (white + np.roll(white, 1, axis=3)) / np.sqrt(2)
    assert abs(named(white)["noise r along x"].mean()) < 0.05
    assert abs(named(smeared)["noise r along x"].mean() - 0.5) < 0.07
    assert abs(named(smeared)["noise r along y"].mean()) < 0.07


def test_an_arc_changes_profile_colour_and_asymmetry(rng: np.random.Generator) -> None:
    plain = galaxy(rng)
    arc = plain.copy()
    arc[:, 0, 30:33, 20:30] += 20  # blue, 1.5 to 2 arcsec off the centre, on one side
    before, after = named(plain), named(arc)
    assert (after["shape g asymmetry"] > before["shape g asymmetry"]).all()
    assert after["colours g-r ring 4"].mean() > before["colours g-r ring 4"].mean() + 0.3
    assert np.array_equal(after["profile r ring 4"], before["profile r ring 4"])


def test_a_stamp_does_not_depend_on_its_neighbours(rng: np.random.Generator) -> None:
    stamps = galaxy(rng)
    whole, one = named(stamps), named(stamps[3:4])
    for name in whole:
        np.testing.assert_allclose(whole[name][3], one[name][0], rtol=1e-12, atol=1e-12)


def test_all_scale_free_statistics_stay_when_the_flux_unit_changes(rng: np.random.Generator) -> None:
    stamps = galaxy(rng)
    one, other = named(stamps), named(stamps * 1e-3)
    for name in (n for n in one if not n.endswith("level")):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-9, atol=1e-9)
