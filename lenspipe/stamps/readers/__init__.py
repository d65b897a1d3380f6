"""Readers of other people's labelled stamps, by name; each is a file here with its options and one function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenspipe import plugins
from lenspipe.errors import ConfigError
from lenspipe.stamps.readers.blends import BlendsOptions, read_blends
from lenspipe.stamps.readers.bologna1 import Bologna1Options, read_bologna1
from lenspipe.stamps.readers.bologna2 import Bologna2Options, read_bologna2
from lenspipe.stamps.readers.colour_npz import ColourNpzOptions, read_colour_npz
from lenspipe.stamps.readers.deeplense import DeeplenseOptions, read_deeplense
from lenspipe.stamps.readers.euclid_q1 import EuclidQ1Options, read_euclid_q1
from lenspipe.stamps.readers.fields import FieldsOptions, read_fields
from lenspipe.stamps.readers.fits_cubes import FitsCubesOptions, read_fits_cubes
from lenspipe.stamps.readers.fits_folder import FitsFolderOptions, read_fits_folder
from lenspipe.stamps.readers.hdf5 import Hdf5Options, read_hdf5
from lenspipe.stamps.readers.lsst2025 import Lsst2025Options, read_lsst2025
from lenspipe.stamps.readers.npz import NpzOptions, read_npz
from lenspipe.stamps.readers.pictures import PicturesOptions, read_pictures
from lenspipe.stamps.readers.stream import StampStream
from lenspipe.toml import Table


@dataclass(frozen=True)
class Reader:
    """A reader: what it reads, its options, and the function ``(folder, options) -> StampStream``."""

    summary: str
    options: type[Table]
    read: Callable[[Path, Any], StampStream]


READERS: dict[str, Reader] = {
    "blends": Reader("one .npz per blend: pixels, weights and peaks (scarlet)", BlendsOptions, read_blends),
    "bologna1": Reader("Bologna Lens Challenge 1, ground or space", Bologna1Options, read_bologna1),
    "bologna2": Reader("Bologna Lens Challenge 2, VIS and J Y H with its CSV", Bologna2Options, read_bologna2),
    "colour-npz": Reader("one .npz of uint8 colour stamps and a CSV (Space Warps)", ColourNpzOptions, read_colour_npz),
    "deeplense": Reader("DeepLense class folders of .npy or .npz files", DeeplenseOptions, read_deeplense),
    "euclid-q1": Reader("Euclid Q1 lens candidates, multi-extension FITS", EuclidQ1Options, read_euclid_q1),
    "fields": Reader("pictures of fields, a stamp around each object", FieldsOptions, read_fields),
    "fits-cubes": Reader("one FITS cube a band (deeplenstronomy)", FitsCubesOptions, read_fits_cubes),
    "fits-folder": Reader("a folder of FITS stamps and a CSV of labels", FitsFolderOptions, read_fits_folder),
    "hdf5": Reader("one HDF5 file of stamps in flux units (needs lenspipe[hdf5])", Hdf5Options, read_hdf5),
    "lsst2025": Reader("LSST Strong Lensing Data Challenge 2025", Lsst2025Options, read_lsst2025),
    "npz": Reader("one .npz of stamps in flux units and a CSV", NpzOptions, read_npz),
    "pictures": Reader(
        "PNG or JPEG pictures, classes by folder or CSV; their pixels are not flux", PicturesOptions, read_pictures
    ),
}


def reader_of(name: str) -> Reader:
    """The reader of a name, ours or another package's (`lenspipe.plugins`); raises `ConfigError` where it fails."""
    if name in READERS:
        return READERS[name]
    found = plugins.load(plugins.READERS, name)
    if not isinstance(found, Reader):
        raise ConfigError(
            "a reader of stamps must be a lenspipe.stamps.readers.Reader", reader=name, got=type(found).__name__
        )
    return found
