"""
The page of `benchmarks.peers`, made from its record.

    python -m benchmarks.peers_page
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from benchmarks import record

PAGE = Path(__file__).resolve().parents[1] / "docs" / "peers.md"
HEAD = """# Beside the others

The same inputs and outputs, each a whole process on one core, from its start to its files; seconds of processor time. A
ratio above 1 is one by which lenspipe is ahead. Made by `python -m benchmarks.peers_page` from
[its record](../benchmarks/results/peers.json) of {date}, commit {commit}.

| work | beside | its s | lenspipe's s | ratio |
|---|---|---|---|---|
"""


def row_of(row: dict[str, Any]) -> str:
    """A line of the table."""
    if "error" in row:
        return f"| {row['task']} | {row['peer']} | did not run: {' '.join(row['error'].split())[:160]} | | |"
    start = f"; {row['ratio_without_start']} without the start" if "ratio_without_start" in row else ""
    why = f": {row['why']}" if row["ratio"] < 1 and "why" in row else ""
    version = row["peer_version"].removeprefix("Source Extractor version ")
    return (
        f"| {row['task']} | {row['peer']}, {version} | {row['peer_cpu_s']:g} | {row['lenspipe_cpu_s']:g} "
        f"| {row['ratio']}{start}{why} |"
    )


@click.command()
def main() -> None:
    """Write the page."""
    made = json.loads((record.RESULTS / "peers.json").read_text())
    lines = [row_of(row) for row in made["result"]["table"]]
    others = [f"- {name}: {why}." for name, why in made["result"]["not_compared"].items()]
    head = HEAD.format(date=made["date"][:10], commit=made["commit"])
    PAGE.write_text("\n".join([head.rstrip(), *lines, "", "Not compared:", "", *others, ""]))
    click.echo(PAGE)


if __name__ == "__main__":
    main()
