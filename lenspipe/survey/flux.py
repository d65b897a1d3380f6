"""From a header and a layout's rule to the flux of one pixel unit; what contradicts itself is refused by name."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Literal

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import Fact, TileError
from lenspipe.survey.bunit import Bunit, parse_bunit, shouted
from lenspipe.survey.keywords import comment_of, number, text_of
from lenspipe.survey.layout import ZeroPoint
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

AGREE_MAG = 0.02
"""Two statements of one zero-point may differ by rounding: 3631 Jy against 8.90 mag."""
EXPTIME_MAX_S = 1e8
ASINH_A = 2.5 / math.log(10)
SYSTEM_KEYWORDS = ("PHOTSYS", "MAGSYS", "ZPSYS", "PHOT_SYS", "MAGTYPE")


@dataclasses.dataclass(frozen=True)
class FluxScale:
    """How pixels of an image become nanojansky, and who says so."""

    njy_per_unit: float
    zero_point_ab: float
    """AB magnitude of one unit of the (linear) pixels."""
    source: str
    """Where it comes from: keyword, BUNIT, layout or option, with what was added to it."""
    bunit: str
    """BUNIT as the header has it; empty where it has none."""
    assumed: bool = False
    """Whether the zero-point is the caller's (``--zero-point-ab``)."""


@dataclasses.dataclass(frozen=True)
class _Claim:
    """A zero-point that somebody states for one unit of the pixels."""

    zero_point_ab: float
    source: str


def flux_scale(
    header: Mapping[str, object],
    rule: ZeroPoint,
    *,
    band: str,
    pixel_area_arcsec2: float | None = None,
    assumed_zero_point_ab: float | None = None,
    unreadable: frozenset[str] = frozenset(),
    option: str = "--zero-point-ab",
) -> FluxScale:
    """
    Flux of one unit of an image's pixels.

    A BUNIT that is a flux density says it alone; whatever else is stated must agree with it within `AGREE_MAG`. Else
    the rule's keywords count, then its constant, then ``assumed_zero_point_ab``, which also stands in for a keyword
    that cannot be used (a placeholder, a Vega magnitude, counts per second or per exposure that nobody tells apart).

    Parameters
    ----------
    header : mapping
        Header of the image; comments of cards are looked at where it has any.
    rule : ZeroPoint
        What the survey's layout says.
    band : str
        For the layout's offsets from Vega to AB.
    pixel_area_arcsec2 : float or None
        Solid angle of a pixel, for a BUNIT per solid angle; ``PIXAR_SR`` of the header comes before it.
    assumed_zero_point_ab : float or None
        The user's, for images that state none.
    unreadable : frozenset of str
        Keywords whose cards are not FITS; a zero-point among them is an error.
    option : str
        How the user gives ``assumed_zero_point_ab``, for messages.

    Raises
    ------
    TileError
        Nobody states a zero-point, it is not a number or not a plausible one, or two statements contradict each other.
    """
    _check_readable(rule, unreadable)
    check_scaling(header)
    unit = parse_bunit("" if rule.ignore_bunit else text_of(header, "BUNIT"))
    own, why_not = _of_unit(header, rule, unit, pixel_area_arcsec2)
    try:
        listed = _listed(rule, unit) is not None
        claim = _of_rule(header, rule, unit, band, physical=own is not None, constant=not listed)
    except _UnusableError as problem:
        if own is not None:
            claim = None  # a placeholder beside pixels in flux units contradicts nothing
        elif assumed_zero_point_ab is None:
            todo = f"{problem.layout or 'correct the header'}, or pass {option}"
            raise TileError(f"{problem}; {todo}", **problem.facts) from None
        else:
            claim = None
    if own is not None and claim is not None and abs(own.zero_point_ab - claim.zero_point_ab) > AGREE_MAG:
        raise TileError(
            f"BUNIT = {unit.text!r} means a zero-point of {own.zero_point_ab:.2f}, but {claim.source} says "
            f"{claim.zero_point_ab:.2f}; correct the header, or say in the survey's layout which holds "
            f"([zero_point.units] or ignore_bunit = true)",
            bunit=unit.text,
        )
    text = text_of(header, "BUNIT")
    if (chosen := own or claim) is not None:
        return _scale(chosen, text)
    if why_not:
        raise TileError(why_not, bunit=unit.text)
    if assumed_zero_point_ab is not None:
        return dataclasses.replace(_scale(_Claim(assumed_zero_point_ab, f"option {option}"), text), assumed=True)
    keys = ", ".join((*rule.keywords, *rule.fluxmag0_keywords, *(("PHOTFLAM",) if rule.photflam else ()), "BUNIT"))
    raise TileError(
        f"the header has no zero-point (looked for {keys}); add the keyword, set zero_point.ab in the "
        f"survey's layout, or pass {option}",
        bunit=str(header.get("BUNIT")),
    )


class _UnusableError(Exception):
    """A keyword is there, but what it says cannot be taken as it stands."""

    def __init__(self, message: str, *, layout: str = "", **facts: Fact) -> None:
        super().__init__(message)
        self.layout = layout
        self.facts = facts


def _scale(claim: _Claim, bunit: str) -> FluxScale:
    njy = float(10 ** (0.4 * (NANOJANSKY_ZERO_POINT_AB - claim.zero_point_ab)))
    return FluxScale(njy, claim.zero_point_ab, claim.source, bunit)


def _of_unit(
    header: Mapping[str, object], rule: ZeroPoint, unit: Bunit, pixel_area_arcsec2: float | None
) -> tuple[_Claim | None, str]:
    """What BUNIT alone says of one unit per pixel, or why it stops whatever else is stated."""
    if (listed := _listed(rule, unit)) is not None:
        return _Claim(listed, f"BUNIT {unit.text}"), ""
    if unit.kind == "other":
        ambiguous = shouted(unit.text)
        what = "can be mJy or MJy" if ambiguous else "is not a linear flux or count per pixel"
        raise TileError(
            f"BUNIT = {unit.text!r} {what}; convert the image, or state its zero-point in the survey's layout "
            "([zero_point.units], or ignore_bunit = true where BUNIT is wrong)",
            bunit=unit.text,
        )
    if unit.zero_point_ab is None:
        return None, ""
    if unit.kind == "flux":
        return _Claim(unit.zero_point_ab, f"BUNIT {unit.text}"), ""
    steradian = number(header, "PIXAR_SR")
    area, whence = (steradian * u.sr.to(u.arcsec**2), "PIXAR_SR") if steradian else (pixel_area_arcsec2, "the WCS")
    if not area or not area > 0:
        return None, f"BUNIT = {unit.text!r} is per solid angle, and neither PIXAR_SR nor a WCS gives that of a pixel"
    return _Claim(unit.zero_point_ab - 2.5 * math.log10(area), f"BUNIT {unit.text} and {whence}"), ""


def _listed(rule: ZeroPoint, unit: Bunit) -> float | None:
    text = unit.text.strip()
    if text in rule.units:
        return rule.units[text]
    for name, value in rule.units.items():
        other = parse_bunit(name)
        if unit.kind == "flux" and other.kind == "flux":
            same = abs((other.zero_point_ab or 0) - (unit.zero_point_ab or 0)) < 1e-6
        else:  # a prefix tells mega from milli by its case, so units that are fluxes are never compared by words
            same = "flux" not in (unit.kind, other.kind) and bool(text) and name.lower() == text.lower()
        if same:
            return value
    return None


def _of_rule(
    header: Mapping[str, object], rule: ZeroPoint, unit: Bunit, band: str, *, physical: bool, constant: bool
) -> _Claim | None:
    """
    What keywords or, with ``constant``, the layout's constant say of one unit of the pixels.

    Beside a BUNIT that is ``physical``, keywords that observatories use differently say nothing.
    """
    exposure = _Exposure.of(header, rule, unit)
    stated = [(key, value) for key in rule.keywords if (value := number(header, key)) is not None]
    for key, value in stated[:1]:
        others = [f"{k} = {v:g}" for k, v in stated[1:] if abs(v - value) > AGREE_MAG]
        if others and rule.unproven_keywords:
            raise _UnusableError(
                f"the header's zero-points contradict each other: {key} = {value:g}, {', '.join(others)}",
                layout="say in the survey's layout which keyword holds",
            )
        _check_plausible(key, value, rule)
        return exposure.claim(_to_ab(header, key, value, rule, band), f"keyword {key}", rule.per)
    for key in rule.fluxmag0_keywords:
        flux = number(header, key)
        if flux is not None:
            if not flux > 0:
                raise _UnusableError(f"{key} = {flux:g} is not the flux of magnitude zero")
            value = 2.5 * math.log10(flux)
            _check_plausible(key, value, rule)
            return exposure.claim(_to_ab(header, key, value, rule, band), f"keyword {key}", rule.per)
    if rule.photflam and (claim := _photflam(header, rule, exposure)):
        return claim
    if not physical and rule.ab is None and (claim := _proven(header, rule, exposure, band)):
        return claim
    if rule.ab is None or not constant:
        return None
    if rule.pixels == "flux" and unit.kind in ("counts", "rate"):
        raise TileError(
            f"BUNIT = {unit.text!r}, but the survey's layout says that pixels are fluxes of zero-point {rule.ab:g}; is "
            "this the right --survey? Else state the zero-point of this unit in [zero_point.units] of a layout",
            bunit=unit.text,
        )
    return exposure.claim(rule.ab, "layout", rule.per)


@dataclasses.dataclass(frozen=True)
class _Exposure:
    """Whether pixels are counts of an exposure or per second, and how long it was."""

    pixels: Literal["exposure", "rate", "flux"] | None
    seconds: float | None
    keyword: str
    unit: Bunit

    @classmethod
    def of(cls, header: Mapping[str, object], rule: ZeroPoint, unit: Bunit) -> _Exposure:
        key = next((k for k in rule.exposure_keywords if number(header, k) is not None), "")
        by_unit: dict[str, Literal["exposure", "rate"]] = {"counts": "exposure", "rate": "rate"}
        return cls(by_unit.get(unit.kind, rule.pixels), number(header, key) if key else None, key, unit)

    def claim(self, value: float, source: str, per: Literal["pixel", "second", "exposure"] | None) -> _Claim:
        """Zero-point of one unit of the pixels from that of a count, a count per second, or of a pixel."""
        if per == "pixel" or self.seconds == 1.0:
            return _Claim(value, source)
        if per is None:
            if self.unit.kind == "rate" and self.seconds is not None:
                raise _UnusableError(
                    f"pixels are per second (BUNIT = {self.unit.text!r}, {self.keyword} = {self.seconds:g}), and "
                    f"{source} = {value:g} does not say whether it is of a second or of the exposure",
                    layout='set zero_point.per in the survey\'s layout ("pixel", "second" or "exposure")',
                )
            return _Claim(value, source)
        if self.pixels is None:
            raise _UnusableError(
                f"the zero-point of {source} is per {per}, and nothing says whether pixels are counts or per second "
                f"(BUNIT = {self.unit.text!r})",
                layout='set zero_point.pixels in the survey\'s layout ("exposure" or "rate")',
            )
        if (per, self.pixels) in {("second", "rate"), ("exposure", "exposure")}:
            return _Claim(value, source)
        if self.seconds is None or not 0 < self.seconds < EXPTIME_MAX_S:
            got = f"{self.keyword} = {self.seconds:g}" if self.seconds is not None else "there is none"
            raise _UnusableError(f"the zero-point of {source} is per {per} and needs the exposure time, but {got}")
        sign = 1 if per == "second" else -1
        return _Claim(
            value + sign * 2.5 * math.log10(self.seconds), f"{source} per {per}, {self.keyword} {self.seconds:g} s"
        )


def _photflam(header: Mapping[str, object], rule: ZeroPoint, exposure: _Exposure) -> _Claim | None:
    flam, plam = number(header, "PHOTFLAM"), number(header, "PHOTPLAM")
    if flam is None and plam is None:
        return None
    if not (flam and plam and flam > 0 and plam > 0):
        raise _UnusableError(f"PHOTFLAM = {flam} and PHOTPLAM = {plam} must both be positive")
    value = -2.5 * math.log10(flam) - 5 * math.log10(plam) - 2.408
    _check_plausible("PHOTFLAM", value, rule)
    if exposure.pixels is None and exposure.seconds is None:
        return _Claim(value, "PHOTFLAM")
    return exposure.claim(value, "PHOTFLAM", "second")


def _proven(header: Mapping[str, object], rule: ZeroPoint, exposure: _Exposure, band: str) -> _Claim | None:
    """A keyword that observatories use differently, where the header itself says AB and of what."""
    for key in rule.unproven_keywords:
        value = number(header, key)
        if value is None:
            continue
        _check_plausible(key, value, rule)
        comment = comment_of(header, key)
        per_second = bool(re.search(r"(?i)/\s*s\b|/\s*sec|per\s*s(?:ec)?|\b1(?:\.0)?\s*s(?:ec)?\b", comment))
        system = _system(header, key)
        if system == "ab" and (exposure.seconds in (None, 1.0) or (per_second and exposure.pixels)):
            return exposure.claim(value, f"keyword {key}", "second" if per_second and exposure.seconds else "pixel")
        lacks = [] if system == "ab" else ["AB or Vega"]
        if exposure.seconds not in (None, 1.0):
            lacks.append(f"per second or of the exposure ({exposure.keyword} = {exposure.seconds:g})")
        if system == "vega":
            _to_ab(header, key, value, rule, band)
        raise _UnusableError(
            f"{key} = {value:g} means different things at different observatories, and the header does not say "
            f"whether it is {' and whether it is '.join(lacks)}",
            layout=f'use or write a survey layout that says so (zero_point.keywords = ["{key}"], per, vega_to_ab)',
            keyword=key,
        )
    return None


def _to_ab(header: Mapping[str, object], key: str, value: float, rule: ZeroPoint, band: str) -> float:
    system = _system(header, key)
    if rule.vega_to_ab:
        if system == "ab":
            raise _UnusableError(f"the survey's layout takes {key} for a Vega magnitude, and the header says AB")
        if band not in rule.vega_to_ab:
            raise _UnusableError(
                f"{key} = {value:g} is a Vega magnitude, and the survey's layout has no offset to AB for band {band!r}",
                layout="add it to [zero_point.vega_to_ab]",
            )
        return value + rule.vega_to_ab[band]
    if system == "vega":
        raise _UnusableError(
            f"the header says that {key} = {value:g} is a Vega magnitude",
            layout="put the band's offset to AB into [zero_point.vega_to_ab] of a survey layout",
        )
    return value


def _system(header: Mapping[str, object], key: str) -> Literal["ab", "vega"] | None:
    words = " ".join([*(text_of(header, k) for k in SYSTEM_KEYWORDS), comment_of(header, key)])
    if re.search(r"(?i)vega", words):
        return "vega"
    return "ab" if re.search(r"\bAB\b|(?i:\bABmag)", words) else None


def _check_plausible(key: str, value: float, rule: ZeroPoint) -> None:
    low, high = rule.plausible
    if not low <= value <= high:
        raise _UnusableError(
            f"{key} = {value:g} is not a zero-point that an image has ({low:g} to {high:g}), rather a placeholder",
            layout="correct the header, or set zero_point.plausible in a survey layout",
            keyword=key,
        )


def _check_readable(rule: ZeroPoint, unreadable: frozenset[str]) -> None:
    needed = {"BUNIT", *rule.keywords, *rule.fluxmag0_keywords, *rule.unproven_keywords, "BSOFTEN", "BOFFSET"}
    if broken := sorted(needed & unreadable):
        raise TileError("the header's card of the zero-point cannot be read; mend it", keyword=", ".join(broken))


def check_scaling(header: Mapping[str, object]) -> tuple[float, float] | None:
    """
    ``BOFFSET`` and ``BSOFTEN`` of pixels that are scaled by an inverse hyperbolic sine (Pan-STARRS stacks); else None.

    Raises
    ------
    TileError
        One of the two is missing or no number, or the softening is not positive.
    """
    offset, soften = number(header, "BOFFSET"), number(header, "BSOFTEN")
    if offset is None and soften is None:
        return None
    if offset is None or soften is None or not soften > 0:
        raise TileError(
            "pixels are scaled by an inverse hyperbolic sine, and the header does not say how (BOFFSET, BSOFTEN > 0); "
            "convert the image to linear fluxes",
            boffset=offset,
            bsoften=soften,
        )
    return offset, soften


def linear(pixels: NDArray[np.floating], offset: float, soften: float) -> NDArray[np.float64]:
    """
    Linear fluxes of pixels scaled by an inverse hyperbolic sine.

    flux = BOFFSET + 2 BSOFTEN sinh(v / a), a = 2.5 log10(e) (Waters et al. 2020, ApJS 251, 4, section 3).

    Parameters
    ----------
    pixels : array, any shape
    offset, soften : float
        BOFFSET and BSOFTEN.

    Returns
    -------
    float64 array, same shape
    """
    with np.errstate(over="ignore"):
        flux: NDArray[np.float64] = offset + 2 * soften * np.sinh(np.asarray(pixels, np.float64) / ASINH_A)
    return flux
