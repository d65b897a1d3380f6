"""A shard from pixels to row, as a plain function: what both runners call."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import StoreError, TileError
from lenspipe.image.photometry import ab_magnitude, ab_magnitude_error
from lenspipe.image.sky import Flat
from lenspipe.scan import attempts
from lenspipe.scan.context import ScanContext, ShardTask
from lenspipe.scan.measure import Measured
from lenspipe.scan.provenance import input_columns
from lenspipe.scan.read import read_shard
from lenspipe.scan.rows import failed_row, identity, inputs_json, nested, one_row, pack_cutouts, pack_note, wire_schema
from lenspipe.scan.search import search
from lenspipe.scan.stars import star_columns
from lenspipe.schema import measured_fields, nothing
from lenspipe.sky.wcs import sky_position
from lenspipe.survey.files import checksum, size_bytes
from lenspipe.survey.read import TileFacts
from lenspipe.survey.tile import Tile


def scan_shard(task: ShardTask, context: ScanContext) -> pa.Table:
    """
    Read, detect, measure, select and cut out one shard.

    Returns
    -------
    pa.Table
        One row of `wire_schema`: status ``ok`` with its candidates and, where a model applies, their cutouts;
        or status ``failed``, when the tile cannot be used or two workers died of the shard.

    Raises
    ------
    RuntimeError
        A bug; it names the shard and stops the run.
    StoreError
        The tile's store does not answer; stops the run.
    """
    shard_id = task.shard.shard_id
    died = attempts.deaths(context.attempts, "read", shard_id)
    if died >= attempts.MAX_DEATHS:
        return failed_row(
            task, context, "read", f"{died} worker processes died on this shard; see the Ray logs", kind="WorkerDied"
        )
    attempts.begin(context.attempts, "read", shard_id)
    try:
        row = _scan(task, context)
    except TileError as error:
        row = failed_row(task, context, str(error.facts.pop("stage", "detect")), error)
    except StoreError:  # says nothing about the shard
        attempts.clear(context.attempts, "read", shard_id)
        raise
    except Exception as error:
        raise RuntimeError(f"a bug stopped the scan at shard {shard_id} of {task.tile.file}") from error
    attempts.clear(context.attempts, "read", shard_id)
    return row


def _scan(task: ShardTask, context: ScanContext) -> pa.Table:
    started = time.perf_counter()
    try:
        read = read_shard(task, context)
        inputs = _inputs(task.tile) if task.shard.first_of_tile else None
    except TileError as error:
        error.facts["stage"] = "read"
        raise
    read_s = time.perf_counter() - started
    if context.change is not None:
        read = context.change(read)
    facts, bands = read.facts, read.pixels.bands
    found, note = search(read, context), None
    if read.watch is not None:
        found, note = read.watch(found)
    finder = next((context.models[k] for k in found.asked if context.models[k] is context.finder), None)
    # of several kinds of cutouts the worst covered
    keys = finder.cutouts(facts.pixel_scale_arcsec) if finder else ()
    covered = np.min([found.covered[key] for key in keys], axis=0) if keys else None
    values = {
        **identity(task),
        **_searched(task, facts, found.flat, bands),
        **input_columns(facts, bands, read.pixels.n_sentinel),
        **star_columns(found.stars, bands, context.layout.psf_fwhm_arcsec, facts.pixel_scale_arcsec),
        "n_star_cut": found.n_star_cut,
        "n_galaxy_cut": found.n_galaxy_cut if np.isfinite(found.n_galaxy_cut) else None,
        **pack_cutouts(found.cutouts),
        "asked": list(found.asked) or None,
        "model": finder.digest if finder else None,
        "status": "ok",
        "n_source": len(found.sources.sources),
        "n_candidate": len(found.candidates.sources),
        "inputs": inputs,
        "noted": None if note is None else pack_note(note),
        "candidates": nested(_candidates(task, facts, found.candidates, bands, context, covered)),
        "read_s": read_s,
        "detect_s": time.perf_counter() - started - read_s,
    }
    return one_row(values, wire_schema(context))


def _candidates(
    task: ShardTask,
    facts: TileFacts,
    chosen: Measured,
    tile_bands: tuple[str, ...],
    context: ScanContext,
    covered: NDArray[np.float32] | None,
) -> pa.Table:
    n = len(chosen.sources)
    x_px, y_px = chosen.sources.x_px + task.shard.window.x0, chosen.sources.y_px + task.shard.window.y0
    ra_deg, dec_deg = sky_position(facts.wcs, x_px, y_px)
    columns: dict[str, object] = {
        "candidate_id": [f"{task.shard.shard_id}_n{i}" for i in chosen.index],
        "ra": ra_deg,
        "dec": dec_deg,
        "x_px": x_px,
        "y_px": y_px,
        "half_light_radius_arcsec": chosen.apertures.half_light_radius_px * facts.pixel_scale_arcsec,
        "axis_ratio": chosen.sources.b_px / chosen.sources.a_px,
        "angle_deg": np.degrees(chosen.sources.theta_rad),
        "flags": chosen.flags,
        "mask_fraction": chosen.apertures.mask_fraction,
    }
    if covered is not None:
        columns["covered_fraction"] = covered
    for b, band in enumerate(tile_bands):
        flux, error = chosen.flux_njy[b], chosen.flux_err_njy[b]
        columns[f"flux_{band}_njy"], columns[f"flux_err_{band}_njy"] = flux, error
        columns[f"mag_{band}"], columns[f"mag_err_{band}"] = ab_magnitude(flux), ab_magnitude_error(flux, error)
    schema = pa.schema(measured_fields(context.bands, context.added))
    arrays = [_array(columns[f.name], f.type) if f.name in columns else nothing(f, n) for f in schema]
    return pa.table(arrays, schema=schema)


def _array(values: object, kind: pa.DataType) -> pa.Array:
    """Arrow array in which NaN, a value that could not be measured, is null."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return pa.array(values, mask=~np.isfinite(values)).cast(kind, safe=False)
    return pa.array(values, kind)


def _searched(task: ShardTask, facts: TileFacts, flat: Flat, bands: tuple[str, ...]) -> dict[str, object]:
    core, window, scale = task.shard.core, task.shard.window, facts.pixel_scale_arcsec
    inside = np.s_[core.y0 - window.y0 : core.y1 - window.y0, core.x0 - window.x0 : core.x1 - window.x0]
    unsearched = flat.mask[(slice(None), *inside)].all(axis=0)
    x_px = np.array([core.x0, core.x1, core.x1, core.x0]) - 0.5
    y_px = np.array([core.y0, core.y0, core.y1, core.y1]) - 0.5
    ra_deg, dec_deg = sky_position(facts.wcs, x_px, y_px)
    aperture_px = np.pi / scale**2
    values: dict[str, object] = {
        "pixel_scale_arcsec": scale,
        "area_deg2": float((~unsearched).sum()) * (scale / 3600) ** 2,
        "corner_ra_deg": ra_deg.tolist(),
        "corner_dec_deg": dec_deg.tolist(),
    }
    for b, band in enumerate(bands):
        rms = flat.median_rms[b]
        values[f"masked_{band}"] = float(flat.mask[b][inside].mean())
        values[f"sky_rms_{band}_njy"] = rms
        values[f"depth_{band}_mag"] = None if rms is None else float(ab_magnitude(np.array(5 * rms * aperture_px**0.5)))
    return values


def _inputs(tile: Tile) -> str:
    planes = [plane for band in tile.bands for plane in (band.image, band.weight, band.mask) if plane]
    files = dict.fromkeys(plane.file for plane in planes)
    return inputs_json([{"file": f, "bytes": size_bytes(f), "checksum": checksum(f)} for f in files])
