"""lenstronomy: keyword arguments per band as JSON, beside the FITS files that they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lenspipe.rundir import write_json
from lenspipe.simulate.export.scene import Light, Scene, write_pixels


def write_lenstronomy(scene: Scene, folder: Path) -> None:
    """
    ``BAND.json`` of each band: the keyword arguments that lenstronomy (Birrer & Amara 2018) takes, pixels in nJy.

    Where it wants an array the file says the name of a FITS file. Its Einstein radius, angles and Sersic radius are
    ours (`lenspipe.simulate.lens.MacroLens`); its amplitude is the surface brightness at the half-light radius, and its
    Sersic constant is an approximation that is good to 1e-3 of the flux.
    """
    for k, band in enumerate(scene.bands):
        names = (f"image_{band}.fits", f"noise_map_{band}.fits", f"psf_{band}.fits")
        write_pixels(scene, k, names, folder)
        write_json(folder / f"{band}.json", arguments(scene, k, names))


def arguments(scene: Scene, band: int, names: tuple[str, str, str]) -> dict[str, Any]:
    """Keyword arguments of a band; `names` are of image, noise map and PSF."""
    lens, side, scale = scene.lens, scene.image_njy.shape[-1], scene.pixel_scale_arcsec
    mass = {
        "theta_E": lens.theta_e_arcsec,
        "gamma": lens.slope,
        **ellipticity(lens.axis_ratio, lens.angle_rad),
        "center_x": lens.x_arcsec,
        "center_y": lens.y_arcsec,
    }
    shear = {
        "gamma1": lens.shear * np.cos(2 * lens.shear_angle_rad),
        "gamma2": lens.shear * np.sin(2 * lens.shear_angle_rad),
        "ra_0": lens.x_arcsec,
        "dec_0": lens.y_arcsec,
    }
    source, light = (sersics(scene.lights(some, band)) for some in (scene.source, scene.galaxies))
    corner = -(side - 1) / 2 * scale
    return {
        "kwargs_model": {
            "lens_model_list": ["EPL", "SHEAR"],
            "source_light_model_list": ["SERSIC_ELLIPSE"] * len(source),
            "lens_light_model_list": ["SERSIC_ELLIPSE"] * len(light),
        },
        "kwargs_params": {"kwargs_lens": [mass, shear], "kwargs_source": source, "kwargs_lens_light": light},
        "kwargs_data": {
            "image_data": names[0],
            "noise_map": names[1],
            "ra_at_xy_0": corner,
            "dec_at_xy_0": corner,
            "transform_pix2angle": [[scale, 0.0], [0.0, scale]],
        },
        "kwargs_psf": {
            "psf_type": "PIXEL",
            "kernel_point_source": names[2],
            "point_source_supersampling_factor": scene.psf_sampling,
        },
        "kwargs_numerics": {
            "supersampling_factor": scene.psf_sampling if scene.psf_sampling > 1 else scene.supersampling,
            "supersampling_convolution": scene.psf_sampling > 1,
        },
        "z_lens": scene.z_lens,
        "z_source": scene.z_source,
    }


def sersics(lights: Sequence[Light]) -> list[dict[str, float]]:
    """Arguments of ``SERSIC_ELLIPSE``."""
    return [
        {
            "amp": light.brightness_njy,
            "R_sersic": light.profile.radius_arcsec,
            "n_sersic": light.profile.n,
            **ellipticity(light.profile.axis_ratio, light.profile.angle_rad),
            "center_x": light.profile.x_arcsec,
            "center_y": light.profile.y_arcsec,
        }
        for light in lights
    ]


def ellipticity(axis_ratio: float, angle_rad: float) -> dict[str, float]:
    """Components ``(1 - q) / (1 + q)`` times cosine and sine of twice the angle."""
    flat = (1 - axis_ratio) / (1 + axis_ratio)
    return {"e1": float(flat * np.cos(2 * angle_rad)), "e2": float(flat * np.sin(2 * angle_rad))}
