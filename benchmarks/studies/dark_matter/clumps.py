"""
How well fits describe smooth lenses whose sources have clumps, and what they take.

    python -m benchmarks.studies.dark_matter.clumps --work FOLDER [--n 256]

The first stamps of `substructure-1` without substructure, as `fitted.py` simulates them, fitted with more and more of
what `lenspipe stamps fit` can do. What a good fit leaves is noise: its mean square is 1, and the highest significance
of a point mass is that of noise; whatever lies above looks like substructure and is none. Writes
`results/dark_matter_clumps.json`.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import pyarrow as pa
import torch

from benchmarks import record
from benchmarks.studies.dark_matter.cells import cell_of, stamps_of
from benchmarks.timing import Clock
from lenspipe.infer.fitted_set import FitTask, priors_of
from lenspipe.nn import sersic_lens
from lenspipe.nn.fitted import SmoothFit
from lenspipe.nn.sersic_image import NAMES
from lenspipe.stamps.format import StampSet
from lenspipe.tables import open_parquet

WAYS: tuple[tuple[str, dict[str, int], bool], ...] = (
    ("one Sérsic source", {}, False),
    ("4 clumps, sought once", {"clumps": 4}, False),
    ("4 clumps", {"clumps": 4}, True),
    ("6 clumps", {"clumps": 6}, True),
    ("6 clumps, 3 points per pixel", {"clumps": 6, "finer": 3}, True),
)
"""Name, settings of the fit, and whether what leaves much is sought again."""
LEFT, SNR = 1.1, 5.0
"""Mean square above which a smooth lens is not described, and a significance that noise hardly has."""


def measured(data: StampSet, n: int, settings: dict[str, int], again: bool) -> dict[str, Any]:
    """One way to fit, on the first ``n`` stamps without substructure."""
    priors, (name, spec) = priors_of(data, light=False), next(iter(data.images.items()))
    values = zip(priors.mean.tolist(), priors.width.tolist(), strict=True)
    fit = SmoothFit(
        band=spec.bands[0],
        size_px=spec.size_px,
        pixel_scale_arcsec=spec.pixel_scale_arcsec,
        priors=dict(zip(NAMES, values, strict=True)),
        light=False,
        point_masses=True,
        njy_per_electron=None,
        **{"finer": 2} | settings,
    )
    rows = []
    for part in data.parts:
        with open_parquet(str(part)) as file:
            rows.append(file.read())
        rows[-1] = rows[-1].filter([label == "no_substructure" for label in rows[-1]["label"].to_pylist()])
        if sum(map(len, rows)) >= n:
            break
    torch.set_num_threads(1)
    too_much, clock = sersic_lens.TOO_MUCH if again else np.inf, Clock()
    with patch.object(sersic_lens, "TOO_MUCH", too_much):
        found = FitTask(name, fit).fitted(pa.concat_tables(rows).slice(0, n).combine_chunks())
    cpu_s = clock.cpu_s
    column = {one: np.array(found[one].to_pylist()) for one in ("fitted_chi2", "fitted_point_mass_snr")}
    clumps = np.array(found["source_n_clump"].to_pylist())
    given = np.array(found["fitted_n_clump"].to_pylist()) if fit.clumps else np.zeros(len(clumps))
    result: dict[str, Any] = {"ms_per_stamp": round(1e3 * cpu_s / len(clumps), 1)}
    for which, own in (("smooth", clumps == 0), ("clumpy", clumps > 0)):
        result[which] = {
            "n": int(own.sum()),
            "chi2": [round(float(q), 3) for q in np.quantile(column["fitted_chi2"][own], (0.25, 0.5, 0.75, 0.9))],
            "not_described": round(float((column["fitted_chi2"][own] > LEFT).mean()), 3),
            "like_a_mass": round(float((column["fitted_point_mass_snr"][own] > SNR).mean()), 3),
            "clumps_given": round(float(given[own].mean()), 2),
        }
    return result


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="The folder of `fitted.py`.")
@click.option("--n", default=256, show_default=True, help="Lenses without substructure.")
@record.keep_option
def main(work: Path, n: int, keep: bool) -> None:
    """Measure and record."""
    data = StampSet.open(stamps_of(cell_of("substructure-1", "equivariant-c8", 1.0).data, work))
    ways = {}
    for way, settings, again in WAYS:
        ways[way] = measured(data, n, settings, again)
        print(way, ways[way], flush=True)
    record.write("dark_matter_clumps", {"recipe": "substructure-1", "n": n, "ways": ways}, keep=keep)


if __name__ == "__main__":
    main()
