"""Score cutouts with a finder: from nJy to the number that a scan stores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import DataError
from lenspipe.infer.predict import Predictor
from lenspipe.infer.prepare import prepare_stamps


class Scorer(Predictor):
    """A finder ready to score cutouts; batches as in `lenspipe.infer.loaded.LoadedNetwork`."""

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
        scores = [
            self.score_prepared(
                self.prepare(
                    cutouts_njy[rows],
                    pixel_scale_arcsec=pixel_scale_arcsec,
                    bands=bands,
                    mask=None if mask is None else mask[rows],
                )
            )
            for rows in self.batches(len(cutouts_njy))
        ]
        return np.concatenate(scores) if scores else np.empty(0)

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
        """
        Scores ``(n,)`` of stamps that `prepare` made, of any number and from several cutout sets.

        Written out, as scans have stored them since there are any: `scipy.special.expit`, which
        `lenspipe.nn.outputs.Find` reads a logit with, differs in the last bit of two scores in a hundred.
        """
        return 1.0 / (1.0 + np.exp(-self.outputs(stamps)[:, 0]))

    def score_with_features(self, stamps: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """As `score_prepared`, the same bits, and the features ``(n, num_features)`` that the scores were read from."""
        parts = [self.with_features(stamps[rows]) for rows in self.batches(len(stamps))]
        if not parts:
            return np.empty(0), self.features(stamps)
        logits = self._finite(np.concatenate([out.astype(np.float64).reshape(len(out), -1) for out, _ in parts]))
        return 1.0 / (1.0 + np.exp(-logits[:, 0])), np.concatenate([features for _, features in parts])
