import numpy as np
import pyarrow.parquet as pq
import pytest
from catalog_rows import candidates, entries_of

from lenspipe.catalog.hats import adaptive_pixels, read_pixels, write_tree
from lenspipe.catalog.merge import merge_rows
from lenspipe.catalog.write import read_tree


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


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("n_file", [1, 5])
def test_the_tree_by_ray_equals_the_tree_by_one_process(rows, tmp_path, n_file, rng):
    from lenspipe.dist.catalog import write_tree_ray

    shuffled = rows.take(rng.permutation(rows.num_rows))
    files = []
    for number, part in enumerate(np.array_split(np.arange(rows.num_rows), n_file)):
        files.append(tmp_path / f"{number}.parquet")
        pq.write_table(shuffled.take(part), files[-1])
    merged = merge_rows(rows, radius_arcsec=1.0)
    assert merged.num_rows == 2000
    write_tree(merged, tmp_path / "one", name="sky", max_rows=300)
    write_tree_ray(files, tmp_path / "ray", name="sky", radius_arcsec=1.0, max_rows=300)
    one, by_ray = (read_tree(tmp_path / n).sort_by("_healpix_29") for n in ("one", "ray"))
    assert by_ray.equals(one)
    for pixel in read_pixels(tmp_path / "ray"):
        table = pq.read_table(tmp_path / "ray" / "dataset" / pixel.path, partitioning=None)
        assert 0 < table.num_rows <= 300


def test_pixels_of_counts_are_the_pixels_of_the_rows(rows):
    from lenspipe.dist.catalog import pixels_of_counts

    index = np.sort(rows["_healpix_29"].to_numpy())
    counts = np.bincount(index >> 38, minlength=12 * 4**10)
    assert pixels_of_counts(counts, max_rows=100) == [p for p, _, _ in adaptive_pixels(index, max_rows=100)]


@pytest.mark.usefixtures("ray_local")
def test_a_distributed_catalogue_holds_what_the_catalogue_of_one_process_holds(tmp_path, tiny_model):
    from catalog_runs import scan, write_overlapping_tiles

    from lenspipe.catalog.gallery.write import write_gallery
    from lenspipe.catalog.known import read_known_lenses
    from lenspipe.catalog.read import best_rows, runs_of_candidate
    from lenspipe.catalog.run_rows import open_run_folder
    from lenspipe.catalog.write import Matching, write_catalogue
    from lenspipe.dist.catalog import write_catalogue_ray
    from lenspipe.errors import ConfigError

    lsdb = pytest.importorskip("lsdb")
    truth = write_overlapping_tiles(tmp_path / "tiles")
    scan(tmp_path / "tiles", tmp_path / "run", model=tiny_model)
    lenses = tmp_path / "lenses.csv"
    lenses.write_text("ra,dec,name\n" + "".join(f"{truth['ra'][i]},{truth['dec'][i]},L{i}\n" for i in (0, 7, 31)))
    matching = Matching(source="three", lenses=read_known_lenses(lenses), radius_arcsec=2.0)
    run = open_run_folder(tmp_path / "run")
    how = {"radius_arcsec": 1.0, "acronym": "LPC", "matching": matching, "max_rows": 20}
    one = write_catalogue(run, tmp_path / "one", **how)
    by_ray = write_catalogue_ray(run, tmp_path / "ray", **how, rows_per_file=17)
    a, b = (read_tree(tmp_path / n / "hats").sort_by("candidate_id") for n in ("one", "ray"))
    assert one["counts"]["merged"] > 10  # the overlap has objects to merge
    assert b.equals(a)
    assert by_ray["counts"] == one["counts"]
    assert by_ray["known_lenses"] == one["known_lenses"]
    assert by_ray["area"] == one["area"]
    assert lsdb.open_catalog(tmp_path / "ray" / "hats").compute()["rank"].max() == one["counts"]["rows"]
    # a page, an explanation and a refusal do not need the flat table that is missing
    assert write_gallery(tmp_path / "ray", count=10, stamp_px=16, stamp_arcsec=4.0).n_row == 10
    best = [best_rows(tmp_path / n, 10)["candidate_id"].to_pylist() for n in ("one", "ray")]
    assert best[0] == best[1]
    for candidate, want in ((best[0][3], [run.run_id]), ("nobody", [])):
        assert runs_of_candidate(tmp_path / "ray", candidate) == want == runs_of_candidate(tmp_path / "one", candidate)
    with pytest.raises(ConfigError, match="written by --distributed and cannot be added to"):
        write_catalogue(run, tmp_path / "ray", **how, append=True)
