"""Parts of a simulated data set: independent, written whole, and named by the rows that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lenspipe.simulate.hosts import HostStamps, read_hosts, read_source_images
from lenspipe.simulate.on_hosts import demand_hosts
from lenspipe.simulate.population import SourceImage
from lenspipe.simulate.recipe import Recipe
from lenspipe.simulate.rows import simulate_rows
from lenspipe.stamps.format import write_part
from lenspipe.stamps.splits import Half
from lenspipe.tables import read_footer


@dataclass(frozen=True)
class Part:
    """Rows ``start`` to ``stop`` of a run, one Parquet file."""

    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of the file without suffix: the same whatever else is in the run."""
        return f"part-{self.start:09d}"

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class PartTask:
    """What a worker needs to make any part of a run; real pixels are read once a process."""

    recipe: Recipe
    seed: int
    folder: str
    source_folder: str | None = None
    host_folder: str | None = None
    source_half: Half | None = None
    host_half: Half | None = None

    def make(self, part: Part) -> int:
        """Simulate one part and write it; returns its rows."""
        sources, hosts = real_pixels(self)
        rows = simulate_rows(
            self.recipe, seed=self.seed, items=range(part.start, part.stop), source_images=sources, hosts=hosts
        )
        write_part(rows, self.folder, part.name)
        return len(part)


_READ: dict[tuple[str | None, ...], tuple[Sequence[SourceImage], HostStamps | None]] = {}


def real_pixels(task: PartTask) -> tuple[Sequence[SourceImage], HostStamps | None]:
    """
    Real sources and hosts of a task; read at the first call of a process.

    Raises
    ------
    ConfigError
        A folder holds none that the recipe can use.
    """
    key = (task.source_folder, task.source_half, task.host_folder, task.host_half, task.recipe.model_dump_json())
    if key not in _READ:
        _READ.clear()
        sources = read_source_images(task.source_folder, half=task.source_half) if task.source_folder else ()
        hosts = read_hosts(task.host_folder, task.recipe, half=task.host_half) if task.host_folder else None
        if hosts is not None:
            demand_hosts(task.recipe, hosts)
        _READ[key] = sources, hosts
    return _READ[key]


def plan_parts(count: int, part_rows: int) -> list[Part]:
    """Parts of a run; they begin at multiples of ``part_rows`` whatever the count is."""
    return [Part(start, min(start + part_rows, count)) for start in range(0, count, part_rows)]


def rows_there(folder: Path, part: Part) -> int:
    """Rows of the part that a folder holds already."""
    path = folder / f"{part.name}.parquet"
    return int(read_footer(path).num_rows) if path.exists() else 0
