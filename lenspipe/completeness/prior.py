"""How common lenses are among a run's candidates, by how many of those painted into it become candidates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from lenspipe.completeness.selection import SELECTION
from lenspipe.errors import ConfigError
from lenspipe.rundir import read_json
from lenspipe.scan.prior import survey_prior
from lenspipe.stats.intervals import fraction
from lenspipe.survey.layout import SurveyLayout


def measured_prior(injections: pa.Table, layout: SurveyLayout, *, area_deg2: float, n_candidate: int) -> dict[str, Any]:
    """
    The survey's expectation over the candidates, times the part of the painted lenses that got a score.

    That part is of the lenses as they were painted, whose radii and brightness are not those of the sky; the interval
    is its own alone, not that of the expectation.

    Parameters
    ----------
    injections : Table
    layout : SurveyLayout
        Its ``lenses_per_deg2``.
    area_deg2 : float
        Area that the candidates are of.
    n_candidate : int
        Candidates of the bare tiles with a score.

    Returns
    -------
    dict
        ``value``, ``interval95``, ``selected`` (k of n and interval) and ``said``; ``value`` is None where nobody says
        how common lenses are.
    """
    scored = injections.num_rows - injections["score"].null_count
    selected = fraction(scored, injections.num_rows)
    found = survey_prior(layout, area_deg2=area_deg2, n_candidate=n_candidate, selected=selected["value"])
    ends = None
    if found.value and selected["value"]:
        ends = [found.value * end / selected["value"] for end in selected["interval95"]]
    return {"value": found.value or None, "interval95": ends, "selected": selected, "said": found.said}


def prior_text(prior: Mapping[str, Any]) -> str:
    """What `measured_prior` found, in words."""
    if prior["value"] is None:
        return f"none; {prior['said']}"
    low, high = prior["interval95"]
    return f"{prior['value']:.3g} [{low:.3g}, {high:.3g}] ({prior['said']})"


def stated_prior(said: str) -> float:
    """
    A prior as the command line states it: a number, or the folder of a selection function that measured one.

    Raises
    ------
    ConfigError
        It is neither a number between 0 and 1 nor such a folder, or the selection function has no prior.

    Examples
    --------
    >>> stated_prior("1e-3")
    0.001
    """
    try:
        value = float(said)
    except ValueError:
        return _prior_of(said)
    if not 0 < value < 1:
        raise ConfigError("a prior lies between 0 and 1", got=value)
    return value


def _prior_of(folder: str) -> float:
    path = Path(folder) / SELECTION
    if not path.is_file():
        raise ConfigError(
            "a prior is a number between 0 and 1, or the --out of a finished `lenspipe completeness`", got=folder
        )
    prior = read_json(path).get("prior")
    if prior is None:
        raise ConfigError(
            "this selection function is of an older version, which measured no prior: finish it again with --resume",
            folder=folder,
        )
    if prior["value"] is None:
        raise ConfigError("this selection function has no prior", why=prior["said"], folder=folder)
    return float(prior["value"])
