"""The choice of hosts that a folder was begun with: written before the first pixel is read, used by every resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lenspipe.completeness.passes import BARE, PAINTED
from lenspipe.completeness.places import HostChoice
from lenspipe.errors import ConfigError
from lenspipe.rundir import read_json, write_json
from lenspipe.scan.context import ShardTask
from lenspipe.scan.hosts import HostCuts
from lenspipe.scan.ledger import counted_shards, done_shards

CHOSEN = "hosts.json"
UNTOLD = (
    "hosts are those that an earlier version of lenspipe chose; by which colour this folder does not tell, and the "
    "names of band and colour beside its numbers are those that this version would choose"
)


def hold_hosts(
    folder: Path, now: HostChoice, n_host: int, *, looking: Sequence[ShardTask], painting: Sequence[ShardTask]
) -> tuple[HostChoice, int]:
    """
    The choice of hosts of a folder, and how many rows of the run it has: what was measured now in a new folder, what
    was measured then in one that is resumed, so that all its places are of one choice.

    A folder of before this record is finished where each of its two stages is through or not begun: the bare pass,
    which chooses hosts, and the painting, which chooses lenses, by numbers that earlier versions rounded otherwise. A
    shard that failed counts as through: tried again it would add what another choice gives (`settled`).

    Parameters
    ----------
    folder : Path
    now : HostChoice
    n_host : int
    looking, painting : sequences of ShardTask
        Of the bare pass, and of those that paint.

    Raises
    ------
    ConfigError
        The folder has a part of its places or of its lenses, and does not tell how they were chosen.
    """
    path = folder / CHOSEN
    if path.exists():
        return _read(path)
    if not done_shards(folder / BARE):
        write_json(path, _plain(now, n_host))
        return now, n_host
    looked_at, painted = counted_shards(folder / BARE), counted_shards(folder / PAINTED)
    _demand_all(
        looked_at, looking, "by which colour it chose hosts", "looked at yet: their hosts would be others", folder
    )
    if painted:
        _demand_all(
            painted, painting, "how many lenses a pass has", "painted yet: their lenses would be others", folder
        )
    untold = dataclasses.replace(now, said=UNTOLD)
    if not painted:  # all lenses are of this version, also those of a later resume
        write_json(path, _plain(untold, n_host))
    return untold, n_host


def settled(hosts: HostChoice) -> Callable[[Path], set[str]]:
    """
    What reads from a stage's folder the shards that are not worked on again: those that are done, and in a folder whose
    choice is not known also those that failed.
    """
    return counted_shards if hosts.said == UNTOLD else done_shards


def _demand_all(counted: set[str], tasks: Sequence[ShardTask], unsaid: str, why: str, folder: Path) -> None:
    if missing := {task.shard.shard_id for task in tasks} - counted:
        raise ConfigError(
            f"the folder was begun by an earlier version, which did not write down {unsaid}, and {len(missing)} of "
            f"{len(tasks)} shards are not {why}; begin anew in another --out",
            out=str(folder),
        )


def _plain(choice: HostChoice, n_host: int) -> dict[str, Any]:
    """As JSON, which has no infinite numbers: null."""
    cuts = dataclasses.asdict(choice.cuts)
    low, high = choice.cuts.half_light_radius_arcsec
    cuts["half_light_radius_arcsec"] = [low, high if np.isfinite(high) else None]
    cuts["colour_min"] = choice.cuts.colour_min if np.isfinite(choice.cuts.colour_min) else None
    return dataclasses.asdict(choice) | {"cuts": cuts, "rows": n_host}


def _read(path: Path) -> tuple[HostChoice, int]:
    stored = read_json(path)
    cuts = dict(stored["cuts"])
    low, high = cuts.pop("half_light_radius_arcsec")
    colour_min = cuts.pop("colour_min")
    mag_bright, mag_faint = cuts.pop("mag")
    return (
        HostChoice(
            stored["band"],
            None if stored["colour"] is None else (stored["colour"][0], stored["colour"][1]),
            HostCuts(
                **cuts,
                mag=(mag_bright, mag_faint),
                half_light_radius_arcsec=(low, np.inf if high is None else high),
                colour_min=-np.inf if colour_min is None else colour_min,
            ),
            stored["said"],
        ),
        stored["rows"],
    )
