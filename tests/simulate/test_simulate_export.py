"""A simulated lens is opened by the tools that it is written for, and their model of it leaves noise alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from lenspipe.errors import ConfigError
from lenspipe.simulate.export.autolens import mass, on_pixels
from lenspipe.simulate.export.coolest import east_of_north, from_x, read_coolest
from lenspipe.simulate.export.run import export
from lenspipe.simulate.export.scene import draw_scenes
from lenspipe.simulate.instrument import gaussian_kernel
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.recipe import Recipe, read_recipe


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    changes = {"image.0.size_px": 33, "deflectors.slope": [2.1, 0.1], "image.0.bands": ["g"], "min_arc_snr": 100.0}
    return read_recipe("ground-gri", changes=changes, survey="hsc")


def written(recipe: Recipe, out: Path, form: str) -> Path:
    assert export(recipe, count=1, seed=4, out=out, form=form) == 1
    return out / "lens-00000"


def chi_square(folder: Path, model: np.ndarray, image: str = "image_g.fits", noise: str = "noise_map_g.fits") -> float:
    data, sigma = (fits.getdata(folder / name).astype(float) for name in (image, noise))
    return float((((data - model) / sigma) ** 2).mean())


def test_lenstronomy_draws_it_from_its_arguments_down_to_the_noise(recipe, tmp_path):
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    folder = written(recipe, tmp_path / "out", "lenstronomy")
    said: dict[str, Any] = json.loads((folder / "g.json").read_text())
    for table, names in (("kwargs_data", ("image_data", "noise_map")), ("kwargs_psf", ("kernel_point_source",))):
        said[table] |= {name: fits.getdata(folder / said[table][name]).astype(float) for name in names}
    said["kwargs_data"]["transform_pix2angle"] = np.array(said["kwargs_data"]["transform_pix2angle"])
    lists = said["kwargs_model"]
    model = ImageModel(
        ImageData(**said["kwargs_data"]),
        PSF(**said["kwargs_psf"]),
        LensModel(lists["lens_model_list"]),
        LightModel(lists["source_light_model_list"]),
        LightModel(lists["lens_light_model_list"]),
        kwargs_numerics=said["kwargs_numerics"],
    )
    assert chi_square(folder, model.image(**said["kwargs_params"])) == pytest.approx(1, abs=0.15)
    without = said["kwargs_params"] | {
        "kwargs_source": [s | {"amp": 0.0} for s in said["kwargs_params"]["kwargs_source"]]
    }
    assert chi_square(folder, model.image(**without)) > 2


def test_coolest_opens_it_and_its_mass_comes_back(recipe, tmp_path):
    from coolest.api.composable_models import ComposableLensModel, ComposableMassModel
    from coolest.template.json import JSONSerializer

    folder = written(recipe, tmp_path / "out", "coolest")
    template = JSONSerializer(str(folder / "g")).load(skip_jsonpickle=True, verbose=False)
    (scene,) = draw_scenes(recipe, seed=4, count=1)
    lens = read_coolest(folder / "g.json")
    for name in ("theta_e_arcsec", "axis_ratio", "slope", "shear", "x_arcsec", "y_arcsec"):
        assert getattr(lens, name) == pytest.approx(getattr(scene.lens, name))
    places = np.array([0.7, -1.1, 0.2]), np.array([0.4, 0.3, -1.5])
    theirs = ComposableMassModel(template, str(folder), entity_selection=[0, 1]).evaluate_deflection(*places)
    for one in (lens, scene.lens):
        np.testing.assert_allclose(one.deflection(*places), theirs, atol=1e-6)
    drawn, _ = ComposableLensModel(
        template, str(folder), {"entity_selection": [2]}, {"entity_selection": [0, 1]}
    ).model_image(supersampling=4)
    assert drawn.sum() == pytest.approx(scene_arcs(scene), rel=0.02)


def scene_arcs(scene: Any) -> float:
    """Flux of the arcs within the stamp, nJy."""
    return 10 ** (0.4 * (31.4 - scene.facts["arc_mag_g"]))


def test_autolens_is_told_the_same_mass_by_its_own_formula(recipe, tmp_path):
    """``(3 - s) / (1 + q) (b / sqrt(x^2 + y^2 / q^2))^(s - 1)``; the tool itself was run once (its record)."""
    lens = MacroLens(theta_e_arcsec=1.3, axis_ratio=0.6, angle_rad=0.0, slope=2.2)
    said = mass(lens)["arguments"]
    x, y, q, s = 0.8, 0.5, 0.6, 2.2
    theirs = (3 - s) / (1 + q) * (said["einstein_radius"] / np.hypot(x, y / q)) ** (s - 1)
    ours = (3 - s) / 2 * (1.3 / np.sqrt(q * x**2 + y**2 / q)) ** (s - 1)
    assert theirs == pytest.approx(ours) and said["slope"] == s
    folder = written(recipe, tmp_path / "out", "autolens")
    assert sorted(p.name for p in (folder / "g").iterdir()) == [
        "data.fits",
        "noise_map.fits",
        "psf.fits",
        "tracer.json",
    ]
    tracer = json.loads((folder / "g" / "tracer.json").read_text())
    lens_galaxy, source = tracer["arguments"]["galaxies"]["values"]
    assert tracer["class_path"] == "autolens.lens.tracer.Tracer"
    assert {"mass", "shear", "light_0"} <= set(lens_galaxy["arguments"]) and "light_0" in source["arguments"]
    (scene,) = draw_scenes(recipe, seed=4, count=1)
    np.testing.assert_allclose(fits.getdata(folder / "g" / "data.fits"), scene.image_njy[0])


@pytest.mark.parametrize("sampling", [2, 3])
def test_a_finer_psf_is_summed_to_pixels(sampling):
    fine, coarse = gaussian_kernel(1.2, 0.2 / sampling), on_pixels(gaussian_kernel(1.2, 0.2 / sampling), sampling)
    want = gaussian_kernel(np.hypot(1.2, 0.2 * 2.3548 / 12**0.5), 0.2)
    middle = len(coarse) // 2
    assert coarse.sum() == pytest.approx(1) and len(coarse) % 2 == 1 and fine.sum() == pytest.approx(1)
    assert coarse[middle, middle] == pytest.approx(want.max(), rel=0.02)
    np.testing.assert_allclose(coarse, coarse[::-1, ::-1], atol=1e-12)


def test_angles_go_there_and_back():
    angles = np.linspace(0, np.pi, 9, endpoint=False)
    assert [from_x(east_of_north(a)) for a in angles] == pytest.approx(angles.tolist())


def test_a_run_resumes_and_what_has_no_form_elsewhere_is_refused(recipe, tmp_path):
    export(recipe, count=1, seed=4, out=tmp_path / "out", form="lenstronomy")
    assert export(recipe, count=1, seed=4, out=tmp_path / "out", form="lenstronomy", resume=True) == 0
    with pytest.raises(ConfigError, match=r"no such format.*lenstronomy, autolens, coolest"):
        export(recipe, count=1, seed=4, out=tmp_path / "x", form="gravlens")
    with pytest.raises(ConfigError, match="smooth lenses"):
        export(read_recipe("model-f"), count=1, seed=4, out=tmp_path / "y", form="coolest")
    (tmp_path / "bad.json").write_text('{"lensing_entities": [{"mass_model": [{"type": "NFW", "parameters": {}}]}]}')
    with pytest.raises(ConfigError, match=r"one PEMD or SIE.*NFW"):
        read_coolest(tmp_path / "bad.json")
