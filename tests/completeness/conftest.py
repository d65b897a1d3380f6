"""One small survey with lenses painted into it, for all tests of completeness."""

from __future__ import annotations

from pathlib import Path

import pytest
from painted_survey import CONFIG, Watching, make_tile, paint, scan_tiles
from pictures import drawn

from lenspipe.catalog.run_rows import Run
from lenspipe.completeness.finish import Outcome
from lenspipe.completeness.measure import measure_completeness
from lenspipe.completeness.run import Painted
from lenspipe.runner import SILENT, here
from lenspipe.scan.local import scan_local


@pytest.fixture(scope="session")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survey") / "tiles"
    make_tile(folder)
    return folder


@pytest.fixture(scope="session")
def run(tiles: Path) -> Run:
    return scan_tiles(tiles, tiles.parent / "run")


@pytest.fixture(scope="session")
def watching() -> Watching:
    return Watching()


@pytest.fixture(scope="session")
def painted(run: Run, tiny_model: Path, tiles: Path, watching: Watching) -> Painted:
    return paint(run, tiny_model, tiles.parent / "sel", watching=watching)


@pytest.fixture(scope="session")
def outcome(run: Run, painted: Painted, tiny_model: Path) -> Outcome:
    """The selection function of the same lenses, which are not painted again."""
    with drawn():
        return measure_completeness(
            run,
            str(tiny_model),
            painted.folder,
            CONFIG,
            seed=7,
            real=None,
            runner=here(scan_local),
            progress=SILENT,
            resume=True,
        )
