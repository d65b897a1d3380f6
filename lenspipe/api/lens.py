"""A lens of stated parameters as a survey would see it, and arcs painted on pixels of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.api.stamp import Stamp
from lenspipe.errors import ConfigError
from lenspipe.simulate.arcs import Optics, lensed_source
from lenspipe.simulate.instrument import add_noise, kernels_of, sky_rms_of_depth_njy
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.negatives import Sky
from lenspipe.simulate.paint import paint_arcs
from lenspipe.simulate.photometry import njy_of_magnitude
from lenspipe.simulate.render import Grid, convolve
from lenspipe.simulate.unlensed import View, draw_unlensed

PerBand = float | Mapping[str, float]
"""One value for all bands, or a value per band by name."""
SOURCE_MAG = {"g": 24.6, "r": 24.4, "i": 24.2}
LENS_MAG = {"g": 21.5, "r": 19.9, "i": 19.2}


def simulate_lens(
    *,
    theta_e_arcsec: float = 1.5,
    axis_ratio: float = 0.8,
    angle_rad: float = 0.5,
    slope: float = 2.0,
    shear: float = 0.03,
    shear_angle_rad: float = 1.0,
    source_x_arcsec: float = 0.2,
    source_y_arcsec: float = 0.1,
    source_radius_arcsec: float = 0.2,
    source_n: float = 1.0,
    source_mag: PerBand | None = None,
    lens_radius_arcsec: float = 0.9,
    lens_n: float = 4.0,
    lens_mag: PerBand | None = None,
    bands: Sequence[str] = ("g", "r", "i"),
    size_px: int = 61,
    pixel_scale_arcsec: float = 0.2,
    psf_fwhm_arcsec: PerBand = 0.7,
    depth_mag: PerBand = 25.5,
    noise: bool = True,
    seed: int = 0,
) -> Stamp:
    """
    Simulate one lens: an elliptical power law with shear, a Sérsic galaxy as its light and another behind it.

    Parameters
    ----------
    theta_e_arcsec, axis_ratio, angle_rad, slope, shear, shear_angle_rad
        Of the lens (`lenspipe.simulate.lens.MacroLens`): Einstein radius in the convention of Tessore & Metcalf (2015,
        A&A 580, A79) and lenstronomy; angles from +x (columns) towards +y (rows), not east of north.
    source_x_arcsec, source_y_arcsec : float
        Place of the source on the source plane, from the lens's centre.
    source_radius_arcsec, source_n
        Half-light radius and Sérsic index of the source, which is round.
    source_mag, lens_mag : float or mapping of str to float, optional
        AB magnitude, of the source as it would be unlensed. Those of a blue and of an early-type galaxy in g, r, i
        where not given; other bands have to be given.
    lens_radius_arcsec, lens_n
        Light of the lens, of the axis ratio and angle of its mass.
    bands : sequence of str
    size_px : int
        Side of the stamp.
    pixel_scale_arcsec : float
    psf_fwhm_arcsec : float or mapping
        FWHM of a Moffat PSF with beta 3.
    depth_mag : float or mapping
        AB magnitude of a point source at 5 sigma in an aperture of 2 arcsec; it sets the noise of a pixel.
    noise : bool
        False gives the model itself.
    seed : int
        Of the noise.

    Returns
    -------
    Stamp
        With ``arcs_njy`` and, in ``truth``, the parameters, ``magnification`` and ``arc_snr``.

    Raises
    ------
    ConfigError
        A value is not allowed, or a band has no magnitude.

    Examples
    --------
    >>> lens = simulate_lens(theta_e_arcsec=2.0, noise=False)
    >>> lens.pixels_njy.shape, lens.truth["magnification"] > 3
    ((3, 61, 61), True)
    """
    names = tuple(bands)
    if size_px < 3 or not pixel_scale_arcsec > 0:
        raise ConfigError("a stamp needs a side of 3 px and a scale above 0", size_px=size_px, scale=pixel_scale_arcsec)
    lens = MacroLens(
        theta_e_arcsec=theta_e_arcsec,
        axis_ratio=axis_ratio,
        angle_rad=angle_rad,
        slope=slope,
        shear=shear,
        shear_angle_rad=shear_angle_rad,
    )
    magnitudes = {
        what: _per_band(default if given is None else given, names, what)
        for what, given, default in (("source_mag", source_mag, SOURCE_MAG), ("lens_mag", lens_mag, LENS_MAG))
    }
    fwhm, depth = _per_band(psf_fwhm_arcsec, names, "psf_fwhm_arcsec"), _per_band(depth_mag, names, "depth_mag")
    kernels = kernels_of([float(f) for f in fwhm], pixel_scale_arcsec)
    rms = sky_rms_of_depth_njy(depth, pixel_scale_arcsec)
    grid = Grid(size_px, pixel_scale_arcsec, 4)
    behind = Sersic(radius_arcsec=source_radius_arcsec, n=source_n, x_arcsec=source_x_arcsec, y_arcsec=source_y_arcsec)
    source = Component(behind, njy_of_magnitude(magnitudes["source_mag"]))
    optics = Optics(names, pixel_scale_arcsec, kernels, rms, grid)
    sharp = lensed_source([source], [lens], optics, grid)
    arcs = convolve(sharp, kernels)
    before = Sersic(radius_arcsec=lens_radius_arcsec, n=lens_n, axis_ratio=axis_ratio, angle_rad=angle_rad)
    light = Sky([Component(before, njy_of_magnitude(magnitudes["lens_mag"]))])
    model = arcs + draw_unlensed(light, View(size_px, pixel_scale_arcsec, kernels, rms))
    pixels = model.astype(np.float32)
    if noise:
        pixels = add_noise(model, sky_rms_njy=rms, njy_per_electron=None, rng=np.random.default_rng(seed))
    truth: dict[str, Any] = {
        "theta_e_arcsec": theta_e_arcsec,
        "axis_ratio": axis_ratio,
        "angle_rad": angle_rad,
        "slope": slope,
        "shear": shear,
        "shear_angle_rad": shear_angle_rad,
        "source_x_arcsec": source_x_arcsec,
        "source_y_arcsec": source_y_arcsec,
        "magnification": float(sharp[0].sum() / source.flux_njy[0]),
        "arc_snr": float(np.sqrt(np.sum((arcs / rms[:, None, None]) ** 2))),
    }
    return Stamp(pixels, names, pixel_scale_arcsec, truth, arcs.astype(np.float32))


def paint(
    image_njy: NDArray[np.floating],
    *,
    bands: Sequence[str],
    pixel_scale_arcsec: float,
    psf_fwhm_arcsec: PerBand,
    theta_e_arcsec: float | tuple[float, float] = (0.8, 3.0),
    sky_rms_njy: PerBand | None = None,
    min_arc_snr: float | None = None,
    seed: int = 0,
) -> Stamp:
    """
    Paint the arcs of a drawn background galaxy on a real galaxy in the middle of a stamp.

    The shape of the lens, and place, size, colour and brightness of the source are drawn
    (`lenspipe.simulate.paint.paint_arcs`); noise and light of the host stay as they are.

    Parameters
    ----------
    image_njy : array (band, y, x)
        Square, the galaxy in the middle, nJy per pixel.
    bands : sequence of str
    pixel_scale_arcsec : float
    psf_fwhm_arcsec : float or mapping of band to float
    theta_e_arcsec : float or (float, float)
        Einstein radius, or the range from which it is drawn.
    sky_rms_njy : float or mapping, optional
        Noise of a pixel, needed for ``min_arc_snr`` and for ``arc_snr`` in the truth.
    min_arc_snr : float, optional
        Least total signal-to-noise of the arcs.
    seed : int

    Returns
    -------
    Stamp
        With ``arcs_njy`` and the truth.

    Raises
    ------
    ConfigError, DataError
        As `lenspipe.simulate.paint.paint_arcs`.

    Examples
    --------
    >>> host = np.zeros((3, 61, 61))
    >>> painted = paint(host, bands="gri", pixel_scale_arcsec=0.2, psf_fwhm_arcsec=0.7, theta_e_arcsec=1.4)
    >>> painted.truth["theta_e_arcsec"], bool(painted.arcs_njy.sum() > 0)
    (1.4, True)
    """
    names = tuple(bands)
    ends = (theta_e_arcsec, theta_e_arcsec) if isinstance(theta_e_arcsec, int | float) else theta_e_arcsec
    rms = None if sky_rms_njy is None else _per_band(sky_rms_njy, names, "sky_rms_njy")
    painted, arcs, truth = paint_arcs(
        image_njy,
        bands=names,
        pixel_scale_arcsec=pixel_scale_arcsec,
        psf=[float(f) for f in _per_band(psf_fwhm_arcsec, names, "psf_fwhm_arcsec")],
        rng=np.random.default_rng(seed),
        theta_e_range_arcsec=(float(ends[0]), float(ends[1])),
        sky_rms_njy=rms,
        min_arc_snr=min_arc_snr,
    )
    if isinstance(theta_e_arcsec, int | float):  # what a logarithm and back left of the last bit
        truth |= {"theta_e_arcsec": float(theta_e_arcsec)}
    return Stamp(painted, names, pixel_scale_arcsec, truth, arcs)


def _per_band(given: PerBand, bands: Sequence[str], what: str) -> NDArray[np.float64]:
    """Values ``(band,)``."""
    if not isinstance(given, Mapping):
        return np.full(len(bands), float(given))
    if missing := [band for band in bands if band not in given]:
        raise ConfigError(f"{what} has no value for a band", band=missing[0], given=" ".join(given))
    return np.array([float(given[band]) for band in bands])
