"""Lists of known lenses: the shipped snapshot of lenscat, or a file of the user's."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning

from lenspipe.errors import ConfigError
from lenspipe.tables import read_parquet

SNAPSHOT = Path(__file__).parent / "data" / "lenscat.parquet"
SCHEMA = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64()),
        pa.field("grade", pa.string()),
        pa.field("reference", pa.string()),
    ]
)
_WORDS = {
    "name": ("name", "id", "object", "objname", "designation", "candidate_id", "source_id", "main_id"),
    "ra": ("ra", "ra_deg", "ra [deg]", "raj2000", "_raj2000", "ra_icrs", "ra_j2000", "right_ascension"),
    "dec": ("dec", "dec_deg", "dec [deg]", "de", "dej2000", "_dej2000", "de_icrs", "dec_j2000", "declination"),
    "grade": ("grade", "grading", "class", "quality", "rank", "label", "contaminant_type", "kind"),
    "reference": ("reference", "ref", "bibcode", "paper", "doi"),
}
_FORMATS = {".fits": "fits", ".fit": "fits", ".xml": "votable", ".vot": "votable", ".votable": "votable"}


def read_known_lenses(file: str) -> pa.Table:
    """
    Read a list of lenses: ``lenscat`` for the shipped one, else a Parquet, CSV, FITS or VOTable file.

    Columns are found by their usual names, whatever the case (``ra``, ``RAJ2000``, ``RA [deg]`` ...); name, grade
    and reference are null where there are none. Positions are ICRS degrees.

    Returns
    -------
    pa.Table
        With `SCHEMA`.

    Raises
    ------
    ConfigError
        The file cannot be read, has no columns of position in degrees, or a position that is none.
    """
    if file == "lenscat":
        return read_parquet(SNAPSHOT, columns=SCHEMA.names).select(SCHEMA.names).cast(SCHEMA)
    return _known(_read(file), file)


def read_positions(file: str) -> pa.Table:
    """
    A list with all of its columns, those of the position called ``ra`` and ``dec``; columns of these names are others'.

    Raises
    ------
    ConfigError
        As `read_known_lenses`.
    """
    table = _read(file)
    at = _known(table, file)
    others = table.drop_columns([name for name in table.column_names if name.lower().strip() in ("ra", "dec")])
    return others.append_column("ra", at["ra"]).append_column("dec", at["dec"])


def _known(table: pa.Table, file: str) -> pa.Table:
    names = {column.lower().strip(): column for column in table.column_names}
    found = {key: next((names[word] for word in words if word in names), None) for key, words in _WORDS.items()}
    for key in ("ra", "dec"):
        if found[key] is None:
            raise ConfigError(
                f"the list of lenses has no column for {key}; name it {key}, in degrees",
                file=file,
                has=" ".join(table.column_names)[:200],
            )
    try:
        columns = [
            pa.nulls(table.num_rows, f.type) if (name := found[f.name]) is None else table[name].cast(f.type)
            for f in SCHEMA
        ]
    except pa.ArrowException as error:
        raise ConfigError(f"the list of lenses has a position that is not in degrees: {error}", file=file) from error
    lenses = pa.table(columns, schema=SCHEMA)
    ra, dec = lenses["ra"].to_numpy(), lenses["dec"].to_numpy()
    bad = ~(np.isfinite(ra) & (np.abs(dec) <= 90))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ConfigError("a row of the list of lenses has no position", file=file, row=row + 1)
    return lenses


def _read(file: str) -> pa.Table:
    path = Path(file)
    if not path.is_file():
        raise ConfigError("no such list of lenses; give a Parquet, CSV, FITS or VOTable file", file=file)
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return pq.read_table(path, partitioning=None, page_checksum_verification=True)
        if suffix in (".csv", ".tsv", ".txt"):
            options = pyarrow.csv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ",")
            return pyarrow.csv.read_csv(path, parse_options=options)
        if suffix in _FORMATS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AstropyWarning)
                table = Table.read(path, format=_FORMATS[suffix])
            flat = [name for name in table.colnames if len(table[name].shape) == 1]
            return pa.Table.from_pandas(table[flat].to_pandas(), preserve_index=False)
    except Exception as error:  # astropy raises whatever the bytes of a damaged list lead it to
        raise ConfigError(
            f"the list of lenses cannot be read: {error or type(error).__name__}"[:500], file=file
        ) from error
    raise ConfigError("the kind of list is not known; use .parquet, .csv, .tsv, .fits, .xml or .vot", file=file)
