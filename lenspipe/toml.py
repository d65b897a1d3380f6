"""Typed TOML: frozen pydantic tables that refuse unknown keys and name the nearest known one."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lenspipe.errors import ConfigError


class Table(BaseModel):
    """A TOML table: frozen, typed, unknown keys refused, docstrings under fields become descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


TableT = TypeVar("TableT", bound=Table)


def read_toml(path: str | Path, table: type[TableT]) -> TableT:
    """
    Read a TOML file into a typed table.

    Raises
    ------
    ConfigError
        The file is missing or is not TOML, or a key is unknown (the nearest known key is named),
        missing, or has a value of the wrong type or range. The message starts with ``file:table``.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the TOML file: {error.strerror}", file=str(path)) from error
    return parse_toml(text, table, origin=path.name)


def parse_toml(text: str, table: type[TableT], *, origin: str) -> TableT:
    """Parse TOML text into a typed table; ``origin`` names the source in messages (see `read_toml`)."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin}: not valid TOML: {error}") from error
    return validate(raw, table, origin=origin)


def validate(raw: Mapping[str, Any], table: type[TableT], *, origin: str) -> TableT:
    """Validate a mapping as a typed table; raises `ConfigError` as `read_toml` does."""
    try:
        return table.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e, table, origin) for e in error.errors())) from None


def _explain(error: Any, table: type[BaseModel], origin: str) -> str:
    *parents, key = [str(part) for part in error["loc"]] or [""]
    place = ":".join([origin, ".".join(parents)]) if parents else origin
    if error["type"] == "extra_forbidden":
        known = sorted(_fields_at(table, parents))
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        return f"{place}: unknown key {key!r}. {hint}"
    if error["type"] == "missing":
        return f"{place}: missing key {key!r}"
    return f"{place}: {key} = {error['input']!r}: {error['msg']}"


def _fields_at(table: type[BaseModel], parents: list[str]) -> set[str]:
    fields = table.model_fields
    for part in parents:
        if part.isdigit() or part not in fields:
            continue
        nested = _tables_in(fields[part].annotation)
        if not nested:
            return set()
        fields = {name: field for inner in nested for name, field in inner.model_fields.items()}
    return set(fields)


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [inner for arg in getattr(annotation, "__args__", ()) for inner in _tables_in(arg)]
