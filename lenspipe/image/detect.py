"""Detect sources: SEP by default, photutils by choice, behind one signature."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import sep
from numpy.typing import NDArray

from lenspipe import plugins
from lenspipe.errors import TileError
from lenspipe.image.sources import FLAG_BLENDED, FLAG_EDGE, Sources, make_sources

# The 3 x 3 pyramid that Source Extractor uses by default (its default.conv).
KERNEL = np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]], np.float32)
PIXSTACK = 1_000_000
DEBLEND_LIMIT = 4_096
RETRIES = 5


class Detector(Protocol):
    """What a detector is: an image in, `Sources` and their segmentation map out."""

    def __call__(
        self,
        image: NDArray[np.float32],
        rms: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        threshold_sigma: float,
        min_area_px: int,
        deblend_levels: int,
        deblend_contrast: float,
    ) -> tuple[Sources, NDArray[np.int32]]:
        """Detect sources."""
        ...


def detection_sum(
    images: NDArray[np.float32], rms: list[NDArray[np.float32]], masks: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """
    Inverse-variance weighted mean of the bands, its noise, and where no band has data.

    For independent noise this is the linear combination of highest signal-to-noise for a source of flat spectrum
    in f_nu (Szalay, Connolly & Szokoly 1999, AJ 117, 68, discuss the quadratic alternative).

    Parameters
    ----------
    images, masks : arrays (band, y, x)
        Background-subtracted images; True where bad.
    rms : list of arrays (y, x)

    Returns
    -------
    image, rms, mask : arrays (y, x)
        Those of the one band, not copied, where there is only one.
    """
    if len(images) == 1:
        return images[0], rms[0], masks[0]
    total = np.zeros(images.shape[1:], np.float32)
    weights = np.zeros_like(total)
    weight = np.empty_like(total)
    for image, noise, mask in zip(images, rms, masks, strict=True):
        np.multiply(noise, noise, out=weight)
        np.reciprocal(weight, out=weight)
        if mask.any():
            weight[mask] = 0
        weights += weight
        weight *= image
        total += weight
    empty = weights <= 0
    weights[empty] = 1
    total /= weights
    np.sqrt(weights, out=weights)
    return total, np.reciprocal(weights, out=weights), empty


def detect_sep(
    image: NDArray[np.float32],
    rms: NDArray[np.float32],
    mask: NDArray[np.bool_],
    *,
    threshold_sigma: float,
    min_area_px: int,
    deblend_levels: int,
    deblend_contrast: float,
) -> tuple[Sources, NDArray[np.int32]]:
    """
    Sources above a threshold on a smoothed image, by SEP (Barbary 2016, JOSS 1, 58).

    SEP's fixed buffers (pixel stack, objects while deblending) are raised tenfold and the window is tried again
    when it is too crowded for them; a window that is still too crowded is searched without deblending.

    Parameters
    ----------
    image, rms : arrays (y, x), float32
        Background-subtracted image and its noise, in one unit.
    mask : array (y, x), bool
        True where a pixel is bad; bad pixels are never part of a source.
    threshold_sigma : float
        Detection threshold in units of ``rms``.
    min_area_px : int
        Fewest pixels above the threshold.
    deblend_levels, deblend_contrast : int, float
        Number of thresholds, and smallest fraction of flux of a component of its own (Bertin & Arnouts 1996).

    Returns
    -------
    sources : Sources
        In pixels of ``image``.
    segments : array (y, x), int32
        Label of the source that a pixel belongs to; 0 for none.

    Raises
    ------
    TileError
        The window is too crowded for SEP even with its buffers raised a hundred-thousandfold.
    """
    # SEP smooths before it masks: what a bad pixel holds would leak into its neighbours.
    bad = bool(mask.any())
    clean = np.where(mask, np.float32(0), image) if bad else np.ascontiguousarray(image)
    # SEP fills the whole stack before it starts, a tenth of a second for a million; a window never needs more pixels
    # than it has
    pixstack, limit, contrast = min(PIXSTACK, image.size + 1), DEBLEND_LIMIT, deblend_contrast
    for _ in range(RETRIES):
        sep.set_extract_pixstack(pixstack)
        sep.set_sub_object_limit(limit)
        try:
            found, segments = sep.extract(
                clean,
                threshold_sigma,
                err=rms,
                mask=mask if bad else None,
                minarea=min_area_px,
                filter_kernel=KERNEL,
                filter_type="conv",
                deblend_nthresh=deblend_levels,
                deblend_cont=contrast,
                clean=True,
                clean_param=1.0,
                segmentation_map=True,
            )
            break
        except Exception as error:  # SEP raises bare Exception for its full buffers
            if "pixel buffer full" in str(error):
                pixstack *= 10
            elif "deblending overflow" in str(error):
                limit, contrast = limit * 10, 1.0 if limit > 100 * DEBLEND_LIMIT else contrast
            else:
                raise
    else:
        raise TileError(
            "the window is too crowded to detect sources in; raise detect.threshold_sigma or use smaller shards",
            pixstack=pixstack,
            deblend_limit=limit,
        )
    edge = (found["xmin"] <= 0) | (found["ymin"] <= 0)
    edge |= (found["xmax"] >= image.shape[1] - 1) | (found["ymax"] >= image.shape[0] - 1)
    blended = (found["flag"] & sep.OBJ_MERGED) != 0
    sources = make_sources(
        x_px=found["x"],
        y_px=found["y"],
        a_px=found["a"],
        b_px=found["b"],
        theta_rad=found["theta"],
        n_px=found["npix"],
        label=np.arange(1, len(found) + 1),
        flags=FLAG_BLENDED * blended + FLAG_EDGE * edge,
    )
    return sources, segments


def detect_photutils(
    image: NDArray[np.float32],
    rms: NDArray[np.float32],
    mask: NDArray[np.bool_],
    *,
    threshold_sigma: float,
    min_area_px: int,
    deblend_levels: int,
    deblend_contrast: float,
) -> tuple[Sources, NDArray[np.int32]]:
    """
    The same search by photutils' segmentation (Bradley et al.); slower, and independent of SEP.

    Parameters, units and order are those of `detect_sep`. Moments are of the unsmoothed image, as SEP's.
    """
    from scipy.ndimage import convolve

    smoothed = convolve(np.where(mask, 0, image), KERNEL / KERNEL.sum(), mode="constant")
    # SEP thresholds the smoothed image at sigma times the noise of the unsmoothed one.
    return _segment(image, smoothed, threshold_sigma * rms, mask, min_area_px, deblend_levels, deblend_contrast)


def _segment(
    image: NDArray[np.float32],
    smoothed: NDArray[np.float32],
    threshold: NDArray[np.float32],
    mask: NDArray[np.bool_],
    min_area_px: int,
    deblend_levels: int,
    deblend_contrast: float,
) -> tuple[Sources, NDArray[np.int32]]:
    import warnings

    from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources
    from photutils.utils.exceptions import NoDetectionsWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        segments = detect_sources(smoothed, threshold, min_area_px, mask=mask)
    if segments is None:
        empty, none = np.empty(0), np.empty(0, int)
        sources = make_sources(
            x_px=empty, y_px=empty, a_px=empty, b_px=empty, theta_rad=empty, n_px=none, label=none, flags=none
        )
        return sources, np.zeros(image.shape, np.int32)
    parts = deblend_sources(
        smoothed, segments, min_area_px, n_levels=deblend_levels, contrast=deblend_contrast, progress_bar=False
    )
    catalog = SourceCatalog(image, parts, mask=mask)
    labels = np.asarray(catalog.labels)
    children = [np.atleast_1d(c) for c in parts.parent_to_deblended_labels.values()]
    blended = np.isin(labels, np.concatenate(children)) if children else np.zeros(len(labels), bool)
    box = np.array([[b.ixmin, b.ixmax, b.iymin, b.iymax] for b in catalog.bbox]).reshape(-1, 4)
    edge = (box[:, 0] <= 0) | (box[:, 2] <= 0) | (box[:, 1] >= image.shape[1]) | (box[:, 3] >= image.shape[0])
    sources = make_sources(
        x_px=np.atleast_1d(catalog.x_centroid),
        y_px=np.atleast_1d(catalog.y_centroid),
        a_px=np.atleast_1d(catalog.semimajor_axis.value),
        b_px=np.atleast_1d(catalog.semiminor_axis.value),
        theta_rad=np.radians(np.atleast_1d(catalog.orientation.value)),
        n_px=np.atleast_1d(catalog.segment_area.value).astype(np.int64),
        label=labels,
        flags=FLAG_BLENDED * blended + FLAG_EDGE * edge,
    )
    return sources, np.asarray(parts.data, np.int32)


DETECTORS: dict[str, Detector] = {"sep": detect_sep, "photutils": detect_photutils}


def detector_of(name: str) -> Detector:
    """The detector of a name, ours or another package's (`lenspipe.plugins`)."""
    if name in DETECTORS:
        return DETECTORS[name]
    found: Detector = plugins.load(plugins.DETECTORS, name)
    return found
