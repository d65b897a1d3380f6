"""`lenspipe stamps cut`: stamps of rows of a run, or of any positions of a survey."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lenspipe.cli import complete
from lenspipe.cli.options import OUT_FOLDER, Command, assigned, for_survey, set_option, workers_option
from lenspipe.errors import ConfigError
from lenspipe.toml import put_over

if TYPE_CHECKING:
    import pyarrow as pa

    from lenspipe.runner import Progress, Start, Workers
    from lenspipe.stamps.cut.pixels import Cells, SkyMesh
    from lenspipe.stamps.cut.run import CutResult, Located, Runner
    from lenspipe.survey.layout import SurveyLayout

SHOWN = 10


@click.command("cut", cls=Command)
@click.argument("source", nargs=-1, required=True, metavar="RUN|TILES...")
@click.option("--select", default=None, metavar="EXPR", help="Rows of RUN: 'score > 0.9 and mag_i < 21'.")
@click.option(
    "--ids",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Rows of RUN: a candidate_id per line, or a CSV or Parquet with that column (and label, grade, split, host).",
)
@click.option(
    "--survey",
    shell_complete=complete.surveys,
    default=None,
    metavar="NAME|FILE",
    help="Survey layout of TILES. [default: generic]",
)
@click.option(
    "--positions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV, Parquet or FITS table with ra and dec in degrees; size, label, grade, split and the rest are kept.",
)
@click.option("--size", "size_px", type=click.IntRange(min=1), default=None, metavar="PX", help="Side of a stamp.")
@click.option("--bands", default=None, metavar="g,r,i", help="Bands, in this order. [default: all]")
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder of the stamps.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "fits", "npy"]),
    default="parquet",
    show_default=True,
    help="A data set of lenspipe, a FITS file per stamp, or arrays with a CSV beside them.",
)
@click.option(
    "--with",
    "planes",
    type=click.Choice(["invvar", "mask"]),
    multiple=True,
    help="Write inverse variances or masks as well.",
)
@click.option(
    "--sky",
    type=click.Choice(["subtract", "keep"]),
    default="subtract",
    show_default=True,
    help="Subtract the sky as a scan does, or leave the pixels as they are.",
)
@click.option("--label", default=None, metavar="NAME", help="Class of rows without one, such as nonlens.")
@click.option(
    "--split",
    default="train=0.8,validation=0.1,test=0.1",
    show_default=True,
    help="Fractions of the sky for rows without a split, or none.",
)
@click.option(
    "--split-order",
    type=click.IntRange(min=0, max=14),
    default=None,
    help="HEALPix order of the cells of the sky that are dealt to splits whole: 12 (51 arcsec) for a single tile. "
    "[default: 6, 0.9 degrees]",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the splits.")
@click.option(
    "--margin-arcsec",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="Least distance between stamps of different splits.",
)
@click.option("--zero-point-ab", type=float, default=None, help="Zero-point for images that have none.")
@set_option("survey.zero_point.ab=25", settings="survey")
@click.option(
    "--runner", type=click.Choice(["ray", "local"]), default="local", show_default=True, help="Ray, or the plain loop."
)
@workers_option("CPUs to use with Ray")
@click.option("--resume", is_flag=True, help="Finish the stamps in --out.")
def command(
    source: tuple[str, ...],
    select: str | None,
    ids: Path | None,
    survey: str | None,
    positions: Path | None,
    size_px: int | None,
    bands: str | None,
    out: Path,
    form: Any,
    planes: tuple[Any, ...],
    sky: str,
    label: str | None,
    split: str,
    split_order: int | None,
    seed: int,
    margin_arcsec: float,
    zero_point_ab: float | None,
    assignments: tuple[str, ...],
    runner: str,
    workers: int | Workers | None,
    resume: bool,
) -> int:
    """
    Cut stamps of rows of a RUN, or of any positions of TILES, in nJy.

    Positions outside every tile are counted and named in OUT/left_out.csv. Exit code: 0 done, 2 bad request, 3 done
    with positions left out.
    """
    from lenspipe.cli import EXIT_DONE, EXIT_WITH_FAILURES
    from lenspipe.cli.progress import ShownProgress
    from lenspipe.stamps.cut.parts import CutTask
    from lenspipe.stamps.cut.run import cut_stamps, labelled
    from lenspipe.stamps.spec import ImageSpec

    of_run = len(source) == 1 and (Path(source[0]) / "run.json").exists()
    if of_run and (positions or survey):
        raise ConfigError("--positions and --survey are for TILES; of a RUN say --select or --ids", run=source[0])
    if of_run and (assignments or zero_point_ab is not None):
        raise ConfigError(
            "--set and --zero-point-ab are for TILES; a RUN is cut with the zero-point and survey of its scan",
            run=source[0],
            got=" ".join(assignments) or f"--zero-point-ab {zero_point_ab:g}",
        )
    if not of_run and (select or ids or positions is None):
        raise ConfigError("of TILES say --positions; --select and --ids are for the folder of a RUN", tiles=source[0])
    as_stamps = partial(labelled, splits=_splits(split, seed, margin_arcsec, split_order), label=label)
    with ShownProgress("stamp") as progress:
        wanted = tuple(bands.split(",")) if bands else None
        if of_run:
            rows_of = (select, ids, size_px, as_stamps)
            layout, located, chosen, cells, mesh, zero_point_ab = _of_run(Path(source[0]), *rows_of, wanted)
        else:
            assert positions is not None
            layout = put_over(*_layout(survey, assignments), origin="--set survey")
            located, chosen = _of_tiles(source, layout, positions, size_px, as_stamps, wanted, zero_point_ab, progress)
            cells, mesh = _as_a_scan()
        for note in located.notes:
            progress.say(f"Note: {note}")
        side = int(located.tiles[0].rows["size_px"][0].as_py())
        task = CutTask(
            layout,
            ImageSpec(chosen, side, located.pixel_scale_arcsec),
            mesh if sky == "subtract" else None,
            cells,
            zero_point_ab,
            form,
            tuple(dict.fromkeys(planes)),
            os.path.abspath(out),
        )
        request = {
            "source": list(source),
            "survey": layout.name,
            "bands": list(chosen),
            "format": form,
            "planes": list(task.planes),
            "sky": sky,
            "label": label,
            "split": split,
            "seed": seed,
            "margin_arcsec": margin_arcsec,
            **({} if split_order is None else {"split_order": split_order}),
            "select": select,
            "positions": None if positions is None else str(positions),
        }
        result = cut_stamps(
            located, task, out, request, runner=_start(runner, workers), resume=resume, progress=progress
        )
    _print(result, out)
    return EXIT_WITH_FAILURES if result.left_out else EXIT_DONE


def _of_run(
    folder: Path,
    select: str | None,
    ids: Path | None,
    size_px: int | None,
    as_stamps: Callable[[pa.Table], pa.Table],
    wanted: tuple[str, ...] | None,
) -> tuple[SurveyLayout, Located, tuple[str, ...], Cells, SkyMesh, float | None]:
    from lenspipe.catalog.run_rows import open_run_folder
    from lenspipe.scan.after.context import context_of
    from lenspipe.scan.after.cut import locate_rows, rows_of_run

    if select is None and ids is None:
        raise ConfigError("say which rows of the run: --select 'score > 0.9', or --ids FILE", run=str(folder))
    if size_px is None:
        raise ConfigError("say the side of the stamps: --size PX")
    run = open_run_folder(folder)
    context = context_of(run)
    rows = as_stamps(rows_of_run(run, select=select, ids=ids))
    located = locate_rows(run, rows, size_px=size_px)
    chosen = _bands(wanted, run.bands)
    return (context.layout, located, chosen, *_as_a_scan(context.config), context.config.zero_point_ab)


def _of_tiles(
    source: tuple[str, ...],
    layout: SurveyLayout,
    positions: Path,
    size_px: int | None,
    as_stamps: Callable[[pa.Table], pa.Table],
    wanted: tuple[str, ...] | None,
    zero_point_ab: float | None,
    progress: Progress,
) -> tuple[Located, tuple[str, ...]]:
    from lenspipe.stamps.cut.positions import read_positions
    from lenspipe.stamps.cut.run import locate, with_bands
    from lenspipe.survey.request import requested_tiles
    from lenspipe.survey.tile import bands_of

    tiles = requested_tiles(source, layout)
    chosen = _bands(wanted, bands_of(tiles, layout))
    tiles = [with_bands(tile, chosen) for tile in tiles]
    rows = as_stamps(read_positions(positions))
    located = locate(tiles, layout, rows, size_px=size_px, zero_point_ab=zero_point_ab, progress=progress)
    return located, chosen


def _bands(wanted: tuple[str, ...] | None, found: tuple[str, ...]) -> tuple[str, ...]:
    if missing := [band for band in wanted or () if band not in found]:
        raise ConfigError("no tile has this band", band=missing[0], bands=" ".join(found))
    return wanted or found


def _layout(survey: str | None, assignments: tuple[str, ...]) -> tuple[SurveyLayout, dict[str, Any]]:
    from lenspipe.survey.layout import read_layout

    others, of_survey = for_survey(assignments)
    if others:
        raise ConfigError("--set is about the survey's layout here: --set survey.KEY=VALUE", got=others[0])
    return read_layout(survey or "generic"), assigned(of_survey)


def _as_a_scan(config: Any = None) -> tuple[Cells, SkyMesh]:
    """Windows and sky of a scan's settings, the default ones where there is no run."""
    from lenspipe.scan.config import ScanConfig
    from lenspipe.stamps.cut.pixels import Cells, SkyMesh

    config = config or ScanConfig()
    mesh = config.background
    return (Cells(config.shard.core_px, config.shard.halo_px, mesh.mesh_px), SkyMesh(mesh.mesh_px, mesh.filter_mesh))


def _splits(
    text: str, seed: int, margin_arcsec: float, order: int | None
) -> Callable[[pa.Table], Sequence[str | None]] | None:
    if text == "none":
        return None
    from lenspipe.cli.stamps import fractions_of

    fractions = fractions_of(text)

    def splits(rows: pa.Table) -> Sequence[str | None]:
        from lenspipe.stamps.splits import SKY_ORDER, splits_by_position

        at = rows["ra_deg"].to_numpy(), rows["dec_deg"].to_numpy()
        cells = SKY_ORDER if order is None else order
        found = splits_by_position(*at, seed=seed, margin_arcsec=margin_arcsec, fractions=fractions, order=cells)
        return list(found)

    return splits


def _start(name: str, workers: int | Workers | None) -> Start[Runner]:
    from lenspipe.stamps.cut.run import PLAIN

    if name == "local":
        return PLAIN
    from lenspipe.distributed.session import on_ray

    return on_ray(_on_ray, n_worker=workers)


def _on_ray(n_worker: int) -> Runner:
    from lenspipe.distributed.cut import cut_ray

    return partial(cut_ray, n_worker=n_worker)


def _print(result: CutResult, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from lenspipe.stamps.cut.run import LEFT_OUT

    console = Console(markup=False, highlight=False)
    console.print(f"{out}: {result.n} stamps ({result.n_new} new, {result.seconds:.1f} s)", soft_wrap=True)
    if not result.left_out:
        return
    table = Table("left out", "why", "for example", title=f"{len(result.left_out)} positions, in {out / LEFT_OUT}")
    for reason, n in result.reasons.most_common(SHOWN):
        table.add_row(str(n), reason, next(name for name, why in result.left_out if why == reason))
    console.print(table)
