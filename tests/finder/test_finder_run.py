import json
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from click.testing import CliRunner
from drawn_survey import BANDS, FWHM, SCALE, drawn_tile, write_tile
from pictures import drawn

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.cli.finder import command
from lenspipe.completeness.config import HostConfig
from lenspipe.completeness.hosts import measure_cuts
from lenspipe.errors import ConfigError, DataError, ModelError, TileError
from lenspipe.finder import places, report, rounds, steps
from lenspipe.finder.areas import Areas
from lenspipe.finder.graded import check_grade_files, check_grades, read_graded
from lenspipe.finder.known import write_known
from lenspipe.finder.probe import border_probe
from lenspipe.finder.recipe import CLASSES
from lenspipe.finder.request import FinderRequest
from lenspipe.finder.rounds import keep_of_base, settings_for
from lenspipe.finder.run import make_finder
from lenspipe.finder.settings import FinderSettings, GradeSettings
from lenspipe.finder.shots import EVERYWHERE
from lenspipe.finder.sources import trouble_of
from lenspipe.learn.train import train
from lenspipe.nn.card import ModelCard, find_model, read_card, write_card
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.nn.committee import open_committee
from lenspipe.runner import SILENT, Silent
from lenspipe.sky.sphere import separation_arcsec
from lenspipe.stamps.format import ImageSpec, StampSet, image_column, stamp_schema, write_part
from lenspipe.survey.layout import read_layout
from lenspipe.toml import put_over

PSF = {f"psf_fwhm_arcsec.{band}": FWHM for band in BANDS}
QUICK = {
    "hosts.mag_max": 21.5,
    "hosts.fractions": [0.5, 0.25, 0.25],
    "stamps.side_arcsec": 12.0,
    "stamps.count": 100,
    "stamps.classes": {
        "real": 40,
        "companions": 0,
        "satellites": 0,
        "young_ring": 0,
        "spiral_disc": 0,
        "merger": 0,
        "group": 0,
    },
    "train.optim.epochs": 8,
    "train.optim.threads": 1,
    "train.sampling.batch_size": 16,
}


def asked(tiles, changes=None, **more):
    settings = put_over(FinderSettings(), QUICK | (changes or {}), origin="test")
    layout = put_over(read_layout("generic"), PSF, origin="test")
    return FinderRequest((str(tiles),), layout, settings, **more)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    image, red = drawn_tile()
    return write_tile(tmp_path_factory.mktemp("tiles") / "t", image), red


def test_tiles_that_all_fail_end_with_the_reason(tmp_path):
    tiles = write_tile(tmp_path / "t", drawn_tile(n_red=1, n_blue=0, n_star=0)[0])
    for file in tiles.glob("*.fits"):
        with fits.open(file, mode="update") as image:
            del image[0].header["BUNIT"]
    with pytest.raises(ConfigError, match=r"no tile could be searched.*first=.*zero-point"):
        make_finder(asked(tiles), tmp_path / "mine", progress=SILENT)


class Said(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def test_shards_that_cannot_be_read_are_counted_and_named_again_after_a_resume(survey, tmp_path):
    tiles = tmp_path / "tiles"
    shutil.copytree(survey[0], tiles / "good")
    shutil.copytree(survey[0], tiles / "bad")
    out = tmp_path / "mine"
    make_finder(asked(tiles), out, progress=SILENT, until="scan")
    for file in (tiles / "bad").glob("*.fits"):  # lost between scan and sources
        file.write_bytes(b"no image")
    for _ in range(2):
        said = Said()
        record = make_finder(asked(tiles), out, progress=said, until="sources").record
        assert len(record["failures"]) == 1 and "bad" in record["failures"][0]
        first = "Shards that could not be read and gave no stamps: 1; the first: "
        assert any(line.startswith(first) and "bad" in line for line in said.lines)


def commanded(tiles, out, *words):
    """`lenspipe finder` of tiles with the settings of `asked`, in this process."""
    said_so = {f"survey.{key}": value for key, value in PSF.items()} | QUICK
    said_so |= {f"stamps.classes.{name}": n for name, n in said_so.pop("stamps.classes").items()}
    sets = [f"--set={key}={json.dumps(value)}" for key, value in said_so.items()]
    whole = [str(tiles), "--survey", "generic", "--runner", "local", "--out", str(out), *words, *sets]
    done = CliRunner().invoke(command, whole, standalone_mode=False)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def test_shards_that_cannot_be_cut_are_counted_apart_on_the_page_and_by_the_command(survey, tmp_path):
    tiles, out = tmp_path / "tiles", tmp_path / "mine"
    shutil.copytree(survey[0], tiles / "good")
    shutil.copytree(survey[0], tiles / "lost")
    made = asked(tiles)
    make_finder(made, out, progress=SILENT, until="sources")
    for file in (tiles / "lost").glob("*.fits"):  # lost between sources and hosts
        file.write_bytes(b"no image")
    for _ in range(2):
        said = Said()
        record = make_finder(made, out, progress=said, until="hosts").record
        assert record["failures"] == [] and len(record["uncut"]) == 1 and "lost" in record["uncut"][0]
        first = "Shards that were searched, but could not be cut into stamps: 1; the first: "
        assert any(line.startswith(first) and "lost" in line for line in said.lines)
        assert not any("could not be read" in line for line in said.lines)
    done = commanded(tiles, out, "--until", "hosts")
    assert "Shards that could not be cut into stamps: 1" in done.output
    assert "Shards that could not be read" not in done.output
    section = report._hosts(record | {"failures": ["t_9: no zero-point"]}, out)
    assert "Shards that could not be read and gave no stamps: 1; the first: t_9: no zero-point" in section.text
    assert "could not be cut into stamps: 1; the first: " in section.text and "lost" in section.text


def test_sources_of_an_older_run_that_do_not_say_why_there_are_none_are_measured_again(survey, tmp_path):
    tiles, out = tmp_path / "tiles", tmp_path / "mine"
    shutil.copytree(survey[0], tiles / "good")
    shutil.copytree(survey[0], tiles / "bad")
    make_finder(asked(tiles), out, progress=SILENT, until="scan")
    for file in (tiles / "bad").glob("*.fits"):
        file.write_bytes(b"no image")
    make_finder(asked(tiles), out, progress=SILENT, until="sources")
    (part,) = (out / "sources").glob("*bad*.parquet")
    pq.write_table(pq.read_table(part).replace_schema_metadata(None), part)  # as an older version left it
    assert trouble_of(part) == ""
    record = make_finder(asked(tiles), out, progress=SILENT, until="sources").record
    assert len(record["failures"]) == 1 and "bad" in record["failures"][0]


@pytest.fixture(scope="module")
def painted(survey, tmp_path_factory):
    """A finder as far as its stamps."""
    out = tmp_path_factory.mktemp("finder") / "mine"
    result = make_finder(asked(survey[0]), out, progress=SILENT, until="stamps")
    return out, result.record


def test_hosts_are_the_red_galaxies_and_stars_are_refused(survey, painted):
    out, record = painted
    hosts = StampSet.open(out / "hosts")
    label, refused = hosts.column("label"), hosts.column("refused")
    ra, dec = hosts.column("ra"), hosts.column("dec")
    early = np.flatnonzero(label == "early")
    assert len(early) >= 25
    x = 320 - 0.5 - (ra - 150.0) * np.cos(np.radians(2.2)) * 3600 / SCALE
    y = 320 - 0.5 + (dec - 2.2) * 3600 / SCALE
    for k in early:
        assert np.hypot(survey[1][:, 0] - x[k], survey[1][:, 1] - y[k]).min() < 2
    assert {"early", "source", "star", "sky"} <= set(label)
    assert record["stars_on_locus"] > 30
    assert not any(refused[early])


def test_completeness_paints_on_the_hosts_that_a_finder_learns_from(survey, painted):
    """One choice: colour and threshold of both, and hosts that are the drawn red galaxies."""
    run = open_run_folder(painted[0] / "scan")
    wanted = HostConfig(mag=tuple(painted[1]["host_mag"]), axis_ratio_min=0.4)
    choice, n_host = measure_cuts(run, wanted, dict.fromkeys(BANDS, FWHM))
    said = re.match(r"g - i > ([\d.]+) \(two modes", painted[1]["red_sequence"])
    assert choice.colour == ("g", "i") and said
    assert choice.cuts.colour_min == pytest.approx(float(said[1]), abs=0.1)
    n_early = painted[1]["sources"]["early"]
    assert abs(n_host - n_early) <= 0.2 * n_early
    part, n_part = measure_cuts(run, wanted.model_copy(update={"red_part": 1.0}), dict.fromkeys(BANDS, FWHM))
    assert part.cuts.colour_min == -np.inf and n_part > n_host
    given, _ = measure_cuts(run, wanted.model_copy(update={"colour_min": 1.0}), dict.fromkeys(BANDS, FWHM))
    assert given.cuts.colour_min == 1.0


def test_no_pixel_serves_two_splits(painted):
    hosts = StampSet.open(painted[0] / "hosts")
    ra, dec, split = (hosts.column(name) for name in ("ra", "dec", "split"))
    side = 12.0
    for k in np.flatnonzero(split == "test"):
        other = (split == "train") | (split == "validation")
        assert separation_arcsec(ra[other], dec[other], ra[k], dec[k]).min() > np.sqrt(2) * side
    stamps = StampSet.open(painted[0] / "stamps")
    where = dict(zip(hosts.column("host"), split, strict=True))
    assert all(where[h] == s for h, s in zip(stamps.column("host"), stamps.column("split"), strict=True))


def test_the_borders_of_painted_stamps_do_not_tell_lenses_and_those_of_drawn_noise_do(painted, rng):
    stamps = StampSet.open(painted[0] / "stamps")
    pixels, lens = stamps.read_images("image"), stamps.column("label") == "lens"
    host = list(stamps.column("host"))
    real = border_probe(pixels, lens, host)
    assert real["interval95"][0] < 0.5
    drawn = np.where(lens[:, None, None, None], pixels, rng.normal(0, 20, pixels.shape))
    assert border_probe(drawn, lens, host)["auc"] > 0.95


def test_borders_that_tell_lenses_are_warned_of_at_every_making_and_on_the_page(survey, painted, tmp_path):
    out = anew(painted, tmp_path / "mine")
    probe = json.loads((out / "border.json").read_text())
    for low, warned in ((0.49, False), (0.53, True)):
        (out / "border.json").write_text(json.dumps(probe | {"auc": 0.57, "interval95": [low, 0.61]}))
        said = Said()
        record = make_finder(asked(survey[0]), out, progress=said, until="stamps").record
        assert any(line.startswith("Warning: the borders tell lenses") for line in said.lines) == warned
        assert ("Warning: the borders tell lenses" in report._stamps(record).text) == warned


KILLS = [
    ("Sources begins", 1),
    ("Hosts advances", 1),
    ("Simulating begins", 1),
    ("Simulating advances", 1),
    ("Borders alone", 1),
    ("epoch 1", 1),
    ("Scoring begins", 1),
]
"""Moments of a finder's making, in or between its steps."""


@pytest.mark.long
def test_a_finder_killed_at_each_step_is_taken_up_and_ends_as_one_that_was_not(painted, tmp_path):
    run, out = painted[0] / "scan", tmp_path / "mine"
    few = {"stamps.count": 40, "train.optim.epochs": 2}
    request = asked(run, few)
    (tmp_path / "asked").write_bytes(pickle.dumps((request, out, KILLS)))
    script = Path(__file__).with_name("killed.py")
    done = subprocess.run([sys.executable, script, tmp_path / "asked"], capture_output=True, text=True, timeout=600)
    assert json.loads(done.stdout) == [9] * len(KILLS) + [0], done.stderr[-3000:]

    for name in ("sources", "hosts"):
        (killed,), (whole,) = ((folder / name).glob("*.parquet") for folder in (out, painted[0]))
        assert pq.read_table(killed).equals(pq.read_table(whole))
    stamps, more = StampSet.open(out / "stamps"), StampSet.open(painted[0] / "stamps")
    assert list(stamps.column("stamp_id")) == list(more.column("stamp_id")[:40])
    np.testing.assert_array_equal(stamps.read_images("image"), more.read_images("image", np.arange(40)))
    whole = train(
        out / "round-1" / "stamps",
        model="small-cnn",
        task="find",
        out=tmp_path / "whole",
        settings=settings_for(request.settings, "mine", BANDS, None),
        progress=SILENT,
    )
    assert (tmp_path / "whole" / "weights.safetensors").read_bytes() == (out / "weights.safetensors").read_bytes()
    assert whole.training["n_train"] == json.loads((out / "card.json").read_text())["training"]["n_train"]
    assert [one["round"] for one in json.loads((out / "finder.json").read_text())["rounds"]] == [1]
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]


def test_a_finder_that_was_moved_is_taken_up_and_what_is_there_stays(survey, painted, tmp_path):
    out = shutil.copytree(painted[0], tmp_path / "mine", symlinks=True)
    stamps = sorted((out / "stamps").glob("*.parquet"))
    stood = [part.stat().st_mtime_ns for part in stamps]
    assert make_finder(asked(survey[0]), out, progress=SILENT, until="stamps").record["stamps"] == 100
    assert [part.stat().st_mtime_ns for part in stamps] == stood


def test_a_finder_learns_and_grades_add_a_numbered_round(survey, painted, tmp_path):
    out, _ = painted
    with drawn():
        result = make_finder(asked(survey[0]), out, progress=SILENT)
    (first,) = result.record["rounds"]
    assert first["test"]["painted"]["hosts_lens"] >= 2
    assert json.loads((out / "card.json").read_text())["calibration"] is not None
    text = (out / "finder.html").read_text()
    assert "Hosts and negatives" in text and "<figcaption>early types, which carry arcs</figcaption>" in text
    known = result.record["known"]  # the drawn tile lies where lenscat has lenses of COSMOS
    assert known and all(one["name"] in text for one in known) and "known lenses, best scores first" in text
    hosts = StampSet.open(out / "hosts")
    rows = [k for k, s in enumerate(hosts.column("split")) if s and hosts.column("label")[k] in ("early", "source")]
    lines = [
        f"{hosts.column('ra')[k]},{hosts.column('dec')[k]},{'A' if hosts.column('label')[k] == 'early' else 'N'}"
        for k in rows
    ]
    grades = tmp_path / "grades.csv"
    grades.write_text("ra,dec,grade\n" + "\n".join(lines) + "\n10.0,10.0,A\n")
    graded = asked(survey[0], {"go_on.epochs": 1}, grades=(grades,))
    after = make_finder(graded, out, progress=SILENT)
    second = after.record["rounds"][1]
    assert second["begun_from"] == ["mine"]
    assert second["graded"]["lens"]["train"] > 5 and second["graded"]["lens"]["held_out"] > 0
    assert "1 graded positions lie outside" in second["notes"][0]
    assert json.loads((out / "card.json").read_text())["training"]["round"] == 2
    assert len(make_finder(graded, out, progress=SILENT).record["rounds"]) == 2
    with pytest.raises(ConfigError, match="of another network"):
        make_finder(replace(graded, families=("lastro-views",)), out, progress=SILENT)
    twice = tmp_path / "twice.csv"
    twice.write_text(grades.read_text() + "\n".join(lines) + "\n")
    wanted = {"areas": EVERYWHERE, "survey": "generic", "seed": 0}
    spec, run = StampSet.open(out / "stamps").images["image"], open_run_folder(out / "scan")
    once, again = (read_graded([file], run, spec, GradeSettings(), **wanted) for file in (grades, twice))
    assert np.array_equal(again.pixels_njy, once.pixels_njy) and any("have another" in note for note in again.notes)


def anew(painted, folder):
    """A copy of a finder as far as its stamps, whatever rounds the other tests have added to it."""
    made = shutil.ignore_patterns("round-*", "known", "card.json", "weights.*", "finder.*", "README.md")
    return Path(shutil.copytree(painted[0], folder, symlinks=True, ignore=made))


def graded_table(painted, file, split=("train", "test")):
    """Grades of hosts (A) and other sources (N) in the sky of some splits, as a CSV."""
    hosts = StampSet.open(painted[0] / "hosts")
    label, ra, dec, where = (hosts.column(name) for name in ("label", "ra", "dec", "split"))
    of = {"early": "A", "source": "N"}
    rows = [k for k in range(hosts.n) if where[k] in split and label[k] in of]
    file.write_text("ra,dec,grade\n" + "".join(f"{ra[k]},{dec[k]},{of[label[k]]}\n" for k in rows))
    return file


def test_grades_of_an_attempt_that_failed_are_not_in_the_next_without_grades(survey, painted, tmp_path, monkeypatch):
    out = anew(painted, tmp_path / "mine")
    seen = []

    def fails(stamps, *_, **__):
        seen.append(set(StampSet.open(stamps).column("kind")))
        raise DataError("ends here")

    monkeypatch.setattr(steps, "train_members", fails)
    stamps = out / "round-1" / "stamps"
    for grades in ((graded_table(painted, tmp_path / "g.csv"),), (), ()):
        with pytest.raises(DataError, match="ends here"):
            make_finder(asked(survey[0], grades=grades), out, progress=SILENT)
        if grades:
            shutil.copy(stamps / "graded.parquet", tmp_path)
        shutil.copy(tmp_path / "graded.parquet", stamps)  # stray, in a round that is asked for alike the third time
    assert {"graded lens", "graded non-lens"} <= seen[0]
    assert seen[1] == seen[2] == set(StampSet.open(out / "stamps").column("kind"))


def test_a_round_that_ended_badly_begins_anew_when_it_is_asked_for_otherwise(survey, painted, tmp_path, monkeypatch):
    out, quick = anew(painted, tmp_path / "mine"), {"train.optim.epochs": 1, "grades.most_repeats": 2}

    def refuses(*_):
        raise DataError("cannot be calibrated")

    trained, stood = [], [part.stat().st_mtime_ns for part in sorted((out / "stamps").glob("*.parquet"))]
    with monkeypatch.context() as patched:
        patched.setattr(rounds, "calibrate_member", refuses)
        for _ in range(2):
            with pytest.raises(DataError, match="cannot be calibrated"):
                make_finder(asked(survey[0], quick), out, progress=SILENT)
            trained.append((out / "round-1/member-1/weights.safetensors").stat().st_mtime_ns)
    assert trained[0] == trained[1]  # asked for alike, the training stays
    grades = (graded_table(painted, tmp_path / "g.csv"),)
    said, better = Said(), asked(survey[0], quick | {"train.optim.epochs": 2}, grades=grades)
    (record,) = make_finder(better, out, progress=said, until="train").record["rounds"]
    assert any("Round 1 was not finished" in line for line in said.lines)
    assert record["graded"]["lens"]["train"] > 0 and record["round"] == 1
    assert read_card(out).training["epochs"] == 2
    assert [part.stat().st_mtime_ns for part in sorted((out / "stamps").glob("*.parquet"))] == stood


def test_members_are_one_calibrated_committee_and_a_resume_adds_nothing(survey, painted, tmp_path):
    out = anew(painted, tmp_path / "mine")
    words = [survey[0], out, "--members", "2", "--model", "small-cnn", "--until", "train"]
    stood = []
    for _ in range(2):
        done = commanded(*words)
        assert done.output.count("Round 1: painted arcs") == 1
        files = [out / "committee.json", *out.glob("round-*/round.json"), *out.glob("round-*/member-*/weights.*")]
        stood.append({file: file.stat().st_mtime_ns for file in files})
    assert stood[0] == stood[1] and len(stood[0]) == 4
    committee = open_committee(out)
    one, two = (load_model(folder)[0].state_dict() for folder in committee.folders)
    assert not all(np.array_equal(one[name], two[name]) for name in one)
    assert committee.card.calibration is not None and not (out / "card.json").exists()


def test_known_lenses_in_the_tiles_are_cut_where_they_lie_and_others_are_not(painted, tmp_path, monkeypatch):
    out, _ = painted
    hosts = StampSet.open(out / "hosts")
    k = int(np.flatnonzero(hosts.column("label") == "early")[0])
    ra, dec = hosts.column("ra")[k], hosts.column("dec")[k]
    (tmp_path / "mine.csv").write_text(f"name,ra,dec,grade\nfar,10,10,A\nring,{ra},{dec},B\n")
    stamps = StampSet.open(out / "stamps")
    lists = (str(tmp_path / "mine.csv"),)
    run = open_run_folder(out / "scan")
    found, failed = write_known(run, stamps, lists, tmp_path / "known", survey="generic")
    assert found == [{"name": "ring", "list": "mine", "grade": "B"}] and not failed
    cut = StampSet.open(tmp_path / "known")
    assert cut.images == stamps.images and cut.column("kind").tolist() == ["known lens"]
    pixels, side = cut.read_images("image", [0])[0], stamps.images["image"].size_px
    host = hosts.read_images("image", [k])[0]
    edge = (host.shape[-1] - side) // 2
    np.testing.assert_allclose(pixels, host[:, edge : edge + side, edge : edge + side], atol=20)

    def gone(*_, **__):
        raise TileError("cannot be read")

    monkeypatch.setattr(places, "read_shard", gone)
    found, failed = write_known(run, stamps, lists, tmp_path / "known", survey="generic")
    assert not found and list(failed.values()) == ["cannot be read"]


def test_a_tile_without_hosts_is_one_clear_line(tmp_path):
    tiles = write_tile(tmp_path / "t", drawn_tile(n_red=0, n_blue=0, n_star=80)[0])
    with pytest.raises(DataError, match=r"too few resolved galaxies|hardly any source of the run can carry arcs"):
        make_finder(asked(tiles), tmp_path / "out", progress=SILENT, until="hosts")


def test_the_cfhtls_tile_of_82_arcsec_has_too_few_galaxies_for_a_finder_and_each_step_says_so(real_data, tmp_path):
    """8 resolved galaxies, where a red sequence needs 24; 6 hosts of a given colour; no room for three splits."""
    layout = read_layout("cfhtls")
    request = FinderRequest((str(real_data / "tiles" / "cfhtls"),), layout, FinderSettings())
    with pytest.raises(DataError, match=r"too few resolved galaxies.*galaxies=8, needed=24"):
        make_finder(request, tmp_path / "a", progress=SILENT, until="hosts")
    run = (str(tmp_path / "a" / "scan"),)
    given = {"hosts.colour_min": 1.2}
    with pytest.raises(DataError, match=r"hardly any source.*hosts=6, needed=8"):
        asked_too = FinderRequest(run, layout, put_over(FinderSettings(), given, origin="test"))
        make_finder(asked_too, tmp_path / "b", progress=SILENT, until="hosts")
    deeper = {"hosts.colour_min": 0.8, "hosts.mag_max": 23.0}
    with pytest.raises(DataError, match=r"no host lies in the sky of a split: scan more sky"):
        asked_too = FinderRequest(run, layout, put_over(FinderSettings(), deeper, origin="test"))
        make_finder(asked_too, tmp_path / "c", progress=SILENT, until="hosts")


def test_a_survey_of_one_band_tells_early_types_by_concentration(tmp_path):
    tiles = write_tile(tmp_path / "t", drawn_tile(bands=("i",))[0], ("i",))
    record = make_finder(asked(tiles), tmp_path / "out", progress=SILENT, until="hosts").record
    assert record["red_sequence"] == "one band: concentration alone"
    assert sum(record["hosts_by_split"].values()) >= 8


def test_a_finder_for_bands_that_the_survey_lacks_is_refused_before_the_folder_is_claimed(survey, painted, tmp_path):
    run = painted[0] / "scan"
    with pytest.raises(ConfigError, match=r"the survey lacks a band.*missing='z'"):
        make_finder(asked(run, bands=("g", "z")), tmp_path / "a", progress=SILENT)
    with pytest.raises(ConfigError, match=r"--replace-band z=BAND"):
        make_finder(asked(run, pretrained="ground-gri", replaced={"i": "z"}), tmp_path / "b", progress=SILENT)
    with pytest.raises(ConfigError, match=r"the survey lacks a band.*missing='z'"):  # of tiles, before they are scanned
        make_finder(asked(survey[0], bands=("g", "z")), tmp_path / "c", progress=SILENT)
    assert not any((tmp_path / name).exists() for name in "abc")


def test_a_network_that_is_none_is_refused_before_tiles_are_scanned(survey, tmp_path):
    for families, why in (
        (("small-cnn", "smal-cnn"), "Did you mean 'small-cnn'"),
        (("timm:resnet",), "timm has no such"),
    ):
        with pytest.raises(ModelError, match=why):
            make_finder(asked(survey[0], families=families), tmp_path / "mine", progress=SILENT)
    assert not (tmp_path / "mine").exists()


def test_options_that_a_run_or_a_finder_that_learns_on_would_not_hear_are_refused(painted, tmp_path):
    run, out = str(painted[0] / "scan"), tmp_path / "mine"
    for words, why in (
        ([run, "--survey", "kids"], "are for TILES; a RUN has the layout"),
        ([run, "--set", "survey.zero_point.ab=25"], "are for TILES; a RUN has the layout"),
        ([run, "--pretrained", "ground-gri", "--model", "timm:resnet18"], "leave out one of the two"),
    ):
        done = CliRunner().invoke(command, [*words, "--out", str(out), "--runner", "local"], standalone_mode=False)
        assert isinstance(done.exception, ConfigError) and why in str(done.exception), (words, done.exception)
        assert not out.exists()


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        ({"lensess": 3}, "no class 'lensess'. Did you mean 'lens'"),
        ({"lens": 0}, "classes.lens and another must be above 0"),
        (dict.fromkeys(set(CLASSES) - {"lens"}, 0), "classes.lens and another must be above 0"),
        ({"merger": -1}, "classes.merger is a number from 0"),
        ({"lens": float("nan")}, "should be a finite number"),
    ],
)
def test_classes_that_cannot_be_painted_are_refused_with_the_settings(classes, why):
    with pytest.raises(ConfigError, match=why):
        put_over(FinderSettings(), {f"stamps.classes.{name}": n for name, n in classes.items()}, origin="--set")


class Told(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def test_a_survey_of_g_r_z_learns_on_from_g_r_i_where_the_card_declares_z(painted, tmp_path):
    bands = ("g", "r", "z")
    tiles = write_tile(tmp_path / "t", drawn_tile()[0], bands)  # z as bright as i
    few = {"stamps.count": 40, "go_on.epochs": 1, "train.sampling.steps_per_epoch": 2, "go_on.base_part": 0.5}
    psf = {f"psf_fwhm_arcsec.{band}": FWHM for band in bands}
    request = asked(tiles, few, pretrained="ground-gri")
    request = replace(request, layout=put_over(read_layout("generic"), psf, origin="test"))
    told = Told()
    result = make_finder(request, tmp_path / "grz", progress=told, until="page")
    assert any(
        "Band z of the survey stands in for i: the card of ground-gri declares it" in line for line in told.lines
    )
    card, base = read_card(tmp_path / "grz"), read_card(find_model("ground-gri"))
    assert card.bands == bands and card.training["stand_ins"] == result.record["stand_ins"] == {"i": "z"}
    assert card.stretch == base.stretch and card.neighbours == {} and card.training["base_part"] == 0.5
    assert card.outputs.calibration != base.outputs.calibration
    assert "z stands in for i" in (tmp_path / "grz" / "finder.html").read_text()
    run = tmp_path / "grz" / "scan"
    with pytest.raises(ConfigError, match=r"declares none that may stand in.*--replace-band z=BAND.*missing='z'"):
        make_finder(asked(painted[0] / "scan", pretrained=str(tmp_path / "grz")), tmp_path / "c", progress=SILENT)
    # not declared and not asked for: refused; asked for: the user's own choice, and said to be
    undeclared = tmp_path / "undeclared"
    shutil.copytree(find_model("ground-gri"), undeclared)
    write_card(undeclared, base.model_copy(update={"neighbours": {}}))
    with pytest.raises(ConfigError, match=r"declares none that may stand in.*missing='i'"):
        make_finder(asked(run, pretrained=str(undeclared)), tmp_path / "d", progress=SILENT)
    told = Told()
    own = asked(run, pretrained=str(undeclared), replaced={"i": "z"})
    make_finder(own, tmp_path / "e", progress=told, until="scan")
    assert any("as you say, though the card of ground-gri does not declare it" in line for line in told.lines)


def test_a_neighbour_is_no_band_of_the_card_and_stands_in_for_one_that_is():
    facts = read_card(find_model("ground-gri")).model_dump()
    for wrong in ({"z": ["y"]}, {"i": ["r"]}):
        with pytest.raises(ValueError, match=r"not among the bands|is among the bands"):
            ModelCard.model_validate(facts | {"neighbours": wrong})


def test_a_part_of_the_weights_stays_the_bases_and_a_cut_off_is_made_good(tmp_path):
    base, member = find_model("ground-gri"), tmp_path / "member"
    network, card = load_model(base)
    begun = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rng = np.random.default_rng(3)
    moved = {
        name: tensor + rng.normal(0, 0.01) if tensor.is_floating_point() else tensor for name, tensor in begun.items()
    }
    network.load_state_dict(moved)
    save_model(member, network, card)
    mixed = keep_of_base(member, base, 0.25)
    assert mixed.training["base_part"] == 0.25 and mixed.outputs.calibration is None
    found = load_model(member)[0].state_dict()
    for name, tensor in found.items():
        if tensor.is_floating_point():
            np.testing.assert_allclose(tensor, 0.25 * begun[name] + 0.75 * moved[name], atol=1e-6)
    # killed after the weights and before the card
    write_card(member, read_card(member / "trained"))
    keep_of_base(member, base, 0.25)
    again = load_model(member)[0].state_dict()
    assert all(np.array_equal(found[name], again[name]) for name in found)
    assert keep_of_base(member, base, 0.25) == read_card(member)


def test_grades_that_name_nothing_known_are_one_clear_line(painted, tmp_path):
    run = open_run_folder(painted[0] / "scan")
    areas, spec = Areas(6, {}, 1.0), ImageSpec(BANDS, 21, SCALE)

    def read(text):
        file = tmp_path / "g.csv"
        file.write_text(text)
        return read_graded([file], run, spec, GradeSettings(), areas=areas, survey="generic", seed=0)

    with pytest.raises(ConfigError, match="no graded position lies in a tile"):
        read("ra,dec,grade\n10.0,10.0,A\n")
    with pytest.raises(ConfigError, match="a candidate that the run does not have"):
        read(f"run_id,candidate_id,grader,grade\n{run.run_id},nobody,me,A\n")
    with pytest.raises(ConfigError, match="no grade of these files is for this run"):
        read("run_id,candidate_id,grader,grade\nanother,nobody,me,A\n")
    # of another run with a position: the position counts
    with pytest.raises(ConfigError, match="no graded position lies in a tile"):
        read("run_id,candidate_id,grader,grade,ra,dec\nanother,nobody,me,A,10.0,10.0\n")
    with pytest.raises(ConfigError, match="neither the columns"):
        read("name,ra\na,1\n")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("150.0,2.2,nan", "grade is A, B, C, N or a number from 0 to 3"),
        ("150.0,2.2,-1", "grade is A, B, C, N or a number from 0 to 3"),
        ("150.0,2.2,99", "grade is A, B, C, N or a number from 0 to 3"),
        ("nan,2.2,A", "position is none in degrees"),
        ("150.0,inf,A", "position is none in degrees"),
        ("150.0,92.2,A", "position is none in degrees"),
        ("150.0", "no position in degrees, or no grade"),
    ],
)
def test_a_number_that_is_no_grade_or_no_place_is_refused_with_its_line(tmp_path, row, why):
    file = tmp_path / "g.csv"
    file.write_text(f"ra,dec,grade\n150.0,2.2,3\n150.1,2.2,0\n{row}\n")
    with pytest.raises(ConfigError, match=f"{why}.*line=4"):
        check_grade_files([file], BANDS, 10.0, GradeSettings())


def test_grades_that_will_be_refused_are_so_before_any_stamp_is_painted(painted, tmp_path):
    file, out = tmp_path / "g.csv", tmp_path / "new"
    run = open_run_folder(painted[0] / "scan")
    for text, why in (
        ("name,ra\na,1\n", "neither the columns"),
        ("ra,dec,grade\n10.0,10.0,A\n", "no graded position lies in a tile"),
        (f"run_id,candidate_id,grader,grade\n{run.run_id},nobody,me,A\n", "a candidate that the run does not have"),
        ("ra,dec,grade\n10.0,10.0,C\n", "no graded candidate has a label"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=why):
            make_finder(asked(run.folder, grades=(file,)), out, progress=SILENT)
        assert not (out / "sources").exists()


def test_graded_stamps_that_will_be_refused_are_so_before_any_stamp_is_painted(survey, painted, tmp_path):
    run, whole = open_run_folder(painted[0] / "scan"), GradeSettings()
    drawn = np.random.default_rng(2).normal(0, 20, (4, len(BANDS), 41, 41))

    def folder(name, *, labels=("lens", "nonlens", "lens", "nonlens"), unit="nJy", side_px=41, bands=BANDS):
        spec = ImageSpec(bands, side_px, SCALE, unit)
        rows = {
            "stamp_id": [f"s{k}" for k in range(4)],
            "image": image_column(drawn[..., :side_px, :side_px], spec),
            "label": list(labels),
            "host": [f"h{k}" for k in range(4)],
            "split": ["train"] * 4,
        }
        schema = stamp_schema({"image": spec})
        table = pa.table({n: rows.get(n, pa.nulls(4, schema.field(n).type)) for n in schema.names}, schema=schema)
        write_part(table, tmp_path / name, "part")
        return tmp_path / name

    for number, (given, why) in enumerate(
        (
            (folder("bands", bands=("g", "r", "z")), r"lack a band of the finder .* missing='i'"),
            (folder("unit", unit="uint8 stretch"), r"are not in nJy .* unit='uint8 stretch'"),
            (folder("small", side_px=21), r"smaller than the finder's"),
            (folder("unlabelled", labels=[None] * 4), r"none of the graded stamps has a label"),
        )
    ):
        for tiles in (run.folder, survey[0]):
            out = tmp_path / f"out-{number}-{tiles.name}"
            with pytest.raises(ConfigError, match=why):
                make_finder(asked(tiles, grades=(given,)), out, progress=SILENT)
            assert not out.exists()  # no tile was scanned
        with pytest.raises(ConfigError, match=why):
            read_graded([given], None, ImageSpec(BANDS, 35, SCALE), whole, areas=EVERYWHERE, survey="mine", seed=0)
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="would learn to tell the survey"):
        make_finder(asked(run.folder, grades=(folder("alone", labels=["lens"] * 4),)), out, progress=SILENT)
    assert not (out / "sources").exists()
    both, wanted = [folder("both")], {"survey": "generic", "seed": 0}
    check_grades(both, run, ImageSpec(BANDS, 42, SCALE), whole, **wanted)
    read = read_graded(both, run, ImageSpec(BANDS, 42, SCALE), whole, areas=EVERYWHERE, **wanted)
    assert read.pixels_njy.shape == (4, len(BANDS), 42, 42)  # a pixel less than the finder's is no reason to refuse


def test_graded_stamps_of_a_survey_with_lenses_alone_are_refused(painted):
    from lenspipe.finder.graded import Graded, demand_both

    pixels = np.zeros((2, 3, 5, 5), np.float32)
    one_sided = Graded(pixels, np.array([True, True]), ("a", "b"), ("other", "other"), ("train", "train"))
    with pytest.raises(ConfigError, match="would learn to tell the survey"):
        demand_both(one_sided, painted="mine")
    demand_both(one_sided, painted="other")


def test_neighbours_come_to_every_class_alike_and_bright_hosts_more_often(painted):
    from lenspipe.simulate.hosts import read_hosts
    from lenspipe.simulate.on_hosts import choose_row, draw_on_host
    from lenspipe.simulate.recipe import HostTable, Recipe

    stored = json.loads((painted[0] / "stamps" / "request.json").read_text())["recipe"]
    plain = {**stored["hosts"], "shrink": (1.0, 1.0), "crowd_fraction": 0.0, "luminous": False}
    recipe = {f: Recipe.model_validate({**stored, "hosts": plain | {"crowd_fraction": f}}) for f in (0.0, 1.0)}
    hosts = read_hosts(painted[0] / "hosts", recipe[0.0])
    for kind in ("lens", "real"):
        # the crowd is drawn last: what it changes is its own
        alone, crowded = (draw_on_host(r, np.random.default_rng(4), kind, hosts) for r in recipe.values())
        assert alone.host == crowded.host
        added = crowded.pixels_njy - alone.pixels_njy
        assert added.sum() > 0 or kind == "real"
    mag = np.array([host.mag for host in hosts.hosts])
    drawn = [
        np.mean([mag[choose_row("lens", hosts, HostTable(luminous=yes), np.random.default_rng(k))] for k in range(150)])
        for yes in (False, True)
    ]
    assert drawn[1] < drawn[0] - 0.1


def test_stamps_of_any_recipe_are_painted_on_a_runs_own_pixels(painted, tmp_path):
    from lenspipe.finder.paint import paint_on_run
    from lenspipe.simulate.recipe import read_recipe

    recipe = read_recipe(
        "ground-gri", changes={"classes": {"lens": 1.0, "star": 1.0, "real": 1.0}, "image.0.size_px": 25}
    )
    done = paint_on_run(
        painted[0] / "scan", recipe, count=12, seed=0, out=tmp_path / "s", resume=False, progress=SILENT
    )
    stamps = StampSet.open(tmp_path / "s")
    kinds = dict(zip(stamps.column("kind"), stamps.column("host_kind"), strict=True))
    assert done["rows"] == 12
    assert kinds["lens"] == "early" and kinds["star"] == "sky"
    assert stamps.images["image"].pixel_scale_arcsec == pytest.approx(SCALE, rel=1e-3)
