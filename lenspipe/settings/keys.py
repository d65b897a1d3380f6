"""The keys of a settings class: default, values in words with their unit, meaning."""

from __future__ import annotations

import dataclasses
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lenspipe.toml import Table

UNITS = {
    "px": "pixels",
    "arcsec": "arcsec",
    "arcmin2": "per square arcmin",
    "njy": "nJy",
    "njy_per_electron": "nJy",
    "mag": "mag",
    "dex": "dex",
    "ab": "AB mag",
    "deg": "deg",
    "msun": "Msun",
    "ev": "eV",
    "mib": "MiB",
    "sigma": "sigma",
    "snr": "S/N",
    "epochs": "epochs",
}
"""Units by the last word of a key, ``min`` and ``max`` apart."""
_WORDS: dict[Any, str] = {int: "whole number", float: "number", str: "text", bool: "true or false"}
_SIGNS = ((Ge, "ge", "from"), (Gt, "gt", "above"), (Le, "le", "to"), (Lt, "lt", "below"))


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a table."""

    name: str
    """Its name."""
    default: Any
    """Its default; None where it is not set, or must be given."""
    required: bool
    """Whether a file must give it."""
    values: str
    """What it may be, in words, with its unit."""
    meaning: str
    """Its docstring."""


@dataclasses.dataclass(frozen=True)
class SettingsTable:
    """One table: a header and the keys below it."""

    header: str
    """``[optim]``, ``[[image]]``, ``[survey.band.NAME]``; empty for the file's own keys."""
    meaning: str
    """What the table is for."""
    keys: tuple[Key, ...]
    """Its keys, tables below it left out."""
    optional: bool
    """Whether the table is not there unless a file gives it."""
    required: bool = False
    """Whether a file must give it."""


def sections_of(table: type[Table]) -> list[SettingsTable]:
    """All tables of a settings file, outer ones first, in the order of the class."""
    return list(_walk(table, _defaults(table), path=(), meaning=_doc(table), optional=False))


def toml_value(value: Any) -> str:
    """
    A value as TOML writes it in a line.

    Examples
    --------
    >>> toml_value({"low": 1e-4, "names": ("g", "r"), "log": True})
    '{ low = 0.0001, names = ["g", "r"], log = true }'
    """
    if isinstance(value, Mapping):
        inner = ", ".join(f"{bare_key(str(k))} = {toml_value(v)}" for k, v in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _walk(
    table: type[Table],
    defaults: Mapping[str, Any],
    *,
    path: tuple[str, ...],
    meaning: str,
    optional: bool,
    many: bool = False,
    required: bool = False,
) -> Iterator[SettingsTable]:
    keys, below = [], []
    for name, field in table.model_fields.items():
        form, inner = _nested(field.annotation)
        if inner is None:
            keys.append(_key(name, field, defaults[name]))
        else:
            below.append((name, field, form, inner))
    header = f"[[{'.'.join(path)}]]" if many else f"[{'.'.join(path)}]" if path else ""
    yield SettingsTable(header, meaning, tuple(keys), optional, required)
    for name, field, form, inner in below:
        default = defaults[name]
        absent = optional or form != "one" or default is None
        yield from _walk(
            inner,
            _defaults(inner) if absent or not isinstance(default, Mapping) else default,
            path=(*path, name, "NAME") if form == "named" else (*path, name),
            meaning=_sentence(field.description) or _doc(inner),
            optional=absent,
            many=form == "many",
            required=field.is_required(),
        )


def _nested(annotation: Any) -> tuple[str, type[Table] | None]:
    """Whether a field holds one table, ``many`` of them, or ``named`` ones; None where it holds a value."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return "one", annotation
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        inner = [a for a in args if a is not type(None)]
        return _nested(inner[0]) if len(inner) == 1 else ("", None)
    if origin in (tuple, list) and args:
        form, table = _nested(args[0])
        return ("many", table) if form == "one" else ("", None)
    if origin is dict:
        form, table = _nested(args[1])
        return ("named", table) if form == "one" else ("", None)
    return "", None


def _defaults(table: type[Table]) -> dict[str, Any]:
    found = {}
    for name, field in table.model_fields.items():
        default = field.get_default(call_default_factory=True)
        found[name] = None if default is PydanticUndefined else default
        if isinstance(default, Table):
            found[name] = default.model_dump()
    return found


def _key(name: str, field: FieldInfo, default: Any) -> Key:
    extra = field.json_schema_extra
    choices = extra.get("enum") if isinstance(extra, dict) else None  # of a text that a validator checks
    values = " | ".join(map(toml_value, choices)) if isinstance(choices, list) else _words(field.annotation)
    low_high = _bounds(field.metadata)
    word = name.removesuffix("_min").removesuffix("_max").rsplit("_", 1)[-1]
    unit = UNITS.get(word, "") if "number" in values else ""
    return Key(
        name,
        default,
        field.is_required(),
        ", ".join(part for part in (values, unit, low_high) if part),
        _sentence(field.description),
    )


def _words(annotation: Any) -> str:
    """An annotation in the words of somebody who writes TOML."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(toml_value(arg) for arg in args)
    if origin in (Union, types.UnionType):
        return _either(args)
    if origin in (tuple, list):
        if origin is tuple and Ellipsis not in args:
            kinds = list(dict.fromkeys(map(_words, args)))
            return f"{len(args)} {kinds[0]}s" if kinds == ["number"] else f"list of {len(args)}: {', '.join(kinds)}"
        return f"list of {_words(args[0])}"
    if origin is dict:
        return f"table of NAME = {_words(args[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Table):
        inner = [
            name if f.is_required() else f"{name} = {toml_value(f.default)}"
            for name, f in annotation.model_fields.items()
        ]
        return f"{{ {', '.join(inner)} }}"
    return _words(annotation.__value__) if hasattr(annotation, "__value__") else "any value"


def _either(args: Sequence[Any]) -> str:
    """Several kinds of value; whole numbers are numbers, and what may be anything plain is called a value."""
    if {bool, int, float, str} <= set(args):
        args = ["value", *(arg for arg in args if arg not in (bool, int, float, str))]
    elif float in args:
        args = [arg for arg in args if arg is not int]
    return " or ".join(
        dict.fromkeys(arg if isinstance(arg, str) else _words(arg) for arg in args if arg is not type(None))
    )


def _bounds(metadata: Sequence[Any]) -> str:
    return " ".join(
        f"{word} {getattr(one, name):g}" for kind, name, word in _SIGNS for one in metadata if isinstance(one, kind)
    )


def _sentence(text: str | None) -> str:
    """A docstring in one line, with the marks of reStructuredText as those of Markdown."""
    return re.sub(r"``(.+?)``", r"`\1`", " ".join((text or "").split()))


def _doc(table: type[Table]) -> str:
    return _sentence((table.__doc__ or "").strip().split("\n\n")[0])


def bare_key(name: str) -> str:
    """A name as it stands before ``=``: quoted where TOML asks for it."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
