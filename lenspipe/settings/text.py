"""A settings class as commented TOML and as a page in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from lenspipe.settings.keys import Key, SettingsTable, bare_key, sections_of, toml_value
from lenspipe.toml import Table

WIDTH = 110


def commented_toml(table: type[Table]) -> str:
    """
    A settings file with every key, its default, its meaning, and what it may be.

    What has no default is commented out with a ``#`` before its name, as are the tables that are not there by default:
    the text parses to the defaults, and a ``#`` taken away sets a key.
    """
    return "\n\n".join(_section_text(section) for section in sections_of(table)).strip() + "\n"


def reference_page(table: type[Table], *, title: str, lead: str, leave_out: Sequence[str] = ()) -> str:
    """
    The same as a page in Markdown.

    Parameters
    ----------
    table : type of Table
    title, lead : str
        Heading, and what stands below it.
    leave_out : sequence of str
        First words of tables that another page has.
    """
    parts = [f"# {title}", lead]
    for section in sections_of(table):
        if section.header.strip("[]").split(".")[0] in leave_out:
            continue
        if section.header:
            parts.append(f"## `{section.header}`\n\n{_about(section)}")
        if section.keys:
            rows = [
                f"| `{k.name}` | {_default_words(k)} | {_cell(k.values)} | {_cell(k.meaning)} |" for k in section.keys
            ]
            parts.append("\n".join(["| key | default | values | meaning |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _section_text(section: SettingsTable) -> str:
    lines = []
    mark = "#" if section.optional else ""
    if section.header:
        lines += [*_comment(_about(section)), f"{mark}{section.header}"]
    else:
        lines += _comment(section.meaning)
    for key in section.keys:
        lines += ["", *_comment(key.meaning), *_comment(_note(key))]
        if key.default is None:
            lines.append(f"#{bare_key(key.name)} =")
        else:
            lines.append(f"{mark}{bare_key(key.name)} = {toml_value(key.default)}")
    return "\n".join(lines)


def _about(section: SettingsTable) -> str:
    return section.meaning + (
        " (required)" if section.required else " (not there by default)" if section.optional else ""
    )


def _note(key: Key) -> str:
    return f"({key.values}{'; required' if key.required else '; not set' if key.default is None else ''})"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH - 2, break_on_hyphens=False)]


def _default_words(key: Key) -> str:
    if key.required:
        return "**required**"
    return "not set" if key.default is None else f"`{_cell(toml_value(key.default))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
