"""What a finder is made of and where: the request, and the runners of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lenspipe.catalog.executor import Executor, Here
from lenspipe.finder.settings import FinderSettings
from lenspipe.learn import train as training
from lenspipe.runner import Start, here
from lenspipe.scan.local import scan_local
from lenspipe.scan.run import Runner as ScanRunner
from lenspipe.simulate import run as simulating
from lenspipe.survey.layout import SurveyLayout

SCAN_HERE: Start[ScanRunner] = here(scan_local)
TASKS_HERE: Start[Executor] = here(Here())


@dataclass(frozen=True)
class Runners:
    """Where each kind of work is done; the plain loops by default."""

    scan: Start[ScanRunner] = SCAN_HERE
    executor: Start[Executor] = TASKS_HERE
    simulate: Start[simulating.Runner] = simulating.PLAIN
    train: Start[training.Runner] = training.PLAIN
    n_worker: int = 1
    """Workers of a training."""


PLAIN = Runners()
FAMILY = "small-cnn"
"""Network that a finder has where none is named."""


@dataclass(frozen=True)
class FinderRequest:
    """What is asked for."""

    tiles: tuple[str, ...]
    """A run folder alone, or tiles."""
    layout: SurveyLayout
    """Of tiles; a run has its own."""
    settings: FinderSettings
    bands: tuple[str, ...] = ()
    """Of the finder; see `lenspipe.finder.recipe.finder_bands` where empty."""
    families: tuple[str, ...] = ()
    """Networks of fresh weights, a member each in turn; `FAMILY` where empty. A finder that learns on has its own."""
    n_member: int = 1
    pretrained: str | None = None
    """A finder that the first round begins from."""
    replaced: dict[str, str] = field(default_factory=dict)
    lists: tuple[str, ...] = ("lenscat",)
    """Lists of known lenses and contaminants that are neither hosts nor negatives."""
    grades: tuple[Path, ...] = ()
    seed: int = 0

    @property
    def is_run(self) -> bool:
        """Whether the pixels are those of a run, which has its own layout."""
        return len(self.tiles) == 1 and (Path(self.tiles[0]) / "run.json").is_file()

    @property
    def networks(self) -> tuple[str, ...]:
        """Families that members have in turn."""
        return self.families or (FAMILY,)

    def fixed(self) -> dict[str, Any]:
        """What must be the same for a folder to be taken up again; grades are what rounds add."""
        return {
            "command": "finder",
            "tiles": list(self.tiles),
            "survey": self.layout.model_dump(mode="json"),
            "settings": {
                "hosts": self.settings.hosts.model_dump(mode="json"),
                # what came later is left out where it is null, so that older folders can be taken up
                "stamps": self.settings.stamps.model_dump(mode="json", exclude_none=True),
            },
            "bands": list(self.bands),
            "pretrained": self.pretrained,
            "replaced": self.replaced,
            "lists": list(self.lists),
            "seed": self.seed,
        }
