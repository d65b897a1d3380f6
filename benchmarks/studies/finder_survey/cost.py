"""
What a finder of a KiDS-sized tile costs: pixels to page by `lenspipe finder`, in processor time of its whole process.

    python -m benchmarks.studies.finder_survey.cost --real ../shared/data --pretrained ground-gri
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import tempfile
from pathlib import Path

import click

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.finder.request import FinderRequest
from lenspipe.finder.run import make_finder
from lenspipe.finder.settings import FinderSettings
from lenspipe.runner import SILENT
from lenspipe.survey.layout import read_layout
from lenspipe.toml import put_over

AIM_MINUTES = 30
"""Of two cores; one process that takes less of one is within it."""


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--pretrained", default=None, help="Finder that it goes on from. [default: fresh weights]")
@click.option("--name", default="finders_survey_cost", show_default=True, help="Name of the record.")
@record.keep_option
def main(real: Path, pretrained: str | None, name: str, keep: bool) -> None:
    """Make a finder of the KiDS tile and record what each step took."""
    one_core = {"train.optim.threads": 1, "train.optim.precision": "bfloat16", "train.optim.channels_last": True}
    settings = put_over(FinderSettings(), one_core, origin="study")
    tile = str((real / "tiles/kids_viking").absolute())
    request = FinderRequest((tile,), read_layout("kids"), settings, pretrained=pretrained)
    with tempfile.TemporaryDirectory() as scratch, Clock() as clock:
        made = make_finder(request, Path(scratch) / "mine", progress=SILENT).record
    result = {
        "pretrained": pretrained,
        "stamps": made["stamps"],
        "border_probe": made["border_probe"],
        "seconds_of_steps": made["seconds"],
        **clock.seconds(),
    }
    minutes = clock.cpu_s / 60
    aims = [record.at_most("processor minutes of one process, pixels to page", minutes, AIM_MINUTES)]
    record.write(name, result, aims, keep=keep)


if __name__ == "__main__":
    main()
