"""
Batch norms of a mean of weights, measured anew on training stamps: does it change what a taught finder does?

    python -m benchmarks.studies.finder_survey.norms taught/half-200 --real ../shared/data --work norms

On the trainings of `benchmarks.studies.finder_survey.teach`: per fold the network with half the weights of the base and
half the mean of the seeds, once with the mean of the statistics, as it ships, and once with those of batches of its
training, augmented and balanced (Izmailov et al. 2018, UAI, arXiv 1803.05407, section 3.2). Each candidate is judged by
a fold that did not see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import record
from benchmarks.studies.finder_survey.grades import kids_of, scored, sky_of
from benchmarks.studies.finder_survey.teach import ALL, Judge, Setting, scores_of, soup
from benchmarks.studies.finder_survey.warps import fold_of
from benchmarks.studies.real_sky.ground import BANDS
from benchmarks.timing import Clock
from lenspipe.finder.rounds import open_bases, settings_for
from lenspipe.learn.batches import epoch_batches, prepare_batch
from lenspipe.learn.job import TrainJob, make_job
from lenspipe.learn.losses import Tensors
from lenspipe.learn.players import call
from lenspipe.learn.world import World
from lenspipe.nn.card import CARD_FILE
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.toml import put_over

N_BATCH = 40
"""Batches of a training that are enough."""


def norms_of(network: nn.Module) -> list[Any]:
    """Modules that keep a mean and a variance of what they saw."""
    return [one for one in network.modules() if isinstance(getattr(one, "running_mean", None), Tensor)]


@torch.no_grad()
def measure_norms(network: nn.Module, batches: Iterator[Tensors]) -> None:
    """Set each norm's statistics to the mean of those of some batches; all else, dropout too, is in evaluation."""
    network.eval()
    norms = norms_of(network)
    sums = [[torch.zeros_like(norm.running_mean), torch.zeros_like(norm.running_var)] for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    n = 0
    for batch in batches:
        call(network, batch)
        n += 1
        for (mean, variance), norm in zip(sums, norms, strict=True):
            mean += norm.running_mean
            variance += norm.running_var
    for (mean, variance), norm in zip(sums, norms, strict=True):
        norm.running_mean.copy_(mean / n)
        norm.running_var.copy_(variance / n)
    network.eval()


def training_batches(job: TrainJob, n: int = N_BATCH) -> Iterator[Tensors]:
    """Batches as a job's training would see them after its last epoch, augmented and balanced, on the CPU."""
    world, epoch = World(), job.settings.optim.epochs
    for step, batch in enumerate(islice(epoch_batches(job, world, epoch), n)):
        yield prepare_batch(job, world, batch, epoch, step)


def measured(network_of: Path, stamps: Path, out: Path, setting: Setting, seed: int) -> dict[str, float]:
    """A checkpoint with its norms measured on training stamps, and how far they were off."""
    (base,) = open_bases(setting.base, {})
    settings = put_over(
        settings_for(setting.finder_settings(), "norms", BANDS, base), {"input.stamp_px": None}, origin="study"
    )
    network, card = load_model(network_of)
    before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms_of(network)]
    job = make_job(stamps, card.family, "find", out, settings, seed=seed)
    measure_norms(network, training_batches(job))
    if not (out / CARD_FILE).exists():
        save_model(out, network, card)
    now = norms_of(network)
    shift = [
        float(((m - n.running_mean).abs() / n.running_var.sqrt()).max()) for (m, _), n in zip(before, now, strict=True)
    ]
    ratio = np.concatenate([(v / n.running_var).numpy() for (_, v), n in zip(before, now, strict=True)])
    return {
        "largest_shift_of_a_mean_in_sigma": max(shift),
        "variance_over_measured_least": float(ratio.min()),
        "variance_over_measured_largest": float(ratio.max()),
    }


@click.command()
@click.argument("trained", type=click.Path(path_type=Path, exists=True))
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of the measured networks.")
@click.option("--seeds", default="2026-2027-2028", show_default=True, help="Of the trainings, as in their folder.")
@click.option("--passes", type=click.IntRange(min=1), default=12, show_default=True, help="Of painting the KiDS rows.")
@click.option("--sky-seed", type=int, default=2026, show_default=True, help="Of the painted arcs.")
@click.option("--name", default="finders_survey_norms", show_default=True, help="Name of the record.")
@record.keep_option
def main(trained: Path, real: Path, work: Path, seeds: str, passes: int, sky_seed: int, name: str, keep: bool) -> None:
    """Measure norms for the trainings of a setting (TRAINED), and judge them with and without."""
    clock = Clock()
    first = int(seeds.split("-")[0])
    setting = Setting(name=trained.name)
    sky = sky_of(real, setting.base, seed=sky_seed, passes=passes)
    folds = sorted(path.name.split("-")[1] for path in (trained / f"seeds-{seeds}").glob("fold-*"))
    judge = Judge(sky, fold_of(len(sky.grade), len(folds) - 1))
    base = scored(setting.base, sky)
    ways: dict[str, dict[str, Any]] = {
        way: {"held": np.full(len(sky.grade), np.nan), "kids": [], "all": None} for way in ("as it ships", "measured")
    }
    off: dict[str, dict[str, float]] = {}
    for number in folds:
        of_seeds = [trained / f"seed-{seed}" / f"fold-{number}" / "model" for seed in seeds.split("-")]
        mean = soup(setting.base, of_seeds, trained / f"seeds-{seeds}" / f"fold-{number}" / "soup")
        anew = work / f"fold-{number}" / "measured"
        stamps = trained / f"seed-{first}" / f"fold-{number}" / "stamps"
        off[number] = measured(mean, stamps, anew, setting, first)
        for way, model in (("as it ships", mean), ("measured", anew)):
            scores = scores_of(model, sky, f"{sky_seed}-{passes}")
            if number == ALL:
                ways[way]["all"] = kids_of(scores, sky)
                continue
            mine = judge.fold == int(number)
            ways[way]["held"][mine] = scores["warps"][mine]
            ways[way]["kids"].append(kids_of(scores, sky))
    shipped = ways["as it ships"]["held"]
    result = {
        "setting": setting.model_dump(),
        "seeds": seeds,
        "norms_off_by_fold": off,
        "ways": {
            way: {
                "spacewarps_good_against_0.3": judge.area(found["held"]),
                "gain_over_base": judge.gain(found["held"], base["warps"], first),
                "gain_over_as_it_ships": judge.gain(found["held"], shipped, first),
                "kids_by_fold": found["kids"],
                "kids_taught_by_all": found["all"],
            }
            for way, found in ways.items()
        },
    }
    record.write(name, result | clock.seconds(), keep=keep)


if __name__ == "__main__":
    main()
