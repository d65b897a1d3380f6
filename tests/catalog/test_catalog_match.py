import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from catalog_rows import candidates, entries_of
from catalog_runs import scan, write_overlapping_tiles
from click.testing import CliRunner
from mocpy import MOC

from lenspipe.catalog.known import SNAPSHOT, read_known_lenses
from lenspipe.catalog.match import fates, with_known_lenses
from lenspipe.catalog.provenance import Matching
from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.catalog.write import write_catalog
from lenspipe.cli import group
from lenspipe.errors import ConfigError
from lenspipe.sky.sphere import nearest


def test_the_nearest_lens_is_the_one_astropy_finds(rng):
    lenses = read_known_lenses("lenscat")
    lens = SkyCoord(lenses["ra"].to_numpy(), lenses["dec"].to_numpy(), unit="deg")
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))
    ra = rng.uniform(0, 360, 3000)
    ra[:1000], dec[:1000] = lens.ra.deg[:1000], np.clip(lens.dec.deg[:1000] + rng.uniform(-3, 3, 1000) / 3600, -90, 90)
    index, apart, _ = SkyCoord(ra, dec, unit="deg").match_to_catalog_sky(lens)
    ours, separation = nearest(ra, dec, lens.ra.deg, lens.dec.deg, radius_arcsec=2.0)
    near = apart.arcsec <= 2.0
    assert near.sum() > 500
    np.testing.assert_array_equal(ours >= 0, near)
    np.testing.assert_allclose(separation[near], apart.arcsec[near], atol=1e-7)
    same = lens[ours[near]].separation(lens[index[near]]).arcsec
    assert same.max() < 1e-6


def test_the_snapshot_of_lenscat_is_whole_and_says_where_it_is_from():
    table = pq.read_table(SNAPSHOT)
    assert table.num_rows == 32_838
    assert b"MIT" in table.schema.metadata[b"source"]
    assert set(table["grade"].to_pylist()) == {"confident", "probable"}
    assert (SNAPSHOT.parent / "lenscat.LICENSE").read_text().startswith("MIT License")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".fits", ".xml"])
def test_a_list_of_ones_own_is_read_in_any_format(tmp_path, suffix):
    lenses = Table({"ID": ["a", "b"], "RAJ2000": [1.5, 359.0], "DEJ2000": [-3.0, 4.0], "Grade": ["A", "B"]})
    file = str(tmp_path / f"list{suffix}")
    if suffix == ".xml":
        lenses.write(file, format="votable")
    elif suffix == ".parquet":
        pq.write_table(pa.table({n: list(lenses[n]) for n in lenses.colnames}), file)
    else:
        lenses.write(file)
    read = read_known_lenses(file).to_pylist()
    assert read[1] == {"name": "b", "ra": 359.0, "dec": 4.0, "grade": "B", "reference": None}


def test_lists_that_cannot_be_used_are_refused_with_the_reason(tmp_path):
    (tmp_path / "no.csv").write_text("name,alpha\na,1\n")
    (tmp_path / "words.csv").write_text("name,ra,dec\na,10:20:30,-5:00:00\n")
    (tmp_path / "void.csv").write_text("name,ra,dec\na,,2\n")
    (tmp_path / "broken.fits").write_text("no")
    (tmp_path / "list.docx").write_text("no")
    for name, reason in {
        "no.csv": "no column for ra",
        "words.csv": "not in degrees",
        "void.csv": "has no position",
        "broken.fits": "cannot be read",
        "list.docx": "kind of list is not known",
        "absent.csv": "no such list",
    }.items():
        with pytest.raises(ConfigError, match=reason):
            read_known_lenses(str(tmp_path / name))


def test_the_fate_of_a_lens_is_that_of_its_best_ranked_candidate(rng):
    rows = entries_of(candidates([150.0, 150.0, 160.0], [2.0, 2.0 + 1.0 / 3600, 2.0], rng=rng, shard=[0, 0, 0]))
    order = rows["rank"].to_pylist()
    best = min(order[i] for i in range(3) if rows["ra"][i].as_py() < 155)
    other = next(r for r in rows.to_pylist() if r["ra"] < 155 and r["rank"] != best)
    lens = pa.table({"name": ["l"], "ra": [150.0], "dec": [other["dec"]], "grade": ["A"], "reference": [""]})
    found = fates(rows, lens, MOC.from_string("0/0-11"), radius_arcsec=2.0).to_pylist()
    assert [(r["rank"], r["fate"]) for r in found] == [(best, "ranked")]
    assert found[0]["separation_arcsec"] == pytest.approx(1.0, rel=1e-6)


def test_candidates_without_a_lens_near_have_nulls(rng):
    rows = entries_of(candidates([2.83435, 200.0], [-8.7643, 80.0], rng=rng))
    rows = with_known_lenses(rows, read_known_lenses("lenscat"), radius_arcsec=1.0).sort_by("ra")
    assert rows["known_lens"].to_pylist() == ["J0011-0845", None]
    assert rows["known_lens_separation_arcsec"].to_pylist()[1] is None


def test_the_known_candidate_of_the_cfhtls_tile_is_found_in_real_pixels(real_data, tmp_path):
    scan(real_data / "tiles" / "cfhtls", tmp_path / "run", survey="cfhtls")
    lenses = read_known_lenses("lenscat")
    record = write_catalog(
        open_run_folder(tmp_path / "run"),
        tmp_path / "cat",
        radius_arcsec=1.0,
        acronym="LPC",
        matching=Matching(source="lenscat", lenses=lenses, radius_arcsec=2.0),
    )
    assert record["known_lenses"]["recall"]["recall"] == 1.0
    row = next(r for r in pq.read_table(tmp_path / "cat" / "known_lenses.parquet").to_pylist())
    assert row["name"] == "SL2SJ142209+524652"
    assert row["separation_arcsec"] < 1.5


def test_every_known_row_in_the_abell_370_image_has_a_fate(real_data, tmp_path):
    from lenspipe.scan.after.known import examine_absent

    scan(real_data / "tiles" / "cfht_a370", tmp_path / "run", zero_point_ab=30.0)
    run = open_run_folder(tmp_path / "run")
    matching = Matching(source="lenscat", lenses=read_known_lenses("lenscat"), radius_arcsec=2.0)
    record = write_catalog(run, tmp_path / "cat", radius_arcsec=1.0, acronym="LPC", matching=matching)
    found = examine_absent(run, tmp_path / "cat", record)["known_lenses"]["recall"]
    assert found["inside"] == 7
    assert sum(found["fates"].values()) == 7
    assert "not a candidate" not in found["fates"]


def test_rows_near_a_contaminant_are_flagged_with_its_name_kind_and_source(tmp_path):
    write_overlapping_tiles(tmp_path / "tiles")
    scan(tmp_path / "tiles", tmp_path / "run")
    found = pq.read_table(tmp_path / "run" / "candidates.parquet").slice(0, 1).to_pylist()[0]
    file = tmp_path / "contaminants.csv"
    at = f"{found['ra']:.7f},{found['dec'] + 1.2 / 3600:.7f}"
    file.write_text(f"name,ra,dec,contaminant_type,paper\nQ1,{at},PROJECTED QUASARS,1974ApJ\nfar,90.0,80.0,STAR,x\n")

    def catalog(out, *more):
        ask = ["catalog", tmp_path / "run", "--out", tmp_path / out, "--contaminants", file, *more]
        return CliRunner().invoke(group, list(map(str, ask)), standalone_mode=False)

    for out, more in (("both", []), ("alone", ["--match", "none"])):
        done = catalog(out, *more)
        assert done.return_value == 0, done.output
        assert "rows are near one" in done.output
        rows = pq.read_table(tmp_path / out / "candidates.parquet").to_pylist()
        flagged = [row for row in rows if row["contaminant"]]
        assert [row["contaminant"] for row in flagged] == ["Q1"] * len(flagged)
        row = min(flagged, key=lambda one: one["contaminant_separation_arcsec"])
        assert (row["contaminant_kind"], row["contaminant_reference"]) == ("PROJECTED QUASARS", "1974ApJ")
        assert row["contaminant_separation_arcsec"] == pytest.approx(1.2, abs=0.05)
        assert all(row["contaminant_separation_arcsec"] is None for row in rows if not row["contaminant"])
    assert "the run is in the catalogue already" in str(catalog("both", "--append").exception)
    plain = ["catalog", tmp_path / "run", "--out", tmp_path / "plain"]
    assert CliRunner().invoke(group, list(map(str, plain)), standalone_mode=False).return_value == 0
    assert "contaminant" not in pq.read_schema(tmp_path / "plain" / "candidates.parquet").names
