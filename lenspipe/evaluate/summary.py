"""The page of a report: what was judged, on what, the judge's tables, the audit, and the models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lenspipe.report import plots
from lenspipe.report.page import Section, page


def report_page(record: dict[str, Any], sections: Sequence[Section]) -> str:
    """HTML of a report from what ``metrics.json`` holds and the sections of its judge."""
    data = record["data"]
    several = [f"{one['name']} ({one['n']} stamps, {_pixels(one['images'])})" for one in data.get("data_sets", ())]
    intro = [
        f"Data: {'; '.join(several) or data['folder']}, split {data['split'] or 'all'}. {_pixels(data['images'])}.",
        f"Written {record['written']} by lenspipe {record['versions']['lenspipe']}. Intervals are 95 %: "
        "Clopper-Pearson for fractions, DeLong for areas; they take the stamps as independent.",
    ]
    return page("Evaluation", intro, [*sections, _models(record["models"])])


def _pixels(images: dict[str, Any]) -> str:
    return "; ".join(
        f'{name}: {" ".join(i["bands"])}, {i["size_px"]} px at {i["pixel_scale_arcsec"]:g}"'
        for name, i in images.items()
    )


def audit_section(results: Sequence[dict[str, Any]]) -> list[Section]:
    """What the audit found, one column per model; empty where there was none."""
    audited = {result["name"]: result["audit"] for result in results if "audit" in result}
    if not audited:
        return []
    rows = [
        [kind, *(f"{found[kind]['mean']:.1e} / {found[kind]['largest']:.1e}" for found in audited.values())]
        for kind in next(iter(audited.values()))
    ]
    return [
        Section(
            "Turned, mirrored, shifted",
            "Change of the output: scores, probabilities, or values in units of their spread. Turns that are resampled "
            "hold what interpolation does to the image.",
            [(["change, mean / largest", *audited], rows)],
            [("audit.png", plots.audit_plot(audited))],
        )
    ]


def _models(results: Sequence[dict[str, Any]]) -> Section:
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
