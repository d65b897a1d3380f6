"""The network of a training: built with its seed, checked against its input, from given weights where asked."""

from __future__ import annotations

import torch
from torch import nn

from lenspipe.errors import ModelError
from lenspipe.learn.job import TrainJob
from lenspipe.nn.network import Network
from lenspipe.nn.registry import build


def fresh_network(job: TrainJob) -> tuple[Network, frozenset[str]]:
    """
    The network before its first step, and the names of the parameters that came from pretrained weights.

    Raises
    ------
    ModelError
        The family is not known, or does not take stamps of this size.
    """
    torch.manual_seed(job.seed)
    card = job.card
    module = build(card.family, card.n_channel, card.stamp_px, card.n_out, **card.settings)
    loaded: frozenset[str] = frozenset()
    if job.pretrained is not None:
        from lenspipe.nn.pretrained import load_pretrained

        loaded = frozenset(load_pretrained(module, job.pretrained, head=job.keep_head).loaded)
    check_network(job, module)
    return module, loaded


def check_network(job: TrainJob, module: nn.Module) -> None:
    """Run two empty stamps through a network; raises `ModelError` where it does not take or give what is asked."""
    card = job.card
    job.objective.check_network(module, job.settings)
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            shape = tuple(module(*job.objective.example(card, module)).shape)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"the network does not take this input: {str(error).splitlines()[0]}",
            family=card.family,
            stamp_px=card.stamp_px,
            channels=card.n_channel,
            features=len(card.features),
        ) from error
    finally:
        module.train(was_training)
    want = (2, *job.objective.shape(card))
    if shape != want:
        raise ModelError(
            "the network gives another shape than its card: choose a family for this task (`lenspipe models`)",
            family=card.family,
            got=str(shape),
            want=str(want),
        )
