"""One round of a finder: its stamps with the graded ones among them, its members trained and calibrated."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lenspipe.errors import ConfigError
from lenspipe.evaluate.committee import calibrate_committee
from lenspipe.evaluate.judges import judge_for
from lenspipe.evaluate.judges.contract import CalibrateSettings
from lenspipe.evaluate.judging import open_members
from lenspipe.finder.graded import Graded
from lenspipe.finder.settings import FinderSettings
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import PLAIN, Runner, train
from lenspipe.learn.upon import input_of
from lenspipe.nn.card import CARD_FILE, WEIGHTS_FILE, ModelCard, find_model, read_card, write_card
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.nn.committee import Committee, committee_of, is_committee, open_committee
from lenspipe.nn.outputs import Find
from lenspipe.runner import Progress, Start
from lenspipe.stamps.format import ImageSpec, StampSet, image_column, write_part

GRADED_PART = "graded"
"""Name of the part of graded stamps, and of what ``recipe`` says of its rows."""
TRAINED = "trained"
"""Folder, in a member's, of the weights before those of its base were put in."""


@dataclass(frozen=True)
class Base:
    """A finder whose weights a training begins from, as the bands of a survey take them."""

    folder: Path
    card: ModelCard
    """With the survey's bands in the places of those that they replace."""


def open_bases(name: str, replaced: dict[str, str]) -> tuple[Base, ...]:
    """
    The finder, or the members of the committee, that a training begins from.

    Parameters
    ----------
    name : str
        Name of a shipped model, or folder of a checkpoint or of a committee.
    replaced : mapping
        Band of the card to the survey's band that stands in for it: ``{"i": "z"}`` makes g r i a finder of g r z.

    Raises
    ------
    ConfigError
        The model is not a finder, or lacks a band that is to be replaced.
    """
    folders = open_committee(name).folders if is_committee(name) else (find_model(name),)
    return tuple(Base(folder, with_bands(read_card(folder), replaced)) for folder in folders)


def with_bands(card: ModelCard, replaced: dict[str, str]) -> ModelCard:
    """A finder's card with some bands replaced by neighbours."""
    if not isinstance(card.outputs, Find) or card.features or card.sees != "raw":
        raise ConfigError("only a finder of raw stamps can learn on", model=card.name, task=card.task)
    if unknown := [band for band in replaced if band not in card.bands]:
        raise ConfigError(
            "the model lacks the band that is to be replaced",
            model=card.name,
            band=unknown[0],
            has=" ".join(card.bands),
        )
    bands = tuple(replaced.get(band, band) for band in card.bands)
    if len(set(bands)) < len(bands):
        raise ConfigError("a band would stand in two places of the model", bands=" ".join(bands))
    neighbours = {band: more for band, more in card.neighbours.items() if band not in replaced}
    return card.model_copy(update={"bands": bands, "neighbours": neighbours})


def stand_ins(card: ModelCard, replaced: Mapping[str, str], survey_bands: Sequence[str]) -> dict[str, str]:
    """
    What stands in for the bands of a finder that a survey lacks: what was asked for, else what the card declares.

    Parameters
    ----------
    card : ModelCard
        As it was read, with its own bands.
    replaced : mapping
        Asked for: the card's band to the survey's. A pair that the card does not declare is the user's own choice.
    survey_bands : sequence of str

    Returns
    -------
    dict
        The card's band to the survey's; a band that neither has nor is replaced is left to who checks bands.

    Examples
    --------
    >>> from lenspipe.nn.card import read_card, find_model
    >>> card = read_card(find_model("ground-gri"))
    >>> stand_ins(card, {}, "grz"), stand_ins(card, {}, "gri"), stand_ins(card, {}, "gr")
    ({'i': 'z'}, {}, {})
    """
    found = dict(replaced)
    for band in card.bands:
        if band in found or band in survey_bands:
            continue
        free = [one for one in card.neighbours.get(band, ()) if one in survey_bands and one not in found.values()]
        if free:
            found[band] = free[0]
    return found


def settings_for(settings: FinderSettings, name: str, bands: Sequence[str], base: Base | None) -> TrainSettings:
    """Settings of a training: as given, or with input, stretch and family of the finder that it goes on from."""
    own = settings.train.model_copy(update={"name": name})
    if base is None:
        shown = own.input.model_copy(update={"bands": tuple(bands)})
        return own.model_copy(update={"input": shown})
    card = base.card
    shown = own.input.model_copy(
        update=input_of(card)
        | {
            "scale_tolerance": card.scale_tolerance,
            "scale_range": (
                card.min_scale_arcsec / card.pixel_scale_arcsec,
                card.max_scale_arcsec / card.pixel_scale_arcsec,
            ),
        }
    )
    again = own.optim.model_copy(
        update={
            "epochs": settings.go_on.epochs,
            "learning_rate": settings.go_on.learning_rate,
            "frozen_epochs": 0,
            "monitor": None,
            "patience": None,
        }
    )
    return own.model_copy(update={"model": dict(card.settings), "input": shown, "optim": again})


def write_round_stamps(
    painted: Path, out: Path, graded: Graded | None, *, spec: ImageSpec, share: float, most_repeats: int, seed: int
) -> dict[str, Any]:
    """
    A data set of the painted stamps, linked, and the graded ones, repeated so that they are ``share`` of each class.

    Only rows that train are repeated. Parts of an earlier attempt that are not of this one are removed.

    Returns
    -------
    dict
        What was joined.
    """
    out.mkdir(parents=True, exist_ok=True)
    data = StampSet.open(painted)
    for stale in {part.name for part in out.glob("*.parquet")} - {part.name for part in data.parts}:
        (out / stale).unlink()  # of an attempt that failed, with other grades
    for part in data.parts:
        link = out / part.name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(part.resolve(), out.resolve()))
    if graded is None:
        return {}
    label, split = data.column("label"), data.column("split")
    g_split = np.array(graded.split, object)
    order: list[int] = list(np.flatnonzero(g_split != "train"))
    record: dict[str, Any] = {}
    for is_lens, name in ((True, "lens"), (False, "nonlens")):
        rows = np.flatnonzero((g_split == "train") & (graded.is_lens == is_lens))
        n_painted = int(((label == name) & (split == "train")).sum())
        repeats = 0
        if len(rows):
            wanted = share / (1 - share) * n_painted / len(rows)
            repeats = int(min(most_repeats, max(1, round(wanted))))
            order += [int(k) for _ in range(repeats) for k in rows]
        held_out = int(((g_split == "test") & (graded.is_lens == is_lens)).sum())
        record[name] = {"train": len(rows), "repeats": repeats, "held_out": held_out}
    index = np.array(order, int)
    index = index[np.random.default_rng([seed, 17]).permutation(len(index))]
    values: dict[str, Any] = {
        "stamp_id": [f"{graded.name[k]}-{number}" for number, k in enumerate(index)],
        "label": ["lens" if graded.is_lens[k] else "nonlens" for k in index],
        "recipe": [GRADED_PART] * len(index),
        "seed": [None] * len(index),
        "host": [graded.name[k] for k in index],
        "split": [graded.split[k] for k in index],
        "kind": ["graded lens" if graded.is_lens[k] else "graded non-lens" for k in index],
        "survey": [graded.survey[k] for k in index],
    }
    arrays = [
        image_column(graded.pixels_njy[index], spec)
        if f.name == "image"
        else pa.array(values[f.name], f.type)
        if f.name in values
        else pa.nulls(len(index), f.type)
        for f in data.schema
    ]
    write_part(pa.table(arrays, schema=data.schema), out, GRADED_PART)
    return record


def train_members(
    stamps: Path,
    folder: Path,
    *,
    name: str,
    families: Sequence[str],
    n_member: int,
    bases: Sequence[Base],
    bands: Sequence[str],
    settings: FinderSettings,
    seed: int,
    runner: Start[Runner] = PLAIN,
    n_worker: int = 1,
    progress: Progress,
) -> tuple[Path, ...]:
    """
    Train the members of a round, each in a folder of its own, and calibrate each on the validation split.

    Member ``k`` has family ``k`` of the families in turn, or goes on from base ``k`` of the bases in turn.
    A training that was cut off goes on; a finished one is left as it is.
    """
    members = []
    for k in range(n_member):
        base = bases[k % len(bases)] if bases else None
        family = base.card.family if base else families[k % len(families)]
        out = folder / f"member-{k + 1}"
        title = name if n_member == 1 else f"{name}-{k + 1}"
        progress.say(f"Member {k + 1} of {n_member}: {family}" + (f", from {base.card.name}" if base else ""))
        card = train(
            stamps,
            model=family,
            task=Find().task,
            out=out,
            settings=settings_for(settings, title, bands, base),
            seed=seed + k,
            runner=runner,
            n_worker=n_worker,
            pretrained=None if base is None else str(base.folder / WEIGHTS_FILE),
            keep_head=base is not None,
            progress=progress,
        )
        mixed = (out / TRAINED / CARD_FILE).exists()  # by an earlier try, with another part
        if base is not None and (settings.go_on.base_part or mixed):
            card = keep_of_base(out, base.folder, settings.go_on.base_part)
        if isinstance(card.outputs, Find) and card.outputs.calibration is None:
            calibrate_member(out, stamps, progress)
        members.append(out)
    return tuple(members)


def keep_of_base(folder: Path, base: Path, part: float) -> ModelCard:
    """
    Put the mean of a base's weights and of those trained on from it into a member's folder.

    A finder between the two knows what both know better than either where they are near each other, as one training of
    a few hundred steps leaves them (Wortsman et al. 2022, CVPR, arXiv 2109.01903). What was trained stays in `TRAINED`
    of the folder, so that a cut-off is made good by calling again.

    Parameters
    ----------
    folder : path
        Checkpoint that was trained on from ``base``.
    base : path
    part : float
        Weight of the base.

    Returns
    -------
    ModelCard
        The member's, without a calibration.
    """
    trained = folder / TRAINED
    if not (trained / CARD_FILE).exists():
        save_model(trained, *load_model(folder))
    card = read_card(folder)
    if card.training.get("base_part", 0.0) == part:
        return card
    begun = load_model(base)[0].state_dict()
    network, card = load_model(trained)
    mean = {
        name: part * begun[name] + (1 - part) * tensor if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    network.load_state_dict(mean)
    facts = {key: value for key, value in card.training.items() if key != "base_part"}
    changes = {"training": facts | ({"base_part": part, "metrics_of": "the training, before the mean"} if part else {})}
    return save_model(folder, network, card.with_outputs(calibration=None).model_copy(update=changes))


def calibrate_member(folder: Path, stamps: Path, progress: Progress) -> None:
    """Fit a member's map from score to probability on the validation split, into its card."""
    data = StampSet.open(stamps)
    member = open_members([folder], data)[0]
    counted = _counted(progress)
    fitted = judge_for(member.outputs).calibrate(member, data, CalibrateSettings(), counted)
    for line in fitted.said:
        progress.say(line)
    write_card(folder, fitted.card)


def together(members: Sequence[Path], stamps: Path, *, name: str, progress: Progress) -> Committee:
    """Members as a calibrated committee."""
    committee = committee_of(members, name=name)
    fitted, said = calibrate_committee(
        committee, StampSet.open(stamps), split="validation", method="platt", device="auto", progress=_counted(progress)
    )
    for line in said:
        progress.say(line)
    return fitted


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Put facts of a round into a member's card, beside those of its training."""
    card = read_card(folder)
    write_card(folder, card.model_copy(update={"training": card.training | facts}))


def digest_of_files(files: Sequence[Path]) -> list[str]:
    """Name of each file's content; of a folder of stamps that of its parts."""
    out = []
    for file in files:
        total = hashlib.sha256()
        for part in sorted(file.glob("*.parquet")) if file.is_dir() else [file]:
            total.update(part.read_bytes())
        out.append(f"{file.name}:{total.hexdigest()[:16]}")
    return out


class _Counts:
    def __init__(self, progress: Progress) -> None:
        self._progress, self._stage, self._done = progress, "", 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self._progress.stage(stage, total, done)
            self._stage, self._done = stage, done
        self._progress.advance(max(0, done - self._done))
        self._done = max(done, self._done)


def _counted(progress: Progress) -> _Counts:
    return _Counts(progress)
