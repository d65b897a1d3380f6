"""One self-contained page of a report: tables and pictures inside, no server, no network."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BASE_STYLE = (Path(__file__).parent / "base.css").read_text(encoding="utf-8")
"""Colours and type, shared with the page of candidates (`lenspipe.catalog.gallery`)."""
DOCUMENT_STYLE = (Path(__file__).parent / "document.css").read_text(encoding="utf-8")
NARROW, LONG_WORD, SHORT_WORD = 3, 20, 7
"""Columns up to which a table fits a phone as it is; letters from which a word may break, or never does."""


@dataclass
class Section:
    """
    A part of the page.

    Attributes
    ----------
    title : str
    text : str
        A paragraph, plain text.
    tables : list of (heading, rows)
        Cells are plain text.
    pictures : list of (file name, PNG)
    captions : dict
        Words under a picture, by its file name; the name's own where there are none.
    """

    title: str
    text: str = ""
    tables: list[tuple[Sequence[str], Sequence[Sequence[str]]]] = field(default_factory=list)
    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)


def page(title: str, intro: Sequence[str], sections: Sequence[Section]) -> str:
    """HTML of a report; every word is escaped and every picture lies inside."""
    parts = [f"<h1>{html.escape(title)}</h1>", *(f'<p class="note">{html.escape(line)}</p>' for line in intro)]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.text:
            parts.append(f"<p>{html.escape(section.text)}</p>")
        parts += [table_html(heading, rows) for heading, rows in section.tables]
        parts += [image(section.captions.get(name, name), png) for name, png in section.pictures]
    return document(title, "\n".join(parts))


def document(title: str, body: str, *, style: str = "") -> str:
    """
    A page around a body, with everything inside it.

    Parameters
    ----------
    title : str
        Plain text.
    body, style : str
        HTML, and CSS beside that of every page.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width">'
        f"<style>\n{BASE_STYLE}{DOCUMENT_STYLE}{style}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def image(name: str, png: bytes, *, on_phone: bytes | None = None) -> str:
    """HTML of a PNG that lies inside the page, over a caption: its name as words; another one may be for phones."""
    words = html.escape(name.removesuffix(".png").replace("_", " "))
    picture = f'<img alt="{words}" src="{_data(png)}">'
    if on_phone is not None:
        picture = f'<picture><source media="(max-width: 700px)" srcset="{_data(on_phone)}">{picture}</picture>'
    return f"<figure>{picture}<figcaption>{words}</figcaption></figure>"


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def table_html(heading: Sequence[str], rows: Sequence[Sequence[str]], *, kinds: Sequence[str] | None = None) -> str:
    """
    HTML of a table that no screen cuts off: cells wrap, and on a phone each row is a list of its cells.

    Parameters
    ----------
    heading : sequence of str
        Names of the columns, plain text.
    rows : sequence of sequences of str
        Cells, plain text.
    kinds : sequence of str, optional
        Class of each row.
    """
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in heading)
    body = []
    for k, row in enumerate(rows):
        cells = (
            f"<td{_breaks(cell)} data-label={_quoted(name)}>{html.escape(cell)}</td>"
            for name, cell in zip(heading, row, strict=True)
        )
        kind = "" if kinds is None else f" class={_quoted(kinds[k])}"
        body.append(f"<tr{kind}>{''.join(cells)}</tr>")
    wide = ' class="wide"' if len(heading) > NARROW else ""
    return f"<table{wide}><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _breaks(cell: str) -> str:
    """A word that has no place to wrap may break anywhere; a number may not."""
    longest = max(map(len, cell.split()), default=0)
    return ' class="long"' if longest > LONG_WORD else ' class="short"' if longest <= SHORT_WORD else ""


def _quoted(text: str) -> str:
    return f'"{html.escape(text, quote=True)}"'


def number(value: Any, digits: int = 4) -> str:
    """
    A number as a reader wants it.

    Examples
    --------
    >>> number(0.98765432), number(None), number(1200), number(3.2e-7)
    ('0.9877', '-', '1200', '3.2e-07')
    """
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.{digits}g}"


def with_interval(value: Any, interval: Any) -> str:
    """
    Value and 95 % interval.

    Examples
    --------
    >>> with_interval(0.5, [0.4, 0.6])
    '0.500 [0.400, 0.600]'
    """
    if value is None or interval is None:
        return "-"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def rate(entry: dict[str, Any]) -> str:
    """TPR at a rate with interval and the numbers behind it, or why there is none."""
    if entry["value"] is None:
        return str(entry["why"])
    return f"{with_interval(entry['value'], entry['interval95'])} ({entry['k']}/{entry['n']}, {entry['n_false']} false)"
