"""The shape of hosts in their pixels: whether a second galaxy or an arc is there already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lenspipe.robust import robust_sigma


def asymmetry(
    images: NDArray[np.floating], *, pixel_scale_arcsec: float, radius_arcsec: float = 3.0
) -> NDArray[np.float64]:
    """
    Part of a galaxy's light that changes when it is turned by 180 degrees, less what noise alone changes.

    ``sum |I - I_180| / sum |I|`` within the radius (Conselice 2003, ApJS 147, 1), halved as there, with the same
    quantity of pure noise taken off. The centre is the central pixel, shifted to the brightest of its neighbours.

    Parameters
    ----------
    images : array (n, y, x)
        One band, sky subtracted, odd sides.
    pixel_scale_arcsec, radius_arcsec : float

    Returns
    -------
    array (n,)
        0 for a smooth galaxy, towards 1 for two of a kind; NaN where there is no light.
    """
    n, side, _ = images.shape
    half = min(side // 2 - 1, int(np.ceil(radius_arcsec / pixel_scale_arcsec)))
    y, x = np.indices((2 * half + 1, 2 * half + 1)) - half
    disc = np.hypot(x, y) * pixel_scale_arcsec <= radius_arcsec
    out = np.full(n, np.nan)
    for k, image in enumerate(np.asarray(images, float)):
        row, column = np.unravel_index(image[_near(side)].argmax(), (3, 3))
        middle_y, middle_x = side // 2 - 1 + int(row), side // 2 - 1 + int(column)
        box = image[middle_y - half : middle_y + half + 1, middle_x - half : middle_x + half + 1]
        if box.shape != disc.shape:
            continue
        total = np.abs(box[disc]).sum()
        edge = np.concatenate([image[:4].ravel(), image[-4:].ravel()])
        noise = float(robust_sigma(edge)) * np.sqrt(2) * np.sqrt(2 / np.pi) * disc.sum()
        if total > 0:
            out[k] = max(0.0, float(np.abs(box - box[::-1, ::-1])[disc].sum()) - noise) / (2 * total)
    return out


def _near(side: int) -> tuple[slice, slice]:
    middle = slice(side // 2 - 1, side // 2 + 2)
    return middle, middle
