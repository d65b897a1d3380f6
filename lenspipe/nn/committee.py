"""A committee's card: which models are its members, how they weigh, and the calibration of the whole. Without torch."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from lenspipe.errors import ConfigError, ModelError
from lenspipe.nn.card import CARD_FILE, SHIPPED, ModelCard, digest, find_model, read_card
from lenspipe.nn.outputs import Calibration, Find
from lenspipe.rundir import write_json
from lenspipe.store.copies import local_folder
from lenspipe.toml import Table

COMMITTEE_FILE = "committee.json"


class MemberEntry(Table):
    """One member of a committee."""

    model: str
    """Folder of the checkpoint, relative to the committee's or absolute, or the name of a shipped model."""
    digest: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Name of the checkpoint's exact content (`lenspipe.nn.card.digest`)."""
    weight: float = Field(default=1.0, gt=0)
    """Its weight in the mean."""


class CommitteeCard(Table):
    """The facts of a committee; ``committee.json`` in a folder of its own."""

    format_version: int = Field(default=1, ge=1, le=1)
    """Version of this card's layout."""
    name: str
    """Name of the committee."""
    members: tuple[MemberEntry, ...] = Field(min_length=2)
    """Its members."""
    calibration: Calibration | None = None
    """Map from the committee's score to a probability; null where none was fitted."""
    created: str = ""
    """Date, ISO 8601."""


@dataclass(frozen=True)
class Committee:
    """
    Finders that score together.

    Attributes
    ----------
    card : CommitteeCard
    folders : tuple of Path
        Of the members' checkpoints.
    cards : tuple of ModelCard
        Of the members.
    """

    card: CommitteeCard
    folders: tuple[Path, ...]
    cards: tuple[ModelCard, ...]

    @property
    def digest(self) -> str:
        """Name of its exact content, wherever its members lie: their digests and weights, and the calibration."""
        members = [[entry.digest, entry.weight] for entry in self.card.members]
        calibration = self.card.calibration and self.card.calibration.model_dump(mode="json")
        facts = json.dumps([self.card.name, members, calibration], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the members."""
        return tuple(entry.weight for entry in self.card.members)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members' cards; with a number where two share one."""
        names: list[str] = []
        for card in self.cards:
            name, number = card.name, 2
            while name in names:
                name, number = f"{card.name} ({number})", number + 1
            names.append(name)
        return tuple(names)

    def calibrations(self) -> tuple[Calibration, ...]:
        """
        Calibrations of the members, which a committee's score is made of.

        Raises
        ------
        ConfigError
            A member has none, or is not a finder.
        """
        found = []
        for name, card in zip(self.names, self.cards, strict=True):
            if not isinstance(card.outputs, Find):
                raise ConfigError("a committee is made of finders", member=name, task=card.task)
            if card.outputs.calibration is None:
                raise ConfigError(
                    "a member of the committee has no calibration, and members of different spread cannot be averaged "
                    "without: fit one by `lenspipe calibrate MODEL --data STAMPS --out FOLDER`",
                    member=name,
                )
            found.append(card.outputs.calibration)
        return tuple(found)

    def calibrated(self, calibration: Calibration) -> Committee:
        """The same committee with a calibration of the whole."""
        return Committee(self.card.model_copy(update={"calibration": calibration}), self.folders, self.cards)


def is_committee(name_or_path: str | Path) -> bool:
    """Whether a model that is asked for is the folder of a committee."""
    return (local_folder(name_or_path) / COMMITTEE_FILE).is_file()


def committee_of(models: Sequence[str | Path], *, name: str | None = None) -> Committee:
    """
    Models with equal weights as a committee that is in no folder yet.

    Parameters
    ----------
    models : sequence
        Names of shipped models or folders of checkpoints.
    name : str, optional
        The members' names, joined, where not given.

    Raises
    ------
    ConfigError
        There are fewer than two, one of them twice, or a committee among them.
    """
    if len(models) < 2:
        raise ConfigError("a committee needs at least two models", models=len(models))
    if nested := [model for model in models if is_committee(model)]:
        raise ConfigError("a committee is made of models, not of committees; name its members", got=str(nested[0]))
    folders = tuple(find_model(model) for model in models)
    digests = [digest(folder) for folder in folders]
    if len(set(digests)) < len(digests):
        raise ConfigError("the committee has a model twice; name each once", models=" ".join(map(str, models)))
    cards = tuple(read_card(folder) for folder in folders)
    members = tuple(MemberEntry(model=str(m), digest=d) for m, d in zip(models, digests, strict=True))
    return Committee(
        CommitteeCard(name=name or " + ".join(card.name for card in cards), members=members), folders, cards
    )


def open_committee(folder: str | Path) -> Committee:
    """
    Read a committee's folder and the cards of its members.

    Raises
    ------
    ModelError
        The card is missing or not valid, or a member is not the one that the card was written for.
    ConfigError
        A member is not there.
    """
    folder = local_folder(folder)
    path = folder / COMMITTEE_FILE
    try:
        card = CommitteeCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"not a committee: {COMMITTEE_FILE} cannot be read ({error.strerror})", folder=str(folder)
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or COMMITTEE_FILE
        raise ModelError(f"the committee's card is not valid: {where}: {first['msg']}", file=str(path)) from None
    folders = tuple(_member_folder(folder, entry.model) for entry in card.members)
    for entry, member in zip(card.members, folders, strict=True):
        if (found := digest(member)) != entry.digest:
            raise ModelError(
                "a member is not the one of the committee's card: it was trained or calibrated again; write the "
                "committee again by `lenspipe calibrate MODEL MODEL ... --out`",
                committee=str(folder),
                member=entry.model,
                had=entry.digest,
                got=found,
            )
    return Committee(card, folders, tuple(read_card(member) for member in folders))


def write_committee(folder: str | Path, committee: Committee) -> CommitteeCard:
    """Write ``committee.json``; members are named as seen from the folder, so that all can move together."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    members = tuple(
        entry.model_copy(update={"model": _name_from(folder, member)})
        for entry, member in zip(committee.card.members, committee.folders, strict=True)
    )
    created = committee.card.created or datetime.datetime.now(datetime.UTC).date().isoformat()
    card = committee.card.model_copy(update={"members": members, "created": created})
    write_json(folder / COMMITTEE_FILE, card.model_dump(mode="json"), ensure_ascii=False)
    return card


def _member_folder(committee: Path, model: str) -> Path:
    beside = committee / model
    return beside if (beside / CARD_FILE).is_file() else find_model(model)


def _name_from(folder: Path, member: Path) -> str:
    if member.resolve().parent == SHIPPED.resolve():
        return member.name
    return os.path.relpath(member.resolve(), folder.resolve())
