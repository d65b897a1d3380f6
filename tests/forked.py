"""A process to kill that need not import anything: a copy of the test's own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable


class Forked:
    """``work`` in a copy of this process, which says nothing and runs none of its exits. In words of `Popen`."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.pid = os.fork()
        self.code: int | None = None
        if self.pid == 0:
            os._exit(_run(work))

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def kill(self) -> None:
        """SIGKILL, where it still runs."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Exit code, once it has ended."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code


def _run(work: Callable[[], object]) -> int:
    import torch

    torch.set_num_threads(1)  # a pool of threads does not live on in a copy
    try:
        with open(os.devnull, "w") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            work()
            return 0
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        print(error, file=sys.__stderr__)
        return 1
