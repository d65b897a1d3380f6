"""Grades that people gave on the page: read, compared, averaged, made labels."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.schema import field
from lenspipe.tables import plain_cell

VALUE = {"A": 3, "B": 2, "C": 1, "N": 0}
"""A sure, B probable, C possible, N not a lens: the scale of Space Warps and SuGOHI."""
NEEDED = ("run_id", "candidate_id", "grader", "grade")
SAME_ARCSEC = 1.0
"""Graded candidates of two runs within this are one."""
GRADES = pa.schema(
    [*((name, pa.string()) for name in NEEDED), ("ra", pa.float64()), ("dec", pa.float64())],
    metadata={"description": "One row per grade; ra and dec in degrees, null where the file does not say"},
)
MEANS = pa.schema(
    [
        field("run_id", pa.string(), "Run of the candidate", ucd="meta.id;meta.dataset"),
        field("candidate_id", pa.string(), "Identifier of the candidate", ucd="meta.id;meta.main"),
        field("n_grader", pa.int32(), "Graders", ucd="meta.number"),
        field("mean_grade", pa.float64(), "Mean of A 3, B 2, C 1, N 0", ucd="stat.mean;meta.code.qual"),
        field("spread", pa.float64(), "Standard deviation of the grades, null for one", ucd="stat.stdev"),
        field("grades", pa.string(), "Grades in order of the graders' names", ucd="meta.code.qual"),
        field("label", pa.int8(), "1 lens, 0 not a lens, null undecided", ucd="meta.code.class"),
    ]
)


def read_grades(files: list[str]) -> pa.Table:
    """
    Read grade files of the page; of two grades of one grader for one candidate the newer counts.

    Returns
    -------
    pa.Table
        With `GRADES`, one row per grade. The page writes positions beside grades, so that a grade outlives the run that
        it was given in.

    Raises
    ------
    ConfigError
        A file is missing or is not a grade file, a grade is not A, B, C or N, or has no grader; file and
        line are named.
    """
    newest: dict[tuple[str, str, str], tuple[str, str, float | None, float | None]] = {}
    for file in files:
        try:
            with Path(file).open(newline="", encoding="utf-8-sig") as stream:
                rows = [
                    {key: plain_cell(value) if isinstance(value, str) else value for key, value in row.items()}
                    for row in csv.DictReader(stream)
                ]
                names = set(rows[0]) if rows else set(NEEDED)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"the grades cannot be read: {error}", file=file) from error
        if missing := [name for name in NEEDED if name not in names]:
            raise ConfigError(f"not a file of grades: it has no column {missing[0]}", file=file)
        for line, row in enumerate(rows, 2):
            if row["grade"] not in VALUE:
                raise ConfigError("not a grade; use A, B, C or N", file=file, line=line, got=row["grade"])
            if not (row["grader"] or "").strip():
                raise ConfigError(
                    "a grade has no grader; write a name into the column grader",
                    file=file,
                    line=line,
                    got=row["grader"],
                )
            key, time = (row["run_id"], row["candidate_id"], row["grader"]), row.get("time") or ""
            if key not in newest or newest[key][0] <= time:
                newest[key] = (time, row["grade"], *_place(row))
    return pa.Table.from_pylist(
        [dict(zip(GRADES.names, (*key, *newest[key][1:]), strict=True)) for key in sorted(newest)], GRADES
    )


def graded_places(grades: pa.Table) -> dict[tuple[str, str], tuple[float, float]]:
    """Right ascension and declination, degrees, of graded candidates by run and identifier, of those that have them."""
    return {
        (row["run_id"], row["candidate_id"]): (row["ra"], row["dec"])
        for row in grades.to_pylist()
        if row["ra"] is not None
    }


def demand_apart(*, lens_from: float, nonlens_to: float) -> None:
    """Raise `ConfigError` where a grade would be of a lens and of none."""
    if not 0 <= nonlens_to < lens_from <= 3:
        raise ConfigError(
            "labels need 0 <= grade of no lens < grade of a lens <= 3", lens_from=lens_from, nonlens_to=nonlens_to
        )


def mean_grades(grades: pa.Table, *, lens_from: float, nonlens_to: float) -> pa.Table:
    """
    Mean grade of each candidate and the label that follows.

    Parameters
    ----------
    grades : pa.Table
        From `read_grades`.
    lens_from : float
        Mean grade from which a candidate is labelled a lens.
    nonlens_to : float
        Mean grade up to which it is labelled no lens; between the two it has no label.

    Returns
    -------
    pa.Table
        With `MEANS`, best mean first.

    Raises
    ------
    ConfigError
        ``nonlens_to`` is not below ``lens_from``.
    """
    demand_apart(lens_from=lens_from, nonlens_to=nonlens_to)
    rows = []
    key = ("run_id", "candidate_id")
    for (run_id, candidate_id), group in itertools.groupby(grades.to_pylist(), lambda row: tuple(row[k] for k in key)):
        given = [row["grade"] for row in group]
        values = [VALUE[grade] for grade in given]
        mean = float(np.mean(values))
        rows.append(
            {
                "run_id": run_id,
                "candidate_id": candidate_id,
                "n_grader": len(values),
                "mean_grade": mean,
                "spread": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "grades": "".join(given),
                "label": 1 if mean >= lens_from else 0 if mean <= nonlens_to else None,
            }
        )
    return pa.Table.from_pylist(rows, MEANS).sort_by([("mean_grade", "descending"), ("candidate_id", "ascending")])


def weighted_kappa(one: NDArray[np.integer], two: NDArray[np.integer]) -> float | None:
    """
    Cohen's kappa with quadratic weights of two graders on the same candidates.

    1 is full agreement, 0 what chance gives (Cohen 1968, Psychological Bulletin 70, 213).

    Parameters
    ----------
    one, two : arrays (n,)
        Grades as numbers 0 to 3.

    Returns
    -------
    float or None
        None where it is not defined: no candidates, or both gave all the same one grade.
    """
    if not len(one):
        return None
    counts = np.zeros((4, 4))
    np.add.at(counts, (one, two), 1)
    weight = (np.arange(4)[:, None] - np.arange(4)) ** 2
    chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / len(one)
    if not (weight * chance).sum():
        return None
    return float(1 - (weight * counts).sum() / (weight * chance).sum())


def agreement(grades: pa.Table) -> list[dict[str, Any]]:
    """For each pair of graders: candidates that both graded, the fraction of equal grades, weighted kappa."""
    by_grader: dict[str, dict[tuple[str, str], int]] = {}
    for row in grades.to_pylist():
        by_grader.setdefault(row["grader"], {})[row["run_id"], row["candidate_id"]] = VALUE[row["grade"]]
    rows = []
    for first, second in itertools.combinations(sorted(by_grader), 2):
        both = sorted(set(by_grader[first]) & set(by_grader[second]))
        one = np.array([by_grader[first][key] for key in both], int)
        two = np.array([by_grader[second][key] for key in both], int)
        equal = float((one == two).mean()) if both else None
        rows.append(
            {"first": first, "second": second, "n": len(both), "equal": equal, "kappa": weighted_kappa(one, two)}
        )
    return rows


def labels_for(means: pa.Table, candidates: pa.Table, *, run_id: str) -> pa.Table:
    """
    The graded candidates of a run with position, score and label.

    Raises
    ------
    ConfigError
        A grade is for a candidate that the run does not have.
    """
    mine = means.filter(pc.equal(means["run_id"], run_id))
    place = pc.index_in(mine["candidate_id"], candidates["candidate_id"].combine_chunks())
    if place.null_count:
        stranger = mine.filter(pc.is_null(place))["candidate_id"][0].as_py()
        raise ConfigError("a grade is for a candidate that the run does not have", candidate_id=stranger)
    known = candidates.select(["tile", "shard_id", "ra", "dec", "x_px", "y_px", "score", "model"]).take(place)
    for name in known.column_names:
        mine = mine.append_column(candidates.schema.field(name), known[name])
    return mine


def _place(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Position of a row; none where it is not two finite numbers."""
    try:
        place = float(row["ra"]), float(row["dec"])
    except (KeyError, TypeError, ValueError):
        return None, None
    return place if np.isfinite(place).all() else (None, None)
