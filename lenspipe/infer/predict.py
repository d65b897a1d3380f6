"""Run a checkpoint on prepared stamps: scores, class probabilities, or values with their errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import DataError, ModelError
from lenspipe.infer.loaded import LoadedNetwork
from lenspipe.nn.outputs import Prediction


class Predictor(LoadedNetwork):
    """A checkpoint that gives numbers per stamp, ready to run; batches as in `LoadedNetwork`."""

    def outputs(self, stamps: NDArray[np.float32], features: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
        """
        Numbers that the network gives ``(n, n_out)`` for prepared stamps ``(n, channel, stamp_px, stamp_px)``.

        Parameters
        ----------
        stamps : array
        features : array (n, feature), optional
            Values of the card's features, in their own units; only for models that take any.

        Raises
        ------
        DataError
            The features are not those of the card, or one is not finite.
        ModelError
            An output is not finite.
        """
        scaled = self._scaled(features, len(stamps))
        parts = []
        for rows in self.batches(len(stamps)):
            out = self.run(stamps[rows]) if scaled is None else self.run(stamps[rows], scaled[rows])
            parts.append(out.astype(np.float64).reshape(len(out), -1))
        return self._finite(np.concatenate(parts) if parts else np.empty((0, self.card.n_out)))

    def _finite(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        if not np.isfinite(outputs).all():
            raise ModelError("the network gave outputs that are not finite: its weights are broken", model=self.digest)
        return outputs

    def predict(self, stamps: NDArray[np.float32], features: NDArray[np.floating] | None = None) -> Prediction:
        """`outputs` as the card's task means them; raises `ModelError` where it gives no numbers per stamp."""
        return self.card.outputs.read(self.outputs(stamps, features))

    def _scaled(self, features: NDArray[np.floating] | None, n: int) -> NDArray[np.float32] | None:
        names = self.card.features
        if not names:
            return None
        if features is None or features.shape != (n, len(names)) or not np.isfinite(features).all():
            raise DataError(
                "the model takes numbers beside each image, all finite",
                features=",".join(names),
                got=str(None if features is None else features.shape),
            )
        scaled = (features - np.array(self.card.feature_means)) / np.array(self.card.feature_spreads)
        return scaled.astype(np.float32)
