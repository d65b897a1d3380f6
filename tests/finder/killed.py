"""
Make the finder of a pickled request, killed by SIGKILL at each moment that is named, and taken up again each time.

A moment is a word of the progress and how often it comes before the kill: each making is a fork, so that what this
process has imported serves all.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from importlib import import_module
from pathlib import Path

from lenspipe.finder.run import make_finder
from lenspipe.runner import SILENT, Silent

LATE = ("torch._dynamo", "matplotlib.figure", "sklearn.linear_model", "lenspipe.learn.objectives.find")
"""What the steps import when they come to it."""


class Deadly(Silent):
    """Progress that kills its process when a word has come so many times."""

    def __init__(self, word: str, after: int) -> None:
        self._word, self._left, self._stage = word, after, ""

    def _heard(self, text: str) -> None:
        self._left -= text.startswith(self._word)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def stage(self, name: str, total: int, done: int = 0) -> None:
        self._stage = name
        self._heard(f"{name} begins")

    def advance(self, n: int = 1, **counts: int) -> None:
        self._heard(f"{self._stage} advances")

    def say(self, message: str) -> None:
        self._heard(message)


def main() -> None:
    request, out, moments = pickle.loads(Path(sys.argv[1]).read_bytes())
    for name in LATE:
        import_module(name)
    ended = []
    for word, after in [*moments, ("", 0)]:
        child = os.fork()
        if not child:
            make_finder(request, out, progress=Deadly(word, after) if word else SILENT)
            os._exit(0)
        ended.append(os.waitpid(child, 0)[1])
    print(json.dumps(ended))


if __name__ == "__main__":
    main()
