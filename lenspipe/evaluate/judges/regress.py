"""Regressions: errors of estimates against the truth, and whether the stated uncertainties hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lenspipe.errors import ConfigError, DataError
from lenspipe.evaluate.judges.contract import Array, JudgeSettings, Metrics, NumbersJudge, Printed, fields, file_stem
from lenspipe.evaluate.stream import Member, Pixels, numbers
from lenspipe.infer.predict import Predictor
from lenspipe.nn.card import ModelCard
from lenspipe.nn.outputs import Prediction, Regress
from lenspipe.report import plots
from lenspipe.report.page import Section, number, with_interval
from lenspipe.stamps.format import StampSet
from lenspipe.stats.regression import ErrorSums

MAX_SHOWN = 2000
"""Estimates of each target that are kept for the picture."""


@dataclass
class Estimates:
    """What is counted about one target of one model."""

    sums: ErrorSums = field(default_factory=ErrorSums)
    shown: list[Array] = field(default_factory=list)
    """Truth, estimate and sigma ``(3, k)`` of the first stamps; sigma is NaN where none is stated."""


class RegressJudge(NumbersJudge[Regress]):
    """Stamps that have no true value of a target are left out of it."""

    def __init__(
        self, members: Sequence[Member[Regress, Predictor]], stamps: StampSet, settings: JudgeSettings
    ) -> None:
        super().__init__(members, stamps, settings)
        self.targets = members[0].outputs.targets
        self.entries = {member.name: {target: Estimates() for target in self.targets} for member in members}
        self._n_seen = 0

    @classmethod
    def needs(cls, card: ModelCard, outputs: Regress) -> tuple[str, ...]:
        """Features and targets."""
        return (*card.features, *outputs.targets)

    def check(self) -> None:
        """Raise `ConfigError` where the models have different targets."""
        super().check()
        if any(member.outputs.targets != self.members[0].outputs.targets for member in self.members):
            raise ConfigError("the models have different targets, or in another order; evaluate them apart")

    def count(self, table: pa.Table, pixels: dict[str, Pixels]) -> Iterator[pa.Table]:
        """Add up errors; rows of truth, estimate and sigma of each target."""
        for member in self.members:
            found = member.predict(table, member.prepared(self.stamps, pixels))
            assert found.value is not None
            rows: dict[str, Any] = {"model": [member.name] * table.num_rows, "stamp_id": table["stamp_id"]}
            for k, target in enumerate(self.targets):
                truth, value, entry = numbers(table, target), found.value[:, k], self.entries[member.name][target]
                sigma = np.full(len(value), np.nan) if found.sigma is None else found.sigma[:, k]
                known = np.isfinite(truth)
                stated = None if found.sigma is None else sigma[known]
                entry.sums = entry.sums + ErrorSums.of(value[known], truth[known], stated)
                if self._n_seen < MAX_SHOWN:
                    entry.shown.append(np.stack([truth, value, sigma])[:, known])
                rows |= {f"{target}_true": _nullable(truth), target: value, f"{target}_sigma": _nullable(sigma)}
            yield pa.table(rows)
        self._n_seen += table.num_rows

    def metrics(self) -> dict[str, Metrics]:
        """Errors by target, those of the first beside them; raises `DataError` where a target is never known."""
        return {name: self._metrics(by_target) for name, by_target in self.entries.items()}

    def _metrics(self, by_target: dict[str, Estimates]) -> Metrics:
        if empty := [target for target, entry in by_target.items() if not entry.sums.n]:
            raise DataError("no stamp of the split has a true value of the target", targets=",".join(empty))
        found = {target: entry.sums.metrics() for target, entry in by_target.items()}
        first = found[self.targets[0]]
        return {"targets": found, **{key: first[key] for key in ("n", "mae", "mse", "rmse")}}

    def sections(self, metrics: Mapping[str, Metrics]) -> list[Section]:
        """A table of targets and a picture per target for each model."""
        columns = ["n", "mae", "mse", "rmse", "bias", "rmse_of_mean_predictor", "mean_rmse_over_rmse", "r2"]
        sections = []
        for name, m in metrics.items():
            rows = []
            for target, found in m["targets"].items():
                cover = found["coverage"] or {}
                held = [with_interval(c["value"], c["interval95"]) for c in cover.values()] or ["-", "-"]
                rows.append([target, *(number(found[c]) for c in columns), *held])
            heading = ["target", *columns, "inside 1 sigma", "inside 2 sigma"]
            pictures = [(f"{file_stem(name)}_{t}.png", _picture(t, e)) for t, e in self.entries[name].items()]
            sections.append(Section(name, tables=[(heading, rows)], pictures=pictures))
        return sections

    def csv_fields(self, metrics: Metrics) -> dict[str, Any]:
        """Errors of the first target."""
        return fields(metrics, ("n", "mae", "mse", "rmse"))

    def printed(self, metrics: Mapping[str, Metrics]) -> Printed:
        """Errors, one row per model and target."""
        heading = ["model", "target", "MAE", "MSE", "RMSE", "RMSE of the mean / RMSE", "inside 1 sigma"]
        rows = []
        for name, m in metrics.items():
            for target, t in m["targets"].items():
                held = (t["coverage"] or {}).get("1sigma")
                inside = with_interval(held["value"], held["interval95"]) if held else "-"
                found = (number(t[k]) for k in ("mae", "mse", "rmse", "mean_rmse_over_rmse"))
                rows.append([name, target, *found, inside])
        return Printed(heading, rows)

    @classmethod
    def shown(cls, outputs: Regress, said: Prediction) -> Array:
        """Values in units of their spread in training."""
        assert said.value is not None
        scaled: Array = said.value / np.array(outputs.target_spreads)
        return scaled


def _picture(target: str, entry: Estimates) -> bytes:
    truth, value, sigma = np.concatenate(entry.shown, axis=1)
    return plots.regression_plot(target, truth, value, None if np.isnan(sigma).all() else sigma)


def _nullable(values: Array) -> pa.Array:
    return pa.array(values, pa.float64(), mask=~np.isfinite(values))
