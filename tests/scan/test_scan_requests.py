"""What requests look like in JSON: a run that an older version began is compared with it when it is resumed."""

import json
from pathlib import Path

import pytest

from lenspipe.completeness.config import CompletenessConfig
from lenspipe.finder.settings import FinderSettings
from lenspipe.learn.settings import TrainSettings
from lenspipe.scan.config import ScanConfig
from lenspipe.simulate.recipe import read_recipe
from lenspipe.survey.layout import read_layout
from lenspipe.toml import put_over

BEFORE = json.loads((Path(__file__).parent / "requests_before.json").read_text())
"""As they were on 28 November 2026; a difference here means that runs of before cannot be resumed."""
UNSAID = {"lenses_per_deg2": None, "lenses_source": "the layout"}
NOW = {
    **{c.__name__: c for c in (ScanConfig, TrainSettings, FinderSettings)},
    # its hosts were the redder half once; now the run's own colours part them
    "CompletenessConfig": lambda: CompletenessConfig.model_validate({"hosts": {"red_part": 0.5}}),
    # it did not say how common lenses are; a scan of KiDS tiles that was begun before is not resumed
    "kids": lambda: put_over(read_layout("kids"), UNSAID, origin="--set survey"),
    "generic": lambda: read_layout("generic"),
    **{name: lambda name=name: read_recipe(name) for name in ("ground-gri", "model-f")},
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_request_that_says_nothing_new_reads_as_it_did(name):
    assert NOW[name]().model_dump(mode="json") == BEFORE[name]


def test_what_is_new_is_said_where_it_is_asked_for():
    score = ScanConfig.model_validate({"score": {"engine": "onnx", "batch_size": 8}}).model_dump(mode="json")["score"]
    assert score["engine"] == "onnx" and score["batch_size"] == 8 and "precision" not in score
