"""Files of a survey: local or remote, plain, gzipped or tile-compressed FITS, opened so that windows can be read."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from lenspipe.errors import ConfigError, TileError

# What astropy, gzip and the operating system raise for bytes that are not the FITS file they claim to be.
UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, zlib.error, fits.VerifyError)
SUFFIXES = (".fits", ".fit", ".fts", ".fits.fz", ".fits.gz", ".fit.gz", ".fts.gz")
WHOLE_FILE_CHECKSUM_BYTES = 64 << 20
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 20


def is_url(path: str) -> bool:
    """Whether a path is an fsspec URL such as ``s3://bucket/key``."""
    return "://" in path


def find_files(requests: list[str]) -> list[str]:
    """
    FITS files that files, folders, globs and fsspec URLs name; local paths come back absolute.

    Raises
    ------
    ConfigError
        A request names nothing: the file or folder does not exist, or the glob is empty.
    """
    found: list[str] = []
    for request in requests:
        hits = [f for f in glob_files(request) if f.endswith(SUFFIXES) or f == os.path.abspath(request)]
        if not hits:
            kind = "glob is empty" if any(c in request for c in "*?[") else "no such FITS file or folder"
            raise ConfigError(f"{kind}: nothing to scan", tiles=request)
        found.extend(hits)
    return found


def glob_files(request: str) -> list[str]:
    """Files that a path, folder (searched through), glob or URL names, sorted."""
    if is_url(request):
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(request)
        names = filesystem.find(path) if filesystem.isdir(path) else filesystem.glob(path)
        # HTTP lists whole URLs, the others paths.
        return sorted(name if is_url(name) else f"{request.split('://')[0]}://{name.lstrip('/')}" for name in names)
    path = os.path.abspath(os.path.expanduser(request))
    if os.path.isdir(path):
        return sorted(str(p) for p in Path(path).rglob("*") if p.is_file())
    return sorted(glob.glob(path, recursive=True)) or ([path] if os.path.isfile(path) else [])


@contextlib.contextmanager
def open_fits(file: str) -> Iterator[fits.HDUList]:
    """
    Open a FITS file for reading sections.

    Raises
    ------
    TileError
        Anything the file's bytes can cause, here or in the body of the ``with``: missing, truncated, not FITS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            options = {"use_fsspec": True} if is_url(file) else {}
            with fits.open(file, memmap=False, lazy_load_hdus=True, **options) as hdus:
                yield hdus
    except TileError:
        raise
    except Exception as error:
        # What astropy raises for damaged compressed tiles is private to it and derives from Exception itself.
        if not isinstance(error, UNREADABLE) and type(error).__name__ != "CfitsioException":
            raise
        reason = str(error) or type(error).__name__
        raise TileError(f"the FITS file cannot be read (missing, truncated or damaged): {reason}", file=file) from error


def image_hdu(hdus: fits.HDUList, hdu: int | str | None, *, file: str) -> fits.ImageHDU:
    """
    The HDU that is asked for, or the first with a two-dimensional image.

    Raises
    ------
    TileError
        There is no such HDU, or it holds no two-dimensional image.
    """
    if hdu is None:
        for candidate in hdus:
            if candidate.is_image and len(getattr(candidate, "shape", ())) == 2:
                return candidate
        raise TileError("no HDU of the file holds a two-dimensional image", file=file)
    names = [h.name for h in hdus]
    if (isinstance(hdu, str) and hdu.upper() not in names) or (isinstance(hdu, int) and hdu >= len(hdus)):
        raise TileError("the file has no such HDU", file=file, hdu=hdu, has=" ".join(names))
    chosen = hdus[hdu]
    if not chosen.is_image or len(chosen.shape) != 2:
        raise TileError("the HDU holds no two-dimensional image", file=file, hdu=hdu, shape=str(chosen.shape))
    return chosen


def read_header(file: str, hdu: int | str | None) -> fits.Header:
    """Header of a plane, with the primary header's keywords below it where they are not repeated."""
    with open_fits(file) as hdus:
        chosen = image_hdu(hdus, hdu, file=file)
        header = chosen.header.copy()
        if chosen is not hdus[0]:
            for card in hdus[0].header.cards:
                if card.keyword and card.keyword not in header and card.keyword not in ("COMMENT", "HISTORY"):
                    header.append(card, end=True)
        return header


def size_bytes(file: str) -> int:
    """Size of a file in bytes; raises `TileError` where it is not there."""
    try:
        if is_url(file):
            import fsspec

            filesystem, path = fsspec.core.url_to_fs(file)
            return int(filesystem.size(path))
        return os.path.getsize(file)
    except OSError as error:
        raise TileError("the file is not there", file=file) from error


def checksum(file: str) -> str:
    """
    ``sha256:...`` of the whole file up to 64 MiB; ``sha256-sampled:...`` beyond.

    The sampled form covers the size and sixteen evenly spaced MiB: a survey is not read twice for a checksum.
    """
    import fsspec

    size = size_bytes(file)
    digest = hashlib.sha256()
    with fsspec.open(file, "rb") as stream:
        if size <= WHOLE_FILE_CHECKSUM_BYTES:
            while block := stream.read(1 << 22):
                digest.update(block)
            return f"sha256:{digest.hexdigest()}"
        digest.update(str(size).encode())
        for i in range(_SAMPLES):
            stream.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
    return f"sha256-sampled:{digest.hexdigest()}"
