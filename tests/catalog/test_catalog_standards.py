# What is written stands before the referees of its formats: fitsverify of HEASARC, votlint of STILTS, Astropy.

import io
import shutil
import subprocess
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import validate
from astropy.table import Table
from catalog_runs import scan, write_overlapping_tiles
from denoisers import write_denoiser
from sky import write_tile

from lenspipe.catalog.votable import CONTENT_KEY, votable_header, write_fits, write_voparquet
from lenspipe.scan.after.catalog import catalog_run
from lenspipe.schema import field

SCHEMA = pa.schema(
    [
        field(
            "ra",
            pa.float64(),
            "An object's place, in words enough for a card and its CONTINUE: é",
            unit="deg",
            ucd="pos.eq.ra",
        ),
        field("run_id", pa.string(), "A column that has the name of a fact"),
        field("letter", pa.string(), "One letter long"),
        field("empty", pa.string(), "Never known"),
        field("rank", pa.int16(), "A short number"),
        field("flag", pa.bool_(), "True or false"),
        field("byte", pa.uint8(), "A byte"),
        field("embedding", pa.list_(pa.float32(), 4), "A vector of a network"),
        field("box", pa.list_(pa.int32(), 2), "A vector of whole numbers"),
    ]
)
VALUES = [
    [1.0, None, 3.0],
    ["a", "é", None],
    ["a", "", "b"],
    [None, None, None],
    [1, None, 3],
    [True, False, True],
    [1, 2, 255],
    [[1.0, 2.0, 3.0, 4.0], None, [5.0, 6.0, 7.0, 8.0]],
    [[1, 2], [3, 4], [5, 6]],
]
FACTS = {"run_id": "abc " * 40, "ra": "1", "note": "é"}


def tool(name):
    """Path of a program, or a skipped test."""
    return shutil.which(name) or pytest.skip(f"{name} is not installed (Debian package {name})")


def fits_complaints(*files):
    """What fitsverify has against files."""
    done = subprocess.run([tool("fitsverify"), "-q", *map(str, files)], capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if line and not line.startswith("verification OK")] + [
        line for line in done.stderr.splitlines() if line
    ]


def votable_complaints(header, folder):
    """What votlint and astropy.io.votable.validate have against a VOTable."""
    (folder / "header.xml").write_text(header)
    done = subprocess.run([tool("stilts"), "votlint", folder / "header.xml"], capture_output=True, text=True)
    said = io.StringIO()
    valid = validate(io.BytesIO(header.encode()), output=said, xmllint=False)
    return (done.stdout + done.stderr).splitlines() + ([] if valid else [said.getvalue()])


def made(n):
    columns = [pa.array(values[:n], f.type) for values, f in zip(VALUES, SCHEMA, strict=True)]
    return pa.table(columns, schema=SCHEMA)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standards")
    write_overlapping_tiles(folder / "tiles")
    scan(folder / "tiles", folder / "run")
    catalog_run(folder / "run")
    return folder / "run"


def test_fitsverify_passes_every_file_of_a_catalogue(run):
    files = sorted(run.rglob("*.fits"))
    assert {"candidates.fits", "footprint.moc.fits", "skymap.fits", "point_map.fits"} == {f.name for f in files}
    assert fits_complaints(*files) == []


def test_votlint_passes_the_header_of_a_catalogue(run, tmp_path):
    header = pq.read_schema(run / "catalog" / "candidates.parquet").metadata[CONTENT_KEY.encode()].decode()
    assert votable_complaints(header, tmp_path) == []


@pytest.mark.parametrize("n", [0, 3])
def test_both_pass_tables_of_every_type_also_without_rows(n, tmp_path):
    write_fits(made(n), tmp_path / "t.fits", name="model", facts=FACTS)
    assert fits_complaints(tmp_path / "t.fits") == []
    header = votable_header(made(n), name="letter", description="d", facts=FACTS)  # the name is a column's too
    assert votable_complaints(header, tmp_path) == []


@pytest.mark.parametrize(("good", "bad"), [('datatype="double"', 'datatype="real"'), ("TABLE", "TABEL")])
def test_astropy_has_something_against_a_table_that_is_not_valid(good, bad):
    header = votable_header(made(1), name="model", description="d", facts=FACTS)
    assert good in header
    assert not validate(io.BytesIO(header.replace(good, bad).encode()), output=io.StringIO(), xmllint=False)


def test_fitsverify_passes_denoised_tiles(tmp_path):
    from click.testing import CliRunner

    from lenspipe.cli.denoise import command

    sip = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-7, "B_0_2": 1e-7}
    write_tile(tmp_path / "tiles", "a-name-that-is-so-long-that-it-does-not-fit-into-one-card-of-history", **sip)
    arguments = [tmp_path / "tiles", "--model", write_denoiser(tmp_path / "model"), "--out", tmp_path / "out"]
    done = CliRunner().invoke(command, list(map(str, arguments)), standalone_mode=False)
    assert done.return_value == 0, done.output
    assert fits_complaints(*(tmp_path / "out").glob("*.fits")) == []


def test_fitsverify_passes_the_tiles_of_the_sample(tmp_path, monkeypatch):
    from lenspipe.scan import sample

    monkeypatch.setattr(sample, "SHAPE_PX", (200, 260))
    monkeypatch.setattr(sample, "N_LENS", 1)
    assert fits_complaints(*sample.make_sample(tmp_path / "sample").glob("*.fits")) == []


@pytest.mark.parametrize("n", [0, 1, 3])
def test_vectors_come_back_from_both_files(n, tmp_path):
    write_fits(made(n), tmp_path / "t.fits", name="t", facts=FACTS)
    write_voparquet(made(n), tmp_path / "t.parquet", name="t", description="d", facts=FACTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables = [
            Table.read(tmp_path / "t.fits"),
            Table.read(tmp_path / "t.parquet", format="parquet.votable"),
            Table.read(tmp_path / "t.parquet"),
        ]
    want = np.array([[1, 2, 3, 4], [np.nan] * 4, [5, 6, 7, 8]], np.float32)[:n]
    for table in tables:
        np.testing.assert_array_equal(np.ma.filled(table["embedding"], np.nan).reshape(n, 4), want)
        assert table["box"].tolist() == VALUES[-1][:n]
        assert table["flag"].tolist() == VALUES[5][:n]
        assert table["byte"].tolist() == VALUES[6][:n]


def test_fits_keeps_a_description_whole(tmp_path):
    write_fits(made(1), tmp_path / "t.fits", name="t", facts={})
    header = fits.getheader(tmp_path / "t.fits", 1)
    assert header["TCOMM1"] == "An object's place, in words enough for a card and its CONTINUE: ?"
    assert header["LONGSTRN"] == "OGIP 1.0"
