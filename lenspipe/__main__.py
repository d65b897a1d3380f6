"""`python -m lenspipe` is `lenspipe`."""

from lenspipe.cli import main

main()
