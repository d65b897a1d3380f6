"""A committee of finders: each member's score, and one score and probability of the whole."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.infer.committee import committee_score
from lenspipe.infer.engine import engine_record
from lenspipe.nn.committee import Committee, committee_of, is_committee, open_committee
from lenspipe.scan.readers.contract import Asked, Candidates, Checkpoint, CutoutKey, Reader, Work
from lenspipe.scan.readers.find import Finder, demand_engine, demand_scanning
from lenspipe.schema import field, score_fields
from lenspipe.stats.calibrate import probability, probability_record

MEMBERS = field(
    "members",
    pa.string(),
    "Digests of the committee's members, in the order of their scores; empty without a score",
    ucd="meta.id;meta.modelled",
)


@dataclasses.dataclass(frozen=True)
class FinderCommittee(Reader):
    """Finders whose calibrated log odds are averaged; each is shown the cutouts that it takes."""

    committee: Committee
    finders: tuple[Finder, ...]
    prior: float | None

    @property
    def name(self) -> str:
        """The card's."""
        return self.committee.card.name

    @property
    def digest(self) -> str:
        """The committee's."""
        return self.committee.digest

    @property
    def takes(self) -> tuple[str, ...]:
        """What its members take."""
        return tuple(dict.fromkeys(name for finder in self.finders for name in finder.takes))

    @property
    def gives(self) -> tuple[str, ...]:
        """A score, and a probability where the whole is calibrated."""
        return ("score",) if self.committee.card.calibration is None else ("score", "probability")

    @property
    def demands(self) -> tuple[str, ...]:
        """All bands of all members."""
        return tuple(dict.fromkeys(band for finder in self.finders for band in finder.demands))

    @property
    def n_cutout(self) -> int:
        """One per member at most."""
        return len(self.finders)

    def cutouts(self, pixel_scale_arcsec: float) -> tuple[CutoutKey, ...]:
        """Those of all members, each kind once."""
        return tuple(dict.fromkeys(key for finder in self.finders for key in finder.cutouts(pixel_scale_arcsec)))

    def fits(self, bands: tuple[str, ...], pixel_scale_arcsec: float) -> str | None:
        """As all members' cards say: without one of them the score would be another."""
        reasons = (finder.fits(bands, pixel_scale_arcsec) for finder in self.finders)
        return next((reason for reason in reasons if reason), None)

    def fields(self) -> list[pa.Field]:
        """Score and probability of the whole, ``score_NAME`` of each member, and the members' digests."""
        of_all = [f for f in score_fields() if f.name in self.gives]
        named = zip(self.columns, self.committee.names, self.finders, strict=True)
        return [
            *of_all,
            *(
                field(column, pa.float64(), f"Raw score of the member {name} ({finder.digest})", ucd="stat.value")
                for column, name, finder in named
            ),
            MEMBERS,
        ]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the members' score columns."""
        return tuple("score_" + re.sub(r"\W+", "_", name).strip("_") for name in self.committee.names)

    def record(self) -> dict[str, Any]:
        """The committee's card with its members' and what its probabilities assume."""
        model = {
            "name": self.name,
            "digest": self.digest,
            "card": self.committee.card.model_dump(mode="json"),
            "members": [finder.model.record() for finder in self.finders],
            **engine_record(self.finders[0].engine, self.finders[0].precision),
        }
        return {"model": model, "probability": probability_record(self.committee.card.calibration, self.prior)}

    def digests(self) -> dict[str, str]:
        """Of the whole, which those of the members go into."""
        return {"digest": self.digest}

    def probabilities(self, scores: NDArray[np.floating], prior: float) -> NDArray[np.float64] | None:
        """By the calibration of the whole."""
        calibration = self.committee.card.calibration
        return None if calibration is None else probability(scores, calibration, prior)

    def load(self, device: str) -> Work:
        """Candidates to scores of all members and of the whole."""
        members = [finder.load(device) for finder in self.finders]
        calibrations, calibration = self.committee.calibrations(), self.committee.card.calibration
        digests = " ".join(finder.digest for finder in self.finders)

        def score(candidates: Candidates) -> dict[str, Any]:
            each = [member(candidates)["score"] for member in members]
            together = committee_score(np.stack(each), calibrations, self.committee.weights)
            said = {"score": together, MEMBERS.name: [digests] * candidates.n}
            said |= dict(zip(self.columns, each, strict=True))
            if calibration is not None:
                said["probability"] = probability(together, calibration, self.prior)
            return said

        return score


def choose(asked: Asked) -> FinderCommittee | None:
    """
    The committee of a scan; None where it is asked for one model, or none.

    Raises
    ------
    ConfigError
        A member cannot scan the tiles or has no calibration for what it is shown; a prior is stated and the whole has
        no calibration.
    ModelError
        The folder's card is not valid, or a member is not the one of the card.
    """
    score = asked.config.score
    if isinstance(score.model, str):
        if not is_committee(score.model):
            return None
        committee = open_committee(score.model)
    else:
        committee = committee_of(score.model)
    demand_engine(score)
    denoised = score.denoiser != "none"
    finders = []
    for name, folder in zip(committee.names, committee.folders, strict=True):
        model = Checkpoint.open(folder)
        demand_scanning(model.card, name, asked.bands, denoised=denoised)
        finder = Finder(
            model, denoised, None, score.batch_size, alone=False, engine=score.engine, precision=score.precision
        )
        if denoised and finder.calibration is None and model.card.sees == "raw":
            raise ConfigError(
                "the calibration of a member is of raw stamps and says nothing of denoised ones; leave --denoiser out, "
                "or the member",
                member=name,
                denoiser=score.denoiser,
            )
        finders.append(finder)
    committee.calibrations()  # said before any work
    if score.prior is not None and committee.card.calibration is None:
        raise ConfigError(
            "a prior needs a calibration of the committee as a whole; fit one by `lenspipe calibrate MODEL MODEL ... "
            "--data STAMPS --out COMMITTEE` and scan with --model COMMITTEE, or leave --prior out",
            prior=score.prior,
            model=committee.card.name,
        )
    return FinderCommittee(committee, tuple(finders), score.prior)
