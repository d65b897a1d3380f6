"""How much a model's output changes when the sky is turned, mirrored or shifted: the equivariance audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from lenspipe.evaluate.judges import judge_for
from lenspipe.evaluate.judging import open_members
from lenspipe.evaluate.stream import Member, feature_values, iter_stamps
from lenspipe.image.resample import cubic_matrix
from lenspipe.infer.committee import N_VIEW, dihedral_view
from lenspipe.infer.predict import Predictor
from lenspipe.infer.prepare import input_of
from lenspipe.infer.stamps import stamp_brightness
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.joined import Data, each_of, open_stamps

GROUPS = (4, 8, 12, 16)
SHIFTS_PX = (0.25, 0.5)
N_RANDOM = 12
UPSAMPLE = 3
N_IN_SWEEP = 24
"""Stamps of the audit of each trial of a sweep."""
Change = dict[str, float]
AuditMember = Member[Any, Predictor]
Run = Callable[[NDArray[np.float32]], tuple[NDArray[np.float64], NDArray[np.float64]]]


def audit(
    member: AuditMember, stamps: StampSet, *, split: str | None, n_stamp: int = 200, seed: int = 0
) -> dict[str, Change]:
    """
    Change of a model's output under turns, mirrors and shifts of the first stamps of a split.

    The output is the score of a finder, the probabilities of a classifier (the class that changes most counts), or
    the values of a regression in units of their spread in training. ``dihedral`` and ``mirrors`` turn the network's
    input exactly. Other angles turn the surface brightness: upsampled 3 times by cubic convolution, turned about the
    centre, averaged down; all within the circle that every angle keeps, and compared with the image that was treated
    the same way without a turn. So what interpolation does to every image cancels, and what it does to some angles
    and not to others does not: a few 1e-3 may be the images, not the network. Shifts are by cubic splines along x, y
    and both.

    Parameters
    ----------
    member : Member
    stamps : StampSet
    split : str or None
    n_stamp : int
        Stamps that are looked at.
    seed : int
        Of the random angles, which are the same for all models.

    Returns
    -------
    dict
        For each kind of change: ``mean`` and ``largest`` absolute change of the output over stamps and changes,
        ``mean_raw`` and ``largest_raw`` of the network's own numbers (logits), ``n`` comparisons.
    """
    stamps = each_of(stamps)[0]  # stamps of one size
    spec = stamps.images[member.image]
    pixels, features = _first(member, stamps, split, n_stamp)
    sky = stamp_brightness(pixels, bands=spec.bands, pixel_scale_arcsec=spec.pixel_scale_arcsec, card=member.card)

    def run(brightness: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return _outputs(member, input_of(brightness, member.card.stretch), features)

    prepared = input_of(sky, member.card.stretch)
    as_it_is = _outputs(member, prepared, features)
    views = [_outputs(member, dihedral_view(prepared, view), features) for view in range(1, N_VIEW)]
    found = {"turns by 90 degrees": _change(as_it_is, views[:3]), "mirrors": _change(as_it_is, views[3:])}
    circle = _circle(sky.shape[-1])
    multiples = {n: [360 * k / n for k in range(1, n)] for n in GROUPS}
    angles = sorted({angle for some in multiples.values() for angle in some})
    random = np.random.default_rng([seed, 0]).uniform(0, 360, N_RANDOM).tolist()
    every = [0.0, *angles, *random]
    by_angle = {angle: run(image * circle) for angle, image in zip(every, turned(sky, every), strict=True)}
    flat = by_angle[0.0]
    for n, some in multiples.items():
        found[f"turns by 360/{n}, resampled"] = _change(flat, [by_angle[angle] for angle in some])
    found["turns by any angle"] = _change(flat, [by_angle[angle] for angle in random])
    for shift in SHIFTS_PX:
        ways = [(0.0, shift), (shift, 0.0), (shift, shift)]
        found[f"shifts by {shift:g} px"] = _change(as_it_is, [run(shifted(sky, *way)) for way in ways])
    return found


def largest_changes(model: Path, data: Data) -> dict[str, float]:
    """
    Largest change by kind of a model's output, of the first `N_IN_SWEEP` validation stamps of a data set.

    None of a model that gives images.
    """
    stamps = open_stamps(data)
    (member,) = open_members([model], stamps, device="cpu")
    if not judge_for(member.card.outputs).audited:
        return {}
    changes = audit(member, stamps, split="validation", n_stamp=N_IN_SWEEP)
    return {kind: change["largest"] for kind, change in changes.items()}


def turned(images: NDArray[np.float32], angles_deg: Sequence[float]) -> Iterator[NDArray[np.float32]]:
    """
    Images ``(..., y, x)`` turned about their centre by each angle: upsampled 3 times, turned, averaged down.

    Angles are from +x (columns) towards +y (rows); outside the image the sky is empty. Upsampled by cubic convolution,
    turned by linear interpolation on the fine grid, as training images of equivariant networks often are.
    """
    n = images.shape[-1]
    matrix = cubic_matrix(n, 1.0, UPSAMPLE * n, 1 / UPSAMPLE)
    # all planes as channels of one image: where each pixel comes from is worked out once
    fine = torch.from_numpy(np.matmul(np.matmul(matrix, images.reshape(1, -1, n, n)), matrix.T))
    axis = torch.from_numpy((2 * np.arange(UPSAMPLE * n) + 1) / (UPSAMPLE * n) - 1)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    for angle in angles_deg:
        cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        source = torch.stack([cosine * x + sine * y, -sine * x + cosine * y], dim=-1)[None].float()
        moved = functional.grid_sample(fine, source, mode="bilinear", padding_mode="zeros", align_corners=False)
        yield functional.avg_pool2d(moved, UPSAMPLE).numpy().reshape(images.shape)


def shifted(images: NDArray[np.float32], x_px: float, y_px: float) -> NDArray[np.float32]:
    """Images ``(..., y, x)`` moved by a fraction of a pixel, by cubic splines; empty where nothing comes from."""
    move = (0.0,) * (images.ndim - 2) + (y_px, x_px)
    out: NDArray[np.float32] = ndimage.shift(images, move, order=3, mode="constant")
    return out


def _circle(n: int) -> NDArray[np.float32]:
    axis = np.arange(n) - (n - 1) / 2
    return (np.hypot(*np.meshgrid(axis, axis)) <= (n - 1) / 2).astype(np.float32)


def _first(
    member: AuditMember, stamps: StampSet, split: str | None, n_stamp: int
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    pixels, features, have = [], [], 0
    for table, images in iter_stamps(stamps, [member.image], member.card.features, split=split):
        take = min(n_stamp - have, table.num_rows)
        pixels.append(images[member.image][:take])
        features.append(feature_values(member.card, table.slice(0, take)))
        have += take
        if have >= n_stamp:
            break
    some = [values for values in features if values is not None]
    return np.concatenate(pixels), np.concatenate(some) if some else None


def _outputs(
    member: AuditMember, prepared: NDArray[np.float32], features: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    raw = member.predictor.outputs(prepared, features)
    said = member.outputs.read(raw)
    return judge_for(member.outputs).shown(member.outputs, said), raw


def _change(
    reference: tuple[NDArray[np.float64], NDArray[np.float64]],
    others: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> Change:
    shown, raw = (np.stack([np.abs(other[k] - reference[k]).max(axis=1) for other in others]) for k in (0, 1))
    return {
        "mean": float(shown.mean()),
        "largest": float(shown.max()),
        "mean_raw": float(raw.mean()),
        "largest_raw": float(raw.max()),
        "n": shown.size,
    }
