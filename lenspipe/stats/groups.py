"""Recall by what a lens is like, and false positives by what a negative is; counts that add up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lenspipe.stats.counts import ScoreCounts, Tally
from lenspipe.stats.intervals import fraction

GROUP_KEYS = 1 << 16
EDGES: dict[str, tuple[float, ...]] = {
    "theta_e_arcsec": (0, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 6),
    "source_radius_arcsec": (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1),
    "source_mag": (18, 20, 21, 22, 23, 24, 25, 26, 28),
    "lens_mag": (14, 16, 17, 18, 19, 20, 21, 22, 24),
    "arc_snr": (0, 5, 10, 20, 30, 50, 100, 200, 1000),
    "n_pix_source": (0, 20, 50, 100, 150, 300, 600, 2000),
}
"""Edges of the bins of each quantity; a column belongs to one by its name, or by ``NAME_<band>``."""


def quantity_columns(names: list[str], bands: tuple[str, ...]) -> dict[str, str]:
    """
    Which columns of a data set are binned: quantity to column, magnitudes in the reddest band there is.

    Examples
    --------
    >>> quantity_columns(["theta_e_arcsec", "source_mag_g", "source_mag_r"], ("g", "r", "i"))
    {'theta_e_arcsec': 'theta_e_arcsec', 'source_mag': 'source_mag_r'}
    """
    found = {}
    for quantity in EDGES:
        wanted = [quantity, *(f"{quantity}_{band}" for band in reversed(bands))]
        column = next((name for name in wanted if name in names), None)
        if column is not None:
            found[quantity] = column
    return found


class Groups:
    """
    Scores of lenses by bins of their properties, and of others by kind.

    Parameters
    ----------
    quantities : mapping
        Quantity (a key of `EDGES`) to the name of its column.
    """

    def __init__(self, quantities: Mapping[str, str]) -> None:
        self.quantities = dict(quantities)
        self.bins = {q: [Tally(GROUP_KEYS) for _ in EDGES[q][1:]] for q in self.quantities}
        self.kinds: dict[str, Tally] = {}

    def add(
        self, score: NDArray[np.float64], is_lens: NDArray[np.bool_], kind: ArrayLike, values: Mapping[str, ArrayLike]
    ) -> None:
        """
        Count a batch.

        Parameters
        ----------
        score, is_lens : arrays (n,)
        kind : array (n,)
            Words that say what each source is.
        values : mapping
            Values ``(n,)`` of each quantity; NaN, and what lies outside all bins, is left out of that quantity.
        """
        kinds = np.asarray(kind, dtype=object)
        for name in sorted({str(k) for k in kinds}):
            rows = kinds == name
            self.kinds.setdefault(name, Tally(GROUP_KEYS)).add(score[rows], is_lens[rows])
        for quantity in self.quantities:
            value = np.asarray(values[quantity], np.float64)
            place = np.searchsorted(EDGES[quantity], value, side="right") - 1
            for k, tally in enumerate(self.bins[quantity]):
                rows = is_lens & (place == k)
                if rows.any():
                    tally.add(score[rows], True)

    def recall_by(self, thresholds: Mapping[str, float | None]) -> dict[str, list[dict[str, Any]]]:
        """Recall at named thresholds in each bin of each quantity that holds lenses."""
        out: dict[str, list[dict[str, Any]]] = {}
        for quantity, tallies in self.bins.items():
            rows = []
            for low, high, tally in zip(EDGES[quantity][:-1], EDGES[quantity][1:], tallies, strict=True):
                counts = tally.total
                if counts.n_lens:
                    rows.append({"low": low, "high": high, "n": counts.n_lens, **_passing(counts, thresholds, True)})
            if rows:
                out[quantity] = rows
        return out

    def by_kind(self, thresholds: Mapping[str, float | None]) -> dict[str, dict[str, Any]]:
        """Fraction that passes named thresholds, for lenses and for others of each kind."""
        out = {}
        for name, tally in sorted(self.kinds.items()):
            counts: ScoreCounts = tally.total
            is_lens = counts.n_lens > 0
            n = counts.n_lens if is_lens else counts.n_other
            out[name] = {"class": "lens" if is_lens else "other", "n": n, **_passing(counts, thresholds, is_lens)}
        return out


def _passing(counts: ScoreCounts, thresholds: Mapping[str, float | None], of_lenses: bool) -> dict[str, Any]:
    n = counts.n_lens if of_lenses else counts.n_other
    return {name: fraction(counts.above(at)[0 if of_lenses else 1], n) for name, at in thresholds.items()}
