"""The adversarial game as it began."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from lenspipe.learn.generate.contract import Adversarial


class NonSaturating(Adversarial):
    """
    Cross-entropy of a critic's logits (Goodfellow et al. 2014, equation 1).

    The generator raises ``log D`` of its stamps and does not lower ``log (1 - D)``, as their section 3 advises.
    """

    name = "gan"

    def made(self, said: Tensor) -> Tensor:
        """``-log D`` of what is made."""
        return softplus(-said).mean()

    def told(self, said_of_real: Tensor, said_of_made: Tensor) -> Tensor:
        """``-log D`` of stamps and ``-log (1 - D)`` of what is made."""
        return softplus(-said_of_real).mean() + softplus(said_of_made).mean()
