"""
Painted stamps with two labels, for the table of anomalies: what is not a lens is `nonlens`, as among Space Warps.

    python -m benchmarks.studies.labels.painted --real ../shared/data --work WORK
    python -m benchmarks.studies.labels.anomalies --data WORK/painted-two --normal nonlens --also WORK/warps-0 \
        --set base.input.stamp_px=25 --out WORK/anomalies --name painted

Both are the stamps of the study of adaptations, 25 px at 0.372 arcsec; Space Warps candidates between the grades
have no label and are not judged.
"""

from __future__ import annotations

from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.studies.adaptation import data
from lenspipe.stamps.format import write_part


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of the data sets.")
def main(real: Path, work: Path) -> None:
    """Make both."""
    data.warps(real, work, 0)
    for part in sorted(data.painted(real, work).glob("*.parquet")):
        rows = pq.read_table(part)
        two = [
            None if label is None else "lens" if label == "lens" else "nonlens" for label in rows["label"].to_pylist()
        ]
        place = rows.schema.get_field_index("label")
        column = pa.array(two, rows.schema.field(place).type)
        write_part(rows.set_column(place, rows.schema.field(place), column), work / "painted-two", part.stem)


if __name__ == "__main__":
    main()
