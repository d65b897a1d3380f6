"""A HATS v1.0 tree (IVOA Note HATS 1.0, 2025-08-22): adaptive pixels, one file each, and what describes them."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from numpy.typing import NDArray

from lenspipe.catalog.columns import DEFAULT, HEALPIX
from lenspipe.errors import DataError
from lenspipe.footers import seal
from lenspipe.rundir import utc_now
from lenspipe.sky.healpix import N_BASE, ORDER
from lenspipe.tables import read_footer, read_parquet, write_table

MAX_ROWS, HIGHEST_ORDER, SKYMAP_ORDER = 500_000, 10, 7


@dataclasses.dataclass(frozen=True, order=True)
class Pixel:
    """A partition of the tree."""

    order: int
    number: int

    @property
    def span(self) -> tuple[int, int]:
        """First index of order 29 inside, and the one after the last."""
        shift = 2 * (ORDER - self.order)
        return self.number << shift, (self.number + 1) << shift

    @property
    def children(self) -> Iterator[Pixel]:
        """The four pixels of the next order."""
        return (Pixel(self.order + 1, 4 * self.number + i) for i in range(4))

    @property
    def path(self) -> str:
        """File of the partition, relative to ``dataset``."""
        return f"Norder={self.order}/Dir={self.number // 10_000 * 10_000}/Npix={self.number}.parquet"


BASE = tuple(Pixel(0, i) for i in range(N_BASE))


def adaptive_pixels(
    index29: NDArray[np.int64],
    *,
    max_rows: int = MAX_ROWS,
    highest_order: int = HIGHEST_ORDER,
    inside: Iterable[Pixel] = BASE,
    apart_from: Iterable[Pixel] = (),
) -> list[tuple[Pixel, int, int]]:
    """
    Pixels that hold sorted rows, each as large as ``max_rows`` allows.

    Parameters
    ----------
    index29 : array (n,)
        Sorted NESTED indices of order 29.
    max_rows : int
        Rows of a pixel, unless it is of the highest order.
    highest_order : int
        Smallest pixel.
    inside : pixels
        Where to look; the whole sky.
    apart_from : pixels
        Pixels that exist already and hold none of the rows; the new ones do not overlap them.

    Returns
    -------
    list of (Pixel, int, int)
        Pixel, first row, row after the last; in the order of the rows.
    """

    def bounds(pixel: Pixel) -> tuple[int, int]:
        low, high = np.searchsorted(index29, pixel.span)
        return int(low), int(high)

    return divide(bounds, max_rows=max_rows, highest_order=highest_order, inside=inside, apart_from=apart_from)


def divide(
    bounds: Callable[[Pixel], tuple[int, int]],
    *,
    max_rows: int,
    highest_order: int,
    inside: Iterable[Pixel],
    apart_from: Iterable[Pixel],
) -> list[tuple[Pixel, int, int]]:
    """`adaptive_pixels` of rows of which it is known where those of a pixel begin and end (``bounds``)."""
    starts = np.sort(np.array([pixel.span[0] for pixel in apart_from], np.int64))
    found: list[tuple[Pixel, int, int]] = []

    def visit(pixel: Pixel) -> None:
        low, high = bounds(pixel)
        if low == high:
            return
        alone = not np.diff(np.searchsorted(starts, pixel.span))[0]
        if alone and (high - low <= max_rows or pixel.order >= highest_order):
            found.append((pixel, low, high))
            return
        for child in pixel.children:
            visit(child)

    for pixel in sorted(inside, key=lambda p: p.span):
        visit(pixel)
    return found


def home_of(index29: NDArray[np.int64], pixels: list[Pixel]) -> NDArray[np.int64]:
    """Number of the pixel that holds each row; -1 where none does."""
    if not pixels:
        return np.full(len(index29), -1)
    spans = np.array([pixel.span for pixel in pixels], np.int64)
    order = np.argsort(spans[:, 0])
    place = np.searchsorted(spans[order, 0], index29, "right") - 1
    number = order[np.maximum(place, 0)]
    inside = (place >= 0) & (index29 < spans[number, 1])
    return np.where(inside, number, -1)


def write_pixel(dataset: Path, pixel: Pixel, rows: pa.Table) -> None:
    """Write the rows of one pixel, sorted by index."""
    path = dataset / pixel.path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(rows, path, row_group_size=100_000)


def write_metadata(
    root: Path,
    schema: pa.Schema,
    pixels: list[Pixel],
    *,
    name: str,
    max_rows: int = MAX_ROWS,
    is_margin_of: tuple[str, float] | None = None,
) -> None:
    """
    Write all of a tree but its pixels' files: footers, partitions, counts on the sky, properties.

    ``is_margin_of`` is the tree that this one is the margin of, and its width [arcsec]; a margin has no counts on the
    sky.
    """
    dataset = root / "dataset"
    pixels = sorted(pixels, key=lambda p: p.span)
    footers, counts = [], np.zeros(N_BASE * 4**SKYMAP_ORDER, np.int64)
    for pixel in pixels:
        footer = read_footer(dataset / pixel.path)
        footer.set_file_path(pixel.path)
        footers.append(footer)
        index = read_parquet(dataset / pixel.path, columns=[HEALPIX])[HEALPIX].to_numpy()
        cells, n = np.unique(index >> (2 * (ORDER - SKYMAP_ORDER)), return_counts=True)
        counts[cells] += n
    pq.write_metadata(schema, dataset / "_common_metadata")
    pq.write_metadata(schema, dataset / "_metadata", metadata_collector=footers)
    for name_of_footer in ("_common_metadata", "_metadata"):
        seal(dataset / name_of_footer)
    lines = [f"{pixel.order},{pixel.number}\n" for pixel in pixels]
    (root / "partition_info.csv").write_text("Norder,Npix\n" + "".join(lines))
    n_row = [footer.num_rows for footer in footers]
    properties = _properties(schema, pixels, n_row, counts, name=name, max_rows=max_rows)
    if is_margin_of is None:
        for file in ("skymap.fits", "point_map.fits"):
            _write_skymap(root / file, counts)
    else:
        del properties["hats_skymap_order"]
        properties["dataproduct_type"] = "margin"
        properties["hats_primary_table_url"], properties["hats_margin_threshold"] = is_margin_of
    write_properties(root, properties)


def write_properties(root: Path, properties: dict[str, Any]) -> None:
    """Write the properties of a tree or of an index, and its size on the disk, under both of their names."""
    size = sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) // 1024
    text = properties_text("HATS catalog", {**properties, "hats_estsize": size})
    for file in ("hats.properties", "properties"):  # the second name is for readers older than v1.0
        (root / file).write_text(text)


def properties_text(title: str, properties: dict[str, Any]) -> str:
    """A file of properties."""
    return f"#{title}\n" + "".join(f"{key}={value}\n" for key, value in properties.items())


def of_the_builder() -> dict[str, Any]:
    """Properties that say who wrote something of HATS, and when."""
    created = datetime.datetime.fromisoformat(utc_now())
    return {
        "hats_builder": "lenspipe",
        "hats_creation_date": f"{created:%Y-%m-%dT%H:%MUTC}",
        "hats_release_date": "2025-08-22",
        "hats_version": "v1.0",
    }


def read_pixels(root: Path) -> list[Pixel]:
    """
    Partitions of a tree.

    Raises
    ------
    DataError
        Their list is damaged, or is not of the files that are there.
    """
    file = root / "partition_info.csv"
    pixels: list[Pixel] = []
    for line, row in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines()[1:], 2):
        match = re.fullmatch(r"(\d{1,2}),(\d{1,19})", row)
        order, number = (int(match[1]), int(match[2])) if match else (0, -1)
        if not (order <= ORDER and 0 <= number < N_BASE * 4**order):
            raise DataError(
                "the list of a catalogue's partitions is damaged; take it from a copy", file=str(file), line=line
            )
        pixels.append(Pixel(order, number))
    there = {path.relative_to(root / "dataset").as_posix() for path in root.glob("dataset/Norder=*/Dir=*/Npix=*")}
    listed = [str(pixel.path) for pixel in pixels]
    if amiss := sorted(there ^ set(listed)) or sorted(path for path in set(listed) if listed.count(path) > 1):
        raise DataError(
            "the list of a catalogue's partitions is not of its files; take both from a copy",
            file=str(file),
            first=amiss[0],
            here="yes" if amiss[0] in there else "no",
        )
    return pixels


def _properties(
    schema: pa.Schema, pixels: list[Pixel], n_row: list[int], counts: NDArray[np.int64], *, name: str, max_rows: int
) -> dict[str, Any]:
    return {
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_nrows": sum(n_row),
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_cols_default": " ".join(column for column in DEFAULT if column in schema.names),
        "hats_col_healpix": HEALPIX,
        "hats_col_healpix_order": ORDER,
        "hats_npix_suffix": ".parquet",
        "hats_skymap_order": SKYMAP_ORDER,
        "hats_max_rows": max([max_rows, *n_row]),
        "hats_order": max((pixel.order for pixel in pixels), default=0),
        "moc_sky_fraction": f"{np.mean(counts > 0):.10f}",
        **of_the_builder(),
    }


def _write_skymap(path: Path, counts: NDArray[np.int64]) -> None:
    """Counts per NESTED pixel as an implicit HEALPix FITS map."""
    hdu = fits.BinTableHDU.from_columns(
        [fits.Column(name="PIXEL", format="1024J", array=counts.astype(np.int32).reshape(-1, 1024))]
    )
    for key, value in {
        "PIXTYPE": "HEALPIX",
        "ORDERING": "NESTED",
        "COORDSYS": "C",
        "EXTNAME": "xtension",
        "NSIDE": 2**SKYMAP_ORDER,
        "FIRSTPIX": 0,
        "LASTPIX": len(counts) - 1,
        "INDXSCHM": "IMPLICIT",
        "OBJECT": "FULLSKY",
    }.items():
        hdu.header[key] = value
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True, checksum=True)
