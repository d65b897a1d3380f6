"""Every module can be imported, and the examples of its docstrings hold."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for path in (ROOT / "lenspipe").rglob("*.py") if path.name != "__main__.py")  # that one runs


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


EXAMPLES = [name_of(path) for path in SOURCES if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_a_module_hold(name: str, monkeypatch) -> None:
    monkeypatch.setattr("lenspipe.distributed.choice.has_joined", lambda: False)  # another test may have
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed


def test_every_module_can_be_imported() -> None:
    for name in map(name_of, SOURCES):
        importlib.import_module(name)
