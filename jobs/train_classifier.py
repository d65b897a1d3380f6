"""Train a network: `lenspipe train` as a script, for `ray job submit`; all nodes must see --data and --out."""

from lenspipe.cli import main

if __name__ == "__main__":
    main("train", runner="ray")
