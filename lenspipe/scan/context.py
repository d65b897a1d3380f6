"""What every worker of a scan needs to know; small, frozen, picklable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from lenspipe.scan.config import ScanConfig
from lenspipe.scan.readers.contract import Reader, giving
from lenspipe.schema import added_fields
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.shards import Shard
from lenspipe.survey.tile import Tile

if TYPE_CHECKING:
    from lenspipe.scan.read import ReadShard


@dataclasses.dataclass(frozen=True)
class ScanContext:
    """Facts of a run that are the same for all shards."""

    config: ScanConfig
    layout: SurveyLayout
    bands: tuple[str, ...]
    attempts: Path | str
    """Folder of this session's attempt markers; a URL where the run is in an object store."""
    models: tuple[Reader, ...] = ()
    """Readers that candidates are shown to, in this order."""
    change: Callable[[ReadShard], ReadShard] | None = None
    """Changes pixels between reading and search, such as painting arcs into them; picklable."""

    @property
    def finder(self) -> Reader | None:
        """The reader that scores, if any."""
        return giving(self.models, "score")

    @property
    def added(self) -> list[pa.Field]:
        """Columns of a candidate that the readers add to those of every scan."""
        return added_fields(self.bands, [f for reader in self.models for f in reader.fields()])


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One unit of work: a shard and the files of its tile."""

    shard: Shard
    tile: Tile
