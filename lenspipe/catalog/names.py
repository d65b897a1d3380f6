"""IAU-style names: truncated, never rounded, by integer arithmetic."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

ACRONYM = "LPC"
_GRAIN = 10**6
"""Positions are read to a millionth of the last digit first, so that 0.7 deg is 42 arcmin and not 41.9999."""


def iau_names(ra_deg: ArrayLike, dec_deg: ArrayLike, *, acronym: str = ACRONYM) -> pa.Array:
    """
    Names ``ACRONYM JHHMMSS.ss+DDMMSS.s`` of ICRS positions.

    The rule of the IAU [1]_: the position is truncated, so that a name says in which cell of 0.01 s by 0.1 arcsec
    the object lies. Two objects may share a name; the identifier of a row is its ``candidate_id``. The acronym must
    have three characters or more and is not registered by using it here.

    Parameters
    ----------
    ra_deg, dec_deg : array (n,)
        ICRS position, degrees; any turn of right ascension.
    acronym : str
        Leading word.

    Returns
    -------
    pa.Array (n,), string

    Raises
    ------
    ValueError
        A position is not finite, or a declination lies beyond a pole.

    References
    ----------
    .. [1] IAU Commission 5, "Specifications concerning designations for astronomical radiation sources", 1983.

    Examples
    --------
    >>> iau_names([188.644074999, 359.9999999], [-0.00001, 89.99999]).to_pylist()
    ['LPC J123434.57-000000.0', 'LPC J235959.99+895959.9']
    """
    ra, dec = np.atleast_1d(np.asarray(ra_deg, float)), np.atleast_1d(np.asarray(dec_deg, float))
    if not (np.isfinite(ra).all() and (np.abs(dec) <= 90).all()):
        raise ValueError("positions must be finite, declinations between -90 and 90 deg")
    centiseconds = np.rint((ra % 360.0) * (24_000 * _GRAIN)).astype(np.int64) // _GRAIN % 8_640_000
    deciarcsec = np.rint(np.abs(dec) * (36_000 * _GRAIN)).astype(np.int64) // _GRAIN
    head = f"{acronym} J".encode()
    text = np.empty((len(ra), len(head) + 18), np.uint8)
    text[:, : len(head)] = np.frombuffer(head, np.uint8)
    _write(text[:, len(head) : len(head) + 9], centiseconds, "HHMMSS.ss")
    text[:, len(head) + 9] = np.where(dec < 0, ord("-"), ord("+"))
    _write(text[:, len(head) + 10 :], deciarcsec, "DDMMSS.s")
    offsets = pa.py_buffer((np.arange(len(ra) + 1) * text.shape[1]).astype(np.int64))
    return pa.LargeStringArray.from_buffers(len(ra), offsets, pa.py_buffer(text)).cast(pa.string())


def _write(text: NDArray[np.uint8], value: NDArray[np.int64], layout: str) -> None:
    """Write sexagesimal digits from the last to the first; minutes and seconds wrap at 60."""
    value = value.copy()
    for column in range(len(layout) - 1, -1, -1):
        if layout[column] == ".":
            text[:, column] = ord(".")
            continue
        tens = column in (2, 4)  # the tens of minutes and of seconds run from 0 to 5
        base = 6 if tens else 10
        text[:, column] = ord("0") + value % base
        value //= base
