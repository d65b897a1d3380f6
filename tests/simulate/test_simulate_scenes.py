"""Training stamps: what is painted, what is kept of the host, and that every draw can be repeated alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import DataError
from lenspipe.infer.committee import dihedral_view
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.simulate.artefacts import spoil_pixels
from lenspipe.simulate.negatives import NON_LENSES
from lenspipe.simulate.paint.host import Host, draw_view
from lenspipe.simulate.paint.scene import ScenePlan, host_size_px, make_scene, make_scenes, scene_size_px, visible_px

CARD = ModelCard(
    name="small",
    family="small-cnn",
    bands=("g", "r", "i"),
    pixel_scale_arcsec=0.27,
    scale_tolerance=0.1,
    min_scale_arcsec=0.15,
    max_scale_arcsec=0.36,
    stamp_px=41,
    stretch=Stretch(band_scales=(0.016, 0.0057, 0.0038), alpha=0.09, q=1.0),
)
RMS = np.array([14.0, 16.0, 33.0])
SEEN = 8
"""A seed whose arc is visible on the host below."""


def make_host(seed: int = 0, kind: str = "early", scale: float = 0.3) -> Host:
    rng = np.random.default_rng(seed)
    n = host_size_px(CARD, scale, 0.22)
    y, x = np.indices((n, n)) - n // 2
    light = 10000 * np.array([0.15, 0.6, 1.0])[:, None, None] * np.exp(-np.hypot(x, y * 1.2) * scale / 0.5) * scale**2
    return Host(
        name=f"h{seed}",
        kind=kind,
        pixels_njy=(light + rng.normal(0, 1, light.shape) * RMS[:, None, None]).astype(np.float32),
        pixel_scale_arcsec=scale,
        psf_fwhm_arcsec=np.array([1.0, 0.8, 0.85]),
        sky_rms_njy=RMS,
        mag=19.0,
        axis_ratio=0.8,
        angle_rad=0.3,
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_view_keeps_the_signal_to_noise_of_every_pixel(seed: int) -> None:
    host = make_host()
    view = draw_view(
        host, np.random.default_rng(seed), scale_range_arcsec=(0.22, 0.3), mag_range=(18, 21), brightness_range=(0.2, 1)
    )
    before = host.pixels_njy / host.sky_rms_njy[:, None, None]
    np.testing.assert_allclose(view.pixels_njy / view.sky_rms_njy[:, None, None], before, rtol=1e-5)
    assert 0.22 <= view.pixel_scale_arcsec <= 0.3
    seeing = view.psf_fwhm_arcsec / view.pixel_scale_arcsec
    np.testing.assert_allclose(seeing, host.psf_fwhm_arcsec / host.pixel_scale_arcsec)


def test_a_lens_scene_is_its_host_plus_an_arc_of_the_stated_signal() -> None:
    host = make_host()
    lens, truth = make_scene("lens", host, np.random.default_rng(SEEN), card=CARD, least_scale_arcsec=0.22)
    plain, _ = make_scene("plain", host, np.random.default_rng(SEEN), card=CARD, least_scale_arcsec=0.22)
    assert lens.shape == plain.shape == (3, scene_size_px(CARD), scene_size_px(CARD))
    added = lens - plain
    assert added.min() > -0.05 * added.max()  # only the resampling's ringing is negative
    y, x = np.indices(added.shape[1:]) - added.shape[1] // 2
    radius = np.hypot(x, y) * CARD.pixel_scale_arcsec
    share = np.cumsum(np.bincount(np.rint(radius * 10).astype(int).ravel(), added.sum(0).ravel()))
    assert share[int(10 * 2.2 * truth["theta_e_arcsec"] + 10)] > 0.9 * share[-1]
    assert truth["is_lens"] and truth["arc_snr"] >= 30


def test_an_arc_within_a_saturated_core_cannot_be_seen_and_the_same_arc_beside_it_can() -> None:
    size = host_size_px(CARD, 0.27, 0.27)
    y, x = (np.indices((size, size)) - size // 2) * 0.27
    host = np.stack([np.exp(-((x**2 + y**2) / 1.5**2)).astype(np.float32) * 3e4] * 3)
    arc = 60 * np.exp(-(((np.hypot(x, y) - 1.0) / 0.4) ** 2)) * (x > 0)
    inside = np.stack([arc.astype(np.float32)] * 3)
    beside = np.roll(inside, 16, axis=2)
    assert visible_px(host + inside, inside, 0.27, CARD, change=0.15) == 0
    assert visible_px(host + beside, beside, 0.27, CARD, change=0.15) >= ScenePlan().min_visible_px
    with pytest.raises(DataError, match=r"the arc cannot be seen.*visible_px=24"):
        make_scene("lens", make_host(), np.random.default_rng(7), card=CARD, least_scale_arcsec=0.22)


def test_scenes_do_not_depend_on_how_many_are_made() -> None:
    hosts = {kind: [make_host(k) for k in range(3)] for kind in ("lens", "companions")}
    few, _ = make_scenes({"lens": 2, "companions": 2}, hosts, seed=4, card=CARD, least_scale_arcsec=0.22)
    more, truths = make_scenes({"lens": 4, "companions": 3}, hosts, seed=4, card=CARD, least_scale_arcsec=0.22)
    np.testing.assert_array_equal(more[:2], few[:2])
    np.testing.assert_array_equal(more[4:6], few[2:])
    assert [truth["is_lens"] for truth in truths] == [True] * 4 + [False] * 3


KINDS = [name for name, kind in NON_LENSES.items() if not kind.of_images and name != "early_type"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_look_alike_changes_its_host_and_stays_finite(kind: str) -> None:
    host = make_host()
    scene, truth = make_scene(kind, host, np.random.default_rng(3), card=CARD, least_scale_arcsec=0.22)
    plain, _ = make_scene("plain", host, np.random.default_rng(3), card=CARD, least_scale_arcsec=0.22)
    assert np.isfinite(scene).all()
    assert np.abs(scene - plain).max() > 10
    assert not truth["is_lens"]


def test_the_plan_sets_what_is_painted() -> None:
    plan = ScenePlan(theta_e_arcsec=(2.0, 2.5), near_artefact_fraction=0.0, min_visible_px=0)
    _, truth = make_scene("lens", make_host(), np.random.default_rng(1), card=CARD, least_scale_arcsec=0.22, plan=plan)
    assert 2.0 <= truth["theta_e_arcsec"] <= 2.5


def test_a_kind_without_hosts_is_refused() -> None:
    with pytest.raises(DataError, match="no hosts for a kind of scene"):
        make_scenes({"lens": 1}, {}, seed=1, card=CARD, least_scale_arcsec=0.22)


def test_spoiled_pixels_are_saturated_or_gone() -> None:
    seen = set()
    for seed in range(40):
        pixels = np.random.default_rng(seed).normal(0, 10, (3, 61, 61)).astype(np.float32)
        spoil_pixels(pixels, 0.27, np.random.default_rng(seed))
        assert np.isfinite(pixels).all()
        seen |= {"gone"} if (pixels == 0).sum() > 20 else set()
        seen |= {"saturated"} if (pixels == pixels.max()).sum() > 5 else set()
    assert seen == {"gone", "saturated"}


def test_the_eight_views_differ_and_hold_the_same_pixels() -> None:
    stamp = np.arange(2 * 25, dtype=np.float32).reshape(2, 5, 5)
    views = [dihedral_view(stamp, k) for k in range(8)]
    assert len({view.tobytes() for view in views}) == 8
    for view in views:
        np.testing.assert_array_equal(np.sort(view.ravel()), np.sort(stamp.ravel()))
        assert view[0, 2, 2] == 12
