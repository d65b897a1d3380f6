"""Commands carried out in forks of one process that has imported everything: a kill costs no imports."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"


def import_everything() -> None:
    """All that the commands import, but for Ray, so that a forked process begins at once."""
    sys.path[:0] = [str(TESTS), str(TESTS / "completeness")]
    import lenspipe

    for module in pkgutil.walk_packages(lenspipe.__path__, "lenspipe."):
        if not module.name.startswith("lenspipe.distributed") and "__main__" not in module.name:
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    for name in ("matplotlib.pyplot", "torch._dynamo", "scipy.stats", "sklearn.linear_model", "timm", "sep"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def fork(work: Callable[[], int], said: Path | None = None) -> int:
    """A child that ends with what ``work`` gives; its number. What it says goes to a file, or nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        out = os.open(said or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", 0, closefd=False), write_through=True)
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0, closefd=False), write_through=True)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _scratch() -> Path:
    """Where a forked process says what it has to say."""
    return Path(tempfile.gettempdir()) / f"writers-{os.getpid()}.txt"


def in_fork(work: Callable[[], None]) -> None:
    """Carry out work that must leave no thread here."""
    said = _scratch()
    pid = fork(lambda: work() or 0, said)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise RuntimeError(said.read_text()[-3000:])
    said.unlink()


def lenspipe(words: list[str]) -> int:
    """The exit code of a command in this process; a traceback is printed, and 70."""
    from lenspipe.cli import group, run_command

    try:
        run_command(group, words)
    except SystemExit as done:
        return int(done.code or 0)


def run_lenspipe(words: list[str], before: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """Carry out a command in a forked process; its exit code and what it said."""
    said = _scratch()

    def work() -> int:
        before()
        return lenspipe(words)

    pid = fork(work, said)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    text = said.read_text(errors="replace")
    said.unlink()
    return code, text
