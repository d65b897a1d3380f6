import json
import re
from pathlib import Path

import click
import pytest

from lenspipe.cli import group

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "cluster/README.md",
    *sorted(page for kind in ("md", "ipynb") for page in (ROOT / "docs").rglob(f"*.{kind}")),
]


def text_of(page):
    """A page as Markdown; of a notebook the text, and its commands as blocks."""
    if page.suffix != ".ipynb":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    parts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return "\n\n".join(text if kind == "markdown" else f"```\n{text}\n```" for kind, text in parts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(page)):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_index():
    linked = {
        (ROOT / "docs" / target).resolve()
        for page in (ROOT / "docs/index.md", ROOT / "docs/reference/index.md")
        for target in re.findall(r"\]\(([^)#\s]+\.(?:md|ipynb))\)", page.read_text())
        for base in [page.parent]
        for target in [str(base / target)]
    }
    assert {page for page in PAGES[2:] if page.name != "index.md"} <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_a_page_have_the_options_that_are_named(page):
    text = re.sub(r"\\\n\s*", " ", text_of(page))
    lines = [line for block in re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    for line in lines:
        match = re.match(r"\s*!?(?:uv run )?(?:\.venv/bin/)?lenspipe ([a-z]+)(.*)", line.split("#")[0])
        if not match:
            continue
        command = group.get_command(click.Context(group), match[1])
        assert command is not None, line
        if isinstance(command, click.Group):
            command = command.commands[match[2].split()[0]]
        known = {name for p in command.params for name in [*p.opts, *p.secondary_opts]} | {"--help"}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", match[2])) <= known, line
