import numpy as np
import pytest

from lenspipe.errors import ConfigError
from lenspipe.simulate.hosts import isolate, light_shape, read_hosts, read_source_images
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.stamp import draw_stamp
from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema, write_part


def host_set(folder, pixels, scale=0.2, bands=("g", "r", "i")):
    import pyarrow as pa

    spec = ImageSpec(bands, pixels.shape[-1], scale)
    n = len(pixels)
    columns = {
        "stamp_id": [f"s{k}" for k in range(n)],
        "label": ["nonlens"] * n,
        "recipe": ["real"] * n,
        "seed": [None] * n,
        "host": [f"galaxy-{k}" for k in range(n)],
        "split": ["train"] * n,
    }
    schema = stamp_schema({"image": spec})
    arrays = [image_column(pixels, spec) if f.name == "image" else pa.array(columns[f.name], f.type) for f in schema]
    write_part(pa.table(arrays, schema=schema), folder, "part-0")


@pytest.fixture
def real_like_hosts(rng):
    y, x = np.indices((71, 71)) - 35
    shape = np.exp(-np.hypot(x, 1.6 * y) / 6)
    flux = np.array([200.0, 600.0, 900.0])
    return (flux[:, None, None] * shape + rng.normal(0, 10, (4, 3, 71, 71))).astype(np.float32)


def test_hosts_are_read_cropped_and_their_noise_and_shape_measured(tmp_path, real_like_hosts):
    host_set(tmp_path / "hosts", real_like_hosts)
    hosts = read_hosts(tmp_path / "hosts", read_recipe("ground-gri", survey="kids"))
    assert [host.pixels_njy.shape for host in hosts.hosts] == [(3, 65, 65)] * 4
    np.testing.assert_allclose([host.sky_rms_njy for host in hosts.hosts], 10, rtol=0.15)
    assert max(abs(np.sin(host.angle_rad)) for host in hosts.hosts) < 0.2
    assert all(host.axis_ratio < 0.85 for host in hosts.hosts)


def test_arcs_are_painted_on_real_hosts_and_early_types_are_hosts_untouched(tmp_path, real_like_hosts):
    host_set(tmp_path / "hosts", real_like_hosts)
    recipe = read_recipe("ground-gri", survey="kids").model_copy(
        update={"classes": {"lens": 1.0, "early_type": 1.0}, "artefact_fraction": 0.0}
    )
    hosts = read_hosts(tmp_path / "hosts", recipe)
    stamps = [draw_stamp(recipe, seed=2, item=k, hosts=hosts) for k in range(12)]
    assert {s.label for s in stamps} == {"lens", "nonlens"}
    for stamp in stamps:
        host = hosts.hosts[hosts.names.index(stamp.host)].pixels_njy
        added = stamp.images["image"] - host
        if stamp.label == "lens":
            assert np.sqrt(np.sum((added / 10) ** 2)) > 15
            assert "lens_mag_r" not in stamp.facts  # the simulated galaxy's truth does not belong to a real host
        else:
            assert not added.any()


def test_hosts_of_another_scale_or_band_or_of_no_survey_are_refused(tmp_path, real_like_hosts):
    with pytest.raises(ConfigError, match="choose their survey"):
        read_hosts(tmp_path, read_recipe("ground-gri"))
    with pytest.raises(ConfigError, match=r"no such survey.*kids, des"):
        read_recipe("ground-gri", survey="sdss")
    host_set(tmp_path / "coarse", real_like_hosts, scale=0.263)
    with pytest.raises(ConfigError, match="--pixel-scale"):
        read_hosts(tmp_path / "coarse", read_recipe("ground-gri", survey="kids"))
    host_set(tmp_path / "bands", real_like_hosts, bands=("r", "i", "z"))
    with pytest.raises(ConfigError, match="lack a band"):
        read_hosts(tmp_path / "bands", read_recipe("ground-gri", survey="kids"))


def test_isolating_keeps_the_central_object_and_drops_sky_and_neighbours(rng):
    y, x = np.indices((61, 61))
    centre = np.exp(-np.hypot(x - 30, y - 30) / 4)
    image = 0.3 + centre + np.exp(-np.hypot(x - 54, y - 54) / 1.5) + rng.normal(0, 0.01, (61, 61))
    kept = isolate(image)
    assert kept.sum() == pytest.approx(1, rel=1e-5)
    assert kept[50:, 50:].sum() == 0
    assert kept[30, 30] == pytest.approx(1 / centre.sum(), rel=0.15)
    assert isolate(rng.normal(0, 1, (41, 41)) * 0 + 1.0) is None


@pytest.mark.parametrize("folder", ["galaxies/cosmos_hst", "stamps/des_lrg/sources"])
def test_real_galaxy_folders_are_read_as_sources(real_data, folder):
    images = read_source_images(real_data / folder)
    assert len(images) >= 7
    for image in images:
        assert image.pixels.sum() == pytest.approx(1, rel=1e-4)
        assert image.pixels.min() >= 0
    recipe = read_recipe("substructure-4")
    stamp = draw_stamp(recipe, seed=1, item=0, source_images=images)
    assert stamp.facts["source_image"] in {image.name for image in images}


def test_a_folder_without_galaxies_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no usable galaxy image"):
        read_source_images(tmp_path)


def test_light_shape_of_an_ellipse_is_its_axis_ratio_and_direction():
    y, x = (np.indices((81, 81)) - 40) * 0.1
    along, across = np.cos(0.6) * x + np.sin(0.6) * y, np.cos(0.6) * y - np.sin(0.6) * x
    ratio, angle = light_shape(np.exp(-0.5 * (along**2 / 0.64 + across**2 / 0.16))[None], 0.1)
    assert ratio[0] == pytest.approx(0.5, abs=0.02)
    assert angle[0] == pytest.approx(0.6, abs=0.01)
