"""``README.md`` of an output folder: what each file in it is, in words that depend on the kind of folder alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lenspipe.disk import scratch_beside

README = "README.md"
_MARK = "<!-- written by lenspipe; a file of another beginning is left as it is -->"
Kind = Literal["scan", "catalogue", "gallery", "model", "stamps", "completeness", "finder", "sweep"]
_REQUEST = ("request.json", "what the command was asked for; a resume is held to it")
_TABLES = "Tables are Parquet: units, UCDs and descriptions stand in the fields of their schema."

FILES: dict[Kind, tuple[tuple[str, str], ...]] = {
    "scan": (
        ("candidates.parquet", "one row per source that passed the selection, best score first"),
        ("best.png", "picture of the best candidates, where any was scored"),
        ("shards.parquet", "what was searched, one row per shard: status, counts, area, depth, noise, zero-points"),
        ("failures.parquet", "what could not be searched, and why; there without rows too"),
        ("psf.parquet", "the PSF of each shard and band, from its stars"),
        ("embeddings.parquet", "a vector per candidate, where `--embed` was given"),
        ("run.json", "request, versions, inputs with checksums, model with its card, counts, timings"),
        ("catalog/", "the catalogue of the run, with a README of its own, unless `--no-catalog` was given"),
        ("stamps/", "stamps of graded candidates, where `lenspipe grades` wrote any"),
        ("sample/", "tiles of the sample survey, where `--sample` was given"),
        ("plan.parquet", "tiles and their shards, and the files of each"),
        ("model.json", "digests of the models; a resume is held to them"),
        ("parts/", "the ledger: rows as workers committed them; needed to resume"),
        ("attempts/", "marks of shards in work; gone when the run has ended"),
        _REQUEST,
    ),
    "catalogue": (
        ("collection.properties", "makes the folder a HATS collection: tree, margin and index"),
        ("hats/", "rows as a HATS tree, by position; one file per HEALPix pixel under `dataset`"),
        ("hats_margin/", "rows just outside of each pixel, for matches across borders"),
        ("hats_index/", "pixel of each `candidate_id`"),
        ("candidates.parquet", "all rows, best score first, as VOParquet"),
        ("candidates.fits", "the same as a FITS table"),
        ("footprint.moc.fits", "area searched, as a MOC"),
        ("shards.parquet", "area, depth and noise, one row per shard of every run"),
        ("tiles.parquet", "files of each tile, from which pictures are cut"),
        ("known_lenses.parquet", "what became of each known lens inside the footprint"),
        ("removed.parquet", "rows that were removed"),
        ("provenance.json", "runs with their inputs, versions, models and counts that add up"),
        ("hats_embedding/", "vectors of the rows, as a tree of the same pixels"),
        ("hats_embedding_index/", "index of the vectors for `lenspipe similar`"),
        ("gallery/", "the page to look at and grade candidates"),
        ("versions/", "the catalogue as it was before each change; `lenspipe catalog --back`"),
    ),
    "gallery": (
        ("index.html", "the page: open it in a browser; it needs no server and loads nothing from elsewhere"),
        ("data.js", "what the page shows of each candidate"),
        ("sheets/", "stamps of the candidates, a few hundred per file"),
        ("likeness.js", "which candidates are alike, where the catalogue has vectors"),
        ("app.js, facts.js, stamps.js, map.js, alike.js, style.css", "the page's own code"),
        ("grades.js, graders.js, exports.js", "the same, of grades"),
    ),
    "model": (
        ("card.json", "the model's card: what it takes and gives, how it was trained and measured"),
        ("weights.safetensors", "its weights; with the card they are the model"),
        ("training_set.safetensors", "what is kept of the training set, to tell unlike stamps, where it was asked for"),
        ("state.safetensors", "the state of the training, from which it is resumed or trained on"),
        ("history.parquet", "losses and measures, one row per epoch"),
        ("loss.png", "the same as curves; other pictures show what the network gave for validation stamps"),
        _REQUEST,
    ),
    "stamps": (
        ("*.parquet", "labelled stamps; `lenspipe stamps describe` counts them"),
        ("contact_sheet.png", "some of them as pictures, where they were simulated"),
        ("simulate.json", "counts, time and versions of a simulation"),
        ("cut.json", "counts and notes of a cut"),
        ("fit.json", "counts of a fit of smooth lenses, what it leaves by class, and what its noise goes by"),
        ("left_out.csv", "positions of which no stamp could be cut, and why"),
        _REQUEST,
    ),
    "completeness": (
        ("index.html", "the page: completeness by every quantity, curves and pictures of what was missed"),
        ("selection.json", "the selection function; `lenspipe.completeness.read` opens the folder"),
        ("injections.parquet", "one row per painted lens: what it is and what became of it"),
        ("injections.fits", "the same as a FITS table"),
        ("healpix.parquet, healpix.fits", "completeness by place on the sky"),
        ("binned.parquet, binned.fits", "completeness by each quantity, in bins"),
        ("smooth.parquet, smooth.fits", "the smooth fits to it"),
        ("footprint.fits", "area searched, as a MOC"),
        ("scores.parquet", "scores of the run's candidates, where another finder than its own was judged"),
        ("hosts.json", "which galaxies may carry arcs; a resume keeps to it"),
        ("places.parquet", "where lenses were painted"),
        ("donors.parquet", "galaxies whose light stood in for that of lenses"),
        ("model.json", "digest of the finder; a resume is held to it"),
        ("bare/, painted/", "ledgers of the search without and with painted lenses; needed to resume"),
        _REQUEST,
    ),
    "finder": (
        ("finder.html", "the page: what the finder learnt from and how it does on sky that it has not seen"),
        ("finder.json", "the same as numbers"),
        ("card.json, weights.safetensors", "the finder: `lenspipe scan --model` takes the folder"),
        ("committee.json", "the finder, where it is a committee of the last round's members"),
        ("training_set.safetensors", "what is kept of its training set, to tell unlike stamps"),
        ("hosts/", "real galaxies that arcs are painted on, as stamps"),
        ("hosts.json", "how sources were told apart, and which parts of the sky are for what"),
        ("stamps/", "what it learnt from"),
        ("border.json", "whether the border of a stamp alone tells its class"),
        ("round-1/", "trainings, one folder per member; further rounds beside it"),
        ("known/", "stamps of known lenses in the tiles, where a list was given"),
        ("scan/", "the scan that the sources are from, where tiles were given"),
        ("sources/", "all sources of that scan, stars among them"),
        _REQUEST,
    ),
    "sweep": (
        ("index.html", "the page: trials compared"),
        ("sweep.png", "its plots"),
        ("trials.parquet, trials.csv", "one row per trial: settings, measures, cost; the best first"),
        ("best/", "the best model, for `lenspipe scan --model` and `lenspipe evaluate`"),
        ("trials/", "every trial with its model and history"),
        _REQUEST,
    ),
}
"""Name and words of what a folder of each kind may hold, the most wanted first."""
_TITLES: dict[Kind, str] = {
    "scan": "Scan of a survey",
    "catalogue": "Catalogue of lens candidates",
    "gallery": "Page of lens candidates",
    "model": "Trained network",
    "stamps": "Labelled stamps",
    "completeness": "Completeness of a finder",
    "finder": "Finder of a survey",
    "sweep": "Sweep of trainings",
}


def readme_text(kind: Kind, facts: Sequence[str] = (), *, after: Sequence[str] = ()) -> str:
    """The text for a folder of a kind; ``facts`` are lines above the list of files, ``after`` lines below it."""
    lines = [_MARK, f"# {_TITLES[kind]}", "", *facts, *([""] if facts else [])]
    lines += ["| file | what it is |", "|---|---|", *(f"| `{name}` | {words} |" for name, words in FILES[kind])]
    lines += ["", f"Not every folder holds all of them. {_TABLES}", *([""] if after else []), *after]
    return "\n".join(lines) + "\n"


def is_ours(path: Path) -> bool:
    """Whether a README is one that `write_readme` wrote."""
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(_MARK)


def write_readme(folder: Path, kind: Kind, facts: Sequence[str] = (), *, after: Sequence[str] = ()) -> None:
    """Write the README of a folder, whole or not at all; one that is not ours stays as it is."""
    path = folder / README
    text = readme_text(kind, facts, after=after)
    if path.exists() and (not is_ours(path) or path.read_text(encoding="utf-8", errors="replace") == text):
        return
    temporary = scratch_beside(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
