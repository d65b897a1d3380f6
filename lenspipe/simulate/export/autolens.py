"""PyAutoLens: a data set per band (``data.fits``, ``noise_map.fits``, ``psf.fits``) with ``tracer.json`` beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import convolve

from lenspipe.rundir import write_json
from lenspipe.simulate.export.scene import Light, Scene, write_image
from lenspipe.simulate.lens import MacroLens

NAMES = ("data.fits", "noise_map.fits", "psf.fits")
SERSIC = "autogalaxy.profiles.light.standard.sersic.Sersic"


def write_autolens(scene: Scene, folder: Path) -> None:
    """
    A folder per band as those of the autolens workspace, with the true tracer as ``autoconf`` writes objects to JSON.

    Pixels are in nJy, an intensity is per pixel, positions are ``(y, x)``. The first row of a file is the lowest: it
    turns rows over when it reads them. Its PSF lies on the pixels: one that is sampled finer is summed to them.
    """
    for k, band in enumerate(scene.bands):
        out = folder / band
        out.mkdir(exist_ok=True)
        scale = scene.pixel_scale_arcsec
        write_image(out / NAMES[0], scene.image_njy[k], scale, "nJy")
        write_image(out / NAMES[1], scene.noise_njy[k], scale, "nJy")
        write_image(out / NAMES[2], on_pixels(scene.psf[k], scene.psf_sampling), scale, "")
        write_json(out / "tracer.json", tracer(scene, k))


def tracer(scene: Scene, band: int) -> dict[str, Any]:
    """The true tracer of a band."""
    area = scene.pixel_scale_arcsec**2
    unlensed = _named("light", scene.lights(scene.galaxies, band), area)
    lens = _instance(
        "autogalaxy.galaxy.galaxy.Galaxy",
        {"redshift": scene.z_lens, **unlensed, "mass": mass(scene.lens), "shear": shear(scene.lens)},
    )
    source = _instance(
        "autogalaxy.galaxy.galaxy.Galaxy",
        {"redshift": scene.z_source, **_named("light", scene.lights(scene.source, band), area)},
    )
    return _instance("autolens.lens.tracer.Tracer", {"galaxies": {"type": "list", "values": [lens, source]}})


def mass(lens: MacroLens) -> dict[str, Any]:
    """
    ``PowerLaw``: convergence ``(3 - s) / (1 + q) (b / sqrt(x^2 + y^2 / q^2))^(s - 1)``.

    So ``b = theta_E / sqrt(q) ((1 + q) / 2)^(1 / (s - 1))`` of our theta_E (`lenspipe.simulate.lens.MacroLens`).
    """
    q, s = lens.axis_ratio, lens.slope
    radius = lens.theta_e_arcsec / np.sqrt(q) * ((1 + q) / 2) ** (1 / (s - 1))
    return _instance(
        "autogalaxy.profiles.mass.total.power_law.PowerLaw",
        {
            "centre": _pair(lens.y_arcsec, lens.x_arcsec),
            "ell_comps": ell_comps(q, lens.angle_rad),
            "einstein_radius": float(radius),
            "slope": s,
        },
    )


def shear(lens: MacroLens) -> dict[str, Any]:
    """``ExternalShear``."""
    along, across = (float(lens.shear * f(2 * lens.shear_angle_rad)) for f in (np.cos, np.sin))
    path = "autogalaxy.profiles.mass.sheets.external_shear.ExternalShear"
    return _instance(path, {"gamma_1": along, "gamma_2": across})


def ell_comps(axis_ratio: float, angle_rad: float) -> dict[str, Any]:
    """``(f sin 2 phi, f cos 2 phi)`` with ``f = (1 - q) / (1 + q)``."""
    flat = (1 - axis_ratio) / (1 + axis_ratio)
    return _pair(float(flat * np.sin(2 * angle_rad)), float(flat * np.cos(2 * angle_rad)))


def on_pixels(psf: NDArray[np.float64], sampling: int) -> NDArray[np.float64]:
    """A PSF that is sampled ``sampling`` times finer than the pixels, on them: odd side, unit sum."""
    if sampling == 1:
        return psf
    box = np.ones(sampling) if sampling % 2 else np.r_[0.5, np.ones(sampling - 1), 0.5]
    summed = convolve(psf, np.outer(box, box), mode="same")
    middle = len(psf) // 2
    rows = np.arange(middle % sampling, len(psf), sampling)
    out: NDArray[np.float64] = summed[np.ix_(rows, rows)]
    return out / out.sum()


def _named(name: str, lights: Sequence[Light], area: float) -> dict[str, Any]:
    return {f"{name}_{k}": _sersic(light, area) for k, light in enumerate(lights)}


def _sersic(light: Light, area: float) -> dict[str, Any]:
    p = light.profile
    values = {
        "centre": _pair(p.y_arcsec, p.x_arcsec),
        "ell_comps": ell_comps(p.axis_ratio, p.angle_rad),
        "intensity": light.brightness_njy * area,
        "effective_radius": p.radius_arcsec,
        "sersic_index": p.n,
    }
    return _instance(SERSIC, values)


def _instance(path: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "instance", "class_path": path, "arguments": dict(arguments)}


def _pair(y: float, x: float) -> dict[str, Any]:
    return {"type": "tuple", "values": [float(y), float(x)]}
