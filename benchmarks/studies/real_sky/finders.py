"""
The finders of a comparison in one table: the same simulated stamps, the same real sky.

    python -m benchmarks.studies.real_sky.finders MODEL... --data STAMPS --real REAL --name ground --out REPORT

Simulated stamps are judged apart against ordinary galaxies and against what looks like a lens, by the column `kind`
(`--plain` names the ordinary kinds). Writes `results/finders_NAME.json` and prints a Markdown table. Several seeds of
a design are several MODELs. Of Space Warps only the half for choosing is opened (`measure --reserved` opens the
other).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks import record
from benchmarks.studies.real_sky.ground import BANDS, ground_real_sky
from benchmarks.studies.real_sky.space import space_real_sky
from benchmarks.timing import fastest_s
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.evaluate.stream import Member, iter_stamps, words
from lenspipe.stamps.format import StampSet
from lenspipe.stats import curves
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.intervals import fraction

KEPT_FACTS = ("command", "seed", "epochs", "steps", "seconds", "note")


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Simulated stamps.")
@click.option("--split", default="test", show_default=True, help="Rows of the data; 'all' for every row.")
@click.option("--plain", default="plain", show_default=True, help="Kinds of ordinary galaxies, comma-separated.")
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--name", required=True, help="Name of the result.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the scores.")
def main(models: tuple[str, ...], data: Path, split: str, plain: str, real: Path, name: str, out: Path) -> None:
    """Compare MODELs (folders or shipped names)."""
    stamps = StampSet.open(data)
    wanted = None if split == "all" else split
    members = open_members(models, stamps)
    kinds = kinds_of(stamps, wanted)
    out.mkdir(parents=True, exist_ok=True)
    results = []
    scores = scores_of(members, stamps, wanted)
    for given, member in zip(models, members, strict=True):
        is_lens, score = scores[member.name]
        np.savez(out / f"{Path(given).name}.npz", score=score, is_lens=is_lens, kind=kinds.astype(np.str_))
        results.append(
            {
                "model": Path(given).name,
                "family": member.card.family,
                "settings": member.card.settings,
                "parameters": member.predictor.n_parameter,
                "ms_per_stamp": speed_ms(member),
                "training": {key: member.card.training.get(key) for key in KEPT_FACTS},
                "validation": member.card.metrics.get("validation"),
                "simulated": simulated(is_lens, score, kinds, set(plain.split(","))),
                "real_sky": real_sky(member, real, score[is_lens]),
            }
        )
    for result in results:
        assert result["simulated"]["all"]["n_lens"] == results[0]["simulated"]["all"]["n_lens"]
    record.write(f"finders_{name}", {"data": data.name, "split": split, "models": results})
    print(table_of(results))


def scores_of(
    members: Sequence[Member], stamps: StampSet, split: str | None
) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    """Truth and score of every row, in order, by model; the stamps are read once."""
    rows: list[pa.Table] = []
    judged(members, stamps, JudgeSettings(split=split), on_rows=rows.append)
    table = pa.concat_tables(rows)
    of_model = {member.name: table.filter(pc.equal(table["model"], member.name)) for member in members}
    return {name: (mine["is_lens"].to_numpy(), mine["score"].to_numpy()) for name, mine in of_model.items()}


def kinds_of(stamps: StampSet, split: str | None) -> NDArray[np.str_]:
    """Kind of every row, in the same order."""
    column = "kind" if "kind" in stamps.schema.names else "label"
    return np.concatenate([words(table, column) for table, _ in iter_stamps(stamps, [], [column], split=split)])


def simulated(
    is_lens: NDArray[np.bool_], score: NDArray[np.float64], kinds: NDArray[np.str_], plain: set[str]
) -> dict[str, Any]:
    """Numbers against all others, ordinary galaxies and look-alikes, and against each kind."""
    ordinary = np.isin(kinds, sorted(plain))
    against = {"all": ~is_lens, "ordinary": ~is_lens & ordinary, "look_alikes": ~is_lens & ~ordinary}
    against |= {kind: ~is_lens & (kinds == kind) for kind in sorted(set(kinds[~is_lens]))}
    out: dict[str, Any] = {}
    for name, others in against.items():
        counts = ScoreCounts.of(score[is_lens | others], is_lens[is_lens | others])
        rates = {curves.rate_name(rate): curves.tpr_at_fpr(counts, rate) for rate in curves.RATES}
        out[name] = {
            "n_lens": counts.n_lens,
            "n_other": counts.n_other,
            "auroc": curves.auroc(counts),
            "auroc_interval95": list(curves.auroc_interval(counts)),
            "tpr_at_fpr": {
                key: {k: rate.get(k) for k in ("value", "interval95", "why")} for key, rate in rates.items()
            },
        }
    return out


def real_sky(member: Member, real: Path, lens_scores: NDArray[np.float64]) -> dict[str, Any]:
    """Numbers on real pixels: the ground set, or the one from space."""
    if set(member.card.bands) != set(BANDS):
        return space_real_sky(member.predictor, real)
    found = ground_real_sky(member.predictor, real)
    galaxies = expit(np.array(found["kids_logits"]))
    above = fraction(int((galaxies >= np.quantile(lens_scores, 0.2)).sum()), len(galaxies))
    # the simulated lenses are those that can be seen, the arcs of `ground_real_sky` are not chosen by that
    return {"kids_above_what_80_percent_of_simulated_lenses_pass": above} | found


def speed_ms(member: Member, n: int = 256) -> float:
    """CPU milliseconds of one core a stamp, network alone; the fastest of four rounds."""
    card = member.card
    stamps = np.random.default_rng(0).normal(0, 1, (n, card.n_channel, card.stamp_px, card.stamp_px))
    best_s = fastest_s(lambda: member.predictor.outputs(stamps.astype(np.float32)), 4)
    return round(1e3 * best_s / n, 3)


def table_of(results: list[dict[str, Any]]) -> str:
    """A Markdown table of what counts."""
    lines = [
        "| model | parameters | ms a stamp | AUROC ordinary | TPR 1e-2, 1e-3 | look-alikes AUROC | real sky |",
        "|" + "---|" * 7,
    ]
    for result in results:
        plain, alike = result["simulated"]["ordinary"], result["simulated"]["look_alikes"]
        rates = ", ".join(_three(plain["tpr_at_fpr"][key]["value"]) for key in ("1e-2", "1e-3"))
        lines.append(
            f"| {result['model']} | {result['parameters']:,} | {result['ms_per_stamp']} "
            f"| {_three(plain['auroc'])} | {rates} | {_three(alike['auroc'])} | {_real(result['real_sky'])} |"
        )
    return "\n".join(lines)


def _real(found: dict[str, Any]) -> str:
    if "cfhtls" not in found:
        part = found["where_0.05_of_galaxies_pass"]["lenses"]
        return f"AUROC {_three(found['auc_lenses_against_galaxies']['value'])}, {part['k']}/{part['n']} at 5 %"
    one = found["where_0.01_of_kids_pass"]["spacewarps_good"]
    return (
        f"SW/KiDS {_three(found['auc_spacewarps_good_against_kids']['value'])}, {one['k']}/{one['n']} at 1 %, "
        f"vs 0.3 {_three(found['auc_spacewarps_good_against_grade_0.3']['value'])}, "
        f"KiDS above 80 % of arcs {_three(found['kids_above_what_80_percent_of_painted_arcs_pass']['value'])} "
        f"({_three(found['kids_above_what_80_percent_of_simulated_lenses_pass']['value'])} of simulated), "
        f"CFHTLS {found['cfhtls']['rank']}/{found['cfhtls']['n_sources']}"
    )


def _three(value: float | None) -> str:
    return "-" if value is None else json.dumps(round(value, 3))


if __name__ == "__main__":
    main()
