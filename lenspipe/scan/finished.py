"""A finished run whose ledger and tables are as they were left: nothing of it has to be made again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lenspipe.catalog.vectors import EMBEDDINGS
from lenspipe.errors import ConfigError
from lenspipe.image.psf_table import PSF_FILE
from lenspipe.rundir import read_json, versions
from lenspipe.scan.after.sheet import SHEET
from lenspipe.scan.finalize import CANDIDATES, FAILED, SHARDS
from lenspipe.scan.ledger import PARTS, part_files

TABLES = (CANDIDATES, SHARDS, FAILED, PSF_FILE, EMBEDDINGS, SHEET)
KEY = "made_of"
"""Entry of ``run.json``."""


def state_of(folder: Path, plan: Path) -> dict[str, Any]:
    """What the tables of a run were made of, and what they are, for ``run.json``."""
    return {
        "ledger": _ledger(folder, plan),
        "tables": {n: _digest(folder / n) for n in TABLES if (folder / n).exists()},
    }


def recorded(path: Path) -> dict[str, Any]:
    """What ``run.json`` says; empty where it is missing or damaged, for it is written anew in any case."""
    try:
        found = read_json(path)
    except (ConfigError, FileNotFoundError):
        return {}
    return found if isinstance(found, dict) else {}


def unchanged(folder: Path, plan: Path, run: Path) -> dict[str, Any] | None:
    """
    ``run.json`` of a run that ended, every shard done, where its ledger, plan, tables and program are the same since.

    Every file is read whole: a time is not that of a copy, and a footer says nothing of a bit in a page.
    """
    found = recorded(run)
    counts = found.get("counts", {})
    if KEY not in found or found.get("versions") != versions() or not plan.exists():
        return None
    if counts["shards_ok"] != counts["shards"]:  # failed ones are tried again
        return None
    return found if found[KEY] == state_of(folder, plan) else None


def _ledger(folder: Path, plan: Path) -> str:
    parts = [(path.name, _digest(path)) for path in part_files(folder / PARTS)]
    return hashlib.sha256(json.dumps([parts, _digest(plan)]).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
