"""
Train a network on a cluster: ``ray job submit --working-dir . -- python jobs/train_classifier.py ...``.

The arguments are those of `lenspipe train`; ``--data`` and ``--out`` must be folders that every node reaches.
"""

from lenspipe.cli import run_command
from lenspipe.cli.train import command

if __name__ == "__main__":
    run_command(command)
