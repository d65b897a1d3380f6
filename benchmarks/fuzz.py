"""
Damage every format that the product opens, and hold what is read against the unbroken file.

Each input is a valid file in which bits, values, lengths or the header were changed, from a seed. Reading it must give
what the whole file gives, or a deliberate error. Where a format has checksums, other values are a fault as well.

    python -m benchmarks.fuzz --inputs 2400
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from astropy.io import fits

from benchmarks import record
from benchmarks.fuzzed_commands import COMMANDS
from benchmarks.timing import Clock
from lenspipe.catalog.grades import read_grades
from lenspipe.errors import LenspipeError
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.rundir import read_json
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.ledger import part_files, write_part
from lenspipe.stamps.cut.positions import read_positions
from lenspipe.stamps.readers.npy import members, open_array
from lenspipe.survey.files import find_files
from lenspipe.survey.layout import read_layout
from lenspipe.survey.manifest import read_manifest
from lenspipe.survey.read import read_facts, read_window
from lenspipe.survey.shards import Box
from lenspipe.survey.tile import BadTile, group_tiles
from lenspipe.tables import read_parquet
from lenspipe.toml import read_toml

HANG_S = 20.0
"""An input that takes so much of the processor is a hang: the files have a few kB."""
GENERIC = read_layout("generic").model_copy(update={"checksums": "any"})


@dataclass(frozen=True)
class Kind:
    """One format: a whole file, how it is read, and whether it can tell that a value was changed."""

    name: str
    write: Callable[[], bytes]
    read: Callable[[Path], Any]
    guarded: bool = False


def _image(**options: Any) -> bytes:
    rng = np.random.default_rng(1)
    header = fits.Header(
        {
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 30.0, "CRVAL2": -5.0, "CRPIX1": 12.5, "CRPIX2": 10.5,
            "CDELT1": -0.2 / 3600, "CDELT2": 0.2 / 3600, "BUNIT": "nJy",
        }
    )  # fmt: skip
    image = rng.normal(0, 5, (20, 24)).astype(np.float32)
    out = io.BytesIO()
    if options.get("compress"):
        hdus = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image, header, quantize_level=16)])
    else:
        hdus = fits.HDUList([fits.PrimaryHDU(image, header)])
    hdus.writeto(out, checksum=options.get("checksum", False))
    return out.getvalue()


def _read_image(path: Path) -> Any:
    (tile,) = group_tiles(find_files([str(path)]), GENERIC)
    if isinstance(tile, BadTile):
        raise tile.error
    facts = read_facts(tile, GENERIC, assumed_zero_point_ab=None)
    pixels = read_window(tile, facts, GENERIC, Box(0, 0, min(facts.shape[1], 64), min(facts.shape[0], 64)))
    return pixels.image.tobytes(), pixels.mask.tobytes(), repr(facts.wcs.wcs.crval)


def _part() -> bytes:
    n = 40
    rows = pa.table(
        {
            "shard_id": [f"a_x{k}y0c64" for k in range(n)], "status": ["ok"] * n, "n_candidate": [1] * n,
            "ra": np.linspace(0, 1, n), "id": [f"a_{k}" for k in range(n)],
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        write_part(Path(folder), "p", rows)
        return part_files(Path(folder))[0].read_bytes()


def _numpy(packed: bool) -> bytes:
    out, array = io.BytesIO(), np.arange(60, dtype=np.float32).reshape(5, 3, 4)
    np.savez_compressed(out, images=array) if packed else np.save(out, array)
    return out.getvalue()


def _read_numpy(path: Path) -> Any:
    found = []
    for member in members(path):
        with open_array(path, member) as array:
            found.append([row.tobytes() for row in array.rows()])
    return found


class _Model:
    """A small model's folder, of which one file is damaged."""

    def __init__(self, damaged: str) -> None:
        self._damaged = damaged

    def _save(self, folder: Path) -> None:
        import torch

        from lenspipe.nn.card import ModelCard
        from lenspipe.nn.registry import build

        card = ModelCard(
            name="tiny", family="small-cnn", settings={"width": 4, "dropout": 0.0}, bands=("g",),
            pixel_scale_arcsec=0.2, scale_tolerance=0.1, min_scale_arcsec=0.1, max_scale_arcsec=0.4, stamp_px=17,
            stretch={"band_scales": (0.01,), "alpha": 0.1, "q": 1.0},
        )  # fmt: skip
        torch.manual_seed(0)
        save_model(folder, build("small-cnn", 1, 17, width=4, dropout=0.0), card)

    def write(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            self._save(Path(folder) / "m")
            return (Path(folder) / "m" / self._damaged).read_bytes()

    def read(self, path: Path) -> Any:
        folder = path.parent / "model"
        if not folder.exists():
            self._save(folder)
        before = (folder / self._damaged).read_bytes()
        try:
            (folder / self._damaged).write_bytes(path.read_bytes())
            module, card = load_model(folder)
            return card.weights_sha256, sum(p.numel() for p in module.parameters())
        finally:
            (folder / self._damaged).write_bytes(before)


def _text(text: str) -> Callable[[], bytes]:
    return text.encode


KINDS = (
    Kind("a_r.fits", _image, _read_image),
    Kind("sums/a_r.fits", lambda: _image(checksum=True), _read_image, guarded=True),
    Kind("a_r.fits.gz", lambda: gzip.compress(_image(), mtime=0), _read_image, guarded=True),
    Kind("a_r.fits.fz", lambda: _image(compress=True, checksum=True), _read_image, guarded=True),
    Kind("p.parquet", _part, lambda path: read_parquet(path).to_pylist(), guarded=True),
    Kind("s.npy", lambda: _numpy(False), _read_numpy),
    Kind("s.npz", lambda: _numpy(True), _read_numpy),
    Kind("weights.safetensors", _Model("weights.safetensors").write, _Model("weights.safetensors").read, guarded=True),
    Kind("card.json", _Model("card.json").write, _Model("card.json").read),
    Kind(
        "s.toml",
        _text('zero_point_ab = 25.0\n[detect]\nthreshold_sigma = 2.5\n[select.colour]\n"g-r" = [0.4, 2.5]\n'),
        lambda path: read_toml(path, ScanConfig),
    ),
    Kind(
        "p.csv", _text("id,ra,dec,size\na,10.5,-1.25,32\nb,11.5,+2,32\n"), lambda path: read_positions(path).to_pylist()
    ),
    Kind(
        "m.csv", _text("tile,band,image\na,g,a_g.fits\na,r,a_r.fits\n"), lambda path: read_manifest(str(path), GENERIC)
    ),
    Kind(
        "g.csv",
        _text("run_id,candidate_id,grader,grade,time\nr,c1,ada,A,2026-01-01\nr,c2,bob,N,2026-01-02\n"),
        lambda path: read_grades([str(path)]).to_pylist(),
    ),
    Kind("r.json", _text(json.dumps({"tiles": ["a"], "config": {"mag_max": 24.5}, "limit": None})), read_json),
)
KINDS_OF_COMMANDS = tuple(
    Kind(name.replace(" ", "/"), of.write, of.read, guarded) for name, (of, guarded) in COMMANDS.items()
)
"""A command in the name of the folder, and the file of its input that is damaged."""
_NUMBERS = (b"0", b"-1", b"99999999999999999999", b"1000000000000000000", b"nan", b"1e400", b"T", b"''", b"\x00")


_OTHERS = (None, 0, -1, 1e308, "", "x", [], {}, True, [[1]], 10**20)


def _torn_json(raw: bytes, rng: np.random.Generator) -> bytes | None:
    """JSON that is whole, and of which a key is gone or a value is another; None for what is no JSON."""
    try:
        made = json.loads(raw)
    except ValueError:
        return None
    at = made
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = keys[int(rng.integers(len(keys)))]
        if not (isinstance(at[key], dict | list) and at[key]) or rng.integers(3) == 0:
            break
        at = at[key]
    if rng.integers(2):
        del at[key]
    else:
        at[key] = _OTHERS[int(rng.integers(len(_OTHERS)))]
    return json.dumps(made).encode()


def damaged(raw: bytes, rng: np.random.Generator) -> bytes:
    """A file with one to three of: bits, a digit or a run of digits, a piece left out, doubled or cut off, brackets."""
    if raw[:1] == b"{" and rng.integers(2) and (torn := _torn_json(raw, rng)):
        return torn
    made = bytearray(raw)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        at = int(rng.integers(len(made))) if made else 0
        way = rng.integers(8)
        if way <= 2 and made:
            made[at] ^= 1 << int(rng.integers(8))
        elif way == 3:
            places = [k for k in range(len(made)) if 48 <= made[k] <= 57]
            if places:
                at = int(rng.choice(places))
                value = bytes(rng.choice(_NUMBERS))
                made[at : at + (len(value) if rng.integers(2) else 1)] = value
        elif way == 4:
            del made[at : at + int(rng.integers(1, 200))]
        elif way == 5:
            made[at:at] = made[at : at + int(rng.integers(1, 200))]
        elif way == 6:
            del made[at:]
        else:
            made[at:at] = bytes(rng.choice((b"[" * 5000, b"\xff\xfe", b"{" * 5000, b'"', b"," * 50, b"\x00" * 3000)))
    return bytes(made)


def of_no_machine(said: str) -> str:
    """A traceback whose files are named from their package on."""
    return re.sub(r'File "[^"]*?/(?:site-packages/|(?=(?:lenspipe|benchmarks)/))', 'File "', said)


def one(kind: Kind, raw: bytes, whole: Any, path: Path) -> tuple[str, str]:
    """What reading a damaged file comes to: ``same``, ``error``, ``other``, ``hang``, ``crash``; and why."""
    path.write_bytes(raw)
    clock = Clock()
    try:
        found = kind.read(path)
        verdict, said = ("same", "") if found == whole else ("other", "")
    except LenspipeError as error:
        verdict, said = "error", str(error)
    except Exception:
        verdict, said = "crash", of_no_machine(traceback.format_exc(limit=-3))
    return ("hang", said) if clock.cpu_s > HANG_S else (verdict, said)


def faults(kind: Kind, n: int, seed: int, folder: Path) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Counts of what ``n`` inputs came to, and those that are faults, with what makes them again."""
    path = folder / kind.name
    path.parent.mkdir(parents=True, exist_ok=True)
    whole_raw = kind.write()
    path.write_bytes(whole_raw)
    whole = kind.read(path)
    counts: Counter[str] = Counter()
    found = []
    for number in range(n):
        raw = damaged(whole_raw, np.random.default_rng([seed, number]))
        verdict, said = one(kind, raw, whole, path)
        counts[verdict] += 1
        if verdict in ("crash", "hang") or (verdict == "other" and kind.guarded):
            found.append({"kind": kind.name, "seed": seed, "number": number, "verdict": verdict, "said": said[-900:]})
    path.unlink()
    return counts, found


@click.command()
@click.option("--inputs", default=2400, show_default=True, help="Damaged files, of all kinds together.")
@click.option("--commands", default=400, show_default=True, help="Damaged inputs of whole commands, together.")
@click.option("--only", default="", help="Kinds whose name holds this.")
@click.option("--seed", default=1, show_default=True)
@record.keep_option
def main(inputs: int, commands: int, only: str, seed: int, keep: bool) -> None:
    """Damage files of every kind and read them, by the readers and by whole commands."""
    result: dict[str, Any] = {"inputs": 0, "seed": seed, "kinds": {}, "faults": []}
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        of_readers, of_commands = -(-inputs // len(KINDS)), -(-commands // len(KINDS_OF_COMMANDS))
        for kind in (*KINDS, *KINDS_OF_COMMANDS):
            if only not in kind.name:
                continue
            n = of_commands if kind in KINDS_OF_COMMANDS else of_readers
            with contextlib.redirect_stderr(io.StringIO()):
                counts, found = faults(kind, n, seed, Path(folder))
            result["kinds"][kind.name] = dict(counts)
            result["inputs"] += counts.total()
            result["faults"] += found
            print(kind.name, dict(counts), *(f["said"][-300:] for f in found[:2]), flush=True)
    result |= clock.seconds()
    record.write("fuzz", result, [record.at_most("faults", len(result["faults"]), 0)], keep=keep and not only)


if __name__ == "__main__":
    main()
