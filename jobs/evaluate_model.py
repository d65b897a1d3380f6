"""Judge models on labelled stamps: `lenspipe evaluate` as a script, for `ray job submit`."""

from lenspipe.cli import main

if __name__ == "__main__":
    main("evaluate")
