"""Graded candidates as stamps beside the painted ones: read from the page's files, tables of positions, or stamps."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.catalog.grades import NEEDED, SAME_ARCSEC, VALUE, graded_places, labels_for, mean_grades, read_grades
from lenspipe.catalog.run_rows import Run
from lenspipe.errors import ConfigError
from lenspipe.finder.areas import Areas
from lenspipe.finder.places import cut_positions, shards_of
from lenspipe.finder.settings import GradeSettings
from lenspipe.simulate.on_hosts import to_grid
from lenspipe.sky.sphere import first_of_each
from lenspipe.stamps.format import ImageSpec, StampSet
from lenspipe.stamps.generated import GENERATOR
from lenspipe.stamps.splits import splits_by_key
from lenspipe.tables import read_parquet

POLE_DEG = 90.0
SIDE_LEAST = 0.97
"""Least side of graded stamps, in that of the finder's."""


@dataclass(frozen=True, eq=False)
class Graded:
    """Graded candidates as stamps on one grid."""

    pixels_njy: NDArray[np.float32]
    """``(n, band, y, x)``."""
    is_lens: NDArray[np.bool_]
    name: tuple[str, ...]
    survey: tuple[str, ...]
    split: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What was left out, a line each."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """Graded positions of the run, before they are cut."""

    name: list[str] = field(default_factory=list)
    is_lens: list[bool] = field(default_factory=list)
    ra: list[float] = field(default_factory=list)
    dec: list[float] = field(default_factory=list)

    def only(self, kept: Sequence[int]) -> _Rows:
        """Those of some numbers."""
        return _Rows(
            [self.name[k] for k in kept],
            [self.is_lens[k] for k in kept],
            [self.ra[k] for k in kept],
            [self.dec[k] for k in kept],
        )


@dataclass(frozen=True, eq=False)
class GradedFolder:
    """A folder of graded stamps that a finder can learn from."""

    folder: Path
    data: StampSet
    image: str
    """Column of the images."""
    rows: NDArray[np.intp]
    """Those with a label."""

    @classmethod
    def open(cls, folder: Path, bands: Sequence[str], side_arcsec: float) -> GradedFolder:
        """Open it; `ConfigError` where it lacks a band or every label, is of another unit or too small."""
        data = StampSet.open(folder)
        name, given = next(iter(data.images.items()))
        if missing := [band for band in bands if band not in given.bands]:
            raise ConfigError(
                "the graded stamps lack a band of the finder", data=str(folder), missing=" ".join(missing)
            )
        if given.unit != "nJy":
            raise ConfigError("the graded stamps are not in nJy", data=str(folder), unit=given.unit)
        if given.size_px * given.pixel_scale_arcsec < SIDE_LEAST * side_arcsec:
            raise ConfigError(
                "the graded stamps are smaller than the finder's",
                data=str(folder),
                got_arcsec=round(given.size_px * given.pixel_scale_arcsec, 2),
                want_arcsec=round(side_arcsec, 2),
            )
        if GENERATOR in data.schema.names and (n := sum(one is not None for one in data.column(GENERATOR))):
            raise ConfigError("nobody grades stamps that a generator made", data=str(folder), n=n)
        rows = np.flatnonzero([one is not None for one in data.column("label")])
        if not len(rows):
            raise ConfigError(
                "none of the graded stamps has a label, so they teach nothing", data=str(folder), n=data.n
            )
        return cls(folder, data, name, rows)

    def facts(self, seed: int) -> Graded:
        """What is known of its labelled stamps without their pixels."""
        rows, data = self.rows, self.data
        hosts = [str(one) for one in data.column("host")[rows]]
        split = [
            str(own) if own is not None else str(dealt)
            for own, dealt in zip(data.column("split")[rows], splits_by_key(hosts, seed=seed), strict=True)
        ]
        survey = data.column("survey")[rows] if "survey" in data.schema.names else [self.folder.name] * len(rows)
        return Graded(
            np.empty((len(rows), 0, 0, 0), np.float32),
            np.array([one == "lens" for one in data.column("label")[rows]], bool),
            tuple(hosts),
            tuple(map(str, survey)),
            tuple(split),
        )


def read_graded(
    files: Sequence[Path],
    run: Run | None,
    spec: ImageSpec,
    settings: GradeSettings,
    *,
    areas: Areas,
    survey: str,
    seed: int,
) -> Graded:
    """
    Read graded candidates and cut or resample them onto the grid of the painted stamps.

    Parameters
    ----------
    files : sequence of path
        Files of the page (`lenspipe gallery`), tables with columns ``ra``, ``dec`` and ``grade`` (A B C N, or a
        number from 0 to 3), or folders of labelled stamps in nJy.
    run : Run or None
        Where positions are cut from; None where all are stamps.
    spec : ImageSpec
        Bands, side and pixel scale wanted.
    settings : GradeSettings
    areas : Areas
        Which sky is held out: a candidate there, and one within the margin, is not trained on.
    survey : str
        Name of the run's survey.
    seed : int
        Of the splits of stamps that have none.

    Raises
    ------
    ConfigError
        A file cannot be read or names nothing that is known; all rows lie outside the run; a survey gives lenses
        alone, or nothing but non-lenses.
    """
    there = [file.resolve() for file in files]
    if twice := next((file for file, path in zip(files, there, strict=True) if there.count(path) > 1), None):
        raise ConfigError("graded candidates are named twice, and would count twice", file=str(twice))
    if run is None and (stranger := next((file for file in files if not file.is_dir()), None)):
        raise ConfigError("graded positions are cut from a run: say which", file=str(stranger))
    rows, notes = _rows_of(files, run, settings), []
    side_arcsec = spec.size_px * spec.pixel_scale_arcsec
    parts = [
        _from_folder(GradedFolder.open(file, spec.bands, side_arcsec), spec, seed) for file in files if file.is_dir()
    ]
    if rows.name and run is not None:
        cut, said = _cut(rows, run, spec, areas, survey)
        parts.append(cut)
        notes += said
    if not parts or not sum(len(part.name) for part in parts):
        raise _no_label()
    whole = _joined(parts, notes)
    demand_both(whole, painted=survey)
    return whole


def _joined(parts: Sequence[Graded], notes: Sequence[str] = ()) -> Graded:
    return Graded(
        np.concatenate([part.pixels_njy for part in parts]),
        np.concatenate([part.is_lens for part in parts]),
        tuple(name for part in parts for name in part.name),
        tuple(name for part in parts for name in part.survey),
        tuple(name for part in parts for name in part.split),
        tuple(notes),
    )


def check_grades(
    files: Sequence[Path], run: Run, spec: ImageSpec, settings: GradeSettings, *, survey: str, seed: int
) -> None:
    """
    Refuse what `read_graded` will refuse in these files, as far as that is known before a stamp is painted.

    Parameters
    ----------
    files, run, spec, settings, survey, seed
        As of `read_graded`.

    Raises
    ------
    ConfigError
        As of `check_grade_files`; a file names nothing that is known, or has no position within the run; stamps of a
        survey are lenses alone, or non-lenses alone.
    """
    folders = check_grade_files(files, spec.bands, spec.size_px * spec.pixel_scale_arcsec, settings)
    rows = _rows_of(files, run, settings)
    if rows.name and (shards_of(run, np.array(rows.ra), np.array(rows.dec)) == "").all():
        raise _all_outside(rows, run)
    if files and not rows.name and not folders:
        raise _no_label()
    if folders:
        demand_both(_joined([folder.facts(seed) for folder in folders]), painted=survey)


def check_grade_files(
    files: Sequence[Path], bands: Sequence[str], side_arcsec: float, settings: GradeSettings
) -> list[GradedFolder]:
    """
    Refuse what no run can mend, before tiles are scanned.

    Parameters
    ----------
    files : sequence of path
        As of `read_graded`.
    bands : sequence of str
        Of the finder.
    side_arcsec : float
        Least side of its stamps.
    settings : GradeSettings

    Returns
    -------
    list of GradedFolder
        Those that are folders.

    Raises
    ------
    ConfigError
        A file cannot be read; a position is no place, or a grade beyond 0 to 3; stamps lack a band, are not in nJy or
        too small, or none of them has a label; grades of tables all lie between the two limits.
    """
    folders = [GradedFolder.open(file, bands, side_arcsec) for file in files if file.is_dir()]
    rows = _rows_of(files, None, settings)
    if files and not (rows.name or folders or any(_is_page_file(file) for file in files)):
        raise _no_label()
    return folders


def _no_label() -> ConfigError:
    return ConfigError("no graded candidate has a label: grades between the two limits teach nothing")


def _all_outside(rows: _Rows, run: Run) -> ConfigError:
    return ConfigError(
        "no graded position lies in a tile of the run",
        positions=len(rows.name),
        first=rows.name[0],
        run=str(run.folder),
    )


def _rows_of(files: Sequence[Path], run: Run | None, settings: GradeSettings) -> _Rows:
    """Graded positions of the files that are not folders; those of a page's files need a run."""
    rows = _Rows()
    page = [file for file in files if file.is_file() and _is_page_file(file)]
    if page and run is not None:
        _add_page_rows(rows, page, run, settings)
    for file in files:
        if not file.is_dir() and file not in page:
            _add_positions(rows, file, settings)
    return rows


def demand_both(graded: Graded, *, painted: str) -> None:
    """
    Raise `ConfigError` where a survey would give lenses alone, or non-lenses alone: a finder then learns the survey.

    The painted stamps give the run's own survey both.
    """
    names = np.array(graded.survey, object)
    for name in dict.fromkeys(graded.survey):
        train = (names == name) & (np.array(graded.split, object) == "train")
        kinds = set(graded.is_lens[train].tolist())
        if train.any() and len(kinds) < 2 and name != painted:
            has, lacks = ("lenses", "non-lenses") if True in kinds else ("non-lenses", "lenses")
            raise ConfigError(
                f"the graded stamps of a survey are {has} alone, and a finder would learn to tell the survey: add "
                f"{lacks} of it",
                survey=name,
                n=int(train.sum()),
            )


def _is_page_file(file: Path) -> bool:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            heading = next(csv.reader(stream), [])
    except (OSError, UnicodeDecodeError):
        return False
    return set(NEEDED) <= set(heading)


def _add_page_rows(rows: _Rows, files: list[Path], run: Run, settings: GradeSettings) -> None:
    grades = read_grades([str(file) for file in files])
    means = mean_grades(grades, lens_from=settings.lens_from, nonlens_to=settings.nonlens_to)
    table = labels_for(means, read_parquet(run.folder / "candidates.parquet"), run_id=run.run_id)
    found = table.select(["candidate_id", "ra", "dec", "label"]).to_pylist()
    # grades of another run of these tiles, such as one that a finder of the last round scored, count by position
    places = graded_places(grades)
    for row in means.filter(pc.not_equal(means["run_id"], run.run_id)).to_pylist():
        if (place := places.get((row["run_id"], row["candidate_id"]))) is not None:
            found.append({"candidate_id": row["candidate_id"], "ra": place[0], "dec": place[1], "label": row["label"]})
    if not found:
        raise ConfigError(
            "no grade of these files is for this run, and those of other runs have no positions",
            run=str(run.folder),
            run_id=run.run_id,
        )
    for row in found:
        if row["label"] is not None:
            rows.name.append(row["candidate_id"])
            rows.is_lens.append(row["label"] == 1)
            rows.ra.append(row["ra"])
            rows.dec.append(row["dec"])


def _add_positions(rows: _Rows, file: Path, settings: GradeSettings) -> None:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            table = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"the grades cannot be read: {error}", file=str(file)) from error
    names = {name.lower().strip(): name for name in (table[0] if table else {})}
    if missing := [name for name in ("ra", "dec", "grade") if name not in names]:
        raise ConfigError(
            "not a file of grades: it has neither the columns of the page's nor ra, dec and grade",
            file=str(file),
            missing=" ".join(missing),
        )
    for line, row in enumerate(table, 2):
        text = (row[names["grade"]] or "").strip()
        try:
            grade = float(VALUE[text]) if text in VALUE else float(text)
            ra, dec = float(row[names["ra"]]), float(row[names["dec"]])
        except (TypeError, ValueError):
            raise ConfigError("a row has no position in degrees, or no grade", file=str(file), line=line) from None
        if not (np.isfinite(ra) and abs(dec) <= POLE_DEG):
            raise ConfigError("a position is none in degrees", file=str(file), line=line, ra=ra, dec=dec)
        if not VALUE["N"] <= grade <= VALUE["A"]:
            raise ConfigError("a grade is A, B, C, N or a number from 0 to 3", file=str(file), line=line, grade=text)
        if settings.nonlens_to < grade < settings.lens_from:
            continue
        rows.name.append(f"{file.stem}-{line}")
        rows.is_lens.append(grade >= settings.lens_from)
        rows.ra.append(ra)
        rows.dec.append(dec)


def _cut(rows: _Rows, run: Run, spec: ImageSpec, areas: Areas, survey: str) -> tuple[Graded, list[str]]:
    notes = []
    once = first_of_each(np.array(rows.ra), np.array(rows.dec), radius_arcsec=SAME_ARCSEC)
    if twice := len(rows.name) - len(once):
        notes.append(f"{twice} grades are of candidates that have another; each counts once, by the first grade")
        rows = rows.only(once)
    ra, dec = np.array(rows.ra), np.array(rows.dec)
    pixels, kept, outside, failed = cut_positions(run, spec, ra, dec)
    if len(outside) == len(ra):
        raise _all_outside(rows, run)
    if len(outside):
        notes.append(
            f"{len(outside)} graded positions lie outside the run's tiles, the first is {rows.name[outside[0]]}"
        )
    notes += [f"graded candidates in the tile {tile} have no stamp: {why}" for tile, why in failed.items()]
    if lost := len(ra) - len(outside) - len(kept):
        of = "too few pixels with data, or are in a tile that cannot be read" if failed else "too few pixels with data"
        notes.append(f"{lost} graded candidates have {of}")
    split = areas.of(ra[kept], dec[kept])
    use = [k for k, s in enumerate(split) if s is not None]
    if len(use) < len(kept):
        notes.append(f"{len(kept) - len(use)} graded candidates lie in the margin between areas, and are left out")
    rows_kept = [int(kept[k]) for k in use]
    return (
        Graded(
            pixels[use],
            np.array([rows.is_lens[k] for k in rows_kept], bool),
            tuple(rows.name[k] for k in rows_kept),
            (survey,) * len(use),
            tuple(str(split[k]) for k in use),
        ),
        notes,
    )


def _from_folder(labelled: GradedFolder, spec: ImageSpec, seed: int) -> Graded:
    given = labelled.data.images[labelled.image]
    order = [given.bands.index(band) for band in spec.bands]
    pixels = labelled.data.read_images(labelled.image, labelled.rows)[:, order]
    grid = [to_grid(stamp, given.pixel_scale_arcsec, spec.size_px, spec.pixel_scale_arcsec) for stamp in pixels]
    return replace(labelled.facts(seed), pixels_njy=np.stack(grid))
