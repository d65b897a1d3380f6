"""Candidates are shown to a network with what fitted smooth lenses leave of them, as stamps of its training were."""

from __future__ import annotations

import contextlib
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io import fits
from sky import tan_wcs

from lenspipe.cli.stamps import command as stamps_command
from lenspipe.errors import ConfigError, DataError, ModelError
from lenspipe.evaluate.abstention import collect, cost_of
from lenspipe.evaluate.judging import open_members
from lenspipe.infer.fitted import LensFitter, anywhere_in_a_pixel, around_peaks, priors_of_fit, reach_px, without_pixel
from lenspipe.infer.fitted_run import write_fitted
from lenspipe.infer.fitted_set import priors_of
from lenspipe.infer.predict import Predictor
from lenspipe.infer.stamps import stamp_input
from lenspipe.learn.fitted import fit_of
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.card import ModelCard, read_card, write_card
from lenspipe.nn.checkpoint import save_model
from lenspipe.nn.outputs import Abstention
from lenspipe.nn.registry import build
from lenspipe.runner import Silent, here
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ScanContext
from lenspipe.scan.local import scan_local
from lenspipe.scan.models import choose_readers
from lenspipe.scan.plan import read_plan, tasks_of
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.rows import unpack_cutouts
from lenspipe.scan.run import run_scan
from lenspipe.scan.shard import scan_shard
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.stamps.format import StampSet, stamp_schema, write_part
from lenspipe.stamps.joined import Source, open_stamps
from lenspipe.stamps.spec import ImageSpec, image_column
from lenspipe.survey.layout import read_layout

GAIN, SCALE, FWHM = 0.0033333333, 0.1, 0.2452
"""FWHM in images, pixels included, of the recipe's 0.2355."""
SIDE, SPACING_PX, PAINTED_PX = 36, 128, 61
CLASSES = ("no_substructure", "vortex")
RULE = Abstention(least_snr=0.0, least_radius_arcsec=0.0, least_confidence=0.0, accuracy=0.5, n=1, data="made")
LEARNT = {
    "input": {"stretch": "sqrt", "alpha": 0.8, "q": 0.14, "channel_scales": "measured"},
    "augment": {"affine_fraction": 0, "noise_fraction": 0, "blur_fraction": 0, "background": 0, "gap_fraction": 0},
    "model": {"width": 4, "dropout": 0.0},
    "sampling": {"batch_size": 16},
    "optim": {"epochs": 6, "learning_rate": 3e-3},
}


def simulated(folder, size_px, count, seed):
    changes = {
        "image.0.pixel_scale_arcsec": SCALE,
        "image.0.size_px": size_px,
        "image.0.supersampling": 4,  # even: vortices end in the middle, where odd stamps would have a point
        "published.source_brightness_njy": [2.8, 3.6],
        "published.lens_brightness_njy": [4.8, 4.8],
        "published.mass_fraction": [0.05, 0.05],
        "classes.subhalo": 0.0,
    }
    simulate(read_recipe("model-f", changes=changes), count=count, seed=seed, out=folder)
    return StampSet.open(folder)


def paint(folder, lenses, rng):
    """A tile with every lens on a place of its own, and where those lie."""
    stamps, n = lenses.read_images()[:, 0], 4
    image = rng.normal(0, lenses.column("sky_rms_I_njy")[0], (n * SPACING_PX, n * SPACING_PX)).astype(np.float32)
    places = []
    for k, stamp in enumerate(stamps[: n * n]):
        y, x = (SPACING_PX // 2 + SPACING_PX * place for place in divmod(k, n))
        half = PAINTED_PX // 2
        image[y - half : y + half + 1, x - half : x + half + 1] = stamp
        places.append((x, y))
    head = tan_wcs(image.shape).to_header()
    for axis in (1, 2):
        head[f"CDELT{axis}"] *= 0.5
    head["BUNIT"] = "nJy"
    folder.mkdir()
    fits.PrimaryHDU(image, head).writeto(folder / "a_I.fits")
    (folder / "tiles.csv").write_text(f"tile,band,image\na,I,{folder / 'a_I.fits'}\n")
    return np.array(places)


def finder(folder):
    card = ModelCard(
        name="tiny",
        family="small-cnn",
        settings={"width": 4, "dropout": 0.0},
        bands=("I",),
        pixel_scale_arcsec=SCALE,
        scale_tolerance=0.1,
        min_scale_arcsec=0.05,
        max_scale_arcsec=0.2,
        stamp_px=33,
        stretch={"name": "asinh", "band_scales": (0.01,), "alpha": 0.1, "q": 1.0},
    )
    torch.manual_seed(3)
    save_model(folder, build("small-cnn", 1, 33, width=4, dropout=0.0), card)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Stamps of smooth lenses and heavy vortices, fitted; a network that learnt from them; a tile with such lenses."""
    home = tmp_path_factory.mktemp("fitted")
    stamps = simulated(home / "stamps", SIDE, 140, 3)
    write_fitted(stamps, priors_of(stamps), home / "left", band="I", njy_per_electron=GAIN)
    train(
        home / "left",
        model="small-cnn",
        task="classify",
        out=home / "classes",
        settings=TrainSettings.model_validate(LEARNT),
        seed=1,
    )
    write_card(home / "classes", read_card(home / "classes").with_outputs(abstention=RULE))
    finder(home / "finder")
    lenses = simulated(home / "lenses", PAINTED_PX, 16, 8)
    places = paint(home / "tiles", lenses, np.random.default_rng(4))
    return home, places, lenses.column("label")


def request(home, models=("classes",), **layout):
    config = ScanConfig.model_validate(
        {
            "shard": {"core_px": 256, "halo_px": 64},
            "select": {"mag_max": 23.5, "star_cut": 0},
            "score": {"model": str(home / "finder")},
            "substructure": {"models": [str(home / name) for name in models], "above": 0},
        }
    )
    stated = {"psf_fwhm_arcsec": {"I": FWHM}, "njy_per_electron": {"I": GAIN}} | layout
    layout = read_layout("generic").model_copy(update=stated)
    return ScanRequest((str(home / "tiles" / "tiles.csv"),), layout, config, None)


local = here(scan_local)


@contextlib.contextmanager
def by_ray(plain_s=None):
    from lenspipe.distributed.scan import scan_ray

    yield partial(scan_ray, n_worker=2, separate_scorers=True)


def rows_of(asked, out, runner=local):
    run_scan(asked, out, runner, Silent(), resume=False)
    return pq.read_table(out / "candidates.parquet")


@pytest.fixture(scope="module")
def run(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "local"
    rows_of(request(made[0]), out)
    return out


def some_of(source, folder, n):
    """The first rows of a data set as another."""
    write_part(pq.read_table(StampSet.open(source).parts[0]).slice(0, n), folder, "part-0")
    return StampSet.open(folder)


def of_lenses(rows, places):
    """Row of the candidate at each painted lens."""
    apart = np.hypot(*(rows[f"{axis}_px"].to_numpy()[:, None] - places[:, k] for k, axis in enumerate("xy")))
    assert apart.min(axis=0).max() < 5
    return apart.argmin(axis=0)


def numbers(rows, name):
    return rows[name].to_numpy(zero_copy_only=False).astype(np.float64)


def test_training_keeps_how_its_stamps_were_fitted_and_what_that_left(made):
    home = made[0]
    card, data = read_card(home / "classes"), StampSet.open(home / "left")
    assert card.bands == ("I", "I_left") and card.data_bands == ("I",)
    assert (card.fitted.band, card.fitted.size_px, card.fitted.njy_per_electron) == ("I", SIDE, GAIN)
    assert card.fitted.priors["theta_e_arcsec"] == (pytest.approx(1.2), 0.0)
    rows = (data.column("split") == "train") & (data.column("label") == "vortex")
    want = np.quantile(data.column("fitted_chi2")[rows], (0.01, 0.5, 0.99))
    np.testing.assert_allclose(card.fitted.chi2["vortex"], want, rtol=1e-3)
    assert card.fitted.most_chi2 == card.fitted.chi2["vortex"][2] > 1.5 * card.fitted.chi2["no_substructure"][2]


def test_a_scan_finds_smooth_lenses_smooth_and_vortices_in_the_others(made, run):
    _, places, label = made
    rows = pq.read_table(run / "candidates.parquet")
    at, smooth = of_lenses(rows, places), label == "no_substructure"
    chi2, vortex = numbers(rows, "fitted_chi2")[at], numbers(rows, "probability_vortex")[at]
    assert chi2[smooth].min() > 0.85 and chi2[smooth].max() < 1.15
    assert np.median(chi2[~smooth]) > 1.5
    pairs = np.nan_to_num(vortex[~smooth], nan=2.0)[:, None] > vortex[smooth]
    assert pairs.mean() > 0.9
    assert (numbers(rows, "fitted_theta_e_arcsec")[at] == np.float32(1.2)).all()
    others = np.setdiff1d(np.arange(len(rows)), at)
    wrong = others[numbers(rows, "fitted_chi2")[others] > read_card(made[0] / "classes").fitted.most_chi2]
    assert len(wrong) > 3  # arcs that were detected by themselves
    assert {rows["substructure_reason"][int(k)].as_py() for k in wrong} <= {"fit", "masked"}
    assert {rows["probability_vortex"][int(k)].as_py() for k in wrong} == {None}


def fitted_by_hand(folder, cutouts, ids, fit, rms, fwhm, **more):
    """The same stamps by hand: cut again around the lens galaxy, even ones half a pixel off."""
    again = around_peaks(cutouts, 0, reach_px(fit, SCALE))[:, :, :SIDE, :SIDE]
    spec, n = ImageSpec(("I",), SIDE, SCALE), len(again)
    schema = stamp_schema({"image": spec}, [pa.field("sky_rms_I_njy", pa.float64())])
    known = {"stamp_id": ids, "image": image_column(again, spec), "sky_rms_I_njy": [rms] * n}
    rows = pa.table([known.get(name, pa.nulls(n, schema.field(name).type)) for name in schema.names], schema=schema)
    write_part(rows, folder / "cut", "part-0")
    write_fitted(
        StampSet.open(folder / "cut"),
        anywhere_in_a_pixel(priors_of_fit(fit), SCALE, shift_px=0.5),
        folder / "left",
        band="I",
        fwhm_arcsec=fwhm,
        njy_per_electron=GAIN,
        lit_beyond=True,
        **more,
    )
    return StampSet.open(folder / "left")


def test_the_band_is_that_of_stamps_fit_on_the_same_stamps(made, run, tmp_path):
    home = made[0]
    plan, bands = read_plan(run / "plan.parquet")
    asked = request(home)
    readers = choose_readers(asked.config, bands, asked.layout).readers
    context = ScanContext(asked.config, asked.layout, bands, tmp_path / "attempts", readers)
    shard = scan_shard(tasks_of(plan)[0], context)
    card = read_card(home / "classes")
    cutouts = unpack_cutouts(shard, 0)[readers[-1].cutouts(SCALE)[0]]
    ids = [candidate["candidate_id"] for candidate in shard["candidates"][0].as_py()]
    rms, fwhm = shard["sky_rms_I_njy"][0].as_py(), without_pixel(shard["psf_fwhm_I_arcsec"][0].as_py(), SCALE)
    assert fwhm == pytest.approx(0.2355, rel=1e-3)
    found = LensFitter(card)(
        cutouts, bands=("I",), pixel_scale_arcsec=SCALE, fwhm_arcsec=fwhm, sky_rms_njy=rms, njy_per_electron=GAIN
    )
    want = fitted_by_hand(tmp_path / "a", cutouts, ids, card.fitted, rms, fwhm)
    np.testing.assert_array_equal(found.stamps_njy[:, 0], want.read_images()[:, 0])
    good = found.chi2 < 10
    np.testing.assert_allclose(found.stamps_njy[good, 1], want.read_images()[good, 1], atol=0.02)
    np.testing.assert_allclose(found.chi2[good], want.column("fitted_chi2")[good], rtol=2e-3)
    more = {"clumps": 1, "point_masses": True}
    fit = card.fitted.model_copy(update=more)
    wider = card.model_copy(update={"fitted": fit, "bands": (*card.bands, *fit.made[1:])})
    assert wider.data_bands == ("I",)
    mapped = LensFitter(wider)(
        cutouts, bands=("I",), pixel_scale_arcsec=SCALE, fwhm_arcsec=fwhm, sky_rms_njy=rms, njy_per_electron=GAIN
    )
    by_hand = fitted_by_hand(tmp_path / "b", cutouts, ids, fit, rms, fwhm, **more)
    assert mapped.bands == by_hand.images["image"].bands == ("I", *fit_of(by_hand).made)
    few = (mapped.chi2 < 2) & (by_hand.column("fitted_chi2") < 2)
    assert few.sum() >= 4
    np.testing.assert_allclose(mapped.stamps_njy[few, :3], by_hand.read_images()[few, :3], rtol=0.02, atol=0.1)
    np.testing.assert_allclose(mapped.stamps_njy[few, 3:], by_hand.read_images()[few, 3:], rtol=0.05, atol=0.5)
    assert np.abs(mapped.stamps_njy[few, 2]).max() > 2
    seen = stamp_input(want.read_images(), bands=("I", "I_left"), pixel_scale_arcsec=SCALE, card=card)
    said = Predictor(home / "classes", device="cpu").predict(seen).probability
    stored = {row["candidate_id"]: row for row in pq.read_table(run / "candidates.parquet").to_pylist()}
    checked = 0
    for k, name in enumerate(ids):
        row = stored[name]
        assert row["fitted_chi2"] == pytest.approx(found.chi2[k], rel=1e-6)
        if row["substructure_reason"] == "":
            assert row["probability_vortex"] == pytest.approx(said[k, 1], abs=5e-3)
            checked += 1
    assert checked


def test_a_fit_does_not_depend_on_what_it_is_made_with(made):
    home = made[0]
    card, stamps = read_card(home / "classes"), StampSet.open(home / "lenses").read_images()
    stamps = np.concatenate([stamps, stamps[:3]])  # more than a batch
    given = {"bands": ("I",), "pixel_scale_arcsec": SCALE, "fwhm_arcsec": 0.2355, "sky_rms_njy": 0.0365}
    fit = LensFitter(card)
    whole = fit(stamps, **given)
    for rows in ([18, 3], [5]):
        some = LensFitter(card)(stamps[rows], **given)
        np.testing.assert_array_equal(some.stamps_njy, whole.stamps_njy[rows])
        np.testing.assert_array_equal(some.chi2, whole.chi2[rows])


def test_pixels_without_data_count_for_nothing_and_other_pixels_are_resampled(made):
    home = made[0]
    card, data = read_card(home / "classes"), StampSet.open(home / "lenses")
    smooth = data.read_images(indices=np.flatnonzero(data.column("label") == "no_substructure")[:3])
    given = {"bands": ("I",), "fwhm_arcsec": 0.2355, "njy_per_electron": GAIN}
    rms = float(data.column("sky_rms_I_njy")[0])
    plain = LensFitter(card)(smooth, pixel_scale_arcsec=SCALE, sky_rms_njy=rms, **given)
    holed = smooth.copy()
    holed[:, :, 22:26, 20:23] = 0
    masked = LensFitter(card)(holed, pixel_scale_arcsec=SCALE, sky_rms_njy=rms, **given)
    np.testing.assert_allclose(masked.chi2, plain.chi2, rtol=0.05)
    assert (masked.stamps_njy[:, 1] == 0).sum() >= (plain.stamps_njy[:, 1] == 0).sum() + 3 * 10
    wide = card.model_copy(update={"scale_tolerance": 0.0, "pixel_scale_arcsec": 0.11, "min_scale_arcsec": 0.1})
    fit = card.fitted.model_copy(update={"pixel_scale_arcsec": 0.11, "size_px": 32})
    resampled = LensFitter(wide.model_copy(update={"fitted": fit, "stamp_px": 32}))(
        smooth, pixel_scale_arcsec=SCALE, sky_rms_njy=rms, **given
    )
    assert resampled.pixel_scale_arcsec == 0.11
    np.testing.assert_allclose(resampled.chi2, plain.chi2, rtol=0.25)


def test_stamps_fit_does_as_a_model_says_and_other_stamps_are_refused_in_one_line(made, tmp_path):
    home = made[0]
    few = some_of(home / "stamps", tmp_path / "few", 6)
    words = ["fit", str(few.folder), "--like", str(home / "classes"), "--out", str(tmp_path / "again")]
    stamps_command.main(words, standalone_mode=False)
    again, left = StampSet.open(tmp_path / "again"), StampSet.open(home / "left")
    np.testing.assert_allclose(again.column("fitted_chi2"), left.column("fitted_chi2")[:6], rtol=1e-2)
    assert fit_of(again).how == fit_of(left).how
    with pytest.raises(ModelError, match="run `lenspipe stamps fit STAMPS --like MODEL --out NEW`"):
        open_members([home / "classes"], few, device="cpu")
    with pytest.raises(ConfigError, match="shown no fitted stamps"):
        stamps_command.main([*words[:3], str(home / "finder"), "--out", str(tmp_path / "b")], standalone_mode=False)


def test_stamps_that_were_fitted_otherwise_are_not_judged(made, tmp_path):
    home = made[0]
    few, priors = some_of(home / "stamps", tmp_path / "few", 2), priors_of(StampSet.open(home / "stamps"))
    write_fitted(few, priors, tmp_path / "other", band="I", clumps=1, finer=1)
    with pytest.raises(DataError, match=r"not fitted as those.*differ='finer,clumps'"):
        open_members([home / "classes"], StampSet.open(tmp_path / "other"), device="cpu")
    words = ["fit", str(few.folder), "--like", str(home / "stamps"), "--cut-out", "--out", str(tmp_path / "cut")]
    with pytest.raises(ConfigError, match=r"--cut-out says where lenses lie.*given='centre_x_arcsec'"):
        stamps_command.main([*words, "--prior", "centre_x_arcsec=0,0"], standalone_mode=False)
    stamps_command.main(words, standalone_mode=False)
    assert fit_of(StampSet.open(tmp_path / "cut")).lit_beyond
    with pytest.raises(ConfigError, match="a model says how to fit: leave --prior"):
        stamps_command.main([*words[:3], str(home / "classes"), *words[5:], "--clumps", "2"], standalone_mode=False)


def test_a_model_whose_fits_were_on_other_pixels_is_not_followed(made, tmp_path):
    home = made[0]
    few = some_of(home / "stamps", tmp_path / "few", 2)
    (part,) = few.parts
    rows = pq.read_table(part)
    spec = few.images["image"]
    place = rows.schema.get_field_index("image")
    for name, times in (("coarse", 1.3), ("same", 1.0002)):
        other = ImageSpec(spec.bands, spec.size_px, times * spec.pixel_scale_arcsec, spec.unit)
        write_part(rows.set_column(place, other.field("image"), rows["image"]), tmp_path / name, "part-0")
    words = ["--like", str(home / "classes"), "--out", str(tmp_path / "x")]
    with pytest.raises(ConfigError, match=r"made on other pixels.*got=0\.13.*want=0\.1"):
        stamps_command.main(["fit", str(tmp_path / "coarse"), *words], standalone_mode=False)
    # what the model was followed for is judged by it
    stamps_command.main(["fit", str(tmp_path / "same"), *words], standalone_mode=False)
    assert open_members([home / "classes"], StampSet.open(tmp_path / "x"), device="cpu")


def test_stamps_without_a_fit_like_those_of_the_training_count_as_such_when_a_rule_is_fitted(made):
    home = made[0]
    data = StampSet.open(home / "left")
    (member,) = open_members([home / "classes"], data, device="cpu")
    facts = collect(member, data, split="train")
    chi2 = data.column("fitted_chi2")[data.column("split") == "train"]
    assert 0 < facts.unfitted.sum() < 5
    np.testing.assert_array_equal(facts.unfitted, chi2 > member.card.fitted.most_chi2)
    assert cost_of(facts, RULE)["reasons"]["fit"] == facts.unfitted.sum()


def test_sets_that_were_fitted_in_different_ways_are_not_read_as_one(made, tmp_path):
    home = made[0]
    stamps, priors = some_of(home / "stamps", tmp_path / "few", 2), priors_of(StampSet.open(home / "stamps"))
    for name, finer in (("a", 2), ("b", 2), ("c", 3)):
        gain = GAIN if name == "a" else None
        write_fitted(stamps, priors, tmp_path / name, band="I", finer=finer, njy_per_electron=gain)
    joined = open_stamps([Source(str(tmp_path / name)) for name in "ab"])
    assert fit_of(joined).njy_per_electron is None
    with pytest.raises(DataError, match=r"fitted in different ways.*one='a', other='c'"):
        fit_of(open_stamps([Source(str(tmp_path / name)) for name in "ac"]))


@pytest.mark.usefixtures("ray_local")
def test_ray_writes_the_columns_of_the_plain_loop(made, run, tmp_path):
    rows = rows_of(request(made[0]), tmp_path / "ray", by_ray)
    assert rows.equals(pq.read_table(run / "candidates.parquet"))


def test_the_columns_and_the_record_say_which_noise_was_assumed(made, run, tmp_path):
    home = made[0]
    known = pq.read_schema(run / "candidates.parquet").field("fitted_chi2").metadata
    assert b"of sky and photons in I" in known[b"description"]
    asked = request(home, njy_per_electron={})
    reader = choose_readers(asked.config, ("I",), asked.layout).readers[-1]
    assert "noise of the sky alone in I, while those of the training had that of photons" in reader.note()
    assert reader.record()["smooth_fits"]["njy_per_electron"] == {"I": None}
    chi2, theta = reader.fields()[-1], reader.fields()[-2]
    assert b"of the sky alone" in chi2.metadata[b"description"] and theta.metadata[b"unit"] == b"arcsec"


def test_candidates_without_a_fit_are_given_no_class_and_no_number(made, tmp_path):
    home = made[0]
    values = read_card(home / "classes").model_dump(mode="json")
    for name in ("task", "classes", "abstention"):
        del values[name]
    facts = {"targets": ("vortex_mass_msun", "theta_e_arcsec"), "target_means": (1e10, 1.0), "target_spreads": (1e9, 1)}
    card = ModelCard.model_validate(values | {"task": "regress", "name": "values"} | facts)
    save_model(home / "values", build("small-cnn", 2, SIDE, 2, width=4, dropout=0.0), card)
    rows = rows_of(request(home, ("classes", "values"), psf_fwhm_arcsec={}), tmp_path / "run")
    assert len(rows) > 10
    assert set(rows["substructure_reason"].to_pylist()) <= {"fit", "masked"}
    for name in ("fitted_chi2", "fitted_theta_e_arcsec", "probability_vortex", "vortex_mass_msun", "theta_e_arcsec"):
        assert rows[name].null_count == len(rows), name


def test_fits_that_cannot_be_made_are_refused_before_any_work(made, tiny_model):
    home = made[0]
    card = read_card(home / "classes")
    other = card.fitted.model_copy(update={"finer": 3})
    regress = card.model_dump(mode="json") | {"task": "regress", "fitted": other.model_dump(), "name": "other"}
    for name in ("classes", "abstention"):
        del regress[name]
    facts = {"targets": ("vortex_mass_msun",), "target_means": (1e10,), "target_spreads": (1e9,)}
    network = build("small-cnn", 2, SIDE, 1, width=4, dropout=0.0)
    save_model(home / "other", network, ModelCard.model_validate(regress | facts))
    asked = request(home, ("classes", "other"))
    with pytest.raises(ConfigError, match="were shown different fits"):
        choose_readers(asked.config, ("I",), asked.layout)
    config = request(home).config
    config = config.model_copy(update={"score": config.score.model_copy(update={"model": str(tiny_model)})})
    with pytest.raises(ConfigError, match=r"substructure needs bands that the tiles do not have.*missing='I'"):
        choose_readers(config, ("g", "r", "i"), asked.layout)
