"""The snippets of a page run as shown, in the order shown, in a folder that has what their reader has."""

import contextlib
import csv
import glob
import io
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from click.testing import CliRunner
from drawn_survey import BANDS, drawn_tile, write_tile
from snippets import ROOT, pages, program, snippets, words_of
from toy_stamps import make_stamps

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.cli import group
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.scan.sample import make_sample

SHORTER = {
    "train": {"--epochs": "1", "--batch-size": "8", "--workers": None},
    "simulate": {"--count": "120", "--workers": None},
    "generate": {"--count": "4"},
    "finder": {"--config": "quick.toml", "--runner": "local"},
    "completeness": {"--count": "60", "--runner": "local"},
}
"""Options that take the place of those shown, so that a proof of the words does not take the hours of the work."""


class Reader:
    """Somebody who follows a page; ``here`` is their folder."""

    def __init__(self, here, shelf):
        self.here, self.shelf, self.names = here, shelf, {}

    def has(self, what, name):
        """Something from the shelf, under the name that the page gives it."""
        (self.here / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.shelf(what), self.here / name)

    def follow(self, page):
        n = 0
        for snippet in snippets(page):
            if snippet.needs or snippet.language == "text":
                continue
            n += 1
            where = f"{page}:{snippet.line}"
            if snippet.language == "python":
                exec(compile(snippet.text, where, "exec"), self.names)
            elif snippet.language == "toml":
                if snippet.file:
                    (self.here / snippet.file).write_text(snippet.text)
            else:
                for words in words_of(snippet):
                    if words[0] != "ray" and program(words):  # a cluster, and what is not of this project
                        self.call(words, where)
        return n

    def call(self, words, where):
        into = None
        if ">" in words:
            words, into = words[: words.index(">")], words[-1]
        words = [match for word in words for match in sorted(glob.glob(word)) or [word]]
        command, args = program(words)
        for option, value in SHORTER.get(words[1], {}).items():
            if option in args:
                at = args.index(option)
                del args[at : at + 2]
            args += [option, value] if value else []
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = command.main(args=args, standalone_mode=False)
        assert not code, (where, words, out.getvalue())
        if into:
            (self.here / into).write_text(out.getvalue())


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """What readers have: tiles of theirs, a scan, a data set of stamps; each made once, where a page asks for it."""
    folder = tmp_path_factory.mktemp("shelf")

    def kids(x0, name):
        sample = make_sample(folder / "sample")
        (folder / name).mkdir()
        for band in "gri":
            with fits.open(sample / f"sample-1_{band}.fits") as file:
                header = WCS(file["IMAGE"].header)[200:600, x0 : x0 + 400].to_header()
                pixels = file["IMAGE"].section[200:600, x0 : x0 + 400] / 3.631e12
            file = folder / name / f"KiDS_DR4.0_150.0_{2.2 if x0 else 2.3}_{band}_sci.fits"
            fits.PrimaryHDU(pixels.astype(np.float32), header).writeto(file)

    def scan(tiles, name):
        kind = ["scan", str(get(tiles)), "--survey", "kids", "--out", str(folder / name), "--runner", "local"]
        assert CliRunner().invoke(group, kind, catch_exceptions=False).exit_code == 0

    makers = {
        "tiles": lambda name: kids(300, name),
        "more tiles": lambda name: kids(60, name),
        "run": lambda name: scan("tiles", name),
        "another run": lambda name: scan("more tiles", name),
        "stamps": lambda name: make_stamps(folder / name, 60, bands=("g", "r", "i"), size=45),
        "wide stamps": lambda name: make_stamps(folder / name, 60, bands=("g", "r", "i"), size=93),
        "galaxies": lambda name: make_stamps(
            folder / name, 90, labels=("lens", "early_type", "spiral"), bands=("g", "r", "i"), size=45
        ),
        "substructure": lambda name: make_stamps(
            folder / name, 90, labels=("no_substructure", "subhalo", "vortex"), bands=("F814W",), size=33
        ),
    }

    def embedding(name):
        settings = TrainSettings.model_validate({"optim": {"epochs": 1}, "sampling": {"batch_size": 16}})
        train(get("stamps"), model="small-cnn", task="embed", out=folder / name, settings=settings)

    makers["embedding"] = embedding

    def get(what):
        if not (folder / what).exists():
            makers[what](what)
        return folder / what

    return get


def candidates_of(run):
    return pq.read_table(run / "candidates.parquet")


def write_grades(file, run_id, rows, grades, who):
    """A file as the candidate page exports it."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["run_id", "candidate_id", "name", "ra", "dec", "grader", "grade", "time"])
        for row, grade in zip(rows, grades, strict=True):
            writer.writerow([run_id, row["candidate_id"], "", row["ra"], row["dec"], who, grade, "2026-01-01"])


def grades_of(run, file, grades, who):
    """A file as the candidate page exports it: a grade for each of the first candidates."""
    rows = candidates_of(run).slice(0, len(grades)).to_pylist()
    write_grades(file, open_run_folder(run).run_id, rows, grades, who)


@pytest.fixture
def reader(tmp_path, shelf, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Reader(tmp_path, shelf)


def readme(r):
    r.has("tiles", "tiles")


def catalog(r):
    r.has("tiles", "tiles")
    r.has("another run", "run2")
    spike = candidates_of(r.shelf("run"))["candidate_id"][0].as_py()
    (r.here / "spikes.csv").write_text(f"candidate_id\n{spike}\n")


def gallery(r):
    r.has("run", "run1")
    assert CliRunner().invoke(group, ["catalog", "run1", "--out", "cat1"], catch_exceptions=False).exit_code == 0
    for who in ("ada", "bob"):
        grades_of(r.here / "run1", r.here / f"{who}.csv", "AAABBBBBNNNNNNNN", who)
    chosen = candidates_of(r.here / "run1")["candidate_id"].to_pylist()[:3]
    (r.here / "candidates-run1.csv").write_text("\n".join(["candidate_id", *chosen]))


def your_survey(r):
    r.has("tiles", "kids")
    (r.here / "tiles").mkdir()
    for file in (r.here / "kids").iterdir():
        with fits.open(file) as image:
            image[0].data *= 10 ** (0.4 * 30)
            image[0].header["MAGZERO"], image[0].header["BUNIT"] = 30.0, "adu"
            image.writeto(r.here / "tiles" / f"field1_{file.name.split('_')[-2]}.fits")
    shutil.copy(ROOT / "lenspipe/survey/layouts/generic.toml", r.here / "mine.toml")
    truth = candidates_of(r.shelf("run"))
    table = Table({"ra": truth["ra"], "dec": truth["dec"], "gmag": truth["mag_g"], "rmag": truth["mag_r"]})
    table.write(r.here / "reference.fits")


def few_examples(r):
    r.has("tiles", "tiles")
    r.has("run", "kids_run")
    r.has("stamps", "graded_stamps")
    r.has("embedding", "models/embed")
    grades_of(r.here / "kids_run", r.here / "grades.csv", "AABBNNNN", "ada")


SHORT = {
    "README.md": readme,
    "docs/catalog.md": catalog,
    "docs/gallery.md": gallery,
    "docs/guides/your-survey.md": your_survey,
    "docs/guides/few-examples.md": few_examples,
}


@pytest.mark.parametrize("page", SHORT)
def test_a_page_runs_as_shown(page, reader):
    SHORT[page](reader)
    assert reader.follow(page)


def only_tiles(r):
    r.has("tiles", "tiles")


def sets(**made):
    """A reader who has data sets, by what they are called."""

    def prepare(r):
        for name, what in made.items():
            r.has(what, name)

    return prepare


def simulations(r):
    shutil.copy(ROOT / "lenspipe/simulate/recipes/ground-gri.toml", r.here / "my_recipe.toml")


def training(r):
    kind = ["simulate", "--recipe", "substructure-1", "--count", "60", "--out", "sub", "--runner", "local"]
    assert CliRunner().invoke(group, kind, catch_exceptions=False).exit_code == 0
    r.has("stamps", "spacewarps")
    r.has("stamps", "kids_negatives")
    (r.here / "train.toml").write_text("[optim]\nwarmup_fraction = 0.1\n")


def anomaly(r):
    sets(sub="substructure", stamps="galaxies", RUN="run")(r)
    r.has("embedding", "models/embed")
    (r.here / "classes.toml").write_text("[augment]\naffine_fraction = 0.0\n")


def evaluation(r):
    r.has("tiles", "tiles")
    r.has("wide stamps", "stamps")


def kids_cutouts(folder, name, planes):
    """One tile in the form of KiDS cut-outs, of planes in nJy and their headers by band; pixels are maggies."""
    (folder / name).mkdir(parents=True)
    for band, (pixels, header) in planes.items():
        header["BUNIT"] = "maggy"
        fits.PrimaryHDU((pixels / 3.631e12).astype(np.float32), header).writeto(folder / name / f"{band}.fits")


def your_finder(r):
    image, _ = drawn_tile()
    grz = write_tile(r.here / "grz", image, ("g", "r", "z"))
    gri = write_tile(r.here / "gri", image)
    planes = {band: (fits.getdata(gri / f"t_{band}.fits"), fits.getheader(gri / f"t_{band}.fits")) for band in BANDS}
    kids_cutouts(r.here / "tiles", "field", planes)
    for tiles, survey, out in (("tiles", "kids", "seen"), (str(grz), "generic", "runs/grz")):
        asked = ["scan", tiles, "--survey", survey, "--model", "none", "--out", out, "--runner", "local"]
        assert CliRunner().invoke(group, asked, catch_exceptions=False).exit_code == 0
    rows = candidates_of(r.here / "seen").to_pylist()
    for name, some in (("grades_anna", rows[::2]), ("grades-1", rows[::3]), ("grades-2", rows[1::3])):
        red = ["A" if row["mag_g"] - row["mag_i"] > 1.5 else "N" for row in some]
        write_grades(r.here / f"{name}.csv", open_run_folder(r.here / "seen").run_id, some, red, "anna")
    (r.here / "quick.toml").write_text(QUICK)


def what_did_i_miss(r):
    """The sample's tiles are those of their survey: 278 candidates, enough for the first hundred."""
    sample = make_sample(r.here / "sample")
    for name in ("sample-1", "sample-2"):
        planes = {}
        for band in "gri":
            with fits.open(sample / f"{name}_{band}.fits") as file:
                planes[band] = file["IMAGE"].data, WCS(file["IMAGE"].header).to_header()
        kids_cutouts(r.here / "tiles", name, planes)


QUICK = """
[hosts]
mag_max = 21.5
fractions = [0.5, 0.25, 0.25]
[stamps]
side_arcsec = 12.0
count = 100
classes = { real = 40, companions = 0, satellites = 0, young_ring = 0, spiral_disc = 0, merger = 0, group = 0 }
[train.optim]
epochs = 8
[train.sampling]
batch_size = 16
[go_on]
epochs = 1
"""
"""Settings of a finder that learns little in little time."""

LONG = {
    "docs/guides/your-finder.md": your_finder,
    "docs/guides/what-did-i-miss.md": what_did_i_miss,
    "docs/stamps.md": sets(stamps="stamps"),
    "docs/guides/other-tools.md": sets(),
    "docs/simulations.md": simulations,
    "docs/training.md": training,
    "docs/embedding.md": sets(stamps="stamps", labelled="stamps", RUN="run"),
    "docs/clustering.md": sets(stamps="stamps", labelled="stamps"),
    "docs/anomaly.md": anomaly,
    "docs/evaluation.md": evaluation,
    "docs/denoiser.md": only_tiles,
}


@pytest.mark.long
@pytest.mark.parametrize("page", LONG)
def test_a_page_of_longer_work_runs_as_shown(page, reader):
    LONG[page](reader)
    assert reader.follow(page)


def test_every_page_is_run_here_or_elsewhere():
    """What is neither run here nor in another test or the site is marked, block by block."""
    elsewhere = {"docs/python.md"} | {f"docs/tutorials/{name}.md" for name in ("five-minutes", "your-survey")}
    for page in pages():
        left = [one for one in snippets(page) if one.language in ("sh", "python") and not one.needs]
        assert not left or page in SHORT | LONG or page in elsewhere or page.endswith(".ipynb"), page
