"""
Finders from space that learnt from half of the bright JWST galaxies, judged on the other half and on unseen lenses.

    python -m benchmarks.studies.finder_space.folds --even even1 --odd odd1 --even even2 --odd odd2 --model space-vis \
        --stamps test --hosts hosts_even --hosts hosts_odd --real ../shared/data

Network ``--even`` learnt from the galaxies whose names have an even SHA-256, its ``--odd`` from the others. Each is
judged on the galaxies of the other's half and on the COSMOS galaxies that none learnt from; no network learnt from a
SLACS or Euclid lens. **Scores of two networks are never compared**: what is averaged is the pairs, lens above galaxy,
each pair by a network that saw neither; a pair with a COSMOS galaxy counts half by each network. Intervals are from
bootstraps over lenses and galaxies together. ``--model``: one network for both halves, such as the shipped one, which
saw none of them, or one that learnt from both, of which only the pairs with COSMOS galaxies say anything.

SLACS lenses are brighter than nearly all of these galaxies, and brightness alone must not be what tells: so each is
also judged against itself without arcs, its median profile in elliptical rings with noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.studies.real_sky.finders import kinds_of, scores_of, simulated
from benchmarks.studies.real_sky.ground import area
from benchmarks.studies.real_sky.space import (
    BRIGHT_MAG,
    COSMOS_SCALE_ARCSEC,
    border_of,
    cosmos_galaxies,
    on_grid,
    real_lenses,
)
from benchmarks.studies.real_sky.space_bright import (
    MASKED_FROM,
    NJY_PER_EPS,
    SLACS_SCALE_ARCSEC,
    jwst_galaxies,
    slacs_lenses,
)
from lenspipe.evaluate.judging import open_members
from lenspipe.evaluate.stream import Member
from lenspipe.infer.predict import Predictor
from lenspipe.nn.card import ModelCard
from lenspipe.nn.outputs import Find
from lenspipe.simulate.hosts import light_shape
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.splits import half_of
from lenspipe.stats.recall import recall_in_bins, threshold_passed_by

PLAIN = ("early_type", "galaxy_image", "spiral", "star")
EDGES_ARCSEC = (0.5, 0.75, 1.0, 1.5, 2.0, 2.6)
WIDE_EDGES_ARCSEC = (0.6, 1.0, 1.5, 2.0, 3.0)
N_BOOTSTRAP = 1000
Matrix = NDArray[np.float64]
Logits = dict[str, NDArray[np.float64]]
Finder = Member[Find, Predictor]


def slacs_without_arcs(real: Path, card: ModelCard, *, seed: int = 0) -> list[NDArray[np.float32]]:
    """Network input of each SLACS galaxy as its median profile in elliptical rings, with the noise of its pixels."""
    rng, found = np.random.default_rng(seed), []
    for folder in sorted((real / "stamps/slacs_f814w").iterdir()):
        stamp, rms = (fits.getdata(folder / f"{name}.fits").astype(np.float64) for name in ("image", "noise"))
        good = rms < MASKED_FROM
        stamp -= np.median(border_of(stamp[None].astype(np.float32)))
        (ratio,), (angle,) = light_shape(np.where(good, stamp, 0)[None], SLACS_SCALE_ARCSEC)
        y, x = np.indices(stamp.shape) - (stamp.shape[0] - 1) / 2
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        radius = np.hypot(along * np.sqrt(ratio), across / np.sqrt(ratio))
        ring = np.rint(radius).astype(int)
        rings = [k for k in range(ring.max() + 1) if (good & (ring == k)).any()]
        profile = [np.median(stamp[good & (ring == k)]) for k in rings]
        smooth = np.interp(radius, rings, profile)
        noisy = smooth + rng.normal(0, np.where(good, rms, np.median(rms[good])))
        found.append(on_grid((noisy * NJY_PER_EPS)[None].astype(np.float32), SLACS_SCALE_ARCSEC, card))
    return found


def real_logits(member: Finder, real: Path, seed: int) -> Logits:
    """Logits of the real images: ``slacs``, ``euclid``, ``jwst``, ``cosmos`` and ``slacs_without_arcs``."""
    card = member.card
    slacs, noise = slacs_lenses(real, card)
    jwst, _ = jwst_galaxies(real, card, noise, seed)
    cosmos = [g for g in cosmos_galaxies(real, card, seed=seed) if g.mag < BRIGHT_MAG]
    stamps = {
        "slacs": list(slacs.values()),
        "euclid": [stamp for name, stamp in real_lenses(real, card).items() if name.startswith("euclid_q1/")],
        "jwst": jwst,
        "cosmos": [on_grid(g.field_njy[None].astype(np.float32), COSMOS_SCALE_ARCSEC, card) for g in cosmos],
        "slacs_without_arcs": slacs_without_arcs(real, card, seed=seed),
    }
    return {name: member.predictor.outputs(np.concatenate(some))[:, 0] for name, some in stamps.items()}


def above(lens: NDArray[np.float64], other: NDArray[np.float64]) -> Matrix:
    """Of each lens and each other, 1 where the lens has the higher score, .5 where they are equal."""
    found: Matrix = (lens[:, None] > other) + 0.5 * (lens[:, None] == other)
    return found


def pairs_of(even: Logits, odd: Logits, half: NDArray[np.str_]) -> Matrix:
    """`above` of SLACS and Euclid lenses and JWST and COSMOS galaxies; each by networks that learnt from neither."""
    parts = []
    for logits in (even, odd):
        lens = np.concatenate([logits["slacs"], logits["euclid"]])
        parts.append((above(lens, logits["jwst"]), above(lens, logits["cosmos"])))
    jwst = np.where(half == "odd", parts[0][0], parts[1][0])
    return np.concatenate([jwst, (parts[0][1] + parts[1][1]) / 2], axis=1)


def bootstrapped(matrices: Sequence[Matrix], *, seed: int = 0) -> NDArray[np.float64]:
    """Mean of each matrix ``(draw, matrix)`` over the same lenses and galaxies drawn with replacement."""
    rng = np.random.default_rng(seed)
    n_lens, n_other = matrices[0].shape
    out = []
    for _ in range(N_BOOTSTRAP):
        rows, columns = rng.integers(n_lens, size=n_lens), rng.integers(n_other, size=n_other)
        out.append([matrix[np.ix_(rows, columns)].mean() for matrix in matrices])
    return np.array(out)


def with_interval(value: float, draws: NDArray[np.float64]) -> dict[str, Any]:
    """A value and the middle 95 % of its bootstraps."""
    return {"value": float(value), "interval95": [float(q) for q in np.quantile(draws, (0.025, 0.975))]}


def painted(member: Finder, folder: Path) -> dict[str, Any]:
    """Arcs painted on a half of the galaxies, against these bare and with look-alikes."""
    stamps = StampSet.open(folder)
    is_lens, score = scores_of([member], stamps, None)[member.name]
    theta = stamps.column("theta_e_arcsec").astype(float)
    bare = ~is_lens & (kinds_of(stamps, None) == "early_type")
    at = threshold_passed_by(score[~is_lens], 0.01)
    return {
        "auc_against_bare": area(score_logit(score[is_lens]), score_logit(score[bare])),
        "auc_against_all": area(score_logit(score[is_lens]), score_logit(score[~is_lens])),
        "where_0.01_of_others_pass": recall_in_bins(score[is_lens] > at, theta[is_lens], WIDE_EDGES_ARCSEC),
        "n_hosts": len(set(stamps.column("host"))),
    }


def score_logit(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logit of a score that is not quite 0 or 1."""
    inside = np.clip(score, 1e-15, 1 - 1e-15)
    logit: NDArray[np.float64] = np.log(inside) - np.log1p(-inside)
    return logit


def on_test_stamps(members: Sequence[Finder], folder: Path) -> dict[str, Any]:
    """Numbers of `finders` on simulated stamps, and lenses recalled by Einstein radius where 1e-3 of the plain pass."""
    stamps = StampSet.open(folder)
    kinds = kinds_of(stamps, None)
    theta = stamps.column("theta_e_arcsec").astype(float)
    out = {}
    for name, (is_lens, score) in scores_of(members, stamps, None).items():
        numbers = simulated(is_lens, score, kinds, set(PLAIN))
        plain = ~is_lens & np.isin(kinds, PLAIN)
        at = threshold_passed_by(score[plain], 1e-3)
        kept = {key: numbers[key] for key in ("all", "ordinary", "look_alikes")}
        out[name] = kept | {
            "by_theta_e_where_1e-3_of_ordinary_pass": recall_in_bins(score[is_lens] > at, theta[is_lens], EDGES_ARCSEC),
            "beyond_1.5_arcsec": recall_in_bins(score[is_lens] > at, theta[is_lens], (1.5, 2.6))[0],
            "n_ordinary_passing": int((score[plain] > at).sum()),
        }
    return out


@click.command()
@click.option("--even", multiple=True, required=True, help="Finder that learnt from the even half.")
@click.option("--odd", multiple=True, required=True, help="Finder that learnt from the odd half, in the same order.")
@click.option("--model", "models", multiple=True, help="Finder that is one for both halves.")
@click.option("--stamps", type=click.Path(path_type=Path, exists=True), required=True, help="Simulated test stamps.")
@click.option(
    "--hosts", type=click.Path(path_type=Path, exists=True), multiple=True, required=True, help="Even, then odd."
)
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option("--name", default="finders_space_folds", show_default=True, help="Name of the record.")
@record.keep_option
def main(
    even: tuple[str, ...],
    odd: tuple[str, ...],
    models: tuple[str, ...],
    stamps: Path,
    hosts: tuple[Path, ...],
    real: Path,
    seed: int,
    name: str,
    keep: bool,
) -> None:
    """Judge folds of finders and finders that are one."""
    if len(even) != len(odd) or len(hosts) != 2:
        raise click.UsageError("as many --even as --odd, and two --hosts")
    with np.load(real / "galaxies/jwst_f444w/f444w_209px.npz") as archive:
        half = np.array([half_of(str(one)) for one in archive["name"]])
    asked = (*even, *odd, *models)
    members = dict(zip(asked, open_members(asked, StampSet.open(stamps)), strict=True))
    logits = {model: real_logits(member, real, seed) for model, member in members.items()}
    pairs = [*zip(even, odd, strict=True), *((model, model) for model in models)]
    names = [Path(a).name if a == b else f"{Path(a).name}+{Path(b).name}" for a, b in pairs]
    matrices = [pairs_of(logits[a], logits[b], half) for a, b in pairs]
    mean = np.mean(matrices[: len(even)], axis=0)
    draws = bootstrapped([*matrices, mean])
    found: dict[str, Any] = {}
    n_slacs = len(logits[asked[0]]["slacs"])
    n_jwst = len(half)
    for k, (label, (one, two)) in enumerate(zip(names, pairs, strict=True)):
        matrix = matrices[k]
        found[label] = {
            "auc": with_interval(matrix.mean(), draws[:, k]) | {"n": list(matrix.shape)},
            "auc_of": {
                f"{a} against {b}": float(matrix[rows, columns].mean())
                for a, rows in (("slacs", slice(n_slacs)), ("euclid", slice(n_slacs, None)))
                for b, columns in (("jwst", slice(n_jwst)), ("cosmos", slice(n_jwst, None)))
            },
            "slacs_above_itself_without_arcs": [
                [int((logits[m]["slacs"] > logits[m]["slacs_without_arcs"]).sum()), n_slacs] for m in (one, two)
            ],
            "auc_slacs_against_all_without_arcs": [
                float(above(logits[m]["slacs"], logits[m]["slacs_without_arcs"]).mean()) for m in (one, two)
            ],
            "painted_on_unseen_hosts": [painted(members[one], hosts[1]), painted(members[two], hosts[0])],
            "logits": {
                m: {of: np.round(v, 3).tolist() for of, v in logits[m].items()} for m in dict.fromkeys((one, two))
            },
        }
    found["mean of the folds' seeds"] = {"auc": with_interval(mean.mean(), draws[:, -1]) | {"n": list(mean.shape)}}
    for k, label in enumerate(names[len(even) :], start=len(even)):
        found["mean of the folds' seeds"][f"auc less that of {label}"] = with_interval(
            mean.mean() - matrices[k].mean(), draws[:, -1] - draws[:, k]
        )
    tested = on_test_stamps(list(members.values()), stamps)
    aims = [
        record.at_least("AUC, unseen lenses against bright galaxies, mean of the seeds", float(mean.mean()), 0.93),
        *(
            record.at_least(f"{m}: beyond 1.5 arcsec recalled at 1e-3", numbers["beyond_1.5_arcsec"]["value"], 0.6)
            for m, numbers in tested.items()
        ),
    ]
    record.write(name, {"models": found, "test_stamps": tested, "n_bootstrap": N_BOOTSTRAP}, aims, keep=keep)


if __name__ == "__main__":
    main()
