"""How common lenses are among a run's candidates, where the request does not say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lenspipe.survey.layout import SurveyLayout

PRIOR_MAX = 0.5
"""A survey's candidates are mostly not lenses; where more are expected, the expectation is not of this run."""


@dataclasses.dataclass(frozen=True)
class SurveyPrior:
    """A prior and where it is from, or why there is none."""

    value: float | None
    said: str


def survey_prior(
    layout: SurveyLayout, *, area_deg2: float, n_candidate: int, selected: float | None = None
) -> SurveyPrior:
    """
    Lenses that the survey is expected to hold in an area, over the candidates that were scored there.

    Parameters
    ----------
    layout : SurveyLayout
        Its ``lenses_per_deg2``.
    area_deg2 : float
        Area searched.
    n_candidate : int
        Candidates that a model scored in it.
    selected : float, optional
        Part of the lenses that become candidates with a score, where it was measured; all where not given.

    Examples
    --------
    >>> from lenspipe.survey.layout import read_layout
    >>> round(survey_prior(read_layout("des"), area_deg2=100.0, n_candidate=1_000_000).value, 7)
    4.8e-05
    """
    density = layout.lenses_per_deg2
    if density is None:
        return SurveyPrior(
            None,
            f"the layout of {layout.name} does not say how common lenses are; give --prior, or lenses_per_deg2 in the "
            "layout",
        )
    if not n_candidate or not area_deg2:
        return SurveyPrior(None, "there are no candidates with a score")
    value = density * area_deg2 / n_candidate
    said = f"{density:g} lenses per deg2 ({layout.lenses_source}), {area_deg2:.4g} deg2, {n_candidate} candidates"
    if selected is not None:
        value *= selected
        said += f", and {selected:.3f} of the lenses painted there became candidates"
    if value >= PRIOR_MAX:
        return SurveyPrior(None, f"more than half of the candidates would be lenses: {said}; give --prior")
    return SurveyPrior(value, said)


def prior_line(stated: Mapping[str, Any]) -> str:
    """What the record of a run or a catalogue says about the prior of its probabilities, in words."""
    if stated["prior"] is None:
        return f"not given: {stated['why']}"
    return f"at a prior of {stated['prior']:.3g} ({stated['prior_from']})"
