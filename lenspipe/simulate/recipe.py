"""A recipe: which stamps to simulate. Typed TOML; the shipped ones lie in `recipes/`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator

from lenspipe.errors import ConfigError, did_you_mean
from lenspipe.simulate.population import DeflectorPopulation, Range, SourcePopulation
from lenspipe.simulate.published import PublishedTable
from lenspipe.toml import Table, parse_toml, put_over, read_toml

REAL = "real"
"""Class of real sources as they are; only where there are hosts."""


class ImageTable(Table):
    """One pixel grid of a stamp."""

    name: str = "image"
    """Column of the data set."""
    bands: tuple[str, ...] = Field(min_length=1)
    """Bands in stored order."""
    size_px: int = Field(ge=16, le=512)
    """Side, pixels."""
    pixel_scale_arcsec: float = Field(gt=0)
    """Pixel scale, arcsec."""
    supersampling: int = Field(4, ge=1)
    """Rays per pixel and axis."""
    psf_sampling: int = Field(1, ge=1)
    """PSF samples per pixel and axis; more than 1 where the pixels undersample the PSF."""


class BandTable(Table):
    """How a survey sees one band."""

    seeing_fwhm_arcsec: Range
    """Mean and scatter of the PSF's FWHM, arcsec (log-normal)."""
    depth_mag: Range
    """Mean and scatter of the 5 sigma depth in a 2 arcsec aperture, AB mag."""
    njy_per_electron: float = Field(gt=0)
    """Flux of one photo-electron in the co-added image, nJy."""


class SurveyTable(Table):
    """A survey that stamps are drawn from."""

    name: str
    """Its name, kept in the column ``survey``."""
    weight: float = Field(1.0, gt=0)
    """Relative number of stamps."""
    psf: Literal["moffat", "gaussian"] = "moffat"
    """Form of the PSF."""
    moffat_beta: float = Field(3.0, gt=1)
    """Moffat exponent."""
    band: dict[str, BandTable]
    """By name of the band."""


class SubstructureTable(Table):
    """Ranges of the substructure's parameters, each drawn log-uniform except the slope, which is uniform."""

    mass_fraction: Range = (0.003, 0.03)
    """Projected mass fraction in subhalos within 1.5 Einstein radii."""
    slope: Range = (-2.1, -1.7)
    """Logarithmic slope of the subhalo mass function."""
    mass_range_msun: Range = (1e7, 1e10)
    """Smallest and largest subhalo, Msun."""
    point_masses: bool = False
    """Point masses instead of truncated NFW halos."""
    vortex_mass_msun: Range = (3e9, 2e10)
    """Total mass of the vortex, Msun."""
    axion_mass_ev: Range = (4e-24, 4e-23)
    """Mass of the axion, eV; sets the length of the vortex."""


class HostTable(Table):
    """How real hosts are taken where stamps are painted on them (``--hosts``); alike in every class."""

    shrink: Range = (1.0, 1.0)
    """A host's pixels are taken as this much smaller on the sky, uniform, and brought back to the stamp's grid."""
    native_fraction: float = Field(0.0, ge=0, le=1)
    """Part of the stamps whose pixels stay as the survey took them, whatever ``shrink`` says."""
    dimming_mag: Range = (0.0, 0.0)
    """A host is taken as this much fainter, noise and all, uniform: a deeper image of a galaxy further away."""
    reddening: bool = False
    """Whether single bands get a factor of their own, the bluest one down to a half."""
    theta_e_arcsec: Range | None = None
    """Einstein radii, log-uniform between these; those of the recipe's deflectors where null."""
    arc_snr_min: Range | None = None
    """The least signal-to-noise of an arc, log-uniform between these; ``min_arc_snr`` where null."""
    visible_arcsec2: float = Field(0.0, ge=0)
    """Least area in which an arc stands out from noise and host (`lenspipe.simulate.on_hosts.visible_arcsec2`)."""
    crowd_fraction: float = Field(0.0, ge=0, le=1)
    """Part of the stamps of every class that get neighbours (`lenspipe.simulate.on_hosts.CROWD`) beside what they show:
    lenses stand in groups, and a network that sees companions among non-lenses alone learns that groups are none."""
    luminous: bool = False
    """Whether the brighter hosts are painted on more often (the brightest quarter four times, the next twice), as
    massive galaxies are those that lens; alike in every class."""
    as_survey: bool = False
    """Whether sharper and deeper hosts are brought to the PSF and noise that the recipe's survey draws, as galaxies
    seen by another telescope: blurred before anything is painted, noise and photon noise added after it, in every
    class."""
    real_shares: dict[str, float] = {"source": 0.6, "early": 0.2, "star": 0.12, "artefact": 0.08}
    """Kinds of hosts that the class ``real`` is made of, relative numbers; a kind that is not there is left out."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In JSON what came later is left out where it is off, so that older requests stay the same."""
        whole: dict[str, Any] = handler(self)
        later = ("crowd_fraction", "luminous", "as_survey")
        return {k: v for k, v in whole.items() if not (info.mode == "json" and k in later and not v)}

    @model_validator(mode="after")
    def _ordered(self) -> HostTable:
        if not 0 < self.shrink[0] <= self.shrink[1] <= 1:
            raise ValueError("shrink lies above 0 and up to 1, the least first")
        return self


class Recipe(Table):
    """What to simulate."""

    name: str = Field(min_length=1, pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Name, kept in the column ``recipe``."""
    description: str
    """One sentence."""
    kind: Literal["finder", "substructure"]
    """Lenses against what looks like them, or lenses with and without substructure."""
    image: tuple[ImageTable, ...] = Field(min_length=1)
    """Pixel grids; the arcs' signal-to-noise is measured on the first."""
    survey: tuple[SurveyTable, ...] = Field(min_length=1)
    """Where the stamps come from."""
    classes: dict[str, float]
    """Relative numbers: ``lens`` and kinds of negatives; or ``no_substructure``, ``subhalo`` and ``vortex``."""
    deflectors: DeflectorPopulation = DeflectorPopulation()
    """Lenses."""
    sources: SourcePopulation = SourcePopulation()
    """Sources."""
    substructure: SubstructureTable | None = None
    """Only for ``kind = "substructure"``."""
    published: PublishedTable | None = None
    """In its place where lenses, sources and noise are those of a published set: then neither ``deflectors`` nor
    ``sources`` are drawn from, and no stamp is refused for faint arcs."""
    lens_light: bool = True
    """Whether the lens galaxy shines."""
    min_arc_snr: float = Field(20.0, gt=0)
    """Smallest total signal-to-noise of the arcs."""
    min_magnification: float = Field(3.0, gt=1)
    """Smallest magnification."""
    min_source_px: int = Field(0, ge=0)
    """Smallest number of pixels in which the arcs exceed the sky noise (``n_pix_source``)."""
    companion_density_arcmin2: float = Field(30.0, ge=0)
    """Field galaxies with r < 25 per square arcmin, in every class."""
    artefact_fraction: float = Field(0.0, ge=0, le=1)
    """Part of the stamps of every class that have a cosmic ray, a bleed trail or a masked gap."""
    catalogue: bool = False
    """Add the columns of the second Bologna challenge."""
    part_rows: int = Field(200, ge=1)
    """Rows of one Parquet part: what is redone after a crash."""
    hosts: HostTable | None = None
    """How real hosts are taken; as they are where null."""

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """In JSON later tables are left out where they are null, so that older requests stay the same."""
        whole: dict[str, Any] = handler(self)
        later = ("hosts", "published")
        return {k: v for k, v in whole.items() if not (info.mode == "json" and k in later and v is None)}

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of all images, in order."""
        return tuple(band for image in self.image for band in image.bands)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if len(set(self.bands)) != len(self.bands) or len({i.name for i in self.image}) != len(self.image):
            raise ValueError("a band or an image occurs twice")
        for survey in self.survey:
            if missing := [band for band in self.bands if band not in survey.band]:
                raise ValueError(f"survey {survey.name!r} has no table for {', '.join(missing)}")
        for image in self.image:
            if image.supersampling % image.psf_sampling:
                raise ValueError(f"image {image.name!r}: psf_sampling must divide supersampling")
        if not self.classes or min(self.classes.values()) < 0 or not sum(self.classes.values()) > 0:
            raise ValueError("classes need positive relative numbers")
        if unknown := set(self.classes) - set(known_classes(self.kind)):
            raise ValueError(f"unknown classes {sorted(unknown)}; known: {', '.join(known_classes(self.kind))}")
        tables = (self.substructure is not None) + (self.published is not None)
        if tables != (self.kind == "substructure"):
            raise ValueError("a table [substructure] or [published] is needed for kind 'substructure', and only there")
        if self.published is not None and len(self.image) > 1:
            raise ValueError("a published recipe has one image")
        return self


def known_classes(kind: str) -> tuple[str, ...]:
    """Classes that a kind of recipe may ask for."""
    from lenspipe.simulate.negatives import NON_LENSES

    return ("lens", REAL, *NON_LENSES) if kind == "finder" else ("no_substructure", "subhalo", "vortex")


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    folder = resources.files("lenspipe.simulate") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_recipe(
    name_or_file: str,
    *,
    changes: Mapping[str, Any] | None = None,
    pixel_scale_arcsec: float | None = None,
    survey: str | None = None,
) -> Recipe:
    """
    Read a shipped recipe by name, or a TOML file.

    Parameters
    ----------
    name_or_file : str
        One of `recipe_names`, or a path that ends in ``.toml``.
    changes : mapping, optional
        Values by dotted key, put over the recipe before anything else (`lenspipe.toml.put_over`).
    pixel_scale_arcsec : float, optional
        Replaces the pixel scale of a recipe with one image.
    survey : str, optional
        Keeps only this survey of the recipe.

    Raises
    ------
    ConfigError
        There is no such recipe or survey, the file is wrong, or a pixel scale is asked of a recipe with several images.
    """
    if name_or_file.endswith(".toml"):
        recipe = read_toml(Path(name_or_file), Recipe)
    elif name_or_file in recipe_names():
        file = resources.files("lenspipe.simulate") / "recipes" / f"{name_or_file}.toml"
        recipe = parse_toml(file.read_text(encoding="utf-8"), Recipe, origin=f"{name_or_file}.toml")
    else:
        hint = did_you_mean(name_or_file, recipe_names()) or f"Recipes: {', '.join(recipe_names())}; or a .toml file."
        raise ConfigError(f"no such recipe. {hint}", recipe=name_or_file)
    if changes:
        recipe = put_over(recipe, changes, origin="--set")
    if survey is not None:
        kept = tuple(one for one in recipe.survey if one.name == survey)
        if not kept:
            names = ", ".join(one.name for one in recipe.survey)
            raise ConfigError("the recipe has no such survey", survey=survey, known=names)
        recipe = recipe.model_copy(update={"survey": kept})
    if pixel_scale_arcsec is None:
        return recipe
    if len(recipe.image) > 1 or not 0.01 <= pixel_scale_arcsec <= 1:
        raise ConfigError(
            "the pixel scale can be replaced in recipes with one image, between 0.01 and 1 arcsec",
            recipe=recipe.name,
            pixel_scale_arcsec=pixel_scale_arcsec,
        )
    image = recipe.image[0].model_copy(update={"pixel_scale_arcsec": pixel_scale_arcsec})
    return recipe.model_copy(update={"image": (image,)})
