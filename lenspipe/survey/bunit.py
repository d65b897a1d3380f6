"""What BUNIT says: a unit of flux, of brightness, counts, or nothing that pixels can be scaled by."""

from __future__ import annotations

import dataclasses
import math
import re
import warnings
from typing import Literal

import astropy.units as u

from lenspipe.survey.keywords import NO_VALUE
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

JANSKY_ZERO_POINT_AB = NANOJANSKY_ZERO_POINT_AB - 22.5

Kind = Literal["flux", "brightness", "counts", "rate", "other", "none"]

_COUNT = r"(?:adu|dn|data\s?numbers?|counts?|cts?|(?:photo)?electrons?|e-?|photons?|ph)"
_PER_PIXEL = re.compile(r"(?i)\s*(?:/|\bper\b)\s*pix(?:els?)?\b|\s*\bpix(?:el)?\s*(?:\^|\*\*)?\s*-1")
_PER_SECOND = r"(?:\s*(?:/|per)\s*s(?:ec(?:ond)?s?)?|[\s.*]*s(?:ec)?\s*(?:\^|\*\*)?\s*\(?-1\)?)"
_COUNTS, _RATE = re.compile(rf"(?i){_COUNT}"), re.compile(rf"(?i)(?:{_COUNT}{_PER_SECOND}|cps|hz|1/s|s-1)")
_MAGGIES = re.compile(r"(?i)(?P<prefix>nano|n|micro|u|µ|pico|p)?\s*(?:maggys?|maggies|mgys?)")
_PREFIX = {None: 1.0, "nano": 1e-9, "n": 1e-9, "micro": 1e-6, "u": 1e-6, "µ": 1e-6, "pico": 1e-12, "p": 1e-12}
_SHOUTED = re.compile(r"(?i)(?P<prefix>[munkg]?)jy")
_NOT_LINEAR = re.compile(r"(?i)mag|lupt|asinh|sinh|log|dex|\bs/n\b|snr|sigma|percent|%|vega")


@dataclasses.dataclass(frozen=True)
class Bunit:
    """What BUNIT says of the pixels."""

    text: str
    kind: Kind
    """``flux`` per pixel, ``brightness`` (flux per solid angle), ``counts`` of the whole exposure, ``rate`` (counts
    per second), ``other`` (not a linear flux, or not to be understood for sure), ``none`` where it says nothing."""
    zero_point_ab: float | None = None
    """AB magnitude of one unit: per pixel, or per square arcsecond for a brightness."""


def parse_bunit(text: str) -> Bunit:
    """
    What a BUNIT means; the case of a prefix counts (``MJy`` is not ``mJy``).

    Examples
    --------
    >>> [parse_bunit(t).kind for t in ("MJy/sr", "ELECTRONS/S", "adu", "mag", "")]
    ['brightness', 'rate', 'counts', 'other', 'none']
    >>> round(parse_bunit("MJy").zero_point_ab, 2), parse_bunit("nanomaggies").zero_point_ab
    (-6.1, 22.5)
    """
    plain = text.strip().strip("[]").strip()
    if plain.lower() in NO_VALUE | {"relative", "arbitrary", "unitless", "dimensionless"}:
        return Bunit(text.strip(), "none")
    bare = _PER_PIXEL.sub("", plain)
    if _COUNTS.fullmatch(bare):
        return Bunit(text, "counts")
    if _RATE.fullmatch(bare):
        return Bunit(text, "rate")
    if found := _MAGGIES.fullmatch(bare):
        prefix = found["prefix"]
        return Bunit(text, "flux", round(-2.5 * math.log10(_PREFIX[prefix and prefix.lower()]), 10))
    if found := shouted(bare):
        if found["prefix"].lower() == "m":
            return Bunit(text, "other")  # milli or mega: 22.5 mag apart
        bare = found["prefix"].lower().replace("g", "G") + "Jy"
    if _NOT_LINEAR.search(bare):
        return Bunit(text, "other")
    return _of_astropy(text, bare)


def shouted(text: str) -> re.Match[str] | None:
    """A unit of jansky per pixel that is not written ``Jy``, so that the case of its ``prefix`` says nothing."""
    bare = _PER_PIXEL.sub("", text.strip())
    return None if bare.endswith("Jy") else _SHOUTED.fullmatch(bare)


def _of_astropy(text: str, bare: str) -> Bunit:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            unit = u.Unit(bare)
    except (ValueError, TypeError):
        return Bunit(text, "none")
    if unit.is_equivalent(u.Jy):
        return Bunit(text, "flux", _magnitude(unit.to(u.Jy)))
    if unit.is_equivalent(u.Jy / u.arcsec**2):
        return Bunit(text, "brightness", _magnitude(unit.to(u.Jy / u.arcsec**2)))
    bases = {base.name for base in unit.bases}
    if bases and bases <= {"adu", "ct", "count", "electron", "ph", "photon", "DN", "dn"}:
        return Bunit(text, "counts")
    return Bunit(text, "other" if bases else "none")


def _magnitude(jansky: float) -> float:
    return JANSKY_ZERO_POINT_AB - 2.5 * math.log10(jansky)
