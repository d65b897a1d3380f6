# Every table of a run and of its catalogue opens in astropy, pandas, polars and DuckDB, without a word on the way.

import warnings

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from click.testing import CliRunner
from sky import write_tile

from lenspipe.bands import TABLE
from lenspipe.catalog.columns import catalog_schema
from lenspipe.catalog.match import FATES
from lenspipe.cli.scan import command
from lenspipe.learn.finish import write_history
from lenspipe.schema import FAILURES, candidates_schema, field, shards_schema
from lenspipe.tables import table_writer, write_table

KINDS = ("all well", "a broken tile", "nothing found")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_model):
    """One run of each kind, with its catalogue."""
    folder = tmp_path_factory.mktemp("runs")
    tiles = {kind: folder / "tiles" / kind for kind in KINDS}
    write_tile(tiles["all well"], "a", shape=(100, 100), n_source=4)
    for name, head in (("a", {}), ("b", {}), ("c", {"BUNIT": "adu"})):
        write_tile(tiles["a broken tile"], name, shape=(100, 100), n_source=4, seed=ord(name), **head)
    whole = (tiles["a broken tile"] / "b_r.fits").read_bytes()
    (tiles["a broken tile"] / "b_r.fits").write_bytes(whole[: len(whole) // 2])
    write_tile(tiles["nothing found"], "a", shape=(100, 100), n_source=0, bands="r")
    codes = []
    for kind, model in zip(KINDS, ("none", tiny_model, "none"), strict=True):
        arguments = [str(tiles[kind]), "--runner", "local", "--model", str(model), "--out", str(folder / kind)]
        if kind == "nothing found":
            arguments += ["--set", "detect.threshold_sigma=50"]
        codes.append(CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False).return_value)
    assert codes == [0, 3, 0]
    return folder


def opened(file):
    """Rows as each reader counts them; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = [Table.read(file), pd.read_parquet(file), pl.read_parquet(file)]
        if b"IVOA.VOTable-Parquet.content" in (pq.read_schema(file).metadata or {}):
            read.append(Table.read(file, format="parquet.votable"))
        return {len(table) for table in read} | {len(duckdb.sql(f"select * from '{file}'").fetchall())}


@pytest.mark.parametrize("kind", KINDS)
def test_every_table_opens_in_every_reader_without_a_warning(runs, kind):
    files = sorted(f for f in (runs / kind).rglob("*.parquet") if f.parent.name != "parts")  # the ledger is no table
    assert {"candidates.parquet", "shards.parquet", "failures.parquet", "plan.parquet", "known_lenses.parquet"} <= {
        file.name for file in files
    }
    for file in files:
        assert opened(file) == {pq.read_metadata(file).num_rows}, file
        assert "null" not in {str(f.type) for f in pq.read_schema(file)}, file


def test_a_missing_word_is_empty_and_a_missing_vector_is_nan_in_astropy_too(runs):
    shards = Table.read(runs / "a broken tile" / "shards.parquet")
    failed = shards[shards["status"] == "failed"]
    assert failed["tile"].tolist() == ["b"]
    assert np.isnan(failed["corner_ra_deg"]).all() and failed["corner_ra_deg"].shape == (1, 4)
    failures = Table.read(runs / "a broken tile" / "failures.parquet")
    assert [(str(row["tile"]), str(row["shard_id"]) == "") for row in failures] == [("b", False), ("c", True)]
    assert set(Table.read(runs / "all well" / "candidates.parquet")["model"]) == {""}


def test_a_plan_read_back_says_which_tile_has_no_shard(runs):
    from lenspipe.scan.plan import read_plan, tasks_of, unplanned_tiles

    plan, _ = read_plan(runs / "a broken tile" / "plan.parquet")
    assert unplanned_tiles(plan) == {"c"}
    assert [task.tile.name for task in tasks_of(plan)] == ["a", "b"]


def test_tables_of_a_training_open_too(tmp_path):
    write_history(tmp_path / "history.parquet", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None}])
    assert opened(tmp_path / "history.parquet") == {2}


@pytest.mark.parametrize("n", [0, 1, 3])
def test_vectors_and_words_of_a_new_column_open_whole_or_in_pieces(tmp_path, n):
    schema = pa.schema([field("word", pa.string(), "w"), field("embedding", pa.list_(pa.float32(), 4), "e")])
    values = [["é", None, "long"][:n], [[1.0, 2.0, 3.0, 4.0], None, [0.0] * 4][:n]]
    table = pa.table([pa.array(v, f.type) for v, f in zip(values, schema, strict=True)], schema=schema)
    write_table(table, tmp_path / "whole.parquet")
    with table_writer(tmp_path / "pieces.parquet", schema) as writer:
        for k in range(n):
            writer.write(table.slice(k, 1))
    for name in ("whole", "pieces"):
        assert opened(tmp_path / f"{name}.parquet") == {n}
        read = Table.read(tmp_path / f"{name}.parquet")
        assert read["word"].tolist() == ["é", "", "long"][:n]
        assert read["embedding"].shape == (n, 4)


def test_a_column_without_a_type_and_names_that_differ_by_case_are_no_table(tmp_path):
    for bad, error in (
        (pa.table({"a": pa.nulls(2)}), TypeError),
        (pa.table({"a": pa.array([[], []])}), TypeError),
        (pa.table({"mag_y": [1.0], "mag_Y": [2.0]}), ValueError),
    ):
        with pytest.raises(error):
            write_table(bad, tmp_path / "t.parquet")
        with pytest.raises(error), table_writer(tmp_path / "t.parquet", bad.schema):
            pass
    assert not (tmp_path / "t.parquet").exists()


def test_no_schema_has_names_that_differ_by_case_only_whatever_the_bands():
    bands = tuple({band.name.lower(): band.name for band in TABLE}.values())
    for schema in (candidates_schema(bands), shards_schema(bands), catalog_schema(bands), FAILURES, FATES):
        names = [name.lower() for name in schema.names]
        assert len(set(names)) == len(names) == len(schema)
        assert not [f.name for f in schema if pa.types.is_null(f.type)]
