"""One data set fitted, from request to folder: fit the units that are not there, and move them in when all are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.disk import remove_scratch
from lenspipe.errors import ConfigError, DataError
from lenspipe.infer.fitted_set import FitTask
from lenspipe.nn.fitted import LEFT, MASSES, ODDS_WAY, OF_FIT, DrawnSignals, SmoothFit, amounts_of
from lenspipe.nn.sersic_image import NAMES
from lenspipe.nn.sersic_lens import Priors
from lenspipe.rundir import open_run, read_json, utc_now, versions, write_json
from lenspipe.runner import SILENT, Progress, Start, here
from lenspipe.stamps.format import StampSet, write_part
from lenspipe.tables import open_parquet, read_footer, write_table

WAITING, RECORD, DRAWN = ".fitted", "fit.json", "signals"
"""Folder, in that of the output, of the units until all are there: what is half fitted is no data set; what is said of
the whole; and, in the folder, the draws that workers read."""
UNIT_BYTES = 16 << 20
"""Pixels of a unit of work at most, unless one row group of the stamps has more."""
PIXEL_S = 8e-6
"""About what a fit takes per pixel of a stamp, at two model points a side."""
ODDS_S, MAPS_S = 4e-5, 4e-9
"""Likewise what odds of drawn signals take, of one minimum, and maps of point masses per square of the pixels."""
MINIMA = 3
"""About so many of a lens with clumps are compared with draws."""
VERSION = 4
"""Of what a fit does: parts that another one made are not gone on with."""
APART = 2.0
"""A gain that is given may be so many times that of a stamp, or that part of it."""


@dataclass(frozen=True)
class Unit:
    """Some row groups of a part of the stamps, which become one part of the output."""

    name: str
    source: str
    first: int
    after: int
    """Row groups from ``first`` on, before ``after``."""
    n: int
    """Stamps."""

    def __len__(self) -> int:
        return self.n


@dataclass(frozen=True)
class FitUnits:
    """A fit and where what it makes goes: what a worker needs to make any unit; picklable."""

    task: FitTask
    folder: str

    def make(self, unit: Unit) -> int:
        """Fit one unit and write it; returns its stamps."""
        with open_parquet(unit.source, pre_buffer=False) as file:
            rows = file.read_row_groups(list(range(unit.first, unit.after)))
        write_part(self.task.fitted(rows.combine_chunks()), self.folder, unit.name)
        return unit.n


class Runner(Protocol):
    """Fits units and writes them; the plain loop, or Ray."""

    def __call__(self, units: Sequence[Unit], work: FitUnits, *, on_unit: Callable[[int], None]) -> None:
        """Make ``units``; ``on_unit`` is called here with the stamps of each when it is written."""
        ...


def fit_local(units: Sequence[Unit], work: FitUnits, *, on_unit: Callable[[int], None]) -> None:
    """Fit units one after the other: the reference that every other runner must equal."""
    for unit in units:
        on_unit(work.make(unit))


PLAIN: Start[Runner] = here(fit_local)


def write_fitted(
    data: StampSet,
    priors: Priors,
    out: Path,
    *,
    band: str,
    image: str | None = None,
    fwhm_arcsec: float | None = None,
    njy_per_electron: float | None = None,
    finer: int = 2,
    clumps: int = 0,
    rounds: int = 0,
    point_masses: bool = False,
    signals: tuple[DrawnSignals, pa.Table] | None = None,
    lit_beyond: bool = False,
    runner: Start[Runner] = PLAIN,
    resume: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """
    Write a data set again with one more band: stamps less their fitted smooth lenses, in units of the noise.

    The rows do not depend on workers or on what was there before. They appear when all are there.

    Parameters
    ----------
    data : StampSet
    priors : Priors
    out : path
        New or empty folder, or a fit to go on with.
    band : str
        The band that is fitted.
    image : str, optional
        Image column; the first where left out.
    fwhm_arcsec : float, optional
        FWHM of the PSF; the column ``seeing_BAND_arcsec`` where left out.
    njy_per_electron : float, optional
        For the noise of photons, beside that of the sky (``sky_rms_BAND_njy``; of a stamp without, the scatter of
        differences in its frame); the column ``njy_per_electron_BAND`` where left out, and none where that is null.
    finer : int
        Points per pixel and axis of the model.
    clumps : int
        Clumps that a source may have; each is kept where it makes the fit better by much.
    rounds : int
        Times that lenses with clumps are sought again (`lenspipe.nn.sersic_lens.ROUNDS`).
    point_masses : bool
        Write three more bands: how significant a point mass would be at each place, and logarithms of the odds of small
        and of large ones (`lenspipe.nn.point_mass`).
    signals : (DrawnSignals, pa.Table), optional
        Substructure as a recipe draws it, of `drawn_signals`: write ``fitted_CLASS_log_odds``, the logarithm of how
        much more probable each stamp is with it than without, and ``fitted_AMOUNT`` and ``fitted_AMOUNT_error``, how
        much of it there is if there is any (`lenspipe.nn.signals`).
    lit_beyond : bool
        Whether the stamps were cut from larger images: the PSF brings light from beyond their edges, and pixels of
        exactly 0 are no data.
    runner : Start, optional
        What fits the units; the plain loop by default.
    resume : bool
        Go on with a fit that was cut off.
    progress : Progress, optional

    Returns
    -------
    dict
        ``mean_square_left``: median of what is left, by label; ``photons``: what their noise goes by, in words;
        ``rows``, ``new_rows``, ``seconds``.

    Raises
    ------
    ConfigError, DataError
        No such image or band, pixels not in nJy, fitted before, no stamps, no PSF, a noise that is none or is not that
        of the stamps, a fit that is not finite, or ``out`` holds something else.
    """
    begun = time.perf_counter()
    if signals and not priors.width[NAMES.index("theta_e_arcsec")] > 0:
        raise ConfigError(
            "odds of drawn signals need an Einstein radius that is fitted: substructure takes its mass from the lens",
            prior="theta_e_arcsec",
        )
    name = image or next(iter(data.images))
    _demand_fittable(data, name, band, fwhm_arcsec, njy_per_electron)
    photons = photons_of(data, band, njy_per_electron)
    mean, width = (tuple(float(v) for v in values) for values in (priors.mean, priors.width))
    if njy_per_electron is None and not len(gains_told(data, band)):
        njy_per_electron = 0.0
    spec = data.images[name]
    fit = SmoothFit(
        band=band,
        size_px=spec.size_px,
        pixel_scale_arcsec=spec.pixel_scale_arcsec,
        priors=dict(zip(NAMES, zip(mean, width, strict=True), strict=True)),
        light=priors.light,
        finer=finer,
        clumps=clumps,
        rounds=rounds if clumps else 0,
        point_masses=point_masses,
        signals=signals[0] if signals else None,
        lit_beyond=lit_beyond,
        fwhm_arcsec=fwhm_arcsec,
        njy_per_electron=njy_per_electron,
    )
    units = plan_units(data)
    request = {
        "command": "stamps fit",
        "data": os.path.abspath(data.folder),
        "stamps": _digest(data, units),
        "image": name,
        "bands": list(fit.made),
        "version": VERSION,
        **fit.model_dump(mode="json", exclude={"chi2", "size_px", "pixel_scale_arcsec"}),
    }
    if not signals:
        del request["signals"]  # as requests were before there were any
    waiting = out / WAITING
    with open_run(
        out,
        request,
        resume=resume,
        command="--out",
        own=(RECORD, WAITING),
        readme="stamps",
        has_work=lambda: any(out.glob("*.parquet")) or any(waiting.glob("*.parquet")),
    ):
        todo = [unit for unit in units if not _is_there(out, unit)]
        if not todo and (out / RECORD).exists():  # a resume of what is whole
            return read_json(out / RECORD)["result"] | {"new_rows": 0}
        remove_scratch(waiting)
        n_new = sum(map(len, todo))
        progress.stage("Fitting", data.n, data.n - n_new)
        if todo:
            drawn = os.path.abspath(waiting / DRAWN) if signals else None
            if signals and drawn:
                waiting.mkdir(exist_ok=True)
                write_table(signals[1], Path(drawn))
            each = (
                PIXEL_S * (1 + clumps) * (1 + 0.5 * fit.rounds)
                + ODDS_S * (MINIMA if clumps else 1) * (drawn is not None)
                + MAPS_S * spec.size_px**2 * point_masses
            )
            with runner(n_new * spec.size_px**2 * each * (finer / 2) ** 2) as run:
                run(todo, FitUnits(FitTask(name, fit, drawn), os.path.abspath(waiting)), on_unit=progress.advance)
        for part in sorted(waiting.glob("*.parquet")):
            os.replace(part, out / part.name)
        shutil.rmtree(waiting, ignore_errors=True)
        result = {
            "mean_square_left": medians_left(StampSet.open(out)),
            "photons": photons,
            "rows": data.n,
            "new_rows": n_new,
            "seconds": round(time.perf_counter() - begun, 2),
        }
        write_json(out / RECORD, {"result": result, "finished": utc_now(), "versions": versions()})
    return result


def drawn_signals(recipe: str, substructure: str, table: pa.Table, *, seed: int) -> tuple[DrawnSignals, pa.Table]:
    """Draws of `lenspipe.simulate.signals.draw_signals`, and how data sets say them; the recipe's table as JSON."""
    labels = tuple(dict.fromkeys(table["label"].to_pylist()))
    flat = (np.asarray(table[name].combine_chunks().flatten()) for name in ("x", "y", "square_arcsec2"))
    said = DrawnSignals(
        recipe=recipe,
        labels=labels,
        amounts=tuple(name for one in labels for name in amounts_of(table.filter(pc.equal(table["label"], one)))),
        draws=len(table) // len(labels),
        seed=seed,
        table=hashlib.sha256(substructure.encode()).hexdigest()[:16],
        digest=hashlib.sha256(b"".join(one.tobytes() for one in flat)).hexdigest()[:16],
        way=ODDS_WAY,
    )
    return said, table


def plan_units(data: StampSet) -> list[Unit]:
    """Units of a data set in the order of its rows: the same whoever makes them."""
    units: list[Unit] = []
    most = data.rows_within(UNIT_BYTES)
    for part in data.parts:
        footer, first, n = read_footer(part), 0, 0
        for group in range(footer.num_row_groups):
            more = footer.row_group(group).num_rows
            if n and n + more > most:
                units.append(Unit(f"part-{len(units):06d}", str(part), first, group, n))
                first, n = group, 0
            n += more
        if n:
            units.append(Unit(f"part-{len(units):06d}", str(part), first, footer.num_row_groups, n))
    return units


def medians_left(fitted: StampSet) -> dict[str, float]:
    """Median mean square of what is left of fitted stamps, by label."""
    label, chi2 = fitted.column("label"), fitted.column("fitted_chi2")
    known = np.array(["not known" if one is None else str(one) for one in label])
    return {str(one): float(np.median(chi2[known == one])) for one in np.unique(known)}


def gains_told(data: StampSet, band: str) -> NDArray[np.float64]:
    """Flux of an electron of those stamps that say it, nJy."""
    name = f"njy_per_electron_{band}"
    told = data.column(name).astype(np.float64) if name in data.schema.names else np.array([])
    return told[np.isfinite(told)]


def photons_of(data: StampSet, band: str, njy_per_electron: float | None) -> str:
    """
    What the noise of photons goes by, in words.

    Raises
    ------
    ConfigError
        What is given is not what the stamps say.
    """
    name, known = f"njy_per_electron_{band}", gains_told(data, band)
    low, high = (float(known.min()), float(known.max())) if len(known) else (np.nan, np.nan)
    if njy_per_electron is not None:
        if len(known) and not high / APART <= njy_per_electron <= low * APART:
            raise ConfigError(
                "the stamps say another flux of an electron: leave --njy-per-electron out",
                got=njy_per_electron,
                column=name,
                least=low,
                most=high,
            )
        return f"of photons of {njy_per_electron:.3g} nJy, as given" if njy_per_electron else "not of photons, as asked"
    if not len(known):
        return f"not of photons, of which neither --njy-per-electron nor a column {name} tells"
    span = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    without = f", but of {data.n - len(known)} stamps that do not say" if len(known) < data.n else ""
    return f"of photons by {name} ({span} nJy){without}"


def _demand_fittable(
    data: StampSet, name: str, band: str, fwhm_arcsec: float | None, njy_per_electron: float | None
) -> None:
    if fwhm_arcsec is not None and not 0 < fwhm_arcsec < np.inf:
        raise ConfigError("the FWHM of the PSF is a positive number of arcsec", got=fwhm_arcsec)
    if njy_per_electron is not None and not 0 <= njy_per_electron < np.inf:
        raise ConfigError("the flux of an electron is 0 or a positive number of nJy", got=njy_per_electron)
    if name not in data.images or band not in data.images[name].bands:
        known = {key: ",".join(spec.bands) for key, spec in data.images.items()}
        raise ConfigError("no such image or band", image=name, band=band, known=str(known))
    spec = data.images[name]
    if spec.unit != "nJy":
        raise ConfigError("a fit takes pixels in nJy, and these are not", data=data.title, unit=spec.unit)
    if {f"{band}_{name}" for name in (LEFT, *MASSES)} & set(spec.bands) or any(
        field.startswith(OF_FIT) for field in data.schema.names
    ):
        raise ConfigError("these stamps were fitted before: fit those that they were made of", data=data.title)
    if not data.n:
        raise DataError("there are no stamps to be fitted", data=data.title)


def _is_there(out: Path, unit: Unit) -> bool:
    paths = (folder / f"{unit.name}.parquet" for folder in (out, out / WAITING))
    return any(path.exists() and read_footer(path).num_rows == unit.n for path in paths)


def _digest(data: StampSet, units: Sequence[Unit]) -> str:
    """Which stamps, as far as the sizes of their parts tell: what must be the same for a resume."""
    facts: list[Mapping[str, Any]] = [{"part": part.name, "bytes": part.stat().st_size} for part in data.parts]
    return hashlib.sha256(json.dumps([facts, [unit.n for unit in units]]).encode()).hexdigest()[:16]
