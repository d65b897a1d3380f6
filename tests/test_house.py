"""The house keeps its order: tasks, Ray and modules are where they belong. Reads the source, runs nothing."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lenspipe"
TASKS = {"find", "classify", "regress", "denoise", "embed", "anomaly", "cluster", "generate"}
TASKS_AT_HOME = ("nn/outputs.py", "learn/objectives/", "evaluate/judges/")
"""What a task gives, how it is trained, how it is judged: everybody else asks these."""
ENTRIES = ("lenspipe.cli", "lenspipe.__main__", "lenspipe.api")
PUBLIC = {"lenspipe.simulate.paint": "docs/simulations.md", "lenspipe.stats.recall": "docs/evaluation.md"}
"""Modules that nothing in the package imports, and the page that tells a user to."""
SOURCES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All of a file's syntax; walking is what takes long."""
    return tuple(ast.walk(tree_of(path)))


def name_of(path: Path) -> str:
    """Dotted name of a file's module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, module: str) -> Iterator[str]:
    """Modules that a file imports anywhere, and as which a name might be one."""
    is_package = path.name == "__init__.py"
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join([*above, base]) if base else ".".join(above)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def tasks_in(path: Path) -> list[int]:
    """Lines with a task's name as a string, but for docstrings and the keys of the commands' list of themselves."""
    said = {id(node.value) for node in nodes_of(path) if isinstance(node, ast.Expr)}
    return [
        node.lineno
        for node in nodes_of(path)
        if isinstance(node, ast.Constant) and node.value in TASKS and id(node) not in said
    ]


def in_options(path: Path) -> set[int]:
    """Lines of click's options, whose choices name tasks."""
    calls = [node for node in nodes_of(path) if isinstance(node, ast.Call)]
    options = [
        call
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr in {"option", "argument", "Choice"}
    ]
    return {line for call in options for line in range(call.lineno, (call.end_lineno or call.lineno) + 1)}


def test_a_task_is_named_where_it_lives_and_in_the_choices_of_a_command_only() -> None:
    strangers = {}
    for path in SOURCES:
        file = path.relative_to(PACKAGE).as_posix()
        if file.startswith(TASKS_AT_HOME) or file == "cli/__init__.py":
            continue  # the last has a command of that name
        lines = tasks_in(path)
        if lines and file.startswith("cli/"):
            allowed = in_options(path)
            lines = [line for line in lines if line not in allowed]
        if lines:
            strangers[file] = lines
    assert not strangers, "ask card.outputs, the objective or the judge instead of comparing a task's name"


def test_no_file_outside_of_the_families_asks_for_the_class_of_one() -> None:
    """`isinstance` of a class that is defined in lenspipe/nn/families, in any file of the package."""
    own = PACKAGE / "nn" / "families"
    classes = {
        node.name
        for path in SOURCES
        if own in path.parents
        for node in nodes_of(path)
        if isinstance(node, ast.ClassDef)
    }
    assert {"UNet", "TimmModel", "EquivariantNet", "KernelMachine"} <= classes
    asked = {
        (name_of(path), name.id)
        for path in SOURCES
        if own not in path.parents
        for call in nodes_of(path)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "isinstance"
        for name in ast.walk(call.args[1])
        if isinstance(name, ast.Name) and name.id in classes
    }
    assert not asked


def test_ray_is_imported_in_distributed_only() -> None:
    users = set()
    for path in SOURCES:
        module = name_of(path)
        names = imports_of(path, module)
        if any(name.split(".")[0] == "ray" for name in names):
            users.add(module)
    assert users and all(module.startswith("lenspipe.distributed") for module in users), users


def test_tables_are_written_in_one_place() -> None:
    own = {"lenspipe.tables", "lenspipe.stamps.format", "lenspipe.scan.ledger"}  # the last two: pixels, nested rows
    writers = {
        name_of(path)
        for path in SOURCES
        for node in nodes_of(path)
        if isinstance(node, ast.Attribute) and node.attr in {"ParquetWriter", "to_parquet", "write_table"}
        if isinstance(node.value, ast.Name) and (node.value.id == "pq" or node.attr == "to_parquet")
    }
    assert writers == own, "lenspipe.tables writes tables that every reader opens"


def test_no_module_is_without_a_way_from_a_command_a_job_or_a_documented_entry() -> None:
    trees = {name_of(path): path for path in SOURCES}
    edges = {module: set(imports_of(path, module)) & set(trees) for module, path in trees.items()}
    waiting = {module for module in trees if module.startswith(ENTRIES)} | set(PUBLIC)
    for path in (ROOT / "jobs").glob("*.py"):
        waiting |= set(imports_of(path, path.stem)) & set(trees)
    reached: set[str] = set()
    while waiting:
        module = waiting.pop()
        reached.add(module)
        parents = {module.rpartition(".")[0]} & set(trees)  # importing a module runs its packages
        waiting |= (edges[module] | parents) - reached
    assert not set(trees) - reached


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_a_public_entry_is_documented(module: str) -> None:
    assert module in (ROOT / PUBLIC[module]).read_text()


DEVELOPMENT_DATA = (
    "kids_viking",
    "vircam_video",
    "spacewarps",
    "slacs_hst",
    "cosmos_hst",
    "des_lrg",
    "des_early_types",
)
"""Folders of the pixels that this project was developed on: `benchmarks/studies` alone knows them."""


def test_the_package_and_its_jobs_name_no_folder_of_development_data() -> None:
    files = [*SOURCES, *sorted(PACKAGE.rglob("*.toml")), *sorted((ROOT / "jobs").glob("*.*"))]
    assert len(files) > 200
    named = {
        f"{path.relative_to(ROOT)}: {name}" for path in files for name in DEVELOPMENT_DATA if name in path.read_text()
    }
    assert not named
