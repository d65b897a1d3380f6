"""
Let the disk of every command that writes fill up at several moments, and be read-only; then make room, and go on.

A file system in memory of a limited size stands for the disk, which takes the rights of root. On a full disk a command
must end with one line and exit code 2, leave what was there as it was, and come to the end of an unbroken run when it
is given again.

    python -m benchmarks.full_disks --work FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import click

from benchmarks import record
from benchmarks.forks import import_everything, run_lenspipe
from benchmarks.timing import Clock
from benchmarks.writers import WRITERS, Leaves, Writer, differences, leaves_of, make_stock, scratch_in

PARTS_OF_WHAT_IT_WRITES = (0.0, 0.5)
BYTES = 1 << 30


def mount(disk: Path, options: str) -> None:
    """Mount a file system in memory, or change one that is mounted."""
    subprocess.run(["mount", "-o", options, *(["-t", "tmpfs", "tmpfs"] if "remount" not in options else []), disk],
                   check=True)  # fmt: skip


def _used(disk: Path) -> int:
    facts = os.statvfs(disk)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def refused(code: int, said: str, here: Path, before: Leaves, what: str) -> list[str]:
    """What is wrong with how a command ended on a disk that takes no more."""
    faults = []
    lines = [line for line in said.splitlines() if "lenspipe: " in line]
    if "Traceback" in said:
        return [said[-1200:]]
    if code != 2 or len(lines) != 1:
        faults.append(f"exit code {code}, {len(lines)} lines: {said[-400:]}")
    elif what not in lines[0]:
        faults.append(f"it says {lines[0][:300]}")
    now = leaves_of(here)
    faults += [f"{key} is not as it was" for key, value in before.items() if now.get(key) != value]
    return faults + [f"{name} is left" for name in scratch_in(here) if name.endswith(".tmp")]


def try_one(writer: Writer, stock: Path, disk: Path) -> list[dict[str, Any]]:
    """A command on disks that have room for parts of what it writes, and on one that is read-only."""
    here = disk / "here"
    writer.prepare(stock, here)
    begun = _used(disk)
    code, said = run_lenspipe(writer.words(stock, here))
    if code not in (0, 3):
        raise RuntimeError(f"{writer.name}: {code}: {said[-2000:]}")
    whole, written = leaves_of(here), max(0, _used(disk) - begun)
    rows = []
    for part in PARTS_OF_WHAT_IT_WRITES:
        writer.prepare(stock, here)
        before = leaves_of(here)
        room = int(part * written) // 4096 * 4096
        mount(disk, f"remount,size={max(4096, _used(disk) + room)}")  # 0 would be no limit
        code, said = run_lenspipe(writer.words(stock, here))
        mount(disk, f"remount,size={BYTES}")
        faults = refused(code, said, here, before, "the disk is full")
        again, said = run_lenspipe(writer.words(stock, here, again=True))
        if "Traceback" in said or again not in (0, 3):
            faults.append(f"again: exit code {again}: {said[-600:]}")
        else:
            faults += [f"again: {fault}" for fault in differences(here, whole)]
        rows.append({"room_bytes": room, "faults": faults[:8]})
    writer.prepare(stock, here)
    before = leaves_of(here)
    mount(disk, "remount,ro")
    code, said = run_lenspipe(writer.words(stock, here))
    mount(disk, "remount,rw")
    rows.append({"read_only": True, "faults": refused(code, said, here, before, "Read-only file system")[:8]})
    return rows


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="What was measured so far.")
@click.option("--stock", type=click.Path(path_type=Path), default=None, help="Inputs that were made before.")
@click.option("--only", multiple=True, help="Names of commands; all without Ray by default.")
@record.keep_option
def main(work: Path, stock: Path | None, only: tuple[str, ...], keep: bool) -> None:
    """Fill the disk of every command that writes."""
    import_everything()
    stock, disk = stock or work / "stock", work / "disk"
    make_stock(stock)
    disk.mkdir(parents=True, exist_ok=True)
    kept = work / "full.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    writers = [w for w in WRITERS if (w.name in only if only else not w.ray)]
    for writer in writers:
        if writer.name in results:
            continue
        clock = Clock()
        mount(disk, f"size={BYTES}")
        try:
            results[writer.name] = try_one(writer, stock, disk)
        finally:
            subprocess.run(["umount", "-l", disk], check=True)
        kept.write_text(json.dumps(results))
        bad = [r for r in results[writer.name] if r["faults"]]
        print(f"{writer.name}: {len(bad)} of {len(results[writer.name])} with faults, {clock.wall_s:.0f} s", flush=True)
        for row in bad:
            print("   ", row, flush=True)
    tries = [row for rows in results.values() for row in rows]
    result = {"commands": len(results), "tries": len(tries), "by_command": results}
    aims = [record.at_most("tries with faults", sum(bool(row["faults"]) for row in tries), 0)]
    record.write("full_disks", result, aims, keep=keep and not only)


if __name__ == "__main__":
    main()
