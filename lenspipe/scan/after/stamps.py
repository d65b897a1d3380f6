"""All candidates of a run as a data set of stamps, cut by the run's own settings: what a training learns from."""

from __future__ import annotations

import os
from pathlib import Path

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.runner import SILENT, Progress
from lenspipe.scan.after.context import context_of
from lenspipe.scan.after.cut import locate_rows, rows_of_run
from lenspipe.sky.healpix import cells_of
from lenspipe.stamps.cut.parts import CutTask
from lenspipe.stamps.cut.pixels import Cells, SkyMesh
from lenspipe.stamps.cut.run import cut_stamps, labelled
from lenspipe.stamps.spec import ImageSpec
from lenspipe.stamps.splits import splits_by_key

STAMPS = "stamps"
"""Folder of a run that has them, a folder per side of a stamp."""
ORDER = 14
"""HEALPix order of the cells, 13" wide, of which each is of one split: a run may be one small tile."""


def is_run(folder: str | Path) -> bool:
    """Whether a folder is one of a scan that has come to an end."""
    return all((Path(folder) / name).is_file() for name in ("run.json", "candidates.parquet"))


def stamps_of_run(folder: Path, *, size_px: int, progress: Progress = SILENT) -> Path:
    """
    Stamps of all candidates of a run, in its own folder; cut once, and finished where that was cut off.

    All bands, the sky subtracted as by the scan, without labels. Cells of the sky of 13" are to train, validate and
    test, 80, 10 and 10 % of them; stamps at their edges overlap, so a finder's labels want `lenspipe stamps cut`.

    Parameters
    ----------
    folder : Path
    size_px : int
        Side of a stamp.
    progress : Progress

    Returns
    -------
    Path
        Folder of the data set.

    Raises
    ------
    ConfigError
        The run has not ended.
    DataError
        Not one stamp could be cut: the tiles are no longer there.
    """
    run = open_run_folder(folder)
    context = context_of(run)
    config, mesh = context.config, context.config.background
    rows = rows_of_run(run)
    places = rows["ra_deg"].to_numpy(), rows["dec_deg"].to_numpy()
    cells = [f"hpx{ORDER}/{cell}" for cell in cells_of(*places, ORDER)]
    rows = labelled(rows, lambda _: list(splits_by_key(cells, seed=0)))
    located = locate_rows(run, rows, size_px=size_px)
    out = folder / STAMPS / f"{size_px}px"
    task = CutTask(
        context.layout,
        ImageSpec(run.bands, size_px, located.pixel_scale_arcsec),
        SkyMesh(mesh.mesh_px, mesh.filter_mesh),
        Cells(config.shard.core_px, config.shard.halo_px, mesh.mesh_px),
        config.zero_point_ab,
        "parquet",
        (),
        os.path.abspath(out),
    )
    request = {"run": run.run_id, "size_px": size_px}
    cut_stamps(located, task, out, request, resume=out.exists(), progress=progress)
    return out
