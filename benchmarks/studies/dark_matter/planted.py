"""
What odds of drawn substructure would tell if fits were right and changes of first order: signals planted in noise.

    python -m benchmarks.studies.dark_matter.planted --work FOLDER [--n 240]

For lenses without substructure of the validation split of `substructure-1`, fitted as `odds.py` does, signals of other
draws of the recipe are planted in noise of unit covariance, in the axes in which odds are made. Everything that odds
take for granted holds there: what they tell less of real stamps is lost to fits and to the first order; what they tell
less than an observer knows who is told the draws of which one is there is lost to the number of draws.
Writes `results/dark_matter_planted_substructure-1.json`.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import math
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.model_selection import GroupKFold, cross_val_predict
from torch import Tensor

from benchmarks import record
from benchmarks.studies.dark_matter.cells import cell_of, recipe_of, stamps_of
from benchmarks.studies.dark_matter.fitted import fit_of_clumps
from benchmarks.studies.dark_matter.odds import CLASSES, RECIPE, ROUNDS, areas, features_of, of_split, regression
from benchmarks.timing import Clock
from lenspipe.infer.fitted_run import write_fitted
from lenspipe.nn.damped import n_clump_of
from lenspipe.nn.draws import laid, masses_of
from lenspipe.nn.response import Response
from lenspipe.nn.sersic_image import CLUMP, NAMES
from lenspipe.nn.sersic_lens import SersicFit
from lenspipe.nn.signals import Signals, in_few_axes
from lenspipe.nn.signals import told as told_of
from lenspipe.stamps.format import StampSet, write_part
from lenspipe.tables import open_parquet

N_IMAGE = 4
"""Images per lens and class."""
Array = NDArray[np.float64]


class Planter:
    """Stands in the place of `lenspipe.nn.signals.compared`, and keeps what is told of planted signals."""

    def __init__(self, others: pa.Table, seed: int) -> None:
        self.noise = torch.Generator().manual_seed(seed)
        self.radii, self.planted = list[Tensor](), list[Tensor]()
        for one in CLASSES[1:]:
            own = others.filter(pc.equal(others["label"], one)).combine_chunks()
            self.radii.append(torch.tensor(own["theta_e_arcsec"].to_pylist()))
            owner, x, y, square = masses_of(own)
            self.planted.append(laid(owner, x, y, square, len(own)))
        self.rows: list[tuple[Tensor, Tensor, int]] = []

    def __call__(
        self, fit: SersicFit, stamps: Tensor, sigma: Tensor, values: Tensor, signals: Signals, others: object = None
    ) -> Tensor:
        """Plant around each stamp; what it gives is nobody's."""
        for j in range(len(stamps)):
            n_clump = int(n_clump_of(values[j : j + 1]))
            own = values[j : j + 1, : len(NAMES) + n_clump * len(CLUMP)]
            response, theta = Response(fit, stamps[j : j + 1], sigma[j : j + 1], own), float(own[0, 0])
            along, _ = in_few_axes(response, 0, own[0], signals)
            data, alone = [], []
            for radii, one in [(None, torch.zeros(1, len(along))), *zip(self.radii, self.planted, strict=True)]:
                alike = one if radii is None else one[(radii - theta).abs().argsort()[: len(one) // 4]]
                chosen = alike[torch.randint(len(alike), (N_IMAGE,), generator=self.noise)] @ along
                data.append(chosen + torch.randn(chosen.shape, generator=self.noise))
                alone.append((data[-1] * chosen).sum(1) - 0.5 * chosen.square().sum(1))
            odds, _, _ = told_of(signals, theta, along, torch.cat(data))
            near = next(iter(signals.of_class.values())).near(theta)
            self.rows.append(
                (torch.cat([odds.new_zeros(len(odds), 1), odds], 1), torch.cat(alone), near.stop - near.start)
            )
        return torch.zeros(len(stamps), len(signals.labels) + 2 * len(signals.amounts))


def told(odds: Array, alone: Array, truth: NDArray[np.integer], n: int) -> Array:
    """Odds of an observer who is told ``n`` draws among which the planted one is, beside all others."""
    found = odds.copy()
    for k in (1, 2):
        own = truth == k
        found[own, k] = np.logaddexp(odds[own, k] + math.log(n), alone[own]) - math.log(n + 1)
    return found


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="The folder of `fitted.py`.")
@click.option("--n", default=160, show_default=True, help="Lenses.")
@click.option("--draws", "sizes", multiple=True, type=int, default=(16384,), show_default=True, help="Draws per class.")
@record.keep_option
def main(work: Path, n: int, sizes: tuple[int, ...], keep: bool) -> None:
    """Plant, judge and record."""
    clock, data = Clock(), cell_of(RECIPE, "equivariant-c8", 1.0).data
    recipe, whole = recipe_of(data), StampSet.open(stamps_of(data, work))
    some = of_split(whole, "validation", work / "data" / f"{RECIPE}-validation")
    smooth, have = work / "data" / f"{RECIPE}-validation-smooth-{n}", 0
    for part in some.parts:
        if have >= n:
            break
        with open_parquet(str(part)) as file:
            rows = file.read()
        rows = rows.filter(pa.array([one == CLASSES[0] for one in rows["label"].to_pylist()])).slice(0, n - have)
        have += len(rows)
        if len(rows):
            write_part(rows, smooth, part.name)
    lenses, truth = StampSet.open(smooth), np.repeat(np.arange(3), N_IMAGE)
    clumpy = np.repeat(lenses.column("source_n_clump") > 0, 3 * N_IMAGE)
    label = np.tile(truth, lenses.n)
    found = {}
    for size in sizes:
        priors, how = fit_of_clumps(whole, recipe, draws=size, rounds=ROUNDS)
        others = fit_of_clumps(whole, recipe, draws=4096, seed=99)[1]["signals"][1]
        planter, out = Planter(others, 1), work / "data" / f"{RECIPE}-planted-{n}-{size}"
        if out.exists():
            raise click.UsageError(f"{out} is there: remove it")
        with patch("lenspipe.infer.fitted_set.compared", planter):
            write_fitted(lenses, priors, out, band=recipe.bands[0], **how)
        odds = torch.cat([one for one, _, _ in planter.rows]).double().numpy()
        alone = torch.cat([one for _, one, _ in planter.rows]).double().numpy()
        near, groups = planter.rows[0][2], np.arange(len(odds)) // (3 * N_IMAGE)
        p = {
            "odds": softmax(odds, axis=1),
            "told": softmax(told(odds, alone, label, near), axis=1),
            "odds, regressed": cross_val_predict(
                regression(), features_of(odds), label, groups=groups, cv=GroupKFold(5), method="predict_proba"
            ),
        }
        found[str(near)] = {name: areas(one, label, clumpy, groups) for name, one in p.items()}
        for name, one in found[str(near)].items():
            print(near, name, one)
    result = {"recipe": RECIPE, "n": lenses.n, "images": 3 * N_IMAGE, "of_draws": found}
    record.write(f"dark_matter_planted_{RECIPE}", result | {"cpu_s": round(clock.cpu_s, 1)}, keep=keep)


if __name__ == "__main__":
    main()
