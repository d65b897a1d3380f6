"""How unlike the normal a stamp is, by what a trained network makes of it: confidence, distances, isolation."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from lenspipe.errors import ModelError
from lenspipe.nn.network import Network
from lenspipe.nn.registry import build, register

OF_LOGITS = ("max-softmax", "energy")
"""Scores of a classifier's logits; the others are of features."""


class Outlier(Network):
    """
    A trained network and a score of what it gives; all arrays are fitted (`lenspipe.learn.outliers`), none is trained.

    Features are those of the trunk, or, of an embedding, its vectors of length 1. Scores are float64 sums row by row,
    so a stamp's does not depend on the stamps beside it.
    """

    HEADS = ()
    fitted = True

    def __init__(self, base: Network, score: Score, *, vectors: bool, n_vector: int) -> None:
        super().__init__()
        self.base, self.score, self.vectors = base, score, vectors
        self.num_features = n_vector if vectors else base.num_features

    def forward_features(self, stamps: Tensor) -> Tensor:
        """``(n, channel, y, x)`` to what the score is of, or to what gives the logits that it is of."""
        features = self.base.forward_features(stamps)
        return normalize(self.base.forward_head(features), dim=1) if self.vectors else features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to how unlike the normal each is ``(n,)``, 0 and more."""
        if pre_logits:
            return features
        seen = self.base.forward_head(features) if self.score.of_logits else features
        return self.score(seen.double()).float()


class Score(nn.Module):
    """``(n, feature)`` or logits, float64, to how unlike the normal each is ``(n,)``, 0 and more."""

    of_logits = False


class MaxSoftmax(Score):
    """1 less the largest probability (Hendrycks & Gimpel 2017)."""

    of_logits = True

    def forward(self, logits: Tensor) -> Tensor:
        """As of `Score`."""
        return -torch.expm1(log_softmax(two(logits), dim=1).max(dim=1).values)


class Energy(Score):
    """``ln(1 + exp(E))`` of the energy ``E = -ln sum exp(logits)`` (Liu et al. 2020, equation 4): the same order."""

    of_logits = True

    def forward(self, logits: Tensor) -> Tensor:
        """As of `Score`."""
        return torch.nn.functional.softplus(-torch.logsumexp(two(logits), dim=1))


class Mahalanobis(Score):
    """Distance to the nearest of some means in units of one covariance (Lee et al. 2018, equation 2)."""

    whiten: Tensor
    means: Tensor

    def __init__(self, n_feature: int, n_mean: int) -> None:
        super().__init__()
        self.register_buffer("whiten", torch.eye(n_feature, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(n_mean, n_feature, dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """The means are whitened already."""
        white = (features[:, None, :] * self.whiten).sum(dim=2)
        return ((white[:, None, :] - self.means) ** 2).sum(dim=2).min(dim=1).values.sqrt()


class Nearest(Score):
    """Distance to the k-th nearest of some normal stamps (Sun et al. 2022)."""

    known: Tensor

    def __init__(self, n_feature: int, n_known: int, k: int) -> None:
        super().__init__()
        self.k = min(k, n_known)
        self.register_buffer("known", torch.zeros(n_known, n_feature))

    def forward(self, features: Tensor) -> Tensor:
        """One row at a time, for the memory's sake."""
        known = self.known.double()
        rows = [((known - row) ** 2).sum(dim=1).kthvalue(self.k).values for row in features]
        return torch.stack(rows).sqrt()


class Isolation(Score):
    """``2^(-mean depth / expected depth)`` in trees of random cuts (Liu et al. 2008, equation 2)."""

    feature: Tensor
    cut: Tensor
    below: Tensor
    above: Tensor
    depth: Tensor
    expected: Tensor

    def __init__(self, n_tree: int, n_node: int) -> None:
        super().__init__()
        shape = (n_tree, n_node)
        for name, kind in (("feature", torch.int64), ("below", torch.int64), ("above", torch.int64)):
            self.register_buffer(name, torch.zeros(shape, dtype=kind))
        for name in ("cut", "depth"):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("expected", torch.ones((), dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """A leaf is below and above itself; ``depth`` of one has what is expected of the stamps that end in it."""
        tree = torch.arange(len(self.feature), device=features.device)[None, :]
        node = torch.zeros(len(features), len(self.feature), dtype=torch.int64, device=features.device)
        while True:
            value = features.gather(1, self.feature[tree, node])
            after = torch.where(value <= self.cut[tree, node], self.below[tree, node], self.above[tree, node])
            if torch.equal(after, node):
                return 2 ** (-self.depth[tree, node].mean(dim=1) / self.expected)
            node = after


def two(logits: Tensor) -> Tensor:
    """Logits of at least two classes: the one of a finder beside 0."""
    return torch.stack([torch.zeros_like(logits), logits], dim=1) if logits.ndim == 1 else logits


@register("outlier", by_settings=True)
def outlier(
    n_channel: int,
    stamp_px: int,
    n_out: int = 1,
    *,
    score: str = "mahalanobis",
    of: str = "small-cnn",
    of_out: int = 16,
    of_settings: str = "{}",
    logits: bool = False,
    vectors: bool = True,
    n_mean: int = 1,
    n_known: int = 1,
    k: int = 10,
    n_tree: int = 1,
    n_node: int = 1,
    n_fit: int = 20_000,
) -> Network:
    """A score of what a trained network gives: ``--task anomaly --method SCORE --pretrained MODEL``."""
    base = build(of, n_channel, stamp_px, of_out, **json.loads(of_settings))
    n_feature = of_out if vectors else base.num_features
    if score in OF_LOGITS and not logits:
        raise ModelError("this score is of the logits of a classifier or a finder: build on one", score=score)
    made: dict[str, Score] = {
        "max-softmax": MaxSoftmax(),
        "energy": Energy(),
        "mahalanobis": Mahalanobis(n_feature, n_mean),
        "knn": Nearest(n_feature, n_known, k),
        "isolation-forest": Isolation(n_tree, n_node),
    }
    if score not in made:
        raise ModelError("no such score", got=score, known=",".join(made))
    return Outlier(base, made[score], vectors=vectors, n_vector=of_out)
