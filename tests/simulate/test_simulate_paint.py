import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.Util.param_util import phi_q2_ellipticity, shear_polar2cartesian

from lenspipe.errors import ConfigError, DataError
from lenspipe.simulate.field import simulate_field
from lenspipe.simulate.paint import paint_arcs, paint_tile
from lenspipe.simulate.population import SourceImage, SourcePopulation

ASK = {"bands": ("g", "r", "i"), "pixel_scale_arcsec": 0.25, "psf": (0.9, 0.8, 0.8)}
RMS = np.array([12.0, 15.0, 33.0])


def test_painting_adds_the_arcs_and_nothing_else(rng):
    host = rng.normal(size=(3, 61, 61)).astype(np.float32) * 10
    painted, arcs, truth = paint_arcs(host, **ASK, rng=np.random.default_rng(1), sky_rms_njy=RMS, min_arc_snr=20)
    np.testing.assert_allclose(painted - arcs, host, atol=1e-3)
    assert truth["arc_snr"] >= 20
    assert truth["arc_snr"] == pytest.approx(np.sqrt(np.sum((arcs / RMS[:, None, None]) ** 2)), rel=1e-3)
    assert truth["n_image"] >= 2
    assert truth["magnification"] >= 3


def test_arc_flux_is_source_flux_times_magnification():
    for seed in range(4):
        _, arcs, truth = paint_arcs(
            np.zeros((3, 101, 101)), **ASK, rng=np.random.default_rng(seed), theta_e_range_arcsec=(0.8, 1.6)
        )
        for k, band in enumerate(ASK["bands"]):
            source = 10 ** (0.4 * (31.4 - truth[f"source_mag_{band}"]))
            # the clumps of a source are bluer than its disc: each band has its own mean magnification
            assert arcs[k].sum() == pytest.approx(
                source * truth["magnification"], rel=0.01 if not truth["source_n_clump"] else 0.15
            )


def test_the_brightest_pixel_of_the_arcs_maps_back_onto_the_source():
    model = LensModel(["SIE", "SHEAR"])
    for seed in range(6):
        _, arcs, truth = paint_arcs(
            np.zeros((3, 121, 121)),
            **(ASK | {"pixel_scale_arcsec": 0.1, "psf": (0.15, 0.15, 0.15)}),
            rng=np.random.default_rng(seed),
            centre_px=(63.4, 57.0),
            theta_e_range_arcsec=(1.5, 2.0),
            sources=SourcePopulation(clumpy_fraction=0.0),
        )
        row, column = np.unravel_index(arcs[1].argmax(), arcs[1].shape)
        e1, e2 = phi_q2_ellipticity(truth["angle_rad"], truth["axis_ratio"])
        g1, g2 = shear_polar2cartesian(truth["shear_angle_rad"], truth["shear"])
        lens = {"theta_E": truth["theta_e_arcsec"], "e1": e1, "e2": e2, "center_x": 0, "center_y": 0}
        beta = model.ray_shooting((column - 63.4) * 0.1, (row - 57.0) * 0.1, [lens, {"gamma1": g1, "gamma2": g2}])
        off = np.hypot(beta[0] - truth["source_x_arcsec"], beta[1] - truth["source_y_arcsec"])
        assert off < 0.1 + 0.3 * truth["source_radius_arcsec"]


def test_photon_noise_of_the_arcs_is_added_where_a_gain_is_given():
    host = np.zeros((3, 61, 61))
    ask = ASK | {"sky_rms_njy": RMS, "min_arc_snr": 200.0, "sources": SourcePopulation(mag_r=(19, 22))}
    painted, arcs, _ = paint_arcs(host, **ask, rng=np.random.default_rng(3), njy_per_electron=[2.0, 2.0, 2.0])
    bright = arcs > 50
    spread = ((painted - arcs) / np.sqrt(2.0 * arcs.clip(1e-9)))[bright]
    assert spread.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * bright.sum()))


def test_real_galaxy_images_can_be_sources():
    y, x = np.indices((41, 41)) - 20
    spiral = np.exp(-np.hypot(x, y) / 6) * (1 + np.cos(2 * np.arctan2(y, x) - np.hypot(x, y) / 2))
    image = SourceImage("spiral", (spiral / spiral.sum()).astype(np.float32), 0.03)
    _, arcs, truth = paint_arcs(
        np.zeros((3, 61, 61)),
        **ASK,
        rng=np.random.default_rng(3),
        source_images=[image],
        sources=SourcePopulation(image_fraction=1.0),
    )
    assert truth["source_image"] == "spiral"
    assert arcs.sum() > 0


def test_arcs_that_cannot_be_bright_enough_are_refused():
    with pytest.raises(DataError, match="lower min_arc_snr"):
        paint_arcs(np.zeros((3, 41, 41)), **ASK, rng=np.random.default_rng(0), sky_rms_njy=RMS, min_arc_snr=1e6)
    with pytest.raises(ConfigError, match="sky noise"):
        paint_arcs(np.zeros((3, 41, 41)), **ASK, rng=np.random.default_rng(0), min_arc_snr=10)


def test_injecting_into_a_tile_returns_the_truth_and_does_not_depend_on_the_other_hosts():
    tile = np.zeros((3, 200, 260), np.float32)
    x, y = np.array([60.3, 180.0, 255.0]), np.array([70.0, 120.7, 10.0])
    ask = ASK | {"seed": 5, "sky_rms_njy": RMS, "min_arc_snr": 15.0, "theta_e_range_arcsec": (0.8, 2.0)}
    image, truth = paint_tile(tile, x, y, **ask)
    assert tile.sum() == 0
    assert truth.num_rows == 3
    assert truth["x_px"].to_pylist() == list(x)
    alone, first = paint_tile(tile, x[:1], y[:1], **ask)
    np.testing.assert_array_equal(image[:, 40:100, 30:90], alone[:, 40:100, 30:90])
    assert first.to_pylist()[0] == truth.to_pylist()[0]
    assert image[:, :40, 230:].sum() > 0  # the arcs of the host at the edge are cut, not lost
    with pytest.raises(ConfigError, match="outside the tile"):
        paint_tile(tile, [300.0], [10.0], **ask)


def test_a_field_is_deterministic_and_holds_what_its_truth_says():
    ask = {"seed": 4, "shape_px": (260, 300), "n_galaxy": 20, "n_star": 5, "n_lens": 2}
    field, again = simulate_field(**ask), simulate_field(**ask)
    np.testing.assert_array_equal(field.image, again.image)
    assert np.isfinite(field.image).all()
    assert (field.invvar > 0).all()
    truth = field.truth.to_pylist()
    lenses = [row for row in truth if row["is_lens"]]
    assert len(lenses) == 2
    assert {row["kind"] for row in truth} == {"lens", "galaxy", "star"}
    for row in lenses:
        assert 1.2 <= row["theta_e_arcsec"] <= 2.2
        assert row["arc_snr"] >= 60
        assert row["mag_g"] - row["mag_r"] > row["arc_mag_g"] - row["arc_mag_r"] + 0.2  # blue arcs on red galaxies
        peak = field.image[1, int(row["y_px"]) - 3 : int(row["y_px"]) + 4, int(row["x_px"]) - 3 : int(row["x_px"]) + 4]
        assert peak.max() > 20 * 15.0
    star = max((row for row in truth if row["kind"] == "star"), key=lambda row: -row["mag_r"])
    assert np.isfinite(star["mag_g"])
    other = simulate_field(**(ask | {"n_galaxy": 3, "n_star": 0}))
    assert [r for r in other.truth.to_pylist() if r["is_lens"]] == [
        {k: r[k] for k in other.truth.column_names} for r in lenses
    ]


def test_arcs_lie_around_the_fraction_of_a_pixel_that_is_the_hosts_centre():
    ask = ASK | {"theta_e_range_arcsec": (1.0, 1.2)}
    at = []
    for column in (50.0, 50.4):
        _, arcs, _ = paint_arcs(np.zeros((3, 101, 101)), **ask, rng=np.random.default_rng(2), centre_px=(column, 50.0))
        at.append((arcs[1] * np.arange(101)).sum() / arcs[1].sum())
    assert at[1] - at[0] == pytest.approx(0.4, abs=0.01)
