"""COOLEST: a template per band beside its FITS files, and the mass model of a template read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lenspipe.errors import ConfigError
from lenspipe.simulate.cosmology import default_cosmology
from lenspipe.simulate.export.scene import Light, Scene, write_pixels
from lenspipe.simulate.lens import MacroLens
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

"""AB magnitude of 1 nJy."""


def write_coolest(scene: Scene, folder: Path) -> None:
    """
    ``BAND.json`` of each band, in the mode MOCK of COOLEST (Galan et al. 2023), by its own package; pixels in nJy.

    Angles are counted from +y towards -x, in degrees; Einstein and half-light radius are along the intermediate axis,
    as ours. The shear's origin is the centre of the image, as is that of our lenses.

    Raises
    ------
    ConfigError
        The package ``coolest`` is not installed.
    """
    try:
        from coolest.template.json import JSONSerializer
        from coolest.template.lazy import (
            CoordinatesOrigin,
            Cosmology,
            Galaxy,
            Instrument,
            LensingEntityList,
            LightModel,
            MassField,
            MassModel,
            NoiseMap,
            Observation,
            PixelatedPSF,
            PixelatedRegularGrid,
        )
        from coolest.template.standard import COOLEST
    except ImportError as error:
        raise ConfigError("--format coolest needs the package coolest: pip install 'lenspipe[coolest]'") from error
    cosmology = default_cosmology()
    for k, band in enumerate(scene.bands):
        names = (f"image_{band}.fits", f"noise_map_{band}.fits", f"psf_{band}.fits")
        write_pixels(scene, k, names, folder)
        lens_light, source_light = (scene.lights(some, k) for some in (scene.galaxies, scene.source))
        lens = Galaxy(
            "lens and what stands around it",
            scene.z_lens,
            light_model=LightModel(*["Sersic"] * len(lens_light)),
            mass_model=MassModel("PEMD"),
        )
        source = Galaxy("source", scene.z_source, light_model=LightModel(*["Sersic"] * len(source_light)))
        shear = MassField("shear", scene.z_lens, mass_model=MassModel("ExternalShear"))
        _fill(lens.mass_model[0], _mass(scene.lens))
        angle = east_of_north(scene.lens.shear_angle_rad)
        _fill(shear.mass_model[0], {"gamma_ext": scene.lens.shear, "phi_ext": angle})
        for galaxy, lights in ((lens, lens_light), (source, source_light)):
            for profile, light in zip(galaxy.light_model, lights, strict=True):
                _fill(profile, _sersic(light))

        def grid(name: str, side: int, scale: float) -> Any:
            half = side * scale / 2
            return PixelatedRegularGrid(
                name, (-half, half), (-half, half), num_pix_x=side, num_pix_y=side, fits_file_dir=str(folder.resolve())
            )

        scale, side = scene.pixel_scale_arcsec, scene.image_njy.shape[-1]
        psf = PixelatedPSF(grid(names[2], len(scene.psf[k]), scale / scene.psf_sampling))
        template = COOLEST(
            "MOCK",
            CoordinatesOrigin(),
            LensingEntityList(lens, shear, source),
            Observation(
                grid(names[0], side, scale),
                noise=NoiseMap(grid(names[1], side, scale)),
                mag_zero_point=NANOJANSKY_ZERO_POINT_AB,
            ),
            Instrument(scale, name=str(scene.facts.get("survey", "")), band=band, psf=psf),
            cosmology=Cosmology(float(cosmology.H0.value), float(cosmology.Om0)),
        )
        JSONSerializer(str(folder.resolve() / band), template).dump_simple()


def read_coolest(path: str | Path) -> MacroLens:
    """
    The mass model of a COOLEST template: one ``PEMD`` or ``SIE``, and an ``ExternalShear`` where there is one.

    Only the plain JSON form is read, never that of jsonpickle, which can run code.

    Raises
    ------
    ConfigError
        The file is not such a template, or its mass is not of this form.
    """
    try:
        entities = json.loads(Path(path).read_text(encoding="utf-8"))["lensing_entities"]
        profiles = [profile for one in entities for profile in one["mass_model"]]
        found = {p["type"]: {k: v["point_estimate"]["value"] for k, v in p["parameters"].items()} for p in profiles}
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"not a COOLEST template in plain JSON: {error}", file=str(path)) from error
    kinds = sorted(p["type"] for p in profiles)
    main = [kind for kind in kinds if kind != "ExternalShear"]
    if main not in (["PEMD"], ["SIE"]) or kinds.count("ExternalShear") > 1:
        raise ConfigError(
            "the mass must be one PEMD or SIE, with one ExternalShear at most", file=str(path), got=",".join(kinds)
        )
    own, shear = found[main[0]], found.get("ExternalShear", {"gamma_ext": 0.0, "phi_ext": 0.0})
    return MacroLens(
        theta_e_arcsec=float(own["theta_E"]),
        axis_ratio=float(own["q"]),
        angle_rad=from_x(float(own["phi"])),
        slope=float(own.get("gamma", 2.0)),
        shear=float(shear["gamma_ext"]),
        shear_angle_rad=from_x(float(shear["phi_ext"])),
        x_arcsec=float(own["center_x"]),
        y_arcsec=float(own["center_y"]),
    )


def east_of_north(angle_rad: float) -> float:
    """
    An axis from +x towards +y, radians, as one from +y towards -x, degrees, above -90 and up to 90.

    Examples
    --------
    >>> east_of_north(0.0), round(east_of_north(np.pi / 4), 9), round(east_of_north(np.pi / 2), 9)
    (90.0, -45.0, 0.0)
    """
    return float(90.0 - (180.0 - np.degrees(angle_rad)) % 180.0)


def from_x(east_of_north_deg: float) -> float:
    """The inverse of `east_of_north`, from 0 to pi."""
    return float(np.radians((east_of_north_deg + 90.0) % 180.0))


def _fill(profile: Any, values: dict[str, float]) -> None:
    from coolest.template.classes.parameter import PointEstimate

    for name, value in values.items():
        profile.parameters[name].set_point_estimate(PointEstimate(float(value)))


def _mass(lens: MacroLens) -> dict[str, float]:
    return {
        "theta_E": lens.theta_e_arcsec,
        "gamma": lens.slope,
        "q": lens.axis_ratio,
        "phi": east_of_north(lens.angle_rad),
        "center_x": lens.x_arcsec,
        "center_y": lens.y_arcsec,
    }


def _sersic(light: Light) -> dict[str, float]:
    p = light.profile
    return {
        "I_eff": light.brightness_njy,
        "theta_eff": p.radius_arcsec,
        "n": p.n,
        "phi": east_of_north(p.angle_rad),
        "q": p.axis_ratio,
        "center_x": p.x_arcsec,
        "center_y": p.y_arcsec,
    }
