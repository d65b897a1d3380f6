"""The selection function: files with units, answers with intervals, and refusals outside what was injected."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from lenspipe.catalog.run_rows import Run
from lenspipe.catalog.votable import write_fits
from lenspipe.completeness import read
from lenspipe.completeness.finish import Outcome, smooth_table
from lenspipe.completeness.measure import real_stamps
from lenspipe.completeness.passes import share_passes
from lenspipe.completeness.points import points_of
from lenspipe.completeness.quantities import HOST, SKY, ranges_of
from lenspipe.completeness.realism import FINDER, STATISTICS, Stamps, gate, real_lenses, verdict
from lenspipe.completeness.run import Painted
from lenspipe.completeness.selection import CELLS, INJECTIONS, OF_PAINTED, SELECTION, Selection, fit_selection
from lenspipe.completeness.table import injections_schema
from lenspipe.errors import ConfigError
from lenspipe.infer.loaded import LoadedNetwork
from lenspipe.rundir import read_json, write_json
from lenspipe.stamps.convert import convert
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.readers.stream import LabelledStamp, stream_stamps
from lenspipe.stamps.spec import ImageSpec
from lenspipe.stamps.splits import DEFAULT_FRACTIONS
from lenspipe.tables import read_parquet, write_table


def test_counts_of_the_bins_add_up_to_the_injections(outcome: Outcome, painted: Painted) -> None:
    table = pq.read_table(painted.folder / "binned.parquet").to_pandas()
    score = painted.injections["score"].to_numpy(zero_copy_only=False).astype(float)
    for point in outcome.selection.points:
        of = table[(table["at"] == point.name) & (table["kind"] == "both")]
        for name in ("all", "theta_e_arcsec", "arc_snr"):
            assert of[of["quantity"] == name]["n"].sum() == painted.injections.num_rows
            assert of[of["quantity"] == name]["k"].sum() == np.sum(score > point.threshold)


def test_fits_tables_hold_the_parquet_tables_with_units(outcome: Outcome, painted: Painted) -> None:
    for name in ("injections", "binned", "smooth", "healpix"):
        one, other = pq.read_table(painted.folder / f"{name}.parquet"), Table.read(painted.folder / f"{name}.fits")
        assert len(other) == one.num_rows > 0
    table = Table.read(painted.folder / "injections.fits")
    assert table["theta_e_arcsec"].unit == "arcsec" and table["arc_mag_r"].unit == "mag"
    np.testing.assert_array_equal(table["theta_e_arcsec"], painted.injections["theta_e_arcsec"])
    assert OF_PAINTED in " ".join(Table.read(painted.folder / "smooth.fits").meta["comments"])


def test_an_answer_has_an_interval_and_says_what_it_is_of(outcome: Outcome, painted: Painted) -> None:
    selection = read(painted.folder)
    low, high = selection.ranges["theta_e_arcsec"]
    said = selection(theta_e_arcsec=(low + high) / 2)
    assert 0 <= said.low <= said.completeness <= said.high <= 1
    assert said.what == OF_PAINTED and OF_PAINTED in repr(said)
    snr = np.linspace(*selection.ranges["arc_snr"], 3)
    grid = selection(theta_e_arcsec=np.array([[low], [high]]), arc_snr=snr, at="first 5")
    assert grid.completeness.shape == grid.low.shape == (2, 3)
    one = selection(theta_e_arcsec=high, arc_snr=snr[1], at="first 5")
    assert grid.completeness[1, 1] == pytest.approx(one.completeness, rel=1e-12)


def test_an_answer_names_what_was_asked_and_makes_no_difference(outcome: Outcome, painted: Painted) -> None:
    selection = outcome.selection
    why = "{} makes no difference: the painted lenses have 1 value of it, and 5 are needed"
    seeing = selection(seeing_arcsec=0.75, theta_e_arcsec=1.2)
    assert seeing.notes == (why.format("seeing_arcsec"),) and why.format("seeing_arcsec") in repr(seeing)
    assert seeing.completeness == selection(theta_e_arcsec=1.2).completeness
    ra, dec = (painted.injections[name][0].as_py() for name in ("ra", "dec"))
    there = selection(ra_deg=ra, dec_deg=dec)
    assert there.completeness == pytest.approx(selection().completeness)
    assert [note.split()[0] for note in there.notes] == ["seeing_arcsec", "depth_mag"]
    assert not selection(theta_e_arcsec=1.2, arc_snr=np.array([20.0, 30.0])).notes


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"theta_e_arcsec": 5.0}, "nothing was injected there.*5.0"),
        ({"theta_e_arcsec": np.array([1.0, np.nan])}, "nothing was injected there"),
        ({"seeing_arcsec": 1.5}, "nothing was injected there"),
        ({"redshift": 0.5}, "does not know this quantity.*theta_e_arcsec"),
        ({"arc_snr": 20.0, "arc_mag": 23.0}, "not both"),
        ({"at": "rate 7"}, "no such operating point.*first 5"),
        ({"kind": "moon"}, "no lens of this kind"),
        ({"ra_deg": 200.0, "dec_deg": 0.0}, "nothing was injected at this position"),
    ],
)
def test_what_was_not_injected_is_refused(outcome: Outcome, asked: dict, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        outcome.selection(**asked)


PLANTED = {HOST: 0.35, SKY: 0.8}


def planted_injections(rng: np.random.Generator, kinds: np.ndarray) -> pa.Table:
    """Lenses of which another part is recovered in each kind, and nothing else matters."""
    n = len(kinds)
    passed = rng.uniform(size=n) < np.array([PLANTED[kind] for kind in kinds])
    columns = {
        "kind": kinds,
        "host_id": np.array([f"h{k // 3}" for k in range(n)]),
        "theta_e_arcsec": np.exp(rng.uniform(np.log(0.5), np.log(3), n)),
        "arc_snr": np.exp(rng.uniform(np.log(5), np.log(150), n)),
        "arc_mag_r": rng.uniform(20, 25, n),
        "host_mag_r": rng.uniform(17, 21, n),
        "psf_fwhm_r_arcsec": np.full(n, 0.7),
        "depth_r_mag": np.full(n, 24.5),
        "score": passed.astype(float),
    }
    schema = injections_schema(("r",))
    return pa.table([pa.array(columns.get(f.name, [None] * n), type=f.type) for f in schema], schema=schema)


def planted_selection(outcome: Outcome, painted: Painted, folder: Path, kinds: np.ndarray) -> Selection:
    """A selection function of planted lenses, written and read back."""
    injections = planted_injections(np.random.default_rng(3), kinds)
    points, _ = points_of(np.linspace(0, 1, 101), rates=(), first=(), thresholds=(0.5,), area_part=1.0)
    fits, values, _ = fit_selection(injections, points, band="r", colour=None, n_bootstrap=20, seed=1)
    folder.mkdir()
    write_table(injections, folder / INJECTIONS)
    shutil.copy(painted.folder / CELLS, folder)
    record = {
        "band": "r",
        "colour": None,
        "points": [dataclasses.asdict(point) for point in points],
        "ranges": {name: list(ends) for name, ends in ranges_of(values).items()},
        "fits": {point: {name: fit.to_json() for name, fit in both.items()} for point, both in fits.items()},
    }
    write_json(folder / SELECTION, dict(outcome.selection.record) | record)
    return read(folder)


def test_each_kind_has_the_completeness_that_was_planted_for_it(
    outcome: Outcome, painted: Painted, tmp_path: Path
) -> None:
    selection = planted_selection(outcome, painted, tmp_path / "sel", np.tile([HOST, SKY, SKY], 600))
    everything = {"theta_e_arcsec": 1.2, "arc_snr": 30.0, "host_mag": 19.0}
    for kind, truth in PLANTED.items():
        for asked in ({}, {"theta_e_arcsec": 1.2}, everything, everything | {"arc_snr": np.array([20.0, 40.0])}):
            said = selection(kind=kind, **asked)
            assert np.all(np.abs(said.completeness - truth) < 0.1) and not said.notes  # 3 sigma at a place
    assert selection(theta_e_arcsec=1.2).completeness == pytest.approx((0.35 + 2 * 0.8) / 3, abs=0.06)

    smooth = smooth_table(selection)
    write_table(smooth, tmp_path / "smooth.parquet")
    write_fits(smooth, tmp_path / "smooth.fits", name="smooth", facts={})
    for table in (pq.read_table(tmp_path / "smooth.parquet").to_pandas(), Table.read(tmp_path / "smooth.fits")):
        of, value = np.char.strip(np.asarray(table["kind"]).astype(str)), np.asarray(table["completeness"])
        assert set(of) == {"both", HOST, SKY}
        assert value[of == HOST].mean() == pytest.approx(PLANTED[HOST], abs=0.1)
        assert value[of == SKY].mean() == pytest.approx(PLANTED[SKY], abs=0.1)


def test_an_answer_for_a_kind_says_where_kinds_are_not_told_apart(
    outcome: Outcome, painted: Painted, tmp_path: Path
) -> None:
    few = planted_selection(outcome, painted, tmp_path / "few", np.array([HOST] * 20 + [SKY] * 100))
    said = few(kind=HOST, theta_e_arcsec=1.2)
    assert "does not tell kinds apart (20 lenses of kind host, and 50 are needed)" in repr(said)
    assert set(smooth_table(few)["kind"].to_pylist()) == {"both"} and not few(theta_e_arcsec=1.2).notes
    one = planted_selection(outcome, painted, tmp_path / "one", np.array([HOST] * 60))
    assert not one(kind=HOST).notes

    many = planted_selection(outcome, painted, tmp_path / "many", np.array([HOST, SKY] * 60))
    record = read_json(tmp_path / "many" / SELECTION)
    write_json(tmp_path / "many" / SELECTION, record | {"fits": read_json(tmp_path / "few" / SELECTION)["fits"]})
    older = read(tmp_path / "many")  # as an older version wrote it: no axis of kinds
    assert "an older version of lenspipe fitted it" in repr(older(kind=SKY)) and many.kinds_told == (HOST, SKY)


def test_a_folder_without_a_selection_function_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no selection function here"):
        read(tmp_path)


def test_the_page_is_whole_and_says_what_it_is_of(outcome: Outcome, painted: Painted) -> None:
    text = (painted.folder / "index.html").read_text()
    assert OF_PAINTED.capitalize() in text and "no real lenses were given" in text
    assert text.count("<img") >= 4 and (painted.folder / "footprint.fits").exists()


def gate_test(auc: float, high: float, **more: object) -> dict:
    return {"pair": "p", "kind": "host", "features": "f", "auc": auc, "interval95": [auc - 0.1, high], **more}


def test_painted_lenses_pass_for_real_ones_only_where_real_ones_were_compared_and_no_test_tells() -> None:
    good = gate_test(0.52, 0.6)
    assert verdict([good], 0.65, given=True)[0]
    assert not verdict([good], 0.65, given=False)[0]
    assert not verdict([good, gate_test(0.7, 0.75)], 0.65, given=True)[0]
    assert not verdict([good, gate_test(0.6, 0.9)], 0.65, given=True)[0]  # too few to say
    assert not verdict([good, gate_test(0.5, 0.5) | {"auc": None, "why": "few"}], 0.65, given=True)[0]


def test_a_point_passes_as_many_candidates_as_it_is_named_after() -> None:
    scores = np.linspace(0, 1, 2001)
    points, notes = points_of(scores, rates=(0.01, 1e-4), first=(50, 5000), thresholds=(0.5,), area_part=1.0)
    assert [(p.name, p.passing["k"]) for p in points] == [("rate 0.01", 20), ("first 50", 50), ("score 0.5", 1000)]
    assert len(notes) == 2 and "cannot be measured" in notes[0]
    half, _ = points_of(scores, rates=(), first=(50,), thresholds=(), area_part=0.5)
    assert half[0].passing["k"] == 25


def test_passes_are_shared_among_tiles_until_the_count_is_reached() -> None:
    few, density = share_passes({f"t{k}": 100.0 for k in range(50)}, count=240, per_arcmin2=0.6, seed=1)
    assert len(few) == 4 and density * 400 == pytest.approx(240)
    many, density = share_passes({"a": 100.0, "b": 50.0}, count=500, per_arcmin2=0.6, seed=1)
    assert density * (many["a"] * 100 + many["b"] * 50) == pytest.approx(500)
    assert abs(many["a"] - many["b"]) <= 1 and density <= 0.6


def test_real_lenses_are_compared_with_painted_ones_and_what_differs_does_not_pass(
    tiny_model: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    spec = ImageSpec(("g", "r", "i"), 41, 0.2)
    stamps = {f"real-{k}": rng.normal(0, 5, (3, 41, 41)).astype(np.float32) for k in range(12)}

    def one(name: str) -> LabelledStamp:
        return LabelledStamp(name, {"image": stamps[name]}, "lens", name, {})

    stream = stream_stamps("real", {"image": spec}, [], list(stamps), one, n=len(stamps))
    convert(stream, tmp_path / "real", seed=0, fractions=DEFAULT_FRACTIONS, margin_arcsec=5.0)
    judged = gate(
        LoadedNetwork(tiny_model),
        real_lenses(StampSet.open(tmp_path / "real"), "gri"),
        {},
        {"host": Stamps(painted_like(rng), *[np.array([f"p{k}" for k in range(12)])] * 2, 0.2)},
        real_lenses(StampSet.open(tmp_path / "real"), "gri"),
        bands="gri",
        limit=0.65,
        seed=1,
    )
    assert {t["features"] for t in judged["tests"]} >= {FINDER, STATISTICS, "noise", "profile"}
    assert not judged["passed"] and "AUC" in judged["why"]


def painted_like(rng: np.random.Generator) -> np.ndarray:
    y, x = np.indices((41, 41)) - 20
    light = 300 * np.exp(-np.hypot(x, y) / 3)
    return (rng.normal(0, 5, (12, 3, 41, 41)) + light).astype(np.float32)


def test_stamps_without_the_finder_s_bands_are_refused(tmp_path: Path) -> None:
    spec = ImageSpec(("VIS",), 41, 0.1)
    stream = stream_stamps(
        "real",
        {"image": spec},
        [],
        ["one"],
        lambda name: LabelledStamp(name, {"image": np.ones((1, 41, 41), np.float32)}, "lens", name, {}),
        n=1,
    )
    convert(stream, tmp_path / "real", seed=0, fractions=DEFAULT_FRACTIONS, margin_arcsec=5.0)
    with pytest.raises(ConfigError, match="lack a band of the finder"):
        real_lenses(StampSet.open(tmp_path / "real"), "gri")


def test_a_file_of_grades_gives_the_gate_the_runs_graded_lenses(run: Run, tmp_path: Path) -> None:
    rows = read_parquet(run.folder / "candidates.parquet").to_pylist()[:6]
    lines = [f"{run.run_id},{row['candidate_id']},ada,{grade}" for row, grade in zip(rows, "ABANCN", strict=True)]
    file = tmp_path / "grades.csv"
    file.write_text("\n".join(["run_id,candidate_id,grader,grade", *lines]) + "\n")
    cut = StampSet.open(real_stamps(file, run, tmp_path / "sel", seed=1))
    graded = cut.column("candidate_id")[cut.column("label") == "lens"]
    assert set(graded) == {row["candidate_id"] for row in rows[:3]}
    lenses = real_lenses(cut, ("g", "r", "i"))
    assert len(lenses) == 3
    assert (lenses.pixels_njy[:, :, lenses.pixels_njy.shape[-1] // 2].max(axis=-1) > 0).all()
    file.write_text("run_id,candidate_id,grader,grade\nanother,x,ada,A\n")
    with pytest.raises(ConfigError, match="no grade is for this run"):
        real_stamps(file, run, tmp_path / "other", seed=1)
