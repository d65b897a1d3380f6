"""
A lower bound on what no classifier can pass: observers who are told, of each class, a set of signals.

    python -m benchmarks.studies.dark_matter.sets --recipe substructure-1 [--n 24] [--largest 1024]

`bound.py` has the observer who is told the one signal that each class would have in an image. Here he is told a set of
them, one of which would be there (`ideal.told_of_sets`): the larger the set, the less he knows, and the nearer he comes
to the best classifier, from above. Lenses, signals, noise and marginalisation are those of `bound.py`, pixels those of
the queue. Writes `results/dark_matter_sets_RECIPE.json`.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.studies.dark_matter.bound import CLASSES, areas
from benchmarks.studies.dark_matter.cells import read_queue, recipe_of
from benchmarks.studies.dark_matter.ideal import told_of_sets, whitened
from benchmarks.studies.dark_matter.smooth import SmoothLens, smooth_lens
from benchmarks.timing import Clock

N_IMAGE = 150
"""Images per lens and class, each with a signal and a noise of its own."""
Array = NDArray[np.float64]


def of_lens(lens: SmoothLens, rng: np.random.Generator, sizes: list[int]) -> tuple[Array, NDArray[np.integer]]:
    """Posteriors ``(size, image, class)`` of all observers on one lens, and the truth."""
    smooth, (jacobian, widths) = lens.truth(), lens.jacobian()
    draws = [np.zeros((1, len(smooth)))]
    for kind in CLASSES[1:]:
        signals = np.array([lens.perturbed(lens.draw(rng, kind)[0]) - smooth for _ in range(sizes[-1])])
        draws.append(whitened(signals, jacobian, widths))
    truth = np.repeat(np.arange(len(CLASSES)), N_IMAGE)
    own = np.concatenate([rng.integers(0, len(some), N_IMAGE) for some in draws])
    data = np.concatenate([some[own[truth == c]] for c, some in enumerate(draws)])
    data += rng.standard_normal(data.shape)
    return told_of_sets(data, truth, own, draws, sizes), truth


@click.command()
@click.option("--recipe", "name", default="substructure-1", show_default=True, help="A recipe of the queue.")
@click.option("--n", "n_lens", default=24, show_default=True, help="Lenses.")
@click.option("--largest", default=1024, show_default=True, help="Signals of the largest set; sets are powers of 4.")
@click.option("--seed", default=7, show_default=True)
@record.keep_option
def main(name: str, n_lens: int, largest: int, seed: int, keep: bool) -> None:
    """Measure and record."""
    recipe = recipe_of(next(one for one in read_queue()[0].data if one.recipe == name))
    sizes, clock = [int(size) for size in 4 ** np.arange(12) if size <= largest], Clock()
    found = []
    for k in range(n_lens):
        found.append(of_lens(smooth_lens(recipe, seed, k), np.random.default_rng([seed, 23, k]), sizes))
        print(f"{k + 1}/{n_lens}", flush=True)
    told = [{"of": size} | areas([(one[k], truth) for one, truth in found]) for k, size in enumerate(sizes)]
    result = {"recipe": name, "n": n_lens, "images": N_IMAGE * len(CLASSES), "told": told}
    record.write(f"dark_matter_sets_{name}", result | {"cpu_s": round(clock.cpu_s, 1)}, keep=keep)


if __name__ == "__main__":
    main()
