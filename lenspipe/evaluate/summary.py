"""The page of a report: what was judged, on what, and the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lenspipe.evaluate.pictures import deepest_rate
from lenspipe.report.page import Section, number, page, rate, with_interval

Pictures = Sequence[tuple[str, bytes]]


def report_page(record: dict[str, Any], pictures: Pictures) -> str:
    """HTML of a report from what ``metrics.json`` holds and the pictures."""
    data, results = record["data"], record["models"]
    images = "; ".join(
        f'{name}: {" ".join(i["bands"])}, {i["size_px"]} px at {i["pixel_scale_arcsec"]:g}"'
        for name, i in data["images"].items()
    )
    intro = [
        f"Data: {data['folder']}, split {data['split'] or 'all'}. {images}.",
        f"Written {record['written']} by lenspipe {record['versions']['lenspipe']}. Intervals are 95 %: "
        "Clopper-Pearson for fractions, DeLong for areas; they take the stamps as independent.",
    ]
    sections = {"find": _finder, "classify": _classifier, "regress": _regression}[record["task"]](results, pictures)
    if audited := [result for result in results if "audit" in result]:
        sections.append(_audit(audited, pictures))
    sections.append(_models(results))
    return page("Evaluation", intro, sections)


def _finder(results: list[dict[str, Any]], pictures: Pictures) -> list[Section]:
    metrics = [(result["name"], result["metrics"]) for result in results]
    first = metrics[0][1]
    rates = list(first["tpr_at_fpr"])
    head = Section("Recall at low false positive rates", _counted(first), pictures=_pick(pictures, "roc.png"))
    head.tables.append(
        (
            ["model", "AUROC", *(f"TPR at FPR {name}" for name in rates), "TPR0", "TPR10"],
            [
                [
                    name,
                    with_interval(m["auroc"], m["auroc_interval95"]),
                    *(rate(m["tpr_at_fpr"][r]) for r in rates),
                    rate(m["tpr0_detail"]),
                    rate(m["tpr10_detail"]),
                ]
                for name, m in metrics
            ],
        )
    )
    at = Section(f"At a score of {first['threshold']:g}", pictures=_pick(pictures, "scores.png"))
    columns = ["tp", "fp", "tn", "fn", "accuracy", "precision", "recall", "f1", "f_beta"]
    heading = [*(c.upper() for c in columns[:4]), *columns[4:-1], f"F (beta {first['beta']:g})", "best F", "at score"]
    at.tables.append(
        (
            ["model", *heading],
            [
                [
                    name,
                    *(number(m[c]) for c in columns),
                    number(m["best_f_beta"]["f_beta"]),
                    number(m["best_f_beta"]["threshold"]),
                ]
                for name, m in metrics
            ],
        )
    )
    deep = deepest_rate(first)
    recall = Section(f"Recall by what the lens is like, at {deep}", pictures=_pick(pictures, "recall_"))
    for quantity in first["recall_by"]:
        bins = [(row["low"], row["high"], row["n"]) for row in first["recall_by"][quantity]]
        rows = [
            [f"{low:g} to {high:g}", str(n), *(_in_bin(m, quantity, k, deep) for _, m in metrics)]
            for k, (low, high, n) in enumerate(bins)
        ]
        recall.tables.append(([quantity, "lenses", *(name for name, _ in metrics)], rows))
    kinds = Section("Which kinds pass", f"Part of each kind with a score above the threshold of {deep}.")
    kinds.tables.append(
        (
            ["kind", "class", "n", *(name for name, _ in metrics)],
            [
                [kind, row["class"], str(row["n"]), *(_of_kind(m, kind, deep) for _, m in metrics)]
                for kind, row in first["by_kind"].items()
            ],
        )
    )
    honest = Section(
        "Reliability",
        "Probabilities are at the fraction of lenses in these data.",
        pictures=_pick(pictures, "reliability.png"),
    )
    honest.tables.append(
        (
            ["model", "ECE of the score", "Brier score", "calibration", "ECE calibrated", "Brier calibrated"],
            [
                [name, number(m["ece"]), number(m["reliability"]["brier"]), *_calibrated(m["calibrated"])]
                for name, m in metrics
            ],
        )
    )
    return [head, recall, kinds, at, honest]


def _calibrated(found: dict[str, Any] | None) -> tuple[str, str, str]:
    return (found["method"], number(found["ece"]), number(found["brier"])) if found else ("none", "-", "-")


def _counted(metrics: dict[str, Any]) -> str:
    text = f"{metrics['n_lens']} lenses and {metrics['n_other']} others."
    if metrics["auroc_error_max"]:
        text += f" Scores are counted in steps; the area is within {metrics['auroc_error_max']:.1e} of the exact one."
    return text


def _in_bin(metrics: dict[str, Any], quantity: str, k: int, at: str) -> str:
    row = metrics["recall_by"][quantity][k]
    return with_interval(row[at]["value"], row[at]["interval95"]) if at in row else "-"


def _of_kind(metrics: dict[str, Any], kind: str, at: str) -> str:
    row = metrics["by_kind"][kind]
    return with_interval(row[at]["value"], row[at]["interval95"]) if at in row else "-"


def _classifier(results: list[dict[str, Any]], pictures: Pictures) -> list[Section]:
    metrics = [(result["name"], result["metrics"]) for result in results]
    head = Section("Classes", f"{metrics[0][1]['n']} stamps.")
    columns = ["accuracy", "auroc_macro", "auroc_micro", "f1_macro", "ece"]
    head.tables.append((["model", *columns], [[name, *(number(m[c]) for c in columns)] for name, m in metrics]))
    sections = [head]
    for name, m in metrics:
        rows = [
            [
                c,
                str(v["n"]),
                with_interval(v["auroc"], v["auroc_interval95"]),
                number(v["precision"]),
                number(v["recall"]),
                number(v["f1"]),
            ]
            for c, v in m["per_class"].items()
        ]
        heading = ["class", "n", "AUROC against the rest", "precision", "recall", "F1"]
        mine = [p for p in pictures if p[0].startswith(_stem(name))]
        kept = [
            [
                f"{row['kept']:.3f}",
                number(row["confidence"]),
                with_interval(row["accuracy"]["value"], row["accuracy"]["interval95"]),
            ]
            for row in m["accuracy_of_kept"]
        ]
        section = Section(name, _silence(m["abstention"]), [(heading, rows)], mine)
        section.tables.append((["part kept", "by a confidence from", "accuracy"], kept))
        sections.append(section)
    return sections


def _silence(cost: dict[str, Any] | None) -> str:
    if cost is None:
        return "It has no rule when to abstain (lenspipe calibrate fits one)."
    parts = ("kept", "accuracy_kept", "accuracy_all")
    kept, accuracy, whole = (with_interval(cost[key]["value"], cost[key]["interval95"]) for key in parts)
    why = ", ".join(f"{n} by {reason}" for reason, n in cost["reasons"].items() if n) or "none"
    return (
        f"By its rule it keeps {kept} of {cost['n']} stamps with an accuracy of {accuracy}, against {whole} of all. "
        f"Left out: {why}."
    )


def _regression(results: list[dict[str, Any]], pictures: Pictures) -> list[Section]:
    sections = []
    for result in results:
        columns = ["n", "mae", "mse", "rmse", "bias", "rmse_of_mean_predictor", "mean_rmse_over_rmse", "r2"]
        rows = []
        for target, found in result["metrics"]["targets"].items():
            cover = found["coverage"] or {}
            held = [with_interval(c["value"], c["interval95"]) for c in cover.values()] or ["-", "-"]
            rows.append([target, *(number(found[c]) for c in columns), *held])
        heading = ["target", *columns, "inside 1 sigma", "inside 2 sigma"]
        mine = [p for p in pictures if p[0].startswith(_stem(result["name"]))]
        sections.append(Section(result["name"], tables=[(heading, rows)], pictures=mine))
    return sections


def _audit(results: list[dict[str, Any]], pictures: Pictures) -> Section:
    section = Section(
        "Turned, mirrored, shifted",
        "Change of the output: scores, probabilities, or values in units of their spread. Turns that are resampled "
        "hold what interpolation does to the image.",
        pictures=_pick(pictures, "audit.png"),
    )
    kinds = list(results[0]["audit"])
    rows = [
        [kind, *(f"{r['audit'][kind]['mean']:.1e} / {r['audit'][kind]['largest']:.1e}" for r in results)]
        for kind in kinds
    ]
    section.tables.append((["change, mean / largest", *(r["name"] for r in results)], rows))
    return section


def _models(results: list[dict[str, Any]]) -> Section:
    rows = []
    for result in results:
        model = result["model"]
        if model:
            settings = ", ".join(f"{k}={v}" for k, v in model["settings"].items())
            size = f'{model["stamp_px"]} px at {model["pixel_scale_arcsec"]:g}"'
            rows.append(
                [
                    result["name"],
                    model["family"],
                    f"{model['n_parameter']:,}",
                    settings or "-",
                    " ".join(model["bands"]),
                    size,
                    model["digest"],
                    model["folder"],
                ]
            )
    heading = ["model", "family", "parameters", "settings", "bands", "input", "digest", "folder"]
    return Section("Models", tables=[(heading, rows)])


def _pick(pictures: Pictures, start: str) -> list[tuple[str, bytes]]:
    return [picture for picture in pictures if picture[0].startswith(start)]


def _stem(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name) + "_"
