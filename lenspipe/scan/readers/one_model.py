"""What readers share that show cutouts to one model of numbers per stamp, without a denoiser."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from lenspipe.errors import ConfigError
from lenspipe.infer.prepare import cutout_size_px
from lenspipe.nn.card import find_model
from lenspipe.scan.readers.contract import Asked, Candidates, Checkpoint, CutoutKey, OneCheckpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lenspipe.nn.card import ModelCard


@dataclasses.dataclass(frozen=True)
class OneModel(OneCheckpoint):
    """A checkpoint whose stamps may have any side; a source lies in the middle of an odd cutout all the same."""

    batch_size: int | None

    def cutouts(self, pixel_scale_arcsec: float) -> tuple[CutoutKey, ...]:
        """The card's bands, as wide as its stamps; one pixel more where their side is even."""
        card = self.model.card
        return (CutoutKey(card.bands, cutout_size_px(card, pixel_scale_arcsec) // 2 * 2 + 1),)

    def check(self, tile: str, bands: tuple[str, ...], pixel_scale_arcsec: float, *, halo_px: int) -> None:
        """Refuse a pixel scale that does not fit the model, and cutouts that reach beyond the halo."""
        if reason := self.fits(bands, pixel_scale_arcsec):
            raise ConfigError(f"the model that was asked for does not fit the tiles: {reason}", tile=tile)
        (key,) = self.cutouts(pixel_scale_arcsec)
        if key.side_px > 2 * halo_px + 1:
            raise ConfigError(
                "the stamps of the model are wider than the halo of the shards: raise shard.halo_px",
                model=self.name,
                stamp_px=key.side_px,
                at_least=key.side_px // 2,
            )

    def seen(self, card: ModelCard, candidates: Candidates, rows: Any = slice(None)) -> NDArray[np.float32]:
        """Network input of some candidates."""
        from lenspipe.infer.stamps import stamp_input

        scale = candidates.pixel_scale_arcsec
        (key,) = self.cutouts(scale)
        return stamp_input(candidates.cutouts[key][rows], bands=key.bands, pixel_scale_arcsec=scale, card=card)


def open_model(name: str, asked: Asked, kind: type[Any], option: str) -> Checkpoint:
    """
    The checkpoint that an option names.

    Raises
    ------
    ConfigError
        It is not there, is of another task, takes numbers beside the image or denoised stamps, or needs bands that the
        tiles do not have.
    """
    model = Checkpoint.open(find_model(name))
    card = model.card
    if not isinstance(card.outputs, kind) or card.features or card.sees != "raw":
        task = kind.model_fields["task"].default
        raise ConfigError(
            f"{option} takes a model of task {task} that sees stamps alone, as they are", model=name, task=card.task
        )
    if missing := [band for band in card.bands if band not in asked.bands]:
        raise ConfigError(
            f"the model needs bands that the tiles do not have; choose another {option}",
            model=name,
            missing=" ".join(missing),
            tiles_have=" ".join(asked.bands),
        )
    return model
