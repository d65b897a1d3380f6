"""A run that has not ended, as far as it is done: the tables of the shards that are in the ledger."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow.compute as pc

from lenspipe.catalog.records import run_record
from lenspipe.catalog.run_rows import request_id_of
from lenspipe.errors import ConfigError
from lenspipe.rundir import utc_now, write_json
from lenspipe.scan.finalize import finalize
from lenspipe.scan.ledger import PARTS, counted_shards
from lenspipe.scan.plan import read_plan, write_plan
from lenspipe.scan.run import PLAN, RUN


def finalize_partial(run: Path, scratch: Path) -> tuple[int, int]:
    """
    Write into ``scratch`` the run folder that ``run`` would be if its plan held only what is done.

    Returns
    -------
    n_done, n_planned : int
        Shards.

    Raises
    ------
    ConfigError
        No shard is done.
    """
    plan, bands = read_plan(run / PLAN)
    record = run_record(run / RUN)
    request_id = request_id_of(record, plan)
    ids = [i for i in plan["shard_id"].to_pylist() if i]
    done = counted_shards(run / PARTS) & set(ids)
    if not done:
        raise ConfigError("no shard of the run is done; there is nothing to catalogue", run=str(run))
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / PARTS).symlink_to((run / PARTS).resolve(), target_is_directory=True)
    keep = pc.or_(
        pc.is_null(plan["shard_id"]), pc.is_in(plan["shard_id"], pc.cast(sorted(done), plan["shard_id"].type))
    )
    plan = plan.filter(keep)
    write_plan(scratch / PLAN, plan, bands=bands)
    totals, inputs = finalize(scratch, plan, bands)
    status = f"partial: {len(done)} of {len(ids)} shards"
    counts = dataclasses.asdict(totals)
    now = {"request_id": request_id, "status": status, "finished": utc_now(), "counts": counts, "inputs": inputs}
    now["part_of"] = str(run.absolute())
    write_json(scratch / RUN, {**record, **now})
    return len(done), len(ids)
