"""Light that is lifted off the sky: all of the galaxy, without the noise and the neighbours."""

from __future__ import annotations

import numpy as np

from lenspipe.completeness.light import lift_light


def galaxy(side: int = 61, x0: float = 30.3, y0: float = 29.8) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    along, across = (x - x0) * np.cos(0.4) + (y - y0) * np.sin(0.4), (y - y0) * np.cos(0.4) - (x - x0) * np.sin(0.4)
    return 400 * np.exp(-np.sqrt(along**2 * 0.7 + across**2 / 0.7) / 3)


def lifted(stamp: np.ndarray) -> np.ndarray:
    rms = np.array([1.0])
    return lift_light(stamp.astype(np.float32), rms, 30.3, 29.8, axis_ratio=0.7, angle_rad=0.4)


def test_the_light_is_the_galaxy_s(rng: np.random.Generator) -> None:
    truth = galaxy()[None]
    found = lifted(truth + rng.normal(0, 1, truth.shape))
    assert abs(found.sum() / truth.sum() - 1) < 0.02
    far = truth < 3
    assert np.abs(found - truth)[far].mean() < 0.3  # the sky's own noise has a mean of 0.8


def test_a_neighbour_is_left_behind(rng: np.random.Generator) -> None:
    truth = galaxy()[None]
    y, x = np.mgrid[:61, :61]
    neighbour = 60 * np.exp(-((x - 46) ** 2 + (y - 44) ** 2) / 8)
    noise = rng.normal(0, 1, truth.shape)
    taken = lifted(truth + neighbour + noise).sum() - lifted(truth + noise).sum()
    assert abs(taken) < 0.2 * neighbour.sum()


def test_no_light_is_negative_and_an_empty_stamp_has_hardly_any(rng: np.random.Generator) -> None:
    found = lifted(rng.normal(0, 1, (1, 61, 61)))
    assert found.min() >= 0
    assert found.sum() < 20  # 1 sigma in the 400 pixels of a galaxy
