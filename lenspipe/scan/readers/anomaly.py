"""How unlike the normal stamps of a model's training each candidate is, or each of those that look like lenses."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from lenspipe.errors import ConfigError
from lenspipe.nn.outputs import Anomaly
from lenspipe.scan.readers.contract import Asked, Candidates, Work
from lenspipe.scan.readers.one_model import OneModel, open_model
from lenspipe.schema import anomaly_fields

ERROR, RATE = (f.name for f in anomaly_fields())


@dataclasses.dataclass(frozen=True)
class AnomalyScore(OneModel):
    """A model of task anomaly, and from which probability to be a lens it looks at a candidate."""

    above: float

    @property
    def takes(self) -> tuple[str, ...]:
        """A probability, unless all candidates are looked at."""
        return ("probability",) if self.above > 0 else ()

    def fields(self) -> list[pa.Field]:
        """``anomaly_score`` and the false-positive rate at which normal stamps are as unlike."""
        return anomaly_fields()

    def record(self) -> dict[str, Any]:
        """The model with its card, and who was looked at."""
        return {"anomalies": {**self.model.record(), "above": self.above}}

    def digests(self) -> dict[str, str]:
        """Of the one model."""
        return {"anomalies": self.digest}

    def load(self, device: str) -> Work:
        """Candidates to errors, null for those below ``above``; no rate where the card states no errors."""
        from lenspipe.infer.predict import Predictor

        predictor = Predictor(self.model.folder, device=device, batch_size=self.batch_size)
        outputs = predictor.card.outputs
        assert isinstance(outputs, Anomaly)

        def look(candidates: Candidates) -> dict[str, Any]:
            seen = np.ones(candidates.n, bool)
            if self.above > 0:
                seen = candidates.said["probability"] >= self.above
            error, rate = np.zeros(candidates.n, np.float32), np.zeros(candidates.n, np.float32)
            if seen.any():
                said = predictor.predict(self.seen(predictor.card, candidates, seen))
                error[seen], rate[seen] = said.error, said.false_positive_rate
            stated = seen if outputs.n_normal else np.zeros_like(seen)
            return {ERROR: pa.array(error, mask=~seen), RATE: pa.array(rate, mask=~stated)}

        return look


def choose(asked: Asked) -> AnomalyScore | None:
    """
    The anomaly score that a scan is asked for; None where there is none.

    Raises
    ------
    ConfigError
        The model is not there or is not one of such tiles; it is to look at probable lenses only and nothing gives a
        probability.
    """
    wanted, substructure = asked.config.anomalies, asked.config.substructure
    if wanted.model is None:
        if wanted.above is not None:
            raise ConfigError("anomalies.above is about anomalies.model, which is not given", above=wanted.above)
        return None
    above = wanted.above
    if above is None:
        above = substructure.above if substructure.models else 0.0
    if above > 0 and asked.giving("probability") is None:
        raise ConfigError(
            "anomalies are looked for among probable lenses, and no calibrated finder scores: fit one by "
            "`lenspipe calibrate`, or look at all candidates by --anomaly-above 0",
            above=above,
        )
    return AnomalyScore(open_model(wanted.model, asked, Anomaly, "--anomaly"), asked.config.score.batch_size, above)
