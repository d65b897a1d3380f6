"""Judge models on labelled stamps: `lenspipe evaluate` as a script, for `ray job submit`."""

from lenspipe.cli import run_command
from lenspipe.cli.evaluate import command

if __name__ == "__main__":
    run_command(command)
