"""Write a HATS catalogue of a run, or append one: RUN OUT [append]."""

import sys
from pathlib import Path

from lenspipe.catalog.run_rows import open_run_folder
from lenspipe.catalog.write import write_catalog

if __name__ == "__main__":
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    write_catalog(
        open_run_folder(run), out, radius_arcsec=1.0, acronym="LPC", matching=None, append="append" in sys.argv,
        max_rows=100_000, flat=False, versions=False,
    )  # fmt: skip
