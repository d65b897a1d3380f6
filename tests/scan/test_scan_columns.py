"""Columns of models are in a run's tables where the models ran, and files of before that rule still serve."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog.catalog_runs import local, scan, scan_request
from sky import write_tile

from lenspipe.catalog.run_rows import Run, open_run_folder
from lenspipe.catalog.write import read_tree, write_catalog
from lenspipe.runner import Silent
from lenspipe.scan.run import run_scan
from lenspipe.schema import nothing, substructure_fields

NAMES = {f.name for f in substructure_fields()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("columns")
    for name in ("a", "b"):
        write_tile(folder / "tiles", name, shape=(150, 150), n_source=8, seed=ord(name))
    scan(folder / "tiles", folder / "run")
    scan(folder / "tiles", folder / "again", detect={"threshold_sigma": 3.0})
    return folder


def with_old_columns(table):
    """As tables of older versions were: with the columns of substructure, null."""
    for f in substructure_fields():
        table = table.append_column(f, nothing(f, table.num_rows))
    return table


def test_columns_of_substructure_are_there_only_where_it_was_looked_for(made):
    assert not NAMES & set(pq.read_schema(made / "run" / "candidates.parquet").names)


def test_a_run_of_before_is_resumed_though_its_parts_have_more_columns(made, tmp_path):
    run = shutil.copytree(made / "run", tmp_path / "run")
    parts = sorted((run / "parts").glob("*.parquet"))
    table = pq.read_table(parts[0])
    place = table.schema.get_field_index("candidates")
    column = table.column(place).combine_chunks()
    inner = with_old_columns(pa.Table.from_struct_array(column.flatten()))
    lists = pa.ListArray.from_arrays(column.offsets, inner.combine_chunks().to_struct_array().combine_chunks())
    old = table.set_column(place, pa.field("candidates", lists.type), lists)
    half = old.num_rows // 2
    assert half
    for part in parts:
        part.unlink()
    pq.write_table(old.slice(0, half), parts[0])
    (run / "candidates.parquet").unlink()
    run_scan(scan_request(made / "tiles", model="none"), run, local, Silent(), resume=True)
    assert pq.read_table(run / "candidates.parquet").equals(pq.read_table(made / "run" / "candidates.parquet"))


def test_a_run_of_before_gives_the_catalogue_that_it_would_give_now(made, tmp_path):
    run = shutil.copytree(made / "run", tmp_path / "run")
    pq.write_table(with_old_columns(pq.read_table(run / "candidates.parquet")), run / "candidates.parquet")
    how = {"radius_arcsec": 1.0, "acronym": "LPC", "matching": None}
    for name, of in (("new", made / "run"), ("old", run)):
        write_catalog(open_run_folder(of), tmp_path / name, **how)
    assert read_tree(tmp_path / "old" / "hats").equals(read_tree(tmp_path / "new" / "hats"))


def test_a_catalogue_of_before_keeps_its_columns_when_a_run_is_added(made, tmp_path, monkeypatch):
    how = {"radius_arcsec": 1.0, "acronym": "LPC", "matching": None}
    with monkeypatch.context() as patch:
        patch.setattr(Run, "added", property(lambda self: tuple(substructure_fields())))
        write_catalog(open_run_folder(made / "run"), tmp_path / "cat", **how)
    assert set(read_tree(tmp_path / "cat" / "hats").column_names) >= NAMES
    record = write_catalog(open_run_folder(made / "again"), tmp_path / "cat", append=True, **how)
    rows = read_tree(tmp_path / "cat" / "hats")
    assert len(record["runs"]) == 2 and set(rows.column_names) >= NAMES
    assert all(set(rows[name].to_pylist()) <= {None, ""} for name in NAMES)
