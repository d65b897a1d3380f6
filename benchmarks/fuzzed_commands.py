"""Whole commands on inputs of which one file is damaged: kinds for `benchmarks.fuzz`."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.forks import TESTS
from benchmarks.writers import Leaves, leaves_of
from lenspipe.errors import LenspipeError


class RefusedError(LenspipeError):
    """A command that ended with one line, or with failure rows."""


@dataclass(frozen=True)
class OfCommand:
    """A command that reads ``{folder}`` and writes to ``{out}``; one file of its input is damaged."""

    words: tuple[str, ...]
    damaged: str
    """File below the input folder."""
    makes: str = ""
    """What below the input folder it writes, where it has no ``{out}``."""

    def write(self) -> bytes:
        """The whole file."""
        return (stock() / self._file).read_bytes()

    @property
    def _file(self) -> str:
        (name,) = (p.relative_to(stock()).as_posix() for p in stock().glob(self.damaged))
        return name

    def read(self, path: Path) -> Leaves:
        """
        What the command comes to with this file in the place of the whole one.

        Raises
        ------
        RefusedError
            It ended with one line, or with failures.
        AssertionError
            It ended with a traceback, several lines or another exit code.
        """
        folder, out = path.parent / "stock", path.parent / "out"
        for one in (folder, out):
            shutil.rmtree(one, ignore_errors=True)
        shutil.copytree(stock(), folder)
        out.mkdir()
        shutil.copyfile(path, folder / self._file)
        known = {"folder": str(folder), "out": str(out), "candidate": (stock() / "candidate").read_text()}
        code, said = lenspipe([word.format(**known) for word in self.words])
        if code == 3:
            raise RefusedError("failures")
        lines = [line for line in said.splitlines() if line.startswith(("lenspipe: ", "Error: "))]
        if code == 2 and len(lines) == 1:
            raise RefusedError(lines[0])
        assert code == 0, f"exit code {code}: {said[-600:]}"
        return {key: text for key, text in leaves_of(folder / self.makes if self.makes else out).items()
                if "finished" not in key}  # fmt: skip


def lenspipe(words: list[str]) -> tuple[int, str]:
    """Exit code and output of a command in this process; an exception that is not deliberate passes through."""
    from lenspipe.cli import group, run_command

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            run_command(group, words)
        except SystemExit as done:
            return int(done.code or 0), said.getvalue()


@functools.cache
def stock() -> Path:
    """A run, its catalogue, a model, stamps and a tile: made once in a process."""
    sys.path[:0] = [str(TESTS)]
    import pyarrow.parquet as pq
    import torch
    from sky import write_tile
    from toy_stamps import make_stamps

    from lenspipe.nn.card import ModelCard
    from lenspipe.nn.checkpoint import save_model
    from lenspipe.nn.outputs import Embed
    from lenspipe.nn.registry import build

    home = Path(tempfile.mkdtemp(prefix="fuzz-commands-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    folder = home / "stock"
    write_tile(folder / "tiles", "a", bands="r", shape=(80, 90), n_source=6, suffix=".fits")
    common = {
        "family": "small-cnn", "settings": {"width": 4, "dropout": 0.0}, "bands": ("r",), "pixel_scale_arcsec": 0.2,
        "scale_tolerance": 0.1, "min_scale_arcsec": 0.1, "max_scale_arcsec": 0.4, "stamp_px": 17,
        "stretch": {"band_scales": (0.01,), "alpha": 0.1, "q": 1.0},
    }  # fmt: skip
    embedder = ModelCard(name="vectors", **common, outputs=Embed(size=4, method="classify"))
    save_model(folder / "embedder", build("small-cnn", 1, 17, n_out=4, width=4, dropout=0.0), embedder)
    make_stamps(folder / "stamps", 40, bands=("r",), size=17, n_part=1)
    for seed in range(20):
        torch.manual_seed(seed)
        save_model(folder / "model", build("small-cnn", 1, 17, width=4, dropout=0.0), ModelCard(name="tiny", **common))
        if lenspipe(["calibrate", f"{folder}/model", "--data", f"{folder}/stamps", "--split", "all"])[0] == 0:
            break
    asked = ["scan", f"{folder}/tiles", "--runner", "local", "--model", f"{folder}/model", "--no-catalog"]
    for words in (
        [*asked, "--embed", f"{folder}/embedder", "--out", f"{folder}/run"],
        ["catalog", f"{folder}/run", "--out", f"{folder}/cat", "--match", "none"],
    ):
        code, said = lenspipe(words)
        assert code == 0, said
    ids = pq.read_table(folder / "run" / "candidates.parquet", columns=["candidate_id"])[0].to_pylist()
    (folder / "candidate").write_text(ids[0])
    from lenspipe.catalog.run_rows import open_run_folder

    run_id = open_run_folder(folder / "run").run_id
    (folder / "grades.csv").write_text(
        "run_id,candidate_id,grader,grade\n" + "".join(f"{run_id},{name},ada,A\n" for name in ids)
    )
    return folder


_SCAN = ("scan", "{folder}/tiles", "--runner", "local", "--model", "none", "--no-catalog", "--out", "{out}/run")
_GALLERY = ("gallery", "{folder}/cat", "--stamp-px", "16")
_EXPLAIN = ("explain", "{candidate}", "--run", "{folder}/run", "--out", "{out}/c.png")
_CATALOG = ("catalog", "{folder}/run", "--out", "{out}/cat", "--match", "none")
_DATA = ("--data", "{folder}/stamps", "--split", "all")
_SIMILAR = ("similar", "{candidate}", "--catalog", "{folder}/cat", "--out", "{out}/s.parquet")
_GRADES = ("grades", "{folder}/grades.csv", "--run", "{folder}/run", "--out", "{out}/g.parquet")
COMMANDS: dict[str, tuple[OfCommand, bool]] = {
    "scan a_r.fits": (OfCommand(_SCAN, "tiles/a_r.fits"), False),
    "catalog candidates.parquet": (OfCommand(_CATALOG, "run/candidates.parquet"), True),
    "catalog run.json": (OfCommand(_CATALOG, "run/run.json"), False),
    "catalog plan.parquet": (OfCommand(_CATALOG, "run/plan.parquet"), True),
    "gallery candidates.parquet": (OfCommand(_GALLERY, "cat/candidates.parquet", "cat/gallery"), True),
    "gallery provenance.json": (OfCommand(_GALLERY, "cat/provenance.json", "cat/gallery"), False),
    "gallery tiles.parquet": (OfCommand(_GALLERY, "cat/tiles.parquet", "cat/gallery"), True),
    "explain candidates.parquet": (OfCommand(_EXPLAIN, "run/candidates.parquet"), True),
    "explain run.json": (OfCommand(_EXPLAIN, "run/run.json"), False),
    "similar vectors.parquet": (OfCommand(_SIMILAR, "cat/hats_embedding/dataset/N*/D*/*.parquet"), True),
    "similar partition_info.csv": (OfCommand(_SIMILAR, "cat/hats_embedding/partition_info.csv"), False),
    "grades grades.csv": (OfCommand(_GRADES, "grades.csv"), False),
    "grades run.json": (OfCommand(_GRADES, "run/run.json"), False),
    "calibrate stamps.parquet": (
        OfCommand(("calibrate", "{folder}/model", *_DATA, "--out", "{out}/m"), "stamps/*.parquet"),
        True,
    ),
    "calibrate card.json": (
        OfCommand(("calibrate", "{folder}/model", *_DATA, "--out", "{out}/m"), "model/card.json"),
        False,
    ),
    "evaluate stamps.parquet": (
        OfCommand(("evaluate", "{folder}/model", *_DATA, "--out", "{out}/report"), "stamps/*.parquet"),
        True,
    ),
}
"""Command and file that is damaged; whether the file tells that a value was changed."""
