"""A data set of stamps with what fitted smooth lenses leave of them as one more band."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d

from lenspipe.disk import new_folder
from lenspipe.errors import ConfigError, DataError
from lenspipe.nn.fitted import CHI2, KEY, LEFT, SmoothFit
from lenspipe.nn.sersic_lens import NAMES, Priors, SersicFit
from lenspipe.readme import write_readme
from lenspipe.robust import robust_sigma
from lenspipe.stamps.format import ImageSpec, StampSet, image_array, image_column, write_part

BATCH = 64
"""Stamps that are fitted together."""
WIDE = {"log_brightness": (0.0, 10.0), "light_log_brightness": (0.0, 10.0)} | dict.fromkeys(
    ("e1", "e2", "light_e1", "light_e2"), (0.0, 0.25)
)
"""Mean and width of what no column tells."""
WIDE |= dict.fromkeys(("centre_x_arcsec", "centre_y_arcsec"), (0.0, 0.0))
SEEING_STEP = 0.05
"""Relative: stamps whose seeing agrees to half of this share a PSF."""
Numbers = NDArray[np.float64]


def priors_of(data: StampSet, *, light: bool | None = None, given: Mapping[str, tuple[float, float]] = {}) -> Priors:
    """
    Means and spreads of the true parameters of simulated stamps of the split train, as priors of a fit.

    Parameters
    ----------
    data : StampSet
        With the columns that `lenspipe simulate` writes of lens and source.
    light : bool, optional
        Whether the lens galaxy is in the images; where left out, whether the data set has its radii.
    given : mapping of a name in `lenspipe.nn.sersic_lens.NAMES` to mean and width, optional
        Taken in place of what the columns say.

    Raises
    ------
    ConfigError
        A name that is given is no parameter, or one of a lens galaxy that does not shine.
    DataError
        A parameter is neither given nor told by columns.
    """
    if unknown := sorted(set(given) - set(NAMES)):
        raise ConfigError("no such parameter of a smooth lens", unknown=",".join(unknown), known=",".join(NAMES))
    learnt = data.column("split") == "train"

    def column(name: str) -> Numbers:
        if name not in data.schema.names:
            return np.array([])
        values = data.column(name).astype(np.float64)[learnt]
        return values[np.isfinite(values)]

    def logarithm(name: str) -> Numbers:
        values = column(name)
        return np.log(values[values > 0])  # the index of a source that is a real image is 0

    def turned(size: Numbers, angle: Numbers) -> tuple[Numbers, Numbers]:
        if len(size) != len(angle):
            return np.array([]), np.array([])
        return size * np.cos(2 * angle), size * np.sin(2 * angle)

    q2 = column("axis_ratio") ** 2
    lens_e = turned((1 - q2) / (1 + q2), column("angle_rad"))
    gamma = turned(column("shear"), column("shear_angle_rad"))
    told = {
        "theta_e_arcsec": column("theta_e_arcsec"),
        **dict(zip(("lens_e1", "lens_e2"), lens_e, strict=True)),
        **dict(zip(("gamma1", "gamma2"), gamma, strict=True)),
        "x_arcsec": column("source_x_arcsec"),
        "y_arcsec": column("source_y_arcsec"),
        "log_radius": logarithm("source_radius_arcsec"),
        "log_n": logarithm("source_n"),
        "light_log_radius": logarithm("lens_radius_arcsec"),
        "light_log_n": logarithm("lens_n"),
    }
    shines = bool(len(told["light_log_radius"])) if light is None else light
    found = WIDE | {name: (float(v.mean()), float(v.std())) for name, v in told.items() if len(v)} | dict(given)
    if not shines:
        if dark := sorted(name for name in given if name.startswith("light_")):
            raise ConfigError("priors of a lens galaxy that is not in the images", given=",".join(dark))
        found = {name: (0.0, 0.0) for name in NAMES if name.startswith("light_")} | {
            name: value for name, value in found.items() if not name.startswith("light_")
        }
    if missing := [name for name in NAMES if name not in found]:
        raise DataError(
            "the stamps have no true values of these parameters: give a simulated set to take them from, or a mean and "
            "a width",
            missing=",".join(missing),
            n_train=int(learnt.sum()),
        )
    mean, width = (torch.tensor([found[name][k] for name in NAMES]) for k in (0, 1))
    return Priors(mean, torch.where(width > 1e-6, width, 0.0), shines)


def write_fitted(
    data: StampSet,
    priors: Priors,
    out: Path,
    *,
    band: str,
    image: str | None = None,
    fwhm_arcsec: float | None = None,
    njy_per_electron: float = 0.0,
    finer: int = 2,
    lit_beyond: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """
    Write a data set again with one more band: stamps less their fitted smooth lenses, in units of the noise.

    The fitted values are columns ``fitted_NAME``, the mean square of what is left ``fitted_chi2``, whose metadata keep
    how it was done (`lenspipe.nn.fitted.SmoothFit`).

    Parameters
    ----------
    data : StampSet
    priors : Priors
    out : path
        The new data set; it must not exist, or be empty. It appears when it is complete.
    band : str
        The band that is fitted.
    image : str, optional
        Image column; the first where left out.
    fwhm_arcsec : float, optional
        FWHM of the PSF; the column ``seeing_BAND_arcsec`` where left out.
    njy_per_electron : float
        For the noise of photons; 0: the sky's noise alone (``sky_rms_BAND_njy``; of a stamp without, the scatter of
        differences in its frame).
    finer : int
        Points per pixel and axis of the model.
    lit_beyond : bool
        Whether the PSF brings light from beyond the stamps' edges, as in those that are cut from larger images.
    progress : function, optional
        Called with the numbers of stamps done and in all.

    Returns
    -------
    dict
        Median mean square of what is left, by label.

    Raises
    ------
    ConfigError, DataError
        No such image or band, pixels not in nJy, fitted before, no stamps, no PSF, a noise that is none, a fit that is
        not finite, or ``out`` holds something.
    """
    if fwhm_arcsec is not None and not 0 < fwhm_arcsec < np.inf:
        raise ConfigError("the FWHM of the PSF is a positive number of arcsec", got=fwhm_arcsec)
    if not 0 <= njy_per_electron < np.inf:
        raise ConfigError("the flux of an electron is 0 or a positive number of nJy", got=njy_per_electron)
    name = image or next(iter(data.images))
    if name not in data.images or band not in data.images[name].bands:
        known = {key: ",".join(spec.bands) for key, spec in data.images.items()}
        raise ConfigError("no such image or band", image=name, band=band, known=str(known))
    spec = data.images[name]
    if spec.unit != "nJy":
        raise ConfigError("a fit takes pixels in nJy, and these are not", data=data.title, unit=spec.unit)
    if f"{band}_{LEFT}" in spec.bands or CHI2 in data.schema.names:
        raise ConfigError("these stamps were fitted before: fit those that they were made of", data=data.title)
    if not data.n:
        raise DataError("there are no stamps to be fitted", data=data.title)
    both = ImageSpec((*spec.bands, f"{band}_{LEFT}"), spec.size_px, spec.pixel_scale_arcsec, spec.unit)
    done_by = SmoothFit(
        band=band,
        size_px=spec.size_px,
        pixel_scale_arcsec=spec.pixel_scale_arcsec,
        priors={name: (float(m), float(w)) for name, m, w in zip(NAMES, priors.mean, priors.width, strict=True)},
        light=priors.light,
        finer=finer,
        fwhm_arcsec=fwhm_arcsec,
        njy_per_electron=njy_per_electron,
    )
    fits: dict[float, SersicFit] = {}
    kept: dict[str, list[float]] = {}
    done = 0
    with new_folder(out) as scratch:
        for part, rows in enumerate(data.iter_batches(batch_size=data.rows_within(64 << 20))):
            stamps = image_array(rows, name)
            one = torch.from_numpy(np.ascontiguousarray(stamps[:, spec.bands.index(band)]))
            seeing, sky = _seeing(rows, band, fwhm_arcsec), _sky(rows, band, one.numpy())
            left, values, n_px = torch.zeros_like(one), torch.zeros(len(one), len(NAMES)), torch.ones(len(one))
            for fwhm in np.unique(seeing):
                if fwhm not in fits:
                    fits[fwhm] = SersicFit.of(
                        spec.size_px, spec.pixel_scale_arcsec, float(fwhm), priors, finer=finer, lit_beyond=lit_beyond
                    )
                own = np.flatnonzero(seeing == fwhm)
                n_px[torch.from_numpy(own)] = fits[fwhm].fine.kept.sum()
                for start in range(0, len(own), BATCH):
                    some = torch.from_numpy(own[start : start + BATCH])
                    sigma = _sigma(one[some], sky[some], njy_per_electron)
                    with torch.inference_mode():
                        values[some], left[some] = fits[fwhm](one[some], sigma)
                    progress(done := done + len(some), data.n)
            chi2 = left.square().flatten(1).sum(1) / n_px
            _refuse(rows, ~(torch.isfinite(chi2) & torch.isfinite(values).all(1)).numpy(), "the fit is not finite")
            for label, value in zip(rows["label"].to_pylist(), chi2.tolist(), strict=True):
                kept.setdefault("not known" if label is None else str(label), []).append(value)
            shown = np.concatenate([stamps, left.numpy()[:, None]], axis=1)
            rows = rows.set_column(rows.schema.get_field_index(name), both.field(name), image_column(shown, both))
            for k, parameter in enumerate(NAMES):
                rows = rows.append_column(_field(parameter), pa.array(values[:, k].numpy()))
            of_fit = _field("chi2")
            of_fit = of_fit.with_metadata({**of_fit.metadata, KEY: done_by.model_dump_json()})
            rows = rows.append_column(of_fit, pa.array(chi2.numpy()))
            write_part(rows, scratch, f"part-{part:05d}")
        write_readme(scratch, "stamps")
    return {label: float(np.median(values)) for label, values in sorted(kept.items())}


def _field(name: str) -> pa.Field:
    what = (
        "mean square of what is left, in units of the noise" if name == "chi2" else f"{name} of the fitted smooth lens"
    )
    unit = "arcsec" if name.endswith("_arcsec") else ""
    return pa.field(f"fitted_{name}", pa.float32(), metadata={"unit": unit, "description": what})


def _seeing(rows: pa.Table, band: str, fwhm_arcsec: float | None) -> Numbers:
    """FWHM of each stamp, rounded to `SEEING_STEP`."""
    if fwhm_arcsec is not None:
        return np.full(len(rows), fwhm_arcsec)
    name = f"seeing_{band}_arcsec"
    values = _told(rows, name)
    if np.isnan(values).any():
        raise DataError("the stamps do not say how wide the PSF is: give --fwhm-arcsec", column=name)
    _refuse(rows, ~((values > 0) & np.isfinite(values)), "the PSF has no such width: give --fwhm-arcsec", column=name)
    steps = np.round(np.log(values) / SEEING_STEP)
    return np.asarray(np.exp(steps * SEEING_STEP).round(6), np.float64)


def _sky(rows: pa.Table, band: str, stamps: NDArray[np.float32]) -> torch.Tensor:
    """Noise of the sky of each stamp: as it is told, or the scatter of differences in its frame."""
    name = f"sky_rms_{band}_njy"
    sky = _told(rows, name)
    if (bare := np.isnan(sky)).any():
        frame = np.ones(stamps.shape[1:], bool)
        width = max(1, len(frame) // 8)
        frame[width:-width, width:-width] = False
        # light that reaches the frame is a slope there; pixels side by side share noise where they were resampled
        steps = (stamps[bare, :, 2:] - stamps[bare, :, :-2]).astype(np.float64) / np.sqrt(2)
        sky[bare] = robust_sigma(steps[:, frame[:, 2:] & frame[:, :-2]], 1)
        _refuse(rows, bare & ~(sky > 0), "a stamp has no noise in its frame", band=band)
    _refuse(rows, ~((sky > 0) & np.isfinite(sky)), "the noise of the sky must be positive", column=name)
    return torch.from_numpy(sky.astype(np.float32))


def _told(rows: pa.Table, name: str) -> Numbers:
    """A column of numbers; NaN where it is null, or is not there."""
    if name not in rows.schema.names:
        return np.full(len(rows), np.nan)
    return np.array(rows[name].to_pylist(), np.float64)


def _refuse(rows: pa.Table, wrong: NDArray[np.bool_], what: str, **facts: str) -> None:
    if wrong.any():
        first = str(rows["stamp_id"][int(np.flatnonzero(wrong)[0])])
        raise DataError(what, **facts, n=int(wrong.sum()), first=first)


def _sigma(stamps: torch.Tensor, sky: torch.Tensor, njy_per_electron: float) -> torch.Tensor:
    """Noise of each pixel: the sky's, and photons of the stamp's own mean over 3 x 3 pixels."""
    bright = avg_pool2d(stamps[:, None], 3, 1, 1, count_include_pad=False)[:, 0].clamp(min=0)
    return torch.sqrt(sky[:, None, None] ** 2 + njy_per_electron * bright)
