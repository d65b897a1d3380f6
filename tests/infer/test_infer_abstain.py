"""What stamps show of their own light, and the reasons for which a classifier is silent."""

from __future__ import annotations

import numpy as np
import pytest

from lenspipe.infer.abstain import REASONS, light_facts, reasons_to_abstain
from lenspipe.nn.outputs import Abstention

RULE = Abstention(
    least_snr=5.0,
    least_radius_arcsec=0.5,
    widest_psf_arcsec={"r": 0.8},
    least_confidence=0.6,
    accuracy=0.8,
    n=9,
    data="made",
)


def rings(n: int, *, radius_px: float, snr: float, side: int = 64, sigma: float = 3.0, n_band: int = 2) -> np.ndarray:
    """Rings of light of a known S/N over all bands, on white noise."""
    rng = np.random.default_rng(3)
    axis = np.arange(side) - (side - 1) / 2
    ring = np.exp(-0.5 * ((np.hypot(axis, axis[:, None]) - radius_px) / 1.5) ** 2)
    flux = snr * sigma * ring / np.sqrt(n_band * (ring**2).sum())
    return rng.normal(0, sigma, (n, n_band, side, side)) + flux


@pytest.mark.parametrize(("radius_px", "snr"), [(12.0, 150.0), (20.0, 100.0)])
def test_the_snr_and_radius_of_rings_come_back(radius_px: float, snr: float) -> None:
    found, radius, covered = light_facts(rings(40, radius_px=radius_px, snr=snr), field_px=64, pixel_scale_arcsec=0.1)
    assert found.mean() == pytest.approx(snr, rel=0.02)
    assert np.median(radius) == pytest.approx(0.1 * radius_px, rel=0.03)
    assert covered.tolist() == [1.0] * 40


def test_units_do_not_matter_and_only_the_field_counts() -> None:
    stamps = rings(3, radius_px=10.0, snr=80.0)
    want = light_facts(stamps, field_px=48, pixel_scale_arcsec=0.1)
    crowded = stamps.copy()
    crowded[..., :4, :] += 1e4
    for other in (stamps * 1e-3, crowded, stamps[..., 8:-8, 8:-8]):
        np.testing.assert_allclose(light_facts(other, field_px=48, pixel_scale_arcsec=0.1), want, rtol=1e-9)


def test_empty_sky_has_little_light_and_missing_pixels_are_counted() -> None:
    snr, _, _ = light_facts(rings(20, radius_px=9.0, snr=0.0), field_px=64, pixel_scale_arcsec=0.1)
    assert snr.max() < 40  # sigma of 6400 pixels is known to 2 %, and S/N^2 so to 270: three of these are 28^2
    half = rings(1, radius_px=9.0, snr=50.0)
    half[..., :32] = 0
    snr, _, covered = light_facts(half, field_px=64, pixel_scale_arcsec=0.1)
    assert covered[0] == 0.5 and snr[0] == pytest.approx(50 / np.sqrt(2), rel=0.1)
    none, radius, covered = light_facts(np.zeros((2, 1, 20, 20)), field_px=20, pixel_scale_arcsec=0.1)
    assert np.isnan(none).all() and np.isnan(radius).all() and not covered.any()


def test_the_first_reason_that_holds_is_given_and_what_is_not_known_does_not_pass() -> None:
    good = {"snr": 9.0, "radius_arcsec": 1.0, "covered": 1.0, "confidence": 0.9, "r": 0.7, "unfitted": False}
    cases = [
        ("", {}),
        ("psf", {"r": 0.81, "snr": 1.0}),
        ("psf", {"r": np.nan}),
        ("masked", {"covered": 0.89, "snr": 1.0}),
        ("fit", {"unfitted": True, "snr": 1.0}),
        ("snr", {"snr": 4.9, "radius_arcsec": 0.1}),
        ("snr", {"snr": np.nan}),
        ("radius", {"radius_arcsec": np.nan}),
        ("radius", {"radius_arcsec": 0.49, "confidence": 0.1}),
        ("confidence", {"confidence": 0.59}),
    ]
    rows = [{**good, **changed} for _, changed in cases]
    facts = {name: np.array([row[name] for row in rows]) for name in good}
    psf = {"r": facts.pop("r")}
    assert reasons_to_abstain(RULE, **facts, psf_fwhm_arcsec=psf).tolist() == [reason for reason, _ in cases]
    assert {reason for reason, _ in cases} == {"", *REASONS}
    unstated = reasons_to_abstain(RULE, **facts, psf_fwhm_arcsec={"g": 0.5})
    assert set(unstated) == {"psf"}
    always = RULE.model_copy(update={"least_confidence": None})
    assert reasons_to_abstain(always, **facts, psf_fwhm_arcsec=psf)[0] == "confidence"
