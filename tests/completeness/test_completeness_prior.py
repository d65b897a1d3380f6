"""A run's own selection function says how common lenses are among its candidates."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from lenspipe.completeness.finish import Outcome
from lenspipe.completeness.prior import measured_prior, prior_text, stated_prior
from lenspipe.completeness.run import Painted
from lenspipe.errors import ConfigError
from lenspipe.stats.intervals import fraction
from lenspipe.survey.layout import read_layout


def injections(scored: int, n: int) -> pa.Table:
    return pa.table({"score": pa.array([0.5] * scored + [None] * (n - scored), pa.float64())})


def test_the_survey_s_expectation_is_of_the_lenses_that_become_candidates() -> None:
    found = measured_prior(injections(30, 40), read_layout("des"), area_deg2=10.0, n_candidate=48_000)
    assert found["value"] == pytest.approx(0.48 * 10 * 0.75 / 48_000)
    low, high = fraction(30, 40)["interval95"]
    assert found["interval95"] == pytest.approx([0.48 * 10 * end / 48_000 for end in (low, high)])
    assert "0.750 of the lenses painted there became candidates" in prior_text(found)


@pytest.mark.parametrize(("layout", "scored", "why"), [("generic", 30, "does not say how common"), ("des", 0, "0.000")])
def test_where_nothing_is_known_there_is_no_prior(layout: str, scored: int, why: str) -> None:
    found = measured_prior(injections(scored, 40), read_layout(layout), area_deg2=10.0, n_candidate=48_000)
    assert found["value"] is None and why in prior_text(found)


def test_a_folder_states_the_prior_that_it_measured(outcome: Outcome, painted: Painted, tmp_path: Path) -> None:
    record = dict(outcome.selection.record)
    assert record["prior"]["selected"]["n"] == painted.injections.num_rows
    assert f"Prior of a candidate: {prior_text(record['prior'])[:20]}" in (painted.folder / "index.html").read_text()
    (tmp_path / "selection.json").write_text(json.dumps(record | {"prior": {"value": 2.5e-4}}))
    assert stated_prior(str(tmp_path)) == 2.5e-4 and stated_prior("0.01") == 0.01


@pytest.mark.parametrize("said", ["0", "1", "-0.1", "nan"])
def test_what_is_no_fraction_is_refused(said: str) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        stated_prior(said)


def test_a_folder_without_a_prior_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="or the --out of a finished"):
        stated_prior(str(tmp_path / "elsewhere"))
    (tmp_path / "selection.json").write_text("{}")
    with pytest.raises(ConfigError, match="older version"):
        stated_prior(str(tmp_path))
    (tmp_path / "selection.json").write_text(json.dumps({"prior": {"value": None, "said": "nobody knows"}}))
    with pytest.raises(ConfigError, match=r"has no prior.*nobody knows"):
        stated_prior(str(tmp_path))
