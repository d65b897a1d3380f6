"""Which models a scan uses: decided here, once, before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from lenspipe.errors import ConfigError, TileError
from lenspipe.rundir import read_json, write_json
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.readers import anomaly, committee, denoise, embed, find, substructure
from lenspipe.scan.readers.contract import Asked, Reader, giving
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.read import read_facts
from lenspipe.survey.tile import BadTile, Tile

CHOOSERS: tuple[Callable[[Asked], Reader | str | None], ...] = (
    committee.choose,
    find.choose,
    denoise.choose,
    substructure.choose,
    embed.choose,
    anomaly.choose,
)
"""One per kind of reader: the reader, why there is none in words, or None where the scan is not asked for any."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The readers of a scan, in the order in which they are shown candidates."""

    readers: tuple[Reader, ...]
    no_model: str | None
    """Why nothing scores; None where something does."""


def choose_readers(config: ScanConfig, bands: tuple[str, ...], layout: SurveyLayout) -> Chosen:
    """
    The readers that a scan's settings ask for.

    Raises
    ------
    ConfigError
        A model is not there, is of the wrong kind, or does not fit the bands, the layout or the other readers.
    """
    asked, reason = Asked(config, bands, layout), None
    for choose in CHOOSERS:
        found = choose(asked)
        if isinstance(found, str):
            reason = found
        elif found is not None:
            asked = dataclasses.replace(asked, chosen=(*asked.chosen, found))
    return Chosen(in_order(asked.chosen), reason if giving(asked.chosen, "score") is None else None)


def in_order(readers: Sequence[Reader]) -> tuple[Reader, ...]:
    """
    Readers after those whose words they take.

    Raises
    ------
    ConfigError
        One takes what none of the others gives.
    """
    waiting, ordered = list(readers), []
    given: set[str] = set()
    while waiting:
        ready = next((reader for reader in waiting if set(reader.takes) <= given), None)
        if ready is None:
            lacks = sorted({name for reader in waiting for name in reader.takes} - given)
            raise ConfigError("a model needs what no other gives", model=waiting[0].name, needs=" ".join(lacks))
        waiting.remove(ready)
        ordered.append(ready)
        given.update(ready.gives)
    return tuple(ordered)


def check_tiles(
    readers: Sequence[Reader], tiles: Sequence[Tile | BadTile], config: ScanConfig, layout: SurveyLayout
) -> None:
    """
    Compare the readers with the first tile that can be opened.

    Raises
    ------
    ConfigError
        A reader refuses it (`Reader.check`).
    """
    for tile in tiles if readers else ():
        try:
            if isinstance(tile, BadTile):
                continue
            scale = read_facts(tile, layout, assumed_zero_point_ab=config.zero_point_ab).pixel_scale_arcsec
        except TileError:
            continue
        for reader in readers:
            bands = tuple(band.band for band in tile.bands)
            reader.check(tile.name, bands, scale, halo_px=config.shard.halo_px)
        return


def same_models(path: Path, readers: Sequence[Reader]) -> None:
    """
    Write down which models a run uses, or hold a resumed run to those that it began with.

    Raises
    ------
    ConfigError
        The run was begun with others.
    """
    now: dict[str, str | None] = {"digest": None}
    for reader in readers:
        now |= reader.digests()
    if not path.exists():
        write_json(path, now)
        return
    before = read_json(path)
    if before != now:
        raise ConfigError(
            "the run was begun with another model; resume with that one, or choose another --out",
            out=str(path.parent),
            had=before["digest"],
            got=now["digest"],
        )
