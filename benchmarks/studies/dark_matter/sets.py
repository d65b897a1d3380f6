"""
A tighter bound, which no classifier can pass: observers who are told, of each class, a set of signals.

    python -m benchmarks.studies.dark_matter.sets --recipe substructure-1 [--n 24] [--largest 1024] [--superposed 2500]

`bound.py` has the observer who is told the one signal that each class would have in an image. Here he is told a set of
them, one of which would be there (`ideal.told_of_sets`): the larger the set, the less he knows, and the nearer he comes
to the best classifier, from above. Lenses, signals, noise and marginalisation are those of `bound.py`, pixels those of
the queue. ``--superposed`` makes the signals of subhalos sums of those of so many single ones, of as large a set as is
asked for (vortices keep 1,024, more than enough for theirs): to first order in the masses, which the record compares
with whole images. Writes `results/dark_matter_sets_RECIPE.json`, or `…_superposed.json`.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

from collections.abc import Callable
from dataclasses import replace

import click
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from benchmarks import record
from benchmarks.studies.dark_matter.bound import CLASSES, areas
from benchmarks.studies.dark_matter.cells import read_queue, recipe_of
from benchmarks.studies.dark_matter.ideal import told_of_sets, whitened
from benchmarks.studies.dark_matter.smooth import SmoothLens, smooth_lens
from benchmarks.timing import Clock
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.substructure import Subhalos

N_IMAGE = 150
"""Images per lens and class, each with a signal and a noise of its own."""
ENOUGH = 1024
"""Signals of vortices, whatever the largest set is."""
N_BIN, N_CHECK = 5, 8
"""Bins of mass of the library, and draws per lens whose sums are compared with whole images."""
Array = NDArray[np.float64]


def of_lens(
    lens: SmoothLens, rng: np.random.Generator, sizes: list[int], n_single: int | None
) -> tuple[Array, NDArray[np.integer], list[float]]:
    """Posteriors ``(size, image, class)`` of all observers on one lens, the truth, and errors of sums of signals."""
    smooth, (jacobian, widths) = lens.truth(), lens.jacobian()
    draws, errors = [np.zeros((1, len(smooth)))], list[float]()
    for kind in CLASSES[1:]:
        if kind == "subhalo" and n_single is not None:
            of_singles, errors = superposed(lens, smooth, rng, sizes[-1], n_single)
            draws.append(of_singles(lambda signals: whitened(signals, jacobian, widths)))
            continue
        n = min(sizes[-1], ENOUGH)
        signals = np.array([lens.perturbed(lens.draw(rng, kind)[0]) - smooth for _ in range(n)])
        draws.append(whitened(signals, jacobian, widths))
    truth = np.repeat(np.arange(len(CLASSES)), N_IMAGE)
    own = np.concatenate([rng.integers(0, len(some), N_IMAGE) for some in draws])
    data = np.concatenate([some[own[truth == c]] for c, some in enumerate(draws)])
    data += rng.standard_normal(data.shape)
    return told_of_sets(data, truth, own, draws, sizes), truth, errors


def superposed(
    lens: SmoothLens, smooth: Array, rng: np.random.Generator, n: int, n_single: int
) -> tuple[Callable[[Callable[[Array], Array]], Array], list[float]]:
    """
    Signals of subhalos as sums of single ones, and by how much such sums are off.

    A library holds singles of the mean Einstein radius squared of each of `N_BIN` bins, at places drawn as the recipe
    draws them. Each subhalo of a draw is one of its bin, whichever, times its own Einstein radius squared over the
    library's: every draw has the masses that the recipe gave it, at places that the library has.
    """
    (radius, _) = lens.parameters["theta_e"]
    drawn = [lens.draw(rng, "subhalo")[0] for _ in range(n)]
    halos = [one for _, one in drawn if isinstance(one, Subhalos)]
    main = drawn[0][0]
    assert isinstance(main, MacroLens)

    def single(x: float, y: float, theta: float) -> Array:
        given_up = theta**2 / radius if np.hypot(x, y) < radius else 0.0
        alone = Subhalos(*(np.array([v]) for v in (x, y, theta, 0.0)))
        return lens.perturbed([replace(main, theta_e_arcsec=radius - given_up), alone]) - smooth

    errors = list[float]()
    for deflectors, few in zip(drawn[:N_CHECK], halos[:N_CHECK], strict=True):
        whole = lens.perturbed(deflectors) - smooth
        parts = (single(*v) for v in zip(few.x_arcsec, few.y_arcsec, few.einstein_radius_arcsec, strict=True))
        if len(few.x_arcsec):
            errors.append(float(np.linalg.norm(sum(parts) - whole) / np.linalg.norm(whole)))
    square = np.concatenate([one.einstein_radius_arcsec for one in halos]) ** 2
    x, y = (np.concatenate([getattr(one, name) for one in halos]) for name in ("x_arcsec", "y_arcsec"))
    # masses below a tenth of the largest bend in proportion; above it, bins of equal steps
    edges = np.linspace(0.1 * square.max(), square.max(), N_BIN)[:-1]
    bins = np.digitize(square, edges)
    owner = np.repeat(np.arange(n), [len(one.x_arcsec) for one in halos])
    each, library, strength, first = n_single // N_BIN, list[Array](), list[Array](), list[int]()
    for k in range(N_BIN):
        first.append(len(library))
        member = np.flatnonzero(bins == k)
        if not len(member):
            strength.append(np.ones(1))
            continue
        size = float(square[member].mean())
        places = rng.choice(member, min(each, len(member)), replace=False)
        library.extend(single(x[j], y[j], float(np.sqrt(size))) for j in places)
        strength.append(np.array([size]))
    count = np.diff([*first, len(library)])
    which = np.array(first)[bins] + (rng.random(len(bins)) * count[bins]).astype(int)
    amount = csr_array((square / np.concatenate(strength)[bins], (owner, which)), shape=(n, len(library)))
    return lambda white: np.asarray(amount @ white(np.array(library))), errors


@click.command()
@click.option("--recipe", "name", default="substructure-1", show_default=True, help="A recipe of the queue.")
@click.option("--n", "n_lens", default=24, show_default=True, help="Lenses.")
@click.option("--largest", default=1024, show_default=True, help="Signals of the largest set; sets are powers of 4.")
@click.option(
    "--superposed", "n_single", type=int, default=None, help="Sum signals of subhalos of so many single ones."
)
@click.option("--seed", default=7, show_default=True)
@record.keep_option
def main(name: str, n_lens: int, largest: int, n_single: int | None, seed: int, keep: bool) -> None:
    """Measure and record."""
    recipe = recipe_of(next(one for one in read_queue()[0].data if one.recipe == name))
    sizes, clock = [int(size) for size in 4 ** np.arange(12) if size <= largest], Clock()
    found, errors = [], list[float]()
    for k in range(n_lens):
        posterior, truth, off = of_lens(
            smooth_lens(recipe, seed, k), np.random.default_rng([seed, 23, k]), sizes, n_single
        )
        found.append((posterior, truth))
        errors += off
        print(f"{k + 1}/{n_lens}", flush=True)
    told = [{"of": size} | areas([(one[k], truth) for one, truth in found]) for k, size in enumerate(sizes)]
    result = {"recipe": name, "n": n_lens, "images": N_IMAGE * len(CLASSES), "told": told, "single": n_single}
    if errors:
        result["sums_off"] = [round(float(q), 4) for q in np.quantile(errors, (0.25, 0.5, 0.75, 0.9))]
    short = f"dark_matter_sets_{name}" + "_superposed" * (n_single is not None)
    record.write(short, result | {"cpu_s": round(clock.cpu_s, 1)}, keep=keep)


if __name__ == "__main__":
    main()
