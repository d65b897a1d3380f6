"""Simulated stamps as a table: the schema of a recipe, and the rows of any stretch of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lenspipe.simulate.catalog import COLUMNS, INTEGERS
from lenspipe.simulate.hosts import HostStamps
from lenspipe.simulate.negatives import NON_LENSES
from lenspipe.simulate.population import SourceImage
from lenspipe.simulate.recipe import Recipe
from lenspipe.simulate.stamp import draw_stamp
from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema
from lenspipe.stamps.splits import splits_by_key

Fact = tuple[str, str]
_TEXT: dict[str, str] = {
    "kind": "lens, or what kind of non-lens; in substructure recipes the class",
    "survey": "survey whose seeing and depth were drawn",
    "artefact": "cosmic_rays, bleed_trail, masked_gap or empty",
    "source_image": "name of the real galaxy that was lensed; empty for a Sersic source",
}
_IMAGES = {"galaxy_image": "names of the real galaxies that stand for themselves, by commas; empty where all are drawn"}
_LENS: dict[str, Fact] = {
    "z_lens": ("", "redshift of the lens, or of the early type that lenses nothing"),
    "z_source": ("", "redshift of the source"),
    "velocity_dispersion_km_s": ("km/s", "velocity dispersion of the early type"),
    "theta_e_arcsec": ("arcsec", "Einstein radius, substructure included"),
    "axis_ratio": ("", "minor over major axis of the mass, and of the light of simulated galaxies"),
    "angle_rad": ("rad", "direction of the major axis from +x (columns) towards +y (rows)"),
    "slope": ("", "logarithmic slope of the density"),
    "shear": ("", "external shear"),
    "shear_angle_rad": ("rad", "direction in which the shear stretches"),
    "lens_mag_r": ("mag", "AB magnitude of the early type in r"),
    "lens_radius_arcsec": ("arcsec", "its half-light radius"),
    "lens_n": ("", "its Sersic index"),
    "source_x_arcsec": ("arcsec", "place of the source behind the lens's centre"),
    "source_y_arcsec": ("arcsec", "place of the source behind the lens's centre"),
    "source_radius_arcsec": ("arcsec", "half-light radius of the source"),
    "source_n": ("", "Sersic index of the source; 0 for a real image"),
    "source_n_clump": ("", "clumps on the source"),
    "source_red": ("", "1 where the source is red"),
    "n_image": ("", "images of the source's centre by the main lens"),
    "magnification": ("", "lensed over unlensed flux"),
    "arc_snr": ("", "total signal-to-noise of the arcs in the first image, against the sky"),
}
_SUBSTRUCTURE: dict[str, Fact] = {
    "subhalo_mass_fraction": ("", "expected projected mass fraction in subhalos"),
    "subhalo_slope": ("", "logarithmic slope of the subhalo mass function"),
    "n_subhalo": ("", "subhalos drawn"),
    "n_subhalo_expected": ("", "mean of their Poisson number"),
    "subhalo_mass_msun": ("Msun", "their total mass"),
    "subhalo_mass_within_msun": ("Msun", "their mass inside the Einstein radius"),
    "perturbation_snr": ("", "signal-to-noise of the change that the substructure makes, with the lens not refitted"),
    "vortex_mass_msun": ("Msun", "mass of the vortex"),
    "vortex_density_msun_kpc": ("Msun/kpc", "its mass per length"),
    "axion_mass_ev": ("eV", "mass of the axion"),
    "vortex_length_arcsec": ("arcsec", "length of the vortex"),
    "vortex_x_arcsec": ("arcsec", "its middle"),
    "vortex_y_arcsec": ("arcsec", "its middle"),
    "vortex_angle_rad": ("rad", "its direction from +x towards +y"),
}


_ON_HOSTS: dict[str, Fact] = {
    "host_mag": ("mag", "AB magnitude of the real host as it is shown, in its survey's band of magnitude limits")
}


def truth_fields(recipe: Recipe, *, on_hosts: bool = False) -> list[pa.Field]:
    """
    Columns of true parameters of a recipe, with unit and meaning; null where a parameter does not apply.

    Stamps that are painted on real hosts have a few more.
    """
    numbers = dict(_LENS)
    numbers |= {f"seeing_{band}_arcsec": ("arcsec", f"FWHM of the PSF in {band}") for band in recipe.bands}
    numbers |= {f"sky_rms_{band}_njy": ("nJy", f"sky and read noise of a pixel in {band}") for band in recipe.bands}
    numbers |= {
        f"njy_per_electron_{band}": (
            "nJy",
            f"with it the variance of a pixel in {band} is sky_rms_{band}_njy^2 and this times its mean brightness; "
            "null on real hosts, whose photons it does not tell, and where there is no noise",
        )
        for band in recipe.bands
    }
    numbers |= {
        f"source_mag_{band}": ("mag", f"AB magnitude of the unlensed source in {band}") for band in recipe.bands
    }
    first = recipe.image[0].bands
    numbers |= {f"arc_mag_{band}": ("mag", f"AB magnitude of the arcs in {band}") for band in first}
    if recipe.kind == "substructure":
        numbers |= _SUBSTRUCTURE
    texts = _TEXT | (
        _IMAGES if any(name in NON_LENSES and NON_LENSES[name].of_images for name in recipe.classes) else {}
    )
    if on_hosts:
        texts |= {"host_kind": "what the real host is: early, source, star, artefact or sky"}
        numbers |= _ON_HOSTS
    fields = [pa.field(name, pa.string(), metadata={"description": text}) for name, text in texts.items()]
    fields += [_field(name, pa.float64(), fact) for name, fact in numbers.items()]
    if recipe.catalogue:
        fields += [
            _field(name, pa.int64() if name in INTEGERS else pa.float64(), fact)
            for name, fact in COLUMNS.items()
            if name not in numbers
        ]
    return fields


def _field(name: str, kind: pa.DataType, fact: Fact) -> pa.Field:
    return pa.field(name, kind, metadata={"unit": fact[0], "description": fact[1]})


def image_specs_of(recipe: Recipe) -> dict[str, ImageSpec]:
    """What the pixels of each image column are."""
    return {image.name: ImageSpec(image.bands, image.size_px, image.pixel_scale_arcsec) for image in recipe.image}


def schema_of(recipe: Recipe, *, on_hosts: bool = False) -> pa.Schema:
    """Columns of the stamps of a recipe."""
    return stamp_schema(image_specs_of(recipe), truth_fields(recipe, on_hosts=on_hosts))


def simulate_rows(
    recipe: Recipe,
    *,
    seed: int,
    items: Sequence[int],
    source_images: Sequence[SourceImage] = (),
    hosts: HostStamps | None = None,
) -> pa.Table:
    """
    Simulate some stamps of a run as a table with the schema of `lenspipe.stamps`.

    Row ``item`` depends on the recipe, the seed, the item and the real pixels alone.

    Parameters
    ----------
    recipe : Recipe
    seed : int
    items : sequence of int
        Numbers of the stamps.
    source_images, hosts
        Real pixels, as in `draw_stamp`.
    """
    specs, schema = image_specs_of(recipe), schema_of(recipe, on_hosts=hosts is not None)
    stamps = [draw_stamp(recipe, seed=seed, item=int(k), source_images=source_images, hosts=hosts) for k in items]
    names = [stamp.host for stamp in stamps]
    columns: dict[str, Any] = {
        "stamp_id": [f"{recipe.name}-{seed}-{int(item):08d}" for item in items],
        "label": [stamp.label for stamp in stamps],
        "recipe": [recipe.name] * len(stamps),
        "seed": [seed] * len(stamps),
        "host": names,
        "split": [
            stamp.split or by_name
            for stamp, by_name in zip(stamps, splits_by_key(names, seed=seed) if names else [], strict=True)
        ],
    }
    arrays = []
    for field in schema:
        if field.name in specs:
            shape = specs[field.name].shape
            pixels = np.stack([s.images[field.name] for s in stamps]) if stamps else np.empty((0, *shape), np.float32)
            arrays.append(image_column(pixels, specs[field.name]))
        elif field.name in columns:
            arrays.append(pa.array(columns[field.name], field.type))
        else:
            arrays.append(pa.array([stamp.facts.get(field.name) for stamp in stamps], field.type, from_pandas=True))
    return pa.table(arrays, schema=schema)
