"""What fitted smooth lenses leave of stamps as one more band, and what is known of a lens before it is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.infer.fitted import NO_DATA, brightness, priors_of_fit
from lenspipe.nn.damped import n_clump_of
from lenspipe.nn.fitted import KEY, MASSES, OF_FIT, SmoothFit
from lenspipe.nn.point_mass import log_mean, point_mass_maps
from lenspipe.nn.sersic_image import CLUMP, NAMES
from lenspipe.nn.sersic_lens import Priors, SersicFit
from lenspipe.nn.signals import Signals, compared
from lenspipe.robust import robust_sigma
from lenspipe.stamps.format import StampSet, image_array, image_column
from lenspipe.stamps.spec import image_specs
from lenspipe.tables import open_parquet

BATCH = 64
"""Stamps that are fitted together."""
WIDE = {"log_brightness": (0.0, 10.0), "light_log_brightness": (0.0, 10.0)} | dict.fromkeys(
    ("e1", "e2", "light_e1", "light_e2"), (0.0, 0.25)
)
"""Mean and width of what no column tells."""
WIDE |= dict.fromkeys(("centre_x_arcsec", "centre_y_arcsec"), (0.0, 0.0))
MOST_ZERO = 0.9
"""Part of the pixels of a stamp that may be exactly 0; noise that is cut to 0 where it is negative has half of them."""
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
    given : mapping of a name in `lenspipe.nn.sersic_image.NAMES` to mean and width, optional
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


@dataclass(frozen=True)
class FitTask:
    """What is fitted of the stamps of a data set, and how: rows in, rows out; picklable."""

    image: str
    """Image column."""
    fit: SmoothFit
    """The fit as data sets and cards say it."""
    drawn: str | None = None
    """File of the draws of its `signals`."""

    def fitted(self, rows: pa.Table) -> pa.Table:
        """
        Stamps with one more band, the stamp less its fitted smooth lens in units of the noise, and fitted values.

        These are columns ``fitted_NAME``; ``fitted_chi2`` is the mean square of what is left, whose metadata keep
        how it was done (`lenspipe.nn.fitted.SmoothFit`), ``fitted_n_clump`` the
        number of clumps where some may be. Three more bands have the maps of point masses where they are asked for,
        and ``fitted_point_mass_snr``, ``fitted_small_mass_log_odds`` and ``fitted_large_mass_log_odds`` the highest
        significance and the logarithms of the mean odds; ``fitted_CLASS_log_odds`` are those of drawn substructure,
        ``fitted_AMOUNT`` and ``fitted_AMOUNT_error`` how much of it there is if there is any.

        Parameters
        ----------
        rows : pa.Table
            Of a data set of stamps.

        Raises
        ------
        DataError
            A stamp has no PSF, a noise that is none, or a fit that is not finite.
        """
        how, band = self.fit, self.fit.band
        spec = image_specs(rows.schema, where="stamps")[self.image]
        stamps = image_array(rows, self.image)
        one = torch.from_numpy(np.ascontiguousarray(stamps[:, spec.bands.index(band)]))
        _refuse(rows, ~np.isfinite(one.numpy()).all(axis=(1, 2)), "a pixel is not a finite number", band=band)
        dark = (one == 0).flatten(1).float().mean(1) > MOST_ZERO
        _refuse(rows, dark.numpy(), "a stamp has hardly a pixel that is not 0", band=band)
        # of simulated stamps a pixel that is exactly 0 is a value: noise that is cut at 0
        bad = (one == 0) & how.lit_beyond
        seeing, sky = _seeing(rows, band, how.fwhm_arcsec), _sky(rows, band, one.numpy(), bad.numpy())
        gain, priors = _gain(rows, band, how.njy_per_electron), priors_of_fit(how)
        left, n_px = torch.zeros_like(one), torch.ones(len(one))
        masses = one.new_zeros((len(one), len(how.made) - 1, *one.shape[1:]))
        values = torch.zeros(len(one), len(NAMES) + how.clumps * len(CLUMP))
        drawn = signals_of(self.drawn) if self.drawn else None
        minima = drawn is not None and how.clumps > 0
        of_draws = torch.zeros(len(one), len(how.compared))
        options: dict[str, Any] = {
            "finer": how.finer,
            "clumps": how.clumps,
            "rounds": how.rounds,
            "lit_beyond": how.lit_beyond,
        }
        for fwhm in np.unique(seeing):
            fit = SersicFit.of(spec.size_px, spec.pixel_scale_arcsec, float(fwhm), priors, **options)
            own = np.flatnonzero(seeing == fwhm)
            n_px[torch.from_numpy(own)] = (fit.fine.kept * ~bad[own]).flatten(1).sum(1)
            for start in range(0, len(own), BATCH):
                some = torch.from_numpy(own[start : start + BATCH])
                sigma = _sigma(one[some], bad[some], sky[some], gain[some])
                sigma = torch.where(bad[some], NO_DATA * sky[some][:, None, None], sigma)
                with torch.inference_mode():
                    values[some], left[some], others = fit.sought(one[some], sigma, others=minima)
                    if how.point_masses:
                        masses[some] = point_mass_maps(fit, one[some], sigma, values[some])
                    if drawn:
                        of_draws[some] = compared(
                            fit, one[some], sigma, values[some], drawn, others if minima else None
                        )
        chi2 = left.square().flatten(1).sum(1) / n_px
        left, masses = left * ~bad, masses * ~bad[:, None]
        values, n_clump = values[:, : len(NAMES)], n_clump_of(values)
        finite = torch.isfinite(chi2) & torch.isfinite(values).all(1) & torch.isfinite(masses).flatten(1).all(1)
        _refuse(rows, ~finite.numpy(), "the fit is not finite")
        both = replace(spec, bands=(*spec.bands, *how.made))
        shown = np.concatenate([stamps, left.numpy()[:, None], masses.numpy()], axis=1)
        place = rows.schema.get_field_index(self.image)
        rows = rows.set_column(place, both.field(self.image), image_column(shown, both))
        for k, parameter in enumerate(NAMES):
            rows = rows.append_column(_field(parameter), pa.array(values[:, k].numpy()))
        if how.point_masses:
            highest = [masses[:, 0].flatten(1).amax(1), *(log_mean(odds) for odds in masses[:, 1:].unbind(1))]
            for name, numbers in zip(
                ("point_mass_snr", *(f"{one}_log_odds" for one in MASSES[1:])), highest, strict=True
            ):
                rows = rows.append_column(_field(name), pa.array(numbers.numpy()))
        for name, numbers in zip(how.compared, of_draws.numpy().T, strict=True):
            rows = rows.append_column(_drawn_field(name), pa.array(numbers, mask=np.isnan(numbers)))
        if how.clumps:
            rows = rows.append_column(_field("n_clump"), pa.array(n_clump.float().numpy()))
        of_fit = _field("chi2")
        of_fit = of_fit.with_metadata({**of_fit.metadata, KEY: how.model_dump_json()})
        return rows.append_column(of_fit, pa.array(chi2.numpy()))


def signals_of(path: str) -> Signals:
    """Draws of a file, laid to places once per process."""
    return _signals_of(path, Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _signals_of(path: str, written_ns: int) -> Signals:
    with open_parquet(path) as file:
        return Signals.of(file.read())


def _field(name: str) -> pa.Field:
    others = {
        "chi2": "mean square of what is left, in units of the noise",
        "n_clump": "clumps of the fitted source",
        "small_mass_log_odds": "logarithm of the odds that a small point mass is somewhere, to nowhere",
        "large_mass_log_odds": "logarithm of the odds that a large point mass is somewhere, to nowhere",
        "point_mass_snr": "highest significance of a point mass beside the fitted smooth lens",
    }
    what = others.get(name, f"{name} of the fitted smooth lens")
    unit = "arcsec" if name.endswith("_arcsec") else ""
    return pa.field(f"{OF_FIT}{name}", pa.float32(), metadata={"unit": unit, "description": what})


def _drawn_field(column: str) -> pa.Field:
    """Of what drawn substructure tells."""
    name = column.removeprefix(OF_FIT)
    amount = name.removesuffix("_error")
    if name.endswith("_log_odds"):
        what = f"natural logarithm of the evidence for {name.removesuffix('_log_odds')} over none"
    elif amount != name:
        what = f"standard deviation of {OF_FIT}{amount}"
    else:
        what = f"mean of {amount} over the draws of its class, each by its likelihood"
    units = {"arcsec": "arcsec", "arcsec2": "arcsec2"}
    return pa.field(column, pa.float32(), metadata={"unit": units.get(amount.split("_")[-1], ""), "description": what})


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


def _sky(rows: pa.Table, band: str, stamps: NDArray[np.float32], bad: NDArray[np.bool_]) -> torch.Tensor:
    """Noise of the sky of each stamp: as it is told, or the scatter of differences of pixels of its frame."""
    name = f"sky_rms_{band}_njy"
    sky = _told(rows, name)
    if (bare := np.isnan(sky)).any():
        frame = np.ones(stamps.shape[1:], bool)
        width = max(1, len(frame) // 8)
        frame[width:-width, width:-width] = False
        # light that reaches the frame is a slope there; pixels side by side share noise where they were resampled
        for k in np.flatnonzero(bare):
            used = frame & ~bad[k]
            steps = (stamps[k, :, 2:] - stamps[k, :, :-2])[used[:, 2:] & used[:, :-2]].astype(np.float64)
            sky[k] = robust_sigma(steps) / np.sqrt(2) if len(steps) else 0.0
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


def _gain(rows: pa.Table, band: str, njy_per_electron: float | None) -> torch.Tensor:
    """Flux of an electron of each stamp: as given, else as it is told; 0 where it is not."""
    if njy_per_electron is not None:
        return torch.full((len(rows),), njy_per_electron)
    name = f"njy_per_electron_{band}"
    gain = np.nan_to_num(_told(rows, name), nan=0.0, posinf=np.inf, neginf=-np.inf)
    _refuse(rows, ~((gain >= 0) & np.isfinite(gain)), "the flux of an electron is 0 or positive", column=name)
    return torch.from_numpy(gain.astype(np.float32))


def _sigma(stamps: torch.Tensor, bad: torch.Tensor, sky: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Noise of each pixel: the sky's, and photons of the stamp's own mean over 3 x 3 pixels."""
    return torch.sqrt(sky[:, None, None] ** 2 + gain[:, None, None] * brightness(stamps, bad))
