"""What the records of a run and of a catalogue must say, before anything is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from lenspipe.errors import ConfigError
from lenspipe.rundir import read_json

_Words = dict[str, Any]
_Count = Annotated[int, Field(ge=0)]


class _Model(TypedDict):
    digest: str


class _Input(TypedDict):
    file: str
    checksum: str


class _Mesh(TypedDict):
    mesh_px: Annotated[int, Field(ge=1, le=65536)]
    filter_mesh: Annotated[int, Field(ge=1, le=65536)]


class _Config(TypedDict):
    zero_point_ab: float | None
    background: _Mesh


class _Request(TypedDict):
    survey: _Words
    config: _Config


class _NoPrior(TypedDict):
    prior: None
    why: str


class _Prior(TypedDict):
    prior: float
    prior_from: str


class _Run(TypedDict):
    status: str
    started: str
    request: _Request
    bands: list[str]
    model: _Model | None
    versions: dict[str, str]
    probability: NotRequired[_Prior | _NoPrior | None]
    inputs: NotRequired[list[_Input] | None]


class _Counts(TypedDict):
    candidates: _Count
    tiles: _Count
    shards: _Count
    shards_ok: _Count
    sources: _Count


class _Ended(_Run):
    counts: _Counts


class _Entry(TypedDict):
    run_id: str
    folder: str
    request: _Request
    model: _Model | None
    counts: _Counts
    inputs: list[_Input] | None


class _Area(TypedDict):
    footprint_deg2: float


class _Lenses(TypedDict):
    list: str
    radius_arcsec: float


class _Rows(TypedDict):
    rows: _Count
    candidates: _Count


class _Catalog(TypedDict):
    written: str
    lenspipe: str
    merge_radius_arcsec: float
    counts: _Rows
    area: _Area
    known_lenses: _Lenses | None
    runs: Annotated[list[_Entry], Field(min_length=1)]


_RUN, _ENDED, _CATALOG = TypeAdapter(_Run), TypeAdapter(_Ended), TypeAdapter(_Catalog)


def run_record(path: Path) -> _Words:
    """
    ``run.json``.

    Raises
    ------
    ConfigError
        It is damaged, or lacks something that every run says.
    """
    record = _checked(path, _RUN)
    return record if record["status"] == "running" else _checked(path, _ENDED)


def catalog_record(path: Path) -> _Words:
    """``provenance.json`` of a catalogue; raises as `run_record`."""
    return _checked(path, _CATALOG)


def lasting_id(record: _Words) -> str:
    """What a catalogue is known by through all changes; of one of an older version its first run."""
    return str(record.get("catalogue_id") or record["runs"][0]["run_id"])


def run_of(record: _Words, run_id: str, catalogue: Path) -> _Words:
    """What the record of a catalogue says of one of its runs; raises `ConfigError` where it does not know it."""
    for run in record["runs"]:
        if run["run_id"] == run_id:
            return dict(run)
    raise ConfigError(
        "a row is of a run that the catalogue's record does not name", catalogue=str(catalogue), run=run_id
    )


def _checked(path: Path, shape: TypeAdapter[Any]) -> _Words:
    record = read_json(path)
    try:
        shape.validate_python(record, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(
            f"the file is damaged, or of another program: {first['msg']}; take it from a copy",
            file=str(path),
            key=".".join(str(part) for part in first["loc"])[:200],
        ) from error
    whole: _Words = record
    return whole
