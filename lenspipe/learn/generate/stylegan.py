"""The same game with a penalty on the critic's slopes at the stamps."""

from __future__ import annotations

from lenspipe.learn.generate.gan import NonSaturating


class SlopesAtStamps(NonSaturating):
    """The loss of style-based generators (Karras et al. 2019, appendix C): `NonSaturating` with R1, weight 1."""

    name = "stylegan"
    penalty = 1.0
    betas = (0.0, 0.99)
