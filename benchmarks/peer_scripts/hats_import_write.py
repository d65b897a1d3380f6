"""Write a HATS catalogue with hats-import: ROWS OUT, in an environment that has it."""

import sys

from dask.distributed import Client
from hats_import.catalog.arguments import ImportArguments
from hats_import.catalog.run_import import run

if __name__ == "__main__":
    rows, out = sys.argv[1:]
    arguments = ImportArguments(
        input_file_list=[rows],
        output_path=out,
        output_artifact_name="cat",
        file_reader="parquet",
        highest_healpix_order=8,
        pixel_threshold=100_000,
        progress_bar=False,
        tmp_path=out,
    )
    with Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        run(arguments, client)
