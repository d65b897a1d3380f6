"""Values of header keywords as they are meant: numbers in words, quoted numbers, and words that say nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from lenspipe.errors import TileError

NO_VALUE = frozenset({"", "-", "none", "null", "nan", "n/a", "na", "undef", "undefined", "unknown", "unset"})
_NUMBER = re.compile(r"(?i)([-+]?(?:\d+\.?\d*|\.\d+)(?:[ed][-+]?\d+)?)\s*(?:mag)?")


def number(header: Mapping[str, object], key: str) -> float | None:
    """
    Number of a card, also where it is given as text; None where the card is absent or empty.

    Raises
    ------
    TileError
        The card holds text that is no number.
    """
    value = header.get(key)
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    if not isinstance(value, str) or value.strip().lower() in NO_VALUE:
        return None
    found = _NUMBER.fullmatch(value.strip())
    if found is None:
        raise TileError(f"{key} = {value!r} is text and not a number; correct the header", keyword=key)
    return float(found[1].lower().replace("d", "e"))


def text_of(header: Mapping[str, object], key: str) -> str:
    """Words of a card; none where it is absent or a number."""
    value = header.get(key)
    return value.strip() if isinstance(value, str) else ""


def comment_of(header: Mapping[str, object], key: str) -> str:
    """Comment of a card; none where there is none."""
    comments = getattr(header, "comments", None)
    return str(comments[key]) if comments is not None and key in header else ""
