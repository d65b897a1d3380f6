"""A finder from a handful of graded examples: the trunk of a model stays, its last layer follows from them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.disk import locked
from lenspipe.errors import ConfigError, ModelError
from lenspipe.finder.areas import Areas
from lenspipe.finder.graded import read_graded
from lenspipe.finder.settings import GradeSettings
from lenspipe.infer.committee import N_VIEW, dihedral_view
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import CARD_FILE, ModelCard, digest, find_model
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.nn.heads import RowSum
from lenspipe.nn.network import Network
from lenspipe.nn.outputs import Find
from lenspipe.nn.registry import build
from lenspipe.readme import write_readme
from lenspipe.stamps.format import ImageSpec
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval

Array = NDArray[np.float64]
EVERYWHERE = Areas(0, dict.fromkeys(range(12), "train"), 0.0)
"""All of the sky: every example counts."""
MEDIAN_LOGIT = 2.0
"""Examples are as sure as this in the median, so that scores neither tie at 1 nor all lie at one half."""


def prototypes(vectors: Array, is_lens: NDArray[np.bool_]) -> tuple[Array, float]:
    """
    Weights and constant of the squared distance to the mean of non-lenses less that to the mean of lenses.

    A difference of squared distances is linear in what it is of (Snell et al. 2017, equation 8).
    """
    lens, other = (vectors[kind].mean(axis=0) for kind in (is_lens, ~is_lens))
    return 2 * (lens - other), float(other @ other - lens @ lens)


def linear(vectors: Array, is_lens: NDArray[np.bool_]) -> tuple[Array, float]:
    """Weights and constant of a logistic regression with strong regularisation; both classes weigh the same."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000).fit(vectors, is_lens)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


RULES: dict[str, Callable[[Array, NDArray[np.bool_]], tuple[Array, float]]] = {
    "prototypes": prototypes,
    "linear": linear,
}
"""How the last layer follows from examples, by name."""


def fit(vectors: Array, is_lens: NDArray[np.bool_], rule: str) -> tuple[Array, float]:
    """
    Weights ``(size,)`` and constant of a lens's logit.

    Parameters
    ----------
    vectors : array (n, view, size)
        What the last layer reads of views of each example; standardised by their own mean and spread before the rule.
    is_lens : array (n,)
    rule : str
        Name in `RULES`.
    """
    flat, truth = vectors.reshape(-1, vectors.shape[-1]), np.repeat(is_lens, vectors.shape[1])
    mean, spread = flat.mean(axis=0), flat.std(axis=0)
    width = np.where(spread > 1e-6 * max(1e-30, spread.max()), spread, np.inf) * np.sqrt(flat.shape[1])
    weight, constant = RULES[rule]((flat - mean) / width, truth)
    size = np.median(np.abs((flat - mean) / width @ weight + constant))
    scale = MEDIAN_LOGIT / size if size > 0 else 1.0
    weight = weight / width * scale
    return weight, float(constant * scale - weight @ mean)


def finder_of_shots(
    model: str | Path,
    shots: Sequence[Path],
    out: Path,
    *,
    run: Path | None = None,
    rule: str = "prototypes",
    settings: GradeSettings | None = None,
) -> ModelCard:
    """
    Write a finder that knows a lens by a handful of graded examples.

    Parameters
    ----------
    model : str or path
        Any model that gives numbers of an image: a finder, a classifier or an embedding. Its trunk is kept.
    shots : sequence of path
        Graded candidates, as those of `lenspipe.finder.graded.read_graded`.
    out : path
        Folder of the finder.
    run : path, optional
        Run that positions are cut from.
    rule : str
        Name in `RULES`.
    settings : GradeSettings, optional

    Returns
    -------
    ModelCard
        Its metrics are of the examples themselves, each left out in turn.

    Raises
    ------
    ConfigError, DataError, ModelError
        The folder holds a model; an example cannot be read; there are none of a class; the model has no such layer.
    """
    _demand_new(out)
    folder = find_model(model)
    module, card = load_model(folder)
    if card.features or card.sees != "raw":
        raise ModelError("examples teach models of an image alone, as it is", model=card.name, sees=card.sees)
    spec = ImageSpec(card.bands, card.stamp_px, card.pixel_scale_arcsec)
    opened = None if run is None else open_run_folder(run)
    survey = "examples" if opened is None else str(opened.record["request"]["survey"]["name"])
    graded = read_graded(shots, opened, spec, settings or GradeSettings(), areas=EVERYWHERE, survey=survey, seed=0)
    is_lens = graded.is_lens
    if not 0 < is_lens.sum() < len(is_lens):
        raise ConfigError("examples of both are needed, lenses and others", lenses=int(is_lens.sum()), n=len(is_lens))
    images = stamp_input(graded.pixels_njy, bands=spec.bands, pixel_scale_arcsec=spec.pixel_scale_arcsec, card=card)
    vectors = read_by_last(module, images)
    weight, constant = fit(vectors, is_lens, rule)
    taught = with_last(module, card, weight, constant)
    _demand_same(taught, images, vectors[:, 0] @ weight + constant, card)
    facts: dict[str, Any] = {
        "method": f"shots: {rule}",
        "from": {"name": card.name, "digest": digest(folder)},
        "n_lens": int(is_lens.sum()),
        "n_other": int((~is_lens).sum()),
        "examples": [path.name for path in shots],
    }
    made = card.model_copy(
        update={
            "name": out.name,
            "outputs": Find(),
            "training": facts,
            "metrics": {"left_out": left_out(vectors, is_lens, rule, graded.name)},
            "training_set": None,
            "weights_sha256": "",
            "created": "",
        }
    )
    with locked(out):
        _demand_new(out)
        card = save_model(out, taught, made)
        write_readme(out, "model")
    return card


def _demand_new(out: Path) -> None:
    if (out / CARD_FILE).exists():
        raise ConfigError("the folder holds a model already", out=str(out))


def read_by_last(module: Network, images: NDArray[np.float32]) -> Array:
    """What the last layer reads of the eight views of stamps, ``(n, 8, size)``."""
    module.eval()
    found = []
    with torch.inference_mode():
        for view in range(N_VIEW):
            seen = torch.from_numpy(np.ascontiguousarray(dihedral_view(images, view)))
            parts = [module.forward_head(module.forward_features(x), pre_logits=True) for x in torch.split(seen, 64)]
            found.append(torch.cat(parts).double().numpy())
    return np.stack(found, axis=1)


def with_last(module: Network, card: ModelCard, weight: Array, constant: float) -> Network:
    """The same network with one output, whose last layer has these weights."""
    taught = build(card.family, card.n_channel, card.stamp_px, 1, **card.settings)
    name, last = _last(taught)
    if last.weight.numel() != len(weight):
        raise ModelError("the last layer does not read what the head gives before it", family=card.family)
    state = {k: v for k, v in module.state_dict().items() if not k.startswith(f"{name}.")}
    taught.load_state_dict(state, strict=False)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(weight).reshape(last.weight.shape))
        last.bias.fill_(constant)
    return taught.eval()


def left_out(vectors: Array, is_lens: NDArray[np.bool_], rule: str, name: Sequence[str]) -> dict[str, Any]:
    """
    Area under the ROC curve of the examples, each scored by those of other names; null where a class has but one.

    Parameters
    ----------
    vectors, is_lens, rule
        As of `fit`.
    name : sequence of str
        Of the candidate or host of each example: several stamps of one are left out together.
    """
    n = {"n_lens": int(is_lens.sum()), "n_other": int((~is_lens).sum())}
    names = np.array(name, object)
    if min(len(set(names[kind])) for kind in (is_lens, ~is_lens)) < 2:
        return {"auc": None, "interval95": None, "why": "a class has one example", **n}
    score = np.empty(len(is_lens))
    for k in range(len(is_lens)):
        others = names != names[k]
        weight, constant = fit(vectors[others], is_lens[others], rule)
        score[k] = vectors[k, 0] @ weight + constant
    counts = ScoreCounts.of(1 / (1 + np.exp(-np.clip(score, -500, 500))), is_lens)
    return {"auc": auroc(counts), "interval95": list(auroc_interval(counts)), **n}


def _last(module: Network) -> tuple[str, Any]:
    layers = [(name, one) for name, one in module.head.named_modules() if isinstance(one, RowSum | nn.Linear)]
    if not layers:
        raise ModelError("the model's head has no last layer that could be set", head=type(module.head).__name__)
    name, last = layers[-1]
    return f"head.{name}".rstrip("."), last


def _demand_same(module: Network, images: NDArray[np.float32], logits: Array, card: ModelCard) -> None:
    """The network must give what was fitted: else its head is no weighted sum of what it gives before."""
    with torch.inference_mode():
        got = torch.cat([module(x) for x in torch.split(torch.from_numpy(images), 64)]).double().numpy()
    if not np.allclose(got, logits, atol=1e-3 * max(1.0, float(np.abs(logits).max()))):
        raise ModelError("the last layer of this family is no weighted sum: examples cannot set it", family=card.family)
