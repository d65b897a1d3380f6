"""The second half of a shard's scan: sources found in its pixels, measured, selected and cut out for the readers."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lenspipe.image.cutouts import extract_cutouts
from lenspipe.image.sky import Flat
from lenspipe.scan.context import ScanContext
from lenspipe.scan.measure import Measured, measure_window, select
from lenspipe.scan.read import ReadShard, flatten
from lenspipe.scan.readers.contract import CutoutKey, Reader
from lenspipe.scan.stars import ShardStars, measure_stars


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What a search shows of a shard."""

    flat: Flat
    """The window without its sky."""
    sources: Measured
    """All that belongs to the core."""
    candidates: Measured
    """Those that the selection takes."""
    stars: ShardStars
    """What is known of the PSF."""
    n_star_cut: int
    """Sources that the selection takes but for being stars."""
    n_galaxy_cut: float
    """Galaxies expected among these; NaN where the cut does not go by the window's own stars."""
    asked: tuple[int, ...]
    """Which readers of the context are shown the candidates."""
    cutouts: dict[CutoutKey, NDArray[np.float32]]
    """(n, band, y, x) of the candidates, as these readers need them."""
    covered: dict[CutoutKey, NDArray[np.float32]]
    """Part of each cutout that holds data."""

    def showing(self, rows: NDArray[np.bool_]) -> Found:
        """The same with some of the candidates only: these are shown to the readers and stored."""
        cutouts, covered = ({key: of[rows] for key, of in each.items()} for each in (self.cutouts, self.covered))
        return dataclasses.replace(self, candidates=self.candidates.take(rows), cutouts=cutouts, covered=covered)


def search(read: ReadShard, context: ScanContext) -> Found:
    """
    Detect, measure, select and cut out in the pixels of a shard, however they came about.

    The sky is subtracted in place: whoever wants the pixels again keeps a copy.

    Raises
    ------
    TileError
        A band is constant, or detection or selection need a band that the tile does not have.
    """
    config, shard, pixels = context.config, read.task.shard, read.pixels
    scale = read.facts.pixel_scale_arcsec
    flat = flatten(read, context)
    window = measure_window(flat, pixels, config.detect, core=shard.core, window=shard.window)
    sources = window.core
    stars = measure_stars(
        window,
        flat,
        config.select,
        bands=pixels.bands,
        pixel_scale_arcsec=scale,
        psf_fwhm_arcsec=context.layout.psf_fwhm_arcsec,
    )
    chosen = select(sources, config.select, bands=pixels.bands, pixel_scale_arcsec=scale)
    cut_stars = chosen & stars.are_stars
    candidates = sources.take(chosen & ~stars.are_stars)
    asked = readers_for(context.models, pixels.bands, flat, scale)
    keys = dict.fromkeys(key for k in asked for key in context.models[k].cutouts(scale))
    cut = {key: _cut_out(candidates, flat, pixels.bands, key) for key in keys}
    cutouts, covered = ({key: pair[i] for key, pair in cut.items()} for i in (0, 1))
    return Found(
        flat,
        sources,
        candidates,
        stars,
        int(cut_stars.sum()),
        float(stars.galaxy_fraction[cut_stars].sum()) if stars.locus else np.nan,
        asked,
        cutouts,
        covered,
    )


def readers_for(
    models: tuple[Reader, ...], bands: tuple[str, ...], flat: Flat, pixel_scale_arcsec: float
) -> tuple[int, ...]:
    """Which readers fit a shard: its tile, the bands that hold data in it, and what readers before them give there."""
    known = {band for band, rms in zip(bands, flat.median_rms, strict=True) if rms is not None}
    given: set[str] = set()
    asked = []
    for k, reader in enumerate(models):
        if (
            reader.fits(bands, pixel_scale_arcsec) is None
            and set(reader.demands) <= known
            and set(reader.takes) <= given
        ):
            asked.append(k)
            given.update(reader.gives)
    return tuple(asked)


def _cut_out(
    candidates: Measured, flat: Flat, bands: tuple[str, ...], key: CutoutKey
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows = [bands.index(band) for band in key.bands]
    at = candidates.sources
    return extract_cutouts(flat.image[rows], flat.mask[rows], at.x_px, at.y_px, size_px=key.side_px)
