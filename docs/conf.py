"""The site of lenspipe: ``sphinx-build -W docs OUT`` (group ``docs`` of the development packages)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

import lenspipe

project = "lenspipe"
author = "The lenspipe developers"
release = version = lenspipe.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "**.ipynb_checkpoints", "jupyter_execute"]
html_theme = "furo"
html_title = "lenspipe"
html_show_sphinx = False
html_copy_source = False
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["myst-nb.lexer"]  # of a notebook that is not run
# notebooks in Markdown are run where this says so; those that are stored with what they gave (.ipynb) never are
nb_execution_mode = "auto" if os.environ.get("LENSPIPE_DOCS_RUN") else "off"
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_execution_excludepatterns = ["*.ipynb", "**/*.ipynb"]
nb_execution_raise_on_error = True
nb_execution_show_tb = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

_PAGES = re.compile(r"\]\(([^)#:\s]+\.(?:md|ipynb))\)")
_LINKS = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s]+)\)")


def unlink_sources(app: Sphinx, docname: str, source: list[str]) -> None:
    """Leave of a link to a file of the sources, which the site does not have, its text."""
    folder = (Path(app.srcdir) / docname).parent
    source[0] = _LINKS.sub(
        lambda link: link[0] if _in_site(app, folder / link[2].partition("#")[0]) else link[1], source[0]
    )


def add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """
    Give an index its table of contents: the pages that it links to, section by section.

    So the index stays a page that reads as well in a checkout.
    """
    if Path(docname).name != "index":
        return
    folder = Path(app.srcdir) / Path(docname).parent
    for part in re.split(r"^## ", source[0], flags=re.MULTILINE)[1:] or [source[0]]:
        caption = part.partition("\n")[0].strip("# ")
        here = dict.fromkeys(name for name in _PAGES.findall(part) if _in_site(app, folder / name))
        if here:
            pages = "\n".join(str(Path(name).with_suffix("")) for name in here)
            source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def _in_site(app: Sphinx, page: Path) -> bool:
    return page.resolve().is_relative_to(Path(app.srcdir).resolve()) and page.exists()


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", unlink_sources)
    app.connect("source-read", add_contents)
