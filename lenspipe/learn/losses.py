"""Losses ``loss(outputs, batch)``; ``batch`` holds tensors by name, the epoch among them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Tensors = dict[str, Tensor]
Loss = Callable[[Tensor, Tensors], Tensor]


def binary_cross_entropy(smoothing: float = 0.0, from_epoch: int = 0) -> Loss:
    """Cross-entropy of one logit a stamp; labels go ``smoothing`` of the way to one half from an epoch on."""

    def loss(outputs: Tensor, batch: Tensors) -> Tensor:
        amount = smoothing if _epoch(batch) >= from_epoch else 0.0
        target = batch["label"].float() * (1 - amount) + 0.5 * amount
        return functional.binary_cross_entropy_with_logits(outputs, target)

    return loss


def focal(gamma: float) -> Loss:
    """Focal loss of one logit a stamp, ``-(1 - p)^gamma log p`` of the true class (Lin et al. 2017, equation 4)."""

    def loss(outputs: Tensor, batch: Tensors) -> Tensor:
        label = batch["label"].float()
        entropy = functional.binary_cross_entropy_with_logits(outputs, label, reduction="none")
        return ((1 - torch.exp(-entropy)) ** gamma * entropy).mean()

    return loss


def cross_entropy(smoothing: float = 0.0, from_epoch: int = 0) -> Loss:
    """Cross-entropy over classes that switches to label smoothing (Szegedy et al. 2016) at an epoch."""

    def loss(outputs: Tensor, batch: Tensors) -> Tensor:
        amount = smoothing if _epoch(batch) >= from_epoch else 0.0
        return functional.cross_entropy(outputs, batch["label"].long(), label_smoothing=amount)

    return loss


def mean_of(outputs: Tensor, batch: Tensors) -> Tensor:
    """Mean of errors that the network itself gave."""
    return outputs.mean()


def mean_square(outputs: Tensor, batch: Tensors) -> Tensor:
    """Mean squared error of scaled targets ``(n, target)``."""
    return functional.mse_loss(outputs.reshape(batch["target"].shape), batch["target"])


def gaussian_nll(outputs: Tensor, batch: Tensors) -> Tensor:
    """
    Negative log-likelihood of scaled targets under a Gaussian a target (Nix & Weigend 1994).

    ``outputs`` are the values, then the natural logarithms of the variances; those are held between -10 and 10.
    """
    value, log_variance = outputs.chunk(2, dim=1)
    log_variance = log_variance.clamp(-10.0, 10.0)
    square = (value - batch["target"]) ** 2
    return 0.5 * (log_variance + square * torch.exp(-log_variance)).mean() + 0.5 * math.log(2 * math.pi)


def nt_xent(temperature: float) -> Loss:
    """
    Normalised temperature-scaled cross-entropy of pairs ``(n, 2, size)`` (Chen et al. 2020, equation 1).

    Of each of the 2n vectors, the softmax of its cosines with the 2n - 1 others over the temperature is to name its
    partner. A worker sees the pairs of its own part of the batch.
    """

    def loss(pairs: Tensor, batch: Tensors) -> Tensor:
        n = len(pairs)
        flat = functional.normalize(torch.cat([pairs[:, 0], pairs[:, 1]]), dim=1)
        near = flat @ flat.T / temperature
        near = near.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=near.device), -math.inf)
        partner = torch.arange(2 * n, device=near.device).roll(n)
        return functional.cross_entropy(near, partner)

    return loss


def alike(pairs: Tensor, batch: Tensors) -> Tensor:
    """``2 - 2 cos`` of pairs ``(n, 2, size)`` (Grill et al. 2020, equation 2); 0 where both have one direction."""
    return 2 - 2 * functional.cosine_similarity(pairs[:, 0], pairs[:, 1], dim=1).mean()


def prototypes(temperature: float) -> Loss:
    """
    Cross-entropy of which class's prototype is nearest, one batch as an episode (Snell et al. 2017, equations 1 and 2).

    Of each class of the batch one half, in its order, is the support, whose mean is the prototype, and the other half
    is asked; a class of one stamp is left out. Vectors ``(n, size)`` are brought to length 1, as all embeddings are, so
    squared distances are over a temperature.
    """

    def loss(vectors: Tensor, batch: Tensors) -> Tensor:
        unit, labels = functional.normalize(vectors, dim=1), batch["label"]
        rows = [torch.nonzero(labels == c)[:, 0] for c in torch.unique(labels)]
        halves = [one.tensor_split(2) for one in rows if len(one) > 1]
        if len(halves) < 2:
            return 0.0 * unit.sum()
        centres = torch.stack([unit[support].mean(dim=0) for support, _ in halves])
        asked = torch.cat([query for _, query in halves])
        truth = torch.cat([torch.full_like(query, k) for k, (_, query) in enumerate(halves)])
        square = ((unit[asked][:, None] - centres) ** 2).sum(dim=2)
        return functional.cross_entropy(-square / temperature, truth)

    return loss


def own_tasks(temperature: float, n_way: int) -> Loss:
    """
    Cross-entropy of which stamp of a made-up task a view is of: pairs ``(n, 2, size)``, in tasks of ``n_way`` stamps.

    Each stamp is a class of its own, its first view the one shot and its second the question (Khodadadeh et al. 2019,
    algorithm 1); as `prototypes`, where the original adapts a network within each task. The last task may be smaller.
    """

    def loss(pairs: Tensor, batch: Tensors) -> Tensor:
        parts = []
        for task in torch.split(functional.normalize(pairs, dim=2), n_way):
            square = ((task[:, None, 1] - task[None, :, 0]) ** 2).sum(dim=2)
            truth = torch.arange(len(task), device=pairs.device)
            parts.append(functional.cross_entropy(-square / temperature, truth, reduction="sum"))
        return torch.stack(parts).sum() / len(pairs)

    return loss


def alike_in_clusters(entropy: float) -> Loss:
    """
    ``-mean ln <p, q> - entropy H(mean p)`` of logits ``(n, 2, cluster)`` (Van Gansbeke et al. 2020, equation 2).

    p and q are the softmax of a stamp's and a neighbour's logits; H, the entropy of the clusters' shares, keeps all
    stamps out of one cluster.
    """

    def loss(pairs: Tensor, batch: Tensors) -> Tensor:
        p, q = (functional.softmax(pairs[:, k], dim=1) for k in (0, 1))
        apart = -torch.log((p * q).sum(dim=1).clamp(min=1e-12)).mean()
        share = p.mean(dim=0).clamp(min=1e-12)
        return apart + entropy * (share * torch.log(share)).sum()

    return loss


def sure_teach(pairs: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """
    Cross-entropy of augmented stamps against clusters of which their plain copies are sure, and the part of these.

    Logits ``(n, 2, cluster)``, the plain ones second, which get no gradient. Clusters weigh the same, whatever their
    shares (Van Gansbeke et al. 2020, section 2.3); 0 where no stamp is sure.
    """
    sure, cluster = functional.softmax(pairs[:, 1].detach(), dim=1).max(dim=1)
    rows = torch.nonzero(sure > threshold)[:, 0]
    part = torch.tensor(len(rows) / len(pairs))
    if not len(rows):
        return 0 * pairs.sum(), part
    counts = torch.bincount(cluster[rows], minlength=pairs.shape[2]).clamp(min=1)
    return functional.cross_entropy(pairs[rows, 0], cluster[rows], weight=len(rows) / counts.to(pairs.dtype)), part


def _epoch(batch: Tensors) -> int:
    return int(batch["epoch"]) if "epoch" in batch else 0
