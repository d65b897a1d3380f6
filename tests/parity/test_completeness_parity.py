"""Lenses painted with Ray are those of the plain loop."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "completeness"))


@pytest.mark.usefixtures("ray_local")
def test_ray_paints_what_the_plain_loop_paints(tiny_model: Path, tmp_path: Path) -> None:
    from painted_survey import make_tile, paint, scan_tiles

    from lenspipe.distributed.scan import scan_ray
    from lenspipe.runner import here

    make_tile(tmp_path / "tiles")
    run = scan_tiles(tmp_path / "tiles", tmp_path / "run")
    one: Any = paint(run, tiny_model, tmp_path / "local", count=10)
    other: Any = paint(run, tiny_model, tmp_path / "ray", count=10, watching=here(partial(scan_ray, n_worker=2)))
    assert one.injections.equals(other.injections)
    assert (one.scores == other.scores).all()
