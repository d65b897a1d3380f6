"""A stamp in hand: pixels, what they are, and what is known of them. It shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.api.picture import png, rgb


@dataclass(frozen=True, eq=False)
class Stamp:
    """
    An image in some bands around one object.

    Attributes
    ----------
    pixels_njy : float32 array (band, y, x)
        Flux per pixel, nJy, sky subtracted.
    bands : tuple of str
    pixel_scale_arcsec : float
    truth : mapping
        True parameters, where it was made here.
    arcs_njy : float32 array (band, y, x), optional
        The lensed source alone, PSF applied, noise-free.
    """

    pixels_njy: NDArray[np.float32]
    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    truth: Mapping[str, Any] = field(default_factory=dict)
    arcs_njy: NDArray[np.float32] | None = None

    def rgb(self) -> NDArray[np.uint8]:
        """Colour picture ``(y, x, 3)``; see `lenspipe.api.picture.rgb`."""
        return rgb(self.pixels_njy, self.bands)

    def __repr__(self) -> str:
        side = self.pixels_njy.shape[-1]
        return f'Stamp({" ".join(self.bands)}, {side} px of {self.pixel_scale_arcsec:g}")'

    def _repr_png_(self) -> bytes:
        return png(self.rgb())
