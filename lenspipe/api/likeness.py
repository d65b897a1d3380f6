"""Candidates of a catalogue by likeness to one of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lenspipe.catalog.similar import most_similar, vector_at

if TYPE_CHECKING:
    from astropy.table import Table


def similar(target: str, catalog: str | Path, *, k: int = 100, radius_arcsec: float = 2.0) -> Table:
    """
    Rank a catalogue of a scan with ``--embed`` by likeness to one candidate, as ``lenspipe similar`` does.

    Parameters
    ----------
    target : str
        ``candidate_id``, or ``RA,DEC`` in degrees.
    catalog : path
        Folder of the catalogue.
    k : int
        How many, the most alike first.
    radius_arcsec : float
        How far a row may be from ``RA,DEC``.

    Returns
    -------
    astropy Table
        ``similarity`` (cosine), ``candidate_id``, ``ra``, ``dec``, ``score``.

    Raises
    ------
    ConfigError
        The catalogue has no vectors, or no such candidate.
    """
    from lenspipe.api.table import astropy_table

    _, vector = vector_at(Path(catalog), target, radius_arcsec=radius_arcsec)
    return astropy_table(most_similar(Path(catalog), vector, k))
