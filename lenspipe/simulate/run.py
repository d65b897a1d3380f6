"""One simulated data set from request to folder: make the parts that are not there, draw a contact sheet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from lenspipe.errors import ConfigError
from lenspipe.rundir import REQUEST, open_run, read_json, utc_now, versions, write_json
from lenspipe.runner import SILENT, Progress, Start, here
from lenspipe.simulate.local import simulate_local
from lenspipe.simulate.negatives import NON_LENSES
from lenspipe.simulate.parts import Part, PartTask, plan_parts, real_pixels, rows_there
from lenspipe.simulate.recipe import Recipe
from lenspipe.simulate.rows import schema_of
from lenspipe.simulate.sheet import CONTACT_SHEET, write_contact_sheet
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.splits import Half
from lenspipe.tables import read_footer


class Runner(Protocol):
    """Makes parts and writes them; the plain loop, or Ray."""

    def __call__(self, parts: Sequence[Part], task: PartTask, *, on_part: Callable[[int], None]) -> None:
        """Make ``parts``; ``on_part`` is called here with the rows of each when it is written."""
        ...


PLAIN: Start[Runner] = here(simulate_local)
STAMP_S = 0.01
"""About what a stamp takes (`benchmarks/simulate_speed.py`: 4 ms for a lens of three bands)."""


def simulate(
    recipe: Recipe,
    *,
    count: int,
    seed: int,
    out: Path,
    runner: Start[Runner] = PLAIN,
    source_folder: Path | None = None,
    source_half: Half | None = None,
    host_folder: Path | None = None,
    host_half: Half | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
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
    runner : Start, optional
        What makes the parts; the plain loop by default.
    source_folder, host_folder : path, optional
        Real galaxies: FITS images to be lensed; a data set of stamps to paint arcs on.
    source_half, host_half : "even" or "odd", optional
        Only this half of the FITS images, or of the hosts; the others stay unseen.
    resume : bool
        Go on with a run that was cut off, or make it longer.
    progress : Progress, optional

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
    made_of_images = [name for name, one in NON_LENSES.items() if one.of_images and recipe.classes.get(name, 0) > 0]
    if source_folder is None and (made_of_images or source_half is not None):
        raise ConfigError(
            "classes made of real galaxies, and half of these, need a folder: give --source-images",
            classes=",".join(made_of_images) or None,
            half=source_half,
        )
    if host_half is not None and host_folder is None:
        raise ConfigError("half of the hosts needs hosts: give --hosts", half=host_half)
    task = PartTask(
        recipe,
        seed,
        str(out.resolve()),
        None if source_folder is None else str(source_folder.resolve()),
        None if host_folder is None else str(host_folder.resolve()),
        source_half,
        host_half,
    )
    real_pixels(task)  # a wrong folder is refused before any work
    request = {
        "command": "simulate",
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "source_images": task.source_folder,
        "source_half": source_half,
        "hosts": _place_of(host_folder, out),
    }
    if host_half is not None:
        request["host_half"] = host_half
    begun = time.perf_counter()
    with open_run(
        out,
        request,
        resume=resume,
        command="--out",
        own=("simulate.json", CONTACT_SHEET),
        readme="stamps",
        has_work=lambda: any(out.glob("*.parquet")),
    ):
        todo = [part for part in plan_parts(count, recipe.part_rows) if rows_there(out, part) < len(part)]
        n_new = sum(map(len, todo))
        progress.stage("Simulating", count, count - n_new)
        if todo:
            _demand_own_columns(out, task)
            with runner(n_new * STAMP_S) as run:
                run(todo, task, on_part=progress.advance)
        write_contact_sheet(out)
        result = {
            "rows": StampSet.open(out).n,
            "new_rows": n_new,
            "parts": len(list(out.glob("*.parquet"))),
            "seconds": round(time.perf_counter() - begun, 2),
            "folder": str(out),
        }
        write_json(out / "simulate.json", result | {"finished": utc_now(), "versions": versions()})
    return result


def _demand_own_columns(out: Path, task: PartTask) -> None:
    """Refuse to lengthen stamps whose columns are those of another version."""
    part = next(iter(sorted(out.glob("*.parquet"))), None)
    if part is not None:
        own = set(schema_of(task.recipe, on_hosts=task.host_folder is not None).names)
        there = set(read_footer(part).schema.to_arrow_schema().names)
        if own != there:
            raise ConfigError(
                "another version of lenspipe began these stamps, with other columns: take that version, or another "
                "folder",
                out=str(out),
                without=",".join(sorted(own - there)) or None,
                more=",".join(sorted(there - own)) or None,
            )


def _place_of(hosts: Path | None, out: Path) -> str | None:
    """
    Where hosts lie, as a request says it: from the stamps' own folder where they lie beside it, so that both may move.

    A request that said the whole path, as they all did, says it on.
    """
    if hosts is None:
        return None
    whole = str(hosts.resolve())
    if (out / REQUEST).exists() and read_json(out / REQUEST).get("hosts") == whole:
        return whole
    return os.path.relpath(whole, out.resolve()) if hosts.resolve().parent == out.resolve().parent else whole
