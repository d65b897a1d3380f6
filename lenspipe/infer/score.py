"""Score cutouts with a checkpoint, in fixed batches, so that a score never depends on what it was scored with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lenspipe.errors import DataError, ModelError
from lenspipe.infer.prepare import prepare_stamps
from lenspipe.nn.card import digest
from lenspipe.nn.checkpoint import load_model
from lenspipe.nn.fold import fold_batch_norm

BATCH_SIZE_CPU, BATCH_SIZE_GPU = 32, 256


class Scorer:
    """
    A checkpoint ready to score.

    Every batch has the same size (the last is padded), the network runs in evaluation mode on one device, and its
    head sums row by row: on one machine a stamp's score is the same to the last bit whatever its position, its
    neighbours and their number.

    Parameters
    ----------
    folder : path
        Checkpoint folder (`lenspipe.nn.checkpoint`).
    device : str
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    batch_size : int, optional
        Stamps a batch; part of what fixes the last bit of a score.
    threads : int
        Threads of torch on the CPU. Set for the whole process.

    Attributes
    ----------
    card : ModelCard
    digest : str
        Name of the checkpoint's exact content.
    n_parameter : int
        Weights that were fitted.

    Raises
    ------
    ModelError
        The checkpoint is broken or unsafe (`load_model`), or the device is not there.
    """

    def __init__(
        self, folder: str | Path, device: str = "auto", batch_size: int | None = None, threads: int = 1
    ) -> None:
        module, self.card = load_model(folder)
        self.digest = digest(folder)
        self.n_parameter = sum(parameter.numel() for parameter in module.parameters())
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise ModelError("no CUDA device on this machine: use device 'auto' or 'cpu'", got=device)
        self.device = torch.device(name)
        self.batch_size = batch_size or (BATCH_SIZE_CPU if self.device.type == "cpu" else BATCH_SIZE_GPU)
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = False
        # channels last: 15 % more stamps a second on a CPU (benchmarks/finder_speed.py)
        self._module: nn.Module = fold_batch_norm(module).to(self.device).to(memory_format=torch.channels_last)

    def score(
        self,
        cutouts_njy: NDArray[np.floating],
        *,
        pixel_scale_arcsec: float,
        bands: Sequence[str] | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float64]:
        """
        Raw scores of cutouts, between 0 and 1, not calibrated.

        The score is the logistic function of the network's logit, taken in float64 so that confident stamps do not
        tie at 1.

        Parameters
        ----------
        cutouts_njy : array (n, band, y, x)
            Flux a pixel, nJy (see `lenspipe.infer.prepare.prepare_stamps`).
        pixel_scale_arcsec : float
        bands : sequence of str, optional
            Names along the band axis; the card's own order where not given.
        mask : array (n, band, y, x), optional
            True where a pixel is bad.

        Returns
        -------
        array (n,), float64

        Raises
        ------
        DataError
            Unmasked pixels are not finite (the rows are named), or the cutouts are too small.
        ModelError
            Bands or pixel scale do not fit the card, or the network gave a score that is not finite.
        """
        good = np.isfinite(cutouts_njy)
        if mask is not None:
            good |= mask
        bad = np.flatnonzero(~good.all(axis=(1, 2, 3)))
        if len(bad):
            raise DataError(
                "cutouts must be finite where they are not masked: mask or drop these rows",
                n=len(bad),
                rows=",".join(map(str, bad[:8])),
            )
        stamps = (
            self.prepare(
                cutouts_njy[rows],
                pixel_scale_arcsec=pixel_scale_arcsec,
                bands=bands,
                mask=None if mask is None else mask[rows],
            )
            for rows in self._batches(len(cutouts_njy))
        )
        return self._scores([self.logits(batch) for batch in stamps])

    def prepare(
        self,
        cutouts_njy: NDArray[np.floating],
        *,
        pixel_scale_arcsec: float,
        bands: Sequence[str] | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """Network input of cutouts, `lenspipe.infer.prepare.prepare_stamps` with the checkpoint's card."""
        return prepare_stamps(cutouts_njy, mask, cutout_scale_arcsec=pixel_scale_arcsec, card=self.card, bands=bands)

    def score_prepared(self, stamps: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores ``(n,)`` of stamps that `prepare` made, of any number and from several cutout sets."""
        return self._scores([self.logits(stamps[rows]) for rows in self._batches(len(stamps))])

    def _batches(self, n: int) -> list[slice]:
        return [slice(start, min(start + self.batch_size, n)) for start in range(0, n, self.batch_size)]

    def _scores(self, logits: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        joined = np.concatenate(logits) if logits else np.empty(0)
        if not np.isfinite(joined).all():
            raise ModelError("the network gave scores that are not finite: its weights are broken", model=self.digest)
        return 1.0 / (1.0 + np.exp(-joined))

    def logits(self, stamps: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits ``(n,)`` of at most a batch of prepared stamps ``(n, band, stamp_px, stamp_px)``."""
        batch = np.zeros((self.batch_size, *stamps.shape[1:]), np.float32)
        batch[: len(stamps)] = stamps
        stamps_on_device = torch.from_numpy(batch).to(self.device, memory_format=torch.channels_last)
        with torch.inference_mode():
            out: NDArray[np.float64] = self._module(stamps_on_device).cpu().double().numpy()
        return out[: len(stamps)]
