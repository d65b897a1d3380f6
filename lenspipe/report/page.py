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
DOCUMENT_STYLE = """body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { margin: .6rem 0; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { color: var(--dim); font-weight: 600; background: var(--panel); }
img { max-width: min(100%, 34rem); height: auto; vertical-align: top; border: 1px solid var(--line); }
img { margin: .3rem .3rem .3rem 0; }
.scroll { overflow-x: auto; }
p { max-width: 50rem; }
.note { color: var(--dim); }
"""


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
    """

    title: str
    text: str = ""
    tables: list[tuple[Sequence[str], Sequence[Sequence[str]]]] = field(default_factory=list)
    pictures: list[tuple[str, bytes]] = field(default_factory=list)


def page(title: str, intro: Sequence[str], sections: Sequence[Section]) -> str:
    """HTML of a report; every word is escaped and every picture lies inside."""
    parts = [f"<h1>{html.escape(title)}</h1>", *(f'<p class="note">{html.escape(line)}</p>' for line in intro)]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.text:
            parts.append(f"<p>{html.escape(section.text)}</p>")
        parts += [_table(heading, rows) for heading, rows in section.tables]
        parts += [image(name, png) for name, png in section.pictures]
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


def image(name: str, png: bytes) -> str:
    """HTML of a PNG that lies inside the page."""
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heading)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


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
