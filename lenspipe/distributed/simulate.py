"""Simulate a data set by Ray Data: parts are independent, written whole, and named by the rows they hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe.errors import ConfigError
from lenspipe.image.contact import colour_stamps, contact_sheet, write_png
from lenspipe.rundir import open_run, utc_now, versions, write_json
from lenspipe.simulate.hosts import HostStamps, read_hosts, read_source_images
from lenspipe.simulate.image_negatives import IMAGE_NEGATIVES
from lenspipe.simulate.population import SourceImage
from lenspipe.simulate.recipe import Recipe
from lenspipe.simulate.rows import simulate_rows
from lenspipe.stamps.format import StampSet, write_part
from lenspipe.stamps.splits import Half

CONTACT_SHEET = "contact_sheet.png"


@dataclass(frozen=True)
class Part:
    """Rows ``start`` to ``stop`` of a run, one Parquet file."""

    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of the file without suffix: the same whatever else is in the run."""
        return f"part-{self.start:09d}"


@dataclass(frozen=True)
class PartTask:
    """What a worker needs to make any part of a run; real pixels are read once a process."""

    recipe: Recipe
    seed: int
    folder: str
    source_folder: str | None = None
    host_folder: str | None = None
    source_half: Half | None = None

    def make(self, part: Part) -> dict[str, Any]:
        """Simulate one part and write it; returns its name, rows and seconds."""
        begun = time.perf_counter()
        sources, hosts = _real_pixels(self)
        rows = simulate_rows(
            self.recipe, seed=self.seed, items=range(part.start, part.stop), source_images=sources, hosts=hosts
        )
        write_part(rows, self.folder, part.name)
        return {"part": part.name, "rows": part.stop - part.start, "seconds": time.perf_counter() - begun}


_READ: dict[tuple[str | None, Half | None, str | None, str], tuple[Sequence[SourceImage], HostStamps | None]] = {}


def _real_pixels(task: PartTask) -> tuple[Sequence[SourceImage], HostStamps | None]:
    key = (task.source_folder, task.source_half, task.host_folder, task.recipe.model_dump_json())
    if key not in _READ:
        _READ.clear()
        sources = read_source_images(task.source_folder, half=task.source_half) if task.source_folder else ()
        _READ[key] = sources, read_hosts(task.host_folder, task.recipe) if task.host_folder else None
    return _READ[key]


def simulate(
    recipe: Recipe,
    *,
    count: int,
    seed: int,
    out: Path,
    runner: Literal["ray", "local"] = "ray",
    n_worker: int | None = None,
    source_folder: Path | None = None,
    source_half: Half | None = None,
    host_folder: Path | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """
    Simulate ``count`` stamps into a folder of Parquet parts, with a contact sheet beside them.

    The rows depend on recipe, seed and real pixels, not on workers, parts or what was there before. With ``resume`` the
    parts that are there stay; ``count`` may have grown since.

    Parameters
    ----------
    recipe : Recipe
    count, seed : int
    out : path
        New or empty folder, or a run to go on with.
    runner : "ray" or "local"
        Ray Data, or a plain loop in this process.
    n_worker : int, optional
        Tasks at the same time; all CPUs by default.
    source_folder, host_folder : path, optional
        Real galaxies: FITS images to be lensed; a data set of stamps to paint arcs on.
    source_half : "even" or "odd", optional
        Only this half of the FITS images; the others stay unseen.
    resume : bool
        Go on with a run that was cut off, or make it longer.
    progress : callable
        Called with rows done and rows in all after every part.

    Returns
    -------
    dict
        ``rows``, ``new_rows``, ``parts``, ``seconds``, ``folder``.

    Raises
    ------
    ConfigError
        The folder holds something else, count or seed is out of range, or images are needed and none are given.
    """
    if count < 1 or not 0 <= seed < 2**63:
        raise ConfigError("count must be at least 1, and the seed between 0 and 2^63 - 1", count=count, seed=seed)
    made_of_images = [name for name in IMAGE_NEGATIVES if recipe.classes.get(name, 0) > 0]
    if source_folder is None and (made_of_images or source_half is not None):
        raise ConfigError(
            "classes made of real galaxies, and half of these, need a folder: give --source-images",
            classes=",".join(made_of_images) or None,
            half=source_half,
        )
    task = PartTask(
        recipe,
        seed,
        str(out.resolve()),
        None if source_folder is None else str(source_folder.resolve()),
        None if host_folder is None else str(host_folder.resolve()),
        source_half,
    )
    _real_pixels(task)  # a wrong folder is refused before any work
    request = {
        "command": "simulate",
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "source_images": task.source_folder,
        "source_half": source_half,
        "hosts": task.host_folder,
    }
    begun = time.perf_counter()
    with open_run(out, request, resume=resume, command="--out"):
        todo = [part for part in plan_parts(count, recipe.part_rows) if _rows_there(out, part) < part.stop - part.start]
        new = sum(part.stop - part.start for part in todo)
        done = count - new
        progress(done, count)
        for made in _run_ray(task, todo, n_worker) if runner == "ray" else map(task.make, todo):
            done += int(made["rows"])
            progress(done, count)
        write_contact_sheet(out)
        result = {
            "rows": StampSet.open(out).n,
            "new_rows": new,
            "parts": len(list(out.glob("*.parquet"))),
            "seconds": round(time.perf_counter() - begun, 2),
            "folder": str(out),
        }
        write_json(out / "simulate.json", result | {"finished": utc_now(), "versions": versions()})
    return result


def plan_parts(count: int, part_rows: int) -> list[Part]:
    """Parts of a run; they begin at multiples of ``part_rows`` whatever the count is."""
    return [Part(start, min(start + part_rows, count)) for start in range(0, count, part_rows)]


def _rows_there(folder: Path, part: Part) -> int:
    path = folder / f"{part.name}.parquet"
    return int(pq.read_metadata(path).num_rows) if path.exists() else 0


def _run_ray(task: PartTask, todo: Sequence[Part], n_worker: int | None) -> Iterator[dict[str, Any]]:
    if not todo:
        return
    from lenspipe.distributed.session import ray_session

    with ray_session(n_worker=n_worker) as n_cpu:
        import ray

        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = False
        with ray.data.DataContext.current(context):
            parts = ray.data.from_items(
                [{"start": part.start, "stop": part.stop} for part in todo], override_num_blocks=len(todo)
            )
            n_maker = min(n_cpu, len(todo))
            made = parts.map_batches(
                PartMaker,
                fn_constructor_args=(task,),
                batch_format="pyarrow",
                batch_size=1,
                # a part always waits at each worker: the driver looks for ended ones ten times a second only
                compute=ray.data.ActorPoolStrategy(
                    min_size=1, max_size=n_maker, initial_size=n_maker, max_tasks_in_flight_per_actor=2
                ),
            )
            yield from made.iter_rows()


class PartMaker:
    """A worker of Ray Data: makes the parts that it is sent, one a row."""

    def __init__(self, task: PartTask) -> None:
        self._task = task

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Make the parts ``start`` to ``stop``; returns what `PartTask.make` says of each."""
        return pa.Table.from_pylist([self._task.make(Part(row["start"], row["stop"])) for row in batch.to_pylist()])


def write_contact_sheet(folder: Path, *, n_each: int = 12, n_column: int = 12) -> Path:
    """Write ``contact_sheet.png``: a row or more of stamps of every class, from the first rows of the data set."""
    data = StampSet.open(folder)
    column = "kind" if "kind" in data.schema.names else "label"
    kinds = data.column(column)[:5000]
    names = sorted(set(kinds), key=lambda kind: (kind != "lens", kind))
    chosen = [np.flatnonzero(kinds == name)[: 2 * n_each if name == "lens" else n_each] for name in names]
    rows = []
    image = next(iter(data.images))
    spec = data.images[image]
    blank = np.zeros((n_column, *spec.shape), np.float32)
    for indices in chosen:
        pixels = data.read_images(image, indices)
        pad = -len(pixels) % n_column
        rows.append(np.concatenate([pixels, blank[:pad]]))
    path = folder / CONTACT_SHEET
    write_png(path, contact_sheet(colour_stamps(np.concatenate(rows)), n_column=n_column))
    return path
