"""A galaxy that arcs are painted on, or that stands for itself: real or simulated pixels with what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Host:
    """
    Pixels around one source and how they were taken.

    Attributes
    ----------
    name : str
        What must stay on one side of a split.
    kind : str
        ``early`` (may carry arcs), ``source`` (any other), ``star`` (near a bright star), ``sky`` (nothing there) or
        ``parametric``.
    pixels_njy : float32 array (band, y, x)
        Background-subtracted flux per pixel, square and odd, the source in the central pixel.
    pixel_scale_arcsec : float
    psf_fwhm_arcsec : float64 array (band,)
    sky_rms_njy : float64 array (band,)
        Noise of a pixel.
    mag : float
        AB magnitude in the last band; NaN where unknown.
    axis_ratio, angle_rad : float
        Shape of its light, angle from +x towards +y.
    radius_arcsec : float
        Half-light radius as seen; NaN where unknown.
    """

    name: str
    kind: str
    pixels_njy: NDArray[np.float32]
    pixel_scale_arcsec: float
    psf_fwhm_arcsec: NDArray[np.float64]
    sky_rms_njy: NDArray[np.float64]
    mag: float
    axis_ratio: float
    angle_rad: float
    radius_arcsec: float = float("nan")


def draw_view(
    host: Host,
    rng: np.random.Generator,
    *,
    scale_range_arcsec: tuple[float, float],
    mag_range: tuple[float, float] | None = None,
    dimming_mag: tuple[float, float] = (0.0, 0.0),
    brightness_range: tuple[float, float] = (0.2, 1.2),
    reddening: bool = True,
) -> Host:
    """
    The same pixels as if taken elsewhere: smaller on the sky, fainter, redder.

    The pixel scale is replaced, not resampled, so the noise keeps its texture, and the seeing shrinks along. Surface
    brightness is kept as the scale changes. All bands are scaled to a drawn magnitude, within ``brightness_range``,
    and the first, bluest one by a further factor down to a half: host and noise alike, which makes a deeper image of
    a galaxy further away.

    Parameters
    ----------
    scale_range_arcsec : (float, float)
        New pixel scale, uniform; the host's own scale is the upper limit and the stamp's field the lower.
    mag_range : (float, float), optional
        Magnitude in the last band, uniform.
    dimming_mag : (float, float)
        Without ``mag_range``: magnitudes by which the host becomes fainter, uniform, whatever its own. Hosts of all
        kinds then get noise of one distribution.
    brightness_range : (float, float)
        Limits of the factor that gets there: above 1.2 the noise would be louder than in the survey. A host without a
        magnitude keeps its brightness.
    reddening : bool
        Draw the extra factors of single bands.
    """
    low, high = scale_range_arcsec
    scale = float(rng.uniform(min(low, host.pixel_scale_arcsec), min(high, host.pixel_scale_arcsec * 1.05)))
    shrink = scale / host.pixel_scale_arcsec
    draw = rng.uniform()
    factor = 1.0
    if mag_range is None:
        factor = float(10 ** (-0.4 * (dimming_mag[0] + draw * (dimming_mag[1] - dimming_mag[0]))))
    elif np.isfinite(host.mag):
        wanted = mag_range[0] + draw * (mag_range[1] - mag_range[0])
        factor = float(np.clip(10 ** (-0.4 * (wanted - host.mag)), *brightness_range))
    bands = np.full(len(host.pixels_njy), factor)
    if reddening:
        bands[0] *= 10 ** rng.uniform(-0.3, 0.03)
        bands[-1] *= 10 ** rng.uniform(-0.03, 0.06)
    flux = (bands * shrink**2).astype(np.float32)
    return replace(
        host,
        pixels_njy=host.pixels_njy * flux[:, None, None],
        pixel_scale_arcsec=scale,
        psf_fwhm_arcsec=host.psf_fwhm_arcsec * shrink,
        sky_rms_njy=host.sky_rms_njy * flux,
        mag=host.mag - 2.5 * np.log10(factor * shrink**2),
    )
