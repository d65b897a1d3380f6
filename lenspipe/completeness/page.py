"""The page of a selection function: what was found, how real the lenses look, and pictures of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lenspipe.bands import colour_bands
from lenspipe.completeness.prior import prior_text
from lenspipe.completeness.quantities import NAMED
from lenspipe.completeness.realism import Stamps
from lenspipe.completeness.selection import Selection, recovered
from lenspipe.image.contact import colour_stamps, contact_sheet
from lenspipe.report.page import Section, page, with_interval
from lenspipe.report.picture import png_of
from lenspipe.report.plots import cells_plot, fraction_plot, map_plot
from lenspipe.rundir import atomic_path

PAGE = "index.html"
N_CURVE, N_MAP = 40, 20
N_SHOWN, N_COLUMN, ENLARGED = 16, 8, 2


def write_page(
    folder: Path,
    selection: Selection,
    rows: Sequence[Mapping[str, Any]],
    cells: pa.Table,
    judged: Mapping[str, Any],
    stamps: Mapping[str, Stamps],
    injections: pa.Table,
    bands: Sequence[str],
) -> None:
    """Write ``index.html`` and the plots as PNG beside it."""
    record = selection.record
    intro = [
        f"{selection.what.capitalize()}.",
        f"Finder {record['finder']['name']} ({record['finder']['digest'][:16]}), run {record['run']['run_id']}, "
        f"{injections.num_rows} lenses painted.",
        f"Realism: {judged['why']}.",
        f"Prior of a candidate: {prior_text(record['prior'])}.",
        *(f"{note[:1].upper()}{note[1:]}." for note in record["notes"]),
    ]
    pictures = _plots(selection, rows)
    sections = [
        Section("At each operating point", _points_text(), tables=[_points_table(selection, rows)]),
        Section(
            "By quantity",
            "Points are bins with Clopper-Pearson intervals; lines the smooth fit, with everything "
            "else averaged over the painted lenses, and its 95 % interval.",
            pictures=pictures,
            captions={f"{name}.png": f"By {about.words}" for name, about in NAMED.items()}
            | {_map_name(p.name): f"By Einstein radius and signal-to-noise; {p.name}" for p in selection.points},
        ),
        Section(
            "Over the sky",
            "A square per HEALPix pixel; healpix.parquet has the numbers.",
            pictures=[("sky.png", _sky(cells, selection))],
            captions={"sky.png": "By position"},
        ),
        Section("How real do they look?", _gate_text(judged), tables=[_gate_table(judged)]),
        Section("Why lenses were lost", "Before any threshold.", tables=[_fates(record["counts"])]),
        _pictures_of(stamps, injections, selection, bands),
    ]
    for section in sections:
        for name, png in section.pictures:
            with atomic_path(folder / name) as path:
                path.write_bytes(png)
    with atomic_path(folder / PAGE) as path:
        path.write_text(page("What did the finder miss?", intro, sections), encoding="utf-8")


def _points_text() -> str:
    return (
        "A lens counts as recovered where a candidate near its centre has a score above the threshold. Thresholds are "
        "measured on the candidates of this run: a threshold of another survey means nothing here."
    )


def _points_table(
    selection: Selection, rows: Sequence[Mapping[str, Any]]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    heading = ["point", "threshold", "candidates that pass", *(f"recovered: {kind}" for kind in kinds)]
    table = []
    for point in selection.points:
        whole = {r["kind"]: r for r in rows if r["at"] == point.name and r["quantity"] == "all"}
        passing = point.passing
        table.append(
            [
                point.name,
                f"{point.threshold:.4f}",
                f"{passing['k']} of {passing['n']}",
                *(
                    f"{with_interval(whole[k]['value'], whole[k]['interval95'])} ({whole[k]['k']}/{whole[k]['n']})"
                    for k in kinds
                ),
            ]
        )
    return heading, table


def _plots(selection: Selection, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, bytes]]:
    pictures = []
    for name, (low, high) in selection.ranges.items():
        bins = {
            p.name: [r for r in rows if r["at"] == p.name and r["quantity"] == name and r["kind"] == "both"]
            for p in selection.points
        }
        if not any(bins.values()):
            continue
        about = NAMED[name]
        x = (np.geomspace if about.log else np.linspace)(low, high, N_CURVE).clip(low, high)
        curves = {}
        for p in selection.points:
            if name in {axis.name for fit in selection.fits[p.name].values() for axis in fit.axes}:
                of: dict[str, Any] = {name: x}
                said = selection(at=p.name, **of)
                curves[p.name] = (x, said.completeness, said.low, said.high)
        label = f"{about.words}{f' [{about.unit}]' if about.unit else ''}"
        pictures.append((f"{name}.png", fraction_plot(label, selection.what, bins, curves, logarithmic=about.log)))
    theta, snr = (
        np.geomspace(*selection.ranges[n], N_MAP).clip(*selection.ranges[n]) for n in ("theta_e_arcsec", "arc_snr")
    )
    grid = np.meshgrid(theta, snr)
    for p in selection.points:
        said = selection(at=p.name, theta_e_arcsec=grid[0], arc_snr=grid[1])
        words = [
            (NAMED[n].words + (f" [{NAMED[n].unit}]" if NAMED[n].unit else "")) for n in ("theta_e_arcsec", "arc_snr")
        ]
        label = f"{selection.what}, {p.name}"
        pictures.append((_map_name(p.name), map_plot((words[0], theta), (words[1], snr), said.completeness, label)))
    return pictures


def _map_name(point: str) -> str:
    return f"map_{point.replace(' ', '_')}.png"


def _sky(cells: pa.Table, selection: Selection) -> bytes:
    value = np.array([np.nan if v is None else v for v in cells["completeness_0"].to_pylist()], float)
    label = f"{selection.what}, {selection.points[0].name}"
    return cells_plot(cells["ra"].to_numpy(), cells["dec"].to_numpy(), value, label)


def _gate_text(judged: Mapping[str, Any]) -> str:
    return (
        "A logistic regression, cross-validated by host, tries to tell two kinds of stamps apart; 0.5 is chance. "
        f"Up to {judged['limit']:g} painted lenses pass for real ones. "
        f"{'Passed' if judged['passed'] else 'Not passed'}: {judged['why']}."
    )


def _gate_table(judged: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    heading = ["pair", "kind", "features", "AUC", "stamps", "hosts"]
    table = [
        [
            t["pair"],
            t["kind"],
            t["features"],
            t.get("why") or with_interval(t["auc"], t["interval95"]),
            " and ".join(map(str, t["n"])),
            " and ".join(map(str, t["n_group"])),
        ]
        for t in judged["tests"]
    ]
    return heading, table


def _fates(counts: Mapping[str, Mapping[str, int]]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    words = list(dict.fromkeys(word for of in counts.values() for word in of if word != "n"))
    return ["kind", "painted", *words], [
        [kind, str(of["n"]), *(str(of.get(word, 0)) for word in words)] for kind, of in counts.items()
    ]


def _pictures_of(
    stamps: Mapping[str, Stamps], injections: pa.Table, selection: Selection, bands: Sequence[str]
) -> Section:
    """Lenses that were recovered and that were missed, of those whose stamps were kept; the brightest arcs first."""
    point = selection.points[0]
    passed = dict(zip(injections["injection_id"].to_pylist(), recovered(injections, point.threshold), strict=True))
    snr = dict(zip(injections["injection_id"].to_pylist(), injections["arc_snr"].to_pylist(), strict=True))
    pictures = []
    for kind, of in stamps.items():
        order = sorted(range(len(of)), key=lambda k: -snr.get(of.name[k], -np.inf))
        for word, wanted in (("recovered", True), ("missed", False)):
            rows = np.array([k for k in order if passed.get(of.name[k]) == wanted][:N_SHOWN], int)
            if len(rows):
                pictures.append((f"{word}_{kind}.png", _sheet(of.take(rows), bands)))
    text = f"At {point.name}, the brightest arcs first; on galaxies of the tiles, then whole lenses on empty sky."
    on = {"host": "galaxies of the tiles", "sky": "empty sky"}
    captions = {f"{word}_{kind}.png": f"{word}, on {on[kind]}" for word in ("recovered", "missed") for kind in on}
    return Section("Painted lenses", text, pictures=pictures, captions=captions)


def _sheet(stamps: Stamps, bands: Sequence[str]) -> bytes:
    channels = colour_bands(tuple(bands))
    shown = stamps.pixels_njy[:, [list(bands).index(band) for band in channels]]
    pictures = colour_stamps(shown)
    big = pictures.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    return png_of(contact_sheet(big, n_column=N_COLUMN))
