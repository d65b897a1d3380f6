"""The embedding: a vector per candidate, by which alike ones are found."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from lenspipe.nn.outputs import Embed
from lenspipe.scan.readers.contract import Asked, Candidates, Work
from lenspipe.scan.readers.one_model import OneModel, open_model
from lenspipe.schema import EMBEDDING, embedding_field


@dataclasses.dataclass(frozen=True)
class Embedder(OneModel):
    """A model of task embed."""

    @property
    def size(self) -> int:
        """Numbers of the vector."""
        return self.model.card.n_out

    def fields(self) -> list[pa.Field]:
        """``embedding``, which a finished run keeps in a table of its own."""
        return [embedding_field(self.size)]

    def record(self) -> dict[str, Any]:
        """The model with its card."""
        return {"embedder": self.model.record()}

    def digests(self) -> dict[str, str]:
        """Of the one model."""
        return {"embedder": self.digest}

    def load(self, device: str) -> Work:
        """Candidates to vectors of length 1."""
        from lenspipe.infer.predict import Predictor

        predictor = Predictor(self.model.folder, device=device, batch_size=self.batch_size)

        def embed(candidates: Candidates) -> dict[str, Any]:
            vectors = predictor.predict(self.seen(predictor.card, candidates)).embedding
            assert vectors is not None
            flat = pa.array(vectors.astype(np.float16).ravel())
            return {EMBEDDING: pa.FixedSizeListArray.from_arrays(flat, self.size)}

        return embed


def choose(asked: Asked) -> Embedder | None:
    """
    The embedding that a scan is asked for; None where there is none.

    Raises
    ------
    ConfigError
        The model is not there or is not an embedding of such tiles.
    """
    name = asked.config.embedder
    if name is None:
        return None
    return Embedder(open_model(name, asked, Embed, "--embed"), asked.config.score.batch_size)
