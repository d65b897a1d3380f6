"""A scan from Python, and a finished run in hand: its tables, its picture, its candidates explained."""

from __future__ import annotations

import base64
import datetime
import html
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from lenspipe.api.table import astropy_table
from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.errors import ConfigError
from lenspipe.runner import SILENT, Progress, RunnerName, Start, Workers
from lenspipe.scan.after.catalog import catalog_run
from lenspipe.scan.after.sheet import SHEET
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.finalize import CANDIDATES, FAILED, SHARDS
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.run import Runner, run_scan
from lenspipe.survey.layout import SurveyLayout, read_layout
from lenspipe.tables import open_parquet, read_parquet
from lenspipe.toml import put_over

if TYPE_CHECKING:
    from astropy.table import Table

    from lenspipe.scan.after.explain import Explanation

RAY_COPY = "/runtime_resources/working_dir_files/"
TABLES = {"candidates": CANDIDATES, "searched": SHARDS, "failures": FAILED}
SHOWN = ("candidate_id", "ra", "dec", "tile", "score", "probability")


@dataclass(frozen=True)
class Run:
    """
    A finished run.

    Attributes
    ----------
    folder : Path
    record : dict
        ``run.json``: what was asked for, versions, counts, zero-points, notes.
    """

    folder: Path
    record: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open the folder of a run; raises `ConfigError` where there is none, or it has not ended."""
        return cls(Path(folder), open_run_folder(Path(folder)).record)

    @property
    def candidates(self) -> Table:
        """One row per selected source, best first, as an astropy table with units."""
        return astropy_table(self.arrow("candidates"))

    @property
    def searched(self) -> Table:
        """One row per shard: area, depth, masked fraction."""
        return astropy_table(self.arrow("searched"))

    @property
    def failures(self) -> Table:
        """What was not searched, and why."""
        return astropy_table(self.arrow("failures"))

    def arrow(self, table: Literal["candidates", "searched", "failures"] = "candidates") -> pa.Table:
        """A table of the run as Arrow's; ``.to_pandas()`` makes pandas' of it."""
        if table not in TABLES:
            raise ConfigError("a run has no such table", got=table, tables=" ".join(TABLES))
        return read_parquet(self.folder / TABLES[table])

    def best(self, n: int = 10) -> Table:
        """The first ``n`` candidates, without reading the others."""
        with open_parquet(self.folder / CANDIDATES) as file:
            first = [batch.slice(0, n) for batch in itertools.islice(file.iter_batches(n), 1)]
            return astropy_table(pa.Table.from_batches(first, file.schema_arrow))

    @property
    def picture(self) -> Path | None:
        """``best.png``, the best candidates; None where nothing was scored."""
        path = self.folder / SHEET
        return path if path.exists() else None

    def explain(self, candidate_id: str) -> Explanation:
        """Scan and score a candidate again, and compare bit for bit (`lenspipe explain`)."""
        from lenspipe.scan.after.explain import explain

        return explain(open_run_folder(self.folder), candidate_id)

    def __repr__(self) -> str:
        counts = self.record["counts"]
        return f"Run({str(self.folder)!r}: {counts['candidates']} candidates, {counts['failures']} failures)"

    def _repr_html_(self) -> str:
        rows = self.best()
        shown = [name for name in SHOWN if name in rows.colnames]
        said = f"<p>{html.escape(repr(self))}</p>{rows[shown]._repr_html_()}"
        if self.picture is None:
            return said
        data = base64.b64encode(self.picture.read_bytes()).decode()
        return f'{said}<img alt="the best candidates" src="data:image/png;base64,{data}">'


def scan_survey(
    tiles: str | Path | Iterable[str | Path],
    *,
    survey: str | Path | SurveyLayout = "generic",
    out: str | Path | None = None,
    model: str | Path | Sequence[str | Path] = "auto",
    runner: RunnerName = "local",
    workers: int | None = None,
    settings: Mapping[str, Any] | None = None,
    limit: int | None = None,
    resume: bool = False,
    catalog: bool = True,
    progress: Progress = SILENT,
) -> Run:
    """
    Scan tiles into ranked candidates: ``lenspipe scan`` from Python.

    Parameters
    ----------
    tiles : str, path, or several
        FITS files, folders, globs, URLs, or a manifest.
    survey : str or path
        A shipped layout by name, a ``.toml`` file, or a layout.
    out : path, optional
        Folder of the run; a new one under ``runs`` where not given.
    model : str, path, or several
        Name of a shipped finder, folder of one, ``"none"``; several score as a committee.
    runner : {"local", "ray", "auto"}
        The plain loop in this process, Ray, or Ray only where a cluster is named or it saves time.
    workers : int, optional
        CPUs to use with Ray; all where not given.
    settings : mapping, optional
        By dotted key, as of ``lenspipe settings scan``: ``{"select.mag_max": 22.5}``.
    limit : int, optional
        Only the first tiles.
    resume : bool
        Go on with the run in ``out``.
    catalog : bool
        Write ``RUN/catalog`` as the last step.
    progress : Progress, optional
        Is told what goes on.

    Returns
    -------
    Run

    Raises
    ------
    ConfigError
        Before any work: nothing to scan, a setting that does not exist, a model that does not fit.

    Examples
    --------
    A tile with one lens:

    >>> import tempfile
    >>> from astropy.io import fits
    >>> from lenspipe.api import simulate_lens
    >>> lens, folder = simulate_lens(theta_e_arcsec=1.6, size_px=161), Path(tempfile.mkdtemp())
    >>> sky = {"CTYPE1": "RA---TAN", "CRVAL1": 150.0, "CRPIX1": 81.0, "CDELT1": -0.2 / 3600, "BUNIT": "nJy"}
    >>> sky |= {"CTYPE2": "DEC--TAN", "CRVAL2": 2.2, "CRPIX2": 81.0, "CDELT2": 0.2 / 3600}
    >>> for band, plane in zip(lens.bands, lens.pixels_njy, strict=True):
    ...     fits.PrimaryHDU(plane, fits.Header(sky)).writeto(folder / f"field_{band}.fits")
    >>> run = scan_survey(folder, out=folder / "run", catalog=False)
    >>> best = run.best(1)[0]
    >>> round(float(best["ra"]), 3), round(float(best["dec"]), 3), bool(best["score"] > 0.9)
    (150.0, 2.2, True)
    >>> len(run.failures), run.arrow().num_rows == len(run.candidates)
    (0, True)
    """
    named = [str(tiles)] if isinstance(tiles, str | Path) else [str(tile) for tile in tiles]
    if not named:
        raise ConfigError("nothing to scan: give tiles")
    layout = survey if isinstance(survey, SurveyLayout) else read_layout(str(survey))
    models = [str(model)] if isinstance(model, str | Path) else [str(one) for one in model]
    config = put_over(ScanConfig(), {"score.model": model_setting(models), **(settings or {})}, origin="settings")
    folder = run_folder(Path(out) if out is not None else None, layout.name)
    request = ScanRequest(absolute_tiles(named), layout, config, limit)
    run_scan(request, folder, start_of(runner, workers, progress.say), progress, resume=resume)
    if catalog:
        catalog_run(folder)
    return Run.open(folder)


def model_setting(models: Sequence[str]) -> str | tuple[str, ...] | None:
    """One model as it is named, several as a list, None where there is none; folders as absolute paths."""
    named = tuple(map(path_or_name, models))
    return named if len(named) > 1 else named[0] if named else None


def path_or_name(model: str) -> str:
    """A folder as an absolute path, else the name as it is."""
    return os.path.abspath(model) if os.path.isdir(model) else model


def run_folder(out: Path | None, name: str) -> Path:
    """
    Absolute folder of a run, a new one by its survey and the time where none is given.

    Raises
    ------
    ConfigError
        It is a relative one of a submitted job.
    """
    if out is None:
        out = Path("runs") / f"{name}-{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}"
    if not out.is_absolute() and RAY_COPY in f"{os.getcwd()}/":
        raise ConfigError(
            "a submitted job runs in Ray's own copy of the working directory, which is deleted with it; "
            "give --out as an absolute path on a disk that all nodes see",
            out=str(out),
        )
    return Path(os.path.abspath(out))


def absolute_tiles(tiles: Sequence[str]) -> tuple[str, ...]:
    """Tiles with absolute paths; raises `ConfigError` where a submitted job names relative ones."""
    relative = next((t for t in tiles if "://" not in t and not os.path.isabs(os.path.expanduser(t))), None)
    if relative is not None and RAY_COPY in f"{os.getcwd()}/":
        raise ConfigError(
            "a submitted job needs absolute paths or URLs of tiles, the same on all nodes", tiles=relative
        )
    return tuple(t if "://" in t else os.path.abspath(os.path.expanduser(t)) for t in tiles)


def start_of(
    name: RunnerName,
    workers: int | Workers | None,
    say: Callable[[str], None] | None = None,
    *,
    gpus: int | Workers | None = None,
    scorers_per_gpu: int = 1,
) -> Start[Runner]:
    """
    Start of a scan's runner by its name.

    Parameters
    ----------
    name : {"auto", "ray", "local"}
    workers, gpus : int, Workers or None
        Asked for, as ``--workers`` and ``--gpus``.
    say : callable, optional
        Is told which one ``auto`` takes, and why; and what a job asks of a cluster.
    scorers_per_gpu : int

    Raises
    ------
    ConfigError
        The plain loop is asked for GPUs, or to share them.
    """
    if gpus is not None or scorers_per_gpu > 1:
        option = "--scorers-per-gpu" if gpus is None else "--gpus"
        if name == "local":
            raise ConfigError(f"the plain loop asks no cluster for GPUs; leave {option} out, or take --runner ray")
        name = "ray"
    from lenspipe.distributed.choice import started
    from lenspipe.distributed.session import on_ray
    from lenspipe.scan.local import scan_local

    def load(n_worker: int) -> Runner:
        from lenspipe.distributed.scan import Resources, scan_ray

        resources = Resources(
            least_workers=workers.least if isinstance(workers, Workers) else 1,
            gpus=Workers(gpus, gpus) if isinstance(gpus, int) else gpus,
            scorers_per_gpu=scorers_per_gpu,
            grows=isinstance(workers, Workers) or isinstance(gpus, Workers),
        )
        return partial(scan_ray, n_worker=n_worker, resources=resources, say=say or (lambda line: None))

    return started(
        name, scan_local, lambda: on_ray(load, n_worker=workers, commits_to_store=True), workers=workers, say=say
    )
