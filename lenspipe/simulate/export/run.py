"""`lenspipe simulate --format`: lenses one by one into a folder each."""

from __future__ import annotations

from pathlib import Path

from lenspipe.errors import ConfigError
from lenspipe.rundir import open_run, write_json
from lenspipe.runner import SILENT, Progress
from lenspipe.simulate.export import FORMATS
from lenspipe.simulate.export.scene import draw_scenes
from lenspipe.simulate.recipe import Recipe

TRUTH = "truth.json"


def export(
    recipe: Recipe, *, count: int, seed: int, out: Path, form: str, resume: bool = False, progress: Progress = SILENT
) -> int:
    """
    Write ``count`` simulated lenses as users of another tool keep them, each in a folder of its own.

    Beside the tool's own files every folder has ``truth.json``, all parameters of the simulation; it comes last, so a
    lens with it is whole, and is left as it is when the run is resumed.

    Parameters
    ----------
    recipe : Recipe
    count, seed : int
    out : Path
        New or empty folder, or that of the same request.
    form : str
        Name in `lenspipe.simulate.export.FORMATS`.
    resume : bool
    progress : Progress, optional

    Returns
    -------
    int
        Lenses that were written now.

    Raises
    ------
    ConfigError
        There is no such format, a package that it needs is missing, or the recipe has no lenses of a known model.
    """
    if form not in FORMATS:
        raise ConfigError("no such format of another tool", got=form, known=", ".join(FORMATS))
    request = {"command": "simulate", "recipe": recipe.model_dump(mode="json"), "seed": seed, "format": form}
    new = 0
    with open_run(
        out,
        request,
        resume=resume,
        command="--out",
        own=tuple(path.name for path in out.glob("lens-*")),
        has_work=lambda: any(out.glob(f"lens-*/{TRUTH}")),
    ):
        progress.stage("Simulating", count, 0)
        for scene in draw_scenes(recipe, seed=seed, count=count):
            folder = out / scene.name
            if not (folder / TRUTH).exists():
                folder.mkdir(exist_ok=True)
                FORMATS[form](scene, folder)
                write_json(folder / TRUTH, scene.facts)
                new += 1
            progress.advance(1)
    return new
