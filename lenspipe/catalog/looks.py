"""What rounds of looking cost: looks per new lens, round after round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lenspipe.catalog.grades import SAME_ARCSEC, VALUE, read_grades
from lenspipe.catalog.run_rows import Run
from lenspipe.sky.sphere import inside_corners, separation_arcsec
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


def rounds_of(files: Sequence[str], run: Run, *, lens_from: float) -> list[Round]:
    """
    Rounds of looking, a file each, in the order given.

    A browser's export holds all that was graded so far, so a candidate counts in the first file that has it, with the
    mean of the grades of that file. Grades of other runs count where they lie in the sky of this one, as a survey that
    the next finder scanned is another run; what lies within 1 arcsec is one candidate.

    Parameters
    ----------
    files : sequence of path
        Files of the page.
    run : Run
        Whose candidates, and whose sky, count.
    lens_from : float
        Mean grade from which a candidate is a lens.
    """
    seen, rounds = _Candidates(), []
    before = 0
    for file in files:
        grades = read_grades([file])
        number = seen.numbers(grades.filter(_counts(grades, run)))
        given: dict[int, list[int]] = {}
        for candidate, grade in number:
            if candidate >= before:
                given.setdefault(candidate, []).append(VALUE[grade])
        lenses = sum(sum(values) / len(values) >= lens_from for values in given.values())
        rounds.append(Round(file, len(given), lenses))
        before = seen.n
    return rounds


def _counts(grades: pa.Table, run: Run) -> pa.Array:
    """Whether each grade is of a candidate of the run, or of another run's in its sky."""
    ra, dec = (grades[name].to_numpy(zero_copy_only=False).astype(float) for name in ("ra", "dec"))
    here = np.zeros(grades.num_rows, bool)
    for shard in run.shards.filter(pc.equal(run.shards["status"], "ok")).to_pylist():
        here |= inside_corners(ra, dec, shard["corner_ra_deg"], shard["corner_dec_deg"])
    own = np.array([one == run.run_id for one in grades["run_id"].to_pylist()], bool)
    return pa.array(own | here)


class _Candidates:
    """Candidates in the order in which they were first seen, known by run and identifier or by position."""

    def __init__(self) -> None:
        self.n = 0
        self._by_name: dict[tuple[str, str], int] = {}
        self._at: list[tuple[float, float]] = []
        self._near: dict[int, list[int]] = {}
        """Places in strips of declination as wide as what is one candidate."""
        self._number: list[int] = []

    def numbers(self, grades: pa.Table) -> list[tuple[int, str]]:
        """Number of the candidate of each grade, and the grade."""
        return [(self._number_of(row), row["grade"]) for row in grades.to_pylist()]

    def _number_of(self, row: dict[str, Any]) -> int:
        name = row["run_id"], row["candidate_id"]
        if name in self._by_name:
            return self._by_name[name]
        found = None
        if row["ra"] is not None:
            strip = int(np.floor(row["dec"] * 3600 / SAME_ARCSEC))
            if near := [k for one in (strip - 1, strip, strip + 1) for k in self._near.get(one, ())]:
                ra, dec = np.array([self._at[k] for k in near]).T
                apart = separation_arcsec(ra, dec, row["ra"], row["dec"])
                if apart.min() < SAME_ARCSEC:
                    found = self._number[near[int(apart.argmin())]]
            self._near.setdefault(strip, []).append(len(self._at))
            self._at.append((row["ra"], row["dec"]))
            self._number.append(self.n if found is None else found)
        if found is None:
            found, self.n = self.n, self.n + 1
        self._by_name[name] = found
        return found
