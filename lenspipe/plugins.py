"""What other packages add by entry points: stamp readers, methods of learning, detectors. Families have their own."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lenspipe.errors import ConfigError

READERS, METHODS, DETECTORS = "lenspipe.stamp_readers", "lenspipe.methods", "lenspipe.detectors"
"""Groups of entry points."""


@functools.cache
def entries(group: str) -> dict[str, EntryPoint]:
    """What other packages name in a group; nothing of theirs is imported."""
    return {entry.name: entry for entry in entry_points(group=group)}


def load(group: str, name: str) -> Any:
    """
    What another package gives under a name.

    Raises
    ------
    ConfigError
        Its package cannot be imported, or has no such thing.
    """
    entry = entries(group)[name]
    try:
        return entry.load()
    except Exception as error:
        raise ConfigError(
            f"what another package adds cannot be imported: {error}", entry_point=name, module=entry.value
        ) from error
