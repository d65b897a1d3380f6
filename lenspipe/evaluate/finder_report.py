"""What a report of finders says: false positives by group, the survey probe, kinds, reliability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lenspipe.evaluate.judges.contract import Metrics
from lenspipe.report import plots
from lenspipe.report.page import Section, number, with_interval
from lenspipe.stats.survey_probe import AREA_MAX, warning_of


def numbers_of(first: Metrics) -> str:
    """Lenses and others that were judged, and of how many hosts."""
    hosts = first["false_positives"]["by_host"]
    text = f"{first['n_lens']} lenses, {first['n_other']} others"
    if hosts is None:
        return text
    part = f" (counted on {hosts['part']:.1%} of them)" if hosts["part"] < 1 else ""
    return f"{text} of {round(hosts['n_group'] / hosts['part'])} hosts{part}"


def survey_lines(metrics: Mapping[str, Metrics]) -> list[str]:
    """The survey probe in words: the worst pair of each finder, as a warning where it is too far apart."""
    lines = []
    for name, found in metrics.items():
        probe = found["survey_probe"]
        if (warning := warning_of(name, probe)) is not None:
            lines.append(f"Warning: {warning}.")
        elif probe is not None:
            worst = probe["worst"]
            lines.append(
                f"Survey probe of {name}: AUC {with_interval(worst['auroc'], worst['interval95'])} at most between "
                f"ordinary galaxies of two of {len(probe['n'])} surveys ({worst['higher']}, {worst['lower']})."
            )
    return lines


def by_group_section(metrics: Mapping[str, Metrics]) -> Section:
    """Rates of false positives with intervals over hosts, and over tiles."""
    section = Section(
        "False positives by host and by tile",
        "Stamps of one host, and those of one tile, are not independent: intervals are over hosts, and over tiles, and "
        "say how many they rest on.",
    )
    for what in ("host", "tile"):
        known = {name: m["false_positives"][f"by_{what}"] for name, m in metrics.items()}
        first = next(iter(known.values()))
        if first is None:
            continue
        heading = ["model", "at", f"{what}s", "stamps", "false positive rate", f"{what}s of which a stamp passes"]
        rows = [
            [
                name,
                at,
                str(found["n_group"]),
                f"{row['k']}/{found['n_stamp']}",
                with_interval(row["value"], row["interval95"]),
                with_interval(row["groups"]["value"], row["groups"]["interval95"]),
            ]
            for name, found in known.items()
            for at, row in found.items()
            if isinstance(row, dict)
        ]
        section.tables.append((heading, rows))
    return section


def survey_sections(metrics: Mapping[str, Metrics]) -> list[Section]:
    """Table of the survey probe; none where the stamps name fewer than two surveys."""
    rows = [
        [
            name,
            pair["higher"],
            pair["lower"],
            f"{pair['n'][0]}, {pair['n'][1]}",
            with_interval(pair["auroc"], pair["interval95"]),
        ]
        for name, found in metrics.items()
        for pair in (found["survey_probe"] or {"pairs": []})["pairs"]
    ]
    if not rows:
        return []
    warnings = [warning for name, m in metrics.items() if (warning := warning_of(name, m["survey_probe"]))]
    text = (
        "Area under the curve of the score alone between ordinary galaxies of two surveys: 0.5 where the finder does "
        f"not see which survey a galaxy is from; above {AREA_MAX:g} scores of the two must not be compared. "
    )
    heading = ["model", "scores higher", "scores lower", "stamps", "AUC"]
    return [Section("Survey probe", text + " ".join(f"Warning: {w}." for w in warnings), [(heading, rows)])]


def deepest_rate(metrics: Metrics) -> str:
    """Name of the lowest false positive rate down to 1e-3 that was measured; the threshold on the score if none."""
    rates = [name for name, found in metrics["tpr_at_fpr"].items() if found["value"] is not None and name != "1e-4"]
    return f"fpr {rates[-1]}" if rates else f"score {metrics['threshold']:g}"


def kinds_section(metrics: Mapping[str, Metrics], at: str) -> Section:
    """What part of each kind passes a threshold."""
    rows = [
        [kind, row["class"], str(row["n"]), *(recalled(m["by_kind"][kind], at) for m in metrics.values())]
        for kind, row in next(iter(metrics.values()))["by_kind"].items()
    ]
    text = f"Fraction of each kind with a score above the threshold of {at.replace('fpr', 'FPR')}."
    return Section("Which kinds pass", text, [(["kind", "class", "n", *metrics], rows)])


def recalled(row: dict[str, Any], at: str) -> str:
    """Part that passes a threshold, with its interval."""
    return with_interval(row[at]["value"], row[at]["interval95"]) if at in row else "-"


def reliability_section(metrics: Mapping[str, Metrics]) -> Section:
    """Whether scores are probabilities, before calibration and after."""
    heading = ["model", "ECE of the score", "Brier score", "calibration", "ECE calibrated", "Brier calibrated"]
    rows = [
        [name, number(m["ece"]), number(m["reliability"]["brier"]), *_calibrated(m["calibrated"])]
        for name, m in metrics.items()
    ]
    stated = {name: m["reliability"] for name, m in metrics.items()}
    stated |= {f"{name}, calibrated": m["calibrated"] for name, m in metrics.items() if m["calibrated"]}
    return Section(
        "Reliability",
        "Probabilities are at the fraction of lenses in these data.",
        [(heading, rows)],
        [("reliability.png", plots.reliability_plot(stated))],
    )


def _calibrated(found: dict[str, Any] | None) -> tuple[str, str, str]:
    return (found["method"], number(found["ece"]), number(found["brier"])) if found else ("none", "-", "-")
