"""The denoiser: cutouts as a longer exposure would show them, for the finder."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.nn.card import find_model, verdict
from lenspipe.nn.outputs import Denoise
from lenspipe.scan.readers.contract import Asked, Candidates, Checkpoint, CutoutKey, OneCheckpoint, Work


@dataclasses.dataclass(frozen=True)
class CutoutDenoiser(OneCheckpoint):
    """A denoiser and the exposure ratio that it is asked for; it fills no column."""

    ratio: float

    @property
    def gives(self) -> tuple[str, ...]:
        """Denoised cutouts: a function from their key to ``(n, band, y, x)``."""
        return ("denoised",)

    @property
    def n_cutout(self) -> int:
        """None of its own: it denoises what others are shown."""
        return 0

    def cutouts(self, pixel_scale_arcsec: float) -> tuple[CutoutKey, ...]:
        """None."""
        return ()

    def fields(self) -> list[pa.Field]:
        """None."""
        return []

    def record(self) -> dict[str, Any]:
        """The model, the ratio, and what the gate said."""
        about = {"name": self.name, "digest": self.digest, "ratio": self.ratio, "verdict": verdict(self.model.card)}
        return {"denoiser": about}

    def digests(self) -> dict[str, str]:
        """Of the one model."""
        return {"denoiser": self.digest}

    def note(self) -> str | None:
        """The verdict of the gate."""
        said = verdict(self.model.card)
        if said == "passed":
            return f"Cutouts go through {self.name}, which passed its gate."
        why = "has no verdict of the gate" if said == "none" else "FAILED its gate"
        return (
            f"Warning: cutouts go through {self.name}, which {why}; do not use its scores before reading "
            "docs/denoiser.md."
        )

    def load(self, device: str) -> Work:
        """Candidates to a function that denoises their cutouts when it is called: nothing is held that is not used."""
        from lenspipe.infer.denoise import Denoiser

        denoiser = Denoiser(self.model.folder, device=device)

        def denoise(candidates: Candidates, key: CutoutKey) -> NDArray[np.float32]:
            """Bands that the denoiser does not take stay; a pixel of exactly 0 holds no data, and stays 0."""
            cutouts = candidates.cutouts[key]
            rows = [key.bands.index(band) for band in self.model.card.bands]
            rms = np.array([candidates.sky_rms_njy[band] for band in self.model.card.bands])
            some = cutouts[:, rows]
            out = cutouts.copy()
            out[:, rows] = denoiser.denoise(some, rms[:, None, None], ratio=self.ratio, mask=some == 0)
            return out

        return lambda candidates: {"denoised": lambda key: denoise(candidates, key)}


def choose(asked: Asked) -> CutoutDenoiser | None:
    """
    The denoiser of a scan; None where it is ``none``.

    Raises
    ------
    ConfigError
        It is not there or is not a denoiser, nothing scores, the finder does not have all of its bands, or it was not
        trained with the exposure ratio.
    """
    name, ratio = asked.config.score.denoiser, asked.config.score.denoise_ratio
    if name == "none":
        return None
    finder = asked.giving("score")
    if finder is None:
        raise ConfigError("a denoiser changes scores only, and no model scores; leave --denoiser out", denoiser=name)
    model = Checkpoint.open(find_model(name))
    outputs, bands = model.card.outputs, model.card.bands
    if not isinstance(outputs, Denoise):
        raise ConfigError(
            "this model is not a denoiser; choose one of task denoise", denoiser=name, task=model.card.task
        )
    if missing := [band for band in bands if band not in finder.demands]:
        raise ConfigError(
            "the denoiser needs bands that the finder does not take; choose another --denoiser",
            denoiser=name,
            missing=" ".join(missing),
            finder=finder.name,
            finder_takes=" ".join(finder.demands),
        )
    low, high = outputs.exposure_ratios
    if ratio != 1 and not low <= ratio <= high:
        raise ConfigError(
            "the denoiser was not trained with this exposure ratio; change score.denoise_ratio",
            got=ratio,
            least=low,
            largest=high,
        )
    return CutoutDenoiser(model, ratio)
