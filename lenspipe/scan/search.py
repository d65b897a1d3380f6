"""The second half of a shard's scan: sources found in its pixels, measured, selected and cut out."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lenspipe.image.cutouts import extract_cutouts
from lenspipe.image.sky import Flat
from lenspipe.scan.context import ScanContext
from lenspipe.scan.measure import Measured, measure_core, select
from lenspipe.scan.read import ReadShard, flatten


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What a search shows of a shard."""

    flat: Flat
    """The window without its sky."""
    sources: Measured
    """All that belongs to the core."""
    candidates: Measured
    """Those that the selection takes."""


def search(read: ReadShard, context: ScanContext) -> Found:
    """
    Detect, measure and select in the pixels of a shard, however they came about.

    The sky is subtracted in place: whoever wants the pixels again keeps a copy.

    Raises
    ------
    TileError
        A band is constant, or detection or selection need a band that the tile does not have.
    """
    config, shard, pixels = context.config, read.task.shard, read.pixels
    flat = flatten(read, context)
    sources = measure_core(flat, pixels, config.detect, core=shard.core, window=shard.window)
    chosen = select(
        sources,
        config.select,
        bands=pixels.bands,
        pixel_scale_arcsec=read.facts.pixel_scale_arcsec,
        psf_fwhm_arcsec=context.layout.psf_fwhm_arcsec,
    )
    return Found(flat, sources, sources.take(chosen))


def cut_out(
    found: Found, read: ReadShard, bands: tuple[str, ...], side_px: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cutouts (n, band, y, x) of the candidates in some bands, and the part of each that holds data."""
    rows = [read.pixels.bands.index(band) for band in bands]
    at = found.candidates.sources
    return extract_cutouts(found.flat.image[rows], found.flat.mask[rows], at.x_px, at.y_px, size_px=side_px)
