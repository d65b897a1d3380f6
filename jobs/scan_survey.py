"""Scan survey tiles into a candidate catalogue: `lenspipe scan` as a script, for `ray job submit`."""

from lenspipe.cli import run_command
from lenspipe.cli.scan import command

if __name__ == "__main__":
    run_command(command)
