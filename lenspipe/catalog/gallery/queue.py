"""The queue of a page: which rows of a catalogue to look at next, by what was graded before."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import logit

from lenspipe.bands import by_wavelength
from lenspipe.catalog.columns import bands_of
from lenspipe.catalog.grades import SAME_ARCSEC, graded_places, mean_grades, read_grades
from lenspipe.errors import ConfigError
from lenspipe.sky.sphere import separation_arcsec
from lenspipe.stats.queue import learning_queue

SHAPE = ("half_light_radius_arcsec", "axis_ratio")


def queued(
    rows: pa.Table, n: int, grades: Sequence[str], *, lens_from: float = 2.0, nonlens_to: float = 0.5
) -> pa.Table:
    """
    The next ``n`` rows to look at, in order, with a column ``queue`` that says why (`lenspipe.stats.queue`).

    Parameters
    ----------
    rows : pa.Table
        Rows of a catalogue.
    n : int
    grades : sequence of path
        Files of the page from earlier rounds; none for the first.
    lens_from, nonlens_to : float
        Mean grades that make a lens, and none.

    Raises
    ------
    ConfigError
        The files grade none of these rows, or nothing is left to look at.
    """
    label = np.full(rows.num_rows, np.nan)
    if grades:
        given = read_grades(list(grades))
        means = mean_grades(given, lens_from=lens_from, nonlens_to=nonlens_to).to_pylist()
        label = labels_of(rows, means, graded_places(given))
        if np.isnan(label).all():
            raise ConfigError("the grades are of none of the candidates here", files=" ".join(map(str, grades)))
    score = rows["score"].to_numpy(zero_copy_only=False).astype(float)
    # scores of 0 and 1 have no log odds; float64 keeps them 1e-12 away
    order, why = learning_queue(logit(np.clip(score, 1e-12, 1 - 1e-12)), features_of(rows), label, n)
    if not len(order):
        raise ConfigError("every candidate here is graded; raise --count", graded=int(np.isfinite(label).sum()))
    return rows.take(order).append_column("queue", pa.array(why))


def labels_of(
    rows: pa.Table, means: Sequence[Mapping[str, Any]], places: Mapping[tuple[str, str], tuple[float, float]]
) -> NDArray[np.float64]:
    """
    Label of each row ``(n,)``: 1 lens, 0 not a lens, 0.5 undecided, NaN not graded.

    A grade is a row's by run and identifier, else by position, within 1 arcsec: a survey that is scanned again by the
    finder that learnt from the grades is another run.
    """
    label = np.full(rows.num_rows, np.nan)
    keys = zip(rows["run_id"].to_pylist(), rows["candidate_id"].to_pylist(), strict=True)
    place = {key: k for k, key in enumerate(keys)}
    ra, dec = (rows[name].to_numpy(zero_copy_only=False).astype(float) for name in ("ra", "dec"))
    for row in means:
        key = row["run_id"], row["candidate_id"]
        value = 0.5 if row["label"] is None else float(row["label"])
        if key in place:
            label[place[key]] = value
        elif key in places:
            apart = separation_arcsec(ra, dec, *places[key])
            label[apart < SAME_ARCSEC] = value
    return label


def features_of(rows: pa.Table) -> NDArray[np.float64]:
    """What candidates are compared by ``(n, k)``: score, magnitude, colours, size, shape; NaN where not known."""
    bands = sorted(bands_of(rows.schema), key=by_wavelength)
    get = {
        name: rows[name].to_numpy(zero_copy_only=False).astype(float)
        for name in ("score", *SHAPE, *(f"mag_{band}" for band in bands))
    }
    mags = [get[f"mag_{band}"] for band in bands]
    size = np.log(np.where(get[SHAPE[0]] > 0, get[SHAPE[0]], np.nan))
    score = logit(np.clip(get["score"], 1e-12, 1 - 1e-12))
    colours = [a - b for a, b in itertools.pairwise(mags)]
    return np.stack([score, *mags[-1:], *colours, size, get[SHAPE[1]]], axis=1)
