"""Scan survey tiles into a candidate catalogue: `lenspipe scan` as a script, for `ray job submit`."""

from lenspipe.cli import main

if __name__ == "__main__":
    main("scan", runner="ray")
