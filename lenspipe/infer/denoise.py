"""Take noise off cutouts and whole tiles with a checkpoint; what is masked stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from lenspipe.errors import DataError, ModelError
from lenspipe.infer.loaded import LoadedNetwork
from lenspipe.nn.card import fits
from lenspipe.nn.network import ImageNetwork
from lenspipe.nn.outputs import Denoise

LARGEST_PADDED_PX = 128 * 128
"""Images up to this size run in whole batches; of larger ones a batch of empty rows would cost too much."""
FLAG_MASKED, FLAG_BRIGHT, FLAG_BOUND = 1, 2, 4
"""Masked and left alone; brighter than anything in training; changed by as much as the network can."""
BRIGHT_SIGMA = 3000.0
"""Brightest pixels of the training, in units of the sky noise."""
FILL_PX = 7


class Denoiser(LoadedNetwork):
    """
    A checkpoint of task ``denoise``, ready to denoise; parameters and batches as in `LoadedNetwork`.

    Attributes
    ----------
    exposure_ratios : tuple of float
        Least and largest ratio of exposure times of the training.
    step_px, reach_px : int
        Pixels by which an image may be shifted without a change, and from how far a pixel is changed.
    bound_sigma : float
        No pixel is changed by more than this many times its noise.

    Raises
    ------
    ModelError
        The checkpoint is broken or is not a denoiser, or the device is not there.
    """

    def __init__(
        self, folder: str | Path, device: str = "auto", batch_size: int | None = None, threads: int = 1
    ) -> None:
        super().__init__(folder, device, batch_size, threads)
        outputs, module = self.card.outputs, self._module
        if not (isinstance(module, ImageNetwork) and isinstance(outputs, Denoise)):
            raise ModelError(
                'this model is not a denoiser (its task must be "denoise")', folder=str(folder), task=self.card.task
            )
        self.exposure_ratios = outputs.exposure_ratios
        self.step_px, self.reach_px, self.bound_sigma = module.step_px, module.reach_px, module.bound_sigma

    def order(self, bands: Sequence[str], pixel_scale_arcsec: float) -> list[int]:
        """
        Where the model's bands lie among those of the data.

        Raises
        ------
        ModelError
            A band is missing, or the pixel scale is outside the card's limits; images are not resampled.
        """
        if reason := fits(self.card, bands, pixel_scale_arcsec):
            raise ModelError(f"the images do not fit the denoiser: {reason}")
        return [list(bands).index(band) for band in self.card.bands]

    def denoise(
        self,
        images_njy: NDArray[np.floating],
        sky_rms_njy: ArrayLike,
        *,
        ratio: float,
        mask: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """
        Images as ``ratio`` times the exposure would show them.

        Each image by itself and in batches of a fixed size, so that the result does not depend on its neighbours.

        Parameters
        ----------
        images_njy : array (n, band, y, x)
            Sky-subtracted images in the order of the card's bands, of any size.
        sky_rms_njy : array
            Noise of a pixel of empty sky; anything that broadcasts to the images: ``(band, 1, 1)``,
            ``(n, band, 1, 1)``, ``(n, band, y, x)``.
        ratio : float
            Exposure time of the wanted image over that of this one, at least 1; 1 gives the images themselves.
        mask : array (n, band, y, x), optional
            True where a pixel is bad: it comes back as it was, and the network sees its surroundings instead.

        Returns
        -------
        array (n, band, y, x), float32

        Raises
        ------
        DataError
            Unmasked pixels are not finite, or a noise or the ratio is no number it could be.
        """
        images = np.asarray(images_njy, np.float32)
        if images.ndim != 4 or images.shape[1] != len(self.card.bands):
            raise DataError(
                "images must be (n, band, y, x) in the bands of the denoiser",
                got=str(images.shape),
                bands=" ".join(self.card.bands),
            )
        rms = np.asarray(sky_rms_njy, np.float32)
        if not (np.isfinite(rms).all() and (rms > 0).all()):
            raise DataError("the noise of the sky must be positive and finite", least=float(np.nanmin(rms)))
        if not (np.isfinite(ratio) and ratio >= 1):
            raise DataError("the exposure ratio must be at least 1", got=float(ratio))
        good = np.isfinite(images)
        if mask is not None:
            good |= mask
        if not good.all():
            raise DataError("images must be finite where they are not masked", n_pixel=int((~good).sum()))
        out = np.empty(images.shape, np.float32)
        for rows in self.batches(len(images)):
            scale = np.broadcast_to(rms, images.shape)[rows]
            part = images[rows]
            if mask is not None and mask[rows].any():
                part = fill_masked(part, mask[rows])
            in_noise = part / scale
            # a ratio of 1 gives a difference of exactly 0, and so the pixels bit for bit
            out[rows] = part + (self._denoised(in_noise, ratio) - in_noise) * scale
        if mask is not None:
            out[mask] = images[mask]
        return out

    def _denoised(self, images: NDArray[np.float32], ratio: float) -> NDArray[np.float32]:
        n, n_band, height, width = images.shape
        channels = np.full((n, n_band + 1, height, width), ratio, np.float32)
        channels[:, :n_band] = images
        small = height * width <= LARGEST_PADDED_PX
        return self.run(channels, padded_to=self.batch_size if small else n)


def fill_masked(images: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """
    Masked pixels replaced by the mean of the good ones within `FILL_PX`; 0, empty sky, where there are none.

    Parameters
    ----------
    images, mask : arrays (..., y, x)
        What masked pixels hold is never read.
    """
    size = (1,) * (images.ndim - 2) + (FILL_PX, FILL_PX)
    good = (~mask).astype(np.float32)
    clean = np.where(mask, np.float32(0), images)
    weight = ndimage.uniform_filter(good, size, mode="constant")
    local = ndimage.uniform_filter(clean, size, mode="constant")
    known = weight > 0.5 / FILL_PX**2
    local = np.where(known, local / np.where(known, weight, 1), np.float32(0))
    filled: NDArray[np.float32] = np.where(mask, local, images).astype(np.float32)
    return filled


def windows(shape: tuple[int, int], window_px: int, reach_px: int) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Cores (rows, columns) that tile an image, and the rows and columns of each with its border; may lie outside."""
    height, width = shape
    for y in range(0, height, window_px):
        for x in range(0, width, window_px):
            y1, x1 = min(y + window_px, height), min(x + window_px, width)
            yield slice(y, y1), slice(x, x1), slice(y - reach_px, y1 + reach_px), slice(x - reach_px, x1 + reach_px)


def denoise_tile(
    denoiser: Denoiser,
    image_njy: NDArray[np.float32],
    rms_njy: NDArray[np.float32],
    mask: NDArray[np.bool_],
    *,
    ratio: float,
    window_px: int = 512,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """
    A whole image, window by window, without seams.

    Windows start at multiples of the network's step and overlap by its reach, so that each pixel sees what it would
    see in one window over all; beyond the edges lies empty sky.

    Parameters
    ----------
    image_njy : array (band, y, x)
        Sky-subtracted, in the order of the card's bands.
    rms_njy : array (band, y, x)
        Noise of the sky.
    mask : array (band, y, x)
    ratio : float
        See `Denoiser.denoise`.
    window_px : int
        Side of a window without its border; rounded up to the network's step.

    Returns
    -------
    image : array (band, y, x), float32
        Masked pixels as they were.
    flags : array (band, y, x), uint8
        Sum of `FLAG_MASKED`, `FLAG_BRIGHT` (left as they were measured is not promised there) and `FLAG_BOUND`.
    """
    step, reach = denoiser.step_px, denoiser.reach_px
    window_px = -(-window_px // step) * step
    height, width = image_njy.shape[-2:]
    filled = fill_masked(image_njy, mask) if mask.any() else image_njy
    out = np.empty(image_njy.shape, np.float32)
    bad_noise = ~(np.isfinite(rms_njy) & (rms_njy > 0))
    if (bad_noise & ~mask).any():
        raise DataError("the noise of the sky must be positive and finite where the image is not masked")
    rms = np.where(bad_noise, np.float32(1), rms_njy)
    for rows, columns, wide_rows, wide_columns in windows((height, width), window_px, reach):
        inner = (slice(max(0, wide_rows.start), wide_rows.stop), slice(max(0, wide_columns.start), wide_columns.stop))
        size = (len(image_njy), wide_rows.stop - wide_rows.start, wide_columns.stop - wide_columns.start)
        part, noise = np.zeros(size, np.float32), np.ones(size, np.float32)
        some = filled[:, inner[0], inner[1]]
        at = (inner[0].start - wide_rows.start, inner[1].start - wide_columns.start)
        place = (slice(None), slice(at[0], at[0] + some.shape[1]), slice(at[1], at[1] + some.shape[2]))
        part[place], noise[place] = some, rms[:, inner[0], inner[1]]
        done = denoiser.denoise(part[None], noise[None], ratio=ratio)[0]
        out[:, rows, columns] = done[
            :, reach : reach + rows.stop - rows.start, reach : reach + columns.stop - columns.start
        ]
    changed = np.abs(out - filled) / rms
    flags = np.where(filled > BRIGHT_SIGMA * rms, np.uint8(FLAG_BRIGHT), np.uint8(0))
    if ratio > 1:
        flags |= np.where(changed > 0.95 * denoiser.bound_sigma * (1 - 1 / ratio), np.uint8(FLAG_BOUND), np.uint8(0))
    flags = np.where(mask, np.uint8(FLAG_MASKED), flags)
    out[mask] = image_njy[mask]
    return out, flags
