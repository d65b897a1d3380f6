"""The README of an output folder names every file in it, and leaves a stranger's alone."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from catalog.catalog_runs import scan
from sky import write_tile

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.catalog.write import write_catalog
from lenspipe.readme import FILES, README, write_readme
from lenspipe.scan.run import OWN
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate


def named(folder: Path) -> set[str]:
    """What the table of a README names, patterns as they are."""
    cells = re.findall(r"^\| `([^`]+)` \|", (folder / README).read_text(), re.MULTILINE)
    return {name.strip().rstrip("/") for cell in cells for name in cell.split(",")}


def unnamed(folder: Path) -> set[str]:
    there = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {README}
    return {name for name in there if not any(fnmatch(name, pattern) for pattern in named(folder))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    write_tile(folder / "tiles", "a", shape=(120, 120), n_source=6)
    scan(folder / "tiles", folder / "run")
    return folder / "run"


def test_a_runs_readme_names_all_that_is_there_and_all_that_a_run_owns(run):
    assert unnamed(run) == set()
    assert set(OWN) <= named(run)


def test_a_catalogues_readme_names_its_files_and_columns_and_counts_its_rows(run, tmp_path):
    record = write_catalog(open_run_folder(run), tmp_path / "cat", radius_arcsec=1.0, acronym="LPC", matching=None)
    assert unnamed(tmp_path / "cat") == set()
    text = (tmp_path / "cat" / README).read_text()
    assert f"{record['counts']['rows']} rows" in text
    assert "| `half_light_radius_arcsec` | float | arcsec | Radius that holds half of the Kron flux" in text


def test_stamps_have_a_readme_and_it_is_the_same_every_time(tmp_path):
    recipe = read_recipe("ground-gri")
    for name in ("one", "two"):
        simulate(recipe, count=2, seed=1, out=tmp_path / name)
    assert unnamed(tmp_path / "one") == set()
    assert (tmp_path / "one" / README).read_bytes() == (tmp_path / "two" / README).read_bytes()


def test_a_strangers_readme_stays_and_an_older_one_of_ours_is_written_anew(tmp_path):
    (tmp_path / README).write_text("my notes")
    write_readme(tmp_path, "scan")
    assert (tmp_path / README).read_text() == "my notes"
    (tmp_path / README).unlink()
    write_readme(tmp_path, "model")
    write_readme(tmp_path, "scan")
    assert "candidates.parquet" in (tmp_path / README).read_text()


@pytest.mark.parametrize("kind", sorted(FILES))
def test_a_name_stands_once_in_the_list_of_a_kind(kind):
    cells = [name for name, _ in FILES[kind]]
    assert len(cells) == len(set(cells))
