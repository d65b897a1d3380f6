"""The eight views of a stamp."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dihedral(stamp: NDArray[np.float32], view: int) -> NDArray[np.float32]:
    """View 0 to 7 of the eight symmetries of the square: quarter turns, the last four mirrored."""
    turned = np.rot90(stamp, view % 4, axes=(-2, -1))
    return turned[..., ::-1] if view >= 4 else turned
