"""
Simulate labelled stamps on a cluster: ``ray job submit --working-dir . -- python jobs/simulate_lenses.py ...``.

The arguments are those of `lenspipe simulate`; ``--out`` must be a folder that every node writes to.
"""

from lenspipe.cli import run_command
from lenspipe.cli.simulate import command

if __name__ == "__main__":
    run_command(command)
