"""A candidate explained: its shard scanned and scored again, compared with what is stored, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.bands import colour_bands
from lenspipe.catalog.gallery.stamps import cut_stamps
from lenspipe.catalog.run_rows import Run
from lenspipe.catalog.vectors import EMBEDDINGS, vectors_of
from lenspipe.errors import ConfigError, DataError, LenspipeError, TileError
from lenspipe.infer.engine import engine_said
from lenspipe.rundir import versions
from lenspipe.scan import models
from lenspipe.scan.after.context import context_of
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.models import in_order
from lenspipe.scan.plan import tasks_of
from lenspipe.scan.readers.contract import Asked, Reader, giving
from lenspipe.scan.scoring import ScoreShards
from lenspipe.scan.shard import scan_shard
from lenspipe.schema import EMBEDDING, measured_fields
from lenspipe.survey.files import checksum
from lenspipe.tables import read_parquet

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
    engine: str | None
    """What ran the model that scored it, and its version; None where nothing scored."""

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
    table = read_parquet(run.folder / "candidates.parquet", filters=[("candidate_id", "=", candidate_id)])
    if not table.num_rows:
        raise ConfigError("the run has no such candidate", candidate_id=candidate_id, run=str(run.folder))
    stored = table.to_pylist()[0]
    if (vectors := run.folder / EMBEDDINGS).exists():
        stored[EMBEDDING] = vectors_of(vectors, [candidate_id])[0].as_py()
    plan = run.plan.filter(pc.equal(run.plan["shard_id"], stored["shard_id"]))
    if not plan.num_rows:
        raise DataError("the candidate's shard is not in the run's plan", shard=str(stored["shard_id"]))
    task = tasks_of(plan)[0]
    changed = [*_changed_versions(run), *_changed_files(run, task)]
    context = context_of(run)
    with tempfile.TemporaryDirectory() as scratch:
        readers = _readers(run, context, changed)
        context = dataclasses.replace(context, attempts=Path(scratch), models=readers)
        row = scan_shard(task, context)
        if row["status"][0].as_py() != "ok":
            raise TileError("the shard cannot be scanned any more", why=row["message"][0].as_py(), tile=stored["tile"])
        scored = ScoreShards(context)(row)
    again = next((c for c in scored["candidates"][0].as_py() if c["candidate_id"] == candidate_id), None)
    finder = context.finder
    if again is not None and finder is not None and context.config.score.prior is None:
        again = {**again, "probability": _probability(run, finder, again["score"])}
    fields = measured_fields(run.bands, context.added)
    differs = tuple(f.name for f in fields if again and not _same_bits(stored.get(f.name), again[f.name], f.type))
    stamp, noise, channels = _stamp(stored, task, context)
    engine = engine_said(run.record["model"], run.record["versions"]) if stored["score"] is not None else None
    return Explanation(stored, again, differs, tuple(changed), stamp, noise, channels, engine)


def _readers(run: Run, context: ScanContext, changed: list[str]) -> tuple[Reader, ...]:
    """The run's readers, as far as they are still here; what is not as it was is added to ``changed``."""
    score, recorded = context.config.score, run.record["model"]
    if score.model == "auto":  # whatever ships by now
        score = score.model_copy(update={"model": recorded["name"] if recorded else "none"})
    asked = Asked(context.config.model_copy(update={"score": score}), run.bands, context.layout)
    for choose in models.CHOOSERS:
        try:
            found = choose(asked)
        except LenspipeError as error:
            changed.append(f"a model is not here: {error.message}")
            continue
        if isinstance(found, Reader):
            asked = dataclasses.replace(asked, chosen=(*asked.chosen, found))
    readers = asked.chosen
    while lacking := [r for r in readers if any(giving(readers, name) is None for name in r.takes)]:
        readers = tuple(r for r in readers if r not in lacking)
    for reader in readers:
        for key, now in reader.record().items():
            for (name, was), (_, digest) in zip(_models_in(run.record.get(key)), _models_in(now), strict=False):
                if was != digest:
                    changed.append(f"model {name}: was {was}, is {digest}")
    now = next((reader.record()["model"] for reader in readers if "score" in reader.gives), None)
    if recorded and now and recorded.get("engine") != now.get("engine"):
        was, is_now = (engine_said(model, {}) for model in (recorded, now))
        changed.append(f"engine: was {was}, is {is_now}")
    return in_order(readers)


def _probability(run: Run, finder: Reader, score: float | None) -> float | None:
    """Probability at the prior that the run settled on when its candidates were counted."""
    prior = (run.record.get("probability") or {}).get("prior")
    if prior is None or score is None:
        return None
    found = finder.probabilities(np.array([score]), prior)
    return None if found is None else float(found[0])


def _models_in(record: Any) -> Iterator[tuple[str, str]]:
    """Name and digest of all models that a part of a run's record names, in order."""
    if isinstance(record, list):
        for item in record:
            yield from _models_in(item)
    elif isinstance(record, dict) and {"name", "digest"} <= record.keys():
        yield record["name"], record["digest"]
        yield from _models_in(record.get("members"))


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


def _same_bits(one: Any, two: Any, kind: pa.DataType) -> bool:
    if not (isinstance(one, float) and isinstance(two, float)):
        return bool(one == two)
    code = "<f" if kind == pa.float32() else "<d"
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

    from lenspipe.image.contact import colour_stamps
    from lenspipe.report.picture import write_png

    stamp, noise = explanation.stamp, explanation.noise
    if stamp is None or noise is None:
        raise ConfigError("the candidate has no pixels to draw", candidate_id=explanation.stored["candidate_id"])
    figure = Figure(figsize=(3.2 * (1 + len(stamp)), 3.7), layout="constrained")
    axes = figure.subplots(1, 1 + len(stamp), squeeze=False)[0]
    half = STAMP_ARCSEC / 2
    where = {"origin": "lower", "extent": (-half, half, -half, half)}
    axes[0].imshow(colour_stamps(stamp[None], noise=noise)[0], **where)
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
        "engine": explanation.engine,
        "stored": explanation.stored,
        "again": explanation.again,
        "differs": explanation.differs,
        "changed": explanation.changed,
    }
    return json.dumps(facts, indent=2)
