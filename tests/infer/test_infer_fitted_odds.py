"""Odds of drawn substructure as columns of fitted stamps."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Cosmo.lens_cosmo import LensCosmo
from sklearn.metrics import roc_auc_score

from lenspipe.cli.stamps import command
from lenspipe.errors import ConfigError, DataError
from lenspipe.evaluate.judging import open_members
from lenspipe.infer import fitted_run
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn import draws, lines
from lenspipe.nn.card import CARD_FILE, read_card
from lenspipe.nn.fitted import CHI2, KEY, SmoothFit
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.stamps.format import StampSet, write_part

HEAVY = {
    "image.0.size_px": 48,
    "image.0.pixel_scale_arcsec": 0.1,
    "image.0.supersampling": 2,
    "part_rows": 40,
    "sources.clumpy_fraction": 0.0,
    "substructure.mass_fraction": [0.02, 0.1],
    "substructure.vortex_mass_msun": [2e10, 5e10],
}
ODDS = ("fitted_subhalo_log_odds", "fitted_vortex_log_odds")


class CutOffError(Exception):
    """A process that ends in the middle of a fit."""


@pytest.fixture(scope="module", autouse=True)
def few():
    """Fewer lines around the best, and fewer places, than elsewhere, for time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lines, "N_MORE", 256)
        patched.setattr(draws, "N_SIDE", 17)
        yield


def run(*words):
    return command.main([*map(str, words), "--runner", "local"], standalone_mode=False)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    out = tmp_path_factory.mktemp("odds") / "s"
    simulate(read_recipe("substructure-1", changes=HEAVY), count=120, seed=3, out=out)
    return StampSet.open(out)


@pytest.fixture(scope="module")
def fitted(simulated, tmp_path_factory):
    out = tmp_path_factory.mktemp("odds") / "f"
    run("fit", simulated.folder, "--out", out, "--signals", "substructure-1", "--draws", 2048)
    return StampSet.open(out)


def test_what_is_there_has_odds_and_what_is_not_has_none(fitted):
    label = fitted.column("label")
    odds = np.stack([fitted.column(name) for name in ODDS], 1)
    # a fit that heavy substructure led away, to a radius that was not drawn, has none
    assert np.isfinite(odds).all(1).mean() > 0.95
    odds = np.nan_to_num(odds)
    none = label == "no_substructure"
    assert np.median(odds[none].max(1)) < 0.5
    assert roc_auc_score(~none, odds.max(1)) > 0.85
    either = ~none & (odds.max(1) > 5)
    assert either.sum() > 20
    assert roc_auc_score(label[either] == "vortex", (odds[:, 1] - odds[:, 0])[either]) > 0.75
    fit = SmoothFit.model_validate_json(fitted.schema.field(CHI2).metadata[KEY])
    assert fit.signals is not None
    assert (fit.signals.recipe, fit.signals.labels, fit.signals.draws) == (
        "substructure-1",
        ("subhalo", "vortex"),
        2048,
    )
    assert fit.signals.amounts == (
        "subhalo_mass_fraction",
        "subhalo_slope",
        "vortex_square_arcsec2",
        "vortex_length_arcsec",
    )
    field = fitted.schema.field("fitted_vortex_length_arcsec_error")
    assert field.metadata == {b"unit": b"arcsec", b"description": b"standard deviation of fitted_vortex_length_arcsec"}
    assert b"evidence for vortex" in fitted.schema.field(ODDS[1]).metadata[b"description"]


def test_how_much_there_is_is_told_where_it_shows(fitted):
    """The square of a vortex's Einstein radius against that of the mass that the stamp says, and its length."""
    shows = (fitted.column("label") == "vortex") & (fitted.column(ODDS[1]).astype(float) > 20)
    assert shows.sum() > 10
    mass, length = (fitted.column(f"vortex_{name}").astype(float)[shows] for name in ("mass_msun", "length_arcsec"))
    redshifts = (fitted.column(name).astype(float)[shows] for name in ("z_lens", "z_source"))
    density = [LensCosmo(*z, FlatLambdaCDM(H0=70, Om0=0.3)).sigma_crit_angle for z in zip(*redshifts, strict=True)]
    square = mass / (np.pi * np.array(density))
    found = {}
    for name, truth in (("square_arcsec2", square), ("length_arcsec", length)):
        found[name], error = (
            fitted.column(f"fitted_vortex_{name}{end}").astype(float)[shows] for end in ("", "_error")
        )
        assert (error > 0).all()
        assert np.median(error) < truth.std()
    assert np.corrcoef(np.log(found["length_arcsec"]), np.log(length))[0, 1] > 0.4
    # these are heavier than all that were drawn, by up to 2.5 times
    assert 0.25 < np.median(found["square_arcsec2"] / square) < 1.2


def test_a_fit_with_odds_that_was_cut_off_is_resumed_and_the_same(simulated, fitted, tmp_path, monkeypatch):
    out = tmp_path / "f"
    words = ("fit", simulated.folder, "--out", out, "--signals", "substructure-1", "--draws", 2048)

    written = []

    def cut_off(*told):
        if written:
            raise CutOffError
        written.append(write_part(*told))

    with monkeypatch.context() as patched:
        patched.setattr(fitted_run, "write_part", cut_off)
        with pytest.raises(CutOffError):
            run(*words)
    with pytest.raises(ConfigError, match=r"another request.*signals"):
        run(*words[:-1], 1024, "--resume")
    run(*words, "--resume")
    for name in ODDS:
        np.testing.assert_array_equal(StampSet.open(out).column(name), fitted.column(name))
    assert not (out / fitted_run.WAITING).exists()


def test_stamps_without_lens_facts_take_them_from_simulated_ones(simulated, fitted, tmp_path):
    kept = [name for name in simulated.schema.names if not name.startswith(("theta_e", "z_", "velocity"))]
    bare = tmp_path / "bare"
    bare.mkdir()
    pq.write_table(pq.read_table(simulated.parts[0], columns=kept).slice(0, 6), bare / "part-0.parquet")
    told = ("--prior", "theta_e_arcsec=1.2,0.3", "--signals", "substructure-1", "--draws", 1024)
    with pytest.raises(ConfigError, match=r"--like.*theta_e_arcsec"):
        run("fit", bare, "--out", tmp_path / "a", *told)
    run("fit", bare, "--out", tmp_path / "a", "--like", simulated.folder, *told[2:4], "--draws", 2048)
    found = StampSet.open(tmp_path / "a")
    # of a batch of another size the last digits differ, and with them where a few of the masses are laid
    np.testing.assert_allclose(found.column(ODDS[0]), fitted.column(ODDS[0])[:6], rtol=0.01, atol=0.1)


def test_what_has_no_draws_is_refused(simulated, tmp_path):
    out = ("--out", tmp_path / "o")
    with pytest.raises(ConfigError, match="--draws is of --signals"):
        run("fit", simulated.folder, *out, "--draws", 2048)
    with pytest.raises(ConfigError, match="draws no substructure"):
        run("fit", simulated.folder, *out, "--signals", "model-f")
    with pytest.raises(ConfigError, match="Einstein radius that is fitted"):
        run(
            "fit",
            simulated.folder,
            *out,
            "--signals",
            "substructure-1",
            "--draws",
            1024,
            "--prior",
            "theta_e_arcsec=1.2,0",
        )
    assert not (tmp_path / "o").exists()


def trained(fitted, out, features, bands=()):
    asked = {"input": {"features": list(features)}, "optim": {"epochs": 1}}
    if bands:
        asked["input"]["bands"] = list(bands)
    model = "small-cnn"
    if features:
        asked["model"], model = {"trunk": "resnet10t"}, "hybrid"
    train(fitted.folder, model=model, task="classify", out=out, settings=TrainSettings.model_validate(asked), seed=1)
    return read_card(out)


def test_a_network_that_reads_them_keeps_how_they_were_made(fitted, simulated, tmp_path):
    assert trained(fitted, tmp_path / "m", ODDS).fitted.signals is not None
    with pytest.raises(ConfigError, match=r"learnt from odds.*--signals substructure-1 --draws 2048"):
        run("fit", simulated.folder, "--out", tmp_path / "o", "--like", tmp_path / "m")
    assert len(open_members([tmp_path / "m"], fitted)) == 1
    few = tmp_path / "few"
    few.mkdir()
    pq.write_table(pq.read_table(simulated.parts[0]), few / "part-0.parquet")
    run("fit", few, "--out", tmp_path / "o", "--signals", "substructure-1", "--draws", 1024)
    with pytest.raises(DataError, match=r"--like SIMULATED --signals substructure-1 --draws 2048 --finer 2.*signals"):
        open_members([tmp_path / "m"], StampSet.open(tmp_path / "o"))
    card = tmp_path / "m" / CARD_FILE
    older = json.loads(card.read_text())
    older["fitted"]["signals"].pop("way")
    card.write_text(json.dumps(older))
    with pytest.raises(DataError, match="learnt from odds that this version makes otherwise: train it again"):
        open_members([tmp_path / "m"], fitted)
    with pytest.raises(ConfigError, match="learnt from odds that this version makes otherwise: train it again"):
        run("fit", simulated.folder, "--out", tmp_path / "o", "--like", tmp_path / "m")
    with pytest.raises(ConfigError, match=r"add it to input\.bands.*F814W_left"):
        trained(fitted, tmp_path / "n", ODDS, ["F814W"])


def test_a_network_that_reads_none_is_used_without(fitted, simulated, tmp_path):
    assert trained(fitted, tmp_path / "m", ()).fitted.signals is None
    run("fit", simulated.folder, "--out", tmp_path / "o", "--like", tmp_path / "m")
    for stamps in (fitted, StampSet.open(tmp_path / "o")):
        assert len(open_members([tmp_path / "m"], stamps)) == 1
