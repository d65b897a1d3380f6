"""The realism gate: can painted lenses be told from real ones, and painted hosts from bare ones?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.completeness.seeds import rng_of
from lenspipe.errors import ConfigError
from lenspipe.image.statistics import GROUPS, image_statistics
from lenspipe.infer.loaded import LoadedNetwork
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import ModelCard
from lenspipe.stamps.format import StampSet
from lenspipe.stats.probe import tell_apart

LENSES, RESIDUALS = "real lenses against painted ones", "painted hosts without their arcs against bare hosts"
FINDER, STATISTICS = "features of the finder", "image statistics"
LENS = "lens"
NEAREST = 3
"""Painted lenses of the most similar brightness that are compared for each real one, at least; twice as many in all."""


@dataclasses.dataclass(frozen=True, eq=False)
class Stamps:
    """Stamps ``(n, band, y, x)`` in nJy of one pixel scale, the host of each, and its name."""

    pixels_njy: NDArray[np.float32]
    host: NDArray[np.str_]
    name: NDArray[np.str_]
    pixel_scale_arcsec: float

    def __len__(self) -> int:
        return len(self.host)

    def take(self, rows: NDArray[Any]) -> Stamps:
        """Some of them."""
        return Stamps(self.pixels_njy[rows], self.host[rows], self.name[rows], self.pixel_scale_arcsec)


def stamps_of(
    notes: pa.Table, column: str, *, host: str, name: str, n_band: int, stamp_px: int, pixel_scale_arcsec: float
) -> Stamps:
    """Stamps that were kept in a column of notes; rows without one, and of another size, are left out."""
    kept, hosts, names = [], [], []
    of = (notes[key].to_pylist() for key in (column, host, name))
    for value, whose, called in zip(*of, strict=True):
        if value is not None and len(value) == 4 * n_band * stamp_px**2:
            kept.append(np.frombuffer(value, "<f4").reshape(n_band, stamp_px, stamp_px))
            hosts.append(whose)
            names.append(called)
    pixels = np.stack(kept) if kept else np.empty((0, n_band, stamp_px, stamp_px), np.float32)
    return Stamps(pixels.astype(np.float32), np.array(hosts, str), np.array(names, str), pixel_scale_arcsec)


def real_lenses(data: StampSet, bands: Sequence[str]) -> Stamps:
    """
    The lenses of a data set of labelled stamps, each its own host.

    Raises
    ------
    ConfigError
        It holds no lens, or its stamps lack a band of the finder.
    """
    if "label" not in data.schema.names:
        raise ConfigError("the stamps have no labels", real=str(data.folder))
    rows = np.flatnonzero(data.column("label") == LENS)
    name = next((n for n, spec in data.images.items() if set(bands) <= set(spec.bands)), None)
    if name is None:
        raise ConfigError("the real stamps lack a band of the finder", real=str(data.folder), needs=" ".join(bands))
    if not len(rows):
        raise ConfigError("the real stamps hold no stamp that is labelled lens", real=str(data.folder))
    spec = data.images[name]
    pixels = data.read_images(name, rows)[:, [spec.bands.index(band) for band in bands]]
    names = np.array([f"real {k}" for k in rows])
    return Stamps(pixels, names, names, spec.pixel_scale_arcsec)


def gate(
    network: LoadedNetwork | None,
    bare: Stamps,
    without_arcs: Mapping[str, Stamps],
    painted: Mapping[str, Stamps],
    real: Stamps | None,
    *,
    bands: Sequence[str],
    limit: float,
    seed: int,
) -> dict[str, Any]:
    """
    Area under the curve of a simple classifier on each pair of kinds and each set of features, and the verdict.

    Parameters
    ----------
    network : LoadedNetwork or None
        Whose own features are used; None leaves them out.
    bare : Stamps
        Hosts as they are.
    without_arcs, painted : mapping
        Painted lenses by kind, with the model of their arcs taken off, and as they are found.
    real : Stamps or None
        Real lenses.
    bands : sequence of str
        Of all stamps.
    limit : float
        Largest area at which painted lenses pass for real ones.
    seed : int

    Returns
    -------
    dict
        ``tests`` (a row for each pair and set of features), ``limit``, ``passed``, ``why``.
    """
    tests: list[dict[str, Any]] = []
    for kind, stamps in without_arcs.items():
        tests += _compare(RESIDUALS, kind, bare, stamps, network, bands, seed)
    for kind, stamps in painted.items() if real is not None else ():
        assert real is not None
        tests += _compare(LENSES, kind, real, _as_bright(stamps, real), network, bands, seed)
    passed, why = verdict(tests, limit, given=real is not None)
    return {"tests": tests, "limit": limit, "passed": passed, "why": why}


def verdict(tests: Sequence[Mapping[str, Any]], limit: float, *, given: bool) -> tuple[bool, str]:
    """
    Whether painted lenses pass for real ones, and why not.

    They pass where real lenses were given and no test, of any kind and set of features, is above the limit: not by
    its value, and by the upper end of its interval not above half-way from the limit to 1.
    """
    if not given:
        return False, "no real lenses were given to compare with (--real)"
    if unknown := next((t for t in tests if t["auc"] is None), None):
        return False, f"{unknown['pair']}, {unknown['features']}: {unknown['why']}"
    worst = max(tests, key=lambda t: t["auc"])
    widest = max(tests, key=lambda t: t["interval95"][1])
    if worst["auc"] > limit:
        return (
            False,
            f"{worst['pair']} ({worst['kind']}): {worst['features']} tell them apart with AUC {worst['auc']:.2f}",
        )
    if widest["interval95"][1] > (1 + limit) / 2:
        return False, f"{widest['pair']} ({widest['kind']}): too few to say, AUC up to {widest['interval95'][1]:.2f}"
    return True, f"no test tells them apart with more than AUC {limit:g}"


def _compare(
    pair: str, kind: str, first: Stamps, second: Stamps, network: LoadedNetwork | None, bands: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    if not len(first) or not len(second):
        empty = {
            "auc": None,
            "interval95": None,
            "why": "there are none",
            "n": [len(first), len(second)],
            "n_group": [0, 0],
        }
        return [{"pair": pair, "kind": kind, "features": STATISTICS, **empty}]
    is_first = np.arange(len(first) + len(second)) < len(first)
    groups = np.r_[first.host, second.host]
    sets: dict[str, NDArray[Any]] = {}
    if network is not None:
        sets[FINDER] = np.concatenate([finder_features(network, of, bands) for of in (first, second)])
    values, names = zip(
        *(
            image_statistics(of.pixels_njy, bands=bands, pixel_scale_arcsec=of.pixel_scale_arcsec)
            for of in (first, second)
        ),
        strict=True,
    )
    shared = [name for name in names[0] if name in names[1]]
    both = np.concatenate([v[:, [n.index(name) for name in shared]] for v, n in zip(values, names, strict=True)])
    sets[STATISTICS] = both
    for group in GROUPS:
        if chosen := [k for k, name in enumerate(shared) if name.startswith(group)]:
            sets[group] = both[:, chosen]
    return [
        {
            "pair": pair,
            "kind": kind,
            "features": name,
            **tell_apart(x, is_first, groups, rng_of(seed, "gate", pair, kind, name)),
        }
        for name, x in sets.items()
    ]


def finder_features(network: LoadedNetwork, stamps: Stamps, bands: Sequence[str]) -> NDArray[np.float32]:
    """Features of the finder's trunk."""
    card: ModelCard = network.card
    return network.features(
        stamp_input(stamps.pixels_njy, bands=bands, pixel_scale_arcsec=stamps.pixel_scale_arcsec, card=card)
    )


def _as_bright(painted: Stamps, real: Stamps) -> Stamps:
    """The painted lenses that are as bright as real ones, so that not brightness alone is compared."""
    if not len(painted) or not len(real):
        return painted
    of, like = (_brightness(stamps) for stamps in (painted, real))
    order, wanted = np.abs(of[None] - like[:, None]).argsort(axis=1), min(len(painted), 2 * len(real))
    n = next(n for n in range(NEAREST, len(painted) + NEAREST) if len(np.unique(order[:, :n])) >= wanted)
    return painted.take(np.unique(order[:, :n]))


def _brightness(stamps: Stamps) -> NDArray[np.float64]:
    """Logarithm of the light within 2 arcsec, mean of the bands."""
    side = stamps.pixels_njy.shape[-1]
    axis = (np.arange(side) - (side - 1) / 2) * stamps.pixel_scale_arcsec
    inside = np.hypot(axis[:, None], axis[None, :]) < 2.0
    return np.log(np.maximum(stamps.pixels_njy[:, :, inside].sum(axis=2).mean(axis=1), 1.0).astype(np.float64))


def open_network(folder: Path, device: str) -> LoadedNetwork:
    """The finder, or a committee's first member."""
    return LoadedNetwork(folder, device=device)
