"""
Between a finder and what a hundred grades make of it: weights on the line, two stages, and logits by survey.

    python -m benchmarks.studies.finder_survey.between --real ../shared/data --sky sky.npz

The whole network of ``--model`` learns 40 steps of Space Warps grades (`benchmarks.studies.few_shot.lenses`), once per
fold, and forgets KiDS. Judged as all of `finder_survey` (`grades.kids_of`, `teach.Judge`), per seed:

- ``line``: (1 - a) of the base's parameters and a of the taught ones, for a from 0 to 1; no batch norm learns;
- ``kept``: the same, where half of each batch are sources and painted arcs of KiDS rows 0 to 1690 on which the logit is
  to stay the base's (Li & Hoiem 2016, ECCV, arXiv 1606.09282), by weight of that half;
- ``two stages``: what a part of the KiDS galaxies passes by the base is ordered by the taught network, above the rest;
- ``by survey``: the mean of both logits, each in standard deviations of its own survey (all candidates, all galaxies).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.studies.data import KIDS_FWHM_ARCSEC, KIDS_ROWS, KIDS_SCALE_ARCSEC, kids_tile, study_hosts
from benchmarks.studies.finder_survey.grades import Sky, kept_sky, kids_of
from benchmarks.studies.finder_survey.teach import Judge, Scores, mean_of
from benchmarks.studies.real_sky.ground import BANDS, CFHTLS_SCALE_ARCSEC
from benchmarks.timing import Clock
from lenspipe.infer.committee import N_VIEW, dihedral_view
from lenspipe.infer.prepare import cutout_size_px
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import ModelCard, find_model
from lenspipe.nn.checkpoint import load_model
from lenspipe.simulate.paint import paint_tile
from lenspipe.stats.recall import threshold_passed_by

Array = NDArray[np.float64]
Stamps = NDArray[np.float32]
LINE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
KEPT = (0.03, 0.1, 0.3)
FIRST = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Parts of the KiDS galaxies that the first stage lets through."""
BELOW = 100.0
"""By how many standard deviations what the first stage holds back lies lower; as a logit it is still told from 0."""
N_GRADED, N_REHEARSED = 8, 16
"""Stamps of each class, and of KiDS, in a batch."""


def stratified(judge: Judge, folds: int) -> NDArray[np.int64]:
    """Folds of the sure candidates as in `few_shot.lenses`, -1 elsewhere; those graded between belong to none."""
    rng = np.random.default_rng(0)
    fold = np.full(len(judge.sky.grade), -1)
    for kind in (judge.good, judge.poor):
        rows = rng.permutation(np.flatnonzero(kind))
        fold[rows] = np.arange(len(rows)) % folds
    return fold


def shown(sky: Sky, card: ModelCard) -> dict[str, Stamps]:
    """The network's input of everything that is scored."""
    scale = {"warps": CFHTLS_SCALE_ARCSEC, "galaxies": KIDS_SCALE_ARCSEC, "arcs": KIDS_SCALE_ARCSEC}
    return {
        name: stamp_input(getattr(sky, name), bands=BANDS, pixel_scale_arcsec=one, card=card)
        for name, one in scale.items()
    }


def rehearsed(real: Path, card: ModelCard, *, seed: int, passes: int) -> Stamps:
    """Sources of KiDS rows 0 to 1690, bare and with arcs painted around the early types, as the network sees them."""
    images = kids_tile(real)[:, : KIDS_ROWS["validation"][1]]
    size_px = cutout_size_px(card, KIDS_SCALE_ARCSEC) | 1
    common: dict[str, Any] = {"name": "kids", "pixel_scale_arcsec": KIDS_SCALE_ARCSEC, "size_px": size_px}
    hosts, at = study_hosts(images, psf_fwhm_arcsec=np.array(KIDS_FWHM_ARCSEC), **common)
    stamps = [host.pixels_njy for host in hosts]
    early = [k for k, host in enumerate(hosts) if host.kind == "early"]
    for number in range(passes):
        chosen = early[number % 3 :: 3]
        painted, _ = paint_tile(
            images,
            at[chosen, 0],
            at[chosen, 1],
            seed=seed * 1000 + 500 + number,
            bands=BANDS,
            pixel_scale_arcsec=KIDS_SCALE_ARCSEC,
            psf=KIDS_FWHM_ARCSEC,
            sky_rms_njy=hosts[0].sky_rms_njy,
            min_arc_snr=10.0,
            axis_ratio=np.array([hosts[k].axis_ratio for k in chosen]),
            angle_rad=np.array([hosts[k].angle_rad for k in chosen]),
        )
        again, where = study_hosts(painted, psf_fwhm_arcsec=np.array(KIDS_FWHM_ARCSEC), **common)
        apart = np.hypot(*(where[None] - at[chosen][:, None]).transpose(2, 0, 1))
        stamps += [again[k].pixels_njy for k in apart.argmin(axis=1)]
    return stamp_input(np.stack(stamps), bands=BANDS, pixel_scale_arcsec=KIDS_SCALE_ARCSEC, card=card)


def views(stamps: Stamps, rows: NDArray[np.intp], rng: np.random.Generator) -> torch.Tensor:
    """Stamps in random turns and mirrors."""
    turned = np.stack([dihedral_view(stamps[k][None], int(rng.integers(N_VIEW)))[0] for k in rows])
    return torch.from_numpy(np.ascontiguousarray(turned))


def tuned(
    folder: Path,
    warps: Stamps,
    truth: NDArray[np.bool_],
    train: NDArray[np.intp],
    *,
    steps: int,
    seed: int,
    kids: Stamps | None = None,
    keep: float = 0.0,
) -> dict[str, torch.Tensor]:
    """State of the whole network after steps of grades, and of ``keep`` times the squared change of logits on KiDS."""
    module, _ = load_model(folder)
    base, _ = load_model(folder)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-4, weight_decay=0.02)
    rng = np.random.default_rng([len(train), seed] if seed else len(train))  # seed 0: the draws of few_shot.lenses
    classes = [train[truth[train] == kind] for kind in (True, False)]
    for _ in range(steps):
        rows = np.concatenate([rng.choice(one, N_GRADED) for one in classes])
        out = module(views(warps, rows, rng))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(out, torch.from_numpy(truth[rows]).float())
        if kids is not None:
            batch = views(kids, rng.integers(len(kids), size=N_REHEARSED), rng)
            with torch.no_grad():
                before = base(batch)
            loss = loss + keep * torch.nn.functional.mse_loss(module(batch), before)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return module.state_dict()


def on_the_line(folder: Path, state: dict[str, torch.Tensor], part: float) -> torch.nn.Module:
    """The network with ``part`` of its parameters and statistics from a state, the rest from a finder's."""
    module, _ = load_model(folder)
    begun = module.state_dict()
    mixed = {k: (1 - part) * begun[k] + part * v if v.is_floating_point() else v for k, v in state.items()}
    module.load_state_dict(mixed)
    return module


def logits_of(module: torch.nn.Module, images: dict[str, Stamps]) -> Scores:
    """Logits of everything, in standard deviations of those of KiDS galaxies as in `grades.scored`."""
    with torch.inference_mode():
        raw = {
            name: np.concatenate([module(part).double().numpy() for part in torch.from_numpy(stamps).split(256)])
            for name, stamps in images.items()
        }
    middle, spread = np.median(raw["galaxies"]), raw["galaxies"].std()
    return {name: (values - middle) / spread for name, values in raw.items()}


def two_stages(first: Scores, then: Scores, part: float) -> Scores:
    """Scores of ``then`` above what a part of the first's galaxies pass, and below all of these the first's own."""
    at = threshold_passed_by(first["galaxies"], part)
    return {name: np.where(first[name] > at, then[name], first[name] - BELOW) for name in then}


def by_survey(scores: Scores) -> Scores:
    """Scores with those of CFHTLS in standard deviations of all its candidates."""
    warps = scores["warps"]
    return scores | {"warps": (warps - np.median(warps)) / warps.std()}


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option(
    "--sky", "sky_file", type=click.Path(path_type=Path), required=True, help="File that keeps what is painted."
)
@click.option("--model", default="ground-gri", show_default=True)
@click.option("--folds", type=click.IntRange(min=2), default=5, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--passes", type=click.IntRange(min=1), default=12, show_default=True, help="Of painting the KiDS rows.")
@click.option("--sky-seed", type=int, default=2026, show_default=True, help="Of the painted arcs.")
@click.option("--name", default="finders_survey_line", show_default=True, help="Name of the record.")
@record.keep_option
def main(
    real: Path,
    sky_file: Path,
    model: str,
    folds: int,
    seeds: int,
    steps: int,
    passes: int,
    sky_seed: int,
    name: str,
    keep: bool,
) -> None:
    """Judge what lies between a finder and its fine-tuned self."""
    clock = Clock()
    torch.set_num_threads(1)
    folder = find_model(model)
    module, card = load_model(folder)
    sky = kept_sky(sky_file, real, model, seed=sky_seed, passes=passes)
    judge = Judge(sky, np.zeros(len(sky.grade), np.int64))
    fold, images = stratified(judge, folds), shown(sky, card)
    kids = rehearsed(real, card, seed=sky_seed, passes=3)
    base = logits_of(module, images)
    ways: dict[str, Callable[[Scores, Callable[[float], Scores]], Scores]] = {
        **{f"two stages, {part:g}": lambda own, _, part=part: two_stages(base, own, part) for part in FIRST},
        **{
            f"two stages, {part:g}, then half the weights": lambda own, at, part=part: two_stages(base, at(0.5), part)
            for part in FIRST
        },
        "by survey": lambda own, _: mean_of(by_survey(base), by_survey(own)),
        "mean of logits": lambda own, _: mean_of(base, own),
    }
    held: dict[str, list[Array]] = {}
    found: dict[str, dict[str, list[Any]]] = {}
    for seed in range(seeds):
        own: dict[str, Array] = {}
        for number in range(folds):
            train = np.flatnonzero((fold >= 0) & (fold != number))
            for way, scores in every(folder, images, judge, train, kids, steps, seed, ways):
                own.setdefault(way, np.full(len(fold), np.nan))[fold == number] = scores["warps"][fold == number]
                of = found.setdefault(way, {"kids_by_fold": [], "auc_by_fold": []})
                of["kids_by_fold"].append(kids_of(scores, sky))
                good, poor = (scores["warps"][(fold == number) & kind] for kind in (judge.good, judge.poor))
                of["auc_by_fold"].append(float((good[:, None] > poor[None]).mean()))
        for way, scores_ in own.items():
            held.setdefault(way, []).append(scores_)
        print(f"seed {seed}: {round(clock.seconds()['seconds'])} s", flush=True)
    result: dict[str, Any] = {"model": model, "folds": folds, "seeds": seeds, "steps": steps, "rehearsed": len(kids)}
    result["alone"] = {"spacewarps_good_against_0.3": judge.area(base["warps"])} | kids_of(base, sky)
    result["ways"] = {
        way: {
            "auc_by_seed": [judge.area(one)["value"] for one in by_seed],
            "auc_of_mean_of_seeds": judge.area(np.mean(by_seed, axis=0)),
            "mean_of_fold_aucs": float(np.mean(found[way]["auc_by_fold"])),
            "gain": judge.gain(np.mean(by_seed, axis=0), base["warps"], sky_seed),
            "arcs_k": summary(found[way]["kids_by_fold"], "painted_arcs_where_1_percent_pass"),
            "galaxies_k": summary(found[way]["kids_by_fold"], "kids_above_what_80_percent_of_arcs_pass"),
        }
        for way, by_seed in held.items()
    }
    print(table(result))
    record.write(name, result | clock.seconds(), keep=keep)


def every(
    folder: Path,
    images: dict[str, Stamps],
    judge: Judge,
    train: NDArray[np.intp],
    kids: Stamps,
    steps: int,
    seed: int,
    ways: dict[str, Callable[[Scores, Callable[[float], Scores]], Scores]],
) -> Iterator[tuple[str, Scores]]:
    """Scores of everything by each way, of one fold and seed."""
    state = tuned(folder, images["warps"], judge.good, train, steps=steps, seed=seed)
    line = {part: logits_of(on_the_line(folder, state, part), images) for part in LINE}
    for part, scores in line.items():
        yield f"line, {part:g}", scores
    for way, rule in ways.items():
        yield way, rule(line[1.0], line.__getitem__)
    for weight in KEPT:
        state = tuned(folder, images["warps"], judge.good, train, steps=steps, seed=seed, kids=kids, keep=weight)
        yield f"kept, {weight:g}", logits_of(on_the_line(folder, state, 1.0), images)


def summary(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """Median and range of counts over folds and seeds, and out of how many."""
    of = [row[key]["k"] for row in rows]
    return {"median": float(np.median(of)), "from": min(of), "to": max(of), "n": rows[0][key]["n"]}


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = [
        "| | AUC by seed | AUC of the mean | within folds | gain [95 %] | arcs | KiDS |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, one in result["ways"].items():
        low, high = one["gain"]["interval95"]
        whole = one["auc_of_mean_of_seeds"]
        counts = (f"{c['median']:g} ({c['from']} to {c['to']})" for c in (one["arcs_k"], one["galaxies_k"]))
        cells = [
            way,
            " ".join(f"{value:.3f}" for value in one["auc_by_seed"]),
            f"{whole['value']:.3f} [{whole['interval95'][0]:.2f}, {whole['interval95'][1]:.2f}]",
            f"{one['mean_of_fold_aucs']:.3f}",
            f"{one['gain']['value']:+.3f} [{low:+.2f}, {high:+.2f}]",
            *counts,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
