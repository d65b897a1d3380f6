"""Magnitudes of a run against those of a list: is the zero-point right?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.sky.sphere import nearest

WARN_MAG = 0.3
"""Median difference of magnitudes from which a zero-point must be wrong."""
PAIRS_MIN = 5
"""Sources that a median is of, at least."""
SAME_SOURCE_ARCSEC = 1.0
PLAUSIBLE_MAG = 5.0, 35.0
"""Beyond it a number of a list stands for none (99, -99, 0)."""
_NAMES = ("mag_{}", "{}_mag", "mag{}", "{}mag", "mag_auto_{}", "mag_{}_ab", "{}_mag_ab", "{}kronmag", "{}_kronmag")


def magnitude_column(names: Sequence[str], band: str) -> str | None:
    """
    Column of a list that holds magnitudes in a band; None where there is none, or where two could be it.

    The band is taken as it is spelt; in another case only where a single column has it.

    Examples
    --------
    >>> names = ["ID", "RAJ2000", "gmag", "e_gmag", "MAG_AUTO_R", "Imag", "imag"]
    >>> [magnitude_column(names, band) for band in "griz"]
    ['gmag', 'MAG_AUTO_R', 'imag', None]
    """
    ends = [name.strip() for name in names]
    for form in _NAMES:
        head, tail = form.split("{}")
        exact = [
            name
            for name, short in zip(names, ends, strict=True)
            if short.lower() == form.format(band).lower() and short[len(head) : len(short) - len(tail)] == band
        ]
        if exact:
            return exact[0]
    forms = {form.format(band).lower() for form in _NAMES}
    alike = [name for name, short in zip(names, ends, strict=True) if short.lower() in forms]
    return alike[0] if len(alike) == 1 else None


def magnitude_differences(candidates: pa.Table, listed: pa.Table, bands: Sequence[str]) -> dict[str, dict[str, Any]]:
    """
    Median difference of magnitudes, ours less the list's, over candidates within `SAME_SOURCE_ARCSEC` of a row.

    Parameters
    ----------
    candidates : pa.Table
        With ``ra``, ``dec`` and ``mag_BAND``.
    listed : pa.Table
        With ``ra``, ``dec`` and whatever columns of magnitudes it has (`magnitude_column`).
    bands : sequence of str

    Returns
    -------
    dict
        By band ``n`` sources, ``median_mag`` and the list's ``column``; bands with fewer than `PAIRS_MIN` are left out.
    """
    columns = {band: name for band in bands if (name := magnitude_column(listed.column_names, band)) is not None}
    if not (columns and candidates.num_rows and listed.num_rows):
        return {}
    ours, theirs = ((table["ra"].to_numpy(), table["dec"].to_numpy()) for table in (candidates, listed))
    row = nearest(*ours, *theirs, radius_arcsec=SAME_SOURCE_ARCSEC)[0]
    near = row >= 0
    found = {}
    for band, name in columns.items():
        difference = (_numbers(candidates, f"mag_{band}")[near]) - _plausible(_numbers(listed, name)[row[near]])
        difference = difference[np.isfinite(difference)]
        if len(difference) >= PAIRS_MIN:
            found[band] = {"n": len(difference), "median_mag": float(np.median(difference)), "column": name}
    return found


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    try:
        return table[name].cast(pa.float64()).to_numpy(zero_copy_only=False).astype(float)
    except pa.ArrowException:
        return np.full(table.num_rows, np.nan)  # words: no magnitudes


def _plausible(mag: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = PLAUSIBLE_MAG
    return np.where((mag > low) & (mag < high), mag, np.nan)


def magnitude_lines(compared: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """
    One line per list and band; a warning where the median differs by more than `WARN_MAG`.

    Examples
    --------
    >>> magnitude_lines({"ps1.csv": {"g": {"n": 40, "median_mag": -0.02, "column": "gmag"}}})
    ['magnitudes in g differ by -0.020 mag from gmag of ps1.csv (median of 40 sources)']
    """
    lines = []
    for source, bands in compared.items():
        for band, row in bands.items():
            text = (
                f"magnitudes in {band} differ by {row['median_mag']:+.3f} mag from {row['column']} of {source} "
                f"(median of {row['n']} sources)"
            )
            if abs(row["median_mag"]) > WARN_MAG:
                text = (
                    f"WARNING: {text}: the zero-point is wrong, or the list's magnitudes are of another kind "
                    "(Vega, another filter)"
                )
            lines.append(text)
    return lines
