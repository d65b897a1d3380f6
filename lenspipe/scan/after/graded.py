"""Graded candidates as labelled stamps: what training and calibration read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.catalog.run_rows import Run
from lenspipe.errors import ConfigError, DataError
from lenspipe.image.cutouts import extract_cutouts
from lenspipe.infer.prepare import cutout_size_px
from lenspipe.nn.card import ModelCard
from lenspipe.scan.after.context import context_of
from lenspipe.scan.context import ShardTask
from lenspipe.scan.plan import tasks_of
from lenspipe.scan.read import facts_of, flatten, read_shard
from lenspipe.stamps.convert import Converted, convert
from lenspipe.stamps.readers.stream import LabelledStamp, stream_stamps
from lenspipe.stamps.spec import ImageSpec
from lenspipe.stamps.splits import DEFAULT_FRACTIONS

LABELS = {1: "lens", 0: "nonlens"}
STAMP_PX = 65
"""Side of the stamps of a run that no model scored."""
SAME_SCALE = 1e-3
"""Part by which the pixel scales of tiles may differ in one data set."""
MARGIN_ARCSEC = 5.0
EXTRA = [
    pa.field(name, kind, metadata={"description": text, **({"unit": unit} if unit else {})})
    for name, kind, unit, text in (
        ("run_id", pa.string(), "", "run of the candidate"),
        ("candidate_id", pa.string(), "", "candidate that was graded"),
        ("ra_deg", pa.float64(), "deg", "right ascension, ICRS"),
        ("dec_deg", pa.float64(), "deg", "declination, ICRS"),
        ("mean_grade", pa.float64(), "", "mean of A 3, B 2, C 1, N 0"),
        ("n_grader", pa.int32(), "", "graders"),
        ("score", pa.float64(), "", "raw score that the run gave; null where it gave none"),
    )
]


def graded_stamps(run: Run, labels: pa.Table, out: Path, *, seed: int) -> Converted:
    """
    Cut the labelled candidates of a run as the scan did, and write them as a data set of stamps.

    Bands and side are those that the run's model takes, so that it scores a stamp as it scored the candidate; of a
    committee all that a member takes; without a model all bands of the run and 65 pixels. Candidates without a label
    are left out. Splits follow from the position (`lenspipe.stamps.splits`): a field of less than a degree lies in one.

    Parameters
    ----------
    run : Run
    labels : pa.Table
        From `lenspipe.catalog.grades.labels_for`.
    out : Path
        Folder of the data set; appears when it is complete.
    seed : int
        Seed of the splits.

    Returns
    -------
    Converted
        Stamps written, and those whose tile cannot be used.

    Raises
    ------
    ConfigError
        No candidate has a label, or ``out`` holds something.
    DataError
        Not one stamp could be cut.
    """
    rows = labels.filter(pc.is_valid(labels["label"])).sort_by(
        [("shard_id", "ascending"), ("candidate_id", "ascending")]
    )
    if not rows.num_rows:
        raise ConfigError(
            "no graded candidate has a label, so there are no stamps to cut; see --lens-from and --nonlens-to"
        )
    scales = run.shards.filter(pc.is_in(run.shards["shard_id"], pc.unique(rows["shard_id"])))["pixel_scale_arcsec"]
    scale_arcsec = float(np.median(scales.to_numpy()))
    spec = _spec(run, scale_arcsec)
    by_id = {row["candidate_id"]: row for row in rows.to_pylist()}
    cut = _Cutter(run, spec)
    stream = stream_stamps("graded", {"image": spec}, EXTRA, list(by_id), lambda i: cut(by_id[i]), n=len(by_id))
    return convert(stream, out, seed=seed, fractions=DEFAULT_FRACTIONS, margin_arcsec=MARGIN_ARCSEC)


def _spec(run: Run, scale_arcsec: float) -> ImageSpec:
    recorded = run.record["model"]
    if recorded is None:
        return ImageSpec(run.bands, STAMP_PX, scale_arcsec)
    cards = [ModelCard.model_validate(member["card"]) for member in recorded.get("members", [recorded])]
    bands = tuple(dict.fromkeys(band for card in cards for band in card.bands))
    return ImageSpec(bands, max(cutout_size_px(card, scale_arcsec) for card in cards), scale_arcsec)


class _Cutter:
    """Cuts candidates, sorted by shard; holds the pixels of one shard."""

    def __init__(self, run: Run, spec: ImageSpec) -> None:
        self.run_id, self.spec = run.run_id, spec
        self.context = context_of(run)
        self.tasks = {task.shard.shard_id: task for task in tasks_of(run.plan)}
        self._shard_id = ""
        self._pixels: tuple[NDArray[np.float32], NDArray[np.bool_]] | None = None

    def __call__(self, row: dict[str, Any]) -> LabelledStamp:
        """Cut one candidate; masked pixels are NaN."""
        task = self.tasks[row["shard_id"]]
        if row["shard_id"] != self._shard_id or self._pixels is None:
            self._shard_id, self._pixels = row["shard_id"], None
            self._pixels = self._read(task)
        window = task.shard.window
        x_px, y_px = np.array([row["x_px"] - window.x0]), np.array([row["y_px"] - window.y0])
        stamps, _ = extract_cutouts(*self._pixels, x_px, y_px, size_px=self.spec.size_px, fill=np.nan)
        name = f"{self.run_id}/{row['candidate_id']}"
        values = {
            "run_id": self.run_id,
            "ra_deg": row["ra"],
            "dec_deg": row["dec"],
            **{key: row[key] for key in ("candidate_id", "mean_grade", "n_grader", "score")},
        }
        return LabelledStamp(name, {"image": stamps[0]}, LABELS[row["label"]], name, values)

    def _read(self, task: ShardTask) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        facts = facts_of(task.tile, self.context)
        if abs(facts.pixel_scale_arcsec / self.spec.pixel_scale_arcsec - 1) > SAME_SCALE:
            raise DataError(
                "the tile has another pixel scale than most; its stamps need a data set of their own",
                tile=task.tile.name,
                got_arcsec=facts.pixel_scale_arcsec,
                want_arcsec=self.spec.pixel_scale_arcsec,
            )
        read = read_shard(task, self.context, facts=facts)
        bands = read.pixels.bands
        if missing := [band for band in self.spec.bands if band not in bands]:
            raise DataError("the tile lacks a band of the stamps", tile=task.tile.name, missing=" ".join(missing))
        flat = flatten(read, self.context)
        rows = [bands.index(band) for band in self.spec.bands]
        return flat.image[rows], flat.mask[rows]
