"""The context of a run that is over, from its record."""

from __future__ import annotations

from pathlib import Path

from lenspipe.catalog.run_rows import Run
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ScanContext
from lenspipe.survey.layout import SurveyLayout
from lenspipe.toml import validate


def context_of(run: Run) -> ScanContext:
    """What a run's workers knew of survey and settings, without its models: enough to read and search its shards."""
    request = run.record["request"]
    config = validate(request["config"], ScanConfig, origin="run.json")
    layout = validate(request["survey"], SurveyLayout, origin="run.json")
    return ScanContext(config, layout, run.bands, Path())
