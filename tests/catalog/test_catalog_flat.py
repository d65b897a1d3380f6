import warnings

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.io.votable.ucd import check_ucd
from astropy.table import Table
from astropy.units import Unit
from catalog_rows import BANDS, candidates, entries_of, on_sphere

from lenspipe.catalog.columns import catalog_schema
from lenspipe.catalog.match import FATES
from lenspipe.catalog.votable import fixed_width, write_fits, write_voparquet
from lenspipe.schema import FAILURES, candidates_schema, shards_schema


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rng = np.random.default_rng(2)
    rows = entries_of(candidates(*on_sphere(200, rng), rng=rng))
    score = rows["score"].to_pylist()
    score[-3:] = [None] * 3
    rank = [r if s is not None else None for r, s in zip(rows["rank"].to_pylist(), score, strict=True)]
    for name, values in (("score", pa.array(score)), ("rank", pa.array(rank, pa.int64()))):
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(place), values)
    folder = tmp_path_factory.mktemp("flat")
    write_voparquet(rows, folder / "c.parquet", name="cat", description="test", facts={"run": "r"})
    write_fits(rows, folder / "c.fits", name="candidates", facts={"run": "r"})
    return rows, folder


@pytest.mark.parametrize("kind", ["parquet.votable", "fits"])
def test_astropy_reads_back_values_units_ucds_and_what_is_missing(made, kind):
    rows, folder = made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = Table.read(folder / ("c.fits" if kind == "fits" else "c.parquet"), format=kind)
    assert len(read) == rows.num_rows
    for f in rows.schema:
        column, want = read[f.name], [v if v != "" else None for v in rows[f.name].to_pylist()]
        got = [None if v is np.ma.masked or v != v or v == "" else v for v in column]
        assert [v.decode() if isinstance(v, bytes) else v for v in got] == want, f.name
        about = {k.decode(): v.decode() for k, v in f.metadata.items()}
        assert column.unit == (Unit(about["unit"]) if "unit" in about else None)
        if kind == "parquet.votable":
            assert column.meta["ucd"] == about["ucd"]
            assert " ".join(column.description.split()) == about["description"]  # XML folds lines
    if kind == "fits":
        assert (folder / "c.fits").stat().st_size % 2880 == 0
        header = fits.getheader(folder / "c.fits", 1)
        ra = rows.column_names.index("ra") + 1
        assert header[f"TUCD{ra}"] == "pos.eq.ra;meta.main"
        assert header[f"TUNIT{ra}"] == "deg"


def test_pandas_polars_and_duckdb_read_the_flat_file(made):
    rows, folder = made
    file = folder / "c.parquet"
    want = rows["score"].to_pylist()
    assert pl.read_parquet(file)["score"].to_list() == want
    assert [r[0] for r in duckdb.sql(f"select score from '{file}'").fetchall()] == want
    frame = pd.read_parquet(file)
    assert [None if np.isnan(v) else v for v in frame["score"]] == want


def test_an_empty_catalogue_has_its_columns_in_both_files(tmp_path):
    empty = catalog_schema(BANDS).empty_table()
    write_voparquet(empty, tmp_path / "c.parquet", name="cat", description="test", facts={})
    write_fits(empty, tmp_path / "c.fits", name="candidates", facts={})
    assert Table.read(tmp_path / "c.fits").colnames == empty.column_names
    assert list(pd.read_parquet(tmp_path / "c.parquet").columns) == empty.column_names
    assert Table.read(tmp_path / "c.parquet", format="parquet.votable").colnames == empty.column_names


@pytest.mark.parametrize(
    "schema",
    [
        catalog_schema(("u", "g", "r", "i", "z", "VIS", "J", "F814W")),
        candidates_schema(BANDS),
        shards_schema(("g", "VIS")),
        FAILURES,
        FATES,
    ],
    ids=["catalogue", "candidates", "shards", "failures", "fates"],
)
def test_every_column_has_a_valid_ucd_a_unit_that_parses_and_a_description(schema):
    for f in schema:
        about = {k.decode(): v.decode() for k, v in f.metadata.items()}
        assert check_ucd(about["ucd"], check_controlled_vocabulary=True), f.name
        assert about["description"], f.name
        Unit(about.get("unit", ""))


def test_fixed_width_words_equal_numpys(rng):
    words = ["", "a", "J0000", "long word"] * 3
    chunked = pa.chunked_array([pa.array(words[:5]), pa.array(words[5:])]).slice(2)
    np.testing.assert_array_equal(fixed_width(chunked, 9), np.array(words[2:], "S9"))


def test_words_that_are_not_ascii_reach_fits_with_question_marks(made, tmp_path):
    rows, _ = made
    rows = rows.slice(0, 1)
    place = rows.schema.get_field_index("known_lens")
    rows = rows.set_column(place, rows.schema.field(place), pa.array(["Böhringer"]))
    write_fits(rows, tmp_path / "c.fits", name="candidates", facts={})
    assert Table.read(tmp_path / "c.fits")["known_lens"][0] == "B?hringer"
