"""Fit the probability of a committee as a whole, on stamps that its members have not seen."""

from __future__ import annotations

from lenspipe.evaluate.calibration import fit_on_halves, said_of
from lenspipe.evaluate.finders import Single, Weighed
from lenspipe.evaluate.judges.contract import Progress
from lenspipe.evaluate.judging import open_members
from lenspipe.nn.committee import Committee
from lenspipe.stamps.format import StampSet
from lenspipe.stats.calibrate import Method


def calibrate_committee(
    committee: Committee, stamps: StampSet, *, split: str | None, method: Method, device: str, progress: Progress
) -> tuple[Committee, tuple[str, ...]]:
    """
    The committee with a calibration of its score, and the lines that say how well it holds.

    The members' own calibrations stay: they make the score. The whole needs another, as members that agree with each
    other are not as many witnesses as there are members.

    Raises
    ------
    ConfigError
        A member has no calibration or is not a finder, or the score falls with the truth.
    DataError
        The split is empty, or holds one class only.
    """
    committee.calibrations()  # said before any model is loaded
    members = open_members(committee.folders, stamps, device=device)
    together = Weighed(committee, [Single(member) for member in members])
    fitted = fit_on_halves(
        together,
        members,
        stamps,
        split=split,
        method=method,
        progress=lambda done, total: progress("Scoring", done, total),
    )
    return committee.calibrated(fitted.calibration), said_of(committee.card.name, fitted)
