"""The bands that the package knows by name: one line of `TABLE` per band, which every other module asks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Band:
    """What is known of a band beside its pixels."""

    name: str
    """Name in layouts, columns, cards and recipes."""
    ucd: str = ""
    """Spectral part of a UCD (IVOA UCD1+ word ``em``); empty where the IVOA's list has none."""
    selection: int | None = None
    """Place among the bands of the magnitude limits where none is named, 1 the first; None: never chosen."""
    flux_of: tuple[str, ...] = ()
    """Bands of the simulated spectra (`lenspipe.simulate.photometry.BANDS`) whose mean flux it has; empty: unknown."""
    in_file_names: bool = False
    """Whether a file ``NAME_<band>.fits`` of no particular survey is taken for an image in this band."""


TABLE: tuple[Band, ...] = (
    Band(name="u", ucd="em.opt.U", selection=14, flux_of=("u",), in_file_names=True),
    Band(name="B", ucd="em.opt.B"),
    Band(name="g", ucd="em.opt.B", selection=13, flux_of=("g",), in_file_names=True),
    Band(name="F475W", ucd="em.opt.B"),
    Band(name="V", ucd="em.opt.V"),
    Band(name="F606W", ucd="em.opt.R"),
    Band(name="r", ucd="em.opt.R", selection=5, flux_of=("r",), in_file_names=True),
    Band(name="R", ucd="em.opt.R"),
    Band(name="i", ucd="em.opt.I", selection=1, flux_of=("i",), in_file_names=True),
    Band(name="VIS", ucd="em.opt.R", selection=3, flux_of=("r", "i", "z"), in_file_names=True),
    Band(name="I", ucd="em.opt.I", selection=2),
    Band(name="F814W", ucd="em.opt.I", selection=4, flux_of=("i",)),
    Band(name="z", ucd="em.opt.I", selection=6, flux_of=("z",), in_file_names=True),
    Band(name="y", ucd="em.IR.J", selection=8, flux_of=("Y",), in_file_names=True),
    Band(name="Y", ucd="em.IR.J", selection=7, flux_of=("Y",), in_file_names=True),
    Band(name="J", ucd="em.IR.J", selection=9, flux_of=("J",), in_file_names=True),
    Band(name="H", ucd="em.IR.H", selection=10, flux_of=("H",), in_file_names=True),
    Band(name="F160W", flux_of=("H",)),
    Band(name="K", ucd="em.IR.K", selection=12, in_file_names=True),
    Band(name="Ks", ucd="em.IR.K", selection=11, in_file_names=True),
)
"""Blue to red; the wide ``VIS``, which spans r to z, stands behind i."""

COLOUR = ("i", "r", "g")
"""Shown as red, green and blue wherever all three are there."""


def known_band(name: str) -> Band | None:
    """The line of a band, None where the table has none."""
    return next((band for band in TABLE if band.name == name), None)


def by_wavelength(name: str) -> tuple[int, str]:
    """
    Key to sort bands blue to red; unknown ones come last, by name.

    Examples
    --------
    >>> sorted(["Ks", "VIS", "g", "other"], key=by_wavelength)
    ['g', 'VIS', 'Ks', 'other']
    """
    names = [band.name for band in TABLE]
    return (names.index(name) if name in names else len(names), name)


def selection_band(bands: Sequence[str]) -> str:
    """
    The band of the magnitude limits where none is named: red, deep and common comes first, else the first given.

    Examples
    --------
    >>> selection_band(("u", "g", "r"))
    'r'
    """
    ranked = [(known.selection, b) for b in bands if (known := known_band(b)) and known.selection is not None]
    return min(ranked)[1] if ranked else bands[0]


def colour_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """
    Bands shown as red, green and blue; one band alone is shown in grey.

    i r g where they are there, else the reddest, middle and bluest. Unknown bands keep their order behind the known
    ones.

    Examples
    --------
    >>> colour_bands(["u", "g", "r", "i", "z"]), colour_bands(["VIS"]), colour_bands(["VIS", "Y", "J", "H"])
    (('i', 'r', 'g'), ('VIS',), ('H', 'J', 'VIS'))
    """
    if set(COLOUR) <= set(bands):
        return COLOUR
    if len(bands) == 1:
        return tuple(bands)
    ordered = sorted(bands, key=lambda band: by_wavelength(band)[0])
    return ordered[-1], ordered[len(ordered) // 2], ordered[0]


def file_name_pattern(bands: Iterable[Band] | None = None) -> str:
    """
    Regular expression, a group named ``band``, of the bands that file names of no particular survey may hold.

    Examples
    --------
    >>> file_name_pattern([Band(name=n, in_file_names=True) for n in ("g", "r", "VIS")])
    '(?P<band>[gr]|VIS)'
    """
    names = [band.name for band in (TABLE if bands is None else bands) if band.in_file_names]
    letters = "".join(name for name in names if len(name) == 1)
    words = sorted(re.escape(name) for name in names if len(name) > 1)
    return f"(?P<band>{'|'.join([f'[{letters}]'] * bool(letters) + words)})"
