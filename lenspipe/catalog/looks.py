"""What rounds of looking cost: looks per new lens, round after round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lenspipe.catalog.grades import VALUE, read_grades
from lenspipe.stats.intervals import clopper_pearson


@dataclass(frozen=True)
class Round:
    """One round of looking."""

    file: str
    looks: int
    """Candidates that nobody had graded in an earlier file."""
    lenses: int
    """Those of them whose mean grade makes them lenses."""

    @property
    def looks_per_lens(self) -> float | None:
        """Looks that a new lens cost; None where there was none."""
        return self.looks / self.lenses if self.lenses else None

    @property
    def interval95(self) -> tuple[float, float | None]:
        """Of `looks_per_lens`, from the exact interval of the part that are lenses; no upper end without a lens."""
        low, high = clopper_pearson(self.lenses, self.looks)
        return 1 / high if high else float("inf"), 1 / low if low else None


def rounds_of(files: Sequence[str], *, run_id: str, lens_from: float) -> list[Round]:
    """
    Rounds of looking, a file each, in the order given.

    A browser's export holds all that was graded so far, so a candidate counts in the first file that has it, with the
    mean of the grades of that file.

    Parameters
    ----------
    files : sequence of path
        Files of the page.
    run_id : str
        Run whose grades count.
    lens_from : float
        Mean grade from which a candidate is a lens.
    """
    seen: set[str] = set()
    rounds = []
    for file in files:
        given: dict[str, list[int]] = {}
        for row in read_grades([file]).to_pylist():
            if row["run_id"] == run_id and row["candidate_id"] not in seen:
                given.setdefault(row["candidate_id"], []).append(VALUE[row["grade"]])
        lenses = sum(sum(values) / len(values) >= lens_from for values in given.values())
        rounds.append(Round(file, len(given), lenses))
        seen |= given.keys()
    return rounds
