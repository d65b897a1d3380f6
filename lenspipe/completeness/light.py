"""The light of a galaxy without its sky and neighbours, to be put down elsewhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SURE = 8.0
"""Mean signal-to-noise of a pixel of an ellipse from which the galaxy's own pixels are kept."""
STEP = 1.12
"""Growth of the ellipses' width."""


def lift_light(
    stamp_njy: NDArray[np.float32],
    sky_rms_njy: NDArray[np.floating],
    x_px: float,
    y_px: float,
    *,
    axis_ratio: float,
    angle_rad: float,
) -> NDArray[np.float32]:
    """
    Light of a galaxy: its own pixels where they stand far above the noise, else the median along ellipses.

    A galaxy that is cut out and added to other sky brings its own sky noise along, so that the noise there is too
    large by a factor of up to the square root of two. Here that happens only where the light is `SURE` times the noise
    and more. Outside, the profile follows ellipses of one shape, falls monotonically and ends where it reaches zero;
    neighbours drop out of the median.

    Parameters
    ----------
    stamp_njy : array (band, y, x)
        Sky subtracted.
    sky_rms_njy : array (band,)
        Noise of a pixel.
    x_px, y_px : float
        Centre, 0-based in the stamp.
    axis_ratio, angle_rad : float
        Shape; angle of the major axis from +x towards +y.

    Returns
    -------
    float32 array (band, y, x)
        Zero where the light ends.
    """
    n_y, n_x = stamp_njy.shape[1:]
    y, x = np.mgrid[:n_y, :n_x]
    along = (x - x_px) * np.cos(angle_rad) + (y - y_px) * np.sin(angle_rad)
    across = (y - y_px) * np.cos(angle_rad) - (x - x_px) * np.sin(angle_rad)
    radius = np.hypot(along * np.sqrt(axis_ratio), across / np.sqrt(axis_ratio))
    edges = [0.0, 1.0]
    while edges[-1] < min(n_y, n_x) / 2:
        edges.append(edges[-1] + max(1.0, edges[-1] * (STEP - 1)))
    which = np.digitize(radius, edges) - 1
    n_ring = len(edges) - 1
    inside = which < n_ring
    order = np.argsort(which[inside], kind="stable")
    ends_of = np.searchsorted(which[inside][order], np.arange(1, n_ring))
    light = np.zeros(stamp_njy.shape, np.float32)
    for b, (plane, rms) in enumerate(zip(stamp_njy, sky_rms_njy, strict=True)):
        at, profile = (
            np.array([np.median(ring) for ring in np.split(values[inside][order], ends_of) if ring.size])
            for values in (radius, plane)
        )
        profile = np.minimum.accumulate(profile)
        ends = np.flatnonzero(profile <= 0)
        if len(ends):
            profile[ends[0] :] = 0
        smooth = np.interp(radius, at, profile)
        smooth[~inside] = 0
        own = np.clip(smooth / (SURE * rms) - 1, 0, 1)  # from 8 to 16 times the noise
        light[b] = own * np.where(own > 0, plane, 0) + (1 - own) * smooth
    return light
