"""What a model keeps of its training set: small arrays beside the weights, by which unlike stamps are told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from lenspipe.errors import ModelError
from lenspipe.nn.card import TRAINING_SET_FILE, ModelCard, TrainingSet
from lenspipe.rundir import atomic_path
from lenspipe.stats.familiar import Familiar

ARRAYS = ("whitening", "means", "held_out")


def write_training_set(folder: Path, card: ModelCard, familiar: Familiar, *, n: int, data: str) -> ModelCard:
    """
    Write the arrays into a model's folder; returns the card that names them, which is not written.

    Parameters
    ----------
    folder : Path
    card : ModelCard
    familiar : Familiar
    n : int
        Stamps of the training set that it was learnt from.
    data : str
        What these and the held-out ones were.
    """
    from safetensors.numpy import save

    raw = save({name: getattr(familiar, name).astype(np.float32) for name in ARRAYS})
    with atomic_path(folder / TRAINING_SET_FILE) as partial:
        partial.write_bytes(raw)
    facts = TrainingSet(n=n, n_held_out=len(familiar.held_out), data=data, sha256=hashlib.sha256(raw).hexdigest())
    return card.model_copy(update={"training_set": facts})


def read_training_set(folder: Path, card: ModelCard) -> Familiar:
    """
    The arrays that a card names.

    Raises
    ------
    ModelError
        The card names none, or the file is not there or another one.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / TRAINING_SET_FILE
    if card.training_set is None:
        raise ModelError("the model knows nothing of its training set", folder=str(folder))
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the model's {TRAINING_SET_FILE} cannot be read ({error.strerror})", folder=str(folder)
        ) from error
    if (found := hashlib.sha256(raw).hexdigest()) != card.training_set.sha256:
        raise ModelError(
            "what the model keeps of its training set is not what its card was written for",
            file=str(path),
            got_sha256=found[:16],
            want_sha256=card.training_set.sha256[:16],
        )
    try:
        arrays = load(raw)
        return Familiar(**{name: arrays[name].astype(np.float64) for name in ARRAYS})
    except (SafetensorError, KeyError) as error:
        raise ModelError(f"{TRAINING_SET_FILE} is damaged: {error}", file=str(path)) from error
