"""
How often a fit with clumps ends in a minimum that is not the best, and what seeking it again does about it.

    python -m benchmarks.studies.dark_matter.minima --work FOLDER [--n 96]

The first lenses of `substructure-1` with clumps and without substructure, as `fitted.py` simulates them, outside the
training split. Each is fitted as `lenspipe stamps fit --clumps 6 --finer 3` does, with more and more `--rounds`, and
by last steps from the lens, source and clumps that it was drawn with. A fit is lost that ends with a cost, which is chi
square and priors, by more than 10 above that. Writes `results/dark_matter_minima.json`.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import record
from benchmarks.studies.dark_matter.cells import cell_of, recipe_of, stamps_of
from benchmarks.studies.dark_matter.fitted import CLUMPS, FINER
from benchmarks.timing import Clock
from lenspipe.infer.fitted import brightness
from lenspipe.infer.fitted_set import priors_of
from lenspipe.nn.damped import Damped, n_clump_of
from lenspipe.nn.sersic_image import CLUMP, NAMES
from lenspipe.nn.sersic_lens import MORE_STEPS, SersicFit
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.published import flux_of_brightness
from lenspipe.simulate.recipe import Recipe
from lenspipe.simulate.stamp import draw_stamp
from lenspipe.stamps.format import StampSet, image_array
from lenspipe.tables import open_parquet

ROUNDS, LOST, SPLITS = (0, 2, 4), 10.0, ("validation", "test")


def truth(recipe: Recipe, seed: int, item: int, pixel_scale_arcsec: float) -> NDArray[np.float32]:
    """Parameters that a lens was drawn with, in the order of a fit's."""
    lensed = draw_stamp(recipe, seed=seed, item=item).lensed
    assert lensed is not None
    main, (source, *clumps) = lensed.deflectors[0], lensed.arcs.components
    assert isinstance(main, MacroLens)

    def of(light: Component) -> tuple[Sersic, float]:
        assert isinstance(light.profile, Sersic)
        one = flux_of_brightness(1.0, light.profile.radius_arcsec, light.profile.n, pixel_scale_arcsec)
        return light.profile, float(np.log(np.ravel(light.flux_njy)[0] / one))

    def turned(q: float, angle: float) -> list[float]:
        e = (1 - q**2) / (1 + q**2)
        return [e * np.cos(2 * angle), e * np.sin(2 * angle)]

    profile, bright = of(source)
    found = [main.theta_e_arcsec, *turned(main.axis_ratio, main.angle_rad)]
    found += [main.shear * np.cos(2 * main.shear_angle_rad), main.shear * np.sin(2 * main.shear_angle_rad)]
    found += [profile.x_arcsec, profile.y_arcsec, bright, np.log(profile.radius_arcsec), np.log(profile.n)]
    found += turned(profile.axis_ratio, profile.angle_rad)
    found += [0.0] * (len(NAMES) - len(found))
    for own, light in map(of, clumps):
        found += [own.x_arcsec, own.y_arcsec, light, np.log(own.radius_arcsec)]
    missing = len(NAMES) + CLUMPS * len(CLUMP) - len(found)
    return np.array(found + [np.nan] * missing, np.float32)


def costs(fit: SersicFit, stamps: Tensor, sigma: Tensor, values: Tensor, *, n_step: int = 0) -> Tensor:
    """Costs ``(n,)`` of values, or of what last steps make of them."""
    found = torch.zeros(len(values))
    n_clump = n_clump_of(values)
    for k in sorted(set(n_clump.tolist())):
        own = torch.nonzero(n_clump == k)[:, 0]
        some = values[own, : len(NAMES) + k * len(CLUMP)]
        rest = Damped(fit, fit.fine, stamps[own], fit.fine.kept / sigma[own], *fit.known(some))
        found[own] = rest(some, n_step=n_step, kept=1, damping=1e-2)[1] if n_step else rest.cost(some)[0]
    return found


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="The folder of `fitted.py`.")
@click.option("--n", default=96, show_default=True, help="Lenses.")
@record.keep_option
def main(work: Path, n: int, keep: bool) -> None:
    """Fit and record."""
    data = cell_of("substructure-1", "equivariant-c8", 1.0).data
    recipe = recipe_of(data)
    stamps_set = StampSet.open(stamps_of(data, work))
    wanted = (stamps_set.column("label") == "no_substructure") & (stamps_set.column("source_n_clump") > 0)
    wanted &= np.isin(stamps_set.column("split"), SPLITS)
    rows, first = list[pa.Table](), 0
    for part in stamps_set.parts:
        with open_parquet(str(part)) as file:
            table = file.read()
        rows.append(table.filter(pa.array(wanted[first : first + len(table)])))
        first += len(table)
        if sum(map(len, rows)) >= n:
            break
    chosen = pa.concat_tables(rows).slice(0, n).combine_chunks()
    (name, spec), (band,) = next(iter(stamps_set.images.items())), recipe.bands
    stamps = torch.from_numpy(np.ascontiguousarray(image_array(chosen, name)[:, 0]))
    columns = (f"sky_rms_{band}_njy", f"njy_per_electron_{band}", f"seeing_{band}_arcsec")
    sky, gain, fwhm = (torch.tensor(chosen[column].to_pylist()) for column in columns)
    light = brightness(stamps, torch.zeros_like(stamps, dtype=torch.bool))
    sigma = torch.sqrt(sky[:, None, None] ** 2 + gain[:, None, None] * light)
    priors = priors_of(stamps_set, light=False)
    items = (int(one.rsplit("-", 1)[1]) for one in chosen["stamp_id"].to_pylist())
    drawn = torch.tensor(np.stack([truth(recipe, data.seed, item, spec.pixel_scale_arcsec) for item in items]))
    found, view = {}, (spec.size_px, spec.pixel_scale_arcsec, float(fwhm[0]))
    with torch.inference_mode():
        fit = SersicFit.of(*view, priors, finer=FINER, clumps=CLUMPS)
        best = costs(fit, stamps, sigma, drawn, n_step=MORE_STEPS)
        for rounds in ROUNDS:
            fit, clock = SersicFit.of(*view, priors, finer=FINER, clumps=CLUMPS, rounds=rounds), Clock()
            values, _ = fit(stamps, sigma)
            took = clock.cpu_s / len(stamps)
            above = costs(fit, stamps, sigma, values) - best
            found[str(rounds)] = {
                "ms_per_stamp": round(1e3 * took, 1),
                "lost": int((~(above <= LOST)).sum()),
                "above_100": int((~(above <= 100)).sum()),
                "better_than_the_truth": int((above < -LOST).sum()),
            }
            print(rounds, found[str(rounds)], flush=True)
    record.write("dark_matter_minima", {"recipe": recipe.name, "n": len(stamps), "of_rounds": found}, keep=keep)


if __name__ == "__main__":
    main()
