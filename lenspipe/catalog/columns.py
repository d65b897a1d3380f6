"""Columns of the catalogue: what the scan measured, and what makes a row an entry that can be traced."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from lenspipe.schema import VERSION, candidates_schema, field, measured_fields

HEALPIX = "_healpix_29"
KNOWN = ("known_lens", "known_lens_grade", "known_lens_reference", "known_lens_separation_arcsec")
CONTAMINANT = (
    field(
        "contaminant", pa.string(), "Nearest published contaminant within the radius of the match", ucd="meta.id.cross"
    ),
    field("contaminant_kind", pa.string(), "What its list says it is", ucd="meta.code.class"),
    field("contaminant_reference", pa.string(), "Where that contaminant was published", ucd="meta.bib"),
    field(
        "contaminant_separation_arcsec",
        pa.float32(),
        "Distance to that contaminant",
        unit="arcsec",
        ucd="pos.angDistance",
    ),
)
"""Columns of a catalogue that was matched with a list of contaminants; others lack them."""
DEFAULT = ("candidate_id", "name", "ra", "dec", "rank", "score", "probability", "n_detection", "known_lens")
"""Columns that tools which ask for a default load."""
RUN_ID = field(
    "run_id", pa.string(), "Digest of the run: its request, plan, model and input files", ucd="meta.id;meta.dataset"
)


def added_columns(schema: pa.Schema, bands: tuple[str, ...]) -> list[pa.Field]:
    """Columns of candidates or of a catalogue that its models have added to those of every one."""
    known = {*catalog_schema(bands).names, *candidates_schema(bands).names}
    return [f for f in schema if f.name not in known]


def catalog_schema(bands: tuple[str, ...], added: Sequence[pa.Field] = ()) -> pa.Schema:
    """
    Columns of the catalogue, sorted by `HEALPIX` in the HATS tree and by score in the flat files.

    ``probability`` is null where the model's card holds no calibration or the row no score; then ``prior`` is null
    and ``calibration`` empty.
    """
    measured = {f.name: f for f in measured_fields(bands, added)}
    score = measured.pop("score")
    del measured["probability"]
    identifier, ra, dec = measured.pop("candidate_id"), measured.pop("ra"), measured.pop("dec")
    return pa.schema(
        [
            field(HEALPIX, pa.int64(), "HEALPix NESTED index of order 29, ICRS", ucd="pos.healpix"),
            identifier,
            field("name", pa.string(), "Name by position, truncated; two objects may share one", ucd="meta.id"),
            ra,
            dec,
            field(
                "rank", pa.int64(), "Place in its run by score, 1 the highest; null without a score", ucd="meta.number"
            ),
            score,
            field(
                "probability",
                pa.float64(),
                "Calibrated probability to be a lens; null without a calibration",
                ucd="stat.probability",
            ),
            field(
                "prior",
                pa.float64(),
                "Fraction of lenses that the probability assumes; null without one",
                ucd="stat.probability",
            ),
            field(
                "n_detection",
                pa.int32(),
                "Detections in overlapping shards, tiles and runs that this row stands for",
                ucd="meta.number;obs",
            ),
            *measured.values(),
            field("known_lens", pa.string(), "Nearest known lens within the radius of the match", ucd="meta.id.cross"),
            field("known_lens_grade", pa.string(), "Grade of that lens in its list", ucd="meta.code.qual"),
            field("known_lens_reference", pa.string(), "Where that lens was published", ucd="meta.bib"),
            field(
                "known_lens_separation_arcsec",
                pa.float32(),
                "Distance to that lens",
                unit="arcsec",
                ucd="pos.angDistance",
            ),
            RUN_ID,
            field("tile", pa.string(), "Tile", ucd="meta.id;obs.field"),
            field("tile_checksum", pa.string(), "SHA-256 over the checksums of the tile's files", ucd="meta.checksum"),
            field("shard_id", pa.string(), "Shard of the tile", ucd="meta.id;obs"),
            field(
                "window_x0_px",
                pa.int32(),
                "First column of the shard's window in the tile",
                unit="pix",
                ucd="pos.cartesian.x;instr.det",
            ),
            field("window_y0_px", pa.int32(), "First row of the window", unit="pix", ucd="pos.cartesian.y;instr.det"),
            field("window_x1_px", pa.int32(), "Column after the window", unit="pix", ucd="pos.cartesian.x;instr.det"),
            field("window_y1_px", pa.int32(), "Row after the window", unit="pix", ucd="pos.cartesian.y;instr.det"),
            field(
                "model",
                pa.string(),
                "Digest of the model that scored; empty where none did",
                ucd="meta.id;meta.modelled",
            ),
            field(
                "calibration",
                pa.string(),
                "Digest of the calibration; empty where there is none",
                ucd="meta.id;meta.modelled",
            ),
            field("code_version", pa.string(), "Version of lenspipe that scanned", ucd="meta.version;meta.software"),
        ],
        metadata={"lenspipe.table": "catalogue", "lenspipe.schema": VERSION},
    )


def bands_of(schema: pa.Schema) -> tuple[str, ...]:
    """Bands of a catalogue, in the order of its columns."""
    return tuple(n[len("flux_err_") : -len("_njy")] for n in schema.names if n.startswith("flux_err_"))
