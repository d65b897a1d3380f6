"""The vector of one stamp, by the model that a catalogue's vectors are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, ModelError
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import digest, find_model
from lenspipe.nn.outputs import Embed
from lenspipe.stamps.readers.one import OneStamp


def embed_stamp(stamp: OneStamp, model: str, want_digest: str) -> NDArray[np.float32]:
    """
    Vector ``(size,)`` of a stamp.

    Parameters
    ----------
    stamp : OneStamp
        Sky subtracted, as a scan's cutouts are.
    model : str
        Folder of the embedding.
    want_digest : str
        Name of the exact content of the one that made the vectors to compare with.

    Raises
    ------
    ConfigError
        The model is not there, or another one lies there.
    ModelError
        Bands or pixel scale do not fit the model.
    DataError
        The stamp is too small for it.
    """
    from lenspipe.infer.predict import Predictor

    folder: Path = find_model(model)
    if (found := digest(folder)) != want_digest:
        raise ConfigError(
            "this is not the model that the catalogue's vectors are of; name that one by --model",
            model=str(folder),
            has=found,
            want=want_digest,
        )
    predictor = Predictor(folder, device="cpu")
    if not isinstance(predictor.card.outputs, Embed):
        raise ModelError("the model gives no vectors", model=str(folder), task=predictor.card.task)
    pixels = stamp.pixels_njy[None]
    seen = stamp_input(pixels, bands=stamp.bands, pixel_scale_arcsec=stamp.pixel_scale_arcsec, card=predictor.card)
    vector = predictor.predict(seen).embedding
    assert vector is not None
    return np.asarray(vector[0], np.float32)
