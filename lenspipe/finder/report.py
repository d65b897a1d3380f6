"""The page of a finder: hosts and what was refused, stamps, how well it does on each kind, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.bands import colour_bands
from lenspipe.finder.known import KNOWN
from lenspipe.finder.probe import warning_of
from lenspipe.finder.scores import score_stamps
from lenspipe.finder.sheets import host_sheets
from lenspipe.image.contact import colour_stamps, contact_sheet
from lenspipe.report.page import Section, page, rate, with_interval
from lenspipe.report.picture import png_of
from lenspipe.report.plots import roc_plot, score_plot
from lenspipe.rundir import atomic_path
from lenspipe.stamps.format import StampSet
from lenspipe.stats.counts import ScoreCounts

N_COLUMN = 12
ROLES = {
    "early": "early types, which carry arcs",
    "source": "other sources",
    "star": "stars",
    "artefact": "artefacts",
    "sky": "empty sky",
    "none": "without a role",
}
"""Words of the page for the roles of `lenspipe.finder.roles`."""


def write_page(path: Path, record: dict[str, Any], folder: Path) -> None:
    """Write the page of the finder in ``folder``; everything lies inside."""
    rounds = [_round(one, folder) for one in record["rounds"][::-1]]
    sections = [_hosts(record, folder), _stamps(record), _known(record, folder), *rounds]
    intro = [
        f"Trained on {record['survey']} ({record['run']}), bands {' '.join(record['bands'])}. "
        f"Scan with it: lenspipe scan TILES --model {folder.name}",
        "Its scores and rates hold within this survey; a threshold of another survey means nothing here.",
    ]
    intro += [
        f"The survey's {other} stands in for {band}, which the finder that this one began from had learned from."
        for band, other in record.get("stand_ins", {}).items()
    ]
    with atomic_path(path) as temporary:
        temporary.write_text(page(f"Finder {folder.name}", intro, sections), encoding="utf-8")


def said_of_failures(unread: Sequence[str], uncut: Sequence[str] = ()) -> str:
    """How many shards of a run gave nothing, those that were not read and those that were not cut, and the first."""
    told = {"could not be read and gave no stamps": unread, "were searched, but could not be cut into stamps": uncut}
    return ". ".join(
        f"Shards that {what}: {len(failures)}; the first: {failures[0]}" for what, failures in told.items() if failures
    )


def _hosts(record: dict[str, Any], folder: Path) -> Section:
    rows = [[ROLES.get(name, name), str(n)] for name, n in record["sources"].items()]
    splits = [[name, str(n)] for name, n in record["hosts_by_split"].items()]
    refused = [[name, str(n)] for name, n in record["refused"].items()]
    text = (
        f"Early types carry arcs: {record['red_sequence']}, magnitude {record['host_mag'][0]:.1f} to "
        f"{record['host_mag'][1]:.1f}, half-light radius from {record['resolved_from_arcsec'] or 0:.2f} arcsec "
        f"(stars have {record['star_radius_arcsec'] or 0:.2f}). Splits are cells of the sky, HEALPix order "
        f"{record['cells_order']}."
    )
    if record["failures"] or record["uncut"]:
        text += f" {said_of_failures(record['failures'], record['uncut'])}."
    return Section(
        "Hosts and negatives",
        text,
        [(["sources of the run", "n"], rows), (["hosts", "n"], splits), (["refused, cut out", "n"], refused)],
        [(ROLES.get(name, name), sheet) for name, sheet in host_sheets(StampSet.open(folder / "hosts")).items()],
    )


def _stamps(record: dict[str, Any]) -> Section:
    probe = record["border_probe"]
    text = (
        f"{record['stamps']} stamps. A classifier that sees their borders alone tells lenses from all else with an "
        f"area of {with_interval(probe['auc'], probe['interval95'])}; at chance it is 0.5."
    )
    if warning := warning_of(probe):
        text += f" {warning}."
    return Section("Stamps", text)


def _round(record: dict[str, Any], folder: Path) -> Section:
    test = record["test"]
    rows = [_row("everything painted", test["painted"])]
    rows += [_row(kind, found) for kind, found in test["by_kind"].items()]
    if "graded" in test:
        rows.append(_row("graded lenses against graded non-lenses, held out", test["graded"]))
    tables: list[Any] = [(["lenses against", "AUC [95 %]", "stamps", "hosts"], rows)]
    if "recall_at_1_percent_of_real" in test:
        above = test["real_above_what_80_percent_of_arcs_pass"]
        tables.append(
            (
                ["rate on held-out sky", "value"],
                [
                    ["painted arcs recalled where 1 % of real sources pass", rate(test["recall_at_1_percent_of_real"])],
                    [
                        "real sources above what 80 % of painted arcs pass",
                        f"{with_interval(above['value'], above['interval95'])}, "
                        f"{above['hosts_passing']} of {above['hosts']} hosts",
                    ],
                ],
            )
        )
    number = record["round"]
    begun = f", begun from {', '.join(record['begun_from'])}" if record["begun_from"] else ""
    graded = "; ".join(
        f"graded {name}: {found['train']} train, {found['repeats']} times each, {found['held_out']} held out"
        for name, found in record["graded"].items()
    )
    text = ". ".join(filter(None, [f"{' '.join(record['families'])}{begun}", graded, *record["notes"]])) + "."
    return Section(f"Round {number}", text, tables, _pictures(folder, number))


def _known(record: dict[str, Any], folder: Path) -> Section:
    """Known lenses by the finder as it is now, best first, and how many real sources score as high."""
    known = record["known"]
    amiss = "".join(f" Those in the tile {tile} could not: {why}." for tile, why in record["known_failed"].items())
    if not known:
        return Section("Known lenses", f"None of the lists (--match) could be cut from the tiles of the run.{amiss}")
    scores = score_stamps(folder, folder / KNOWN)
    held_out = score_stamps(folder, folder / f"round-{len(record['rounds'])}" / "stamps")
    real = held_out.score[np.isin(held_out.kind, ["real", "early_type"])]
    order = np.argsort(-scores.score, kind="stable")
    rows = [
        [
            known[k]["name"],
            known[k]["list"],
            known[k]["grade"] or "",
            f"{scores.score[k]:.3f}",
            f"{(real >= scores.score[k]).mean():.1%}" if len(real) else "",
        ]
        for k in order
    ]
    heading = ["known lens", "list", "grade", "score", "real sources of the test sky that score as high"]
    text = (
        f"{len(known)} entries of the lists (--match) could be cut from the tiles of the run; the survey gave them "
        "neither as hosts nor as negatives. Where a list is one of contaminants, its entries should score low."
        f"{amiss}"
    )
    sheet = _sheet(StampSet.open(folder / KNOWN), order[: 2 * N_COLUMN])
    return Section("Known lenses", text, [(heading, rows)], [("known lenses, best scores first", sheet)])


def _row(name: str, found: dict[str, Any]) -> list[str]:
    return [
        name,
        with_interval(found["auc"], found["interval95"]),
        f"{found['n_lens']} / {found['n_other']}",
        f"{found['hosts_lens']} / {found['hosts_other']}",
    ]


def _pictures(folder: Path, number: int) -> list[tuple[str, bytes]]:
    """ROC, scores, and the best-scored stamps of each kind: painted arcs, non-lenses, graded candidates."""
    home = folder / f"round-{number}"
    model = home if (home / "committee.json").exists() else home / "member-1"
    scores = score_stamps(model, home / "stamps")
    graded = np.array([str(kind).startswith("graded") for kind in scores.kind])
    counts = {}
    for name, use in (("painted", ~graded), ("graded", graded)):
        lens = scores.label[use] == "lens"
        if lens.any() and not lens.all():
            counts[name] = ScoreCounts.of(scores.score[use], lens)
    pictures = [("ROC", roc_plot(counts)), ("scores", score_plot(counts))] if counts else []
    data = StampSet.open(home / "stamps")
    rows = np.flatnonzero((data.column("split") == "test") & np.array([x is not None for x in data.column("label")]))
    for kind in sorted(set(scores.kind), key=lambda k: (k != "lens", not k.startswith("graded"), k)):
        best = np.flatnonzero(scores.kind == kind)
        best = best[np.argsort(-scores.score[best], kind="stable")][: 2 * N_COLUMN]
        pictures.append((f"{kind}, best scores first", _sheet(data, rows[best])))
    return pictures


def _sheet(data: StampSet, rows: NDArray[np.integer]) -> bytes:
    spec = data.images["image"]
    shown = [spec.bands.index(band) for band in colour_bands(spec.bands)]
    pixels = data.read_images("image", rows)[:, shown]
    pixels = np.concatenate([pixels, np.zeros((-len(rows) % N_COLUMN, *pixels.shape[1:]), np.float32)])
    return png_of(contact_sheet(colour_stamps(pixels), n_column=N_COLUMN))
