"""The columns that the second Bologna challenge gives with every stamp, measured on the simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.simulate.arcs import Arcs
from lenspipe.simulate.cosmology import G_MPC_KM2_S2_MSUN, default_cosmology
from lenspipe.simulate.light import Component
from lenspipe.simulate.photometry import magnitude_of_njy
from lenspipe.simulate.recipe import Recipe
from lenspipe.simulate.render import Deflector, Grid, shoot_rays

COLUMNS: dict[str, tuple[str, str]] = {
    "ID": ("", "number of the stamp"),
    "x_crit": ("arcsec", "centre of the largest critical curve"),
    "y_crit": ("arcsec", "centre of the largest critical curve"),
    "source_ID": ("", "number of the source; -1 for none"),
    "z_source": ("", "redshift of the source"),
    "z_lens": ("", "redshift of the lens"),
    "mag_source": ("mag", "magnitude of the unlensed source in VIS"),
    "ein_area": ("arcsec2", "area inside the largest critical curve"),
    "n_crit": ("", "number of critical curves"),
    "r_source": ("arcsec", "half-light radius of the source"),
    "crit_area": ("arcsec2", "area inside all critical curves"),
    "n_pix_source": ("", "pixels in which the lensed source exceeds the sky noise in VIS"),
    "source_flux": ("nJy", "flux of the lensed source in VIS"),
    "n_pix_lens": ("", "pixels in which everything else exceeds the sky noise in VIS"),
    "lens_flux": ("nJy", "flux of everything else in VIS"),
    "n_source_im": ("", "images of the source"),
    "mag_eff": ("", "magnification: lensed over unlensed flux"),
    "sb_contrast": ("", "brightest pixel of the lensed source over everything else in that pixel"),
    "color_diff": ("mag", "VIS - H of the source less VIS - H of the lens"),
    "n_gal_3": ("", "galaxies within 3 arcsec"),
    "n_gal_5": ("", "galaxies within 5 arcsec"),
    "n_gal_10": ("", "galaxies within 10 arcsec"),
    "halo_mass": ("Msun", "mass of an isothermal halo of the lens's velocity dispersion inside 200 times critical"),
    "star_mass": ("Msun", "stars of the lens, 3 solar masses a solar luminosity in r"),
    "mag_lens": ("mag", "magnitude of the lens in VIS"),
    "n_sources": ("", "sources behind the lens"),
}
"""Column: unit and meaning. Areas are square arcsec; the challenge gives them in its own angular unit."""

INTEGERS = (
    "ID",
    "source_ID",
    "n_crit",
    "n_pix_source",
    "n_pix_lens",
    "n_source_im",
    "n_gal_3",
    "n_gal_5",
    "n_gal_10",
    "n_sources",
)


def catalog_row(
    recipe: Recipe,
    item: int,
    facts: Mapping[str, Any],
    foreground_njy: NDArray[np.float64],
    arcs: Arcs | None,
    galaxies: Sequence[Component],
    sky_rms_njy: NDArray[np.float64],
    deflectors: Sequence[Deflector],
) -> dict[str, Any]:
    """
    Catalogue columns of one stamp; those of a source are missing (null) where there is none.

    Parameters
    ----------
    facts : mapping
        True parameters of the stamp.
    foreground_njy : array ``(band, y, x)``
        First image without arcs and noise.
    arcs : Arcs or None
        The lensed source.
    galaxies : sequence of Component
        All unlensed components, the lens first.
    sky_rms_njy : array ``(n_band,)``
    deflectors : sequence of Deflector
    """
    places = {(getattr(c.profile, "x_arcsec", 0.0), getattr(c.profile, "y_arcsec", 0.0)) for c in galaxies}
    r = np.array([np.hypot(*place) for place in places])
    vis, rms = foreground_njy[0], float(sky_rms_njy[0])
    row: dict[str, Any] = {
        "ID": item,
        "source_ID": -1 if arcs is None else item,
        "n_sources": 0 if arcs is None else 1,
        "n_source_im": 0,
        "n_pix_source": 0,
        "source_flux": 0.0,
        "n_crit": 0,
        "crit_area": 0.0,
        "ein_area": 0.0,
        "n_pix_lens": int(np.count_nonzero(vis > rms)),
        "lens_flux": float(vis.sum()),
    }
    row |= {f"n_gal_{k}": int(np.count_nonzero(r < k)) for k in (3, 5, 10)}
    if sigma := facts.get("velocity_dispersion_km_s"):
        row |= _masses(float(sigma), float(facts["z_lens"]), float(facts["lens_mag_r"]))
        row["mag_lens"] = float(magnitude_of_njy(galaxies[0].flux_njy[0]))
    if arcs is None:
        return row
    source = np.sum([c.flux_njy for c in arcs.components], axis=0)
    lens, arc = galaxies[0].flux_njy, arcs.image[0]
    peak = np.unravel_index(int(arc.argmax()), arc.shape)
    last = len(recipe.bands) - 1
    colour = [float(magnitude_of_njy(f[0]) - magnitude_of_njy(f[last])) for f in (source, lens)]
    return (
        row
        | _critical(recipe, deflectors)
        | {
            "z_source": facts["z_source"],
            "mag_source": float(magnitude_of_njy(source[0])),
            "r_source": facts["source_radius_arcsec"],
            "n_pix_source": int(np.count_nonzero(arc > rms)),
            "source_flux": float(arc.sum()),
            "n_source_im": int(facts["n_image"]),
            "mag_eff": float(facts["magnification"]),
            "sb_contrast": float(arc[peak] / max(float(vis[peak]), 1e-3 * rms)),
            "color_diff": colour[0] - colour[1],
        }
    )


def _critical(recipe: Recipe, deflectors: Sequence[Deflector]) -> dict[str, Any]:
    """Area of negative parity on rays of 0.05 arcsec: the inside of an isothermal lens's one critical curve."""
    extent = recipe.image[0].size_px * recipe.image[0].pixel_scale_arcsec
    grid = Grid(int(extent / 0.05), 0.05, 1)
    beta_x, beta_y = shoot_rays(deflectors, grid)
    xx, xy = np.gradient(beta_x, 0.05, axis=1), np.gradient(beta_x, 0.05, axis=0)
    yx, yy = np.gradient(beta_y, 0.05, axis=1), np.gradient(beta_y, 0.05, axis=0)
    inside = xx * yy - xy * yx < 0
    x, y = grid.rays()
    area = float(np.count_nonzero(inside) * 0.05**2)
    centre = (float(x[inside].mean()), float(y[inside].mean())) if area else (0.0, 0.0)
    return {"x_crit": centre[0], "y_crit": centre[1], "ein_area": area, "crit_area": area, "n_crit": int(area > 0)}


def _masses(sigma_km_s: float, z: float, mag_r: float) -> dict[str, float]:
    universe = default_cosmology()
    hubble = float(universe.H(z).to_value("km / (s Mpc)"))
    absolute = mag_r - float(universe.distmod(z).value) - 2.5 * np.log10(1 + z) - z  # as in early_type_components
    return {
        "halo_mass": (np.sqrt(2) * sigma_km_s) ** 3 / (10 * G_MPC_KM2_S2_MSUN * hubble),
        "star_mass": 3.0 * 10 ** (-0.4 * (absolute - 4.65)),
    }
