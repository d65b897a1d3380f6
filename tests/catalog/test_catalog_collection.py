"""A catalogue as a HATS collection: hats' own check, lsdb, and margins against distances to dense borders."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from catalog_rows import candidates, entries_of, write_rows
from cdshealpix.nested import vertices
from scipy.spatial import cKDTree

from lenspipe.catalog.collection import MARGIN_ARCSEC, write_collection
from lenspipe.catalog.columns import catalog_schema
from lenspipe.catalog.executor import Here
from lenspipe.catalog.hats import home_of, read_pixels
from lenspipe.catalog.write import read_tree
from lenspipe.sky.healpix import BASE_SIDE_DEG
from lenspipe.sky.sphere import separation_arcsec, unit_vectors


def collection(folder, rows, *, max_rows=10**6):
    write_rows(rows, folder / "hats", name="sky", max_rows=max_rows)
    write_collection(folder, name="sky", executor=Here(), scratch=folder / ".scratch")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Rows around a point where base pixels meet, and a few around another corner, in many pixels."""
    rng = np.random.default_rng(3)
    ra = 90 + np.concatenate([rng.normal(0, 60, 150), rng.uniform(-1500, 1500, 50)]) / 3600
    dec = 41.8103 + np.concatenate([rng.normal(0, 40, 150), rng.uniform(-900, 900, 50)]) / 3600
    rows = entries_of(candidates(ra, dec, rng=rng), radius_arcsec=0.001)
    return rows, collection(tmp_path_factory.mktemp("collection") / "sky", rows, max_rows=40)


@pytest.fixture(autouse=True)
def threads():
    dask = pytest.importorskip("dask")
    with dask.config.set(scheduler="synchronous"):
        yield


def test_hats_finds_the_collection_strictly_valid(made):
    validation = pytest.importorskip("hats.io.validation")
    assert validation.is_valid_collection(made[1], strict=True)


def border(pixel):
    """Points along the border of a pixel, every 2 arcsec."""
    steps = int(BASE_SIDE_DEG * 3600 / 2**pixel.order / 2)
    lon, lat = vertices(np.array([pixel.number], np.uint64), pixel.order, step=steps)
    return cKDTree(unit_vectors(np.asarray(lon.deg)[0], np.asarray(lat.deg)[0]))


def test_a_margin_holds_every_row_that_is_nearer_to_a_pixel_than_its_width_and_none_much_further(made):
    rows, folder = made
    pixels = read_pixels(folder / "hats")
    assert len(pixels) > 4
    index, at = rows["_healpix_29"].to_numpy(), unit_vectors(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    names = np.array(rows["candidate_id"].to_pylist())
    n_total = 0
    for pixel in pixels:
        outside = (index < pixel.span[0]) | (index >= pixel.span[1])
        apart = np.degrees(border(pixel).query(at[outside])[0]) * 3600
        file = folder / "hats_margin" / "dataset" / pixel.path
        got = set(pq.read_table(file, partitioning=None)["candidate_id"].to_pylist()) if file.exists() else set()
        want = names[outside]
        assert set(want[apart <= MARGIN_ARCSEC]) <= got <= set(want[apart <= 1.05 * MARGIN_ARCSEC])
        n_total += len(got)
    assert n_total > 20


@pytest.mark.long
def test_lsdb_opens_it_with_its_margin_and_matches_across_borders(tmp_path, rng):
    lsdb = pytest.importorskip("lsdb")
    ra, dec = 90 + rng.normal(0, 15, 60) / 3600, 41.8103 + rng.normal(0, 10, 60) / 3600
    rows = entries_of(candidates(ra, dec, rng=rng), radius_arcsec=0.001)
    folder = collection(tmp_path / "sky", rows)
    pixels = read_pixels(folder / "hats")
    assert len(pixels) == 3
    catalogue = lsdb.open_catalog(folder, columns=["candidate_id", "ra", "dec"])
    assert catalogue.margin.hc_structure.catalog_info.margin_threshold == MARGIN_ARCSEC
    pairs = catalogue.crossmatch(catalogue, radius_arcsec=9, n_neighbors=60, suffixes=("_a", "_b")).compute()
    ids, ra, dec = (rows[name].to_numpy() for name in ("candidate_id", "ra", "dec"))
    near = np.nonzero(separation_arcsec(ra[:, None], dec[:, None], ra, dec) < 9)
    assert set(zip(pairs["candidate_id_a"], pairs["candidate_id_b"], strict=True)) == set(
        zip(*ids[list(near)], strict=True)
    )
    home = home_of(rows["_healpix_29"].to_numpy(), pixels)
    assert (home[near[0]] != home[near[1]]).sum() > 10


def test_an_identifier_is_found_by_the_index(made):
    lsdb = pytest.importorskip("lsdb")
    rows, folder = made
    wanted = rows["candidate_id"][77].as_py()
    found = lsdb.open_catalog(folder).id_search({"candidate_id": wanted})
    assert found.npartitions == 1
    assert found.compute()["candidate_id"].tolist() == [wanted]


@pytest.mark.parametrize("n", [0, 5])
def test_a_collection_of_one_pixel_or_of_none_is_valid_and_opens(n, tmp_path, rng):
    validation, lsdb = pytest.importorskip("hats.io.validation"), pytest.importorskip("lsdb")
    rows = entries_of(candidates(150 + np.arange(n) / 100, np.zeros(n), rng=rng)) if n else catalog_schema(
        ("g", "r", "i")).empty_table()  # fmt: skip
    folder = collection(tmp_path / "sky", rows)
    assert validation.is_valid_collection(folder, strict=True)
    assert len(lsdb.open_catalog(folder).compute()) == n
    assert read_tree(folder / "hats").num_rows == n
    assert pq.read_table(folder / "hats" / "data_thumbnail.parquet").num_rows == min(n, 1)
