"""
The best that any classifier can do: ideal observers of signals in Gaussian noise, nuisance parameters marginalised.

Vectors are in units of the noise, ``(signal, pixel)``. A nuisance parameter with a Gaussian prior adds ``J P J^T`` to
the covariance of the noise (to first order), and all that an observer can use of signals is their inner products under
its inverse: `marginalised_products`. `coordinates` are vectors with those products, in noise of unit covariance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Array = NDArray[np.float64]


def marginalised_products(signals: Array, jacobian: Array, prior_sd: Array) -> Array:
    """
    Inner products of signals under noise that nuisance parameters add to, ``s^T (1 + J P J^T)^-1 t``.

    By Woodbury's identity ``s^T t - s^T J (P^-1 + J^T J)^-1 J^T t``; the diagonal is the square of the signal-to-noise
    that is left.

    Parameters
    ----------
    signals : array (signal, pixel)
        In units of the noise.
    jacobian : array (parameter, pixel)
        Change of the noise-free image per unit of each nuisance parameter, in the same units.
    prior_sd : array (parameter,)
        Standard deviations of their priors; what is known has none and is left out.

    Returns
    -------
    array (signal, signal)

    Examples
    --------
    >>> bright, slope = np.ones((1, 4)), np.array([[1.0, 1, -1, -1]])
    >>> [float(marginalised_products(bright, j, np.array([1e6]))[0, 0].round(6)) for j in (slope, bright)]
    [4.0, 0.0]
    """
    scaled = jacobian * prior_sd[:, None]
    along = signals @ scaled.T
    inner = np.eye(len(scaled)) + scaled @ scaled.T
    products: Array = signals @ signals.T - along @ np.linalg.solve(inner, along.T)
    return (products + products.T) / 2


def coordinates(products: Array) -> Array:
    """Vectors ``(signal, axis)`` with these inner products, axes without length left out."""
    values, vectors = np.linalg.eigh(products)
    kept = values > max(values[-1], 0.0) * 1e-10
    found: Array = vectors[:, kept] * np.sqrt(values[kept])
    return found


def whitened(signals: Array, jacobian: Array, prior_sd: Array) -> Array:
    """
    Signals ``(signal, pixel)`` whose plain products are the marginalised ones: in noise of unit covariance.

    Multiplied by ``(1 + J P J^T)^-1/2``. Of many signals, where `coordinates` would need all their products.
    """
    scaled = jacobian * prior_sd[:, None]
    _, size, axes = np.linalg.svd(scaled, full_matrices=False)
    found: Array = signals - ((signals @ axes.T) * (1 - 1 / np.sqrt(1 + size**2))) @ axes
    return found


def told_of_sets(
    data: Array, truth: NDArray[np.integer], own: NDArray[np.integer], draws: Sequence[Array], sizes: Sequence[int]
) -> Array:
    """
    Posterior of classes for observers who are told, of each class, a set of signals of which one would be there.

    One who is told a larger set knows less: who knows the smaller can add signals that the recipe draws. So their
    areas fall towards those of the best classifier, which knows the distribution alone, and never below. A set of one
    is `told_posteriors`; `untold_posteriors` knows sets without the signal that is there.

    Parameters
    ----------
    data : array (n, axis)
        Signal plus noise of unit covariance.
    truth, own : arrays (n,)
        Class of each, and which of its class's `draws` is there.
    draws : arrays (draw, axis) by class
        Signals of each class, those that made the data among them; a single zero for one that has none.
    sizes : ints
        Of the sets, falling or rising; of a class with fewer draws all are told.

    Returns
    -------
    array (size, n, class)
    """
    found = np.empty((len(sizes), len(data), len(draws)))
    for c, some in enumerate(draws):
        log_likelihood = data @ some.T - 0.5 * np.sum(some**2, axis=1)
        here = np.flatnonzero(truth == c)
        # first the one that is there, then the others as they were drawn
        for row in here:
            log_likelihood[row, [0, own[row]]] = log_likelihood[row, [own[row], 0]]
        for k, size in enumerate(sizes):
            told = log_likelihood[:, :size]
            found[k, :, c] = logsumexp(told, axis=1) - np.log(told.shape[1])
    posterior: Array = np.exp(found - logsumexp(found, axis=2, keepdims=True))
    return posterior


def told_posteriors(signals: Array, truth: NDArray[np.integer], rng: np.random.Generator) -> Array:
    """
    Posterior of classes for an observer who is told which signal each class would have in this very image.

    Nobody knows less of a class than its signal, so by Neyman and Pearson's lemma no ROC curve lies above these.

    Parameters
    ----------
    signals : array (class, axis)
        The signal of each class, in noise of unit covariance; zero where a class has none.
    truth : array (draw,)
        Class of each draw of data.

    Returns
    -------
    array (draw, class)
    """
    data = signals[truth] + rng.standard_normal((len(truth), signals.shape[1]))
    log_likelihood = data @ signals.T - 0.5 * np.sum(signals**2, axis=1)
    posterior: Array = np.exp(log_likelihood - logsumexp(log_likelihood, axis=1, keepdims=True))
    return posterior


def untold_posteriors(data: Array, draws: Sequence[Array]) -> Array:
    """
    Posterior of classes for an observer who knows how signals are distributed, and not which one is there.

    The density of each class is the mean of two that `draws` give: a Gaussian with their mean and covariance, and the
    mixture of all of them. Whatever the true density is, this is a rule that could be used: its areas can be reached.

    Parameters
    ----------
    data : array (n, axis)
        Signal plus noise of unit covariance.
    draws : arrays (draw, axis) by class
        Signals of each class; a single zero for one that has none. Not those that made the data.

    Returns
    -------
    array (n, class)
    """
    log_density = np.stack([_log_density(data, one) for one in draws], axis=1)
    posterior: Array = np.exp(log_density - logsumexp(log_density, axis=1, keepdims=True))
    return posterior


def _log_density(data: Array, draws: Array) -> Array:
    squares = np.sum(data**2, axis=1)[:, None] - 2 * data @ draws.T + np.sum(draws**2, axis=1)
    mixture: Array = logsumexp(-0.5 * squares, axis=1) - np.log(len(draws))
    if len(draws) < 2:
        return mixture
    mean = draws.mean(axis=0)
    spread, away = (draws - mean) / np.sqrt(len(draws) - 1), data - mean
    inner = np.eye(len(draws)) + spread @ spread.T
    along = away @ spread.T
    quadratic = np.sum(away**2, axis=1) - np.sum(along * np.linalg.solve(inner, along.T).T, axis=1)
    gaussian = -0.5 * (quadratic + np.linalg.slogdet(inner)[1])
    both: Array = np.logaddexp(mixture, gaussian) - np.log(2)
    return both


def information_of_spread(draws: Array) -> float:
    """
    Fisher information on the logarithm of the amount of signals that are there in numbers, from their covariance.

    With ``C`` proportional to the amount, ``I = 1/2 tr((1 + C)^-1 C)^2``: the amount of many weak signals at unknown
    places, as of a mass fraction in subhalos, of which only the power tells.

    Parameters
    ----------
    draws : array (draw, axis)
        Signals in noise of unit covariance.
    """
    away = (draws - draws.mean(axis=0)) / np.sqrt(len(draws) - 1)
    power = np.linalg.svd(away, compute_uv=False) ** 2
    return float(0.5 * np.sum((power / (1 + power)) ** 2))


def best_errors(log_truth: Array, sd: Array, log_range: tuple[float, float], rng: np.random.Generator) -> Array:
    """
    Errors of the best estimate of amounts whose logarithm is measured with Gaussian errors, prior log-uniform.

    The best estimate is the posterior mean of the amount. Of a signal that is proportional to its amount and known but
    for it, the logarithm is known to one over its signal-to-noise.

    Parameters
    ----------
    log_truth, sd : arrays (n,)
        Logarithms of the amounts, drawn from the prior, and the errors of their measurement.
    log_range : (float, float)
        Of the prior.

    Returns
    -------
    array (n,)
        Estimate minus truth, in the unit of the amount.
    """
    axis = np.linspace(*log_range, 400)
    measured = log_truth + sd * rng.standard_normal(len(log_truth))
    log_posterior = -0.5 * ((measured[:, None] - axis) / sd[:, None]) ** 2
    weight = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
    errors: Array = (weight @ np.exp(axis)) / weight.sum(axis=1) - np.exp(log_truth)
    return errors
