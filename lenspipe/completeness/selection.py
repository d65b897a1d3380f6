"""The selection function: what part of the painted lenses is recovered, fitted, kept in a folder and asked again."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from lenspipe.completeness.points import Point
from lenspipe.completeness.quantities import HOST, LEAST_LEVELS, Values, axes_of, edges_of, levels_of, values_of
from lenspipe.completeness.seeds import rng_of
from lenspipe.errors import ConfigError
from lenspipe.rundir import read_json
from lenspipe.sky.healpix import cells_of
from lenspipe.stats.intervals import fraction
from lenspipe.stats.recall import recall_in_bins
from lenspipe.stats.smooth import Axis, SmoothFit, fit_smooth
from lenspipe.tables import read_parquet

SELECTION, INJECTIONS, CELLS = "selection.json", "injections.parquet", "healpix.parquet"
OF_PAINTED = "completeness of painted arcs"
OF_LENSES = "completeness of lenses like those painted, which the gate cannot tell from real ones"
ALTERNATIVES = {"arc_snr": "arc_mag", "arc_mag": "arc_snr"}
MOST_AVERAGED = 300
"""Injections that a quantity which is not given is averaged over."""
TOLERANCE = 1e-9
KIND = "kind"
"""Axis of the fits that tells the two kinds apart: 1 for `HOST`, 0 for the other."""
LEAST_OF_A_KIND = 50
"""Injections of each kind that a fit needs to tell them apart."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """Completeness with its 95 % interval; numbers where numbers were given, else arrays."""

    completeness: Any
    low: Any
    high: Any
    what: str
    """What it is the completeness of: `OF_PAINTED`, or `OF_LENSES` where the realism gate was passed."""
    notes: tuple[str, ...] = ()
    """What was asked and makes no difference to the answer, and why."""

    def __repr__(self) -> str:
        notes = "".join(f"; {note}" for note in self.notes)
        if np.ndim(self.completeness):
            return f"<{self.what}, {np.size(self.completeness)} values{notes}>"
        return f"{self.completeness:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.what}{notes})"


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """
    A selection function that was measured; `read` opens one.

    Examples
    --------
    ``read("sel")(theta_e_arcsec=1.5, arc_snr=40)``: what is not given is averaged over the injected lenses.
    """

    points: tuple[Point, ...]
    what: str
    """What it is the completeness of; on every file, plot and answer."""
    fits: Mapping[str, Mapping[str, SmoothFit]]
    """By point, and by which of arc_snr and arc_mag it is a function of."""
    ranges: Mapping[str, tuple[float, float]]
    """Range of every quantity among the injected lenses."""
    values: Values
    """Of the injected lenses that the fits are of, with `KIND`."""
    kind: NDArray[np.str_]
    cells: pa.Table | None = None
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(
        self,
        *,
        at: str | None = None,
        kind: str | None = None,
        ra_deg: float | None = None,
        dec_deg: float | None = None,
        **given: ArrayLike,
    ) -> Answer:
        """
        Completeness for lenses of given properties.

        Parameters
        ----------
        at : str, optional
            Name of an operating point; the first where not given.
        kind : str, optional
            ``host`` or ``sky``; both, as they were injected, where not given. Fits tell them apart where there are
            `LEAST_OF_A_KIND` of each.
        ra_deg, dec_deg : float, optional
            Position: stands for the seeing and depth that its HEALPix pixel has.
        **given
            Numbers or arrays that broadcast: ``theta_e_arcsec``, ``arc_snr`` or ``arc_mag``, ``host_mag``,
            ``host_colour``, ``seeing_arcsec``, ``depth_mag``. What is not given is averaged over the injected lenses.

        Returns
        -------
        Answer
            Its ``notes`` name what was asked and is not in the fit, since too few lenses or different values were
            painted; that is averaged over.

        Raises
        ------
        ConfigError
            No such point or quantity, or a value outside what was injected.
        """
        point = at or self.points[0].name
        if point not in self.fits:
            raise ConfigError("no such operating point", at=point, known=", ".join(self.fits))
        if "arc_snr" in given and "arc_mag" in given:
            raise ConfigError("give arc_snr or arc_mag, not both: one follows from the other")
        asked = dict(given)
        if ra_deg is not None or dec_deg is not None:
            asked |= self._at_position(ra_deg, dec_deg, asked)
        self._check(asked)
        fit = self.fits[point]["arc_mag" if "arc_mag" in given else "arc_snr"]
        names = [axis.name for axis in fit.axes]
        flat = np.broadcast_arrays(*(np.asarray(v, float) for v in asked.values())) if asked else []
        shape = flat[0].shape if flat else ()
        values = {k: v.ravel() for k, v in zip(asked, flat, strict=True) if k in names}
        rows = self._averaged(kind)
        over = {name: self.values[name][rows] for name in names if name not in values}
        found = fit.mean_fraction(values, over) if over else fit.fraction(values)
        n = int(np.prod(shape))
        if not values:  # nothing that was fitted was asked: one number for all
            found = tuple(np.full(n, part[0]) for part in found)  # type: ignore[assignment]
        value, low, high = (part.reshape(shape) if shape else float(part[0]) for part in found)
        notes = (*self._kind_notes(kind, fit), *self._constant_notes(asked, names))
        return Answer(value, low, high, self.what, notes)

    def _constant_notes(self, asked: Mapping[str, ArrayLike], fitted: Collection[str]) -> tuple[str, ...]:
        left_out = [(name, levels_of(self.values[name])) for name in asked if name not in fitted]
        return tuple(
            f"{name} makes no difference: the painted lenses have {n} value{'s' if n > 1 else ''} of it, and "
            f"{LEAST_LEVELS} are needed"
            for name, n in left_out
        )

    def _kind_notes(self, kind: str | None, fit: SmoothFit) -> tuple[str, ...]:
        if kind is None or KIND in {axis.name for axis in fit.axes} or len(numbers := _numbers(self.kind)) < 2:
            return ()
        least, n = min(numbers.items(), key=lambda item: item[1])
        why = f"{n} lenses of kind {least}, and {LEAST_OF_A_KIND} are needed"
        if n >= LEAST_OF_A_KIND:
            why = "an older version of lenspipe fitted it; finish it again with --resume"
        return (f"the fit does not tell kinds apart ({why}), so this is not of {kind} alone",)

    @property
    def kinds_told(self) -> tuple[str, ...]:
        """Kinds that the fits tell apart; none where they do not."""
        told = all(KIND in {a.name for a in fit.axes} for both in self.fits.values() for fit in both.values())
        return tuple(sorted(_numbers(self.kind))) if told else ()

    def _averaged(self, kind: str | None) -> NDArray[np.intp]:
        rows = np.arange(len(self.kind)) if kind is None else np.flatnonzero(self.kind == kind)
        if not len(rows):
            raise ConfigError("no lens of this kind was painted", kind=kind, known=", ".join(sorted(set(self.kind))))
        return rows if len(rows) <= MOST_AVERAGED else rng_of(0, "averaged").permutation(rows)[:MOST_AVERAGED]

    def _check(self, asked: Mapping[str, ArrayLike]) -> None:
        for name, value in asked.items():
            if name not in self.ranges:
                known = ", ".join([*self.ranges, "kind", "ra_deg", "dec_deg", "at"])
                raise ConfigError("the selection function does not know this quantity", quantity=name, known=known)
            low, high = self.ranges[name]
            slack = TOLERANCE * max(abs(low), abs(high), 1.0)
            v = np.asarray(value, float)
            outside = ~((v >= low - slack) & (v <= high + slack))
            if outside.any():
                raise ConfigError(
                    "nothing was injected there, so its completeness is not known",
                    quantity=name,
                    value=float(np.ravel(v)[np.ravel(outside)][0]),
                    injected_from=round(low, 4),
                    injected_to=round(high, 4),
                )

    def _at_position(
        self, ra_deg: float | None, dec_deg: float | None, asked: Mapping[str, ArrayLike]
    ) -> dict[str, ArrayLike]:
        if ra_deg is None or dec_deg is None:
            raise ConfigError("a position needs ra_deg and dec_deg")
        if clash := {"seeing_arcsec", "depth_mag"} & set(asked):
            raise ConfigError("a position has its own seeing and depth; give one or the other", also=min(clash))
        if self.cells is None or not self.cells.num_rows:
            raise ConfigError("this selection function has no map")
        order = int(self.cells["order"][0].as_py())
        cell = int(cells_of(np.array([ra_deg]), np.array([dec_deg]), order)[0])
        rows = np.flatnonzero(self.cells["cell"].to_numpy() == cell)
        if not len(rows):
            raise ConfigError("nothing was injected at this position", ra_deg=ra_deg, dec_deg=dec_deg, order=order)
        row = self.cells.slice(int(rows[0]), 1).to_pylist()[0]
        return {name: row[name] for name in ("seeing_arcsec", "depth_mag") if row[name] is not None}


def _numbers(kind: NDArray[np.str_]) -> dict[str, int]:
    """How many there are of each kind."""
    names, counts = np.unique(kind, return_counts=True)
    return {str(name): int(n) for name, n in zip(names, counts, strict=True)}


def _is_host(kind: NDArray[np.str_]) -> NDArray[np.float64]:
    return (kind == HOST).astype(float)


def _kind_axes(kind: NDArray[np.str_]) -> tuple[Axis, ...]:
    numbers = _numbers(kind)
    told = len(numbers) > 1 and min(numbers.values()) >= LEAST_OF_A_KIND
    return (Axis(KIND, 0.0, 1.0, n_spline=2),) if told else ()


def recovered(injections: pa.Table, threshold: float) -> NDArray[np.bool_]:
    """Which injections have a score above a threshold; those without a score have not."""
    score = injections["score"].to_numpy(zero_copy_only=False)
    return np.asarray(np.nan_to_num(score.astype(float), nan=-np.inf) > threshold)


def fit_selection(
    injections: pa.Table, points: list[Point], *, band: str, colour: tuple[str, str] | None, n_bootstrap: int, seed: int
) -> tuple[dict[str, dict[str, SmoothFit]], Values, NDArray[np.bool_]]:
    """
    Smooth fits for each operating point, in signal-to-noise and in magnitude of the arcs.

    Where there are enough lenses of both kinds the kind is a quantity of its own, which acts together with the Einstein
    radius, the arcs' brightness and the host's magnitude.

    Returns
    -------
    fits : dict
        By point, and by ``arc_snr`` or ``arc_mag``.
    values : dict
        Of the injections that they are of.
    used : array (n,)
        Those: what an injection lacks a value for is left out.
    """
    every = values_of(injections, band=band, colour=colour)
    named = {name: v for name, v in every.items() if np.isfinite(v).any()}
    used = np.all([np.isfinite(v) for v in named.values()], axis=0)
    values = {name: v[used] for name, v in named.items()}
    groups, kind = (np.array(injections[name].to_pylist())[used] for name in ("host_id", "kind"))
    fits: dict[str, dict[str, SmoothFit]] = {}
    for point in points:
        passed = recovered(injections, point.threshold)[used]
        fits[point.name] = {}
        for name, other in ALTERNATIVES.items():
            axes = (*axes_of(values, leave_out=other), *_kind_axes(kind))
            have = {axis.name for axis in axes}
            together = [("theta_e_arcsec", name), (name, "host_mag")]
            together += [(KIND, other) for other in ("theta_e_arcsec", name, "host_mag")]
            fits[point.name][name] = fit_smooth(
                passed,
                values | {KIND: _is_host(kind)},
                axes,
                products=[(one, two) for one, two in together if {one, two} <= have],
                groups=groups,
                n_bootstrap=n_bootstrap,
                rng=rng_of(seed, "fit", point.name, name),
            )
    return fits, values, used


def binned(injections: pa.Table, point: Point, *, band: str, colour: tuple[str, str] | None) -> list[dict[str, Any]]:
    """Completeness at a point in bins of each quantity, for both kinds together and for each."""
    values = values_of(injections, band=band, colour=colour)
    passed, kind = recovered(injections, point.threshold), np.array(injections["kind"].to_pylist())
    rows: list[dict[str, Any]] = []
    for of in ("both", *sorted(set(kind))):
        chosen = np.ones(len(kind), bool) if of == "both" else kind == of
        whole = fraction(int(passed[chosen].sum()), int(chosen.sum()))
        rows.append({"at": point.name, "kind": of, "quantity": "all", "low": None, "high": None, **whole})
        for name, v in values.items():
            if len(edges := edges_of(name, v)) > 1:
                bins = recall_in_bins(passed[chosen], v[chosen], edges)
                rows += [{"at": point.name, "kind": of, "quantity": name, **row} for row in bins]
    return rows


def read(folder: str | Path) -> Selection:
    """
    Open the selection function that ``lenspipe completeness`` wrote.

    Raises
    ------
    ConfigError
        The folder holds none, or one that was not finished.
    """
    folder = Path(folder)
    if not (folder / SELECTION).exists():
        raise ConfigError(
            "no selection function here; name the --out of a `lenspipe completeness` that was finished",
            folder=str(folder),
        )
    raw = read_json(folder / SELECTION)
    injections = read_parquet(folder / INJECTIONS)
    colour = (raw["colour"][0], raw["colour"][1]) if raw["colour"] else None
    every = values_of(injections, band=raw["band"], colour=colour)
    values = {name: every[name] for name in raw["ranges"]}
    used = np.all([np.isfinite(v) for v in values.values()], axis=0)
    kind = np.array(injections["kind"].to_pylist())[used]
    return Selection(
        points=tuple(Point(**point) for point in raw["points"]),
        what=raw["what"],
        fits={
            point: {name: SmoothFit.from_json(fit) for name, fit in both.items()} for point, both in raw["fits"].items()
        },
        ranges={name: (low, high) for name, (low, high) in raw["ranges"].items()},
        values={name: v[used] for name, v in values.items()} | {KIND: _is_host(kind)},
        kind=kind,
        cells=read_parquet(folder / CELLS),
        record=raw,
    )
