"""Every command that writes, on inputs so small that it takes seconds; how it is run again, and what its end is."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.forks import in_fork, run_lenspipe

LOCAL = ("--runner", "local")


@dataclass(frozen=True)
class Writer:
    """One command; words of it may name the folders ``{stock}`` (inputs) and ``{here}`` (where it writes)."""

    name: str
    arguments: tuple[str, ...]
    again: tuple[str, ...] = ()
    """What is added where it is given again."""
    begins_with: Mapping[str, str] | None = None
    """What is copied from the stock first: name there to name here."""
    scarce: bool = False
    """It takes long: fewer rounds of it."""
    ray: bool = False

    def words(self, stock: Path, here: Path, *, again: bool = False) -> list[str]:
        """The command line."""
        known = {"stock": stock, "here": here} | {n: (stock / n).read_text() for n in ("candidate", "run_id")}
        words = (*self.arguments, *(self.again if again else ()))
        return [re.sub(r"\{(stock|here|candidate|run_id)\}", lambda m: str(known[m[1]]), word) for word in words]

    def prepare(self, stock: Path, here: Path) -> None:
        """An empty folder with what the command begins from."""
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        for name, to in (self.begins_with or {}).items():
            shutil.copytree(stock / name, here / to)


_SCAN = ("scan", "{stock}/tiles", "--survey", "generic", "--shard-px", "96", "--model", "{stock}/model")
_LISTS = ("--match", "{stock}/lenses.csv")
_SMALL = ("--epochs", "2", "--batch-size", "16", "--set", "optim.threads=1")
_FINDER = (
    *("hosts.mag_max=21.5", "hosts.fractions=[0.5,0.25,0.25]", "stamps.side_arcsec=12", "stamps.count=60"),
    *("stamps.classes={real=40,companions=0,satellites=0,young_ring=0,spiral_disc=0,merger=0,group=0}",),
    *("train.optim.epochs=2", "train.optim.threads=1", "train.sampling.batch_size=16"),
    *(f"survey.psf_fwhm_arcsec.{band}=1.2" for band in "gri"),
)
_PAINT = (
    *("count=12", "per_arcmin2=5.0", "apart_arcsec=10.0", "clear_arcsec=3.0", "theta_e_arcsec=[0.8,1.6]"),
    *("arc_snr=[10,60]", "hosts.mag=[18,24]", "hosts.red_part=1.0", "hosts.radius_min_psf=0.0", "bootstraps=20"),
    *("psf_fwhm_arcsec={g=0.8,r=0.7,i=0.75}", "njy_per_electron={g=0.5}", "first=[5]", "rates=[0.2]"),
)


def _set(pairs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for pair in pairs for word in ("--set", pair))


_STAMPS = ("--data", "{stock}/stamps")
_SIMULATE = ("simulate", "--recipe", "ground-gri", "--count", "12", "--seed", "1", "--set", "image.0.size_px=32")
_TRAIN = ("train", *_STAMPS, "--model", "small-cnn", "--out", "{here}/model", *_SMALL)
_SWEEP = ("sweep", *_STAMPS, "--space", "{stock}/space.toml", "--out", "{here}/sweep")
_CUT = ("stamps", "cut", "{stock}/tiles", "--positions", "{stock}/positions.csv", "--size", "33", "--out", "{here}/cut")
WRITERS = (
    Writer("scan", (*_SCAN, "--out", "{here}/run", *LOCAL), ("--resume",)),
    Writer("simulate", (*_SIMULATE, "--out", "{here}/set", *LOCAL), ("--resume",)),
    Writer("train", (*_TRAIN, *LOCAL)),
    Writer("sweep", (*_SWEEP, *LOCAL), ("--resume",), scarce=True),
    Writer("catalog", ("catalog", "{stock}/run", "--out", "{here}/cat", *_LISTS)),
    Writer(
        "catalog --append",
        ("catalog", "{stock}/run2", "--out", "{here}/cat", "--append", *_LISTS),
        begins_with={"cat": "cat"},
    ),
    Writer(
        "catalog --update",
        ("catalog", "{stock}/run2", "--out", "{here}/cat", "--update", "--of", "{run_id}", *_LISTS),
        begins_with={"cat": "cat"},
    ),
    Writer(
        "catalog --remove",
        ("catalog", "{stock}/run", "--out", "{here}/cat", "--remove", *_LISTS),
        begins_with={"cat2": "cat"},
    ),
    Writer(
        "catalog --remove-rows",
        ("catalog", "--out", "{here}/cat", "--remove-rows", "{stock}/rows.csv", *_LISTS),
        begins_with={"cat": "cat"},
    ),
    Writer("gallery", ("gallery", "{here}/cat"), begins_with={"cat": "cat"}),
    Writer("calibrate --out", ("calibrate", "{stock}/model", *_STAMPS, "--out", "{here}/model")),
    Writer(
        "calibrate --in-place", ("calibrate", "{here}/model", *_STAMPS, "--in-place"), begins_with={"model": "model"}
    ),
    Writer("calibrate (committee)", ("calibrate", "{stock}/model", "{stock}/model2", *_STAMPS, "--out", "{here}/both")),
    Writer("grades", ("grades", "{stock}/grades.csv", "--run", "{here}/run"), begins_with={"run": "run"}),
    Writer(
        "grades --stamps",
        ("grades", "{stock}/grades.csv", "--run", "{stock}/run", "--out", "{here}/g.parquet", "--stamps", "{here}/s"),
    ),
    Writer("stamps cut", (*_CUT, *LOCAL), ("--resume",)),
    Writer("stamps cut (fits)", (*_CUT, "--format", "fits", *LOCAL), ("--resume",)),
    Writer("stamps merge", ("stamps", "merge", "{stock}/stamps", "{stock}/stamps2", "--out", "{here}/both")),
    Writer(
        "stamps convert",
        (
            *("stamps", "convert", "{stock}/npz", "--from", "npz", "--out", "{here}/set"),
            *("--set", 'bands=["g","r","i"]', "--set", "pixel_scale_arcsec=0.2"),
        ),
    ),
    Writer("denoise", ("denoise", "{stock}/tiles", "--model", "{stock}/denoiser", "--out", "{here}/d", "--overwrite")),
    Writer("evaluate", ("evaluate", "{stock}/model", *_STAMPS, "--out", "{here}/report", "--overwrite")),
    Writer("export", ("export", "{stock}/model", "--out", "{here}/m.onnx")),
    Writer("explain", ("explain", "{candidate}", "--run", "{stock}/run", "--out", "{here}/c.png")),
    Writer(
        "completeness",
        ("completeness", "{stock}/run3", "--model", "{stock}/model", "--out", "{here}/sel", *_set(_PAINT), *LOCAL),
        ("--resume",),
        scarce=True,
    ),
    Writer("finder", ("finder", "{stock}/drawn", "--out", "{here}/mine", *_set(_FINDER), *LOCAL), scarce=True),
    Writer(
        "scan with Ray", (*_SCAN, "--out", "{here}/run", "--runner", "ray", "--workers", "2"), ("--resume",), ray=True
    ),
    Writer(
        "simulate with Ray",
        (*_SIMULATE, "--out", "{here}/set", "--runner", "ray", "--workers", "2"),
        ("--resume",),
        ray=True,
    ),
    Writer("train with Ray", (*_TRAIN, "--runner", "ray"), ray=True),
    Writer("sweep with Ray", (*_SWEEP, "--runner", "ray"), ("--resume",), ray=True),
    Writer("stamps cut with Ray", (*_CUT, "--runner", "ray", "--workers", "2"), ("--resume",), ray=True),
    Writer(
        "catalog --distributed",
        ("catalog", "{stock}/run", "--out", "{here}/cat", *_LISTS, "--distributed", "--workers", "2"),
        ray=True,
    ),
    Writer("generate", ("generate", "{stock}/generator", "--count", "40", "--seed", "2", "--out", "{here}/set")),
    Writer("shots", ("shots", "{stock}/model", "--shots", "{stock}/graded", "--out", "{here}/mine")),
    Writer("catalog --back", ("catalog", "--out", "{here}/cat", "--back", "1", *_LISTS), begins_with={"cat3": "cat"}),
)
"""Every command that writes. The two of `lenspipe` that write nothing but a file that is named are not here: `similar
--out` and `settings`."""


def make_stock(stock: Path) -> None:
    """The inputs of all commands; made once, by forked processes, and only read after."""
    if (stock / "done").exists():
        return
    shutil.rmtree(stock, ignore_errors=True)
    stock.mkdir(parents=True)
    in_fork(lambda: _inputs(stock))
    for name in ("model", "model2"):
        _lenspipe("calibrate", f"{stock}/{name}", "--data", f"{stock}/stamps", "--in-place")
    for number, tiles in ((1, "tiles"), (2, "tiles2")):
        name = "run" if number == 1 else "run2"
        _lenspipe("scan", f"{stock}/{tiles}", "--survey", "generic", "--shard-px", "96", "--model", f"{stock}/model",
                  "--out", f"{stock}/{name}", "--no-catalog", *LOCAL)  # fmt: skip
    _lenspipe("scan", f"{stock}/tiles3", "--survey", "generic", "--shard-px", "192", "--model", "none", "--out",
              f"{stock}/run3", "--no-catalog", "--set", "background.mesh_px=32", *LOCAL)  # fmt: skip
    in_fork(lambda: _of_the_run(stock))
    _lenspipe("catalog", f"{stock}/run", "--out", f"{stock}/cat", "--match", f"{stock}/lenses.csv")
    shutil.copytree(stock / "cat", stock / "cat2")
    _lenspipe("catalog", f"{stock}/run2", "--out", f"{stock}/cat2", "--append", "--match", f"{stock}/lenses.csv")
    shutil.copytree(stock / "cat", stock / "cat3")
    _lenspipe(
        "catalog", "--out", f"{stock}/cat3", "--remove-rows", f"{stock}/rows.csv", "--match", f"{stock}/lenses.csv"
    )
    _lenspipe("train", "--data", f"{stock}/stamps", "--task", "generate", "--model", "conditional", "--out",
              f"{stock}/generator", *_SMALL, *LOCAL)  # fmt: skip
    _lenspipe("grades", f"{stock}/grades.csv", "--run", f"{stock}/run", "--out", f"{stock}/g.parquet", "--stamps",
              f"{stock}/graded")  # fmt: skip
    (stock / "done").touch()


def _lenspipe(*words: str) -> None:
    code, said = run_lenspipe(list(words))
    if code not in (0, 3):
        raise RuntimeError(f"{' '.join(words)}: {code}: {said[-2000:]}")


def _inputs(stock: Path) -> None:
    import torch
    from denoisers import write_denoiser
    from drawn_survey import drawn_tile
    from drawn_survey import write_tile as write_drawn
    from painted_survey import make_tile
    from sky import write_tile
    from toy_stamps import make_stamps

    from lenspipe.nn.card import ModelCard
    from lenspipe.nn.checkpoint import save_model
    from lenspipe.nn.registry import build

    for k, folder in enumerate(("tiles", "tiles", "tiles2")):
        write_tile(stock / folder, f"t{k}", shape=(150, 150), n_source=12, seed=k)
    make_tile(stock / "tiles3")
    write_drawn(stock / "drawn", drawn_tile()[0])
    for times, name in ((1.0, "model"), (1.1, "model2")):
        torch.manual_seed(3)
        card = ModelCard(
            name=name, family="small-cnn", settings={"width": 4, "dropout": 0.0}, bands=("g", "r", "i"),
            pixel_scale_arcsec=0.2, scale_tolerance=0.1, min_scale_arcsec=0.1, max_scale_arcsec=0.4, stamp_px=33,
            stretch={"band_scales": (0.01, 0.01, 0.01), "alpha": 0.1, "q": 1.0},
        )  # fmt: skip
        module = build("small-cnn", 3, 33, width=4, dropout=0.0)
        module.load_state_dict({key: value * times for key, value in module.state_dict().items()})
        save_model(stock / name, module, card)
    write_denoiser(stock / "denoiser")
    for name in ("stamps", "stamps2"):
        make_stamps(stock / name, 90, bands=("g", "r", "i"), size=33)
    for part in (stock / "stamps2").glob("*.parquet"):
        rows = pq.read_table(part)
        names = pa.array([f"t{name}" for name in rows["stamp_id"].to_pylist()])
        pq.write_table(
            rows.set_column(rows.schema.get_field_index("stamp_id"), rows.schema.field("stamp_id"), names), part
        )
    (stock / "space.toml").write_text(
        "[base.optim]\nepochs = 1\nthreads = 1\n[base.sampling]\nbatch_size = 16\nsteps_per_epoch = 3\n"
        '[[model]]\nfamily = "small-cnn"\nsettings = {width = [3, 4]}\n'
    )
    rng = np.random.default_rng(4)
    (stock / "npz").mkdir()
    np.savez(stock / "npz" / "a.npz", images=rng.normal(size=(12, 3, 17, 17)).astype(np.float32))
    _csv(stock / "npz" / "a.csv", [{"name": f"n{k}", "ra": 10 + k, "dec": 5} for k in range(12)])


def _of_the_run(stock: Path) -> None:
    run_id = _run_id(stock / "run")
    rows = pq.read_table(stock / "run" / "candidates.parquet", columns=["candidate_id", "ra", "dec"]).to_pylist()
    _csv(
        stock / "grades.csv",
        [
            {"run_id": run_id, "candidate_id": r["candidate_id"], "grader": who, "grade": "ABCN"[(k + j) % 4]}
            for j, who in enumerate(("ada", "bob"))
            for k, r in enumerate(rows)
        ],
    )
    _csv(stock / "positions.csv", [{"id": r["candidate_id"], "ra": r["ra"], "dec": r["dec"]} for r in rows])
    far = {"name": "absent", "ra": rows[0]["ra"] + 0.003, "dec": rows[0]["dec"] + 0.002}
    _csv(stock / "lenses.csv", [{"name": f"L{k}", **{n: r[n] for n in ("ra", "dec")}} for k, r in enumerate(rows[:3])]
         + [far])  # fmt: skip
    (stock / "candidate").write_text(rows[0]["candidate_id"])
    (stock / "run_id").write_text(run_id)
    _csv(stock / "rows.csv", [{"candidate_id": r["candidate_id"]} for r in rows[:2]])


def _run_id(run: Path) -> str:
    from lenspipe.catalog.run_rows import open_run_folder

    return open_run_folder(run).run_id


def _csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


Leaves = dict[str, str]
OF_THE_WORK = re.compile(
    r"(^|[.:_/])(seconds|finished|started|written|created|date|time|new_rows|new_parts|wall|host_?name|pid)\b|_s$"
    r"|sweep/index\.html|sweep/trials\.csv|hats_creation_date|hats_estsize|calibration\.data$|_seconds$|seconds\."
)
"""
Pieces that speak of when and how fast the work was done are not compared; nor are a sweep's page and CSV (its Parquet
table is) and what a calibration says of its data, which do: it has the digest of a card of its training.
"""
_DATES = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?(\+00:00|Z)?")
_SAID_IN_CARDS = {"DATE", "CHECKSUM", "DATASUM"}
_NOT_THE_END = re.compile(r"(^|/)(parts/|\.lock$|\.[^/]+\.lock$|\.training/|attempts/|part-\d{8}T\d+-)")
"""A run's ledger holds one part or another by when it was cut off; its tables are what it comes to."""


def leaves_of(folder: Path) -> Leaves:
    """
    What a folder holds, in pieces that are compared: a column of a table, a value of JSON, any other file.

    Returns
    -------
    dict
        Digest by ``FILE:PIECE``.
    """
    found: Leaves = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() or p.is_symlink()):
        name = path.relative_to(folder).as_posix()
        if _NOT_THE_END.search(name):
            continue
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
            found |= {f"{name}:{c}": _digest(repr(table[c].to_pylist())) for c in table.column_names}
        elif path.suffix == ".json":
            found |= {f"{name}:{key}": _digest(value) for key, value in _flat(json.loads(path.read_text()))}
        elif path.suffix == ".safetensors":
            found |= {f"{name}:{k}": _digest(v) for k, v in _tensors(path)}
        elif path.suffix == ".fits":
            found |= {f"{name}:{k}": _digest(piece) for k, piece in _cards_and_data(path)}
        elif path.name.endswith("properties"):
            found |= {f"{name}:{line.partition('=')[0]}": _digest(line) for line in path.read_text().splitlines()}
        elif path.suffix in (".html", ".js"):
            found[f"{name}:"] = _digest(_DATES.sub("", path.read_text()))
        else:
            found[f"{name}:"] = _digest(path.read_bytes())
    return {key: value for key, value in found.items() if not OF_THE_WORK.search(key)}


def _tensors(path: Path) -> list[tuple[str, bytes]]:
    from safetensors.numpy import load_file

    return [(key, value.tobytes()) for key, value in sorted(load_file(path).items())]


def _cards_and_data(path: Path) -> list[tuple[str, str | bytes]]:
    from astropy.io import fits

    with fits.open(path) as hdus:
        return [
            piece
            for k, hdu in enumerate(hdus)
            for piece in (
                (f"{k}.header", _DATES.sub("", repr([c for c in hdu.header.cards if c.keyword not in _SAID_IN_CARDS]))),
                (f"{k}.data", b"" if hdu.data is None else np.asarray(hdu.data).tobytes()),
            )
        ]


def differences(folder: Path, whole: Leaves) -> list[str]:
    """Where a folder differs from an unbroken end, and what scratch is left in it."""
    end = leaves_of(folder)
    keys = [key for key in sorted(whole.keys() | end.keys()) if end.get(key) != whole.get(key)]
    said = [f"{key} {'differs' if key in end.keys() & whole.keys() else 'is in one only'}" for key in keys]
    return said + [f"{name} is left" for name in scratch_in(folder)]


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        return [(key, json.dumps(value))]
    return [leaf for k, v in pairs for leaf in _flat(v, f"{key}.{k}" if key else str(k))]


def _digest(value: str | bytes) -> str:
    return hashlib.sha256(value if isinstance(value, bytes) else value.encode()).hexdigest()[:16]


def scratch_in(folder: Path) -> list[str]:
    """Scratch and locks that nobody holds any more."""
    return sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob(".*") if p.name.endswith((".tmp", ".lock", ".old"))
    )
