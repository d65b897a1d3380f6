"""
Judge finders of g r z on hosts that they did not see: DES and HSC, which have z, and KiDS rows 1690 on with z made up.

    python -m benchmarks.studies.finder_grz.judge ground-gri ground-gri-graded --grz grz-model --real ../shared/data

``--grz`` names a training with all hosts but the last fold; it scores KiDS and that fold, those beside it without
another fold (``grz-model-fold-0`` ...) that fold, in standard deviations of the scores of the KiDS galaxies. Hosts of a
fold that every training saw are left out. Finders of g r i are shown z in the place of i. Arcs of 1 to 2.5 arcsec and a
signal-to-noise of 30 and more are painted around early types, on the stamp alone. Gains are over the first MODEL, their
intervals by drawing hosts again. Real lenses: Space Warps candidates with z made up, and three candidates of Euclid Q1
with z of DES or HSC.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks import record
from benchmarks.studies.data import DES_EVERY, NJY_AT_ZERO_POINT_30
from benchmarks.studies.finder_grz.hosts import (
    CARD,
    FOLDS,
    VALIDATION,
    ZOfI,
    fold_of,
    four_band_hosts,
    made_up,
    to_grz,
    z_of_i,
)
from benchmarks.studies.finder_survey.warps import LENS_FROM, NONLENS, all_warps
from benchmarks.studies.real_sky.ground import CFHTLS_SCALE_ARCSEC, area, kids_test, ordinary
from benchmarks.timing import Clock
from lenspipe.errors import DataError
from lenspipe.infer.predict import Predictor
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import CARD_FILE, find_model
from lenspipe.robust import robust_sigma
from lenspipe.simulate.on_hosts import to_grid
from lenspipe.simulate.paint import Host, paint_arcs
from lenspipe.stats.intervals import fraction
from lenspipe.stats.recall import threshold_passed_by
from lenspipe.stats.survey_probe import SurveyProbe

Array = NDArray[np.float64]
EUCLID = {
    "102019126_NEG589666030505609975": ("DES_G_BGSUB", "DES_R_BGSUB", "DES_Z_BGSUB"),
    "EUCLJ174517.55+655612.5": ("HSC_G_FLUX", "MEGACAM_R_FLUX", "HSC_Z_FLUX"),
    "EUCLJ174752.17+660743.0": ("HSC_G_FLUX", "MEGACAM_R_FLUX", "HSC_Z_FLUX"),
}
EUCLID_SCALE_ARCSEC, EUCLID_SIDE_PX = 0.1, 199
DRAWS, N_AGAIN = 6, 1000


class Sky:
    """Hosts and arcs in g r z of each survey, and real candidates."""

    def __init__(self, real: Path, seed: int, folds: set[int]) -> None:
        every = four_band_hosts(real, seed)
        line = z_of_i(every)
        four = [host for host in every if fold_of(host.name, every) in folds]
        kids = made_up(ordinary(kids_test(real, Predictor(find_model("ground-gri")))), line)
        self.line = line
        self.hosts: list[Host] = [*kids, *(to_grz(host) for host in four)]
        names = [host.name for host in self.hosts]
        self.survey = np.array([name.split("-")[0] for name in names])
        self.fold = np.array([VALIDATION] * len(kids) + [fold_of(host.name, every) for host in four])
        self.early = np.array([host.kind == "early" for host in self.hosts])
        self.base_saw = np.array([n.startswith("des") and int(n.split("-")[-1]) % DES_EVERY < 6 for n in names])
        self.arcs, self.arc_host = painted(self.hosts, np.flatnonzero(self.early), seed)
        warps, self.grade = all_warps(real)
        self.warps = warps * factor_of(warps, line)
        self.euclid = np.stack([euclid(real / f"stamps/euclid_q1/{name}.fits", p, seed) for name, p in EUCLID.items()])


def painted(hosts: list[Host], early: NDArray[np.intp], seed: int) -> tuple[list[Host], NDArray[np.intp]]:
    """Arcs around early types, and the number of each one's host."""
    out, of = [], []
    for number in early:
        host = hosts[number]
        for k in range(DRAWS):
            try:
                pixels, _, _ = paint_arcs(
                    host.pixels_njy,
                    bands=CARD.bands,
                    pixel_scale_arcsec=host.pixel_scale_arcsec,
                    psf=tuple(host.psf_fwhm_arcsec),
                    rng=np.random.default_rng([seed, int(number), k]),
                    theta_e_range_arcsec=(1.0, 2.5),
                    sky_rms_njy=host.sky_rms_njy,
                    min_arc_snr=30.0,
                )
            except DataError:  # no source is bright enough on this host
                continue
            out.append(Host(**(vars(host) | {"pixels_njy": pixels.astype(np.float32)})))
            of.append(number)
    return out, np.array(of)


def factor_of(stamps: NDArray[np.float32], line: ZOfI) -> NDArray[np.float32]:
    """What each band of g r i stamps is multiplied by to make i up to z, ``(n, 3, 1, 1)``."""
    half, middle = round(1.5 / CFHTLS_SCALE_ARCSEC), stamps.shape[-1] // 2
    box = slice(middle - half, middle + half + 1)
    flux = np.clip(stamps[:, :, box, box].sum(axis=(2, 3)), 1e-3, None)
    factor = np.ones((len(stamps), 3, 1, 1), np.float32)
    factor[:, 2, 0, 0] = line.factor(2.5 * np.log10(flux[:, 2] / flux[:, 1]))
    return factor


def euclid(file: Path, planes: tuple[str, ...], seed: int) -> NDArray[np.float32]:
    """A candidate in g r z on the grid of the finders, with drawn noise beyond its ten arcseconds."""
    with fits.open(file) as hdus:
        stamp = np.stack([hdus[name].data for name in planes]).astype(np.float32)[:, :99, :99]
    stamp = (stamp - np.median(stamp, axis=(1, 2), keepdims=True)) * np.float32(NJY_AT_ZERO_POINT_30)
    rng, pad = np.random.default_rng([seed, 13]), (EUCLID_SIDE_PX - 99) // 2
    whole = rng.normal(0, 1, (3, EUCLID_SIDE_PX, EUCLID_SIDE_PX)) * robust_sigma(stamp, (1, 2))[:, None, None]
    whole[:, pad : pad + 99, pad : pad + 99] = stamp
    side = int(EUCLID_SIDE_PX * EUCLID_SCALE_ARCSEC / CARD.pixel_scale_arcsec) | 1
    return to_grid(whole.astype(np.float32), EUCLID_SCALE_ARCSEC, side, CARD.pixel_scale_arcsec)


def logits(model: Path, sky: Sky) -> dict[str, Array]:
    """Logits of everything, in standard deviations of those of the KiDS galaxies."""
    predictor = Predictor(model)

    def of(stamps: NDArray[np.float32], scale: float) -> Array:
        shown = stamp_input(stamps, bands=predictor.card.bands, pixel_scale_arcsec=scale, card=predictor.card)
        return predictor.outputs(shown)[:, 0]

    found = {
        "hosts": np.concatenate([of(h.pixels_njy[None], h.pixel_scale_arcsec) for h in sky.hosts]),
        "arcs": np.concatenate([of(h.pixels_njy[None], h.pixel_scale_arcsec) for h in sky.arcs]),
        "warps": of(sky.warps, CFHTLS_SCALE_ARCSEC),
        "euclid": of(sky.euclid, CARD.pixel_scale_arcsec),
    }
    kids = found["hosts"][sky.survey == "kids"]
    return {name: (values - np.median(kids)) / kids.std() for name, values in found.items()}


def folds_of(model: Path) -> set[int]:
    """Folds that a training beside this one, or this one, did not see."""
    there = (fold for fold in range(VALIDATION) if (model.with_name(f"{model.name}-fold-{fold}") / CARD_FILE).exists())
    return {VALIDATION, *there}


def held_out(model: Path, sky: Sky) -> dict[str, Array]:
    """Logits of a training of g r z, each host of a fold by the one that did not see it."""
    out = logits(model, sky)
    for fold in folds_of(model) - {VALIDATION}:
        other = logits(model.with_name(f"{model.name}-fold-{fold}"), sky)
        out["hosts"] = np.where(sky.fold == fold, other["hosts"], out["hosts"])
        out["arcs"] = np.where(sky.fold[sky.arc_host] == fold, other["arcs"], out["arcs"])
    return out


def judged(scores: dict[str, Array], over: dict[str, Array], sky: Sky, seed: int) -> dict[str, Any]:
    """What one finder reaches."""
    at = threshold_passed_by(scores["hosts"][sky.survey == "kids"], 0.01)
    groups = {name: sky.survey == name for name in ("kids", "des", "hsc")}
    groups["des, unseen by ground-gri"] = groups["des"] & ~sky.base_saw
    found: dict[str, Any] = {}
    for name, mine in groups.items():
        bare, arcs = scores["hosts"][mine], scores["arcs"][mine[sky.arc_host]]
        found[name] = {
            "early": int((mine & sky.early).sum()),
            "arcs_against_hosts": area(arcs, bare),
            "arcs_against_early_hosts": area(arcs, scores["hosts"][mine & sky.early]),
            "gain": gain(scores, over, mine, sky, seed),
            "hosts_above_the_1_percent_of_kids": fraction(int((bare > at).sum()), len(bare)),
            "arcs_above_the_1_percent_of_kids": fraction(int((arcs > at).sum()), len(arcs)),
            "hosts_above_what_80_percent_of_arcs_pass": fraction(
                int((bare >= np.quantile(arcs, 0.2)).sum()), len(bare)
            ),
        }
    probe = SurveyProbe()
    n = int(sky.early.sum())
    probe.add(expit(scores["hosts"][sky.early]), np.zeros(n, bool), sky.survey[sky.early].astype(object))
    good, poor = scores["warps"][sky.grade >= LENS_FROM], scores["warps"][np.isclose(sky.grade, NONLENS)]
    kids = scores["hosts"][groups["kids"]]
    return found | {
        "survey_probe_of_early": probe.found(),
        "spacewarps_with_z_made_up": {
            "good_against_0.3": area(good, poor),
            "good_against_kids_galaxies": area(good, kids),
            "good_above_the_1_percent_of_kids": fraction(int((good > at).sum()), len(good)),
        },
        "euclid_candidates": {
            name: {"kids_galaxies_above": int((kids > one).sum())}
            for name, one in zip(EUCLID, scores["euclid"], strict=True)
        },
    }


def gain(
    scores: dict[str, Array], over: dict[str, Array], mine: NDArray[np.bool_], sky: Sky, seed: int
) -> dict[str, Any]:
    """Area of arcs against hosts less that of another finder, and where 95 % of redrawn hosts put it."""
    rng, numbers = np.random.default_rng(seed), np.flatnonzero(mine)
    arcs_of = {int(k): np.flatnonzero(sky.arc_host == k) for k in numbers}

    def less(drawn: NDArray[np.intp]) -> float:
        arcs = np.concatenate([arcs_of[int(k)] for k in drawn])
        one, other = (_above(s["arcs"][arcs], s["hosts"][drawn]) for s in (scores, over))
        return one - other

    again = [less(rng.choice(numbers, len(numbers))) for _ in range(N_AGAIN)]
    return {"value": less(numbers), "interval95": [float(q) for q in np.quantile(again, (0.025, 0.975))]}


def _above(lens: Array, other: Array) -> float:
    order = np.sort(other)
    low, high = (np.searchsorted(order, lens, side=side) for side in ("left", "right"))
    return float((low + high).mean() / 2 / len(other))


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = [
        "| | survey | early types | arcs against hosts, AUC | gain [95 %] | hosts above KiDS's 1 % | arcs above it |",
        "|---" * 7 + "|",
    ]
    for finder, found in result["finders"].items():
        for survey in ("kids", "des", "des, unseen by ground-gri", "hsc"):
            one = found[survey]
            whole, gained = one["arcs_against_hosts"], one["gain"]
            low, high = gained["interval95"]
            cells = [
                f"`{finder}`",
                survey,
                str(one["early"]),
                f"{whole['value']:.3f} [{whole['interval95'][0]:.3f}, {whole['interval95'][1]:.3f}]",
                f"{gained['value']:+.3f} [{low:+.3f}, {high:+.3f}]",
                *(_of(one[f"{what}_above_the_1_percent_of_kids"]) for what in ("hosts", "arcs")),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _of(part: dict[str, Any]) -> str:
    return f"{part['k']} of {part['n']}"


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--grz", type=click.Path(path_type=Path, exists=True), multiple=True, help="Training of g r z; repeatable."
)
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--name", default="finders_grz", show_default=True, help="Name of the record.")
@record.keep_option
def main(models: tuple[str, ...], grz: tuple[Path, ...], real: Path, seed: int, name: str, keep: bool) -> None:
    """Judge MODELs of g r i, shown g r z, and trainings of g r z."""
    clock = Clock()
    folds = set.intersection({*range(FOLDS)}, *map(folds_of, grz))
    sky = Sky(real, seed, folds)
    scores = {Path(model).name: logits(find_model(model), sky) for model in models}
    scores |= {model.name: held_out(model, sky) for model in grz}
    over = scores[Path(models[0]).name]
    result: dict[str, Any] = {
        "z_of_i": vars(sky.line),
        "folds": sorted(folds),
        "hosts": {name: int((sky.survey == name).sum()) for name in ("kids", "des", "hsc")},
        "arcs": len(sky.arcs),
        "finders": {model: judged(one, over, sky, seed) for model, one in scores.items()},
    }
    print(table(result))
    record.write(name, result | clock.seconds(), keep=keep)


if __name__ == "__main__":
    main()
