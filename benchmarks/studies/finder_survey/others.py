"""
Ordinary galaxies of five surveys under finders of g r i: do scores depend on the survey, and how many pass KiDS's 1 %?

    python -m benchmarks.studies.finder_survey.others ground-gri ground-gri-graded --real ../shared/data

KiDS rows 1690 on, DES early types and luminous red galaxies, HSC luminous galaxies and blends, objects of CFHTLS
fields, and Pan-STARRS galaxies that are lenses whose arcs are below the noise. ``early`` are red and bright enough to
carry arcs: surveys are compared with each other (`lenspipe.stats.survey_probe`) on these too, as the others differ
in kind. Lenses of CFHTLS (Space Warps, grade 2 and more) stand against its field objects and the sources of its tile;
`ground-gri-graded` has seen them. `ground-gri` has seen some of these DES galaxies, no finder here those of HSC or
Pan-STARRS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.special import expit

from benchmarks import record
from benchmarks.studies.data import cfhtls_tile, des_hosts, study_hosts
from benchmarks.studies.finder_ground.hosts import LEAST_SCALE_ARCSEC
from benchmarks.studies.finder_ground.make_stamps import CARD
from benchmarks.studies.finder_survey.mixture import CFHTLS_FWHM_ARCSEC, other_hosts
from benchmarks.studies.finder_survey.warps import LENS_FROM, all_warps
from benchmarks.studies.real_sky.ground import (
    CANDIDATE_PX,
    CFHTLS_SCALE_ARCSEC,
    NEAR_KNOWN_ARCSEC,
    Logits,
    area,
    host_logits,
    kids_test,
    logits,
    ordinary,
)
from lenspipe.infer.predict import Predictor
from lenspipe.nn.card import find_model
from lenspipe.simulate.paint.host import Host
from lenspipe.simulate.paint.scene import host_size_px
from lenspipe.stats.intervals import fraction
from lenspipe.stats.recall import threshold_passed_by
from lenspipe.stats.survey_probe import SurveyProbe

PS1_SCALE_ARCSEC = 0.25
NAMES = {"des": "DES", "ps1": "Pan-STARRS", "hsc": "HSC", "kids": "KiDS", "cfhtls": "CFHTLS"}


def cfhtls_ordinary(real: Path) -> list[Host]:
    """Sources of the CFHTLS tile but those near its candidate."""
    hosts, at = study_hosts(
        cfhtls_tile(real),
        name="cfhtls",
        pixel_scale_arcsec=CFHTLS_SCALE_ARCSEC,
        psf_fwhm_arcsec=np.array(CFHTLS_FWHM_ARCSEC),
        size_px=host_size_px(CARD, CFHTLS_SCALE_ARCSEC, LEAST_SCALE_ARCSEC),
    )
    away = np.hypot(*(at - CANDIDATE_PX).T) * CFHTLS_SCALE_ARCSEC > NEAR_KNOWN_ARCSEC
    return [host for host, ordinary_one in zip(hosts, away, strict=True) if ordinary_one]


def against(lens: Logits, other: Logits) -> dict[str, Any]:
    """Area, and lenses above what 1 % of the others pass."""
    at = threshold_passed_by(other, 0.01)
    return area(lens, other) | {"where_1_percent_pass": fraction(int((lens > at).sum()), len(lens))}


def probe_table(models: dict[str, Any]) -> str:
    """The survey probe of a record: a row per pair in order of the first model, first all galaxies, then early ones."""
    probes = [one["survey_probe"][kind] for kind in ("all", "early") for one in models.values()]
    rows = ["| | " + " | ".join(f"{kind}, `{name}`" for kind in ("all", "early") for name in models) + " |"]
    rows.append("|---" * (len(probes) + 1) + "|")
    for pair in probes[0]["pairs"]:
        of = pair["higher"], pair["lower"]
        cells = " | ".join(_area_of(probe, *of) for probe in probes)
        rows.append(f"| {NAMES[of[0]]} against {NAMES[of[1]]} | {cells} |")
    return "\n".join(rows)


def _area_of(probe: dict[str, Any], higher: str, lower: str) -> str:
    """Area of a pair in this order, whichever of the two scores higher."""
    pair = next(pair for pair in probe["pairs"] if {pair["higher"], pair["lower"]} == {higher, lower})
    value, ends = pair["auroc"], pair["interval95"]
    if pair["higher"] != higher:
        value, ends = 1 - value, [1 - ends[1], 1 - ends[0]]
    low, high = (f"{end:.2f}".lstrip("0") for end in ends)
    return f"{value:.3f}".lstrip("0") + f" [{low}, {high}]"


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the noise beyond small cutouts.")
@click.option("--name", default="finders_survey_others", show_default=True, help="Name of the record.")
@record.keep_option
def main(models: tuple[str, ...], real: Path, seed: int, name: str, keep: bool) -> None:
    """Score ordinary galaxies of several surveys by MODELs."""
    rng = np.random.default_rng([seed, 9])
    of_survey: dict[str, list[Host]] = {"des": des_hosts(real, host_size_px(CARD, 0.263, LEAST_SCALE_ARCSEC), rng)}
    for host in other_hosts(real, rng):
        of_survey.setdefault(host.name.split("-")[0], []).append(host)
    with np.load(real / "stamps/ps1_lens_hosts/ps1_hosts_gri_njy.npz") as archive:
        ps1 = archive["images"].astype(np.float32)
    ps1 -= np.median(ps1, axis=(2, 3), keepdims=True)
    warps, grade = all_warps(real)
    good, in_tile = warps[grade >= LENS_FROM], cfhtls_ordinary(real)
    found: dict[str, Any] = {}
    for model in models:
        predictor = Predictor(find_model(model))
        tile = kids_test(real, predictor)
        kids = ordinary(tile)
        scores = {"kids": (host_logits(predictor, kids), np.array([host.kind == "early" for host in kids]))}
        for survey, hosts in of_survey.items():
            one = np.concatenate([logits(predictor, h.pixels_njy[None], h.pixel_scale_arcsec) for h in hosts])
            scores[survey] = one, np.array([host.kind == "early" for host in hosts])
        scores["ps1"] = logits(predictor, ps1, PS1_SCALE_ARCSEC), np.ones(len(ps1), bool)
        at = threshold_passed_by(scores["kids"][0], 0.01)
        tile_logits = host_logits(predictor, in_tile)
        cfhtls = np.concatenate([scores["cfhtls"][0], tile_logits])
        probes = {kind: SurveyProbe() for kind in ("all", "early")}
        for survey, (logit, early) in scores.items():
            for kind, probe in probes.items():
                rows = early if kind == "early" else np.ones(len(early), bool)
                n = int(rows.sum())
                probe.add(expit(logit[rows]), np.zeros(n, bool), np.full(n, survey, object))
        found[Path(model).name] = {
            "above_the_1_percent_of_kids": {
                survey: {
                    "all": fraction(int((logit > at).sum()), len(logit)),
                    "early": fraction(int((logit[early] > at).sum()), int(early.sum())),
                    "median_logit": float(np.median(logit)),
                }
                for survey, (logit, early) in scores.items()
            },
            "survey_probe": {kind: probe.found() for kind, probe in probes.items()},
            "spacewarps_good_against_cfhtls": against(logits(predictor, good, CFHTLS_SCALE_ARCSEC), cfhtls),
        }
    record.write(name, {"models": found}, keep=keep)


if __name__ == "__main__":
    main()
