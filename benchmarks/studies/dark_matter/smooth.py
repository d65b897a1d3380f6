"""A lens of a recipe without noise as a function of its smooth parameters, each with the width of its prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.observe import Conditions, band_slices, draw_conditions, grid_of
from lenspipe.simulate.published_image import PublishedScene, draw_scene
from lenspipe.simulate.recipe import Recipe
from lenspipe.simulate.render import Deflector, convolve, render, shoot_rays
from lenspipe.simulate.stamp import lens_of_recipe, perturbed

Array = NDArray[np.float64]
Parameters = dict[str, tuple[float, float]]
"""Value and standard deviation of the prior by name; what is known has a deviation of zero."""

TURN = 1.0
"""Prior of a free angle, rad: wide enough to know nothing."""


@dataclass(frozen=True, eq=False)
class SmoothLens:
    """One drawn lens, ready to be imaged with other parameters or with substructure; images are in units of noise."""

    parameters: Parameters
    """Parameters that a classifier does not know."""
    image: Callable[[dict[str, float]], Array]
    """The image ``(pixel,)`` without substructure, for values of the parameters."""
    draw: Callable[[np.random.Generator, str], tuple[list[Deflector], dict[str, Any]]]
    """Substructure of a class: all deflectors, and facts."""
    perturbed: Callable[[list[Deflector]], Array]
    """The image behind other deflectors."""

    def truth(self) -> Array:
        """The image as it was drawn, without substructure."""
        return self.image({})

    def jacobian(self) -> tuple[Array, Array]:
        """Change of the image per parameter ``(parameter, pixel)``, by central differences, and the priors' widths."""
        rows, widths = [], []
        for name, (value, sd) in self.parameters.items():
            if sd <= 0:
                continue
            step = min(1e-3, 0.01 * sd)
            above, below = (self.image({name: value + sign * step}) for sign in (1, -1))
            rows.append((above - below) / (2 * step))
            widths.append(sd)
        return np.array(rows), np.array(widths)


def smooth_lens(recipe: Recipe, seed: int, item: int) -> SmoothLens:
    """Lens ``item`` of a run, without substructure."""
    rng = np.random.default_rng([seed, item])
    conditions = draw_conditions(rng, recipe)
    if recipe.published is not None:
        return _published(draw_scene(rng, recipe, "no_substructure", conditions, seed=seed))
    return _population(rng, recipe, conditions)


def _uniform(bounds: tuple[float, float] | None) -> float:
    return 0.0 if bounds is None else float(bounds[1] - bounds[0]) / np.sqrt(12)


def _published(scene: PublishedScene) -> SmoothLens:
    table, lens = scene.table, scene.lens
    macro, source, light = lens.smooth, lens.source, lens.light
    profile = source.profile
    assert isinstance(profile, Sersic)
    place = (
        _uniform(table.source_offset_arcsec) if table.source_place == "square" else table.source_offset_arcsec[1] / 2
    )
    # near a round shape the angle is not known, and near none the shear's: the components are
    values: Parameters = {
        "theta_e": (macro.theta_e_arcsec, _uniform(table.theta_e_arcsec)),
        "axis_ratio": (macro.axis_ratio, _uniform(table.axis_ratio)),
        "angle": (macro.angle_rad, _uniform(table.angle_rad)),
        "shear": (macro.shear, _uniform(table.shear)),
        "shear_angle": (macro.shear_angle_rad, _uniform(table.shear_angle_rad)),
        "x": (profile.x_arcsec, place),
        "y": (profile.y_arcsec, place),
        "log_radius": (0.0, _uniform(table.source_radius_arcsec) / profile.radius_arcsec),
        "log_n": (0.0, _uniform(table.source_n) / profile.n),
        "q": (profile.axis_ratio, _uniform(table.source_axis_ratio)),
        "turn": (profile.angle_rad, _uniform(table.source_angle_rad)),
        "log_flux": (0.0, _of_flux(table.source_mag, table.source_brightness_njy)),
    }
    if light is not None:
        assert isinstance(light.profile, Sersic)
        values |= {
            "light_log_flux": (0.0, _of_flux(None, table.lens_brightness_njy)),
            "light_log_radius": (0.0, _uniform(table.lens_radius_arcsec) / light.profile.radius_arcsec),
            "light_q": (light.profile.axis_ratio, _uniform(table.lens_axis_ratio)),
            "light_turn": (light.profile.angle_rad, _uniform(table.lens_angle_rad)),
        }
    base_light = scene.light_njy()
    sigma = np.sqrt(scene.variance(scene.arcs_njy([macro]) + base_light))

    def moved(changed: dict[str, float]) -> PublishedScene:
        at = {name: value for name, (value, _) in values.items()} | changed
        main = replace(
            macro,
            theta_e_arcsec=at["theta_e"],
            axis_ratio=min(at["axis_ratio"], 1.0),
            angle_rad=at["angle"],
            shear=at["shear"],
            shear_angle_rad=at["shear_angle"],
        )
        bright = _moved(profile, at)
        shining = light
        if light is not None:
            assert isinstance(light.profile, Sersic)
            of_light = replace(
                light.profile,
                radius_arcsec=light.profile.radius_arcsec * float(np.exp(at["light_log_radius"])),
                axis_ratio=float(np.clip(at["light_q"], 0.05, 1)),
                angle_rad=at["light_turn"],
            )
            shining = Component(of_light, light.flux_njy * np.exp(at["light_log_flux"]))
        now = replace(
            lens, smooth=main, source=Component(bright, source.flux_njy * np.exp(at["log_flux"])), light=shining
        )
        return replace(scene, lens=now)

    def image(changed: dict[str, float]) -> Array:
        now = moved(changed)
        light_now = now.light_njy() if any(name.startswith("light") for name in changed) else base_light
        return ((now.arcs_njy([now.lens.smooth]) + light_now) / sigma).ravel()

    def draw(rng: np.random.Generator, kind: str) -> tuple[list[Deflector], dict[str, Any]]:
        other = draw_scene(rng, scene.recipe, kind, scene.conditions, seed=0).lens
        assert other.perturber is not None
        given_up = other.smooth.theta_e_arcsec - other.main.theta_e_arcsec
        main = replace(macro, theta_e_arcsec=macro.theta_e_arcsec - given_up)
        return [main, other.perturber], other.facts

    def behind(deflectors: list[Deflector]) -> Array:
        return ((scene.arcs_njy(deflectors) + base_light) / sigma).ravel()

    return SmoothLens({k: v for k, v in values.items() if v[1] > 0}, image, draw, behind)


def _of_flux(magnitude: tuple[float, float] | None, brightness: tuple[float, float] | None) -> float:
    if magnitude is not None:
        return _uniform(magnitude) * 0.4 * float(np.log(10))
    return 0.0 if brightness is None else _uniform(brightness) / float(np.mean(brightness))


def _moved(profile: Sersic, at: dict[str, float]) -> Sersic:
    return replace(
        profile,
        x_arcsec=at["x"],
        y_arcsec=at["y"],
        radius_arcsec=profile.radius_arcsec * float(np.exp(at["log_radius"])),
        n=profile.n * float(np.exp(at["log_n"])),
        axis_ratio=float(np.clip(at["q"], 0.05, 1)),
        angle_rad=at["turn"],
    )


def _population(rng: np.random.Generator, recipe: Recipe, conditions: Conditions) -> SmoothLens:
    table = recipe.substructure
    assert table is not None
    lensed = lens_of_recipe(rng, recipe, "no_substructure", conditions, ())
    (macro,) = lensed.deflectors
    assert isinstance(macro, MacroLens)
    facts, components = lensed.facts, list(lensed.arcs.components)
    image_table, bands = recipe.image[0], band_slices(recipe)[0]
    kernels, rms = conditions.kernels(image_table, bands), conditions.sky_rms_njy[bands][:, None, None]
    gain, grid = conditions.njy_per_electron[bands][:, None, None], grid_of(image_table)
    population = recipe.deflectors
    g1, g2 = (macro.shear * f(2 * macro.shear_angle_rad) for f in (np.cos, np.sin))
    spread = population.shear_scatter / np.sqrt(2)
    values: Parameters = {
        "theta_e": (macro.theta_e_arcsec, _uniform(population.theta_e_arcsec)),
        "axis_ratio": (macro.axis_ratio, population.axis_ratio[1]),
        "angle": (macro.angle_rad, TURN),
        "g1": (g1, spread),
        "g2": (g2, spread),
    }
    names = ("x", "y", "log_radius", "log_n", "q", "turn", "log_flux")
    for k, component in enumerate(components):
        profile = component.profile
        assert isinstance(profile, Sersic)
        disc = k == 0
        start = (profile.x_arcsec, profile.y_arcsec, 0.0, 0.0, profile.axis_ratio, profile.angle_rad, 0.0)
        # a clump is round, of index 1, and lies on the disc
        width = (0.5, 0.5, 0.5, 0.4, 0.2, TURN, 1.0) if disc else (0.2, 0.2, 0.33, 0.0, 0.0, 0.0, 0.4)
        values |= {f"{name}_{k}": pair for name, pair in zip(names, zip(start, width, strict=True), strict=True)}

    def render_behind(deflectors: list[Deflector], sources: list[Component]) -> Array:
        sharp = render(sources, shoot_rays(deflectors, grid), grid, len(kernels), sampling=image_table.psf_sampling)
        return convolve(sharp, kernels, sampling=image_table.psf_sampling)

    model = render_behind([macro], components)
    sigma = np.sqrt(rms**2 + gain * model.clip(0))

    def image(changed: dict[str, float]) -> Array:
        at = {name: value for name, (value, _) in values.items()} | changed
        main = replace(
            macro,
            theta_e_arcsec=at["theta_e"],
            axis_ratio=float(np.clip(at["axis_ratio"], 0.2, 0.9999)),
            angle_rad=at["angle"],
            shear=float(np.hypot(at["g1"], at["g2"])),
            shear_angle_rad=0.5 * float(np.arctan2(at["g2"], at["g1"])),
        )
        sources = []
        for k, component in enumerate(components):
            own = {name: at[f"{name}_{k}"] for name in names}
            assert isinstance(component.profile, Sersic)
            sources.append(Component(_moved(component.profile, own), component.flux_njy * np.exp(own["log_flux"])))
        return (render_behind([main], sources) / sigma).ravel()

    def draw(other: np.random.Generator, kind: str) -> tuple[list[Deflector], dict[str, Any]]:
        return perturbed(other, table, kind, macro, facts)

    def behind(deflectors: list[Deflector]) -> Array:
        return (render_behind(deflectors, components) / sigma).ravel()

    return SmoothLens({k: v for k, v in values.items() if v[1] > 0}, image, draw, behind)
