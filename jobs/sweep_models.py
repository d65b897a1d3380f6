"""
Sweep over models on a cluster: ``ray job submit --working-dir . -- python jobs/sweep_models.py ...``.

The arguments are those of `lenspipe sweep`; ``--data`` and ``--out`` must be folders that every node reaches.
"""

from lenspipe.cli import run_command
from lenspipe.cli.sweep import command

if __name__ == "__main__":
    run_command(command)
