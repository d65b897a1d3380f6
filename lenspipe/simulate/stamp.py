"""One labelled stamp from a recipe, a seed and a number: everything in it is drawn from these alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.simulate.arcs import Arcs, lens_again
from lenspipe.simulate.artefacts import ARTEFACTS
from lenspipe.simulate.catalog import catalog_row
from lenspipe.simulate.cosmology import critical_density_msun_arcsec2, lens_distances_mpc
from lenspipe.simulate.hosts import HostStamps
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.lensed import draw_lens, from_population
from lenspipe.simulate.negatives import NON_LENSES, Place, Sky
from lenspipe.simulate.negatives.galaxies import field_galaxies
from lenspipe.simulate.observe import Conditions, band_slices, draw_conditions, grid_of, observe
from lenspipe.simulate.on_hosts import draw_on_host
from lenspipe.simulate.population import SourceImage, deflector_light
from lenspipe.simulate.published_image import published_stamp
from lenspipe.simulate.recipe import REAL, Recipe, SubstructureTable
from lenspipe.simulate.render import Deflector
from lenspipe.simulate.substructure import draw_subhalos, draw_vortex
from lenspipe.simulate.unlensed import shine

MAX_DRAWS = 2000
"""Draws of a lens before a recipe is refused; the shipped ones need 1 to 30."""


@dataclass(frozen=True)
class Stamp:
    """A simulated stamp."""

    images: dict[str, NDArray[np.float32]]
    """``(band, y, x)`` by image column, nJy, finite."""
    label: str
    """Class."""
    host: str
    """What must not be shared by two splits: the real host, or the stamp itself."""
    facts: dict[str, Any]
    """True parameters; those that do not apply are missing."""
    split: str | None = None
    """Split of the host, where hosts were split by sky area; None: by its name."""
    lensed: Lensed | None = None
    """The lens and its source as components, of a stamp that is all drawn; with the galaxies around it."""
    conditions: Conditions | None = None
    """How such a stamp was taken."""


@dataclass(frozen=True)
class Lensed:
    """A lens and what it lenses."""

    deflectors: list[Deflector]
    """The main lens and, where there is one, its substructure."""
    arcs: Arcs
    """Images of the source by all deflectors."""
    sky: Sky
    """Light of the lens."""
    facts: dict[str, Any]
    """True parameters."""


def draw_stamp(
    recipe: Recipe, *, seed: int, item: int, source_images: Sequence[SourceImage] = (), hosts: HostStamps | None = None
) -> Stamp:
    """
    Simulate stamp ``item`` of a run.

    Parameters
    ----------
    recipe : Recipe
    seed, item : int
        The stamp is a function of these two, of the recipe and of the real pixels that are given.
    source_images : sequence of SourceImage
        Real galaxies to be lensed, and to stand for themselves in the classes that are made of images.
    hosts : HostStamps, optional
        Real pixels that every class is then painted on (`lenspipe.simulate.on_hosts`).

    Raises
    ------
    ConfigError
        2000 draws give no lens as the recipe asks for one, or a class is made of images and none are given.
    """
    rng = np.random.default_rng([seed, item])
    names = list(recipe.classes)
    weight = np.array([recipe.classes[name] for name in names])
    kind = names[int(rng.choice(len(names), p=weight / weight.sum()))]
    host_name = f"{recipe.name}-{seed}-{item:08d}"
    if recipe.published is not None:
        pixels, drawn_facts = published_stamp(rng, recipe, kind, seed=seed)
        told = {"kind": kind, "survey": recipe.survey[0].name, "artefact": ""}
        return Stamp({recipe.image[0].name: pixels}, kind, host_name, told | drawn_facts)
    conditions = draw_conditions(rng, recipe)
    facts: dict[str, Any] = {"kind": kind, "survey": conditions.survey.name}
    if hosts is not None:
        drawn = draw_on_host(recipe, rng, kind, hosts, source_images, conditions)
        label = "lens" if kind == "lens" else "nonlens"
        return Stamp({recipe.image[0].name: drawn.pixels_njy}, label, drawn.host, facts | drawn.facts, drawn.split)
    if kind == REAL:
        raise ConfigError("the class real is made of a survey's own sources: give --hosts", recipe=recipe.name)
    facts |= conditions.facts(recipe.bands)
    lensed = None
    if kind in NON_LENSES:
        if NON_LENSES[kind].of_images and not source_images:
            raise ConfigError("this class is made of real galaxies: give --source-images", kind=kind)
        sky = NON_LENSES[kind].draw(rng, Place(recipe.bands, recipe.deflectors, source_images))
        if NON_LENSES[kind].of_images and NON_LENSES[kind].stands == "alone":
            host_name = f"galaxy-{sky.facts['galaxy_image']}"
    else:
        lensed = lens_of_recipe(rng, recipe, kind, conditions, source_images)
        sky = lensed.sky
        facts |= lensed.facts
    if not sky.artefact and rng.uniform() < recipe.artefact_fraction:
        sky.artefact = ARTEFACTS[int(rng.integers(len(ARTEFACTS)))]
    facts |= {"artefact": sky.artefact}
    facts |= sky.facts
    own = list(sky.galaxies)
    if sky.scaled:
        bands = band_slices(recipe)[0]
        view = conditions.view(recipe.image[0], bands)
        own += [component for part in sky.scaled for component in shine(part, view, bands)]
    half = max(image.size_px * image.pixel_scale_arcsec for image in recipe.image) / 2
    sky.galaxies = own + field_galaxies(
        rng, recipe.bands, density_arcmin2=recipe.companion_density_arcmin2, half_width_arcsec=half, clear_arcsec=1.0
    )
    images, foreground = observe(
        sky,
        recipe,
        conditions,
        rng,
        deflectors=lensed.deflectors if lensed else (),
        source=lensed.arcs.components if lensed else (),
        arcs_njy=lensed.arcs.image if lensed else None,
    )
    if recipe.catalogue:
        arcs = lensed.arcs if lensed else None
        facts |= catalog_row(
            recipe,
            item,
            facts,
            foreground,
            arcs,
            sky.galaxies,
            conditions.sky_rms_njy,
            lensed.deflectors if lensed else (),
        )
    label = kind if recipe.kind == "substructure" else ("lens" if lensed else "nonlens")
    return Stamp(images, label, host_name, facts, lensed=lensed, conditions=conditions)


def lens_of_recipe(
    rng: np.random.Generator, recipe: Recipe, kind: str, conditions: Conditions, source_images: Sequence[SourceImage]
) -> Lensed:
    """
    Draw the lens of a stamp: what `draw_stamp` does between the conditions and the pixels.

    Raises
    ------
    ConfigError
        2000 draws give no lens as the recipe asks for one.
    """
    optics, grid = conditions.optics(recipe), grid_of(recipe.image[0])
    rms = conditions.sky_rms_njy[band_slices(recipe)[0]]
    found = draw_lens(
        rng,
        from_population(recipe.deflectors, recipe.sources.redshift),
        optics,
        sources=recipe.sources,
        source_images=source_images,
        min_arc_snr=recipe.min_arc_snr,
        min_magnification=recipe.min_magnification,
        visible=lambda arcs: int(np.count_nonzero(arcs.image[0] > rms[0])) >= recipe.min_source_px,
        attempts=MAX_DRAWS,
    )
    if found is None:
        raise ConfigError(
            "the recipe's populations make no lens as bright as it asks for: lower min_arc_snr or min_source_px",
            recipe=recipe.name,
            draws=MAX_DRAWS,
        )
    arcs, facts = found.arcs, dict[str, Any](found.drawn)
    deflectors: list[Deflector] = [found.lens]
    if recipe.substructure is not None and kind != "no_substructure":
        # the lens was chosen without it, so that no class is selected differently
        deflectors, more = perturbed(rng, recipe.substructure, kind, found.lens, found.drawn)
        facts |= more
        again = lens_again(arcs, deflectors, optics, grid)
        change = (again.image - arcs.image) / rms[:, None, None]
        facts["perturbation_snr"] = float(np.sqrt(np.sum(change**2)))
        arcs = again
    sky = Sky()
    if recipe.lens_light:
        sky.galaxies, sky.facts = deflector_light(rng, recipe.bands, found.drawn)
    return Lensed(deflectors, arcs, sky, arcs.truth | facts)


def perturbed(
    rng: np.random.Generator, table: SubstructureTable, kind: str, lens: MacroLens, drawn: dict[str, float]
) -> tuple[list[Deflector], dict[str, Any]]:
    """The smooth lens less the mass of its substructure inside the Einstein radius, and the substructure."""
    density = critical_density_msun_arcsec2(drawn["z_lens"], drawn["z_source"])
    d_lens = lens_distances_mpc(drawn["z_lens"], drawn["z_source"])[0]
    where = {
        "theta_e_arcsec": lens.theta_e_arcsec,
        "critical_density": density,
        "kpc_per_arcsec": float(d_lens) * 1000 / 206264.806,
    }
    perturber: Deflector
    facts: dict[str, Any]
    if kind == "subhalo":
        fraction = _log_uniform(rng, table.mass_fraction)
        slope = float(rng.uniform(*table.slope))
        perturber, facts = draw_subhalos(
            rng,
            mass_fraction=fraction,
            slope=slope,
            mass_range_msun=table.mass_range_msun,
            point_masses=table.point_masses,
            **where,
        )
        facts |= {"subhalo_mass_fraction": fraction, "subhalo_slope": slope}
        inside = facts["subhalo_mass_within_msun"]
    else:
        vortex, facts = draw_vortex(
            rng,
            mass_msun=_log_uniform(rng, table.vortex_mass_msun),
            axion_mass_ev=_log_uniform(rng, table.axion_mass_ev),
            velocity_dispersion_km_s=drawn["velocity_dispersion_km_s"],
            **where,
        )
        perturber = vortex
        inside = facts["vortex_mass_msun"] * vortex.fraction_within(lens.theta_e_arcsec)
    given_up = inside / (np.pi * lens.theta_e_arcsec * density)
    return [replace(lens, theta_e_arcsec=lens.theta_e_arcsec - given_up), perturber], facts


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))
