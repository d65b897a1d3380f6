"""
Figures and tables of `docs/results/dark-matter.md`, from the records alone.

    python -m benchmarks.studies.dark_matter.figures

Draws `docs/img/dark_matter_*.png` and prints the tables of bounds, of regressions' bounds, of ladders and of networks
that are shown what a fitted lens leaves.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure

from benchmarks import record
from lenspipe.report.picture import write_png

IMAGES = Path(__file__).parents[3] / "docs" / "img"
COMPARED = 400
"""Steps of the comparison of all networks, recipes and parts; longer trainings have a table of their own."""
SHORT = {"no_substructure": "none", "subhalo": "subhalo", "vortex": "vortex"}


def bounds() -> dict[str, dict[str, Any]]:
    """Bounds by name."""
    paths = sorted(record.RESULTS.glob("dark_matter_bound_*.json"))
    return {p.stem.removeprefix("dark_matter_bound_"): json.loads(p.read_text())["result"] for p in paths}


def bound_table(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| recipe | observer | micro AUC | none, subhalo, vortex | accuracy |", "|" + "---|" * 5]
    for name, one in found.items():
        for observer in ("told", "untold"):
            m = one[observer]
            low, high = m["auroc_micro_interval95"]
            each = " ".join(f"{m['per_class'][c]:.4f}" for c in SHORT)
            micro = f"{m['auroc_micro']:.4f} [{low:.4f}, {high:.4f}]"
            lines.append(f"| `{name}` | {observer} | {micro} | {each} | {m['accuracy']:.3f} |")
    return "\n".join(lines)


def draw(found: dict[str, dict[str, Any]]) -> Figure:
    """Signal-to-noise before and after marginalisation, and both observers' areas by it."""
    figure = Figure(figsize=(4 * len(found), 3.6), layout="constrained")
    for k, (name, one) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(1, len(found), k)
        for kind, colour in (("subhalo", "C0"), ("vortex", "C1")):
            rows = [row for row in one["by_signal"][kind] if "told" in row]
            x = [row["from"] or 0.5 for row in rows]
            axes.plot(x, [row["told"] for row in rows], colour, marker="o", label=f"{kind}, told")
            axes.plot(x, [row["untold"] for row in rows], colour, marker="o", ls="--", label=f"{kind}, untold")
        axes.set(
            xscale="log", title=name, xlabel="signal-to-noise left, from", ylabel="AUC against none", ylim=(0.45, 1.02)
        )
        # bins by their lower ends; the first begins at 0
        axes.set(xlim=(0.4, 40))
        axes.set_xticks((0.5, 1, 3, 5, 10, 30), ("0", "1", "3", "5", "10", "30"))
        axes.minorticks_off()
        axes.legend(fontsize=7, frameon=False)
    return figure


def of(pattern: str) -> list[dict[str, Any]]:
    """Results of the records of a study, by name."""
    return [json.loads(p.read_text())["result"] for p in sorted(record.RESULTS.glob(f"dark_matter_{pattern}.json"))]


def area(test: dict[str, Any]) -> str:
    low, high = test["auroc_micro_interval95"]
    return f"{test['auroc_micro']:.3f} [{low:.3f}, {high:.3f}]"


def classes_of(test: dict[str, Any]) -> str:
    return " ".join(f"{test['per_class'][c]['auroc']:.3f}" for c in SHORT)


def between(test: dict[str, Any]) -> float:
    """Right ones of the subhalos and vortices that are called one of the two."""
    order = [test["classes"].index(c) for c in ("subhalo", "vortex")]
    inner = np.array(test["confusion"])[np.ix_(order, order)]
    return float(np.trace(inner) / inner.sum())


def sets_table(found: list[dict[str, Any]]) -> str:
    """Observers who are told sets of signals."""
    lines = ["| recipe | signals told per class | micro AUC | none, subhalo, vortex | accuracy |", "|" + "---|" * 5]
    for one in found:
        for told in one["told"]:
            low, high = told["auroc_micro_interval95"]
            each = " ".join(f"{told['per_class'][c]:.3f}" for c in SHORT)
            micro = f"{told['auroc_micro']:.3f} [{low:.3f}, {high:.3f}]"
            name = f"`{one['recipe']}`" + ", sums" * (one.get("single") is not None)
            lines.append(f"| {name} | {told['of']:,} | {micro} | {each} | {told['accuracy']:.3f} |")
    return "\n".join(lines)


def clumps_table(found: list[dict[str, Any]]) -> str:
    """What fits leave of smooth lenses, whose sources have clumps or none."""
    lines = [
        "| fit | sources | mean square left: 25, 50, 75, 90 % | above 1.1 | a point mass above 5 sigma | clumps given "
        "| ms per stamp |",
        "|" + "---|" * 7,
    ]
    for one in found:
        for way, what in one["ways"].items():
            for which in ("smooth", "clumpy"):
                m = what[which]
                left = ", ".join(f"{q:.2f}" for q in m["chi2"])
                numbers = f"{m['not_described']:.3f} | {m['like_a_mass']:.3f} | {m['clumps_given']:.2f}"
                lines.append(f"| {way} | {m['n']} {which} | {left} | {numbers} | {what['ms_per_stamp']:.0f} |")
    return "\n".join(lines)


def alone_table(found: list[dict[str, Any]]) -> str:
    """What a fit's own numbers tell, without a network."""
    lines = ["| recipe | number | subhalo | vortex |", "|" + "---|" * 4]
    rows = {
        (one["recipe"], name): areas
        for one in sorted(found, key=lambda one: one.get("masses", False))
        for name, areas in one.get("areas_without_a_network", {}).items()
    }
    lines += [f"| `{r}` | `{name}` | {a['subhalo']:.3f} | {a['vortex']:.3f} |" for (r, name), a in sorted(rows.items())]
    return "\n".join(lines)


def name_of(one: dict[str, Any]) -> str:
    """Network, and what it is shown other than the stamp and what the fit leaves."""
    shown = ", image alone" * one["plain"] + ", point masses" * one.get("masses", False)
    return one["family"].removeprefix("timm:").replace("+", " as it is") + shown


def fitted_table(found: list[dict[str, Any]], limits: dict[str, dict[str, Any]]) -> str:
    """Networks that are shown what a fitted lens leaves, the best first."""
    lines = [
        "| recipe | network | parameters | stamps, steps | seed | micro AUC | none, subhalo, vortex "
        "| either told right | accuracy | below the bound | s |",
        "|" + "---|" * 11,
    ]
    whole = [one for one in found if "error" not in one and one["steps"] != COMPARED]
    order = sorted(whole, key=lambda one: (one["recipe"], -one["steps"], -one["n_train"], -one["test"]["auroc_micro"]))
    for one in order:
        test, name = one["test"], name_of(one)
        gap = limits[one["recipe"]]["told"]["auroc_micro"] - test["auroc_micro"]
        size, amount = f"{one['trained_parameters']:,}", f"{one['n_train']:,}, {one['steps']:,}"
        numbers = f"{classes_of(test)} | {between(test):.3f} | {test['accuracy']:.3f} | {gap:.3f}"
        lines.append(
            f"| `{one['recipe']}` | {name} | {size} | {amount} | {one['seed']} | {area(test)} | {numbers} "
            f"| {one['training_s']:.0f} |"
        )
    lines += [f"| `{one['recipe']}` | {one['family']} | {one['error']} |" for one in found if "error" in one]
    lines += ["", *(f"{one['recipe']}, {one['family']}: {why}." for one in order if (why := one.get("at_chance")))]
    return "\n".join(lines).rstrip()


def comparison_table(found: list[dict[str, Any]]) -> str:
    """Micro areas with all stamps, a tenth and a hundredth, after equally many steps: a row per network, best first."""
    own = [one for one in found if one["steps"] == COMPARED and one["seed"] == 0]
    recipes = sorted({one["recipe"] for one in own})
    lines = [
        "| network | parameters | " + " | ".join(f"`{r}`: all, 10 %, 1 %" for r in recipes) + " | CPU s |",
        "|" + "---|" * (len(recipes) + 3),
    ]
    cells = {(name_of(one), one["recipe"], one["fraction"]): one for one in own}

    def value(name: str, recipe: str, fraction: float) -> str:
        one = cells.get((name, recipe, fraction))
        return "–" if one is None else f"{one['test']['auroc_micro']:.3f}"

    def best(name: str) -> float:
        one = cells.get((name, "model-f", 1.0))
        return 0.0 if one is None else float(one["test"]["auroc_micro"])

    for name in sorted({key[0] for key in cells}, key=best, reverse=True):
        some = [one for key, one in cells.items() if key[0] == name]
        areas = " | ".join(", ".join(value(name, r, part) for part in (1.0, 0.1, 0.01)) for r in recipes)
        seconds = np.median([one["cpu_s"] for one in some if one["cpu_s"] is not None])
        lines.append(f"| {name} | {some[0]['trained_parameters']:,} | {areas} | {seconds:.0f} |")
    lost: dict[str, list[str]] = {}
    for one in own:
        if one.get("at_chance"):
            lost.setdefault(f"{name_of(one)} (`{one['recipe']}`)", []).append(f"{100 * one['fraction']:g} %")
    if lost:
        each = "; ".join(f"{name} on {', '.join(parts)}" for name, parts in lost.items())
        lines += ["", f"The interval of the micro area holds .5 after {COMPARED} steps: {each} of the stamps."]
    return "\n".join(lines)


def seeds_table(found: list[dict[str, Any]]) -> str:
    """Micro areas with all stamps of networks that were trained with several seeds: mean, least and largest."""
    own = [one for one in found if one["steps"] == COMPARED and one["fraction"] == 1.0]
    every: dict[str, dict[str, list[float]]] = {}
    for one in own:
        every.setdefault(name_of(one), {}).setdefault(one["recipe"], []).append(one["test"]["auroc_micro"])
    recipes = sorted({one["recipe"] for one in own})
    lines = ["| network | seeds | " + " | ".join(f"`{r}`" for r in recipes) + " |", "|" + "---|" * (len(recipes) + 2)]
    for name, areas in every.items():
        if (n := min(len(some) for some in areas.values())) > 1:
            each = (f"{np.mean(areas[r]):.4f} ({min(areas[r]):.4f} to {max(areas[r]):.4f})" for r in recipes)
            lines.append(f"| {name} | {n} | {' | '.join(each)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def drawn_amounts_table(found: list[dict[str, Any]], masses: dict[str, Any], limits: dict[str, dict[str, Any]]) -> str:
    """What draws tell of amounts, beside bounds: signals known but for their strength, and all masses known."""
    lines = [
        "| amount | stamps | times better than a constant | after a regression | truth within one error "
        "| after a regression | bound, told | if all masses were known |",
        "|" + "---|" * 8,
    ]
    bound = limits["substructure-1"]["regression"]
    for one in found:
        for name, m in (one.get("amounts") or {}).items():
            times = []
            for how in ("as_they_are", "regressed"):
                low, high = m[how]["times_better_interval95"]
                times.append(f"{m[how]['times_better']:.2f} [{low:.2f}, {high:.2f}]")
            within = " | ".join(f"{m[how]['within_one_error']:.3f}" for how in ("as_they_are", "regressed"))
            told = f"{bound[name]['times_better']['told']:.2f}" if name in bound else "–"
            known = f"{masses['amounts'][name]['times_better']:.2f}" if name in masses["amounts"] else "–"
            lines.append(f"| {name} | {m['n']:,} | {' | '.join(times)} | {within} | {told} | {known} |")
    return "\n".join(lines)


def odds_table(found: list[dict[str, Any]], planted: list[dict[str, Any]]) -> str:
    """What odds of drawn substructure tell, of stamps and of signals planted in noise around fits of smooth lenses."""
    lines = [
        "| classifier | stamps | micro AUC | none, subhalo, vortex | smooth sources, clumpy | accuracy "
        "| either told right |",
        "|" + "---|" * 7,
    ]
    for one in found:
        for name, m in one["classifiers"].items():
            each = " ".join(f"{m['per_class'][c]:.3f}" for c in SHORT)
            parts = f"{m['smooth']['auroc_micro']:.3f}, {m['clumpy']['auroc_micro']:.3f}"
            numbers = f"{m['accuracy']:.3f} | {m['either_told_right']:.3f}"
            before = "" if one.get("way") else ", one minimum" if one.get("rounds") else ", once"
            which = name.replace("timm:", "") + before * ("odds" in name)
            lines.append(f"| {which} | {m['n']:,} | {area(m)} | {each} | {parts} | {numbers} |")
    for one in planted:
        for draws, observers in one["of_draws"].items():
            for name, m in observers.items():
                each = " ".join(f"{m['per_class'][c]:.3f}" for c in SHORT)
                which, n = f"planted, {int(draws):,} draws: {name}", one["n"] * one["images"]
                lines.append(f"| {which} | {n:,} | {area(m)} | {each} | {m['smooth']:.3f}, {m['clumpy']:.3f} | | |")
    return "\n".join(lines)


def minima_table(found: dict[str, Any]) -> str:
    """Fits with clumps that end in a minimum that is not the best."""
    lines = ["| sought again | of lenses | lost | by more than 100 | better than from the truth | ms per stamp |"]
    lines.append("|" + "---|" * 6)
    for rounds, m in found["of_rounds"].items():
        numbers = f"{m['lost']} | {m['above_100']} | {m['better_than_the_truth']} | {m['ms_per_stamp']:.0f}"
        lines.append(f"| {rounds} times | {found['n']} | {numbers} |")
    return "\n".join(lines)


def ladder_table(found: list[dict[str, Any]]) -> str:
    """Ladders: a row per rung."""
    lines = [
        "| recipe | network | times the mass | its own masses | the recipe's | none, subhalo, vortex | steps | s |"
    ]
    lines.append("|" + "---|" * 8)
    for one in found:
        for rung in one["rungs"]:
            last = rung.get("test_of_the_last") or rung["test"]
            times = " to ".join(f"{t:g}" for t in sorted(set(rung["times_the_mass"])))
            lines.append(
                f"| `{one['recipe']}` | {one['family'].removeprefix('timm:')} | {times} | {area(rung['test'])} "
                f"| {area(last)} | {classes_of(last)} | {rung['steps']:,} | {rung['training_s']:.0f} |"
            )
    return "\n".join(lines)


def regression_table(found: dict[str, dict[str, Any]]) -> str:
    """By how much the best estimate of an amount beats a constant."""
    lines = ["| recipe | amount | RMSE of a constant | told | untold | times better |", "|" + "---|" * 6]
    for name, one in found.items():
        for amount, what in (one.get("regression") or {}).items():
            rmse, times = what["rmse"], what["times_better"]
            untold = f"{rmse['untold']:.3g}" if "untold" in rmse else ""
            lines.append(
                f"| `{name}` | {amount} | {what['rmse_of_constant']:.3g} | {rmse['told']:.3g} | {untold} "
                f"| {', '.join(f'{t:.2f}' for t in times.values())} |"
            )
    return "\n".join(lines)


def amounts_table(found: list[dict[str, Any]], limits: dict[str, dict[str, Any]]) -> str:
    """Regressions from what a fit leaves of `substructure-1`, beside their bounds."""
    lines = ["| amount | network | stamps | times better than a constant | bound, told | truth within 68 % | R² |"]
    lines.append("|" + "---|" * 7)
    bounds = limits["substructure-1"]["regression"]
    for one in found:
        target, m = one["target"], one["metrics"]["targets"][one["target"]]
        bound = f"{bounds[target]['times_better']['told']:.2f}" if target in bounds else "not known"
        inside = m["coverage"]["1sigma"]
        low, high = inside["interval95"]
        numbers = (
            f"{m['mean_rmse_over_rmse']:.2f} | {bound} | {inside['value']:.3f} [{low:.3f}, {high:.3f}] | {m['r2']:.3f}"
        )
        name = one["family"] + ", point masses" * one.get("masses", False)
        lines.append(f"| {target} | {name} | {sum(one['n_train'].values()):,} | {numbers} |")
    return "\n".join(lines)


def draw_networks(chosen: list[dict[str, Any]]) -> Figure:
    """ROC curves, confusion, and features in a plane, a column per network."""
    figure = Figure(figsize=(4 * len(chosen), 10.5), layout="constrained")
    grid = figure.subplots(3, len(chosen), squeeze=False)
    for (top, middle, bottom), one in zip(grid.T, chosen, strict=True):
        test = one["test"]
        for k, (name, short) in enumerate(SHORT.items()):
            curve = np.array(test["roc"][name])
            top.plot(curve[:, 0], curve[:, 1], f"C{k}", label=f"{short}, {test['per_class'][name]['auroc']:.3f}")
            points = np.array(test["plane"][name])
            bottom.plot(points[:, 0], points[:, 1], f"C{k}.", markersize=3, label=short)
        top.set(
            xlabel="false positive rate",
            ylabel="true positive rate",
            title=f"{name_of(one)}\n{one['n_train']:,} stamps",
        )
        top.legend(fontsize=8, frameon=False, loc="lower right")
        confusion = np.array(test["confusion"], float)
        share = confusion / confusion.sum(axis=1, keepdims=True)
        middle.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(share):
            middle.text(column, row, f"{value:.2f}", ha="center", va="center", color="w" if value > 0.5 else "k")
        labels = [SHORT[c] for c in test["classes"]]
        middle.set(
            xticks=range(3), yticks=range(3), xticklabels=labels, yticklabels=labels, xlabel="called", ylabel="is"
        )
        bottom.set(xlabel="first component of features", ylabel="second")
        bottom.legend(fontsize=8, frameon=False)
    return figure


def tables() -> list[str]:
    """The page's tables, without zeros before the point."""
    limits = bounds()
    made = [bound_table(limits), regression_table(limits), fitted_table(of("fitted_*"), limits)]
    made += [
        comparison_table([one for one in of("fitted_*") if "error" not in one]),
        seeds_table([one for one in of("fitted_*") if "error" not in one]),
        odds_table(of("odds_*"), of("planted_*")),
        sets_table(of("sets_*")),
        clumps_table(of("clumps")),
        minima_table(of("minima")[0]),
        alone_table(of("fitted_*")),
        ladder_table(of("ladder_*")),
        amounts_table(of("regression_*"), limits),
        drawn_amounts_table([one for one in of("odds_*") if one.get("way")], of("masses_*")[0], limits),
    ]
    return [re.sub(r"(?<![\d.])0\.(\d)", r".\1", table) for table in made]


@click.command()
def main() -> None:
    """Draw and print everything."""
    limits, fitted = bounds(), of("fitted_*")
    write_png(IMAGES / "dark_matter_bound.png", picture(draw(limits)))
    pair = ("equivariant-c8", "timm:resnet18")
    chosen = [
        one
        for f in pair
        for one in fitted
        if "error" not in one and one["family"] == f and one["recipe"] == "model-f" and one["seed"] == 0
    ]
    best = [
        max(
            (one for one in chosen if one["family"] == f and not one["plain"] and not one.get("masses")),
            key=lambda one: (one["n_train"], one["steps"]),
        )
        for f in pair
    ]
    write_png(IMAGES / "dark_matter_networks.png", picture(draw_networks(best)))
    print(*tables(), sep="\n\n")


def picture(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return stream.getvalue()


if __name__ == "__main__":
    main()
