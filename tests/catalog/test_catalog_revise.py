"""Runs replaced and removed, rows removed, versions gone back to: each equals a catalogue written anew."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from catalog_runs import scan, write_overlapping_tiles
from click.testing import CliRunner

from lenspipe.catalog.read import runs_of_candidate
from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.catalog.versions import keep_version
from lenspipe.catalog.write import read_tree
from lenspipe.cli import group
from lenspipe.disk import locked_beside
from lenspipe.errors import ConfigError
from lenspipe.store.place import place_at


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
    there = rows["candidate_id"][7].as_py()
    (tmp_path / "other.csv").write_text(f"candidate_id,run_id\n{there},none\n")
    with pytest.raises(ConfigError, match=f"no such row.*none {there}"):
        catalog(made, cat, "--remove-rows", tmp_path / "other.csv")


def test_a_change_waits_for_no_other_writer_and_needs_the_runs_that_stay(made, pair, tmp_path):
    cat = copy_of(made, "ab", tmp_path)
    before = read_tree(cat / "hats")
    (made / "a").rename(made / "moved")
    try:
        with pytest.raises(ConfigError, match=r"one of them cannot be taken: no such folder"):
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


def edited(cat, change):
    record = json.loads((cat / "provenance.json").read_text())
    change(record)
    (cat / "provenance.json").write_text(json.dumps(record))
    return record


def test_removed_rows_stay_away_where_their_run_is_replaced_and_come_back_with_it(made, tmp_path):
    cat = written(made, tmp_path / "cat", "a")
    ids = {run: set(pq.read_table(made / run / "candidates.parquet")["candidate_id"].to_pylist()) for run in "ac"}
    before = set(read_tree(cat / "hats")["candidate_id"].to_pylist())
    both, faint = sorted(before & ids["c"])[0], sorted(before - ids["c"])[0]
    (tmp_path / "gone.csv").write_text(f"candidate_id\n{both}\n{faint}\n")
    catalog(made, cat, "--remove-rows", tmp_path / "gone.csv")
    for run, of, away in (("c", "a", {both}), ("a", "c", {both, faint})):
        catalog(made, cat, made / run, "--update", "--of", open_run_folder(made / of).run_id)
        removed = pq.read_table(cat / "removed.parquet").to_pylist()
        assert {row["candidate_id"] for row in removed} == {both, faint}
        assert {row["run_id"] for row in removed} == {open_run_folder(made / run).run_id}
        assert {row["candidate_id"] for row in removed if row["n_detection"]} == away
        assert json.loads((cat / "provenance.json").read_text())["removed"]["rows"] == len(away)
        assert not set(read_tree(cat / "hats")["candidate_id"].to_pylist()) & away
    assert set(read_tree(cat / "hats")["candidate_id"].to_pylist()) == before - {both, faint}


def test_an_update_takes_other_resumed_runs_as_they_are_now_and_keeps_the_identifier_and_a_readme(made, pair, tmp_path):
    cat, url = copy_of(made, "ab", tmp_path), "memory://revised/b"
    with place_at(url, writes=True) as folder:
        shutil.copytree(made / "b", folder)

    def as_before_a_resume(record):
        del record["catalogue_id"]  # as an older version wrote it
        for k, entry in enumerate(record["runs"]):
            entry["run_id"] = f"before{k}"
        record["runs"][1]["folder"] = url

    edited(cat, as_before_a_resume)
    (cat / "README.md").write_text("Notes of somebody.")
    assert f"Note: {url} was resumed since" in catalog(made, cat, made / "a", "--update")
    record = json.loads((cat / "provenance.json").read_text())
    assert [r["run_id"] for r in record["runs"]] == [open_run_folder(made / name).run_id for name in "ab"]
    assert record["catalogue_id"] == "before0" and record["runs"][1]["folder"] == url
    assert (cat / "README.md").read_text() == "Notes of somebody."
    same(cat, pair)
    edited(cat, lambda record: record["runs"][0].update(folder=url))  # whichever run a row is from
    row = read_tree(cat / "hats")["candidate_id"][0].as_py()
    words = ["explain", row, "--run", str(cat), "--json"]
    result = CliRunner().invoke(group, words, standalone_mode=False, catch_exceptions=False)
    assert json.loads(result.output)["candidate_id"] == row
    catalog(made, cat, "--back", "2")
    assert json.loads((cat / "provenance.json").read_text())["catalogue_id"] == "before0"
    assert (cat / "README.md").read_text() == "Notes of somebody."


def test_an_update_by_a_run_of_another_model_is_refused_unless_that_is_wanted(made, pair, tmp_path):
    cat = copy_of(made, "ab", tmp_path)
    edited(cat, lambda record: record["runs"][1].update(model={"digest": "of another"}, folder="/none"))
    edited(cat, lambda record: record["runs"][0].update(model={"digest": "of another"}))
    words = [made / "c", "--update", "--of", open_run_folder(made / "a").run_id]
    with pytest.raises(ConfigError, match="scored by another model"):
        catalog(made, cat, *words)
    with pytest.raises(ConfigError, match="cannot be taken"):
        catalog(made, cat, *words, "--allow-other-model")


def test_a_catalogue_in_a_store_keeps_no_versions_and_those_brought_there_are_not_taken(made, pair, tmp_path):
    assert (pair / "versions" / "1").is_dir()
    url = "memory://revised/ab"
    with place_at(url, writes=True) as folder:
        shutil.copytree(pair, folder)
    with place_at(url, writes=False) as folder:
        assert (folder / "provenance.json").exists() and not (folder / "versions").exists()
        keep_version(folder, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="keeps no versions"):
        CliRunner().invoke(group, ["catalog", "--out", url, "--back", "1"], standalone_mode=False,
                           catch_exceptions=False)  # fmt: skip


def test_the_example_of_the_readme_runs_in_the_folder_above(pair, monkeypatch):
    opened = []
    lsdb = SimpleNamespace(open_catalog=lambda name: opened.append((Path(name) / "collection.properties").read_text()))
    monkeypatch.setitem(sys.modules, "lsdb", lsdb)
    monkeypatch.chdir(pair.parent)
    names = {}
    exec((pair / "README.md").read_text().split("```python\n")[1].split("```")[0], names)
    assert opened and len(names["table"]) == read_tree(pair / "hats").num_rows
