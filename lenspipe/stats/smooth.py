"""A smooth fraction of several quantities: penalised logistic regression on splines, with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import BSpline
from scipy.special import expit, logit, xlogy

Array = NDArray[np.float64]
DEGREE = 2
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
RIDGE = 1e-3
MOST_ROWS = 20_000
Z95 = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Axis:
    """One quantity that the fraction depends on."""

    name: str
    low: float
    high: float
    """Range of the data; a fraction is asked for nowhere else."""
    log: bool = False
    """Whether the splines are of its logarithm."""
    n_spline: int = 5
    """Basis functions, evenly spaced; 2 for a quantity of two values, which acts as a step."""

    def unit(self, values: ArrayLike) -> Array:
        """Values mapped to 0 to 1."""
        v, low, high = np.asarray(values, float), self.low, self.high
        if self.log:
            v, low, high = np.log(v), float(np.log(low)), float(np.log(high))
        return np.asarray((v - low) / (high - low))

    def basis(self, values: ArrayLike) -> Array:
        """``(n, n_spline - 1)``: B-splines, quadratic from 3 on, but for the last, which the intercept stands for."""
        u = np.clip(self.unit(values), 0, 1)
        degree = min(DEGREE, self.n_spline - 1)
        inner = np.linspace(0, 1, self.n_spline - degree + 1)
        knots = np.r_[[0.0] * degree, inner, [1.0] * degree]
        return np.asarray(BSpline.design_matrix(u, knots, degree).toarray())[:, :-1]


@dataclasses.dataclass(frozen=True, eq=False)
class SmoothFit:
    """A fitted fraction; made by `fit_smooth`."""

    axes: tuple[Axis, ...]
    products: tuple[tuple[str, str], ...]
    """Pairs of quantities that act together beyond their sum."""
    coefficients: Array
    """``(p,)``"""
    bootstrap: Array
    """``(draw, p)`` coefficients of data drawn again, group by group."""
    posterior: Array
    """``(draw, p)`` from the normal approximation of the penalised likelihood."""
    penalty: float

    def fraction(self, values: Mapping[str, ArrayLike]) -> tuple[Array, Array, Array]:
        """Fraction and 95 % interval, arrays (n,), at values by axis."""
        x = design(self.axes, self.products, values)
        return self._with_interval(partial(_mean_of_each, x, 1))

    def mean_fraction(
        self, values: Mapping[str, ArrayLike], over: Mapping[str, ArrayLike]
    ) -> tuple[Array, Array, Array]:
        """
        Fraction and 95 % interval where some quantities are given, averaged over rows of the others.

        Parameters
        ----------
        values : mapping
            Arrays (n,) of the quantities that are given.
        over : mapping
            Arrays (m,) of the others.
        """
        n = len(np.atleast_1d(next(iter(values.values())))) if values else 1
        m = len(np.atleast_1d(next(iter(over.values())))) if over else 1
        full = {k: np.repeat(np.atleast_1d(np.asarray(v, float)), m) for k, v in values.items()}
        full |= {k: np.tile(np.asarray(v, float), n) for k, v in over.items()}
        step = max(1, MOST_ROWS // m)  # a few given values at a time, so that memory is bounded
        parts = []
        for begin in range(0, n, step):
            rows = slice(begin * m, min(begin + step, n) * m)
            x = design(self.axes, self.products, {k: v[rows] for k, v in full.items()})
            parts.append(self._with_interval(partial(_mean_of_each, x, m)))
        value, low, high = (np.concatenate(part) for part in zip(*parts, strict=True))
        return value, low, high

    def _with_interval(self, of: Callable[[Array], Array]) -> tuple[Array, Array, Array]:
        """
        The larger of two standard errors of the log odds.

        The bootstrap knows that rows of a group are alike, and not that a penalty bends the curve; the posterior the
        other way about (Nychka 1988, JASA 83, 1134; Wood 2006, Aust. N. Z. J. Stat. 48, 445).
        """
        value = np.clip(of(self.coefficients[None])[..., 0], 1e-9, 1 - 1e-9)
        spread = [logit(np.clip(of(draws), 1e-9, 1 - 1e-9)).std(axis=-1) for draws in (self.bootstrap, self.posterior)]
        half = Z95 * np.maximum(*spread)
        return value, expit(logit(value) - half), expit(logit(value) + half)

    def to_json(self) -> dict[str, Any]:
        """Everything, as lists; the inverse of `from_json`."""
        return {
            "axes": [dataclasses.asdict(axis) for axis in self.axes],
            "products": [list(pair) for pair in self.products],
            "penalty": self.penalty,
            **{name: np.round(getattr(self, name), 6).tolist() for name in ("coefficients", "bootstrap", "posterior")},
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> SmoothFit:
        """Read what `to_json` gave."""
        return cls(
            tuple(Axis(**axis) for axis in raw["axes"]),
            tuple((one, other) for one, other in raw["products"]),
            np.array(raw["coefficients"], float),
            np.array(raw["bootstrap"], float),
            np.array(raw["posterior"], float),
            raw["penalty"],
        )


def _mean_of_each(x: Array, m: int, coefficients: Array) -> Array:
    """Fraction ``(n, draw)`` of each ``m`` rows that follow each other."""
    return np.asarray(expit(x @ coefficients.T).reshape(len(x) // m, m, -1).mean(axis=1))


def design(axes: Sequence[Axis], products: Sequence[tuple[str, str]], values: Mapping[str, ArrayLike]) -> Array:
    """Design matrix ``(n, p)``: an intercept, splines of each axis, and products of axes."""
    named = {axis.name: axis for axis in axes}
    n = len(np.atleast_1d(np.asarray(next(iter(values.values())))))
    columns = [np.ones((n, 1)), *(axis.basis(np.atleast_1d(np.asarray(values[axis.name], float))) for axis in axes)]
    for pair in products:
        one, other = (np.clip(named[k].unit(np.atleast_1d(np.asarray(values[k], float))), 0, 1) - 0.5 for k in pair)
        columns.append((one * other)[:, None])
    return np.hstack(columns)


def fit_smooth(
    passed: NDArray[np.bool_],
    values: Mapping[str, NDArray[np.floating]],
    axes: Sequence[Axis],
    *,
    products: Sequence[tuple[str, str]] = (),
    groups: NDArray[Any],
    n_bootstrap: int,
    rng: np.random.Generator,
) -> SmoothFit:
    """
    Fit a fraction as a smooth function.

    Logistic regression on quadratic B-splines with a penalty on their second differences (P-splines, Eilers & Marx
    1996, Stat. Sci. 11, 89); of six penalties the one of the least AIC.

    Parameters
    ----------
    passed : array (n,)
        Whether each row passed.
    values : mapping
        Arrays (n,), by axis.
    axes : sequence of Axis
    products : sequence
        Pairs of axes whose product is added.
    groups : array (n,)
        Rows of one group, such as one galaxy, are drawn together.
    n_bootstrap : int
    rng : numpy Generator
    """
    x, y = design(axes, products, values), np.asarray(passed, float)
    rough = _roughness(axes, len(products))
    tried = [(_aic(x, y, penalty * rough), penalty) for penalty in PENALTIES]
    penalty = min(tried)[1]
    matrix = penalty * rough + RIDGE * np.eye(x.shape[1])
    best = logistic(x, y, matrix)
    p = expit(x @ best)
    covariance = np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x + matrix)
    posterior = rng.multivariate_normal(best, covariance, n_bootstrap, method="eigh")
    _, number = np.unique(groups, return_inverse=True)
    n_group = int(number.max()) + 1
    draws = [
        logistic(
            x,
            y,
            matrix,
            weights=np.bincount(rng.integers(n_group, size=n_group), minlength=n_group)[number],
            start=best,
        )
        for _ in range(n_bootstrap)
    ]
    return SmoothFit(tuple(axes), tuple(products), best, np.array(draws), posterior, penalty)


def logistic(
    x: Array, y: Array, penalty: Array, *, weights: NDArray[Any] | None = None, start: Array | None = None
) -> Array:
    """
    Coefficients that maximise the log-likelihood less ``c' penalty c / 2``, by Newton's method.

    Parameters
    ----------
    x : array (n, p)
    y : array (n,)
        0 and 1.
    penalty : array (p, p)
    weights : array (n,), optional
    start : array (p,), optional
    """
    w = np.ones(len(y)) if weights is None else np.asarray(weights, float)
    c = np.zeros(x.shape[1]) if start is None else start.copy()
    for _ in range(60):
        p = expit(x @ c)
        gradient = x.T @ (w * (y - p)) - penalty @ c
        hessian = (x * (w * p * (1 - p))[:, None]).T @ x + penalty
        step = np.linalg.solve(hessian, gradient)
        longest = float(np.abs(step).max())
        c = c + step * min(1.0, 5.0 / max(longest, 1e-300))
        if longest < 1e-8:
            break
    return c


def _roughness(axes: Sequence[Axis], n_product: int) -> Array:
    blocks = [np.zeros((1, 1))]
    for axis in axes:
        second = np.diff(np.eye(axis.n_spline), 2, axis=0)[:, :-1]  # the last one is fixed at zero
        blocks.append(second.T @ second)
    blocks.append(0.05 * np.eye(n_product))
    size = sum(len(b) for b in blocks)
    out, at = np.zeros((size, size)), 0
    for block in blocks:
        out[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return out


def _aic(x: Array, y: Array, penalty: Array) -> float:
    matrix = penalty + RIDGE * np.eye(x.shape[1])
    p = expit(x @ logistic(x, y, matrix))
    information = (x * (p * (1 - p))[:, None]).T @ x
    freedom = float(np.trace(np.linalg.solve(information + matrix, information)))
    return float(-2 * np.sum(xlogy(y, p) + xlogy(1 - y, 1 - p)) + 2 * freedom)
