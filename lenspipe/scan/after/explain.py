"""A candidate explained: its shard scanned and scored again, compared with what is stored, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lenspipe.bands import colour_bands
from lenspipe.catalog.gallery.stamps import cut_stamps
from lenspipe.catalog.run_rows import Run
from lenspipe.errors import ConfigError, LenspipeError, TileError
from lenspipe.rundir import versions
from lenspipe.scan.after.context import context_of
from lenspipe.scan.chosen import substructure_of
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ChosenModel, ScanContext, ShardTask, choose_denoiser, choose_model
from lenspipe.scan.plan import tasks_of
from lenspipe.scan.scoring import ScoreShards, without_cutouts
from lenspipe.scan.shard import scan_shard
from lenspipe.schema import measured_fields
from lenspipe.survey.files import checksum
from lenspipe.survey.layout import SurveyLayout

STAMP_PX, STAMP_ARCSEC = 96, 12.0


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """What a second look at a candidate shows."""

    stored: dict[str, Any]
    again: dict[str, Any] | None
    """Its row now; None where the shard does not show it any more."""
    differs: tuple[str, ...]
    """Columns whose bits differ."""
    changed: tuple[str, ...]
    """What is not as it was when the run was made: files, model, versions."""
    stamp: NDArray[np.float32] | None
    """(channel, y, x), nJy / arcsec^2."""
    noise: NDArray[np.float64] | None
    channels: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether every measured value and the score came back bit for bit."""
        return self.again is not None and not self.differs


def explain(run: Run, candidate_id: str) -> Explanation:
    """
    Scan the shard of a candidate again by the run's own settings and compare.

    Raises
    ------
    ConfigError
        The run has no such candidate.
    TileError
        The tile cannot be opened any more.
    """
    table = pq.read_table(run.folder / "candidates.parquet", filters=[("candidate_id", "=", candidate_id)])
    if not table.num_rows:
        raise ConfigError("the run has no such candidate", candidate_id=candidate_id, run=str(run.folder))
    stored = table.to_pylist()[0]
    plan = run.plan.filter(pc.equal(run.plan["shard_id"], stored["shard_id"]))
    task = tasks_of(plan)[0]
    changed = [*_changed_versions(run), *_changed_files(run, task)]
    context = context_of(run)
    config, layout = context.config, context.layout
    model = _model(run, config, changed)
    with tempfile.TemporaryDirectory() as scratch:
        denoiser = _denoiser(run, config, model, changed)
        wide = _substructure(run, config, layout, model, denoiser, changed)
        settings = ScanContext(config, layout, run.bands, model, Path(scratch), denoiser, wide)
        row = scan_shard(task, settings)
        if row["status"][0].as_py() != "ok":
            raise TileError("the shard cannot be scanned any more", why=row["message"][0].as_py(), tile=stored["tile"])
        scored = ScoreShards(settings)(row) if model else without_cutouts(row, run.bands)
    again = next((c for c in scored["candidates"][0].as_py() if c["candidate_id"] == candidate_id), None)
    names = [f.name for f in measured_fields(run.bands)]
    differs = tuple(n for n in names if again and not _same_bits(stored[n], again[n], measured_fields(run.bands), n))
    stamp, noise, channels = _stamp(stored, task, context)
    return Explanation(stored, again, differs, tuple(changed), stamp, noise, channels)


def _model(run: Run, config: ScanConfig, changed: list[str]) -> ChosenModel | None:
    recorded = run.record["model"]
    if recorded is None:
        return None
    name = recorded["name"] if config.score.model == "auto" else config.score.model
    try:
        model, _ = choose_model(name, run.bands, denoised=config.score.denoiser != "none")
    except LenspipeError as error:
        changed.append(f"model {recorded['name']} is not here: {error.message}")
        return None
    if model is not None and model.digest != recorded["digest"]:
        changed.append(f"model {recorded['name']}: was {recorded['digest']}, is {model.digest}")
    return model


def _denoiser(run: Run, config: ScanConfig, model: ChosenModel | None, changed: list[str]) -> ChosenModel | None:
    recorded = run.record.get("denoiser")
    if recorded is None or model is None:
        return None
    try:
        denoiser = choose_denoiser(config.score.denoiser, config.score.denoise_ratio, model)
    except LenspipeError as error:
        changed.append(f"denoiser {recorded['name']} is not here: {error.message}")
        return None
    if denoiser is not None and denoiser.digest != recorded["digest"]:
        changed.append(f"denoiser {recorded['name']}: was {recorded['digest']}, is {denoiser.digest}")
    return denoiser


def _substructure(
    run: Run,
    config: ScanConfig,
    layout: SurveyLayout,
    model: ChosenModel | None,
    denoiser: ChosenModel | None,
    changed: list[str],
) -> tuple[ChosenModel, ...]:
    recorded = run.record.get("substructure") or []
    try:
        chosen = substructure_of(config, run.bands, layout, model, denoiser) if recorded else ()
    except LenspipeError as error:
        changed.append(f"a model of substructure is not here: {error.message}")
        return ()
    for was, now in zip(recorded, chosen, strict=True):
        if was["digest"] != now.digest:
            changed.append(f"model of substructure {was['name']}: was {was['digest']}, is {now.digest}")
    return chosen


def _changed_versions(run: Run) -> list[str]:
    was, now = run.record["versions"], versions()
    return [f"{k}: was {was.get(k)}, is {now.get(k)}" for k in sorted({*was, *now}) if was.get(k) != now.get(k)]


def _changed_files(run: Run, task: ShardTask) -> list[str]:
    was = {item["file"]: item["checksum"] for item in run.record.get("inputs", [])}
    planes = [p for band in task.tile.bands for p in (band.image, band.weight, band.mask) if p]
    changed = []
    for file in sorted({p.file for p in planes}):
        if file not in was:
            changed.append(f"{file}: the run did not record its checksum (the tile's first shard failed)")
        elif checksum(file) != was[file]:
            changed.append(f"{file}: its content changed")
    return changed


def _same_bits(one: Any, two: Any, fields: list[pa.Field], name: str) -> bool:
    if not (isinstance(one, float) and isinstance(two, float)):
        return bool(one == two)
    code = "<f" if next(f for f in fields if f.name == name).type == pa.float32() else "<d"
    return struct.pack(code, one) == struct.pack(code, two)


def _stamp(
    stored: dict[str, Any], task: ShardTask, context: ScanContext
) -> tuple[NDArray[np.float32] | None, NDArray[np.float64] | None, tuple[str, ...]]:
    config, window, channels = context.config, task.shard.window, colour_bands(context.bands)
    row = {f"window_{edge}_px": [getattr(window, edge)] for edge in ("x0", "y0", "x1", "y1")}
    rows = pa.table({**row, "row": [0], "x_px": [stored["x_px"]], "y_px": [stored["y_px"]]})
    stamps = next(
        cut_stamps(
            rows,
            task.tile,
            context.layout,
            channels=channels,
            zero_point_ab=config.zero_point_ab,
            stamp_px=STAMP_PX,
            stamp_arcsec=STAMP_ARCSEC,
            mesh_px=config.background.mesh_px,
            filter_mesh=config.background.filter_mesh,
        )
    )
    found = None if stamps.surface_brightness is None else stamps.surface_brightness[0]
    return found, stamps.noise, channels


def draw(explanation: Explanation, path: Path) -> None:
    """Write the candidate's picture: the composite, and each channel in grey, with a bar of one arcsec."""
    from matplotlib.figure import Figure

    from lenspipe.catalog.gallery.write import GAINS
    from lenspipe.image.stretch import humvi_composite
    from lenspipe.report.picture import write_png

    stamp, noise = explanation.stamp, explanation.noise
    if stamp is None or noise is None:
        raise ConfigError("the candidate has no pixels to draw", candidate_id=explanation.stored["candidate_id"])
    scales = np.array(GAINS[len(stamp)]) / noise[len(noise) // 2]
    colour = humvi_composite(stamp, band_scales=scales, alpha=0.05, q=4.0).transpose(1, 2, 0)
    figure = Figure(figsize=(3.2 * (1 + len(stamp)), 3.7), layout="constrained")
    axes = figure.subplots(1, 1 + len(stamp), squeeze=False)[0]
    half = STAMP_ARCSEC / 2
    where = {"origin": "lower", "extent": (-half, half, -half, half)}
    axes[0].imshow(colour if len(stamp) == 3 else colour[..., 0], cmap="gray", vmin=0, vmax=1, **where)
    axes[0].set_title("R G B = " + " ".join(explanation.channels) if len(stamp) == 3 else explanation.channels[0])
    for axis, image, sigma, band in zip(axes[1:], stamp, noise, explanation.channels, strict=True):
        axis.imshow(np.arcsinh(image / (2 * sigma)), cmap="gray_r", vmin=-1, vmax=4, **where)
        axis.set_title(f"{band}, asinh")
    for axis in axes:
        axis.set_xlabel("arcsec along x")
    score = explanation.stored["score"]
    said = "the same again, bit for bit" if explanation.same else "NOT the same again"
    figure.suptitle(
        f"{explanation.stored['candidate_id']}   score {'none' if score is None else f'{score:.6f}'}, {said}"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, figure)


def to_json(explanation: Explanation) -> str:
    """The explanation without its pixels."""
    facts = {
        "candidate_id": explanation.stored["candidate_id"],
        "same": explanation.same,
        "stored": explanation.stored,
        "again": explanation.again,
        "differs": explanation.differs,
        "changed": explanation.changed,
    }
    return json.dumps(facts, indent=2)
