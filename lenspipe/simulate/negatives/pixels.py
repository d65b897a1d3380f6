"""Non-lenses that are ordinary galaxies in spoiled pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lenspipe.simulate.negatives.contract import Place, Sky, non_lens
from lenspipe.simulate.negatives.galaxies import early_type


@non_lens("anywhere")
def cosmic_rays(rng: np.random.Generator, place: Place) -> Sky:
    """Tracks of cosmic rays, each in one band."""
    return replace(early_type(rng, place), artefact="cosmic_rays")


@non_lens("anywhere")
def bleed_trail(rng: np.random.Generator, place: Place) -> Sky:
    """Charge of a saturated star along its columns."""
    return replace(early_type(rng, place), artefact="bleed_trail")


@non_lens("anywhere")
def masked_gap(rng: np.random.Generator, place: Place) -> Sky:
    """A gap between chips, or a band that is missing."""
    return replace(early_type(rng, place), artefact="masked_gap")


@non_lens("anywhere")
def spoiled(rng: np.random.Generator, place: Place) -> Sky:
    """A saturated star with its spikes and bleed, the edge of the data, or a strip that one band lacks."""
    return replace(early_type(rng, place), artefact="spoiled")
