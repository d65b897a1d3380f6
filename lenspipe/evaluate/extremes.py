"""The stamps that a finder is most wrong about, kept while they stream by: lenses it misses, and false alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lenspipe.bands import colour_bands
from lenspipe.image.contact import colour_stamps, contact_sheet
from lenspipe.report.page import Section
from lenspipe.report.picture import labelled, png_of

KEPT, N_COLUMN = 12, 6
N_FINDER = 4
"""Finders whose pictures a report shows."""
LEAST_PX = 120
"""Side of a stamp in the picture, which is enlarged by a whole number to reach it."""


@dataclass(frozen=True)
class Shown:
    """A stamp and what is said of it."""

    score: float
    stamp_id: str
    kind: str
    stamp: NDArray[np.float32]
    """(channel, y, x)"""


@dataclass
class Extremes:
    """Of one finder."""

    missed: list[Shown] = field(default_factory=list)
    """Lenses with the lowest scores, the lowest first."""
    false_alarms: list[Shown] = field(default_factory=list)
    """Others with the highest scores, the highest first."""

    def add(
        self,
        score: NDArray[np.float64],
        is_lens: NDArray[np.bool_],
        ids: Sequence[str],
        kinds: Sequence[str | None],
        pixels: NDArray[np.floating],
        bands: Sequence[str],
    ) -> None:
        """
        Look at a batch.

        Parameters
        ----------
        score, is_lens : arrays (n,)
        ids, kinds : sequences (n,)
        pixels : array (n, band, y, x)
        bands : sequence of str
            Of the pixels.
        """
        channels = [bands.index(name) for name in colour_bands(bands)]
        for kept, sign, rows in ((self.missed, 1.0, is_lens), (self.false_alarms, -1.0, ~is_lens)):
            worst = kept[-1].score * sign if len(kept) == KEPT else np.inf
            some = np.flatnonzero(rows & (sign * score < worst))
            for i in some[np.argsort(sign * score[some], kind="stable")[:KEPT]]:
                stamp = np.nan_to_num(np.asarray(pixels[i][channels], np.float32))
                kept.append(Shown(float(score[i]), str(ids[i]), str(kinds[i] or ""), stamp))
            kept.sort(key=lambda one: (sign * one.score, one.stamp_id))
            del kept[KEPT:]


def extremes_section(found: Mapping[str, Extremes]) -> Section:
    """Pictures of the first finders' worst mistakes, with score and identifier, and a table of what they are."""
    text = (
        "By each finder the lenses with the lowest scores, then the others with the highest: number and score above, "
        "the end of the identifier below. Colours are the composite of the scan's pictures."
    )
    section = Section("What it misses, and what it takes for a lens", text)
    for k, (name, extremes) in enumerate(list(found.items())[:N_FINDER]):
        for what, shown in (("missed", extremes.missed), ("false alarm", extremes.false_alarms)):
            if shown:
                file = f"{what.replace(' ', '_')}s_{k + 1}.png" if what != "missed" else f"missed_{k + 1}.png"
                section.pictures.append((file, sheet_of(shown)))
                section.captions[file] = f"{name}: {what}{'s' if what != 'missed' else ''}"
            rows = [[name, f"{what} {n}", one.stamp_id, one.kind, f"{one.score:.4g}"] for n, one in enumerate(shown, 1)]
            if rows:
                section.tables.append((["finder", "", "stamp", "kind", "score"], rows))
    return section


def sheet_of(shown: Sequence[Shown]) -> bytes:
    """PNG of stamps side by side, in the order given, each with its number, score and identifier."""
    side = min(one.stamp.shape[-1] for one in shown)
    colour = colour_stamps(np.stack([_middle(one.stamp, side) for one in shown]))
    times = -(-LEAST_PX // colour.shape[1])
    large = colour.repeat(times, axis=1).repeat(times, axis=2)
    named = [
        labelled(stamp, f"{n}  {one.score:.3f}", one.stamp_id)
        for n, (stamp, one) in enumerate(zip(large, shown, strict=True), 1)
    ]
    return png_of(contact_sheet(np.stack(named), n_column=min(N_COLUMN, len(named))))


def _middle(stamp: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The middle ``side`` pixels: data sets that are read as one may have stamps of several sizes."""
    begun = (stamp.shape[-1] - side) // 2
    return stamp[:, begun : begun + side, begun : begun + side]
