"""Images of a lens by caustics: PARAMETERS OUT, in an environment that has it; prints the fastest CPU seconds."""

import sys

import caustics
import numpy as np
import torch
from scipy.special import gamma
from timed import time_images

UPSAMPLING = 4


def peak(flux, n, radius):
    """Brightness at the half-light radius of a Sersic profile of a flux, with the ``b`` that caustics takes."""
    b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2) + 131 / (1148175 * n**3) - 2194697 / (30690717750 * n**4)
    return flux / (2 * np.pi * n * radius**2 * np.exp(b) * b ** (-2 * n) * gamma(2 * n))


def kernel(fwhm, scale):
    """A round Gaussian on an odd grid."""
    half = int(np.ceil(2.5 * fwhm / scale))
    r2 = sum(axis**2 for axis in np.indices((2 * half + 1, 2 * half + 1)) - half) * scale**2
    k = np.exp(-4 * np.log(2) * r2 / fwhm**2)
    return torch.tensor(k / k.sum(), dtype=torch.float32)


def light(given, flux, name):
    """A Sersic profile."""
    angle, q = given["ellipse"]
    x, y = given["center"]
    ie = peak(flux, given["n_sersic"], given["angular_size"])
    radius = given["angular_size"] / q**0.5  # along the major axis
    return caustics.Sersic(name=name, x0=x, y0=y, q=q, phi=angle, n=given["n_sersic"], Re=radius, Ie=ie)


def images(given):
    """A new lens, and its image in each band."""
    cosmology = caustics.FlatLambdaCDM(name="cosmology")
    angle, q = given["mass_ellipse"]
    g_angle, g = given["shear"]
    redshifts = {"cosmology": cosmology, "z_l": 0.5, "z_s": 2.0}
    sie = caustics.SIE(name="sie", x0=0.0, y0=0.0, q=q, phi=angle, Rein=given["theta_e_arcsec"], s=1e-6, **redshifts)
    shear = caustics.ExternalShear(
        name="shear", x0=0.0, y0=0.0, gamma_1=g * np.cos(2 * g_angle), gamma_2=g * np.sin(2 * g_angle), **redshifts
    )
    lens = caustics.SinglePlane(name="lens", lenses=[sie, shear], **redshifts)
    made = []
    for fwhm, lens_flux, source_flux in zip(
        given["fwhm_arcsec"], given["lens_flux"], given["source_flux"], strict=True
    ):
        simulator = caustics.LensSource(
            lens=lens,
            source=light(given["source"], source_flux, "source"),
            lens_light=light(given["lens"], lens_flux, "light"),
            pixelscale=given["pixel_scale_arcsec"],
            pixels_x=given["size_px"],
            upsample_factor=UPSAMPLING,
            psf=kernel(fwhm, given["pixel_scale_arcsec"] / UPSAMPLING),
            name="simulator",
        )
        with torch.no_grad():
            made.append(simulator().numpy() * given["pixel_scale_arcsec"] ** 2)
    return made


if __name__ == "__main__":
    torch.set_num_threads(1)
    time_images(images, *sys.argv[1:])
