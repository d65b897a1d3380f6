"""
Painted stamps with two labels, for the table of anomalies: what is not a lens is `nonlens`, as among Space Warps.

    python -m benchmarks.studies.labels.painted --real ../shared/data --work WORK
    python -m benchmarks.studies.labels.anomalies --data WORK/painted-two --normal nonlens --also WORK/warps-0 \
        --set base.input.stamp_px=25 --out WORK/anomalies --name painted

Both are the stamps of the study of adaptations, 25 px at 0.372 arcsec; Space Warps candidates between the grades have no
label and are not judged.
"""

from __future__ import annotations

from pathlib import Path

import click
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.studies.adaptation import data
from lenspipe.tables import read_parquet, write_table


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder of the data sets.")
def main(real: Path, work: Path) -> None:
    """Make both."""
    data.warps(real, work, 0)
    out = work / "painted-two"
    out.mkdir(parents=True, exist_ok=True)
    for part in sorted(data.painted(real, work).glob("*.parquet")):
        rows = read_parquet(part)
        two = pc.if_else(pc.equal(rows["label"], "lens"), "lens", "nonlens")
        place = rows.schema.get_field_index("label")
        write_table(rows.set_column(place, rows.schema.field("label"), pa.chunked_array(two.chunks)), out / part.name)


if __name__ == "__main__":
    main()
