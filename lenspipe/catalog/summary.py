"""The README of a catalogue: what it holds, how it is opened, its columns; the summary page of the HATS collection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lenspipe.catalog import folder as names
from lenspipe.catalog.columns import HEALPIX
from lenspipe.readme import write_readme
from lenspipe.tables import read_schema


def write_summary(catalogue: Path, record: dict[str, Any], *, name: str) -> None:
    """Write ``README.md`` of a catalogue from its record and the columns of its tree."""
    flat = (catalogue / names.FLAT).exists()
    counts, area = record["counts"], record["area"]
    models = sorted({run["model"]["digest"] for run in record["runs"] if run["model"]})
    facts = [
        f"`{name}`: {counts['rows']} rows, {counts['scored_rows']} of them scored, of {counts['candidates']} "
        f"detections in {len(record['runs'])} {'run' if len(record['runs']) == 1 else 'runs'}; footprint "
        f"{area['footprint_deg2']:.5f} deg2; model {', '.join(models) or 'none'}; written by lenspipe "
        f"{record['lenspipe']}.",
        "",
        "One row is one object; detections of it in overlapping tiles and runs are merged within "
        f"{record['merge_radius_arcsec']:g} arcsec. `score` ranks; `probability` is calibrated where it is not null.",
        "",
        "```python",
        "# in the folder that holds this one",
        *(["from astropy.table import Table"] if flat else []),
        "import lsdb",
        "",
        f'catalogue = lsdb.open_catalog("{name}")  # with its margin',
        *([f'table = Table.read("{name}/{names.FLAT}", format="parquet.votable")'] if flat else []),
        "```",
    ]
    schema = read_schema(catalogue / names.HATS / "dataset" / "_common_metadata")
    columns = ["## Columns", "", "| column | type | unit | what it is |", "|---|---|---|---|"]
    for f in schema:
        about = {key.decode(): value.decode() for key, value in (f.metadata or {}).items()}
        what = about.get("description", "") + (" (in the tree only)" if f.name == HEALPIX else "")
        columns.append(f"| `{f.name}` | {f.type} | {about.get('unit', '')} | {what.replace('|', '/')} |")
    write_readme(catalogue, "catalogue", facts, after=columns)
