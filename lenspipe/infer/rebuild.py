"""Run an autoencoder on prepared stamps: how badly each comes back, and what comes back."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lenspipe.errors import ModelError
from lenspipe.infer.predict import Predictor
from lenspipe.nn.network import RebuildNetwork


class Rebuilder(Predictor):
    """A checkpoint of task anomaly, ready to run; batches as in `lenspipe.infer.loaded.LoadedNetwork`."""

    @property
    def gives_back(self) -> bool:
        """Whether the network gives stamps back, or says how unlike they are alone."""
        return isinstance(self._module, RebuildNetwork)

    def rebuild(self, stamps: NDArray[np.float32]) -> NDArray[np.float32]:
        """
        Stamps ``(n, channel, y, x)`` as they come back, same shape.

        Raises
        ------
        ModelError
            The network gives nothing back.
        """
        if not isinstance(self._module, RebuildNetwork):
            raise ModelError("this network gives no stamp back", family=self.card.family)
        parts = [np.empty((0, *stamps.shape[1:]), np.float32)]
        with torch.inference_mode():
            for rows in self.batches(len(stamps)):
                back = self._module.rebuild(self._on_device(stamps[rows], self.batch_size))
                parts.append(back.cpu().numpy()[: rows.stop - rows.start])
        return np.concatenate(parts)
