"""What a non-lens is: one function that draws it, for simulated stamps and for painted ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lenspipe.simulate.light import Component
from lenspipe.simulate.population import DeflectorPopulation, SourceImage

Bands = Sequence[str]
Stands = Literal["around", "alone", "anywhere"]


@dataclass(frozen=True)
class Scaled:
    """Components whose brightness is known against the noise alone: together they have this signal-to-noise."""

    components: Sequence[Component]
    """Of any brightness; their ratios count."""
    snr: float
    """Total ``sqrt(sum (flux / sky_rms)^2)`` over the pixels and bands of the first image."""


@dataclass
class Sky:
    """Unlensed things in a stamp; positions are arcsec from its centre, +x along columns, +y along rows."""

    galaxies: list[Component] = field(default_factory=list)
    """Components of galaxies."""
    scaled: list[Scaled] = field(default_factory=list)
    """Components that become galaxies once the noise is known."""
    stars: list[tuple[float, float, NDArray[np.float64]]] = field(default_factory=list)
    """``(x_arcsec, y_arcsec, flux_njy)`` of point sources."""
    artefact: str = ""
    """An artefact that the stamp must have."""
    facts: dict[str, Any] = field(default_factory=dict)
    """True parameters."""


@dataclass(frozen=True)
class Galaxy:
    """A real galaxy at the centre, as far as a non-lens around it must know."""

    z: float
    """Redshift."""
    mag_r: float
    """AB magnitude in r."""


@dataclass(frozen=True)
class Place:
    """Where a non-lens is drawn."""

    bands: Bands
    """Bands that its fluxes are in."""
    deflectors: DeflectorPopulation = field(default_factory=DeflectorPopulation)
    """Early types that it stands around, where there is no real one."""
    images: Sequence[SourceImage] = ()
    """Real galaxies, for the kinds that are made of them."""
    galaxy: Callable[[], Galaxy] | None = None
    """What is known of the real galaxy whose pixels are there already; None where the sky is simulated whole."""


Draw = Callable[[np.random.Generator, Place], Sky]


@dataclass(frozen=True)
class NonLens:
    """A kind of non-lens."""

    name: str
    """Its name in recipes and scenes, that of its function."""
    draw: Draw
    """Draws one: positions relative to the centre, fluxes in nJy."""
    stands: Stands
    """``around`` an early type, ``alone`` (it is the object at the centre), or ``anywhere`` (done to pixels)."""
    of_images: bool
    """Whether it is made of images of real galaxies."""


NON_LENSES: dict[str, NonLens] = {}
"""Every kind of non-lens by name: what recipes may ask for, and what may be painted on hosts."""


def non_lens(stands: Stands, *, of_images: bool = False) -> Callable[[Draw], Draw]:
    """
    Register a function as a kind of non-lens under its own name.

    What stands ``around`` a galaxy begins with `lenspipe.simulate.negatives.galaxies.early_type`: that draws one, or
    says what is known of the real one that is there.
    """

    def register(draw: Draw) -> Draw:
        name = draw.__name__
        if name in NON_LENSES:
            raise ValueError(f"a non-lens named {name!r} is registered already")
        NON_LENSES[name] = NonLens(name, draw, stands, of_images)
        return draw

    return register
