"""
Finders side by side on simulations, on arcs painted into a real tile, and on real lenses.

    python -m benchmarks.studies.real_sky.measure MODEL... --real REAL --data STAMPS --out REPORT [--reserved]

Models of g r i get the ground sets, models of one band those from space. Of the Space Warps stamps the half whose names
have an even SHA-256 is opened; ``--reserved`` opens the other half instead, once, for the model that was chosen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from benchmarks import record
from benchmarks.studies.real_sky.ground import BANDS, ground_real_sky
from benchmarks.studies.real_sky.page import real_sky_page
from benchmarks.studies.real_sky.space import space_real_sky
from lenspipe.errors import LenspipeError
from lenspipe.evaluate.judges.contract import JudgeSettings
from lenspipe.evaluate.judging import judged, open_members
from lenspipe.infer.predict import Predictor
from lenspipe.nn.card import find_model, write_card
from lenspipe.stamps.format import StampSet


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Simulated stamps with a split 'test'.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the report.")
@click.option("--seed", default=2026, show_default=True, help="Of the painted arcs.")
@click.option("--passes", default=12, show_default=True, help="Passes of painting, some 20 arcs each.")
@click.option("--reserved", is_flag=True, help="The reserved half of Space Warps: for the chosen model, once.")
@click.option("--record/--no-record", "write", default=True)
@click.option("--update-card", is_flag=True, help="Write the result into each model's card as well.")
def main(
    models: tuple[str, ...],
    real: Path,
    data: Path | None,
    out: Path,
    seed: int,
    passes: int,
    reserved: bool,
    write: bool,
    update_card: bool,
) -> None:
    """Measure MODELs (shipped names or folders)."""
    results = []
    for model in models:
        predictor = Predictor(find_model(model))
        card = predictor.card
        result: dict[str, Any] = {"model": card.name, "digest": predictor.digest}
        if data is not None:
            result["simulated"] = simulated(model, data)
        try:
            if set(card.bands) == set(BANDS):
                result["ground"] = ground_real_sky(predictor, real, seed=seed, n_pass=passes, reserved=reserved)
            else:
                result["space"] = space_real_sky(predictor, real)
        except LenspipeError as error:
            result["why"] = str(error)
        results.append(result)
        if update_card:
            folder = find_model(model)
            write_card(folder, card.model_copy(update={"metrics": card.metrics | {"real_sky": result}}))
    check(results)
    out.mkdir(parents=True, exist_ok=True)
    (out / "real_sky.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "real_sky.html").write_text(real_sky_page(results))
    if write:
        names = "_".join(result["model"] for result in results[:3])
        record.write(f"real_sky_{names}{'_reserved' if reserved else ''}", {"models": results})
    print(f"{out / 'real_sky.html'}")


def simulated(model: str, data: Path) -> dict[str, Any]:
    """The numbers of `lenspipe evaluate` on simulated stamps that are set beside those of the real sky."""
    stamps = StampSet.open(data)
    (metrics,) = judged(open_members([model], stamps), stamps, JudgeSettings(split="test")).metrics().values()
    kept = ("n_lens", "n_other", "auroc", "auroc_interval95", "tpr0", "tpr10", "tpr_at_fpr", "by_kind")
    return {"data": data.name, **{key: metrics[key] for key in kept}}


def check(results: list[dict[str, Any]]) -> None:
    """What must hold whatever the model: fewer pass a higher threshold, and the parts are of the whole."""
    for result in results:
        if ground := result.get("ground"):
            one, five = (ground[f"where_{part}_of_kids_pass"] for part in ("0.01", "0.05"))
            assert one["threshold_logit"] >= five["threshold_logit"]
            assert one["spacewarps_good"]["k"] <= five["spacewarps_good"]["k"]
            assert one["kids_passing"]["value"] <= 0.01 and five["kids_passing"]["value"] <= 0.05
            bins = one["painted_arcs"]["theta_e_arcsec"]
            assert sum(b["n"] for b in bins) == one["painted_arcs"]["all"]["n"]
            assert 1 <= ground["cfhtls"]["rank"] <= ground["cfhtls"]["n_sources"]


if __name__ == "__main__":
    main()
