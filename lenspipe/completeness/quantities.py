"""What completeness depends on: quantities, their columns and units, and which of them varied enough to be fitted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.stats.smooth import Axis

HOST, SKY = "host", "sky"
"""The two kinds of places, and of painted lenses."""
Values = dict[str, NDArray[np.float64]]


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One quantity."""

    name: str
    """Keyword of a call of the selection function."""
    unit: str
    words: str
    log: bool = False
    edges: tuple[float, ...] = ()
    """Edges of its bins; quantiles where empty."""
    alternative_to: str | None = None
    """Another that says the same: a fit takes one of the two."""


QUANTITIES = (
    Quantity(
        "theta_e_arcsec", "arcsec", "Einstein radius", True, (0.3, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
    ),
    Quantity("arc_snr", "", "arc signal-to-noise", True, (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 200.0, 500.0)),
    Quantity("arc_mag", "mag", "arc magnitude", alternative_to="arc_snr"),
    Quantity("host_mag", "mag", "host magnitude"),
    Quantity("host_colour", "mag", "host colour"),
    Quantity("seeing_arcsec", "arcsec", "seeing (FWHM)"),
    Quantity("depth_mag", "mag", "depth (5 sigma)"),
)
NAMED = {q.name: q for q in QUANTITIES}
LEAST_LEVELS = 5
"""Different values that a quantity needs before a curve is fitted to it."""
N_BIN = 5


def values_of(injections: pa.Table, *, band: str, colour: tuple[str, str] | None) -> Values:
    """
    Arrays (n,) of the quantities of injections; NaN where one is not known.

    Magnitude, seeing and depth are those of ``band``, the colour that of the two bands.
    """
    column = {name: _floats(injections, name) for name in injections.column_names if _is_number(injections, name)}
    values = {
        "theta_e_arcsec": column["theta_e_arcsec"],
        "arc_snr": column["arc_snr"],
        "arc_mag": column[f"arc_mag_{band}"],
        "host_mag": column[f"host_mag_{band}"],
        "seeing_arcsec": column[f"psf_fwhm_{band}_arcsec"],
        "depth_mag": column[f"depth_{band}_mag"],
    }
    if colour:
        values["host_colour"] = column[f"host_mag_{colour[0]}"] - column[f"host_mag_{colour[1]}"]
    return {q.name: values[q.name] for q in QUANTITIES if q.name in values}


def _is_number(table: pa.Table, name: str) -> bool:
    return bool(pa.types.is_floating(table.schema.field(name).type))


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), float)


def ranges_of(values: Mapping[str, NDArray[np.float64]]) -> dict[str, tuple[float, float]]:
    """Range of each quantity that is known of some injection."""
    finite = {name: v[np.isfinite(v)] for name, v in values.items()}
    return {name: (float(v.min()), float(v.max())) for name, v in finite.items() if v.size}


def levels_of(values: NDArray[np.float64]) -> int:
    """How many different values there are."""
    return len(np.unique(values[np.isfinite(values)]))


def axes_of(values: Mapping[str, NDArray[np.float64]], leave_out: str) -> tuple[Axis, ...]:
    """Axes of a fit: quantities with at least `LEAST_LEVELS` values, one of two alternatives left out."""
    axes = []
    for name, (low, high) in ranges_of(values).items():
        levels = levels_of(values[name])
        if name != leave_out and levels >= LEAST_LEVELS and high > low:
            axes.append(Axis(name, low, high, NAMED[name].log, 5 if levels > 30 else 3))
    return tuple(axes)


def edges_of(name: str, values: NDArray[np.float64]) -> list[float]:
    """Edges of the bins of a quantity within its range; fewer than two where it hardly varies."""
    good = values[np.isfinite(values)]
    if levels_of(good) < LEAST_LEVELS:
        return []
    low, high = float(good.min()), float(good.max())
    if fixed := NAMED[name].edges:
        inner = [e for e in fixed if low < e < high]
    else:
        inner = [float(np.round(e, 2)) for e in np.quantile(good, np.linspace(0, 1, N_BIN + 1)[1:-1])]
        inner = [e for e in dict.fromkeys(inner) if low < e < high]
    return [low, *inner, float(np.nextafter(high, np.inf))]
