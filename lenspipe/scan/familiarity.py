"""Which part of a survey a finder has no business judging: candidates unlike all that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lenspipe.nn.card import TrainingSet
from lenspipe.schema import ood_field
from lenspipe.tables import open_parquet

OOD, BEYOND = ood_field().name, 0.999
"""Column, and the quantile beyond which one in a thousand stamps of the training set lies."""


def familiarity_record(candidates: Path, known: TrainingSet | None) -> dict[str, Any] | None:
    """
    Candidates beyond the 0.999 quantile of held-out stamps; beyond all of these where they are less than 1000.

    Parameters
    ----------
    candidates : Path
        Table of a run's candidates.
    known : TrainingSet or None
        What the finder's card says of its training set.

    Returns
    -------
    dict or None
        ``beyond`` (the quantile), ``expected`` (part of stamps like the training set's that lie there), ``n`` (of
        candidates that were told), ``n_beyond`` and ``fraction``; None where nothing is told.
    """
    if known is None:
        return None
    beyond = min(BEYOND, known.n_held_out / (known.n_held_out + 1))
    n = n_beyond = 0
    with open_parquet(candidates) as file:
        if OOD not in file.schema_arrow.names:
            return None
        for batch in file.iter_batches(columns=[OOD]):
            told = batch.column(OOD).drop_null().to_numpy()
            n += len(told)
            n_beyond += int((told >= np.float32(beyond)).sum())
    return {
        "beyond": beyond,
        "expected": 1 - beyond,
        "n": n,
        "n_beyond": n_beyond,
        "fraction": n_beyond / n if n else None,
    }


def familiarity_line(record: dict[str, Any]) -> str | None:
    """It in words; None where no candidate was told."""
    if not record["n"]:
        return None
    part, expected = f"{100 * record['fraction']:.2g} %", f"{100 * record['expected']:.2g} %"
    return (
        f"Unlike all that the finder was trained on: {record['n_beyond']} of {record['n']} candidates ({part}; of "
        f"stamps like its training set it would be {expected}). Their scores mean nothing; ood_quantile is "
        f"{record['beyond']:.4g} and more there."
    )
