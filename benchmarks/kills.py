"""
Kill every command that writes at random moments, give it again, and compare its end with an unbroken one.

A moment is a time, or the k-th change to the disk that Python makes (a file opened for writing, a rename, a removal),
both from a seed. The processes are forked from one that has imported everything. What was measured already is kept in
``--work``, so that the benchmark can be taken up where it was cut off.

    python -m benchmarks.kills --work FOLDER
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import record
from benchmarks.forks import fork, import_everything, lenspipe, run_lenspipe
from benchmarks.timing import Clock
from benchmarks.writers import WRITERS, Leaves, Writer, differences, leaves_of, make_stock

SEED = 2026
ROUNDS, ROUNDS_SCARCE, ROUNDS_RAY = 8, 4, 2
FINISHED = (
    "the folder of the calibrated copy exists",
    "holds a run already",
    "holds a model already",
    "the folder exists",
    "the output exists",
    "is in it already",
    "is in the catalogue",
    "holds no such run",
    "has no such row",
)
"""What a command says that was killed when all was written."""
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.copyfile"}


def unbroken(writer: Writer, stock: Path, here: Path) -> tuple[Leaves, list[str], int, float, int]:
    """The end, what of it differs between two unbroken runs, changes to the disk, seconds, and the exit code."""
    ends, count = [], here.with_name("count")
    for _ in range(2):
        writer.prepare(stock, here)

        def work() -> int:
            seen = [0]

            def look(event: str, arguments: tuple[Any, ...]) -> None:
                seen[0] += _is_change(event, arguments, str(here))

            sys.addaudithook(look)
            code = lenspipe(writer.words(stock, here))
            count.write_text(str(seen[0]))
            return code

        clock = Clock()
        said = here.with_name("said")
        code = os.waitstatus_to_exitcode(os.waitpid(fork(work, said), 0)[1])
        seconds = clock.wall_s
        if code not in (0, 3):
            raise RuntimeError(f"{writer.name}: {code}: {said.read_text()[-3000:]}")
        ends.append(leaves_of(here))
    differ = sorted(k for k in ends[0].keys() | ends[1].keys() if ends[0].get(k) != ends[1].get(k))
    return ends[1], differ, int(count.read_text()), seconds, code


def _is_change(event: str, arguments: tuple[Any, ...], root: str) -> bool:
    if event == "open":
        changes = isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    else:
        changes = event in CHANGES
    return changes and str(arguments[0]).startswith(root)


def kill(writer: Writer, words: list[str], here: Path, moment: dict[str, Any]) -> bool:
    """Start a command and kill it at a moment; whether it was still running then."""
    seen = [0]

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if _is_change(event, arguments, str(here)):
            seen[0] += 1
            if seen[0] == moment.get("change"):
                os.kill(os.getpid(), signal.SIGKILL)

    def work() -> int:
        sys.addaudithook(look)
        return lenspipe(words)

    pid = fork(work)
    if "after_s" in moment:
        time.sleep(moment["after_s"])
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1] == signal.SIGKILL


def one(
    writer: Writer, stock: Path, here: Path, whole: dict[str, Any], rng: np.random.Generator, k: int
) -> dict[str, Any]:
    """Kill a command once or twice, give it again, and compare."""
    writer.prepare(stock, here)
    moments = []
    for turn in range(1 + (k % 3 == 2)):
        words = writer.words(stock, here, again=turn > 0)
        moment = (
            {"change": int(rng.integers(1, whole["changes"] + 1))}
            if k % 2 == 0 and not writer.ray
            else {"after_s": round(float(rng.uniform(0, whole["seconds"])), 3)}
        )
        moments.append(moment | {"hit": kill(writer, words, here, moment)})
    clock = Clock()
    code, said = run_lenspipe(writer.words(stock, here, again=True))
    finished = code == 2 and any(words in said for words in FINISHED)
    faults = []
    if "Traceback" in said:
        faults.append(said[-1500:])
    elif code != whole["code"] and not finished:
        faults.append(f"exit code {code}: {said[-600:]}")
    else:
        faults = [f for f in differences(here, whole["end"]) if f.split(" ")[0] not in whole["not_reproducible"]]
    return {"moments": moments, "code": code, "finished_before": finished, "faults": faults[:12]} | clock.seconds()


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="What was measured so far.")
@click.option("--only", multiple=True, help="Names of commands; all by default.")
@click.option("--with-ray/--without-ray", default=True, show_default=True)
@click.option("--rounds", default=ROUNDS, show_default=True, help="Rounds of a command that takes a second.")
@record.keep_option
def main(work: Path, only: tuple[str, ...], with_ray: bool, rounds: int, keep: bool) -> None:
    """Kill every command that writes."""
    import_everything()
    stock, here = work / "stock", work / "here"
    make_stock(stock)
    writers = [w for w in WRITERS if (not only or w.name in only) and (with_ray or not w.ray)]
    kept = work / "kills.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for number, writer in enumerate(WRITERS):
        if writer not in writers:
            continue
        clock = Clock()
        if writer.name not in results:
            end, differ, changes, seconds, code = unbroken(writer, stock, here)
            results[writer.name] = {"end": end, "not_reproducible": differ, "changes": changes, "seconds": seconds,
                                    "code": code, "rounds": []}  # fmt: skip
        whole = results[writer.name]
        n = ROUNDS_RAY if writer.ray else min(rounds, ROUNDS_SCARCE) if writer.scarce else rounds
        for k in range(len(whole["rounds"]), n):
            rng = np.random.default_rng([SEED, number, k])
            whole["rounds"].append(one(writer, stock, here, whole, rng, k))
            kept.write_text(json.dumps(results))
        bad = [r for r in whole["rounds"] if r["faults"]]
        for key in whole["not_reproducible"]:
            print(f"    not the same in two unbroken runs: {key}")
        print(f"{writer.name}: {whole['seconds']:.1f} s, {whole['changes']} changes, {len(whole['rounds'])} rounds, "
              f"{len(bad)} with faults, {clock.wall_s:.0f} s", flush=True)  # fmt: skip
        for row in bad[:3]:
            print("   ", row["moments"], row["faults"][:4], flush=True)
    shutil.rmtree(here, ignore_errors=True)
    report(results, keep=keep and not only)


def report(results: dict[str, Any], *, keep: bool) -> None:
    """Write the record."""
    rows = {}
    for name, whole in results.items():
        moments = [m for r in whole["rounds"] for m in r["moments"]]
        rows[name] = {
            "seconds": round(whole["seconds"], 2),
            "changes": whole["changes"],
            "rounds": len(whole["rounds"]),
            "kills": len(moments),
            "hit_while_running": sum(m["hit"] for m in moments),
            "pieces_compared": len(set(whole["end"]) - set(whole["not_reproducible"])),
            "differ_between_unbroken_runs": whole["not_reproducible"],
            "faults": [{"moments": r["moments"], "faults": r["faults"]} for r in whole["rounds"] if r["faults"]],
        }
    hit = sum(r["hit_while_running"] for r in rows.values())
    bad = sum(len(r["faults"]) for r in rows.values())
    rounds = sum(r["rounds"] for r in rows.values())
    result = {
        "seed": SEED,
        "commands": len(rows),
        "kills": sum(r["kills"] for r in rows.values()),
        "hit": hit,
        "rounds": rounds,
        "rounds_with_faults": bad,
        "by_command": rows,
    }
    aims = [record.at_least("kills that hit a running command", hit, 100), record.at_most("rounds with faults", bad, 0)]
    record.write("kills", result, aims, keep=keep)


if __name__ == "__main__":
    main()
