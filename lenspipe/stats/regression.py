"""Errors of estimated values, and whether the stated uncertainties hold; sums that add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lenspipe.errors import DataError
from lenspipe.stats.intervals import fraction

SIGMAS = (1.0, 2.0)
"""Half-widths of the intervals whose coverage is counted: 68.27 % and 95.45 % of a Gaussian."""


@dataclass(frozen=True)
class ErrorSums:
    """
    What errors of one quantity need to be summed up.

    Attributes
    ----------
    n : int
        Values.
    absolute, bias, square : float
        Sums of ``|e|``, ``e`` and ``e^2``, where e is estimate minus truth.
    mean, spread : float
        Mean of the truth, and sum of its squared deviations from it.
    n_sigma : int
        Values that came with a standard deviation.
    within : tuple of int
        How many of those lie within each of `SIGMAS`.
    """

    n: int = 0
    absolute: float = 0.0
    bias: float = 0.0
    square: float = 0.0
    mean: float = 0.0
    spread: float = 0.0
    n_sigma: int = 0
    within: tuple[int, ...] = (0,) * len(SIGMAS)

    @classmethod
    def of(cls, value: ArrayLike, truth: ArrayLike, sigma: ArrayLike | None = None) -> ErrorSums:
        """
        Sum up estimates ``(n,)`` against the truth ``(n,)``, with their standard deviations ``(n,)`` if there are any.

        Raises
        ------
        DataError
            Something is not finite.
        """
        v, t = np.asarray(value, np.float64), np.asarray(truth, np.float64)
        s = None if sigma is None else np.asarray(sigma, np.float64)
        if not (np.isfinite(v).all() and np.isfinite(t).all() and (s is None or np.isfinite(s).all())):
            raise DataError("estimates and truths must be finite: drop the rows without a truth", n=len(v))
        if not len(v):
            return cls()
        error = v - t
        within = (0,) * len(SIGMAS) if s is None else tuple(int((np.abs(error) <= k * s).sum()) for k in SIGMAS)
        return cls(
            n=len(v),
            absolute=float(np.abs(error).sum()),
            bias=float(error.sum()),
            square=float((error**2).sum()),
            mean=float(t.mean()),
            spread=float(((t - t.mean()) ** 2).sum()),
            n_sigma=0 if s is None else len(s),
            within=within,
        )

    def __add__(self, other: ErrorSums) -> ErrorSums:
        n = self.n + other.n
        if not (self.n and other.n):
            return self if self.n else other
        apart = other.mean - self.mean
        return ErrorSums(
            n=n,
            absolute=self.absolute + other.absolute,
            bias=self.bias + other.bias,
            square=self.square + other.square,
            mean=self.mean + apart * other.n / n,
            # Chan, Golub & LeVeque 1979: sums of squares about two means, without cancellation
            spread=self.spread + other.spread + apart**2 * self.n * other.n / n,
            n_sigma=self.n_sigma + other.n_sigma,
            within=tuple(a + b for a, b in zip(self.within, other.within, strict=True)),
        )

    def metrics(self) -> dict[str, Any]:
        """
        MAE, MSE, RMSE, bias, the RMSE of the mean of the truth (what a constant reaches), and coverage.

        ``mean_rmse_over_rmse`` above 1 says how much better than that constant the estimates are.
        """
        if not self.n:
            raise DataError("no values to compare")
        rmse, constant = (self.square / self.n) ** 0.5, (self.spread / self.n) ** 0.5
        coverage = {f"{k:g}sigma": fraction(count, self.n_sigma) for k, count in zip(SIGMAS, self.within, strict=True)}
        return {
            "n": self.n,
            "mae": self.absolute / self.n,
            "mse": self.square / self.n,
            "rmse": rmse,
            "bias": self.bias / self.n,
            "rmse_of_mean_predictor": constant,
            "mean_rmse_over_rmse": constant / rmse if rmse else None,
            "r2": 1 - self.square / self.spread if self.spread else None,
            "coverage": coverage if self.n_sigma else None,
        }
