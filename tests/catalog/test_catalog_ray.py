import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from catalog_rows import candidates, entries_of, on_sphere

from lenspipe.catalog.append import append_rows
from lenspipe.catalog.hats import adaptive_pixels, read_pixels, write_tree
from lenspipe.catalog.merge import merge_duplicates
from lenspipe.catalog.pieces import BATCH_ROWS, gather, pixels_of_counts, scatter
from lenspipe.catalog.write import read_tree
from lenspipe.errors import ConfigError


@pytest.fixture
def rows(rng):
    """2400 rows around the north pole and over RA 0, a sixth of them seen twice."""
    polar = rng.uniform(0, 360, 1000), 90 - 5 * np.sqrt(rng.uniform(0, 1, 1000))
    field = rng.uniform(-2, 2, 1000) % 360, rng.uniform(-2, 2, 1000)
    ra, dec = (np.concatenate([a, b]) for a, b in zip(polar, field, strict=True))
    again = rng.choice(2000, 400, replace=False)
    ra = np.concatenate([ra, ra[again]])
    dec = np.concatenate([dec, np.minimum(dec[again] + 0.3 / 3600, 90)])
    return entries_of(candidates(ra, dec, rng=rng), radius_arcsec=1e-3)


def files_of(rows, folder, n_file):
    folder.mkdir()
    files = []
    for number, part in enumerate(np.array_split(np.arange(rows.num_rows), n_file)):
        files.append(folder / f"{number}.parquet")
        pq.write_table(rows.take(part), files[-1], row_group_size=500)
    return files


def merged_at_once(rows):
    merged = merge_duplicates(rows, radius_arcsec=1.0)
    total = merged.counts(rows["n_detection"].to_numpy().astype(np.int64)).astype(np.int32)
    place = rows.schema.get_field_index("n_detection")
    return rows.set_column(place, rows.schema.field(place), pa.array(total)).filter(pa.array(merged.kept))


def tree(folder):
    return read_tree(folder).sort_by("_healpix_29")


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("n_file", [1, 5])
def test_the_tree_by_ray_equals_the_tree_by_one_process(rows, tmp_path, n_file, rng):
    from lenspipe.distributed.catalog_passes import sources_of
    from lenspipe.distributed.catalog_tree import write_tree_ray

    files = files_of(rows.take(rng.permutation(rows.num_rows)), tmp_path / "files", n_file)
    merged = merged_at_once(rows)
    assert merged.num_rows == 2000
    write_tree(merged, tmp_path / "one", name="sky", max_rows=300)
    sources, how = sources_of(files), {"name": "sky", "max_rows": 300}
    write_tree_ray(sources, tmp_path / "ray", schema=rows.schema, radius_arcsec=1.0, **how)
    assert tree(tmp_path / "ray").equals(tree(tmp_path / "one"))
    for pixel in read_pixels(tmp_path / "ray"):
        table = pq.read_table(tmp_path / "ray" / "dataset" / pixel.path, partitioning=None)
        assert 0 < table.num_rows <= 300
        assert (np.diff(table["_healpix_29"].to_numpy()) >= 0).all()


@pytest.mark.usefixtures("ray_local")
def test_a_killed_worker_costs_no_row_and_one_that_always_dies_ends_the_work(rows, tmp_path):
    from lenspipe.distributed.catalog_passes import CatalogRows, sources_of
    from lenspipe.distributed.catalog_tree import write_tree_ray

    class Deadly(CatalogRows):
        """Reading the first row group kills the process, as often as told, with half of the rows scattered."""

        def __init__(self, folder, times):
            self.folder, self.times = folder, times
            folder.mkdir()

        def chunks(self, source):
            yield from super().chunks(source)
            died = len(list(self.folder.iterdir()))
            if source["group"] == 0 and died < self.times:
                (self.folder / str(died)).touch()
                os._exit(1)

    sources = sources_of(files_of(rows, tmp_path / "files", 1))
    how = {"schema": rows.schema, "name": "sky", "radius_arcsec": 1.0, "max_rows": 300}
    write_tree_ray(sources, tmp_path / "ray", reader=Deadly(tmp_path / "once", 1), **how)
    assert len(list((tmp_path / "once").iterdir())) == 1
    assert tree(tmp_path / "ray").equals(merged_at_once(rows).sort_by("_healpix_29"))
    with pytest.raises(ConfigError, match="died again and again"):
        write_tree_ray(sources, tmp_path / "no", reader=Deadly(tmp_path / "always", 99), **how)
    assert not list((tmp_path / "no").glob(".*"))


@pytest.mark.usefixtures("ray_local")
def test_appending_three_times_by_ray_equals_appending_by_one_process(tmp_path, rng):
    from lenspipe.distributed.catalog_passes import sources_of
    from lenspipe.distributed.catalog_tree import append_tree_ray

    how = {"name": "sky", "radius_arcsec": 1.0, "max_rows": 200}
    first = entries_of(candidates(*on_sphere(800, rng), rng=rng))
    for name in ("one0", "ray0"):
        write_tree(first, tmp_path / name, name="sky", max_rows=200)
    rows = first
    for number, (ra, dec) in enumerate([(150.3, 2.3), (0.0, 0.0), (40.0, 89.9)]):
        again = rng.choice(rows.num_rows, 30, replace=False)  # old objects seen again, some across a pixel's border
        at = on_sphere(95, rng, centre=(ra, dec), width_deg=0.2)
        ra_deg = np.concatenate([at[0], rows["ra"].to_numpy()[again]])
        dec_deg = np.concatenate([at[1], rows["dec"].to_numpy()[again] + rng.uniform(-0.5, 0.5, 30) / 3600])
        more = entries_of(candidates(ra_deg, dec_deg, rng=rng, run=f"run{number + 1}"))
        one, by_ray = tmp_path / f"one{number + 1}", tmp_path / f"ray{number + 1}"
        want = append_rows(tmp_path / f"one{number}", more, one, **how)
        added = sources_of(files_of(more, tmp_path / f"files{number}", 2))
        old = tmp_path / f"ray{number}"
        before = {p.path: (old / "dataset" / p.path).read_bytes() for p in read_pixels(old)}
        got = append_tree_ray(old, added, by_ray, **how)
        assert (got.n_new, got.n_merged) == (want.n_new, want.n_merged)
        assert want.n_merged >= 30
        rows = tree(one)
        assert tree(by_ray).equals(rows)
        untouched = [p for p in got.pixels if p not in got.rewritten]
        assert all((by_ray / "dataset" / p.path).samefile(old / "dataset" / p.path) for p in untouched)
        assert untouched and got.rewritten
        assert {p.path: (old / "dataset" / p.path).read_bytes() for p in read_pixels(old)} == before
    result = append_tree_ray(by_ray, added.slice(0, 0), tmp_path / "same", **how)
    assert result.rewritten == [] and tree(tmp_path / "same").equals(rows)


@pytest.mark.parametrize("max_rows", [30, 100])
def test_pixels_of_counts_are_the_pixels_of_the_rows(rows, max_rows):
    index = np.sort(rows["_healpix_29"].to_numpy())
    counts = np.bincount(index >> 38, minlength=12 * 4**10)
    want = [p for p, _, _ in adaptive_pixels(index, max_rows=max_rows)]
    assert pixels_of_counts(counts, max_rows=max_rows) == want
    there, free = want[::2], np.ones(len(index), bool)
    for pixel in there:
        free &= (index < pixel.span[0]) | (index >= pixel.span[1])
    counts = np.bincount(index[free] >> 38, minlength=12 * 4**10)
    apart = [p for p, _, _ in adaptive_pixels(index[free], max_rows=max_rows, apart_from=there)]
    assert pixels_of_counts(counts, max_rows=max_rows, apart_from=there) == apart


def test_scattered_rows_reach_their_pixel_and_those_within_ten_radii(rows, tmp_path):
    index = rows["_healpix_29"].to_numpy()
    pixels = [p for p, _, _ in adaptive_pixels(np.sort(index), max_rows=100)]
    chunks = [rows.slice(start, 700) for start in range(0, rows.num_rows, 700)]
    pieces = scatter(chunks, pixels, tmp_path / "rows.arrow", radius_arcsec=1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["rows.arrow"]
    n_outside = 0
    for number, pixel in enumerate(pixels):
        found = gather([(p.path, p.batch) for p in pieces if p.pixel == number])
        got = found["_healpix_29"].to_numpy()
        inside = (got >= pixel.span[0]) & (got < pixel.span[1])
        want = rows.filter(
            pc.and_(pc.greater_equal(rows["_healpix_29"], pixel.span[0]), pc.less(rows["_healpix_29"], pixel.span[1]))
        )
        assert found.filter(pa.array(inside)).equals(want)
        n_outside += (~inside).sum()
    assert 0 < n_outside < 200
    assert scatter([rows.slice(0, 0)], pixels, tmp_path / "none.arrow", radius_arcsec=1.0) == []
    assert not (tmp_path / "none.arrow").exists()
    assert rows.num_rows < BATCH_ROWS


@pytest.mark.usefixtures("ray_local")
def test_a_distributed_catalogue_holds_what_the_catalogue_of_one_process_holds(tmp_path, tiny_model):
    from catalog_runs import scan, write_overlapping_tiles

    from lenspipe.catalog.gallery.write import write_gallery
    from lenspipe.catalog.known import read_known_lenses
    from lenspipe.catalog.provenance import Matching
    from lenspipe.catalog.read import best_rows, runs_of_candidate
    from lenspipe.catalog.run_rows import open_run_folder
    from lenspipe.catalog.write import write_catalog
    from lenspipe.distributed.catalog import write_catalog_ray

    lsdb = pytest.importorskip("lsdb")
    truth = write_overlapping_tiles(tmp_path / "tiles")
    scan(tmp_path / "tiles", tmp_path / "run", model=tiny_model)
    lenses = tmp_path / "lenses.csv"
    lenses.write_text("ra,dec,name\n" + "".join(f"{truth['ra'][i]},{truth['dec'][i]},L{i}\n" for i in (0, 7, 31)))
    matching = Matching(source="three", lenses=read_known_lenses(lenses), radius_arcsec=2.0)
    run = open_run_folder(tmp_path / "run")
    how = {"radius_arcsec": 1.0, "acronym": "LPC", "matching": matching, "max_rows": 20}
    one = write_catalog(run, tmp_path / "one", **how)
    by_ray = write_catalog_ray(run, tmp_path / "ray", **how, batch_rows=17)
    a, b = (read_tree(tmp_path / n / "hats").sort_by("candidate_id") for n in ("one", "ray"))
    assert one["counts"]["merged"] > 10  # the overlap has objects to merge
    assert b.equals(a)
    for key in ("counts", "known_lenses", "area"):
        assert by_ray[key] == one[key]
    assert lsdb.open_catalog(tmp_path / "ray" / "hats").compute()["rank"].max() == one["counts"]["rows"]
    # a page, an explanation and a refusal do not need the flat table that is missing
    assert write_gallery(tmp_path / "ray", count=10, stamp_px=16, stamp_arcsec=4.0).n_row == 10
    best = [best_rows(tmp_path / n, 10)["candidate_id"].to_pylist() for n in ("one", "ray")]
    assert best[0] == best[1]
    for candidate, want in ((best[0][3], [run.run_id]), ("nobody", [])):
        assert runs_of_candidate(tmp_path / "ray", candidate) == want == runs_of_candidate(tmp_path / "one", candidate)
    scan(tmp_path / "tiles", tmp_path / "again", model=tiny_model, detect={"threshold_sigma": 3.0})
    again = open_run_folder(tmp_path / "again")
    with pytest.raises(ConfigError, match="append with --distributed"):
        write_catalog(again, tmp_path / "ray", **how, append=True)
    with pytest.raises(ConfigError, match="in the catalogue already"):
        write_catalog_ray(run, tmp_path / "ray", **how, append=True)
    one = write_catalog(again, tmp_path / "one", **how, append=True)
    by_ray = write_catalog_ray(again, tmp_path / "ray", **how, append=True)
    keys = [("candidate_id", "ascending"), ("run_id", "ascending")]
    a, b = (read_tree(tmp_path / n / "hats").sort_by(keys) for n in ("one", "ray"))
    assert b.equals(a)
    for key in ("counts", "known_lenses", "area"):
        assert by_ray[key] == one[key]
    assert (tmp_path / "ray" / "gallery" / "index.html").exists(), "the page goes with the catalogue"
    for table in ("shards", "tiles", "known_lenses"):
        a, b = (pq.read_table(tmp_path / n / f"{table}.parquet") for n in ("one", "ray"))
        assert b.equals(a), table
