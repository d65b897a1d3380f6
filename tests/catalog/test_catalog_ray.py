import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from catalog_rows import append_rows, candidates, entries_of, merged_at_once, on_sphere, write_rows

from lenspipe.catalog.executor import BATCH_ROWS, Here
from lenspipe.catalog.hats import adaptive_pixels, read_pixels
from lenspipe.catalog.pieces import gather, pixels_of_counts, scatter
from lenspipe.catalog.sources import TreeGroup, tree_groups
from lenspipe.catalog.tree import TreeWriter
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


def tree(folder):
    return read_tree(folder).sort_by("_healpix_29")


@pytest.fixture(params=["here", pytest.param("ray", marks=pytest.mark.ray)])
def tasks(request):
    """Kinds of executors that scatter rows, so many at a time: the plain loop, and Ray."""
    if request.param == "here":
        return Here
    request.getfixturevalue("ray_local")
    from lenspipe.distributed.catalog import RayTasks

    return RayTasks


def write_files(files, root, executor, schema, *, max_rows=300):
    writer = TreeWriter(name="sky", radius_arcsec=1.0, max_rows=max_rows, executor=executor)
    return writer.write(files, root, schema=schema)


@pytest.mark.parametrize("n_file", [1, 5])
def test_a_tree_of_scattered_rows_equals_the_tree_of_all_rows(rows, tmp_path, n_file, rng, tasks):
    files = files_of(rows.take(rng.permutation(rows.num_rows)), tmp_path / "files", n_file)
    merged = merged_at_once(rows)
    assert merged.num_rows == 2000
    place = rows.schema.get_field_index("rank")
    merged = merged.sort_by("rank").set_column(place, rows.schema.field("rank"), pa.array(np.arange(1, 2001)))
    write_rows(merged, tmp_path / "one", name="sky", max_rows=300)
    pixels, held = write_files(tree_groups(files), tmp_path / "many", tasks(batch_rows=170), rows.schema)
    assert tree(tmp_path / "many").equals(tree(tmp_path / "one"))
    assert held is None
    assert sorted(pixels) == sorted(read_pixels(tmp_path / "many"))
    for pixel in pixels:
        table = pq.read_table(tmp_path / "many" / "dataset" / pixel.path, partitioning=None)
        assert 0 < table.num_rows <= 300
        assert (np.diff(table["_healpix_29"].to_numpy()) >= 0).all()
    assert not list((tmp_path / "many").glob(".*"))
    _, held = write_files(tree_groups(files), tmp_path / "held", Here(), rows.schema)
    assert tree(tmp_path / "held").equals(tree(tmp_path / "one"))
    assert held.sort_by("_healpix_29").equals(tree(tmp_path / "one"))


@pytest.mark.usefixtures("ray_local")
def test_a_killed_worker_costs_no_row_and_one_that_always_dies_ends_the_work(rows, tmp_path):
    from lenspipe.distributed.catalog import RayTasks

    class Deadly(TreeGroup):
        """Reading the first row group kills the process, as often as told, with half of the rows scattered."""

        def chunks(self, batch_rows=None):
            yield from TreeGroup.chunks(self, batch_rows)
            folder = self.path.parent / "deaths"
            died = len(list(folder.iterdir()))
            if self.group == 0 and died < int((self.path.parent / "times").read_text()):
                (folder / str(died)).touch()
                os._exit(1)

    for name, times in (("once", 1), ("always", 99)):
        files = files_of(rows, tmp_path / name, 1)
        (tmp_path / name / "deaths").mkdir()
        (tmp_path / name / "times").write_text(str(times))
        sources = [Deadly(source.path, source.group) for source in tree_groups(files)]
        if times == 1:
            write_files(sources, tmp_path / "ray", RayTasks(), rows.schema)
            assert len(list((tmp_path / name / "deaths").iterdir())) == 1
            found = tree(tmp_path / "ray").drop_columns("rank")
            assert found.equals(merged_at_once(rows).sort_by("_healpix_29").drop_columns("rank"))
        else:
            with pytest.raises(ConfigError, match="died again and again"):
                write_files(sources, tmp_path / "no", RayTasks(), rows.schema)
            assert not list((tmp_path / "no").glob(".*"))


def test_appending_scattered_rows_three_times_equals_appending_all_at_once(tmp_path, rng, tasks):
    how = {"name": "sky", "radius_arcsec": 1.0, "max_rows": 200}
    first = entries_of(candidates(*on_sphere(800, rng), rng=rng))
    for name in ("one0", "many0"):
        write_rows(first, tmp_path / name, name="sky", max_rows=200)
    rows = first
    for number, (ra, dec) in enumerate([(150.3, 2.3), (0.0, 0.0), (40.0, 89.9)]):
        again = rng.choice(rows.num_rows, 30, replace=False)  # old objects seen again, some across a pixel's border
        at = on_sphere(95, rng, centre=(ra, dec), width_deg=0.2)
        ra_deg = np.concatenate([at[0], rows["ra"].to_numpy()[again]])
        dec_deg = np.concatenate([at[1], rows["dec"].to_numpy()[again] + rng.uniform(-0.5, 0.5, 30) / 3600])
        more = entries_of(candidates(ra_deg, dec_deg, rng=rng, run=f"run{number + 1}"))
        one, many = tmp_path / f"one{number + 1}", tmp_path / f"many{number + 1}"
        want = append_rows(tmp_path / f"one{number}", more, one, name="sky", max_rows=200)
        added = tree_groups(files_of(more, tmp_path / f"files{number}", 2))
        old = tmp_path / f"many{number}"
        before = {p.path: (old / "dataset" / p.path).read_bytes() for p in read_pixels(old)}
        got = TreeWriter(**how, executor=tasks(batch_rows=170)).append(old, added, many)
        assert (got.n_new, got.n_merged) == (want.n_new, want.n_merged)
        assert want.n_merged >= 30
        rows = tree(one)
        assert tree(many).equals(rows)
        untouched = [p for p in got.pixels if p not in got.rewritten]
        assert all((many / "dataset" / p.path).samefile(old / "dataset" / p.path) for p in untouched)
        assert untouched and got.rewritten
        assert {p.path: (old / "dataset" / p.path).read_bytes() for p in read_pixels(old)} == before
    result = TreeWriter(**how, executor=tasks(batch_rows=170)).append(many, [], tmp_path / "same")
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


def test_a_catalogue_of_scattered_rows_holds_what_the_catalogue_of_one_task_holds(tmp_path, tiny_model, tasks):
    from catalog_runs import scan, write_overlapping_tiles

    from lenspipe.catalog.gallery.write import write_gallery
    from lenspipe.catalog.known import read_known_lenses
    from lenspipe.catalog.provenance import Matching
    from lenspipe.catalog.read import best_rows, runs_of_candidate
    from lenspipe.catalog.run_rows import open_run_folder
    from lenspipe.catalog.write import write_catalog
    from lenspipe.runner import here

    lsdb = pytest.importorskip("lsdb")
    truth = write_overlapping_tiles(tmp_path / "tiles")
    scan(tmp_path / "tiles", tmp_path / "run", model=tiny_model)
    lenses = tmp_path / "lenses.csv"
    lenses.write_text("ra,dec,name\n" + "".join(f"{truth['ra'][i]},{truth['dec'][i]},L{i}\n" for i in (0, 7, 31)))
    matching = Matching(source="three", lenses=read_known_lenses(lenses), radius_arcsec=2.0)
    run = open_run_folder(tmp_path / "run")
    how = {"radius_arcsec": 1.0, "acronym": "LPC", "matching": matching, "max_rows": 20}
    one = write_catalog(run, tmp_path / "one", **how)
    ray = {"executor": here(tasks(batch_rows=17)), "flat": False}
    by_ray = write_catalog(run, tmp_path / "ray", **how, **ray)
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
        write_catalog(run, tmp_path / "ray", **how, **ray, append=True)
    one = write_catalog(again, tmp_path / "one", **how, append=True)
    by_ray = write_catalog(again, tmp_path / "ray", **how, **ray, append=True)
    keys = [("candidate_id", "ascending"), ("run_id", "ascending")]
    a, b = (read_tree(tmp_path / n / "hats").sort_by(keys) for n in ("one", "ray"))
    assert b.equals(a)
    for key in ("counts", "known_lenses", "area"):
        assert by_ray[key] == one[key]
    assert (tmp_path / "ray" / "gallery" / "index.html").exists(), "the page goes with the catalogue"
    for table in ("shards", "tiles", "known_lenses"):
        a, b = (pq.read_table(tmp_path / n / f"{table}.parquet") for n in ("one", "ray"))
        assert b.equals(a), table
