"""A little survey of round galaxies, scanned, with lenses painted into it: shared by the tests of completeness."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sky import write_tile

from lenspipe.catalog.run_rows import Run, open_run_folder
from lenspipe.completeness.config import CompletenessConfig
from lenspipe.completeness.run import Painted, Setting, paint_run
from lenspipe.runner import Silent, here
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.local import scan_local
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.run import run_scan
from lenspipe.survey.layout import read_layout

SCAN = ScanConfig.model_validate(
    {"shard": {"core_px": 192, "halo_px": 64}, "score": {"model": "none"}, "background": {"mesh_px": 32}}
)
CONFIG = CompletenessConfig.model_validate(
    {
        "count": 12,
        "per_arcmin2": 5.0,
        "apart_arcsec": 10.0,
        "clear_arcsec": 3.0,
        "theta_e_arcsec": (0.8, 1.6),
        "arc_snr": (10.0, 60.0),
        "hosts": {"mag": (18.0, 24.0), "red_part": 1.0, "radius_min_psf": 0.0},
        "psf_fwhm_arcsec": {"g": 0.8, "r": 0.7, "i": 0.75},
        "njy_per_electron": {"g": 0.5},
        "first": (5,),
        "rates": (0.2,),
        "bootstraps": 20,
    }
)


def scan_tiles(tiles: Path, out: Path, *, model: str = "none", bands: str = "gri") -> Run:
    score = SCAN.score.model_copy(update={"model": model})
    request = ScanRequest((str(tiles),), read_layout("generic"), SCAN.model_copy(update={"score": score}), None)
    run_scan(request, out, here(scan_local), Silent(), resume=False)
    return open_run_folder(out)


@dataclasses.dataclass
class Watching:
    """The plain loop; keeps the contexts that it was given, and can break off after some parts."""

    contexts: list[Any] = dataclasses.field(default_factory=list)
    break_after: int | None = None

    @contextlib.contextmanager
    def __call__(self, plain_s: float | None = None) -> Iterator[Any]:
        def run(tasks: Any, context: Any, parts: Path, **more: Any) -> None:
            self.contexts.append(context)
            scan_local(tasks[: self.break_after], context, parts, **more)
            if self.break_after is not None and self.break_after < len(tasks):
                raise KeyboardInterrupt

        yield run


def paint(run: Run, model: Path, out: Path, *, watching: Any = None, resume: bool = False, **config: Any) -> Painted:
    changed = CONFIG.model_copy(update=config)
    start = watching or here(scan_local)
    setting = Setting.of(run, str(model), changed, 7)
    return paint_run(setting, str(model), out, runner=start, progress=Silent(), resume=resume)


def make_tile(folder: Path, *, bands: str = "gri", n_source: int = 12) -> None:
    write_tile(folder, "a", bands=bands, shape=(220, 320), n_source=n_source)
