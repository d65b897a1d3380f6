"""SIGKILL a scan's driver at a chosen moment, seen from outside in the run folder; resume; compare rows."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from tests.forked import Forked

POLL_S = 0.0005
LIMIT_S = 240


def _parts(run: Path) -> int:
    return len(list((run / "parts").glob("*.parquet")))


def _any(run: Path, *patterns: str) -> bool:
    return any(next(run.glob(p), None) is not None for p in patterns)


MOMENTS: dict[str, Callable[[Path, int], bool]] = {
    "plan": lambda run, k: _any(run, "request.json", ".request.json*"),
    "read": lambda run, k: _any(run, "attempts/*/read.*") and _parts(run) >= k,
    "score": lambda run, k: _any(run, "attempts/*/score.*") and _parts(run) >= k,
    "commit": lambda run, k: _any(run, "parts/.*.tmp") and _parts(run) >= k,
    "finalize": lambda run, k: _any(run, ".shards.parquet*", "shards.parquet"),
}


@dataclasses.dataclass(frozen=True)
class KillPoint:
    """Kill when the moment has come, ``k`` parts are there, and ``delay_s`` has passed since."""

    moment: str
    k: int
    delay_s: float
    runner: str


def command(tiles: Path, out: Path, model: Path, runner: str, *more: str) -> list[str]:
    options = ["--survey", "generic", "--shard-px", "128", "--model", str(model), "--runner", runner, "--workers", "2"]
    return [sys.executable, "-m", "lenspipe", "scan", str(tiles), "--out", str(out), *options, *more]


def finished(run: Path) -> bool:
    path = run / "run.json"
    return path.exists() and json.loads(path.read_text())["status"].startswith("done")


def started(command: list[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A process of its own."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)


def kill_at(
    point: KillPoint,
    tiles: Path,
    out: Path,
    model: Path,
    *,
    more: Sequence[str] = (),
    start: Callable[[list[str]], Forked | subprocess.Popen[bytes]] = started,
) -> bool:
    """Start a scan and kill its driver at the point; whether the run was unfinished then."""
    process = start(command(tiles, out, model, point.runner, *more))
    limit = time.monotonic() + LIMIT_S
    while not MOMENTS[point.moment](out, point.k) and process.poll() is None:
        if time.monotonic() > limit:
            process.kill()
            raise TimeoutError(f"{point} never came")
        time.sleep(POLL_S)
    time.sleep(point.delay_s)
    process.kill()
    process.wait()
    return not finished(out)


def resume(tiles: Path, out: Path, model: Path, runner: str, *, env: Mapping[str, str] | None = None) -> int:
    done = subprocess.run(
        command(tiles, out, model, runner, "--resume"), capture_output=True, text=True, timeout=LIMIT_S, env=env
    )
    if done.returncode not in (0, 3):
        raise AssertionError(done.stderr[-3000:])
    return done.returncode


def tables(run: Path) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Candidates, shards without their timings, failures."""
    shards = pq.read_table(run / "shards.parquet")
    timings = [n for n in shards.column_names if n.endswith("_s")]
    for name in ("corner_ra_deg", "corner_dec_deg"):  # NaN where a shard failed, which is equal to nothing
        corners = pa.array([repr(corner) for corner in shards[name].to_pylist()])
        shards = shards.set_column(shards.schema.get_field_index(name), name, corners)
    return (
        pq.read_table(run / "candidates.parquet"),
        shards.drop_columns(timings),
        pq.read_table(run / "failures.parquet"),
    )


def leftovers(run: Path) -> list[str]:
    """Files that a finished run should not have."""
    return [str(p.relative_to(run)) for p in run.rglob("*") if p.name.endswith(".tmp") or p.parent.name == "attempts"]
