"""Real galaxies for simulations: hosts from a data set of stamps, sources from a folder of images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, label

from lenspipe.errors import ConfigError, DataError
from lenspipe.robust import robust_sigma
from lenspipe.simulate.paint.host import Host
from lenspipe.simulate.population import SourceImage, half_light_radius_px
from lenspipe.simulate.recipe import ImageTable, Recipe
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.splits import Half, half_of

ROLES = ("early", "source", "star", "artefact", "sky")
"""Labels of a data set of hosts that say what a stamp shows; under any other label it is an early type."""


@dataclass(frozen=True)
class HostStamps:
    """Real galaxies and real sky, with what is known of each."""

    hosts: tuple[Host, ...]
    """Pixels of the recipe's bands; larger than the recipe's stamps where views of them are smaller."""
    splits: tuple[str | None, ...]
    """Split of each where the data set says it, as of hosts that were split by sky area; None: by the host's name."""

    @property
    def names(self) -> tuple[str, ...]:
        """Host of each, from the data set's column ``host``."""
        return tuple(host.name for host in self.hosts)

    @cached_property
    def rows(self) -> dict[str, NDArray[np.int64]]:
        """Rows by what they show (`ROLES`), each kind that is there."""
        kinds = np.array([host.kind for host in self.hosts], object)
        return {kind: np.flatnonzero(kinds == kind) for kind in ROLES if (kinds == kind).any()}

    @cached_property
    def weights(self) -> dict[str, NDArray[np.float64]]:
        """How often each row of a kind is taken as it is: the brightest quarter four times, the next twice."""
        out = {}
        for kind, rows in self.rows.items():
            mag = np.array([self.hosts[k].mag for k in rows])
            place = np.argsort(np.argsort(np.where(np.isfinite(mag), mag, np.inf), kind="stable")) / max(1, len(rows))
            weight = np.where(place < 0.25, 4.0, np.where(place < 0.5, 2.0, 1.0))
            out[kind] = weight / weight.sum()
        return out


def read_hosts(folder: str | Path, recipe: Recipe, *, half: Half | None = None) -> HostStamps:
    """
    Read hosts from a data set of stamps (`lenspipe stamps convert` makes one, `lenspipe finder` one of a survey's own).

    Columns ``axis_ratio``, ``angle_rad``, ``mag``, ``psf_fwhm_BAND_arcsec`` and ``sky_rms_BAND_njy`` are taken where
    they are; else shape and noise are measured in the stamp, and the PSF is that of the recipe's survey. Rows without
    a split are left out of a data set that splits by sky area (column ``ra``).

    Parameters
    ----------
    folder : path
    recipe : Recipe
    half : "even" or "odd", optional
        Only the hosts of this half (`lenspipe.stamps.splits.half_of`): the others stay unseen, for a test.

    Raises
    ------
    ConfigError
        The recipe has several surveys (fine where hosts are brought to them, ``hosts.as_survey``) or images, hosts that
        are brought to a survey do not say their PSF, or the data set lacks a band, differs by more than 2 % in pixel
        scale (a recipe with a table of hosts resamples them), is smaller than the recipe's stamps, or is not in nJy.
    """
    as_survey = recipe.hosts is not None and recipe.hosts.as_survey
    if len(recipe.survey) > 1 and not as_survey:
        known = ", ".join(one.name for one in recipe.survey)
        raise ConfigError("arcs need the seeing of the hosts: choose their survey with --survey", surveys=known)
    data, image = StampSet.open(folder), recipe.image[0]
    columns = [f"psf_fwhm_{band}_arcsec" for band in image.bands]
    if as_survey and (missing := [name for name in columns if name not in data.schema.names]):
        raise ConfigError(
            "hosts are brought to a survey's PSF (hosts.as_survey) from their own, which they do not say; give them a "
            "column of it",
            missing=",".join(missing),
            hosts=str(folder),
        )
    spec = data.images.get("image")
    if len(recipe.image) > 1 or spec is None:
        raise ConfigError("hosts need a recipe and a data set with one image", recipe=recipe.name, hosts=str(folder))
    if missing := [band for band in image.bands if band not in spec.bands]:
        raise ConfigError("the hosts lack a band of the recipe", missing=",".join(missing), has=",".join(spec.bands))
    if recipe.hosts is None and abs(spec.pixel_scale_arcsec / image.pixel_scale_arcsec - 1) > 0.02:
        raise ConfigError(
            "the hosts have another pixel scale than the recipe; simulate with --pixel-scale",
            hosts_arcsec=spec.pixel_scale_arcsec,
            recipe_arcsec=image.pixel_scale_arcsec,
        )
    shrink = recipe.hosts.shrink[0] if recipe.hosts else 1.0
    scale = image.pixel_scale_arcsec if recipe.hosts is None else spec.pixel_scale_arcsec
    if spec.size_px * shrink * scale < image.size_px * image.pixel_scale_arcsec or spec.unit != "nJy":
        raise ConfigError(
            "the hosts are smaller than the recipe's stamps, or not in nJy",
            hosts_px=spec.size_px,
            recipe_px=image.size_px,
            shrink=shrink,
            unit=spec.unit,
        )
    by_area = "ra" in data.schema.names
    use = np.array([split is not None or not by_area for split in data.column("split")])
    if half is not None:
        use &= np.array([half_of(str(name)) == half for name in data.column("host")])
    if not use.any():
        raise ConfigError("no host of the data set may be used", hosts=str(folder), half=half)
    pixels = data.read_images("image")[use][:, [spec.bands.index(band) for band in image.bands]]
    if recipe.hosts is None:
        cut = (spec.size_px - image.size_px) // 2
        pixels = pixels[:, :, cut : cut + image.size_px, cut : cut + image.size_px]
    known_facts = {
        f.name: data.column(f.name)[use]
        for f in data.schema
        if f.name in ("axis_ratio", "angle_rad", "mag") or f.name.startswith(("psf_fwhm_", "sky_rms_"))
    }
    rms, axis_ratio, angle = _measured(pixels, image, known_facts)
    table = recipe.survey[0]
    fwhm = np.stack(
        [
            known_facts.get(f"psf_fwhm_{band}_arcsec", np.full(len(pixels), table.band[band].seeing_fwhm_arcsec[0]))
            for band in image.bands
        ],
        axis=1,
    ).astype(float)
    mag = known_facts.get("mag", np.full(len(pixels), np.nan)).astype(float)
    usable = np.flatnonzero((rms > 0).all(axis=1))
    if not len(usable):
        raise DataError("no host has measurable noise in every band", hosts=str(folder))
    names, labels, splits = (data.column(name)[use] for name in ("host", "label", "split"))
    hosts = tuple(
        Host(
            name=str(names[k]),
            kind=str(labels[k]) if labels[k] in ROLES else "early",
            pixels_njy=np.ascontiguousarray(pixels[k]),
            pixel_scale_arcsec=scale,
            psf_fwhm_arcsec=fwhm[k],
            sky_rms_njy=rms[k],
            mag=float(mag[k]),
            axis_ratio=float(axis_ratio[k]),
            angle_rad=float(angle[k]),
        )
        for k in usable
    )
    return HostStamps(hosts, tuple(splits[k] if by_area else None for k in usable))


def _measured(
    pixels: NDArray[np.float32], image: ImageTable, known: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Noise ``(n, band)``, axis ratio and angle ``(n,)``: as known, else measured in the stamps."""
    y, x = np.indices(pixels.shape[-2:]) - (pixels.shape[-1] - 1) / 2
    outer = pixels[:, :, np.hypot(x, y) > 0.35 * pixels.shape[-1]]
    middle = np.median(outer, axis=2, keepdims=True)
    below = np.where(outer < middle, outer - middle, 0.0)
    # half of the noise lies below the median, where no galaxy adds to it
    rms = np.sqrt((below.astype(np.float64) ** 2).sum(axis=2) / np.maximum((below < 0).sum(axis=2), 1))
    for b, band in enumerate(image.bands):
        rms[:, b] = known.get(f"sky_rms_{band}_njy", rms[:, b])
    if {"axis_ratio", "angle_rad"} <= known.keys():
        return rms, known["axis_ratio"].astype(float), known["angle_rad"].astype(float)
    good = (rms > 0).all(axis=1)
    ratio, angle = np.ones(len(pixels)), np.zeros(len(pixels))
    ratio[good], angle[good] = light_shape(pixels[good, -1] - middle[good, -1, :, None], image.pixel_scale_arcsec)
    return rms, ratio, angle


def light_shape(
    images: NDArray[np.floating], pixel_scale_arcsec: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Axis ratio and direction ``(n,)`` of the light within 3 arcsec of the centre, from second moments."""
    y, x = (np.indices(images.shape[-2:]) - (images.shape[-1] - 1) / 2) * pixel_scale_arcsec
    weight = np.clip(images, 0, None) * (np.hypot(x, y) < 3.0)
    total = weight.sum(axis=(1, 2))
    xx, yy, xy = ((weight * m).sum(axis=(1, 2)) / total for m in (x * x, y * y, x * y))
    spread = np.hypot(xx - yy, 2 * xy)
    ratio = np.sqrt((xx + yy - spread) / (xx + yy + spread))
    return ratio, 0.5 * np.arctan2(2 * xy, xx - yy)


def read_source_images(
    folder: str | Path, *, pixel_scale_arcsec: float = 0.03, half: Half | None = None
) -> list[SourceImage]:
    """
    Read real galaxies to be lensed: every two-dimensional image in the FITS files of a folder.

    A GalSim RealGalaxy folder is read through its catalogue. HDUs of one file with the same shape (bands) are
    averaged: colours are drawn by the recipe, not taken from the images. Sky is subtracted and everything but the
    central object is cut away; images without an object at the centre are left out.

    Parameters
    ----------
    folder : path
        With ``.fits`` or ``.fits.gz`` files.
    pixel_scale_arcsec : float
        Recorded for files that do not tell; sizes are set by the recipe's population all the same.
    half : "even" or "odd", optional
        Only the galaxies of this half (`lenspipe.stamps.splits.half_of`): the others stay unseen, for a test.
        It goes by the name of the file, so all bands of a galaxy belong in one.

    Raises
    ------
    ConfigError
        There is no usable image.
    """
    found: list[SourceImage] = []
    for name, pixels, scale in _images(Path(folder), pixel_scale_arcsec):
        if half is not None and half_of(name) != half:
            continue
        cleaned = isolate(pixels)
        if cleaned is not None:
            found.append(SourceImage(name, cleaned, scale))
    if not found:
        raise ConfigError("no usable galaxy image in this folder", folder=str(folder))
    return found


def isolate(pixels: NDArray[Any]) -> NDArray[np.float32] | None:
    """
    The central object of an image with unit sum, zero elsewhere; None where there is none.

    Sky is the median of the border. The object is what is connected to the centre above 3 times the border's noise,
    and above 2 % of the peak, after a smoothing of 1.5 px; dilated by 2 px.
    """
    image = np.nan_to_num(np.asarray(pixels, np.float64))
    border = np.concatenate([image[:3].ravel(), image[-3:].ravel(), image[:, :3].ravel(), image[:, -3:].ravel()])
    sky = np.median(border)
    image = image - sky
    smooth = gaussian_filter(image, 1.5)
    noise = robust_sigma(border) / (2 * np.sqrt(np.pi) * 1.5)
    parts, _ = label(smooth > max(3.0 * noise, 0.02 * smooth.max()))
    y, x = image.shape[0] // 2, image.shape[1] // 2
    near = parts[y - 3 : y + 4, x - 3 : x + 4]
    if not near.any():
        return None
    chosen = np.bincount(near[near > 0]).argmax()
    object_ = np.where(binary_dilation(parts == chosen, iterations=2), image, 0.0).clip(0)
    if not object_.sum() > 0 or half_light_radius_px(object_) < 2:
        return None
    normed: NDArray[np.float32] = (object_ / object_.sum()).astype(np.float32)
    return normed


def _images(folder: Path, scale: float) -> Iterator[tuple[str, NDArray[Any], float]]:
    try:
        yield from _read_images(folder, scale)
    except Exception as error:  # astropy raises whatever the bytes of a damaged file lead it to
        raise DataError(f"an image of the folder cannot be read: {error}"[:500], folder=str(folder)) from error


def _read_images(folder: Path, scale: float) -> Iterator[tuple[str, NDArray[Any], float]]:
    from astropy.io import fits

    catalogues = sorted(p for p in folder.rglob("real_galaxy_catalog*.fits") if not p.name.endswith("_fits.fits"))
    for catalogue in catalogues:
        with contextlib.ExitStack() as stack:
            opened: dict[Path, Any] = {}  # each file once: opening reads the headers of all its galaxies
            for row in fits.getdata(catalogue, 1):
                file = catalogue.parent / str(row["GAL_FILENAME"]).strip()
                if file not in opened and file.exists():
                    opened[file] = stack.enter_context(fits.open(file))
                if file in opened:
                    yield f"{row['IDENT']}", opened[file][int(row["GAL_HDU"])].data, float(row["PIXEL_SCALE"])
    if catalogues:
        return
    for file in sorted([*folder.rglob("*.fits"), *folder.rglob("*.fits.gz")]):
        with fits.open(file) as hdus:
            planes = [hdu.data for hdu in hdus if hdu.is_image and hdu.data is not None and hdu.data.ndim == 2]
        same = [plane for plane in planes if plane.shape == planes[0].shape]
        if same:
            yield file.name.split(".")[0], np.mean(same, axis=0), scale
