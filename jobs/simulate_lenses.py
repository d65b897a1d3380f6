"""Simulate labelled stamps: `lenspipe simulate` as a script, for `ray job submit`; all nodes must see --out."""

from lenspipe.cli import main

if __name__ == "__main__":
    main("simulate", runner="ray")
