"""The choice of hosts that a folder was begun with: written before the first pixel is read, used by every resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from lenspipe.completeness.passes import BARE
from lenspipe.completeness.places import HostChoice
from lenspipe.errors import ConfigError
from lenspipe.rundir import read_json, write_json
from lenspipe.scan.hosts import HostCuts
from lenspipe.scan.ledger import counted_shards, done_shards

CHOSEN = "hosts.json"
UNTOLD = "hosts are those that an earlier version of lenspipe chose; by which colour this folder does not tell"


def hold_hosts(folder: Path, now: HostChoice, n_host: int, wanted: set[str]) -> tuple[HostChoice, int]:
    """
    The choice of hosts of a folder, and how many rows of the run it has: what was measured now in a new folder, what
    was measured then in one that is resumed, so that all its places are of one choice.

    A folder of before this record is finished where its bare pass is through, for nothing is chosen after that.

    Parameters
    ----------
    folder : Path
    now : HostChoice
    n_host : int
    wanted : set of str
        Shards of the bare pass, in their names of that pass.

    Raises
    ------
    ConfigError
        The folder has a part of its places, and does not tell how their hosts were chosen.
    """
    path = folder / CHOSEN
    if path.exists():
        return _read(path)
    bare = folder / BARE
    if not counted_shards(bare):
        write_json(path, _plain(now, n_host))
        return now, n_host
    if missing := wanted - done_shards(bare):
        raise ConfigError(
            "the folder was begun by an earlier version, which did not write down by which colour it chose hosts, and "
            f"{len(missing)} of {len(wanted)} shards are not looked at yet: their hosts would be others; begin anew in "
            "another --out",
            out=str(folder),
            now=now.said or None,
        )
    return dataclasses.replace(now, said=UNTOLD), n_host


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
