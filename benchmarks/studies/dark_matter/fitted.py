"""
Networks of a published recipe that are shown each stamp and what a fitted smooth lens leaves of it.

    python -m benchmarks.studies.dark_matter.fitted --work FOLDER --model equivariant-c8 [--fraction 0.1] [--plain]

Every stamp of the last rung of `ladder.py` is fitted (`lenspipe.nn.sersic_lens`, as `lenspipe stamps fit` does) with
the recipe's own ranges as priors and the noise that its instrument has, exposure by exposure; those of `substructure-1`
with the truth of the training split as priors. The image and the residual, in units of the noise, are the two bands of
a data set, on which a network of `jobs/dark_matter.toml` is trained at once, at the published mass. ``--plain`` shows
it the first band alone, as the ladder does. Writes `results/dark_matter_fitted_RECIPE_MODEL-PART_SEED.json`.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import dataclasses
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from benchmarks import record
from benchmarks.studies.dark_matter.ladder import CUT_PX, LADDERS, SHOWN, climb, stamps_of
from benchmarks.studies.dark_matter.queue import read_queue
from benchmarks.timing import Clock
from lenspipe.infer.fitted_set import priors_of, write_fitted
from lenspipe.learn.sweep.space import grid
from lenspipe.nn.sersic_lens import NAMES, Priors, SersicFit
from lenspipe.simulate.instrument import sky_rms_of_depth_njy
from lenspipe.simulate.published import PublishedTable
from lenspipe.simulate.recipe import Recipe, read_recipe
from lenspipe.stamps.format import StampSet, write_part
from lenspipe.stamps.spec import ImageSpec, image_array, image_column

BATCH = 64
LEFT = "left"
"""Name of the band of the residual."""
BOTH = {"input.stretch": "sqrt", "input.alpha": 0.8, "input.q": 0.14, "input.channel_scales": "measured"}
STEPS = 4800
FITTED = ("model-f", "model-j", "substructure-1")
"""Recipes whose smooth lenses the fit has."""


def priors(table: PublishedTable) -> Priors:
    """Mean and width of each parameter over the ranges of a recipe; what it fixes has no width."""
    rng, n = np.random.default_rng(0), 20000
    if table.theta_e_arcsec is None or table.axis_ratio[0] != 1 or table.source_place != "radius":
        raise ValueError("only round lenses of given radius, and sources within one, are fitted")

    def drawn(bounds: tuple[float, float] | None) -> NDArray[np.float64]:
        assert bounds is not None
        return rng.uniform(*bounds, n)

    def components(size: NDArray[np.float64], angle: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        return [size * np.cos(2 * angle), size * np.sin(2 * angle)]

    def shape(ratio: tuple[float, float], angle: tuple[float, float]) -> list[NDArray[np.float64]]:
        q2 = drawn(ratio) ** 2
        return components((1 - q2) / (1 + q2), drawn(angle))

    radius, turn = drawn(table.source_offset_arcsec), rng.uniform(0, 2 * np.pi, n)
    values = [
        drawn(table.theta_e_arcsec),
        np.zeros(n),
        np.zeros(n),
        *components(drawn(table.shear), drawn(table.shear_angle_rad)),
        radius * np.cos(turn),
        radius * np.sin(turn),
        *(np.log(drawn(v)) for v in (table.source_brightness_njy, table.source_radius_arcsec, table.source_n)),
        *shape(table.source_axis_ratio, table.source_angle_rad),
        *(np.zeros(n), np.zeros(n)),
        *(np.log(drawn(v)) for v in (table.lens_brightness_njy, table.lens_radius_arcsec, table.lens_n)),
        *shape(table.lens_axis_ratio, table.lens_angle_rad),
    ]
    assert len(values) == len(NAMES)
    width = [float(v.std()) if v.std() > 1e-9 else 0.0 for v in values]
    return Priors(torch.tensor([float(v.mean()) for v in values]), torch.tensor(width))


def noise_of(stamps: Tensor, sky: Tensor, recipe: Recipe) -> Tensor:
    """Noise of each pixel ``(n, y, x)``: the sky's, and photons of the stamp's own mean over 3 x 3 pixels."""
    (table,) = recipe.survey
    band = table.band[recipe.bands[0]]
    nominal = float(sky_rms_of_depth_njy(band.depth_mag[0], recipe.image[0].pixel_scale_arcsec))
    gain = band.njy_per_electron * (sky / nominal) ** 2  # a longer exposure has less of both
    bright = avg_pool2d(stamps[:, None], 3, 1, 1, count_include_pad=False)[:, 0].clamp(min=0)
    return torch.sqrt(sky[:, None, None] ** 2 + gain[:, None, None] * bright)


def fitted_set(source: Path, recipe: Recipe, out: Path) -> Path:
    """A data set with the residuals beside the images, part by part; parts that are there stay."""
    data = StampSet.open(source)
    if recipe.published is None:  # its sources have clumps, and its lenses no light
        if not out.exists():
            gain = recipe.survey[0].band[recipe.bands[0]].njy_per_electron
            write_fitted(data, priors_of(data, light=False), out, band=recipe.bands[0], njy_per_electron=gain)
        return out
    (name,) = data.images
    spec = data.images[name]
    (table,) = recipe.survey
    fwhm = table.band[recipe.bands[0]].seeing_fwhm_arcsec[0]
    fit = SersicFit.of(spec.size_px, spec.pixel_scale_arcsec, fwhm, priors(recipe.published))
    both = ImageSpec((*spec.bands, LEFT), spec.size_px, spec.pixel_scale_arcsec)
    for part in data.parts:
        if (out / part.name).exists():
            continue
        rows = pq.read_table(part)
        stamps = torch.from_numpy(image_array(rows, name)[:, 0])
        sky = torch.from_numpy(rows[f"sky_rms_{recipe.bands[0]}_njy"].to_numpy().astype(np.float32))
        lefts, values = [], []
        with torch.inference_mode():
            for start in range(0, len(stamps), BATCH):
                some = slice(start, start + BATCH)
                sigma = noise_of(stamps[some], sky[some], recipe)
                found, left = fit(stamps[some], sigma)
                lefts.append(left)
                values.append(found)
        shown = np.stack([stamps.numpy(), torch.cat(lefts).numpy()], axis=1)
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, both.field(name), image_column(shown, both))
        for k, parameter in enumerate(NAMES):
            rows = rows.append_column(f"fitted_{parameter}", pa.array(torch.cat(values)[:, k].numpy()))
        write_part(rows, out, part.name)
    return out


def chi2_of(folder: Path) -> dict[str, list[float]]:
    """Quartiles of the residual's mean square, by class, on the test split."""
    data = StampSet.open(folder)
    test = data.column("split") == "test"
    square = np.square(data.read_images(split="test")[:, 1]).mean(axis=(1, 2))
    label = data.column("label")[test]
    return {
        str(c): [round(float(q), 4) for q in np.quantile(square[label == c], (0.25, 0.5, 0.75))] for c in set(label)
    }


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Data sets and states of trainings.")
@click.option("--model", "family", default="equivariant-c8", show_default=True, help="A family of the sweep.")
@click.option("--recipe", "recipe_name", default="model-f", show_default=True, type=click.Choice(FITTED))
@click.option("--fraction", default=1.0, show_default=True, help="Part of the training stamps, one of the sweep.")
@click.option("--steps", default=STEPS, show_default=True, help="Of 32 stamps.")
@click.option("--plain", is_flag=True, help="Show the image alone.")
@click.option("--seed", type=int, default=0, show_default=True)
@record.keep_option
def main(
    work: Path, family: str, recipe_name: str, fraction: float, steps: int, plain: bool, seed: int, keep: bool
) -> None:
    """Fit, train and record."""
    queue, space = read_queue()
    data = next(one for one in queue.data if one.recipe == recipe_name)
    of_family = [one for one in grid(space) if one.family == family.rstrip("+")]
    place = len(family) - len(family.rstrip("+"))
    trial = [one for one in of_family if one.settings.sampling.fraction == fraction][place]
    last = LADDERS[recipe_name][0][-1]
    cut = {"image.0.size_px": CUT_PX[recipe_name]} if recipe_name in CUT_PX else {}
    recipe = read_recipe(recipe_name, changes=data.changes | cut)
    clock, folder = Clock(), work / "data" / f"{recipe_name}-{last}-fitted"
    there = folder.exists()
    stamps = fitted_set(stamps_of(data, last, work), recipe, folder)
    fits_cpu_s = None if there else round(clock.cpu_s, 1)
    cell = f"{family.replace(':', '-')}-{100 * fraction:g}" + (f"-{steps}" if steps != STEPS else "") + "-plain" * plain
    # steps are few: twice the rate that the space has for the family
    rung = dataclasses.replace(last, steps=steps, learning_rate=2 * trial.settings.optim.learning_rate)
    shown: dict[str, Any] = SHOWN | {"input.bands": list(recipe.bands)} if plain else BOTH
    found = climb(trial, stamps, rung, work / "cells" / recipe_name / f"fitted-{cell}-{seed}", None, seed, shown)
    head = {"recipe": recipe_name, "family": family, "fraction": fraction, "seed": seed, "plain": plain}
    more = {"shown": shown, "fits_cpu_s": fits_cpu_s, "mean_square_left": chi2_of(stamps)}
    record.write(f"dark_matter_fitted_{recipe_name}_{cell}_{seed}", head | more | found, keep=keep)


if __name__ == "__main__":
    main()
