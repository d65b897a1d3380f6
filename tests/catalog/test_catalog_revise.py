"""Runs replaced and removed, rows removed, versions gone back to: each equals a catalogue written anew."""

from __future__ import annotations

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest
from catalog_runs import scan, write_overlapping_tiles
from click.testing import CliRunner

from lenspipe.catalog.read import runs_of_candidate
from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.catalog.write import read_tree
from lenspipe.cli import group
from lenspipe.disk import locked_beside
from lenspipe.errors import ConfigError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs of the same sky: two that see the same objects, and one of brighter ones."""
    folder = tmp_path_factory.mktemp("revised")
    write_overlapping_tiles(folder / "tiles")
    scan(folder / "tiles", folder / "a")
    scan(folder / "tiles", folder / "b", detect={"threshold_sigma": 3.0})
    scan(folder / "tiles", folder / "c", select={"mag_max": 21.5})
    rows = pq.read_table(folder / "a" / "candidates.parquet", columns=["ra", "dec"]).slice(0, 4).to_pylist()
    with (folder / "known.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["name", "ra", "dec"])
        writer.writeheader()
        writer.writerows({"name": f"L{k}", **row} for k, row in enumerate(rows))
    return folder


def catalog(made, out, *words):
    words = [str(w) for w in (*words, "--out", out, "--match", made / "known.csv")]
    result = CliRunner().invoke(group, ["catalog", *words], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


def written(made, out, *runs):
    for k, run in enumerate(runs):
        catalog(made, out, made / run, *(["--append"] if k else []))
    return out


def same(one, two):
    """Rows of the tree and of the flat table, fates, and counts."""
    assert read_tree(one / "hats").equals(read_tree(two / "hats"))
    for name in ("candidates.parquet", "known_lenses.parquet", "shards.parquet", "tiles.parquet"):
        assert pq.read_table(one / name).equals(pq.read_table(two / name)), name
    a, b = (json.loads((folder / "provenance.json").read_text()) for folder in (one, two))
    assert a["counts"] == b["counts"] and a["known_lenses"] == b["known_lenses"]
    assert [r["counts"] for r in a["runs"]] == [r["counts"] for r in b["runs"]]


@pytest.fixture(scope="module")
def pair(made):
    return written(made, made / "ab", "a", "b")


def copy_of(made, name, out):
    return shutil.copytree(made / name, out / name)


def test_a_catalogue_without_a_run_is_what_it_would_have_been(made, pair, tmp_path):
    cat = copy_of(made, "ab", tmp_path)
    run_id = open_run_folder(made / "a").run_id
    catalog(made, cat, run_id, "--remove")
    (tmp_path / "anew").mkdir()
    same(cat, written(made, tmp_path / "anew" / "ab", "b"))
    with pytest.raises(ConfigError, match="no such run"):
        catalog(made, cat, made / "a", "--remove")
    with pytest.raises(ConfigError, match="nothing would be left"):
        catalog(made, cat, made / "b", "--remove")


def test_a_run_takes_the_place_of_another_and_the_change_is_taken_back(made, pair, tmp_path):
    cat = copy_of(made, "ab", tmp_path)
    before = read_tree(cat / "hats"), pq.read_table(cat / "candidates.parquet")
    catalog(made, cat, made / "c", "--update", "--of", open_run_folder(made / "a").run_id)
    (tmp_path / "anew").mkdir()
    same(cat, written(made, tmp_path / "anew" / "ab", "c", "b"))
    assert not read_tree(cat / "hats").equals(before[0])
    said = catalog(made, cat, "--versions").split("\n")
    assert [line.split()[0] for line in said if line.strip()[:1].isdigit()] == ["1", "2"]
    catalog(made, cat, "--back", "2")
    same(cat, pair)
    assert (read_tree(cat / "hats"), pq.read_table(cat / "candidates.parquet")) == before
    catalog(made, cat, "--back", "1")
    assert read_tree(cat / "hats")["run_id"].unique().to_pylist() == [open_run_folder(made / "a").run_id]
    with pytest.raises(ConfigError, match=r"no such version.*versions='1 2 3 4'"):
        catalog(made, cat, "--back", "9")


def test_the_same_run_again_changes_nothing_and_another_needs_the_name_of_what_it_replaces(made, pair, tmp_path):
    cat = copy_of(made, "ab", tmp_path)
    before = (cat / "provenance.json").read_bytes()
    catalog(made, cat, made / "a", "--update")
    assert (cat / "provenance.json").read_bytes() == before
    with pytest.raises(ConfigError, match="--of"):
        catalog(made, cat, made / "c", "--update")


def test_removed_rows_stay_away_through_appends_and_updates_and_counts_add_up(made, pair, tmp_path):
    cat = copy_of(made, "ab", tmp_path)
    rows = read_tree(cat / "hats")
    lens = pq.read_table(cat / "known_lenses.parquet").to_pylist()[0]
    gone = [{"candidate_id": lens["candidate_id"], "run_id": lens["run_id"]}]
    gone += rows.select(["candidate_id", "run_id"]).slice(5, 1).to_pylist()
    with (tmp_path / "gone.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["candidate_id", "run_id"])
        writer.writeheader()
        writer.writerows(gone)
    catalog(made, cat, "--remove-rows", tmp_path / "gone.csv")

    def keys():
        return set(map(tuple, zip(*read_tree(cat / "hats").select(["candidate_id", "run_id"]).to_pydict().values(),
                                  strict=True)))  # fmt: skip

    away = {(g["candidate_id"], g["run_id"]) for g in gone}
    assert keys() == set(zip(*rows.select(["candidate_id", "run_id"]).to_pydict().values(), strict=True)) - away
    record = json.loads((cat / "provenance.json").read_text())
    assert record["removed"]["rows"] == len(away) and record["counts"]["rows"] == rows.num_rows - len(away)
    fates = {row["name"]: row for row in pq.read_table(cat / "known_lenses.parquet").to_pylist()}
    assert not fates[lens["name"]]["candidate_id"]
    catalog(made, cat, made / "c", "--append")  # its counts are held against the sums
    assert not keys() & away
    catalog(made, cat, made / "c", "--remove")
    assert not keys() & away
    with pytest.raises(ConfigError, match="no such row"):
        catalog(made, cat, "--remove-rows", tmp_path / "gone.csv")


def test_a_change_waits_for_no_other_writer_and_needs_the_runs_that_stay(made, pair, tmp_path):
    cat = copy_of(made, "ab", tmp_path)
    before = read_tree(cat / "hats")
    (made / "a").rename(made / "moved")
    try:
        with pytest.raises(ConfigError, match=r"one of them cannot be taken.*run.json"):
            catalog(made, cat, open_run_folder(made / "b").run_id, "--remove")
    finally:
        (made / "moved").rename(made / "a")
    assert read_tree(cat / "hats").equals(before) and not list(cat.parent.glob(".*"))
    assert runs_of_candidate(cat, before["candidate_id"][0].as_py())


def test_two_changes_at_a_time_are_refused(made, pair, tmp_path):
    cat = copy_of(made, "ab", tmp_path)
    with locked_beside(cat), ThreadPoolExecutor(1) as other:  # which does not hold the lock
        done = other.submit(catalog, made, cat, made / "a", "--remove")
        with pytest.raises(ConfigError, match="another process is working"):
            done.result()
    for words in (["--append", "--remove"], ["--back", "1", "--versions"]):
        with pytest.raises(ConfigError, match="one change at a time"):
            catalog(made, cat, *words)
