"""A survey's layout: how to find a tile's bands, planes, zero-point, mask bits, pixel scale and PSF width."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, field_validator, model_serializer

from lenspipe.bands import file_name_pattern
from lenspipe.errors import ConfigError, did_you_mean
from lenspipe.survey.structure import UNPACKED_GB_MAX, Checks
from lenspipe.toml import Table, parse_toml, read_toml

Hdu = int | str


class FileRule(Table):
    """How one kind of image file is named, and where its weight and mask lie."""

    pattern: str
    """Regular expression searched in the file's path (with / between folders), with a named group ``tile``
    and, where the name says so, ``band``; ``{band}`` stands for such a group of every band that
    `lenspipe.bands` knows in file names."""
    band: str | None = None
    """Band of the image, for files that hold several: of the rules that match a file, the first counts, and
    rules with a ``band`` of their own all count."""
    image_hdu: Hdu | None = None
    """HDU of the image, by number or name; the first HDU that holds a two-dimensional image where absent."""
    weight_hdu: Hdu | None = None
    """HDU of the weight plane; in the image's own file unless ``weight_file`` is given."""
    weight_file: str | None = None
    """Sibling file of the weight: a replacement for the whole file name, with ``\\g<tile>``, ``\\g<band>`` and
    every other named group of ``pattern``, and ``*`` for what is not known."""
    mask_hdu: Hdu | None = None
    """HDU of the mask plane."""
    mask_file: str | None = None
    """Sibling file of the mask, written as ``weight_file`` is."""
    pixel_scale_arcsec: float | None = Field(default=None, gt=0)
    """Pixel scale these files must have; not checked where absent."""

    @field_validator("pattern")
    @classmethod
    def _has_a_tile(cls, pattern: str) -> str:
        pattern = pattern.replace("{band}", file_name_pattern())
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if "tile" not in groups:
            raise ValueError("the pattern needs a named group (?P<tile>...)")
        return pattern


class ZeroPoint(Table):
    """The AB magnitude of one unit of the pixels, by the first rule that applies (see `lenspipe.survey.flux`)."""

    units: dict[str, float] = {}
    """AB zero-point by the value of BUNIT, for example ``nJy = 31.4``. A BUNIT that is a flux density is understood
    without being listed; a rule below that contradicts it is refused."""
    keywords: tuple[str, ...] = ()
    """Header keywords that hold the zero-point: AB unless ``vega_to_ab``, of one unit of the pixels unless ``per``."""
    unproven_keywords: tuple[str, ...] = ()
    """Header keywords that observatories use differently: taken only where the header itself says AB (PHOTSYS, or the
    card's comment) and of what; else refused by name. Where given, ``keywords`` must also agree with one another."""
    fluxmag0_keywords: tuple[str, ...] = ()
    """Header keywords that hold the counts of an object of magnitude zero (HSC)."""
    photflam: bool = False
    """Use PHOTFLAM and PHOTPLAM, which are of one count per second: -2.5 log10(PHOTFLAM) - 5 log10(PHOTPLAM) - 2.408
    (HST/ACS data handbook)."""
    ab: float | None = None
    """Zero-point that the survey's documentation states for every tile."""
    per: Literal["pixel", "second", "exposure"] | None = None
    """What ``keywords`` and ``ab`` are of: one unit of the pixels, one count per second, or one count of the exposure.
    Where absent: of the pixels, but refused where BUNIT is per second and there is an exposure time."""
    pixels: Literal["exposure", "rate", "flux"] | None = None
    """What pixels hold where BUNIT does not say: counts of the exposure, counts per second, or fluxes of zero-point
    ``ab`` (then a BUNIT of counts is refused)."""
    exposure_keywords: tuple[str, ...] = ("EXPTIME",)
    """Header keywords of the exposure time in seconds, asked in turn."""
    vega_to_ab: dict[str, float] = {}
    """AB minus Vega magnitude by band: the survey's keywords are Vega magnitudes."""
    plausible: tuple[float, float] = (12.0, 40.0)
    """Range of zero-points; a keyword outside (0, -1, 99: never calibrated) is refused."""
    ignore_bunit: bool = False
    """BUNIT of these files is wrong; nothing is read from it."""


class SurveyLayout(Table):
    """One survey; the shipped ``generic.toml`` is a commented example."""

    name: str
    """Short name, used for run folders."""
    description: str
    """One sentence: which release, which files."""
    bands: tuple[str, ...] = ()
    """Bands in order of wavelength; every band that is found where empty."""
    band_names: dict[str, str] = {}
    """Band by the name that files or headers use, for example ``HSC-G = "g"``."""
    band_keywords: tuple[str, ...] = ()
    """Header keywords that name the band, asked in turn for files whose name does not."""
    every_tile_has_every_band: bool = True
    """A tile that lacks a band which other tiles have is a failure; else its columns are null."""
    files: tuple[FileRule, ...]
    """Rules, tried in order for each file; the first that matches counts (but see ``band``)."""
    weight_kind: Literal["invvar", "variance", "rms", "relative"] | None = None
    """What weight planes hold: inverse variance, variance or rms in image units; ``relative`` (an exposure time,
    an inverse variance of unknown scale) says only where there are data: 0 is none."""
    zeros_are_no_data: bool | None = None
    """Whether patches of exact zeros in an image are pixels without data. Where absent they are, but an image that
    looks like photon counts, whose zeros are data, is refused until it is said."""
    mask_bits: tuple[int, ...] = ()
    """Bits of the mask plane that make a pixel bad; any non-zero value is bad where this and
    ``mask_planes`` are empty."""
    mask_planes: tuple[str, ...] = ()
    """Names of bad planes whose bit numbers the mask header gives as ``MP_<NAME>`` (Rubin and HSC)."""
    saturation_keyword: str | None = None
    """Header keyword of the saturation level, in image counts; brighter pixels are masked."""
    saturation: float | None = None
    """Saturation level in image counts for all tiles."""
    zero_point: ZeroPoint
    """Zero-point rule."""
    checksums: Checks = "damage"
    """Which FITS files are refused for their checksums (DATASUM, CHECKSUM), where they have any: ``damage``, those that
    are shown to have been damaged; ``any``, also those whose header was edited since, as many cut-outs' are; ``none``.
    """
    unpacked_gb_max: float = Field(default=UNPACKED_GB_MAX, gt=0)
    """Most that a packed file or a compressed image may unpack to, 1e9 bytes; a larger one is a failure."""
    psf_fwhm_arcsec: dict[str, float] = {}
    """Typical full width at half maximum of the point spread function by band."""
    njy_per_electron: dict[str, float] = {}
    """Flux of one detected electron by band, nJy: where it is said, the noise of what a scan fits is that of photons,
    too."""
    lenses_per_deg2: float | None = Field(default=None, gt=0)
    """Strong lenses that a search of this survey can find per square degree: over the candidates of a run they are the
    prior of ``probability``, where the request states none. Without it such a run has no probabilities."""
    lenses_source: str = "the layout"
    """Where that number is from."""
    viewers: dict[str, str] = {}
    """Web pages of the survey at a position, for the links of the candidate page: by name, an ``https`` address with
    ``{ra}`` and ``{dec}`` in degrees, for example
    ``"Legacy Surveys" = "https://www.legacysurvey.org/viewer?ra={ra}&dec={dec}&layer=ls-dr10&zoom=16"``."""

    @field_validator("viewers")
    @classmethod
    def _are_addresses(cls, viewers: dict[str, str]) -> dict[str, str]:
        for name, address in viewers.items():
            if not (address.startswith("https://") and "{ra}" in address and "{dec}" in address):
                raise ValueError(f"the viewer {name} needs an address https://... with {{ra}} and {{dec}}: {address}")
        return viewers

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In JSON what was not there once is left out where it is not said: older runs can be resumed."""
        whole: dict[str, Any] = handler(self)
        if info.mode == "json":
            fields = type(self).model_fields
            unsaid = {
                name
                for name in ("checksums", "unpacked_gb_max", "viewers", "njy_per_electron")
                if whole.get(name) == fields[name].default
            }
            whole = {name: value for name, value in whole.items() if name not in unsaid}
        return whole


def layout_names() -> list[str]:
    """Names of the layouts that ship with the package."""
    folder = resources.files("lenspipe.survey") / "layouts"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def read_layout(name_or_file: str | Path) -> SurveyLayout:
    """
    A shipped layout by name, or a user's own TOML file.

    Raises
    ------
    ConfigError
        No such layout (the nearest name is given), or the file is not a valid layout.
    """
    text = str(name_or_file)
    if text.endswith(".toml"):
        return read_toml(text, SurveyLayout)
    names = layout_names()
    if text not in names:
        hint = did_you_mean(text, names)
        raise ConfigError(f"unknown survey. {hint} Known: {', '.join(names)}; or give a .toml file", survey=text)
    source = resources.files("lenspipe.survey") / "layouts" / f"{text}.toml"
    return parse_toml(source.read_text(encoding="utf-8"), SurveyLayout, origin=f"{text}.toml")
