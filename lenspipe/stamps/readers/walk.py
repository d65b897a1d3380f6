"""Files below a folder, in an order that does not depend on the file system."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path


def files_matching(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[Path, re.Match[str]]]:
    """Yield ``(folder, match)`` of every file below ``folder`` whose whole name matches, sorted by folder and name."""
    for here, below, names in os.walk(folder):
        below.sort()
        for name in sorted(names):
            if match := pattern.fullmatch(name):
                yield Path(here), match
