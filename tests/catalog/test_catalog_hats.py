import itertools

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pds
import pyarrow.parquet as pq
import pytest
from catalog_rows import BANDS, append_rows, candidates, entries_of, on_sphere, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.catalog.columns import catalog_schema
from lenspipe.catalog.hats import adaptive_pixels, read_pixels
from lenspipe.catalog.write import read_tree
from lenspipe.sky.healpix import healpix29


@pytest.fixture(autouse=True)
def threads():
    dask = pytest.importorskip("dask")
    with dask.config.set(scheduler="synchronous"):
        yield


def open_catalog(root, **options):
    """By lsdb, which takes long to import: by no process that does not run these tests."""
    lsdb = pytest.importorskip("lsdb")
    return lsdb.open_catalog(root, **options)


def valid(root):
    from hats.io.validation import is_valid_catalog

    return is_valid_catalog(root, strict=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rng = np.random.default_rng(1)
    rows = entries_of(candidates(*on_sphere(3000, rng), rng=rng))
    root = tmp_path_factory.mktemp("tree") / "sky"
    write_rows(rows, root, name="sky", max_rows=500)
    return rows, root


def test_the_tree_is_strictly_valid_with_adaptive_pixels(made):
    hats = pytest.importorskip("hats")
    rows, root = made
    assert valid(root)
    catalogue = hats.read_hats(root)
    assert catalogue.catalog_info.total_rows == rows.num_rows
    assert len({p.order for p in catalogue.get_healpix_pixels()}) > 1
    for pixel in read_pixels(root):
        index = pq.read_table(root / "dataset" / pixel.path, partitioning=None)["_healpix_29"].to_numpy()
        assert 0 < len(index) <= 500
        assert (np.diff(index) >= 0).all()
        assert (index >= pixel.span[0]).all() and (index < pixel.span[1]).all()


def test_a_cone_search_of_lsdb_counts_what_brute_force_counts(made):
    rows, root = made
    found = open_catalog(root).cone_search(150.0, 2.0, 900).compute()
    ra, dec = np.radians(rows["ra"].to_numpy()), np.radians(rows["dec"].to_numpy())
    cosine = np.sin(dec) * np.sin(np.radians(2)) + np.cos(dec) * np.cos(np.radians(2)) * np.cos(ra - np.radians(150))
    assert len(found) == (np.degrees(np.arccos(cosine)) * 3600 < 900).sum() > 100


@pytest.mark.long
def test_lsdb_matches_every_row_with_itself_and_loads_all_columns(tmp_path, rng):
    rows, root = entries_of(candidates(*on_sphere(600, rng), rng=rng)), tmp_path / "few"
    write_rows(rows, root, name="few", max_rows=300)
    assert len(read_pixels(root)) > 1
    catalogue = open_catalog(root, columns="all")
    assert set(catalogue.columns) >= set(rows.column_names) - {"_healpix_29"}
    pairs = catalogue.crossmatch(catalogue, radius_arcsec=0.1, suffixes=("_a", "_b")).compute()
    assert len(pairs) == rows.num_rows
    assert (pairs["candidate_id_a"] == pairs["candidate_id_b"]).all()


def test_pandas_polars_duckdb_and_pyarrow_read_the_tree(made):
    rows, root = made
    want = sorted(rows["candidate_id"].to_pylist())
    data = root / "dataset"
    assert sorted(pd.read_parquet(data)["candidate_id"]) == want
    assert sorted(pl.scan_parquet(data / "**/*.parquet").select("candidate_id").collect()["candidate_id"]) == want
    found = duckdb.sql(f"select candidate_id from read_parquet('{data}/**/*.parquet', hive_partitioning=false)")
    assert sorted(r[0] for r in found.fetchall()) == want
    assert pds.parquet_dataset(data / "_metadata").count_rows() == len(want)


def test_a_catalogue_of_nothing_is_valid_and_opens(tmp_path):
    write_rows(catalog_schema(BANDS).empty_table(), tmp_path / "none", name="none")
    assert valid(tmp_path / "none")
    assert len(open_catalog(tmp_path / "none").compute()) == 0
    assert read_tree(tmp_path / "none").num_rows == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 400), max_rows=st.integers(1, 100))
def test_pixels_hold_every_row_once_and_do_not_overlap(seed, n, max_rows):
    rng = np.random.default_rng(seed)
    index = np.sort(healpix29(rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))))
    pixels = adaptive_pixels(index, max_rows=max_rows)
    assert sum(high - low for _, low, high in pixels) == n
    spans = sorted(pixel.span for pixel, _, _ in pixels)
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))
    assert all(high - low <= max_rows or pixel.order == 10 for pixel, low, high in pixels)


def test_appending_three_times_writes_only_the_pixels_that_change(tmp_path, rng):
    first = entries_of(candidates(*on_sphere(800, rng), rng=rng))
    write_rows(first, tmp_path / "0", name="sky", max_rows=200)
    total, rows = 800, first
    for number, (ra, dec) in enumerate([(150.3, 2.3), (0.0, 0.0), (40.0, 89.9)]):
        # five of the hundred are old objects again, 0.2 arcsec off
        again = rng.choice(rows.num_rows, 5, replace=False)
        at = on_sphere(95, rng, centre=(ra, dec), width_deg=0.2)
        ra_deg = np.concatenate([at[0], rows["ra"].to_numpy()[again]])
        dec_deg = np.concatenate([at[1], rows["dec"].to_numpy()[again] + 0.2 / 3600])
        more = entries_of(candidates(ra_deg, dec_deg, rng=rng, run=f"run{number + 1}"))
        old, new = tmp_path / str(number), tmp_path / str(number + 1)
        before = {p.path: (old / "dataset" / p.path).read_bytes() for p in read_pixels(old)}
        result = append_rows(old, more, new, name="sky", max_rows=200)
        total += 95
        assert result.n_merged == 5
        rows = read_tree(new)
        assert result.n_new == rows["run_id"].to_pylist().count(f"run{number + 1}") >= 95
        assert rows.num_rows == total
        assert sum(rows["n_detection"].to_pylist()) == 800 + 100 * (number + 1)
        assert valid(new)
        untouched = [p for p in result.pixels if p not in result.rewritten]
        assert untouched
        for pixel in untouched:
            assert (new / "dataset" / pixel.path).samefile(old / "dataset" / pixel.path)
        assert {p.path: (old / "dataset" / p.path).read_bytes() for p in read_pixels(old)} == before
    assert len(open_catalog(tmp_path / "3").compute()) == total


def test_appending_equals_merging_at_once_where_objects_are_pairs(tmp_path, rng):
    ra, dec = on_sphere(300, rng)
    one = candidates(ra, dec, rng=rng, run="a")
    two = candidates(ra[:100] + 0.1 / 3600, dec[:100], rng=rng, run="b")
    at_once = entries_of(pa.concat_tables([one, two])).sort_by([("_healpix_29", "ascending")])
    write_rows(entries_of(one), tmp_path / "old", name="sky", max_rows=50)
    append_rows(tmp_path / "old", entries_of(two), tmp_path / "new", name="sky", max_rows=50)
    found = read_tree(tmp_path / "new").sort_by([("_healpix_29", "ascending")])
    columns = [name for name in found.column_names if name != "rank"]  # the rank is the place in the row's own run
    assert found.select(columns).equals(at_once.select(columns))


def test_an_object_on_the_border_of_two_pixels_is_merged_across_it(tmp_path, rng):
    # RA 90 deg is the border of two base pixels north of the equatorial belt
    old = entries_of(candidates([90 - 0.2 / 3600, 100.0], [60.0, 60.0], rng=rng))
    write_rows(old, tmp_path / "old", name="sky")
    assert len(read_pixels(tmp_path / "old")) == 2
    more = entries_of(candidates([90 + 0.2 / 3600], [60.0], rng=rng, run="run1"))
    append_rows(tmp_path / "old", more, tmp_path / "new", name="sky")
    assert sorted(read_tree(tmp_path / "new")["n_detection"].to_pylist()) == [1, 2]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_new_pixels_keep_clear_of_those_that_are_there(seed):
    rng = np.random.default_rng(seed)
    index = np.sort(healpix29(rng.uniform(0, 360, 200), np.degrees(np.arcsin(rng.uniform(-1, 1, 200)))))
    there = [p for p, _, _ in adaptive_pixels(index[::2], max_rows=3)]
    free = np.array([i for i in index[1::2] if not any(p.span[0] <= i < p.span[1] for p in there)], np.int64)
    new = adaptive_pixels(free, max_rows=50, apart_from=there)
    assert sum(high - low for _, low, high in new) == len(free)
    spans = sorted(p.span for p in [*there, *(p for p, _, _ in new)])
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))


def test_appending_nothing_and_appending_to_nothing_are_valid(tmp_path, rng):
    empty = catalog_schema(BANDS).empty_table()
    rows = entries_of(candidates(*on_sphere(20, rng), rng=rng))
    write_rows(empty, tmp_path / "none", name="sky")
    result = append_rows(tmp_path / "none", rows, tmp_path / "some", name="sky")
    assert result.n_new == 20
    result = append_rows(tmp_path / "some", empty, tmp_path / "same", name="sky")
    assert result.rewritten == []
    assert valid(tmp_path / "same")
    assert read_tree(tmp_path / "same").num_rows == 20
