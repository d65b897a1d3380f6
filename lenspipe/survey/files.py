"""Files of a survey: local or remote, plain, gzipped or tile-compressed FITS, opened so that windows can be read."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import itertools
import os
import re
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO, Any, Literal, TypeAlias, cast

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from lenspipe.errors import ConfigError, Fact, ForbiddenError, LenspipeError, TileError
from lenspipe.sky.wcs import is_wcs_card
from lenspipe.store.objects import Version, version_of
from lenspipe.store.stream import RemoteFile
from lenspipe.store.urls import demand_no_secrets, is_remote, is_url, local_path, said, url_filesystem
from lenspipe.survey.structure import CANNOT, UNPACKED_GB_MAX, Checks, Structure, check_sums, structure_of, until_end

# What astropy, gzip and the operating system raise for bytes that are not the FITS file they claim to be.
UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, zlib.error, fits.VerifyError)
SUFFIX = re.compile(r"(?i)\.(?:fits?|fts)(?:\.(?:fz|gz|bz2|xz))?$")
"""How the name of a FITS file ends that can be opened."""
NEARLY = re.compile(r"(?i)\.(?:fits?|fts)\b")
"""A name that seems to be that of a FITS file, in whatever packing."""
_WEIGHT = re.compile(
    r"(?i)(?:.*[_-])?(?:wht|wgt|weights?|wt|ivar|invvar|inv_?var|var|variance|err|error|rms|sigma|std|stat|noise|unc"
    r"|uncert|uncertainty)(?:_?\d+)?"
)
_MASK = re.compile(r"(?i)(?:.*[_-])?(?:masks?|msk|maskbits|dq|dataquality|flags?|flg|bpm|badpix|bad)(?:_?\d+)?")
_ASIDE = re.compile(
    r"(?i)(?:.*[_-])?(?:ctx|con|context|exp|expmap|exptime|exposure|cov|coverage|nexp|num|psf|psfex|bkg|back|background"
    r"|model|resid|residual|chi2?|segm?|segmentation|wcsdvarr|d2imarr|samp|time|area|var_poisson|var_rnoise)(?:_?\d+)?"
)
_STRUCTURAL = re.compile(
    r"SIMPLE|BITPIX|NAXIS\d*|EXTEND|XTENSION|PCOUNT|GCOUNT|EXTNAME|EXTVER|EXTLEVEL|BSCALE|BZERO|BLANK"
    r"|CHECKSUM|DATASUM|COMMENT|HISTORY"
)
SHOWN = 8
LISTED = 10_000
"""Files that an error looks at for what may have been meant."""
Role: TypeAlias = Literal["image", "weight", "mask"]
"""What a plane is for."""
WHOLE_FILE_CHECKSUM_BYTES = 64 << 20
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 20


def find_files(requests: list[str]) -> list[str]:
    """
    FITS files that files, folders, globs and fsspec URLs name; local paths come back absolute.

    Raises
    ------
    ConfigError
        A request names nothing: the file or folder does not exist, or the glob is empty; or a URL cannot be listed.
    """
    found: list[str] = []
    for request in requests:
        named = glob_files(request)
        hits = [f for f in named if SUFFIX.search(f) or f == local_path(request)]
        if not hits:
            is_glob = any(c in request for c in "*?[")
            kind = "glob is empty" if is_glob else "no such FITS file or folder"
            near = next((f for f in named if NEARLY.search(f)), named[0] if named else None)
            facts: dict[str, Fact] = {"files": len(named), "first": near} if named else {}
            if is_glob and not named and (folder := _folder_of_folders(request)):
                kind, facts = f"{kind} (FITS files lie one folder further down; give the folder)", {"folder": folder}
            raise ConfigError(f"{kind}: nothing to scan", tiles=request, **facts)
        found.extend(hits)
    return found


def packed_otherwise(requests: list[str]) -> list[str]:
    """Files that seem to be FITS in a packing that cannot be opened (``.fits.zst``, ``.fits.part``): left out."""
    named = [file for request in requests for file in glob_files(request)]
    return sorted({f for f in named if NEARLY.search(os.path.basename(f)) and not SUFFIX.search(f)})


def glob_files(request: str) -> list[str]:
    """
    Files that a path, folder (searched through, links too), glob or URL names, sorted.

    Raises
    ------
    ConfigError
        A URL whose protocol is not known or whose package is missing, or that cannot be listed.
    """
    demand_no_secrets(request)
    if is_remote(request):
        return _remote_files(request)
    path = local_path(request)
    if os.path.isdir(path):
        return _walk(path)
    if os.path.lexists(path):
        return [path]
    # Of the brackets of a path, some may be the folder's own: the glob counts first.
    return sorted(glob.glob(path, recursive=True)) or sorted(glob.glob(path.replace("[", "[[]"), recursive=True))


def _folder_of_folders(request: str) -> str | None:
    """The local folder that a glob looks in, if it has FITS files in folders of its own."""
    if is_remote(request):
        return None
    folder = os.path.dirname(local_path(request))
    below = itertools.islice(glob.iglob(os.path.join(glob.escape(folder), "*", "*")), LISTED)
    return folder if any(SUFFIX.search(file) for file in below) else None


def _walk(folder: str) -> list[str]:
    """Files of a folder and of those below it; a folder that links reach twice counts once."""
    seen, files = set(), []
    for where, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        files += [os.path.join(where, name) for name in names]
    return sorted(files)


def _remote_files(request: str) -> list[str]:
    filesystem, path = url_filesystem(request)
    try:
        names = filesystem.find(path) if filesystem.isdir(path) else filesystem.glob(path)
    except Exception as error:  # each protocol's package raises its own
        raise ConfigError(
            f"the URL cannot be listed ({said(error)}); is it right, and is there a network?", tiles=request
        ) from error
    # HTTP lists whole URLs, the others paths without the protocol, and some without the host.
    before = request[: len(request) - len(path)] if request.endswith(path) else f"{request.split('://')[0]}://"
    return sorted(name if is_url(name) else before + name for name in names)


@contextlib.contextmanager
def open_fits(
    file: str, *, checks: Checks = "damage", unpacked_gb_max: float = UNPACKED_GB_MAX
) -> Iterator[fits.HDUList]:
    """
    Open a FITS file for reading sections; as `open_file`, for those who ask it for no window.

    Yields
    ------
    HDUList
    """
    with open_file(file, checks=checks, unpacked_gb_max=unpacked_gb_max) as opened:
        yield opened.hdus


@dataclasses.dataclass(frozen=True, eq=False)
class OpenedFile:
    """An open FITS file."""

    hdus: fits.HDUList
    structure: Structure
    remote: RemoteFile | None
    """What is read from, of a file at a URL."""


@contextlib.contextmanager
def open_file(
    file: str, *, checks: Checks = "damage", unpacked_gb_max: float = UNPACKED_GB_MAX
) -> Iterator[OpenedFile]:
    """
    Open a FITS file for reading sections.

    Parameters
    ----------
    file : str
        Path or URL.
    checks : str
        Which of its checksums (DATASUM, CHECKSUM) may refuse it, where it has any: a file is read once for them, and a
        remote one only up to 64 MiB.
    unpacked_gb_max : float
        Most that the file may unpack to, 1e9 bytes.

    Raises
    ------
    TileError
        Anything the file's bytes can cause, here or in the body of the ``with``: missing, truncated, not FITS.
    StoreError
        The store of a remote file fails for longer than is waited for, or takes no credentials.
    """
    try:
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            warnings.simplefilter("ignore", AstropyWarning)
            remote = None
            if is_remote(file):
                version = version_of(file)
                remote, structure = _open_remote(file, version, unpacked_gb_max)
                if version.size > WHOLE_FILE_CHECKSUM_BYTES:
                    checks = "none"
                name = file
            else:
                name = local_path(file)
                structure = structure_of(name, unpacked_gb_max=unpacked_gb_max)
            stream = cast("IO[bytes] | None", remote)
            check_sums(name, structure, checks, stream)
            source: Any = name
            if stream is not None or structure.trailing:
                source = stack.enter_context(until_end(name, structure, stream))
            hdus = stack.enter_context(fits.open(source, memmap=False, lazy_load_hdus=True))
            yield OpenedFile(hdus, structure, remote)
    except LenspipeError as error:
        if isinstance(error, ConfigError | ForbiddenError) and is_remote(file):
            raise TileError(error.message, **error.facts) from error
        raise
    except Exception as error:
        # What astropy raises for bytes that cannot be depends on where in it they lead, and each protocol has its own.
        if not isinstance(error, UNREADABLE) and not _from_astropy(error) and not is_remote(file):
            raise
        reason = said(error) if is_remote(file) else str(error) or type(error).__name__
        raise TileError(f"{CANNOT}: {reason}", file=file) from error


_KNOWN_MAX = 512
_known: OrderedDict[tuple[str, Version, float], tuple[Structure, dict[int, bytes]]] = OrderedDict()
"""Structure and headers of remote files that this process has opened, the last ones."""


def _open_remote(file: str, version: Version, unpacked_gb_max: float) -> tuple[RemoteFile, Structure]:
    key = (file, version, unpacked_gb_max)
    if (found := _known.get(key)) is not None:
        structure, pieces = found
        return RemoteFile(file, version, pieces), structure
    pieces = {}
    remote = RemoteFile(file, version, pieces)
    remote.keeping = True
    structure = structure_of(file, remote, unpacked_gb_max=unpacked_gb_max)  # type: ignore[arg-type]
    remote.keeping = False
    _known[key] = structure, pieces
    while len(_known) > _KNOWN_MAX:
        _known.popitem(last=False)
    return remote, structure


def _from_astropy(error: Exception) -> bool:
    """Whether an error passed through astropy's FITS: not a bug of ours, but of a file that it cannot read."""
    at = error.__traceback__
    while at is not None:
        if str(at.tb_frame.f_globals.get("__name__", "")).startswith("astropy.io.fits"):
            return True
        at = at.tb_next
    return False


@dataclasses.dataclass(frozen=True)
class PlaneHeader:
    """What is known of a plane from the headers of its file."""

    header: fits.Header
    """The plane's own header, and below it the primary header's keywords that it does not repeat; of the two, only one
    gives the cards of the WCS."""
    wcs: fits.Header
    """The header that the WCS is read from: the plane's own, or the primary where the plane has none at all."""
    shape: tuple[int, int]
    """Rows and columns."""
    unreadable: frozenset[str]
    """Keywords of cards that are not FITS; they are left out of the headers."""


def plane_shape(hdu: fits.ImageHDU) -> tuple[int, int] | None:
    """Rows and columns of an HDU with one two-dimensional image, also where further axes have one pixel; else None."""
    shape = tuple(getattr(hdu, "shape", ()) or ()) if hdu.is_image else ()
    if len(shape) < 2 or any(n != 1 for n in shape[:-2]):
        return None
    return int(shape[-2]), int(shape[-1])


def image_hdu(hdus: fits.HDUList, hdu: int | str | None, *, file: str, role: Role = "image") -> fits.ImageHDU:
    """
    The HDU that is asked for, or the only one that can be meant.

    Where none is asked for and several hold an image, it is the only one whose name is that of its role: for
    ``image``, the only one that is not named as a weight, mask, PSF or the like.

    Raises
    ------
    TileError
        There is no such HDU, it holds no two-dimensional image, or several can be meant; they are named.
    """
    if hdu is None:
        return _only_image(hdus, file, role)
    names = [h.name for h in hdus]
    if (isinstance(hdu, str) and hdu.upper() not in names) or (isinstance(hdu, int) and hdu >= len(hdus)):
        raise TileError("the file has no such HDU", file=file, hdu=hdu, has=" ".join(names))
    if isinstance(hdu, str) and (n := names.count(hdu.upper())) > 1:
        raise TileError(f"the file has {n} HDUs of this name; say which by its number", file=file, hdu=hdu)
    chosen = hdus[hdu]
    if not chosen.is_image or plane_shape(chosen) is None:
        raise TileError("the HDU holds no two-dimensional image", file=file, hdu=hdu, shape=str(chosen.shape))
    return chosen


def _only_image(hdus: fits.HDUList, file: str, role: str) -> fits.ImageHDU:
    images = [(i, h) for i, h in enumerate(hdus) if plane_shape(h) is not None]
    if len(images) == 1:
        return images[0][1]
    if not images:
        shapes = ", ".join(f"{h.name or i} {h.shape}" for i, h in enumerate(hdus) if getattr(h, "shape", ()))
        raise TileError("no HDU of the file holds a two-dimensional image", file=file, has=shapes or None)
    if role == "image":
        meant = [
            h
            for _, h in images
            if not (_WEIGHT.fullmatch(h.name) or _MASK.fullmatch(h.name) or _ASIDE.fullmatch(h.name))
        ]
    else:
        meant = [h for _, h in images if (_WEIGHT if role == "weight" else _MASK).fullmatch(h.name)]
    if len(meant) == 1:
        return meant[0]
    listed = ", ".join(f"{i} {h.name} {plane_shape(h)}" for i, h in images[:SHOWN])
    raise TileError(
        f"the file holds {len(images)} images, of which {len(meant)} can be the {role}: say which by {role}_hdu in the "
        "survey's layout (for several bands one [[files]] rule per band), or give each image a file of its own",
        file=file,
        images=listed + (" ..." if len(images) > SHOWN else ""),
    )


def read_header(
    file: str, hdu: int | str | None, *, role: Role = "image", unpacked_gb_max: float = UNPACKED_GB_MAX
) -> fits.Header:
    """Header of a plane, with the primary header's keywords below it where they are not repeated."""
    with open_fits(file, checks="none", unpacked_gb_max=unpacked_gb_max) as hdus:
        return plane_header(hdus, image_hdu(hdus, hdu, file=file, role=role)).header


def plane_header(hdus: fits.HDUList, plane: fits.ImageHDU) -> PlaneHeader:
    """Headers that belong to a plane of an open file; cards that are not FITS are named and left out."""
    own, unreadable = _sound(plane.header)
    shape = plane_shape(plane)
    assert shape is not None
    if plane is hdus[0]:
        return PlaneHeader(own, own, shape, frozenset(unreadable))
    above, unreadable_above = _sound(hdus[0].header)
    # A WCS is one thing: a CD, LONPOLE or SIP of the primary beside the plane's own CRVAL is the WCS of nothing.
    has_wcs = any(is_wcs_card(k) and k != "WCSAXES" for k in (*own, *unreadable))
    merged = own.copy()
    for card in above.cards:
        key = card.keyword
        if not key or key in merged or _STRUCTURAL.fullmatch(key) or (has_wcs and is_wcs_card(key)):
            continue
        merged.append(card, end=True)
    unreadable |= {key for key in unreadable_above - set(own) if not (has_wcs and is_wcs_card(key))}
    return PlaneHeader(merged, own if has_wcs else merged, shape, frozenset(unreadable))


def _sound(header: fits.Header) -> tuple[fits.Header, set[str]]:
    """A header without the cards that are not FITS, and their keywords: one bad card must not cost the image."""
    sound, unreadable = fits.Header(), set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        for card in header.cards:
            try:
                card.verify("exception")
                fits.Card(card.rawkeyword, card.rawvalue, card.comment)  # raises for what cannot be a card
                sound.append(card, bottom=True)  # itself: a card made anew has fewer digits
            except (fits.VerifyError, ValueError):
                unreadable.add(str(card.image)[:8].strip())
    return sound, unreadable


def size_bytes(file: str) -> int:
    """Size of a file in bytes; raises `TileError` where it is not there."""
    try:
        return version_of(file).size if is_remote(file) else os.path.getsize(local_path(file))
    except OSError as error:
        raise TileError("the file is not there", file=file) from error
    except (ConfigError, ForbiddenError) as error:
        raise TileError(str(error), file=file) from error


def checksum(file: str) -> str:
    """
    ``sha256:...`` of the whole file up to 64 MiB; ``sha256-sampled:...`` beyond.

    The sampled form covers the size and sixteen evenly spaced MiB: a survey is not read twice for a checksum.
    """
    size = size_bytes(file)
    digest = hashlib.sha256()
    with RemoteFile(file, version_of(file)) if is_remote(file) else open(local_path(file), "rb") as stream:
        if size <= WHOLE_FILE_CHECKSUM_BYTES:
            while block := stream.read(1 << 22):
                digest.update(block)
            return f"sha256:{digest.hexdigest()}"
        digest.update(str(size).encode())
        for i in range(_SAMPLES):
            stream.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
    return f"sha256-sampled:{digest.hexdigest()}"
