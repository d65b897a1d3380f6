"""Stamps that were cut, written some at a time: as a data set of lenspipe, as FITS files, or as NumPy arrays."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from lenspipe.disk import scratch_beside
from lenspipe.stamps.cut.pixels import Stamps
from lenspipe.stamps.format import part_writer
from lenspipe.stamps.spec import ImageSpec, image_column, mask_fraction_fields, stamp_schema
from lenspipe.survey.read import TileFacts
from lenspipe.tables import safe_cell
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

Form: TypeAlias = Literal["parquet", "fits", "npy"]
Plane: TypeAlias = Literal["invvar", "mask"]
"""What may be written beside the pixels."""
Write: TypeAlias = Callable[[pa.Table, Stamps, TileFacts], None]
"""Rows of the list, as many as there are stamps; the stamps; headers of the tile that they are of."""
RECIPE = "cut"
_LISTED = ("invvar", "mask")


def cut_schema(spec: ImageSpec, rows: pa.Schema, planes: Sequence[Plane]) -> pa.Schema:
    """
    Schema of stamps that were cut: the format's columns, masks, and what the list of positions has beside them.

    ``invvar`` (nJy^-2) and ``mask`` (1 where masked) are lists in the order of the image's pixels.
    """
    n = int(np.prod(spec.shape))
    kinds = {"invvar": (pa.float32(), "nJy-2"), "mask": (pa.uint8(), "")}
    extra = [
        pa.field(name, pa.list_(kinds[name][0], n), metadata={"unit": kinds[name][1]})
        for name in _LISTED
        if name in planes
    ]
    known = {*stamp_schema({"image": spec}).names, "size_px"}
    return stamp_schema(
        {"image": spec}, [*mask_fraction_fields(spec.bands), *extra, *(f for f in rows if f.name not in known)]
    )


@contextlib.contextmanager
def parquet_part(
    folder: Path, name: str, *, spec: ImageSpec, rows: pa.Schema, planes: Sequence[Plane]
) -> Iterator[Write]:
    """Write a part of a data set of lenspipe (`lenspipe.stamps.format`)."""
    schema = cut_schema(spec, rows, planes)
    n = int(np.prod(spec.shape))

    def write(table: pa.Table, stamps: Stamps, facts: TileFacts) -> None:
        columns: dict[str, Any] = {c: table[c] for c in table.column_names}
        columns["image"] = image_column(stamps.image, spec)
        columns["recipe"] = pa.array([RECIPE] * table.num_rows)
        columns["seed"] = pa.nulls(table.num_rows, pa.int64())
        for band, fraction in zip(spec.bands, stamps.mask.mean(axis=(2, 3), dtype=np.float64).T, strict=True):
            columns[f"mask_fraction_{band}"] = pa.array(fraction, pa.float32())
        for plane in planes:
            pixels = stamps.mask.view(np.uint8) if plane == "mask" else stamps.invvar
            columns[plane] = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(pixels).reshape(-1)), n)
        part(pa.table([columns[f.name] for f in schema], schema=schema))

    with part_writer(schema, folder, name) as part:
        yield write


@contextlib.contextmanager
def fits_files(
    folder: Path, name: str, *, spec: ImageSpec, rows: pa.Schema, planes: Sequence[Plane]
) -> Iterator[Write]:
    """
    Write a FITS file per stamp, ``STAMP_ID.fits``, and ``NAME.csv`` with the rows.

    An HDU per band, named as it, in nJy with the tile's WCS (but for lookup tables); beside it ``BAND_INVVAR`` and
    ``BAND_MASK``. The primary header says which position of which tile it is.
    """
    from astropy.io import fits

    done: list[pa.Table] = []
    headers: dict[int, fits.Header] = {}

    def write(table: pa.Table, stamps: Stamps, facts: TileFacts) -> None:
        if id(facts) not in headers:
            headers.clear()
            headers[id(facts)] = facts.wcs.to_header(relax=True)
        for i, row in enumerate(table.to_pylist()):
            size = stamps.image.shape[-1]
            header = headers[id(facts)].copy()
            lower = (size - 1) / 2 - 0.5
            header["CRPIX1"] -= int(np.floor(row["x_px"] - lower))
            header["CRPIX2"] -= int(np.floor(row["y_px"] - lower))
            first = fits.PrimaryHDU()
            for key, column in _HEADER.items():
                if row.get(column) is not None:
                    first.header[key] = row[column]
            hdus = [first]
            for b, band in enumerate(spec.bands):
                kinds = {"": stamps.image, "INVVAR": stamps.invvar, "MASK": stamps.mask.view(np.uint8)}
                for kind in ("", *(p.upper() for p in planes)):
                    pixels = kinds[kind]
                    assert pixels is not None
                    hdu = fits.ImageHDU(pixels[i, b], header, name=f"{band}_{kind}" if kind else band)
                    if not kind:
                        hdu.header["BUNIT"], hdu.header["MAGZERO"] = "nJy", NANOJANSKY_ZERO_POINT_AB
                    hdus.append(hdu)
            file = folder / f"{_file_name(row['stamp_id'])}.fits"
            with _scratch(file) as scratch:
                fits.HDUList(hdus).writeto(scratch, checksum=True)
        done.append(table)

    folder.mkdir(parents=True, exist_ok=True)
    yield write
    _write_rows(done, folder, name)


_HEADER = {
    "STAMP_ID": "stamp_id",
    "SURVEY": "survey",
    "TILE": "tile",
    "RA": "ra_deg",
    "DEC": "dec_deg",
    "X_PX": "x_px",
    "Y_PX": "y_px",
    "LABEL": "label",
    "SPLIT": "split",
    "RUN_ID": "run_id",
    "CANDID": "candidate_id",
}


@contextlib.contextmanager
def npy_part(
    folder: Path, name: str, *, spec: ImageSpec, rows: pa.Schema, planes: Sequence[Plane], n: int
) -> Iterator[Write]:
    """
    Write ``NAME.npy`` (n, band, y, x), ``NAME.invvar.npy`` and ``NAME.mask.npy`` beside it, and ``NAME.csv``.

    Parameters
    ----------
    n : int
        Most stamps that will come.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, tuple[str, Any]] = {"": (f"{name}.npy", np.float32)}
    kinds |= {p: (f"{name}.{p}.npy", np.uint8 if p == "mask" else np.float32) for p in planes}
    done: list[pa.Table] = []
    with contextlib.ExitStack() as files:
        scratch = {kind: files.enter_context(_scratch(folder / file)) for kind, (file, _) in kinds.items()}
        stacks: dict[str, NDArray[Any]] = {
            kind: np.lib.format.open_memmap(scratch[kind], mode="w+", dtype=dtype, shape=(n, *spec.shape))
            for kind, (_, dtype) in kinds.items()
        }
        begun = 0

        def write(table: pa.Table, stamps: Stamps, facts: TileFacts) -> None:
            nonlocal begun
            here = slice(begun, begun + table.num_rows)
            for kind, stack in stacks.items():
                pixels = {"": stamps.image, "invvar": stamps.invvar, "mask": stamps.mask.view(np.uint8)}[kind]
                stack[here] = pixels
            begun = here.stop
            done.append(table)

        yield write
        for kind, stack in stacks.items():
            if begun < n:
                _shorten(scratch[kind], stack, begun)
    _write_rows(done, folder, name)


def _shorten(file: Path, stack: NDArray[Any], n: int) -> None:
    """Leave the first ``n`` of a stack in its file."""
    short = file.with_name(file.name + "s")
    fewer = np.lib.format.open_memmap(short, mode="w+", dtype=stack.dtype, shape=(n, *stack.shape[1:]))
    for start in range(0, n, 1000):
        fewer[start : start + 1000] = stack[start : min(start + 1000, n)]
    os.replace(short, file)


@contextlib.contextmanager
def _scratch(file: Path) -> Iterator[Path]:
    scratch = scratch_beside(file)
    try:
        yield scratch
        os.replace(scratch, file)
    finally:
        scratch.unlink(missing_ok=True)


def _write_rows(tables: list[pa.Table], folder: Path, name: str) -> None:
    if tables:
        with _scratch(folder / f"{name}.csv") as scratch:
            table = pa.concat_tables(tables)
            for k, column in enumerate(table.columns):
                if pa.types.is_string(column.type):  # what a spreadsheet would run as a formula
                    words = [None if word is None else safe_cell(word) for word in column.to_pylist()]
                    table = table.set_column(k, table.schema.field(k), pa.array(words, pa.string()))
            pa.csv.write_csv(table, scratch)


def _file_name(stamp_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+,-]", "_", stamp_id)
