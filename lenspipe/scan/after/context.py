"""The context of a run that is over, from its record."""

from __future__ import annotations

from pathlib import Path

from lenspipe.catalog.run_rows import Run
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ScanContext
from lenspipe.survey.layout import SurveyLayout


def context_of(run: Run) -> ScanContext:
    """What a run's workers knew of survey and settings, without its models: enough to read and search its shards."""
    request = run.record["request"]
    config, layout = ScanConfig.model_validate(request["config"]), SurveyLayout.model_validate(request["survey"])
    return ScanContext(config, layout, run.bands, Path())
