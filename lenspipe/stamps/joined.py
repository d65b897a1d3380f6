"""Several data sets of stamps read as one: each keeps its splits, and every row says which it is from."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, DataError
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.spec import ImageSpec, stamp_schema
from lenspipe.store.urls import is_url
from lenspipe.tables import open_parquet, read_footer, read_parquet

DATA_SET, SURVEY = "data_set", "survey"
SAME_SCALE = 1e-3
"""Part by which the pixel scales of data sets may differ that are read as one."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One of several data sets that are read as one."""

    path: str
    share: float | None = None
    """Its share of what a training draws, relative to the others'; of those without one 1, and where none has one every
    row is drawn alike."""
    labels: tuple[str, ...] | None = None
    """Labels that count; rows of others are read without theirs. All where None."""
    survey: str | None = None
    """Survey of rows that do not name theirs."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return Path(os.path.abspath(self.path)).name


Data: TypeAlias = str | Path | Sequence[Source]
"""A folder, or several."""


def parse_sources(texts: Sequence[str]) -> Data:
    """
    What ``--data A --data B:2`` asks for: a folder where there is one without a share, else sources.

    Raises
    ------
    ConfigError
        A share is not a positive number.

    Examples
    --------
    >>> parse_sources(["a"])
    'a'
    >>> [(source.path, source.share) for source in parse_sources(["a", "b:2"])]
    [('a', None), ('b', 2.0)]
    """
    sources = [_parsed(text) for text in texts]
    if len(sources) == 1:
        return sources[0].path
    return tuple(sources)


def _parsed(text: str) -> Source:
    path, colon, share = text.rpartition(":")
    if not colon or os.path.exists(text):
        return Source(text)
    try:
        value = float(share)
    except ValueError:
        return Source(text)
    if not 0 < value < float("inf"):
        raise ConfigError("the share of a data set is a positive number: --data FOLDER:2", got=text)
    return Source(path, value)


def open_stamps(data: Data, *, one_grid: bool = True) -> StampSet:
    """
    Open a data set, or several as one.

    Parameters
    ----------
    data : path, or sequence of Source
    one_grid : bool
        Whether all stamps must have the same bands, size, pixel scale and unit; else they are read with `each_of`.

    Raises
    ------
    ConfigError
        A data set is named twice.
    DataError
        One cannot be opened (`StampSet.open`), or two do not go together: both are named, with what differs.
    """
    if isinstance(data, str | Path):
        return StampSet.open(data)
    sources = tuple(data)
    if len(sources) == 1 and sources[0].labels is None and sources[0].survey is None:
        return StampSet.open(sources[0].path)
    return JoinedStamps.join(sources, one_grid=one_grid)


def absolute(data: Data) -> str | tuple[Source, ...]:
    """The same data by absolute paths, which a worker elsewhere understands."""
    if isinstance(data, str | Path):
        return _absolute(data)
    return tuple(dataclasses.replace(source, path=_absolute(source.path)) for source in data)


def _absolute(path: str | Path) -> str:
    return str(path) if is_url(path) else os.path.abspath(path)


def asked_for(data: Data) -> Any:
    """What a request remembers of data: an absolute path, or a list with shares, labels and surveys."""
    found = absolute(data)
    return found if isinstance(found, str) else [_plain(source) for source in found]


def _plain(source: Source) -> dict[str, Any]:
    """As JSON reads it back: a resume compares."""
    facts = dataclasses.asdict(source)
    return facts | {"labels": None if source.labels is None else list(source.labels)}


@dataclasses.dataclass(frozen=True)
class JoinedStamps(StampSet):
    """
    Several data sets as one: rows in the order of the sources, and the columns of all, null where a source lacks one.

    ``data_set`` is the name of each row's source, or what the source itself says, as one that was merged does.
    """

    sources: tuple[Source, ...]
    members: tuple[StampSet, ...]
    """The data sets, in the same order."""
    names: tuple[str, ...]
    """What ``data_set`` says of each."""

    @classmethod
    def join(cls, sources: Sequence[Source], *, one_grid: bool = True) -> JoinedStamps:
        """Open data sets as one; see `open_stamps`."""
        members = tuple(StampSet.open(source.path) for source in sources)
        paths = [os.path.realpath(source.path) for source in sources]
        if twice := next((path for path in paths if paths.count(path) > 1), None):
            raise ConfigError("a data set is named twice; name it once, with a share", data=twice)
        images = _common_images(members, one_grid=one_grid)
        folder = Path(" + ".join(str(source.path) for source in sources))
        parts = tuple(part for member in members for part in member.parts)
        schema = _joined_schema(members, images)
        n = sum(member.n for member in members)
        return cls(folder, parts, schema, images, n, tuple(sources), members, _names(sources))

    @property
    def title(self) -> str:
        """Names of all, for records."""
        return " + ".join(self.names)

    @property
    def number(self) -> NDArray[np.int16]:
        """Number of each row's source ``(n,)``."""
        return np.repeat(np.arange(len(self.members)), [member.n for member in self.members]).astype(np.int16)

    @property
    def mixed(self) -> bool:
        """Whether its stamps lie on several pixel grids, or have other bands."""
        return any(
            spec_difference(spec, member.images[name]) for name, spec in self.images.items() for member in self.members
        )

    def each(self) -> tuple[JoinedStamps, ...]:
        """Each data set by itself, with the columns of all and its own pixels."""
        found = []
        for source, member, name in zip(self.sources, self.members, self.names, strict=True):
            images = {image: member.images[image] for image in self.images}
            fields = [images[f.name].field(f.name) if f.name in images else f for f in self.schema]
            schema = pa.schema(fields, metadata=self.schema.metadata)
            alone = (member.folder, member.parts, schema, images, member.n, (source,), (member,), (name,))
            found.append(JoinedStamps(*alone))
        return tuple(found)

    def _scalar(self, part: Path, name: str) -> pa.ChunkedArray:
        source = self._source(part)
        if name not in self.members[source].schema.names:
            n = read_footer(part).num_rows
            return pa.chunked_array([self._constant(source, name, n)])
        return self._own(source, name, read_parquet(part, columns=[name]).column(name))

    def _tables(self, part: Path, columns: Sequence[str], batch_size: int) -> Iterator[pa.Table]:
        source = self._source(part)
        there = [name for name in columns if name in self.members[source].schema.names]
        schema = pa.schema([self.schema.field(name) for name in columns], metadata=self.schema.metadata)
        with open_parquet(part, pre_buffer=False) as file:
            # a column is read in any case: it says how many rows there are
            for batch in file.iter_batches(batch_size=batch_size, columns=there or ["stamp_id"]):
                table = pa.Table.from_batches([batch])
                arrays = [
                    self._own(source, name, table.column(name))
                    if name in there
                    else self._constant(source, name, table.num_rows)
                    for name in columns
                ]
                yield pa.table(arrays, schema=schema)

    def _source(self, part: Path) -> int:
        return next(i for i, member in enumerate(self.members) if part in member.parts)

    def _own(self, source: int, name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """A column as the source has it, in the type that all share; labels that do not count become null."""
        labels, survey = self.sources[source].labels, self.sources[source].survey
        if name == "label" and labels is not None:
            values = pc.if_else(pc.is_in(values, pa.array(labels, pa.string())), values, None)
        if name == SURVEY and survey is not None:
            values = pc.coalesce(values, survey)
        if name == DATA_SET:
            values = pc.coalesce(values, self.names[source])
        kind = self.schema.field(name).type
        return values if values.type.equals(kind) else values.cast(kind)

    def _constant(self, source: int, name: str, n: int) -> pa.Array:
        said = {DATA_SET: self.names[source], SURVEY: self.sources[source].survey}.get(name)
        kind = self.schema.field(name).type
        return pa.nulls(n, kind) if said is None else pa.repeat(pa.scalar(said, kind), n)


def each_of(stamps: StampSet) -> tuple[StampSet, ...]:
    """The data sets of stamps that are read as one; else the one there is."""
    return stamps.each() if isinstance(stamps, JoinedStamps) else (stamps,)


def surveys_of(stamps: StampSet) -> NDArray[np.object_] | None:
    """
    Survey of each stamp ``(n,)``; where several data sets are read or were merged as one, those that name none are one
    each.

    None where a single data set does not name any.
    """
    there = [name for name in (SURVEY, DATA_SET) if name in stamps.schema.names]
    if not there:
        return None
    said = [stamps.column(name).astype(object) for name in there]
    return said[0] if len(said) == 1 else np.where([name is None for name in said[0]], said[1], said[0])


def _names(sources: Sequence[Source]) -> tuple[str, ...]:
    """Folders' names; of those that share one with what stands above them."""
    short = [source.name for source in sources]
    paths = [Path(os.path.abspath(source.path)) for source in sources]
    return tuple(
        name if short.count(name) == 1 else f"{path.parent.name}/{name}"
        for name, path in zip(short, paths, strict=True)
    )


def _common_images(members: Sequence[StampSet], *, one_grid: bool) -> dict[str, ImageSpec]:
    first = members[0]
    names = [name for name in first.images if all(name in member.images for member in members)]
    if not names:
        other = next(m for m in members if not set(m.images) & set(first.images))
        raise DataError(
            "the data sets have no image column in common",
            one=str(first.folder),
            other=str(other.folder),
            images=",".join(first.images),
            other_images=",".join(other.images),
        )
    for name, member in itertools.product(names if one_grid else (), members[1:]):
        differs = spec_difference(first.images[name], member.images[name])
        if differs:
            what, here, there = differs
            raise DataError(
                f"the stamps of two data sets differ in {what}, so they cannot be read as one; make one of them anew",
                one=f"{first.folder}: {here}",
                other=f"{member.folder}: {there}",
                image=name,
            )
    return {name: first.images[name] for name in names}


def spec_difference(one: ImageSpec, other: ImageSpec) -> tuple[str, str, str] | None:
    """In what two image columns differ, and what each has; None where their stamps may stand side by side."""
    if one.bands != other.bands:
        return "bands", " ".join(one.bands), " ".join(other.bands)
    if one.size_px != other.size_px:
        return "size", f"{one.size_px} px", f"{other.size_px} px"
    if abs(one.pixel_scale_arcsec / other.pixel_scale_arcsec - 1) > SAME_SCALE:
        return "pixel scale", f"{one.pixel_scale_arcsec:.5g} arcsec", f"{other.pixel_scale_arcsec:.5g} arcsec"
    return None if one.unit == other.unit else ("unit", one.unit, other.unit)


def _joined_schema(members: Sequence[StampSet], images: Mapping[str, ImageSpec]) -> pa.Schema:
    own = stamp_schema(images)
    every = {name for member in members for name in member.images}
    extra: dict[str, pa.Field] = {}
    for member in members:
        for field in member.schema:
            if field.name in own.names or field.name in every or field.name == DATA_SET:
                continue
            known = extra.get(field.name)
            extra[field.name] = field if known is None else _wider(known, field, member)
    fields = [field.with_nullable(True) for field in extra.values()]
    named = pa.field(DATA_SET, pa.string(), metadata={"description": "data set that the stamp is from"})
    if SURVEY not in extra:
        fields.append(pa.field(SURVEY, pa.string(), metadata={"description": "survey of the stamp"}))
    return stamp_schema(images, [*fields, named])


def _wider(one: pa.Field, other: pa.Field, member: StampSet) -> pa.Field:
    if one.type.equals(other.type) or pa.types.is_null(other.type):
        return one
    if pa.types.is_null(one.type):
        return other
    numbers = [pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in (one, other)]
    if all(numbers):
        whole = all(pa.types.is_integer(f.type) for f in (one, other))
        return one.with_type(pa.int64() if whole else pa.float64())
    raise DataError(
        "a column is of another type in two data sets; rename it in one of them",
        column=one.name,
        one=str(one.type),
        other=f"{member.folder}: {other.type}",
    )


def digest_of_data(data: StampSet) -> str:
    """Name of a data set's content by the names and sizes of its parts: 16 hex digits of SHA-256."""
    facts = "\n".join(f"{part.name} {part.stat().st_size}" for part in data.parts)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]
