"""Symmetry groups of the plane: kernel bases from escnn, sampled once and kept in the user's cache folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lenspipe.disk import cache_folder
from lenspipe.errors import ModelError
from lenspipe.rundir import atomic_path

GROUPS = ("c1", "c4", "c8", "c12", "c16", "d1", "d4", "d6", "d8", "d12", "d16", "so2", "o2")
CONTINUOUS = ("so2", "o2")
LAYOUT = 2  # of the cached files
Array = NDArray[np.float64]


def group_order(group: str) -> int:
    """Number of elements of a finite group: N for CN, 2N for DN; 0 for SO(2) and O(2)."""
    if group in CONTINUOUS:
        return 0
    return int(group[1:]) * (2 if group[0] == "d" else 1)


def has_reflections(group: str) -> bool:
    """Whether a group holds mirror images (about the vertical axis, and that turned by its own rotations)."""
    return group[0] in "do"


def is_subgroup(inner: str, outer: str) -> bool:
    """Whether ``inner`` is a subgroup of ``outer``, and not ``outer`` itself."""
    if inner == outer or inner in CONTINUOUS or (has_reflections(inner) and not has_reflections(outer)):
        return inner == "so2" and outer == "o2"
    return outer in CONTINUOUS or int(outer[1:]) % int(inner[1:]) == 0


def field_size(group: str, field_frequency: int) -> int:
    """Maps of a regular field: one per element, or the coefficients of SO(2) and O(2) up to a frequency."""
    return group_order(group) or (1 + 2 * field_frequency) * (1 if group == "so2" else 2)


def n_basis(
    group: str, source: str, target: str, kernel_px: int, field_frequency: int, kernel_frequency: int, outer: str = ""
) -> int:
    """
    Number of elements of `kernel_basis`, without sampling one.

    On each ring of the kernel, circular harmonics of frequency m are a representation of the group; the kernels that
    commute with it are as many as trivial ones in its product with source and target (Weiler & Cesa 2019, eq. 2):
    the mean over the group of the product of their characters. Rings and their highest frequencies are escnn's.

    Examples
    --------
    >>> n_basis("d16", "scalar", "regular", 5, 0, 0), n_basis("so2", "regular", "regular", 5, 3, 0)
    (11, 65)
    """
    rings = range(kernel_px // 2 + 1)
    highest = [kernel_frequency or min(2 * r - (r + 1) % 2, 2 if r == rings[-1] else 2 * r) if r else 0 for r in rings]
    # as many turns as resolve the highest frequency of the product stand for those of SO(2) and O(2)
    n_turn = 4 * field_frequency + max(highest) + 1 if group in CONTINUOUS else int(group[1:])
    turns = np.tile(2 * np.pi * np.arange(n_turn) / n_turn, 2 if has_reflections(group) else 1)
    mirrored = np.arange(len(turns)) >= n_turn
    fields = _character(outer or group, source, field_frequency, turns, mirrored)
    fields = fields * _character(group, target, field_frequency, turns, mirrored)
    harmonics = [_harmonic(m, turns, mirrored) for top in highest for m in range(top + 1)]
    return round(sum(float((harmonic * fields).mean()) for harmonic in harmonics))


def _harmonic(frequency: int, turns: Array, mirrored: NDArray[np.bool_]) -> Array:
    """Character of the real functions of one frequency on a circle."""
    return np.where(mirrored, 0, 2 * np.cos(frequency * turns)) if frequency else np.ones(len(turns))


def _character(group: str, kind: str, field_frequency: int, turns: Array, mirrored: NDArray[np.bool_]) -> Array:
    if kind == "scalar":
        return np.ones(len(turns))
    if group not in CONTINUOUS:
        return np.where(mirrored | (turns > 0), 0, group_order(group))
    by_turns: Array = 1 + sum((2 * np.cos(m * turns) for m in range(1, field_frequency + 1)), np.zeros(len(turns)))
    return by_turns if group == "so2" else np.where(mirrored, 0, 2 * by_turns)


@functools.lru_cache(maxsize=32)
def lifting_basis(group: str, kernel_px: int, kernel_frequency: int) -> tuple[Tensor, Tensor]:
    """
    Basis of the kernels from a scalar to a regular field of a finite group, and the group's table of quotients.

    Solutions of the kernel constraint of Weiler & Cesa 2019 (NeurIPS, eq. 2) as escnn samples and normalises them:
    rings of Gaussian profile with circular harmonics. Kernels of DN are those of CN and their mirror images. Kernels
    between regular fields follow from these: at elements u, v they are ``basis[:, u]`` times a free weight that depends
    on ``u^-1 v`` only, which is the whole space that escnn finds, without the decomposition that takes it a minute for
    D16.

    Element ``s N + k`` is ``f^s r^k``, with f the mirror image about the vertical axis and r a turn by 360/N degrees.

    Parameters
    ----------
    group : str
        A finite one of `GROUPS`.
    kernel_px : int
        Side of the kernel, odd.
    kernel_frequency : int
        Highest angular frequency; 0 leaves escnn's limit, which rises with the radius.

    Returns
    -------
    basis : Tensor (n_basis, element, kernel_px, kernel_px), float32
    quotient : Tensor (element, element), int64
        Number of ``u^-1 v``. Both are shared between callers: not to be written to.
    """
    n = int(group[1:])
    request = (f"c{n}", "scalar", "regular", kernel_px, 0, kernel_frequency, "")
    basis = kernel_basis(*request)[:, :, 0]
    if has_reflections(group):
        basis = torch.cat([basis, basis.flip(-1)], dim=1)
    elements = torch.arange(group_order(group))
    return basis.contiguous(), _product(_inverse(elements, n)[:, None], elements, n)


@functools.lru_cache(maxsize=32)
def cosets(inner: str, outer: str) -> Tensor:
    """
    A regular field of a finite group as fields of a subgroup: Tensor (coset, inner element), int64.

    Entry ``[c, h]`` is the number of the outer element ``h c``.
    """
    n, step = int(outer[1:]), int(outer[1:]) // int(inner[1:])
    mirrored, turns = (torch.arange(group_order(inner)) // int(inner[1:]), torch.arange(group_order(inner)))
    inside = mirrored * n + turns % int(inner[1:]) * step
    rows: list[list[int]] = []
    for element in range(group_order(outer)):
        if all(element not in row for row in rows):
            rows.append(_product(inside, torch.tensor(element), n).tolist())
    return torch.tensor(rows)


@functools.lru_cache(maxsize=32)
def kernel_basis(
    group: str, source: str, target: str, kernel_px: int, field_frequency: int, kernel_frequency: int, outer: str = ""
) -> Tensor:
    """
    Basis of the equivariant kernels between two kinds of fields, sampled on the pixel grid (see `lifting_basis`).

    Parameters
    ----------
    group : str
        One of `GROUPS`; the kernels commute with it.
    source, target : str
        Kind of field: ``scalar`` or ``regular`` (for SO(2) and O(2) the regular one up to ``field_frequency``).
    kernel_px : int
        Side of the kernel, odd.
    field_frequency : int
        Highest angular frequency of fields of SO(2) and O(2); without effect on finite groups.
    kernel_frequency : int
        Highest angular frequency of the kernels; 0 leaves escnn's limit, which rises with the radius.
    outer : str
        Where given, the source is a regular field of this larger group, seen as a field of ``group``.

    Returns
    -------
    Tensor (n_basis, target size, source size, kernel_px, kernel_px), float32
        Shared between callers: not to be written to.
    """
    request = (group, source, target, kernel_px, field_frequency, kernel_frequency, outer)
    return _cached("basis", request, lambda: {"basis": _sample_basis(*request)})["basis"]


@functools.lru_cache(maxsize=8)
def fourier_matrices(group: str, field_frequency: int) -> tuple[Tensor, Tensor]:
    """
    Matrices from the coefficients of a field of SO(2) or O(2) to samples over the group, and back (least squares).

    Samples lie at ``4 (field_frequency + 1)`` equal angles (twice as many for O(2)), so that quarter turns and
    mirror images only permute them.

    Returns
    -------
    tuple of Tensor, (n_sample, size) and (size, n_sample), float32
    """
    found = _cached("fourier", (group, field_frequency), lambda: _sample_fourier(group, field_frequency))
    return found["to_samples"], found["to_coefficients"]


def _cached(kind: str, request: tuple[Any, ...], make: Any) -> dict[str, Tensor]:
    name = hashlib.sha256(json.dumps([LAYOUT, kind, *request]).encode()).hexdigest()[:20]
    path = cache_folder() / f"{kind}-{request[0]}-{name}.safetensors"
    with contextlib.suppress(OSError, SafetensorError):  # absent, or cut off by a crash: made again below
        return load(path.read_bytes())
    made: dict[str, Tensor] = make()
    with contextlib.suppress(OSError), atomic_path(path) as partial:  # a full disk costs time at the next start only
        partial.write_bytes(save(made))
    return made


def _sample_basis(
    group: str, source: str, target: str, kernel_px: int, field_frequency: int, kernel_frequency: int, outer: str
) -> Tensor:
    with _escnn() as escnn:
        space = _space(escnn, group)
        into = escnn.nn.FieldType(space, [_representation(space, target, field_frequency)])
        if outer:
            whole = _space(escnn, outer)
            field = escnn.nn.FieldType(whole, [_representation(whole, source, field_frequency)])
            from_ = field.restrict(_subgroup_id(group, outer))
            space = from_.gspace
            into = escnn.nn.FieldType(space, [_representation(space, target, field_frequency)])
        else:
            from_ = escnn.nn.FieldType(space, [_representation(space, source, field_frequency)])
        cutoff = (lambda radius: kernel_frequency) if kernel_frequency else None
        conv = escnn.nn.R2Conv(from_, into, kernel_px, bias=False, initialize=False, frequencies_cutoff=cutoff)
        elements = []
        with torch.no_grad():
            for weights in torch.eye(len(conv.weights)):
                conv.weights.copy_(weights)
                elements.append(conv.expand_parameters()[0].clone())
        basis = torch.stack(elements)
        if target == "regular" and group not in CONTINUOUS:
            basis = basis[:, _numbers(space.fibergroup, has_reflections(group), int(group[1:]))]
    return basis.contiguous()


def _numbers(fibergroup: Any, mirrored: bool, n: int) -> list[int]:
    """Place of each of our elements among escnn's, which writes ``r^k f^s`` as (s, k)."""
    number = {element: i for i, element in enumerate(fibergroup.elements)}
    if not mirrored or n == 1:  # escnn's D1 is a cyclic group of two
        return [number[fibergroup.element(k)] for k in range(len(number))]
    return [number[fibergroup.element((s, (-k if s else k) % n))] for s in (0, 1) for k in range(n)]


def _product(left: Tensor, right: Tensor, n: int) -> Tensor:
    """Numbers of products: ``f^s r^a f^t r^b = f^(s+t) r^(b - a)`` where t is odd, else ``r^(b + a)``."""
    mirrored = (left // n + right // n) % 2
    turns = right % n + torch.where(right // n % 2 == 1, -(left % n), left % n)
    return mirrored * n + turns % n


def _inverse(element: Tensor, n: int) -> Tensor:
    return torch.where(element // n == 1, element, -element % n)  # a mirror image is its own inverse


def _sample_fourier(group: str, field_frequency: int) -> dict[str, Tensor]:
    with _escnn() as escnn:
        space = _space(escnn, group)
        irreps = space.fibergroup.bl_irreps(field_frequency)
        layer = escnn.nn.FourierPointwise(space, 1, irreps, type="regular", N=4 * (field_frequency + 1))
    return {"to_samples": layer.A.contiguous(), "to_coefficients": layer.Ainv.contiguous()}


def _space(escnn: Any, group: str) -> Any:
    if group == "c1":
        return escnn.gspaces.trivialOnR2()
    if group == "d1":
        return escnn.gspaces.flip2dOnR2()
    n = -1 if group in CONTINUOUS else int(group[1:])
    return escnn.gspaces.flipRot2dOnR2(n) if has_reflections(group) else escnn.gspaces.rot2dOnR2(n)


def _representation(space: Any, kind: str, field_frequency: int) -> Any:
    if kind == "scalar":
        return space.trivial_repr
    group = space.fibergroup
    if group.order() > 0:
        return space.regular_repr
    return group.spectral_regular_representation(*group.bl_irreps(field_frequency))


def _subgroup_id(inner: str, outer: str) -> Any:
    n = -1 if inner in CONTINUOUS else int(inner[1:])
    if not has_reflections(outer):
        return n
    # axis 0 of the larger group is its own mirror axis, which all our groups share
    return ((0.0 if outer in CONTINUOUS else 0) if has_reflections(inner) else None, n)


@contextlib.contextmanager
def _escnn() -> Iterator[Any]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # escnn prints what it solves
        warnings.simplefilter("ignore")
        yield _import_escnn()


@functools.cache
def _import_escnn() -> Any:
    """
    Import escnn without what serves only three dimensions, with its own cache in the user's cache folder.

    `lie_learn` is built for NumPy 1; escnn imports one function of it, for SO(3). `randomized_svd` of scikit-learn
    refuses the matrices that escnn passes; without it escnn uses SciPy. Its `Memory` would write into the package.
    """
    if "lie_learn" not in sys.modules:
        names = ["lie_learn", "lie_learn.representations", "lie_learn.representations.SO3"]
        for name in names:
            sys.modules[name] = types.ModuleType(name)
        leaf = types.ModuleType("lie_learn.representations.SO3.wigner_d")
        leaf.wigner_D_matrix = _no_so3  # type: ignore[attr-defined]
        sys.modules[leaf.__name__] = leaf
    import joblib  # type: ignore[import-untyped]

    own_memory = joblib.Memory
    folder = str(cache_folder() / "escnn")
    joblib.Memory = lambda location=None, **how: own_memory(folder, **how)
    try:
        import escnn
        import escnn.group._numerical as numerical
        import escnn.gspaces
        import escnn.nn
    except ImportError as error:
        raise ModelError(f"the kernels of equivariant networks need escnn: {error}") from error
    finally:
        joblib.Memory = own_memory
    numerical.randomized_svd = None
    return escnn


def _no_so3(*_: Any, **__: Any) -> Any:
    raise ModelError("representations of SO(3) are not available: lenspipe's groups act on the plane")
