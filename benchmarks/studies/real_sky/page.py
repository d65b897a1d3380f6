"""The page that sets simulations, painted arcs and real lenses side by side for each model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lenspipe.report.page import Section, number, page, with_interval

Result = dict[str, Any]
Line = tuple[str, Callable[[Any], str], tuple[str | int, ...]]
ONE, FIVE = ("ground", "where_0.01_of_kids_pass"), ("ground", "where_0.05_of_kids_pass")


def real_sky_page(results: Sequence[Result]) -> str:
    """HTML of what `ground` and `space` measured, one column per model."""
    intro = [
        "Each model on simulated stamps, on arcs painted on real pixels, and on real lenses. Intervals are 95 %.",
        "Painted arcs are as the painter draws them: recall of them is no completeness of the sky by itself.",
    ]
    ground = [r for r in results if "ground" in r]
    sections = [
        _section("Simulated stamps", [r for r in results if "simulated" in r], _simulated),
        _section("Arcs painted into the KiDS tile", ground, _painted),
        _section("Real lenses, from the ground", ground, _real),
        _section(
            "Real lenses and arcs painted on real galaxies, from space",
            [r for r in results if "space" in r],
            lambda _: SPACE,
        ),
    ]
    if ground:
        sections[
            1
        ].text = "Recovered: detected within 1 arcsec and above the threshold that 1 % of the real galaxies pass."
        found = ground[0]["ground"]
        sections[
            2
        ].text = (
            f"Space Warps candidates: the half {found['spacewarps_half']}. {found['n_kids_galaxies']} KiDS galaxies."
        )
    if failed := [[r["model"], r["why"]] for r in results if "why" in r]:
        sections.append(Section("Not measured", tables=[(["model", "why"], failed)]))
    return page("Simulations, painted arcs, real lenses", intro, [s for s in sections if s.tables])


def _section(title: str, results: Sequence[Result], lines: Callable[[Result], Sequence[Line]]) -> Section:
    section = Section(title)
    if results:
        rows = [[name, *(cell(_at(r, path)) for r in results)] for name, cell, path in lines(results[0])]
        section.tables.append((["", *(r["model"] for r in results)], rows))
    return section


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        value = value[key]
    return value


def _part(entry: dict[str, Any]) -> str:
    if entry.get("value") is None:
        return str(entry.get("why", "-"))
    return f"{with_interval(entry['value'], entry['interval95'])} ({entry['k']}/{entry['n']})"


def _area(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return str(entry["why"])
    return f"{with_interval(entry['value'], entry['interval95'])} ({entry['n'][0]}, {entry['n'][1]})"


def _whole(entry: dict[str, Any]) -> str:
    return with_interval(entry["auroc"], entry["auroc_interval95"])


def _numbers(entry: dict[str, Any]) -> str:
    return f"{entry['n_lens']} lenses, {entry['n_other']} others"


def _rank(entry: dict[str, Any]) -> str:
    return f"{entry['rank']} of {entry['n_sources']}"


def _lenses(entry: dict[str, Any]) -> str:
    return _part(entry["lenses"]) if "lenses" in entry else str(entry["why"])


def _simulated(first: Result) -> list[Line]:
    rates = first["simulated"]["tpr_at_fpr"]
    return [
        ("stamps", _numbers, ("simulated",)),
        ("AUROC", _whole, ("simulated",)),
        *((f"TPR at FPR {rate}", _part, ("simulated", "tpr_at_fpr", rate)) for rate in rates),
    ]


def _painted(first: Result) -> list[Line]:
    above = "kids_above_what_80_percent_of_painted_arcs_pass"
    lines: list[Line] = [
        ('AUC, arcs from 1" and S/N 30 against KiDS galaxies', _area, ("ground", "auc_painted_arcs_against_kids")),
        ("KiDS galaxies above what 80 % of those arcs pass", _part, ("ground", above)),
        ("detected", _part, (*ONE, "painted_arcs", "detected")),
        ('Einstein radius 1" to 2.5", S/N 30 and more', _part, (*ONE, "painted_arcs", "theta_e_1_to_2.5_snr_30")),
    ]
    for quantity, name in (("theta_e_arcsec", 'Einstein radius, "'), ("arc_snr", "S/N of the arcs")):
        for k, row in enumerate(_at(first, (*ONE, "painted_arcs", quantity))):
            upper = "and more" if row["high"] is None else f"to {number(row['high'])}"
            bin_name = f"{name}: {row['low']:g} {upper}"
            lines.append((bin_name, _part, (*ONE, "painted_arcs", quantity, k)))
    return lines


def _real(first: Result) -> list[Line]:
    return [
        ("AUC, grade 2 and more against KiDS galaxies", _area, ("ground", "auc_spacewarps_good_against_kids")),
        ("AUC, grade 2 and more against grade 0.3", _area, ("ground", "auc_spacewarps_good_against_grade_0.3")),
        ("grade 2 and more, where 1 % of KiDS galaxies pass", _part, (*ONE, "spacewarps_good")),
        ("grade 0.3, where 1 % pass", _part, (*ONE, "spacewarps_grade_0.3")),
        ("grade 2 and more, where 5 % pass", _part, (*FIVE, "spacewarps_good")),
        ("rank of the CFHTLS candidate", _rank, ("ground", "cfhtls")),
    ]


SPACE: list[Line] = [
    ("COSMOS galaxies", str, ("space", "n_galaxies")),
    ("AUC, lenses against galaxies", _area, ("space", "auc_lenses_against_galaxies")),
    ("AUC, against galaxies to 22.5 mag", _area, ("space", "auc_lenses_against_galaxies_to_22.5")),
    ("lenses where 5 % pass", _lenses, ("space", "where_0.05_of_galaxies_pass")),
    ("lenses where 1 % pass", _lenses, ("space", "where_0.01_of_galaxies_pass")),
    (
        "AUC, arcs painted on galaxies to 22.5 mag, against these bare",
        _area,
        ("space", "auc_painted_arcs_against_galaxies_to_22.5"),
    ),
    (
        "painted arcs where 5 % of all galaxies pass",
        _part,
        ("space", "where_0.05_of_galaxies_pass", "painted_arcs", "all"),
    ),
]
