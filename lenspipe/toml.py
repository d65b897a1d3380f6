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
    return parse_toml(toml_text(path), table, origin=Path(path).name)


def toml_text(path: str | Path) -> str:
    """Text of a TOML file, which may begin with a byte-order mark; raises `ConfigError` as `read_toml` does."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")  # a byte-order mark is what Windows editors put in front
    except OSError as error:
        raise ConfigError(f"cannot read the TOML file: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"the TOML file is not UTF-8 (line {line}, byte {error.object[error.start]:#04x}); save it as UTF-8",
            file=str(path),
        ) from error
    return text


def parse_toml(text: str, table: type[TableT], *, origin: str) -> TableT:
    """Parse TOML text into a typed table; ``origin`` names the source in messages (see `read_toml`)."""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of a date or a number too, or of a thousand brackets
        raise ConfigError(f"{origin}: not valid TOML: {error}") from error
    return validate(raw, table, origin=origin)


def validate(raw: Mapping[str, Any], table: type[TableT], *, origin: str) -> TableT:
    """Validate a mapping as a typed table; raises `ConfigError` as `read_toml` does."""
    try:
        return table.model_validate(raw)
    except ValidationError as error:
        found = error.errors()
        # what holds a faulty table may be called faulty too, such as a list that is empty without it
        outer = {e["loc"][:n] for e in found for n in range(len(e["loc"]))}
        raise ConfigError("; ".join(_explain(e, table, origin) for e in found if e["loc"] not in outer)) from None


def put_over(table: TableT, values: Mapping[str, Any], *, origin: str) -> TableT:
    """
    A table with other values in some places.

    Parameters
    ----------
    table : Table
        What stands where nothing is put over it.
    values : mapping
        By dotted name: ``optim.epochs``; ``image.0.size_px`` for the first of several tables. A nested table that is
        null so far is made with its defaults.
    origin : str
        Names the source in messages.

    Raises
    ------
    ConfigError
        A name or a value is not allowed, as `read_toml` says it.
    """
    raw: dict[str, Any] = table.model_dump()
    for key, value in values.items():
        _put(raw, key, value, origin)
    return validate(raw, type(table), origin=origin)


def parse_assignment(text: str) -> tuple[str, Any]:
    """
    ``KEY=VALUE`` as a command line has it: the value is TOML, ``null``, or a bare word.

    Raises
    ------
    ConfigError
        There is no key or no value, or the value begins like a list, a table or a quoted text and is none.

    Examples
    --------
    >>> [parse_assignment(text) for text in ("optim.epochs=5", "select.mag_max=null", "score.model=none")]
    [('optim.epochs', 5), ('select.mag_max', None), ('score.model', 'none')]
    """
    key, separator, value = (part.strip() for part in text.partition("="))
    if not (separator and key and value):
        raise ConfigError("--set needs KEY=VALUE", got=text)
    if value == "null":
        return key, None
    try:
        parsed = tomllib.loads(f"value = {value}")
        if set(parsed) == {"value"}:
            return key, parsed["value"]
    except (ValueError, RecursionError) as error:
        if value[0] in "[{\"'":
            raise ConfigError(f"--set: the value is not TOML: {error}", got=text) from error
    return key, value


def _put(raw: dict[str, Any], key: str, value: Any, origin: str) -> None:
    *parents, last = key.split(".")
    at: Any = raw
    for part in parents:
        at = _step(at, part, key, origin)
    if isinstance(at, list):
        at[_place(at, last, key, origin)] = value
    else:
        at[last] = value


def _step(at: Any, part: str, key: str, origin: str) -> Any:
    """The table or list named ``part``, made where it is null, and open to change."""
    where: Any = _place(at, part, key, origin) if isinstance(at, list) else part
    inner = at[where] if isinstance(at, list) else at.get(where)
    if inner is None:
        inner = {}
    elif isinstance(inner, tuple):
        inner = list(inner)
    elif not isinstance(inner, dict | list):
        raise ConfigError(f"{origin}: {part!r} is a value, not a table", key=key)
    at[where] = inner
    return inner


def _place(at: list[Any], part: str, key: str, origin: str) -> int:
    if not part.isdigit() or int(part) >= len(at):
        raise ConfigError(f"{origin}: give the number of one of {len(at)} tables, from 0, not {part!r}", key=key)
    return int(part)


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
