"""Cut equal squares around positions, with edges and masks handled and counted."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

ScalarT = TypeVar("ScalarT", bound=np.generic)


def extract_cutouts(
    image: NDArray[np.float32],
    mask: NDArray[np.bool_],
    x_px: NDArray[np.floating],
    y_px: NDArray[np.floating],
    *,
    size_px: int,
    fill: float = 0.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """
    Square cutouts centred on the nearest pixel of each position (halves go up).

    Beyond the image and where masked, pixels are ``fill``: padding by reflection would make mirror images, which
    look like lensed ones.

    Parameters
    ----------
    image : array (band, y, x), float32
    mask : array (band, y, x), bool
        True where a pixel is bad.
    x_px, y_px : arrays (n,)
        Positions, 0-based in ``image``.
    size_px : int
        Side of a cutout, odd, so that a pixel lies in the centre.
    fill : float
        Value of pixels that are not there.

    Returns
    -------
    cutouts : array (n, band, size_px, size_px), float32
        Copies, not views.
    covered : array (n,), float32
        Fraction of pixels, over all bands, that hold data.

    Raises
    ------
    ValueError
        ``size_px`` is even or not positive.

    Examples
    --------
    >>> image = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    >>> cut, covered = extract_cutouts(image, image < 0, np.array([0.0]), np.array([0.0]), size_px=3)
    >>> cut[0, 0]
    array([[0., 0., 0.],
           [0., 0., 1.],
           [0., 5., 6.]], dtype=float32)
    >>> covered.round(3)
    array([0.444], dtype=float32)
    """
    if size_px < 1 or size_px % 2 == 0:
        raise ValueError(f"size_px must be odd and positive, got {size_px}")
    n_band, height, width = image.shape
    half = size_px // 2
    columns = np.floor(np.asarray(x_px, np.float64) + 0.5).astype(np.int64)
    rows = np.floor(np.asarray(y_px, np.float64) + 0.5).astype(np.int64)
    cutouts = np.full((len(columns), n_band, size_px, size_px), fill, np.float32)
    covered = np.zeros(len(columns), np.float32)
    total = n_band * size_px * size_px
    for i, (column, row) in enumerate(zip(columns, rows, strict=True)):
        x0, y0 = max(0, column - half), max(0, row - half)
        x1, y1 = min(width, column + half + 1), min(height, row + half + 1)
        if x0 >= x1 or y0 >= y1:
            continue
        source = (slice(None), slice(y0, y1), slice(x0, x1))
        target = cutouts[i][:, y0 - row + half : y1 - row + half, x0 - column + half : x1 - column + half]
        good = ~mask[source]
        np.copyto(target, image[source], where=good)
        covered[i] = good.sum() / total
    return cutouts, covered


def cut_squares(
    planes: NDArray[ScalarT], x_px: NDArray[np.floating], y_px: NDArray[np.floating], *, size_px: int, fill: float
) -> NDArray[ScalarT]:
    """
    Squares of any side around positions, of images, masks or weights alike.

    Of an odd side the pixel nearest to the position is in the centre, as `extract_cutouts` has it; of an even side the
    position lies within half a pixel of the point where the four pixels in the centre meet.

    Parameters
    ----------
    planes : array (band, y, x)
    x_px, y_px : arrays (n,)
        Positions, 0-based in ``planes``.
    size_px : int
        Side of a square.
    fill : float
        Value beyond the planes' edges.

    Returns
    -------
    array (n, band, size_px, size_px), of the type of ``planes``

    Raises
    ------
    ValueError
        ``size_px`` is not positive.

    Examples
    --------
    >>> cut_squares(np.arange(16).reshape(1, 4, 4), np.array([1.5]), np.array([0.4]), size_px=2, fill=-1)[0, 0]
    array([[1, 2],
           [5, 6]])
    """
    if size_px < 1:
        raise ValueError(f"size_px must be positive, got {size_px}")
    n_band, height, width = planes.shape
    lower = (size_px - 1) / 2 - 0.5
    columns = np.floor(np.asarray(x_px, np.float64) - lower).astype(np.int64).tolist()
    rows = np.floor(np.asarray(y_px, np.float64) - lower).astype(np.int64).tolist()
    squares = np.full((len(columns), n_band, size_px, size_px), fill, planes.dtype)
    for square, x0, y0 in zip(squares, columns, rows, strict=True):
        left, top = max(0, x0), max(0, y0)
        right, bottom = min(width, x0 + size_px), min(height, y0 + size_px)
        if left < right and top < bottom:
            square[:, top - y0 : bottom - y0, left - x0 : right - x0] = planes[:, top:bottom, left:right]
    return squares
