"""
Grades teach a finder, over several settings and seeds: every candidate is judged by trainings that did not see it.

    python -m benchmarks.studies.finder_survey.teach benchmarks/studies/finder_survey/teach.toml \
        --real ../shared/data --stamps . --work taught --beside fresh --seeds 2026 --seeds 2027

A table of the TOML is a setting: painted stamps (a folder below ``--stamps``), steps, share of graded ones, peak rate.
Per setting and seed there is a training of `benchmarks.studies.finder_survey.grades` for each fold, and one with all
candidates. Each is judged alone, averaged with its base and with those of ``--beside``, and as one network with the
mean of the weights of base and training ("soup"); "soup of seeds" is the mean of the base and of the mean of all
seeds. ``--only`` takes some of the settings. A training that is there is kept, so are its scores. Besides areas there
is the difference to the base on the same candidates, with an interval by drawing candidates again.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.studies.finder_survey.grades import Sky, kept_sky, kids_of, scored, sky_of, taught
from benchmarks.studies.finder_survey.warps import LENS_FROM, NONLENS, fold_of
from benchmarks.studies.real_sky.ground import CFHTLS_SCALE_ARCSEC, area
from benchmarks.timing import Clock
from lenspipe.finder.graded import Graded
from lenspipe.finder.settings import FinderSettings
from lenspipe.nn.card import CARD_FILE, find_model
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.simulate.on_hosts import to_grid
from lenspipe.stamps.format import StampSet
from lenspipe.toml import Table, put_over

Scores = dict[str, NDArray[np.float64]]
N_DRAW = 2000
N_SHOWING = 4
ALL = "all"
"""Instead of a fold's number: the training that sees every candidate; only KiDS judges that."""


class Setting(Table):
    """One way of teaching."""

    name: str
    """Its name in the table."""
    painted: str = "tuned/stamps"
    """Folder of painted stamps, below ``--stamps``."""
    base: str = "ground-gri"
    """Finder that the training goes on from: a shipped one, or a folder seen from where this is started."""
    steps: int = 200
    """Optimizer steps."""
    share: float = 0.5
    """Part of each class that is graded, as far as 60 repeats of a candidate go."""
    learning_rate: float = 5e-4
    """Peak rate."""
    between: bool = False
    """Whether candidates graded between take part: as lenses in the part of four showings that their grade says."""

    def finder_settings(self) -> FinderSettings:
        """As `lenspipe finder` takes them: two epochs, one core."""
        changes: dict[str, Any] = {
            "go_on.epochs": 2,
            "go_on.learning_rate": self.learning_rate,
            "grades.share": self.share,
            "train.sampling.steps_per_epoch": self.steps // 2,
            "train.optim.threads": 1,
            "train.optim.precision": "bfloat16",
            "train.optim.channels_last": True,
        }
        return put_over(FinderSettings(), changes, origin=self.name)


@dataclass(frozen=True, eq=False)
class Judge:
    """The sky, and which of its candidates are lenses and look-alikes."""

    sky: Sky
    fold: NDArray[np.int64]

    @property
    def good(self) -> NDArray[np.bool_]:
        """Candidates of grade 2 and more."""
        return self.sky.grade >= LENS_FROM

    @property
    def poor(self) -> NDArray[np.bool_]:
        """Look-alikes."""
        return np.isclose(self.sky.grade, NONLENS)

    def shown(self, between: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """
        Candidates that a training is shown and as what: lenses and look-alikes, or all of them, four times each.

        Those graded between are lenses in as many of the four as their grade lies above that of look-alikes.
        """
        if not between:
            sure = np.flatnonzero(self.good | self.poor)
            return sure, self.good[sure]
        part = np.clip((self.sky.grade - NONLENS) / (LENS_FROM - NONLENS), 0, 1)
        every = np.flatnonzero(self.sky.grade >= NONLENS - 0.01)
        number = np.tile(np.arange(N_SHOWING), len(every))
        shown = np.repeat(every, N_SHOWING)
        return shown, number < np.round(N_SHOWING * part[shown])

    def area(self, score: NDArray[np.float64]) -> dict[str, Any]:
        """Area between lenses and look-alikes."""
        return area(score[self.good], score[self.poor])

    def gain(self, score: NDArray[np.float64], over: NDArray[np.float64], seed: int) -> dict[str, Any]:
        """Area less another's on the same candidates, and where 95 % of redrawn candidates put it."""
        rng = np.random.default_rng(seed)
        good, poor = np.flatnonzero(self.good), np.flatnonzero(self.poor)
        drawn = [
            _area(score, g, p) - _area(over, g, p)
            for g, p in ((rng.choice(good, len(good)), rng.choice(poor, len(poor))) for _ in range(N_DRAW))
        ]
        return {
            "value": _area(score, good, poor) - _area(over, good, poor),
            "interval95": [float(q) for q in np.quantile(drawn, (0.025, 0.975))],
        }


def _area(score: NDArray[np.float64], good: NDArray[np.int64], poor: NDArray[np.int64]) -> float:
    above = score[good][:, None] - score[poor][None, :]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


def graded_part(stamps: Path) -> dict[str, float]:
    """Part of each class in training that is graded: less than the share asked for where repeats end first."""
    data = StampSet.open(stamps)
    label, split, kind = (data.column(name) for name in ("label", "split", "kind"))
    graded = np.array([str(one).startswith("graded") for one in kind])
    return {name: float(graded[(label == name) & (split == "train")].mean()) for name in ("lens", "nonlens")}


def soup(base: str, models: Sequence[Path], out: Path) -> Path:
    """A checkpoint half of whose weights are a finder's and half the mean of those that were trained on from it."""
    if not (out / CARD_FILE).exists():
        begun = load_model(find_model(base))[0].state_dict()
        network, card = load_model(models[0])
        states = [load_model(model)[0].state_dict() for model in models]
        half = {
            name: (begun[name] + sum(state[name] for state in states) / len(states)) / 2
            if tensor.is_floating_point()
            else tensor
            for name, tensor in network.state_dict().items()
        }
        network.load_state_dict(half)
        save_model(out, network, card.model_copy(update={"name": f"{card.name}-soup"}))
    return out


def scores_of(model: Path, sky: Sky, tag: str, *, turns: bool = False) -> Scores:
    """Scores of a training's checkpoint, kept beside it; with ``turns``, means over eight turns and mirrors."""
    kept = model.parent / f"{model.name}-scores-{tag}{'-turned' if turns else ''}.npz"
    if not kept.exists():
        np.savez(kept, **scored(str(model), sky, turns=turns))  # type: ignore[arg-type]
    with np.load(kept) as stored:
        return dict(stored)


def mean_of(*scores: Scores) -> Scores:
    """The committee of several finders."""
    return {key: np.mean([one[key] for one in scores], axis=0) for key in scores[0]}


def judged(
    setting: Setting,
    seeds: tuple[int, ...],
    judge: Judge,
    others: dict[str, Scores],
    *,
    stamps: Path,
    work: Path,
    tag: str,
) -> dict[str, Any]:
    """What a setting gives: areas of held-out candidates by seed, KiDS by fold and seed."""
    painted = stamps / setting.painted
    spec = StampSet.open(painted).images["image"]
    sky, fold = judge.sky, judge.fold
    grid = np.stack([to_grid(s, CFHTLS_SCALE_ARCSEC, spec.size_px, spec.pixel_scale_arcsec) for s in sky.warps])
    base = others[Path(setting.base).name]
    held: dict[str, list[NDArray[np.float64]]] = {}
    kids: dict[str, list[dict[str, Any]]] = {}
    final: dict[str, list[dict[str, Any]]] = {}
    trained: dict[int | str, list[Path]] = {}
    part: dict[str, dict[str, float]] = {}
    for seed in seeds:
        own: dict[str, NDArray[np.float64]] = {}
        for number in (*range(int(fold.max()) + 1), ALL):
            shown, is_lens = judge.shown(setting.between)
            split = tuple("test" if fold[k] == number else "train" for k in shown)
            names = tuple(f"warps-{k}" for k in shown)
            graded = Graded(grid[shown], is_lens, names, ("cfhtls",) * len(shown), split)
            out = work / setting.name / f"seed-{seed}" / f"fold-{number}"
            model = taught(painted, setting.base, graded, out, setting.finder_settings(), seed)
            trained.setdefault(number, []).append(model)
            part[f"fold-{number}"] = graded_part(out / "stamps")
            alone = scores_of(model, sky, tag)
            ways = {"taught": alone, "soup": scores_of(soup(setting.base, [model], model.parent / "soup"), sky, tag)}
            ways |= {f"taught and {name}": mean_of(alone, other) for name, other in others.items()}
            if len(others) > 1:
                ways[f"taught and {' and '.join(others)}"] = mean_of(alone, *others.values())
            for way, scores in ways.items():
                if number == ALL:
                    final.setdefault(way, []).append(kids_of(scores, sky))
                    continue
                kids.setdefault(way, []).append(kids_of(scores, sky))
                own.setdefault(way, np.full(len(fold), np.nan))[fold == number] = scores["warps"][fold == number]
        for way, scores_ in own.items():
            held.setdefault(way, []).append(scores_)
    whole = "soup of seeds"
    held[whole], kids[whole], final[whole] = [np.full(len(fold), np.nan)], [], []
    for number, models in trained.items():
        out = work / setting.name / f"seeds-{'-'.join(map(str, seeds))}" / f"fold-{number}" / "soup"
        scores = scores_of(soup(setting.base, models, out), sky, tag)
        if number == ALL:
            final[whole].append(kids_of(scores, sky))
        else:
            kids[whole].append(kids_of(scores, sky))
            held[whole][0][fold == number] = scores["warps"][fold == number]
    out_: dict[str, Any] = {"setting": setting.model_dump(), "graded_part": part, "ways": {}}
    for way, by_seed in held.items():
        mean = np.mean(by_seed, axis=0)
        out_["ways"][way] = {
            "auc_by_seed": [judge.area(one)["value"] for one in by_seed],
            "auc_of_mean_of_seeds": judge.area(mean),
            "gain_by_seed": [judge.gain(one, base["warps"], seeds[0]) for one in by_seed],
            "gain_of_mean_of_seeds": judge.gain(mean, base["warps"], seeds[0]),
            "kids_by_fold": kids[way],
            "kids_taught_by_all": final[way],
        }
    return out_


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table: areas over seeds, ranges of counts over folds and seeds."""
    n_arc, n_galaxy = (
        next(iter(result["alone"].values()))[key]["n"]
        for key in ("painted_arcs_where_1_percent_pass", "kids_above_what_80_percent_of_arcs_pass")
    )
    lines = [
        f"| | AUC, by seed | gain of the mean [95 %] | arcs, of {n_arc} | KiDS, of {n_galaxy} "
        "| taught by all: arcs | KiDS |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in result["alone"].items():
        arcs, above = _counts([one])
        lines.append(f"| `{name}` | {one['spacewarps_good_against_0.3']['value']:.3f} | | {arcs} | {above} | | |")
    for one in result["settings"]:
        for way, found in one["ways"].items():
            gain = found["gain_of_mean_of_seeds"]
            low, high = gain["interval95"]
            cells = [
                f"{one['setting']['name']}: {way}",
                " ".join(f"{value:.3f}" for value in found["auc_by_seed"]),
                f"{gain['value']:+.3f} [{low:+.2f}, {high:+.2f}]",
                *_counts(found["kids_by_fold"]),
                *_counts(found["kids_taught_by_all"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _counts(rows: list[dict[str, Any]]) -> list[str]:
    keys = ("painted_arcs_where_1_percent_pass", "kids_above_what_80_percent_of_arcs_pass")
    of = [sorted(row[key]["k"] for row in rows) for key in keys]
    return [f"{k[0]}" if k[0] == k[-1] else f"{k[0]} to {k[-1]} (median {np.median(k):g})" for k in of]


@click.command()
@click.argument("settings", type=click.Path(path_type=Path, exists=True))
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option(
    "--stamps", type=click.Path(path_type=Path, exists=True), required=True, help="Folder above painted sets."
)
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of the trainings.")
@click.option("--only", multiple=True, help="Setting to take; repeatable. [default: all]")
@click.option("--beside", multiple=True, help="Model that is judged alone and beside each training; repeatable.")
@click.option(
    "--sky", "sky_file", type=click.Path(path_type=Path), default=None, help="File that keeps what is painted."
)
@click.option("--folds", type=click.IntRange(min=2), default=4, show_default=True)
@click.option("--passes", type=click.IntRange(min=1), default=12, show_default=True, help="Of painting the KiDS rows.")
@click.option("--sky-seed", type=int, default=2026, show_default=True, help="Of the painted arcs.")
@click.option("--seeds", type=int, multiple=True, default=(2026, 2027), show_default=True, help="Of the trainings.")
@click.option("--name", default="finders_survey_taught", show_default=True, help="Name of the record.")
@record.keep_option
def main(
    settings: Path,
    real: Path,
    stamps: Path,
    work: Path,
    only: tuple[str, ...],
    beside: tuple[str, ...],
    sky_file: Path | None,
    folds: int,
    passes: int,
    sky_seed: int,
    seeds: tuple[int, ...],
    name: str,
    keep: bool,
) -> None:
    """Teach finders by the SETTINGS of a TOML and judge them by candidates that they did not see."""
    clock = Clock()
    asked = [Setting.model_validate(one) for one in tomllib.loads(settings.read_text())["setting"]]
    asked = [one for one in asked if not only or one.name in only]
    bases = list(dict.fromkeys(one.base for one in asked))
    sky = (
        kept_sky(sky_file, real, bases[0], seed=sky_seed, passes=passes)
        if sky_file
        else sky_of(real, bases[0], seed=sky_seed, passes=passes)
    )
    judge = Judge(sky, fold_of(len(sky.grade), folds))
    others = {Path(model).name: scored(model, sky) for model in (*bases, *beside)}
    result: dict[str, Any] = {
        "folds": folds,
        "seeds": list(seeds),
        "passes": passes,
        "alone": {
            model: {"spacewarps_good_against_0.3": judge.area(s["warps"])} | kids_of(s, sky)
            for model, s in others.items()
        },
        "settings": [],
    }
    tag = f"{sky_seed}-{passes}"
    for one in asked:
        result["settings"].append(judged(one, seeds, judge, others, stamps=stamps, work=work, tag=tag))
        print(table(result), flush=True)
    record.write(name, result | clock.seconds(), keep=keep)


if __name__ == "__main__":
    main()
