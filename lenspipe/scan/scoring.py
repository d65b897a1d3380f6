"""Score the candidates of shards, in fixed batches of the model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.nn.outputs import Calibration
from lenspipe.scan import attempts
from lenspipe.scan.context import ChosenModel, ScanContext
from lenspipe.scan.rows import CUTOUT_RMS, WIRE, set_columns, set_scores, unpack_cutouts
from lenspipe.scan.substructure import ExamineSubstructure
from lenspipe.schema import part_schema
from lenspipe.stats.calibrate import probability

if TYPE_CHECKING:
    from lenspipe.infer.denoise import Denoiser
    from lenspipe.infer.score import Scorer

PREPARED = 512
"""Stamps that are prepared and scored at a time; whole batches on CPU and GPU."""


class ScoreShards:
    """
    Rows with cutouts in, ledger rows with scores out; the model is loaded once, at the first call.

    A score does not depend on what it was scored with: the scorer's batches have a fixed size and treat each stamp on
    its own.
    """

    def __init__(self, settings: ScanContext) -> None:
        self.settings = settings
        self._scorer: Scorer | None = None
        self._denoiser: Denoiser | None = None
        self._substructure = ExamineSubstructure(settings) if settings.substructure else None

    def __call__(self, table: pa.Table) -> pa.Table:
        """Score a table of `wire_schema` rows; returns `part_schema` rows in the same order."""
        folder = self.settings.attempts
        waiting = [i for i in range(table.num_rows) if table["cutout_shape"][i].is_valid]
        ids = [table["shard_id"][i].as_py() for i in range(table.num_rows)]
        died = {i: attempts.deaths(folder, "score", ids[i]) for i in waiting}
        suspects = [i for i in waiting if died[i]]
        done: dict[int, pa.Table] = {}
        # After a death the shards of the call are tried one at a time, so that only the guilty one dies again.
        for group in [[i for i in waiting if not died[i]], *([i] for i in suspects)]:
            if not group:
                continue
            if died[group[0]] >= attempts.MAX_DEATHS:
                done[group[0]] = self._give_up(table.slice(group[0], 1), died[group[0]])
                continue
            for i in group:
                attempts.begin(folder, "score", ids[i])
            scored = self._score(table.take(group))
            for row, i in enumerate(group):
                done[i] = scored.slice(row, 1)
                attempts.clear(folder, "score", ids[i])
        rows = [
            done.get(i, table.slice(i, 1)).select(part_schema(self.settings.bands).names) for i in range(table.num_rows)
        ]
        return pa.concat_tables(rows).cast(part_schema(self.settings.bands))

    def _score(self, table: pa.Table) -> pa.Table:
        started = time.perf_counter()
        scorer = self._load()
        scores: list[NDArray[np.float64] | None] = []
        for row in range(table.num_rows):
            cutouts = unpack_cutouts(table, row)
            assert cutouts is not None
            # a part at a time: the prepared stamps of a crowded shard take as much room as its pixels
            parts = (cutouts[start : start + PREPARED] for start in range(0, max(1, len(cutouts)), PREPARED))
            scores.append(
                np.concatenate([scorer.score_prepared(self._seen(scorer, part, table, row)) for part in parts])
            )
        calibration, prior = calibration_of(self.settings), self.settings.config.score.prior
        stated = None if calibration is None else [probability(s, calibration, prior) for s in scores if s is not None]
        elapsed = (time.perf_counter() - started) / table.num_rows
        index = table.schema.get_field_index("score_s")
        table = table.set_column(index, table.schema.field(index), pa.array([elapsed] * table.num_rows, pa.float32()))
        table = set_scores(table, scores, None if stated is None else list(stated))
        return table if self._substructure is None else self._examined(self._substructure, table, scores, stated)

    def _examined(
        self,
        examine: ExamineSubstructure,
        table: pa.Table,
        scores: list[NDArray[np.float64] | None],
        stated: list[NDArray[np.float64]] | None,
    ) -> pa.Table:
        found = []
        for row, score in enumerate(scores):
            assert score is not None
            wide = unpack_cutouts(table, row, wide=True)
            probable = np.ones(len(score)) if stated is None else stated[row]
            found.append(examine(wide, table["pixel_scale_arcsec"][row].as_py(), probable, len(score)))
        return set_columns(table, {name: pa.concat_arrays([columns[name] for columns in found]) for name in found[0]})

    def _seen(self, scorer: Scorer, cutouts: NDArray[np.float32], table: pa.Table, row: int) -> NDArray[np.float32]:
        """What the model is shown of some cutouts of a shard."""
        scale = table["pixel_scale_arcsec"][row].as_py()
        if self.settings.denoiser is None:
            return scorer.prepare(cutouts, pixel_scale_arcsec=scale)
        denoised = self._denoised(cutouts, scorer.card.bands, table[CUTOUT_RMS.name][row].as_py())
        seen = (cutouts, denoised) if scorer.card.sees == "both" else (denoised,)
        return np.concatenate([scorer.prepare(c, pixel_scale_arcsec=scale) for c in seen], axis=1)

    def _give_up(self, row: pa.Table, died: int) -> pa.Table:
        """A failed row in place of a shard that kills the scorer."""
        message = f"{died} worker processes died while scoring this shard; see the Ray logs"
        fixed = {
            "status": "failed",
            "stage": "score",
            "error_type": "WorkerDied",
            "message": message,
            "n_source": 0,
            "n_candidate": 0,
            "area_deg2": 0.0,
        }
        for name, value in fixed.items():
            index = row.schema.get_field_index(name)
            row = row.set_column(index, row.schema.field(index), pa.array([value], row.schema.field(index).type))
        index = row.schema.get_field_index("candidates")
        return row.set_column(index, row.schema.field(index), pa.array([[]], row.schema.field(index).type))

    def _denoised(
        self, cutouts: NDArray[np.float32], bands: tuple[str, ...], rms_njy: list[float]
    ) -> NDArray[np.float32]:
        """
        Cutouts through the run's denoiser; bands that it does not take stay as they are.

        A pixel of exactly 0 is one that is masked or beyond the image (`lenspipe.image.cutouts`), and stays 0.
        """
        chosen = self.settings.denoiser
        assert chosen is not None
        if self._denoiser is None:
            from lenspipe.infer.denoise import Denoiser

            self._denoiser = Denoiser(chosen.folder, device=self.settings.config.score.device)
        rows = [bands.index(band) for band in chosen.card.bands]
        some = cutouts[:, rows]
        out = cutouts.copy()
        out[:, rows] = self._denoiser.denoise(
            some, np.array(rms_njy)[rows, None, None], ratio=self.settings.config.score.denoise_ratio, mask=some == 0
        )
        return out

    def _load(self) -> Scorer:
        if self._scorer is None:
            from lenspipe.infer.score import Scorer

            model, config = self.settings.model, self.settings.config.score
            assert model is not None
            self._scorer = Scorer(model.folder, device=config.device, batch_size=config.batch_size)
        return self._scorer


def calibration_of(settings: ScanContext) -> Calibration | None:
    """The calibration that applies to a run's scores."""
    return calibration_for(settings.model, settings.denoiser)


def calibration_for(model: ChosenModel | None, denoiser: ChosenModel | None) -> Calibration | None:
    """The model's calibration; one that was fitted on raw stamps says nothing about denoised ones."""
    if model is None or (denoiser is not None and model.card.sees == "raw"):
        return None
    return model.card.calibration


def without_cutouts(table: pa.Table, bands: tuple[str, ...]) -> pa.Table:
    """Ledger rows of shards that no model scores."""
    return table.drop_columns([field.name for field in WIRE]).cast(part_schema(bands))
