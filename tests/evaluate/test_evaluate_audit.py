"""The audit's pictures turn and shift the sky as they say."""

from __future__ import annotations

import numpy as np
import pytest

from lenspipe.errors import DataError, ModelError
from lenspipe.evaluate.audit import shifted, turned
from lenspipe.infer.committee import combine, dihedral_view
from lenspipe.infer.prepare import prepare_stamps
from lenspipe.infer.stamps import covered_side, stamp_brightness, stamp_input
from lenspipe.nn.card import ModelCard


def blob(x: float, y: float, n: int = 41, sigma: float = 2.5) -> np.ndarray:
    axis = np.arange(n) - (n - 1) / 2
    return np.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / (2 * sigma**2)).astype(np.float32)


def centre(image: np.ndarray) -> tuple[float, float]:
    axis = np.arange(image.shape[-1]) - (image.shape[-1] - 1) / 2
    return float((image * axis).sum() / image.sum()), float((image * axis[:, None]).sum() / image.sum())


@pytest.mark.parametrize("angle", [0.0, 22.5, 90.0, 137.0, 180.0, 301.0])
@pytest.mark.parametrize("n", [40, 41])
def test_a_turn_moves_a_source_from_x_towards_y(angle: float, n: int) -> None:
    x, y = 8.0, 2.0
    moved = next(turned(blob(x, y, n)[None, None], [angle]))[0, 0]
    a = np.radians(angle)
    want = (x * np.cos(a) - y * np.sin(a), x * np.sin(a) + y * np.cos(a))
    assert centre(moved) == pytest.approx(want, abs=0.02)
    assert moved.sum() == pytest.approx(blob(x, y, n).sum(), rel=2e-3)


def test_right_angles_are_quarter_turns_of_the_turn_by_nothing() -> None:
    image = np.random.default_rng(0).normal(size=(2, 3, 20, 20)).astype(np.float32)
    flat, *right = turned(image, [0.0, 90.0, 180.0, 270.0])
    for k, moved in enumerate(right, 1):
        np.testing.assert_allclose(moved, np.rot90(flat, -k, axes=(-2, -1)), atol=1e-4)


def test_a_shift_moves_a_source_by_its_fraction_of_a_pixel() -> None:
    assert centre(shifted(blob(1, 2)[None], 0.5, 0.25)[0]) == pytest.approx((1.5, 2.25), abs=1e-3)


def test_the_eight_views_are_all_different_and_come_back() -> None:
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    views = [dihedral_view(image, k).tobytes() for k in range(8)]
    assert len(set(views)) == 8
    np.testing.assert_array_equal(dihedral_view(dihedral_view(image, 6), 6), image)
    np.testing.assert_array_equal(dihedral_view(dihedral_view(image, 1), 3), image)


def test_a_product_ranks_as_the_product_and_does_not_shrink_with_members() -> None:
    scores = np.random.default_rng(1).uniform(size=(8, 30))
    np.testing.assert_array_equal(np.argsort(combine(scores, "product")), np.argsort(scores.prod(axis=0)))
    np.testing.assert_allclose(combine(np.full((8, 3), 0.3), "product"), 0.3)
    assert combine(np.array([[0.0], [0.9]]), "product")[0] == 0


CARD = ModelCard(
    name="m",
    family="small-cnn",
    bands=("r", "g"),
    pixel_scale_arcsec=0.25,
    scale_tolerance=0.1,
    min_scale_arcsec=0.1,
    max_scale_arcsec=0.4,
    stamp_px=31,
    stretch={"name": "linear", "band_scales": (1, 1), "alpha": 1.0, "q": 1.0},
)


@pytest.mark.parametrize(("n", "scale"), [(31, 0.25), (61, 0.25), (81, 0.14), (45, 0.26)])
def test_stamps_that_a_scan_could_cut_give_the_input_of_the_scan(n: int, scale: float) -> None:
    stamps = np.random.default_rng(2).normal(size=(3, 2, n, n)).astype(np.float32)
    ours = stamp_input(stamps, bands=("g", "r"), pixel_scale_arcsec=scale, card=CARD)
    np.testing.assert_allclose(
        ours, prepare_stamps(stamps, cutout_scale_arcsec=scale, card=CARD, bands=("g", "r")), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("n", "scale"), [(40, 0.25), (26, 0.25), (31, 0.2), (50, 0.15), (25, 0.26)])
def test_the_centre_of_any_stamp_stays_the_centre(n: int, scale: float) -> None:
    stamp = np.stack([np.zeros((n, n), np.float32), blob(1.0, -0.5, n)])[None]
    seen = stamp_brightness(stamp, bands=("g", "r"), pixel_scale_arcsec=scale, card=CARD)[0]
    grid = 0.25 if abs(scale / 0.25 - 1) > 0.1 else scale
    assert centre(seen[0]) == pytest.approx((scale / grid, -0.5 * scale / grid), abs=0.02)
    assert seen[0].sum() * grid**2 == pytest.approx(blob(1.0, -0.5, n).sum(), rel=1e-2)
    assert not seen[1].any()


def test_small_stamps_are_padded_with_empty_sky_and_too_small_ones_refused() -> None:
    seen = stamp_brightness(np.ones((1, 2, 25, 25), np.float32), bands=("g", "r"), pixel_scale_arcsec=0.25, card=CARD)
    assert (seen[0, 0] != 0).sum() == 25 * 25
    assert covered_side(CARD, 25, 0.25) == pytest.approx(25 / 31)
    with pytest.raises(DataError, match="too small"):
        covered_side(CARD, 18, 0.25)
    with pytest.raises(ModelError, match="do not fit the model"):
        stamp_brightness(np.ones((1, 1, 31, 31), np.float32), bands=("g",), pixel_scale_arcsec=0.25, card=CARD)
    with pytest.raises(DataError, match=r"finite.*n=1, first=1"):
        broken = np.zeros((2, 2, 31, 31), np.float32)
        broken[1, 0, 0, 0] = np.nan
        stamp_brightness(broken, bands=("g", "r"), pixel_scale_arcsec=0.25, card=CARD)
