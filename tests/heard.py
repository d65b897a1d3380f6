"""Progress that a test reads."""

from lenspipe.runner import Silent


class Heard(Silent):
    """Units of the last stage, and what was said."""

    def __init__(self):
        self.said = []

    def stage(self, name, total, done=0):
        self.total, self.at_first, self.done = total, done, done

    def advance(self, n=1, **counts):
        self.done += n

    def say(self, message):
        self.said.append(message)
