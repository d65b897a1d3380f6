"""Stamps written again with what fitted smooth lenses leave of them."""

from __future__ import annotations

import shutil

import click
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lenspipe.cli.stamps import command
from lenspipe.errors import ConfigError, DataError
from lenspipe.infer import fitted_run
from lenspipe.infer.fitted import brightness
from lenspipe.infer.fitted_run import fit_local, plan_units, write_fitted
from lenspipe.infer.fitted_set import _sky, priors_of
from lenspipe.learn.fitted import fit_of
from lenspipe.learn.job import make_job
from lenspipe.learn.settings import TrainSettings
from lenspipe.nn import sersic_lens
from lenspipe.nn.sersic_image import NAMES
from lenspipe.runner import here
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.stamps.format import StampSet, write_part
from lenspipe.stamps.spec import ImageSpec, image_array, image_column

GAIN = 0.0033333333
AS_DRAWN = {
    "image.0.pixel_scale_arcsec": 0.1,
    "image.0.size_px": 44,
    "image.0.supersampling": 3,
    "published.source_brightness_njy": [2.8, 3.6],
    "published.lens_brightness_njy": [4.8, 4.8],
    "published.mass_fraction": [0.05, 0.05],
}


def run(words):
    return command.main([*words, "--runner", "local"], standalone_mode=False)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "f"
    simulate(read_recipe("model-f", changes=AS_DRAWN), count=120, seed=3, out=out)
    return StampSet.open(out)


@pytest.fixture(scope="module")
def fitted(simulated, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "left"
    said = write_fitted(simulated, priors_of(simulated), out, band="I")
    return StampSet.open(out), said["mean_square_left"]


def test_priors_are_the_truth_of_the_training_split(simulated):
    priors = priors_of(simulated)
    told = dict(zip(NAMES, zip(priors.mean.tolist(), priors.width.tolist(), strict=True), strict=True))
    assert told["theta_e_arcsec"] == pytest.approx((1.2, 0.0))
    assert told["log_n"] == pytest.approx((np.log(1.5), 0.0))
    learnt = simulated.column("split") == "train"
    shear, angle = (simulated.column(name)[learnt] for name in ("shear", "shear_angle_rad"))
    assert told["gamma1"] == pytest.approx(((shear * np.cos(2 * angle)).mean(), (shear * np.cos(2 * angle)).std()))
    assert priors.light
    given = priors_of(simulated, given={"theta_e_arcsec": (1.0, 0.2)}, light=False)
    assert (given.mean[0], given.width[0], given.light) == (1.0, pytest.approx(0.2), False)
    with pytest.raises(ConfigError, match=r"no such parameter.*theta_e_arcsec"):
        priors_of(simulated, given={"theta": (1.0, 0.2)})


def test_smooth_lenses_leave_noise_and_others_more(simulated, fitted):
    data, said = fitted
    assert said["no_substructure"] == pytest.approx(1.0, abs=0.05)
    assert min(said["subhalo"], said["vortex"]) > 2
    rows = data.n
    assert rows == simulated.n
    assert data.images["image"].bands == ("I", "I_left")
    np.testing.assert_array_equal(data.read_images()[:, 0], simulated.read_images()[:, 0])
    smooth = data.column("label") == "no_substructure"
    for name in ("x", "y"):
        off = data.column(f"fitted_{name}_arcsec") - data.column(f"source_{name}_arcsec")
        assert np.abs(off[smooth]).max() < 0.05
    left = data.read_images()[:, 1]
    assert np.median(np.square(left[smooth]).mean(axis=(1, 2))) == pytest.approx(
        0.98, abs=0.05
    )  # the middle is left out
    assert data.column("split").tolist() == simulated.column("split").tolist()


def test_a_network_takes_both_bands_each_in_units_of_its_noise(fitted):
    data, _ = fitted
    asked = TrainSettings.model_validate({"input": {"stretch": "sqrt", "channel_scales": "measured"}})
    card = make_job(data.folder, "small-cnn", "classify", "out", asked, seed=1).card
    assert card.bands == ("I", "I_left")
    assert card.stretch.band_scales[1] == pytest.approx(0.01, rel=0.1)  # noise of 1 in pixels of 0.1 arcsec


def test_the_command_takes_its_priors_from_another_set(simulated, tmp_path):
    bare = pq.read_table(simulated.parts[0]).select(["stamp_id", "image", "label", "recipe", "seed", "host", "split"])
    folder = tmp_path / "bare"
    folder.mkdir()
    pq.write_table(bare.slice(0, 8), folder / "part-0.parquet")
    with pytest.raises(DataError, match=r"no true values.*missing='theta_e_arcsec"):
        run(["fit", str(folder), "--out", str(tmp_path / "a")])
    like = ["--like", str(simulated.folder), "--njy-per-electron", str(GAIN)]
    with pytest.raises(DataError, match=r"how wide the PSF is.*seeing_I_arcsec"):
        run(["fit", str(folder), "--out", str(tmp_path / "a"), *like])
    run(["fit", str(folder), "--out", str(tmp_path / "a"), *like, "--fwhm-arcsec", "0.2355"])
    assert StampSet.open(tmp_path / "a").n == 8
    with pytest.raises(ConfigError, match=r"no such image or band.*band='r'"):
        run(["fit", str(simulated.folder), "--out", str(tmp_path / "b"), "--band", "r"])
    with pytest.raises(ConfigError, match=r"NAME=MEAN,WIDTH.*got='gamma1=0.1'"):
        run(["fit", str(simulated.folder), "--out", str(tmp_path / "b"), "--prior", "gamma1=0.1"])


def changed(data, folder, n=6, **columns):
    """Some rows of a data set with other values in some columns."""
    rows = pq.read_table(data.parts[0]).slice(0, n)
    for name, values in columns.items():
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))
    write_part(rows, folder, "part-0")
    return StampSet.open(folder)


def in_parts(data, folder, n=3):
    """Some rows of a data set, so many to a part."""
    for k in range(4):
        write_part(pq.read_table(data.parts[0]).slice(n * k, n), folder, f"part-{k}")
    return StampSet.open(folder)


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.inf])
@pytest.mark.parametrize(
    ("column", "said"), [("sky_rms_I_njy", "must be positive"), ("seeing_I_arcsec", "no such width")]
)
def test_a_noise_or_a_psf_that_is_none_is_refused(simulated, tmp_path, wrong, column, said):
    good = float(simulated.column(column)[0])
    data = changed(simulated, tmp_path / "a", 2, **{column: [good, wrong]})
    with pytest.raises(DataError, match=rf"{said}.*n=1, first='{data.column('stamp_id')[1]}'"):
        write_fitted(data, priors_of(simulated), tmp_path / "b", band="I")
    assert not (tmp_path / "b").exists()


def test_a_stamp_without_noise_is_measured_and_the_others_keep_theirs(simulated, tmp_path):
    told = simulated.column("sky_rms_I_njy")[:6].tolist()
    priors = priors_of(simulated)
    write_fitted(changed(simulated, tmp_path / "a"), priors, tmp_path / "all", band="I")
    write_fitted(
        changed(simulated, tmp_path / "b", sky_rms_I_njy=[None, *told[1:]]), priors, tmp_path / "some", band="I"
    )
    both = [StampSet.open(tmp_path / name).column("fitted_chi2") for name in ("all", "some")]
    np.testing.assert_allclose(both[1][1:], both[0][1:], rtol=1e-3)
    assert both[1][0] != pytest.approx(both[0][0], rel=0.01)


def test_noise_of_the_frame_is_not_raised_by_light_that_slopes_there(rng):
    y, x = np.mgrid[:40, :40]
    stamps = (rng.normal(0, 2.0, (3, 40, 40)) + 1.5 * x + 0.8 * y).astype(np.float32)
    rows = pa.table({"stamp_id": ["a", "b", "c"]})
    np.testing.assert_allclose(_sky(rows, "I", stamps, np.zeros_like(stamps, bool)), 2.0, rtol=0.12)
    stamps[1] = 0
    with pytest.raises(DataError, match=r"no noise in its frame.*first='b'"):
        _sky(rows, "I", stamps, np.zeros_like(stamps, bool))


def test_each_stamp_counts_the_pixels_that_its_own_psf_leaves(simulated, tmp_path):
    data = changed(simulated, tmp_path / "a", seeing_I_arcsec=[0.1, 0.1, 0.1, 0.6, 0.6, 0.6])
    write_fitted(data, priors_of(simulated), tmp_path / "b", band="I")
    found = StampSet.open(tmp_path / "b")
    left = found.read_images()[:, 1]
    kept = (left != 0).sum(axis=(1, 2))
    assert kept[0] > kept[-1]
    np.testing.assert_allclose(found.column("fitted_chi2"), np.square(left).sum(axis=(1, 2)) / kept, rtol=1e-4)


def test_sources_that_are_images_have_no_index(simulated, tmp_path):
    index = simulated.column("source_n")[:6]
    some = changed(simulated, tmp_path / "a", source_n=[0.0, *index[1:]], split=["train"] * 6)
    priors = priors_of(some)
    assert priors.mean[NAMES.index("log_n")] == pytest.approx(np.log(1.5))
    none = changed(simulated, tmp_path / "b", source_n=[0.0] * 6, split=["train"] * 6)
    with pytest.raises(DataError, match=r"no true values.*missing='log_n', n_train=6"):
        priors_of(none)


def test_what_cannot_be_fitted_is_refused(simulated, fitted, tmp_path):
    priors = priors_of(simulated)
    with pytest.raises(ConfigError, match="fitted before"):
        write_fitted(fitted[0], priors, tmp_path / "a", band="I")
    spec = simulated.images["image"]
    rows = pq.read_table(simulated.parts[0]).slice(0, 2)
    for folder, stamps, other in (
        ("display", image_array(rows, "image"), ImageSpec(spec.bands, spec.size_px, 0.1, "uint8 stretch")),
        ("tiny", image_array(rows, "image")[:, :, 20:22, 20:22], ImageSpec(spec.bands, 2, 0.1)),
        ("bright", image_array(rows, "image") * 1e36, spec),
    ):
        own = rows.set_column(rows.schema.get_field_index("image"), other.field("image"), image_column(stamps, other))
        write_part(own, tmp_path / folder, "part-0")
    for folder, error, said in (
        ("display", ConfigError, r"pixels in nJy.*unit='uint8 stretch'"),
        ("tiny", ConfigError, r"too small for a fit.*size_px=2"),
        ("bright", DataError, r"the fit is not finite.*n=2"),
    ):
        with pytest.raises(error, match=said):
            write_fitted(StampSet.open(tmp_path / folder), priors, tmp_path / "a", band="I")
    with pytest.raises(ConfigError, match="FWHM of the PSF"):
        write_fitted(simulated, priors, tmp_path / "a", band="I", fwhm_arcsec=np.nan)
    with pytest.raises(ConfigError, match="flux of an electron"):
        write_fitted(simulated, priors, tmp_path / "a", band="I", njy_per_electron=np.nan)
    with pytest.raises(DataError, match="no stamps"):
        write_fitted(changed(simulated, tmp_path / "none", 0), priors, tmp_path / "a", band="I")
    with pytest.raises(ConfigError, match=r"not in the images.*light_e1"):
        priors_of(simulated, light=False, given={"light_e1": (0.0, 0.1)})


def test_a_lens_whose_images_lie_outside_of_the_stamps_is_no_accident(simulated, tmp_path):
    priors = priors_of(simulated, given={"x_arcsec": (900.0, 0.0)}, light=False)
    said = write_fitted(changed(simulated, tmp_path / "a"), priors, tmp_path / "b", band="I")
    assert min(said["mean_square_left"].values()) > 10


def test_pixels_without_data_of_stamps_that_were_cut_out_count_for_nothing(simulated, tmp_path):
    rows = pq.read_table(changed(simulated, tmp_path / "a", sky_rms_I_njy=[None] * 6).parts[0])
    pixels = image_array(rows, "image").copy()
    whole = pixels.copy()
    pixels[:, :, :15] = 0  # the arcs are cut as well, and a third of the frame
    place, priors = rows.schema.get_field_index("image"), priors_of(simulated)
    left = {}
    for name, shown, cut_out in (("whole", whole, True), ("cut", pixels, True), ("dark", pixels, False)):
        column = image_column(shown, simulated.images["image"])
        write_part(rows.set_column(place, rows.schema.field(place), column), tmp_path / name, "part-0")
        data, out = StampSet.open(tmp_path / name), tmp_path / f"{name}-left"
        write_fitted(data, priors, out, band="I", lit_beyond=cut_out, point_masses=True)
        left[name] = StampSet.open(out)
    bands = left["cut"].read_images()
    odds = bands[:, 3:].astype(float)
    mean = np.log(np.exp(odds - 50).mean(axis=(2, 3))) + 50
    for k, name in enumerate(("small", "large")):
        np.testing.assert_allclose(left["cut"].column(f"fitted_{name}_mass_log_odds"), mean[:, k], rtol=1e-3, atol=1e-3)
    assert (bands[:, 1:, :15] == 0).all()
    assert (bands[:, 1, 15:] != 0).mean() > 0.8  # the middle of the lens galaxy is left out
    chi2 = {name: np.median(one.column("fitted_chi2")) for name, one in left.items()}
    assert chi2["cut"] < 1.5 * chi2["whole"] < 10 < chi2["dark"]


def test_what_a_fit_leaves_is_judged_by_the_pixels_that_there_are(simulated):
    n, size = 4, 44
    spec = simulated.images["image"]
    fit = sersic_lens.SersicFit.of(size, spec.pixel_scale_arcsec, 0.24, priors_of(simulated), clumps=2)
    weight = fit.fine.kept.expand(n, -1, -1) / 0.02
    off = torch.full((n, size, size), 1.1) * (weight > 0)
    half = weight.clone()
    half[:2, : size // 2] = 1e-12
    values = torch.full((n, len(NAMES) + 8), torch.nan)
    assert len(fit._may_be_better(values, off, weight)) == n
    assert fit._may_be_better(values, off * (half > 1), half).tolist() == [*range(n)]
    assert not len(fit._may_be_better(values, 0.5 * off, weight))
    # sought again, so is what has clumps and leaves little
    values[2, len(NAMES) :] = 0.1
    assert not len(fit._may_be_better(values, 0.5 * off, weight))
    again = sersic_lens.SersicFit.of(size, spec.pixel_scale_arcsec, 0.24, priors_of(simulated), clumps=2, rounds=1)
    assert again._may_be_better(values, 0.5 * off, weight).tolist() == [2]


def test_photons_beside_a_gap_are_those_of_the_pixels_that_there_are():
    stamps, bad = torch.full((1, 8, 8), 3.0), torch.zeros((1, 8, 8), dtype=torch.bool)
    bad[:, :3], stamps[:, :3] = True, 0.0
    assert (brightness(stamps, bad)[:, 3:] == 3).all()
    assert brightness(stamps, torch.zeros_like(bad))[0, 3, 4] == 2


def test_stamps_whose_class_is_not_known_are_fitted_too(simulated, tmp_path):
    data = changed(simulated, tmp_path / "a", label=[None] * 6)
    said = write_fitted(data, priors_of(simulated), tmp_path / "b", band="I")
    assert set(said["mean_square_left"]) == {"not known"}


@pytest.mark.parametrize(
    "prior", [("gamma1=nan,1",), ("gamma1=0,inf",), ("gamma1=0,-1",), ("gamma1=0,1", "gamma1=1,1")]
)
def test_priors_that_say_nothing_are_refused(simulated, tmp_path, prior):
    with pytest.raises(ConfigError, match=r"finite mean and a finite width|more than once.*gamma1"):
        run(
            [
                "fit",
                str(simulated.folder),
                "--out",
                str(tmp_path),
                *(word for one in prior for word in ("--prior", one)),
            ]
        )


def test_the_command_writes_to_a_store(simulated, tmp_path):
    data = changed(simulated, tmp_path / "a")
    run(["fit", str(data.folder), "--like", str(simulated.folder), "--out", "memory://fitted/b"])
    store = fsspec.filesystem("memory")
    assert [name.rsplit("/", 1)[1] for name in store.ls("/fitted/b", detail=False)] == [
        *("README.md", "fit.json", "part-000000.parquet", "request.json")
    ]
    with pytest.raises(click.UsageError, match="--band is given 2 times"):
        run(["fit", str(data.folder), "--out", str(tmp_path / "c"), "--band", "I", "--band", "I"])


def test_noise_of_photons_goes_by_the_stamps_unless_they_say_nothing(simulated, fitted, tmp_path, capsys):
    told = float(simulated.column("njy_per_electron_I")[0])
    assert told == pytest.approx(GAIN)
    six, priors = changed(simulated, tmp_path / "six"), priors_of(simulated)
    bare = changed(simulated, tmp_path / "bare", njy_per_electron_I=[None] * 6)
    some = changed(simulated, tmp_path / "some", njy_per_electron_I=[None, *[told] * 5])
    words = {"told": (six, None), "given": (bare, told), "sky": (bare, 0.0), "none": (bare, None), "some": (some, None)}
    said, left = {}, {}
    for name, (data, given) in words.items():
        out = tmp_path / f"left-{name}"
        said[name] = write_fitted(data, priors, out, band="I", njy_per_electron=given)["photons"]
        left[name] = StampSet.open(out).read_images()[:, 1]
    # of another number of stamps together the last bits are others
    np.testing.assert_allclose(left["told"], fitted[0].read_images()[:6, 1], atol=1e-3)
    np.testing.assert_array_equal(left["told"], left["given"])
    np.testing.assert_array_equal(left["sky"], left["none"])
    assert np.square(left["none"]).mean() > 1.5 * np.square(left["told"]).mean()
    np.testing.assert_array_equal(left["some"][1:], left["told"][1:])
    np.testing.assert_array_equal(left["some"][0], left["none"][0])
    assert "by njy_per_electron_I (0.00333 nJy)" in said["told"] and "but of 1 stamps" in said["some"]
    assert "as given" in said["given"] and "neither" in said["none"] and "as asked" in said["sky"]
    for wrong in (2.1 * told, told / 2.1, 0.0):
        with pytest.raises(ConfigError, match=r"another flux of an electron.*least=0\.00333"):
            write_fitted(six, priors, tmp_path / "x", band="I", njy_per_electron=wrong)
    varied = changed(simulated, tmp_path / "varied", njy_per_electron_I=[told, told, told, told, told, 9 * told])
    with pytest.raises(ConfigError, match="another flux of an electron"):
        write_fitted(varied, priors, tmp_path / "x", band="I", njy_per_electron=2 * told)
    wrong = changed(simulated, tmp_path / "wrong", njy_per_electron_I=[told, -told, told, told, told, told])
    with pytest.raises(DataError, match=r"0 or positive.*n=1"):
        write_fitted(wrong, priors, tmp_path / "x", band="I")
    run(["fit", str(six.folder), "--like", str(simulated.folder), "--out", str(tmp_path / "y")])
    assert "noise: of the sky, and of photons by njy_per_electron_I" in capsys.readouterr().out


class CutOffError(Exception):
    """The process dies."""


def parts_of(folder):
    return {path.name: pq.read_table(path) for path in folder.glob("*.parquet")}


def test_a_fit_that_was_cut_off_is_no_data_set_and_is_resumed(simulated, tmp_path, monkeypatch):
    monkeypatch.setattr(fitted_run, "UNIT_BYTES", 1)  # a unit per row group
    data, priors = in_parts(simulated, tmp_path / "parts"), priors_of(simulated)
    write_fitted(data, priors, tmp_path / "whole", band="I")
    assert len(plan_units(data)) == len(parts_of(tmp_path / "whole")) == 4
    out, seen = tmp_path / "cut", []

    def dying(units, work, *, on_unit):
        seen.append([unit.name for unit in units])
        fit_local(units[:2], work, on_unit=on_unit)
        raise CutOffError

    with pytest.raises(CutOffError):
        write_fitted(data, priors, out, band="I", runner=here(dying))
    with pytest.raises(DataError, match="no Parquet parts"):
        StampSet.open(out)
    with pytest.raises(ConfigError, match="--resume"):
        write_fitted(data, priors, out, band="I")
    with pytest.raises(ConfigError, match=r"another request.*finer was 2 and is 1"):
        write_fitted(data, priors, out, band="I", finer=1, resume=True)
    with pytest.raises(CutOffError):
        write_fitted(data, priors, out, band="I", runner=here(dying), resume=True)
    assert [len(names) for names in seen] == [4, 2] and not set(seen[1]) & set(seen[0][:2])
    result = write_fitted(data, priors, out, band="I", resume=True)
    assert (result["rows"], result["new_rows"]) == (data.n, 0)
    assert parts_of(out) == parts_of(tmp_path / "whole")
    assert not (out / fitted_run.WAITING).exists()
    assert write_fitted(data, priors, out, band="I", resume=True)["mean_square_left"] == result["mean_square_left"]
    np.testing.assert_array_equal(StampSet.open(out).column("stamp_id"), data.column("stamp_id"))
    (out / "part-000002.parquet").unlink()
    assert write_fitted(data, priors, out, band="I", resume=True)["new_rows"] == 3
    assert parts_of(out) == parts_of(tmp_path / "whole")


def test_a_fit_begun_on_other_stamps_is_not_resumed(simulated, tmp_path):
    write_fitted(changed(simulated, tmp_path / "a"), priors_of(simulated), tmp_path / "b", band="I")
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "b" / fitted_run.RECORD).unlink()
    with pytest.raises(ConfigError, match=r"another request.*stamps was"):
        write_fitted(changed(simulated, tmp_path / "a", 7), priors_of(simulated), tmp_path / "b", band="I", resume=True)


def test_clumps_of_sources_are_fitted_where_they_are_asked_for(tmp_path, capsys, monkeypatch):
    pixels = {"image.0.pixel_scale_arcsec": 0.1, "image.0.size_px": 48, "image.0.supersampling": 4}
    smooth = {"classes": {"no_substructure": 1.0}, "sources.clumpy_fraction": 0.7}
    simulate(read_recipe("substructure-1", changes=pixels | smooth), count=24, seed=3, out=tmp_path / "s")
    for n in (0, 4):
        out = str(tmp_path / f"left-{n}")
        run(["fit", str(tmp_path / "s"), "--no-lens-light", "--clumps", str(n), "--rounds", "0", "--out", out])
    without, some = (StampSet.open(tmp_path / f"left-{n}") for n in (0, 4))
    assert "fitted_n_clump" not in without.schema.names
    assert some.schema.field("fitted_n_clump").metadata[b"description"] == b"clumps of the fitted source"
    clumpy = some.column("source_n_clump") > 0
    assert clumpy.sum() > 8
    less = without.column("fitted_chi2") - some.column("fitted_chi2")
    assert np.median(without.column("fitted_chi2")[clumpy]) > 1.3
    assert np.median(some.column("fitted_chi2")[clumpy]) < 1.1
    assert (less > -1e-4).all()
    found = some.column("fitted_n_clump")
    assert found[clumpy].mean() > 1
    assert found[~clumpy].max() == 0
    np.testing.assert_array_equal(less > 1e-4, found > 0)
    # where a first search leaves much a second begins with a rough source, and more steps follow
    monkeypatch.setattr(sersic_lens, "TOO_MUCH", np.inf)
    words = ["fit", str(tmp_path / "s"), "--no-lens-light", "--clumps", "4", "--out"]
    run([*words, str(tmp_path / "once"), "--rounds", "0"])
    once = StampSet.open(tmp_path / "once").column("fitted_chi2")
    assert (some.column("fitted_chi2") <= once + 1e-4).all()
    assert ((once > 1.1) & clumpy).sum() > ((some.column("fitted_chi2") > 1.1) & clumpy).sum()
    # and again from other starts where it is not said otherwise
    run([*words, str(tmp_path / "again")])
    again = StampSet.open(tmp_path / "again")
    assert [fit_of(one).rounds for one in (some, again)] == [0, 4]
    assert fit_of(some).unlike(fit_of(again)) == ["rounds"]
    assert again.column("fitted_chi2").mean() <= some.column("fitted_chi2").mean() + 1e-4
    with pytest.raises(ConfigError, match="--rounds is of lenses with clumps: give --clumps"):
        run([*words[:3], "--rounds", "2", "--out", str(tmp_path / "none")])
