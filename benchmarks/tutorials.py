"""
Run the tutorials that are stored with what they gave (docs/tutorials/*.ipynb), and write it back; record the time.

    python -m benchmarks.tutorials [NAME ...]

The other tutorials (.md) are run whenever the site is built.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks import record
from benchmarks.timing import Clock

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
LIMIT_S = 120.0


def digest_of(notebook: dict[str, Any]) -> str:
    """Name of what a notebook's cells run, whatever they gave."""
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()[:16]


_ESCAPES = re.compile(r"\x1b\]8;[^\x1b\x07]*(?:\x1b\\|\x07)|\x1b\[[0-9;]*m")


def plain(notebook: Any) -> None:
    """Take colours and links of a terminal out of what cells printed: a page has no terminal."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                output["text"] = _ESCAPES.sub("", "".join(output["text"])).replace("\r\n", "\n")


def run(path: Path) -> dict[str, Any]:
    """Run a notebook in a folder of its own and write it back with its outputs."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="tutorial-") as folder, Clock() as clock:
        os.environ["COLUMNS"] = "110"
        before = os.times()
        NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
        after = os.times()
        text = nbformat.writes(notebook).replace(os.path.realpath(folder), ".").replace(folder, ".")
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        cell.get("metadata", {}).pop("execution", None)
    plain(notebook)
    nbformat.write(notebook, path)
    cpu_s = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    return {"code": digest_of(notebook), "seconds": round(clock.wall_s, 1), "cpu_seconds": round(cpu_s, 1)}


@click.command()
@click.argument("names", nargs=-1)
@record.keep_option
def main(names: tuple[str, ...], keep: bool) -> None:
    """Run tutorials by NAME, all where none is named; records of the others are kept."""
    stored = record.RESULTS / "tutorials.json"
    known = json.loads(stored.read_text())["result"] if stored.exists() else {}
    for path in sorted(TUTORIALS.glob("*.ipynb")):
        if not names or path.stem in names:
            known[path.stem] = run(path)
    there = {path.stem for path in TUTORIALS.glob("*.ipynb")}
    result = {name: facts for name, facts in sorted(known.items()) if name in there}
    aims = [
        record.at_most(f"processor seconds of {name}", facts["cpu_seconds"], LIMIT_S) for name, facts in result.items()
    ]
    record.write("tutorials", result, aims, keep=keep)


if __name__ == "__main__":
    main()
