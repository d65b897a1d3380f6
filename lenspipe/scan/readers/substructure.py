"""Dark matter in the candidates that look like lenses: its class or a stated silence, and its parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.infer.abstain import light_facts, reasons_to_abstain
from lenspipe.infer.prepare import cutout_size_px, field_px
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import find_model, fits
from lenspipe.nn.outputs import Classify, Prediction, Regress
from lenspipe.scan.readers.contract import Asked, Candidates, Checkpoint, CutoutKey, Reader, Work
from lenspipe.schema import SUBSTRUCTURE_CLASSES, SUBSTRUCTURE_TARGETS, error_column, nothing, substructure_fields

if TYPE_CHECKING:
    from lenspipe.infer.predict import Predictor

ABSTAINED = "abstained"
CLASS_OF = {"subhalo": "subhalo", "vortex": "vortex", "axion": "vortex"}
"""Class whose substructure a target describes, by the target's first word; other targets describe every lens."""


@dataclasses.dataclass(frozen=True)
class Substructure(Reader):
    """A classifier of substructure, a regression of its parameters, or both, shown the same cutouts."""

    models: tuple[Checkpoint, ...]
    above: float
    """Probability to be a lens from which a candidate is looked at."""
    psf_fwhm_arcsec: dict[str, float]
    batch_size: int | None

    @property
    def name(self) -> str:
        """The cards'."""
        return ", ".join(model.card.name for model in self.models)

    @property
    def digest(self) -> str:
        """The checkpoints'."""
        return " ".join(model.digest for model in self.models)

    @property
    def takes(self) -> tuple[str, ...]:
        """A probability, unless all candidates are looked at."""
        return ("probability",) if self.above > 0 else ("score",)

    def cutouts(self, pixel_scale_arcsec: float) -> tuple[CutoutKey, ...]:
        """Bands of all models, each once, as wide as the widest needs; the others see the middle."""
        bands = tuple(dict.fromkeys(band for model in self.models for band in model.card.bands))
        sides = (cutout_size_px(model.card, pixel_scale_arcsec) // 2 * 2 + 1 for model in self.models)
        return (CutoutKey(bands, max(sides)),)

    def fits(self, bands: tuple[str, ...], pixel_scale_arcsec: float) -> str | None:
        """As all cards say."""
        reasons = (fits(model.card, bands, pixel_scale_arcsec) for model in self.models)
        return next((reason for reason in reasons if reason), None)

    def fields(self) -> list[pa.Field]:
        """The columns of substructure."""
        return substructure_fields()

    def check(self, tile: str, bands: tuple[str, ...], pixel_scale_arcsec: float, *, halo_px: int) -> None:
        """Refuse a pixel scale that does not fit a model, and cutouts that reach beyond the halo."""
        if reason := self.fits(bands, pixel_scale_arcsec):
            raise ConfigError(f"the model of substructure does not fit the tiles: {reason}", tile=tile)
        (key,) = self.cutouts(pixel_scale_arcsec)
        if key.side_px > 2 * halo_px:
            raise ConfigError(
                "the stamps of the model of substructure are wider than the halo of the shards: raise shard.halo_px",
                stamp_px=key.side_px,
                halo_px=halo_px,
                at_least=key.side_px // 2 + 1,
            )

    def record(self) -> dict[str, Any]:
        """The models with their cards."""
        return {"substructure": [model.record() for model in self.models]}

    def digests(self) -> dict[str, str]:
        """Of all models."""
        return {"substructure": self.digest}

    def load(self, device: str) -> Work:
        """Candidates to columns; those below ``above`` are not looked at."""
        from lenspipe.infer.predict import Predictor

        predictors = [Predictor(m.folder, device=device, batch_size=self.batch_size) for m in self.models]

        def examine(candidates: Candidates) -> dict[str, Any]:
            n, rows = candidates.n, np.arange(candidates.n)
            if self.above > 0:
                rows = np.flatnonzero(candidates.said["probability"] >= self.above)
            if not len(rows):
                return {f.name: nothing(f, n) for f in substructure_fields()}
            (key,) = self.cutouts(candidates.pixel_scale_arcsec)
            some = self._examine(predictors, candidates.cutouts[key][rows], key.bands, candidates.pixel_scale_arcsec)
            place = np.full(n, -1)
            place[rows] = np.arange(len(rows))
            take = pa.array(place, mask=place < 0)
            said = {}
            for f in substructure_fields():
                looked_at = some[f.name].take(take) if f.name in some else nothing(f, n)
                said[f.name] = looked_at.fill_null("") if pa.types.is_string(f.type) else looked_at
            return said

        return examine

    def _examine(
        self, predictors: list[Predictor], cutouts: NDArray[np.float32], bands: tuple[str, ...], scale: float
    ) -> dict[str, pa.Array]:
        columns: dict[str, pa.Array] = {}
        words: NDArray[np.object_] | None = None
        # the classifier first: what it sees decides which parameters are meant
        for predictor in sorted(predictors, key=lambda p: not isinstance(p.card.outputs, Classify)):
            card, outputs = predictor.card, predictor.card.outputs
            found = predictor.predict(stamp_input(cutouts, bands=bands, pixel_scale_arcsec=scale, card=card))
            if isinstance(outputs, Classify):
                mine = cutouts[:, [bands.index(band) for band in card.bands]]
                words, columns = self._classes(outputs, found, mine, field_px(card, scale), scale)
            elif isinstance(outputs, Regress):
                columns |= _values(outputs, found, words)
        return columns

    def _classes(
        self, outputs: Classify, found: Prediction, cutouts: NDArray[np.float32], field_px: int, scale: float
    ) -> tuple[NDArray[np.object_], dict[str, pa.Array]]:
        assert found.probability is not None and outputs.abstention is not None
        snr, radius, covered = light_facts(cutouts, field_px=field_px, pixel_scale_arcsec=scale)
        reason = reasons_to_abstain(
            outputs.abstention,
            snr=snr,
            radius_arcsec=radius,
            covered=covered,
            confidence=found.probability.max(axis=1),
            psf_fwhm_arcsec=self.psf_fwhm_arcsec,
        )
        words = np.array(outputs.classes, object)[found.probability.argmax(axis=1)]
        words[reason != ""] = ABSTAINED
        # a network that should not have been asked gives numbers too: only those of a doubtful answer are shown
        shown = (reason == "") | (reason == "confidence")
        columns = {
            "substructure_class": pa.array(words, pa.string()),
            "substructure_reason": pa.array(reason, pa.string()),
        }
        for k, name in enumerate(outputs.classes):
            columns[f"probability_{name}"] = pa.array(found.probability[:, k].astype(np.float32), mask=~shown)
        return words, columns


def _values(outputs: Regress, found: Prediction, words: NDArray[np.object_] | None) -> dict[str, pa.Array]:
    """Estimates with their errors; null where the classifier sees another kind of dark matter, or abstains."""
    assert found.value is not None
    columns = {}
    for k, target in enumerate(outputs.targets):
        of = CLASS_OF.get(target.split("_")[0])
        missing = np.zeros(len(found.value), bool) if words is None or of is None else words != of
        columns[target] = pa.array(found.value[:, k].astype(np.float32), mask=missing)
        if found.sigma is not None:
            columns[error_column(target)] = pa.array(found.sigma[:, k].astype(np.float32), mask=missing)
    return columns


def choose(asked: Asked) -> Substructure | None:
    """
    The models of substructure that a scan is asked for; None where there are none.

    Raises
    ------
    ConfigError
        A model is not there, or is neither classifier nor regression; two are of one task; nothing scores, or gives no
        probability; bands are missing; the classifier has no rule when to abstain, or needs a PSF that the layout does
        not state.
    """
    wanted, score = asked.config.substructure, asked.config.score
    if not wanted.models:
        return None
    finder = asked.giving("score")
    if finder is None or (wanted.above > 0 and "probability" not in finder.gives):
        raise ConfigError(
            "substructure is looked for in candidates above a probability, and no calibrated finder scores: fit one by "
            "`lenspipe calibrate`, or look at all candidates by --substructure-above 0",
            finder=finder.name if finder else None,
            above=wanted.above,
        )
    chosen = tuple(_chosen(name, asked) for name in wanted.models)
    tasks = [model.card.task for model in chosen]
    if len(set(tasks)) < len(tasks):
        raise ConfigError("one classifier and one regression of substructure at most", tasks=" ".join(tasks))
    return Substructure(chosen, wanted.above, dict(asked.layout.psf_fwhm_arcsec), score.batch_size)


def _chosen(name: str, asked: Asked) -> Checkpoint:
    model = Checkpoint.open(find_model(name))
    card, outputs = model.card, model.card.outputs
    known: Sequence[str] = ()
    has: tuple[str, ...] = ()
    if isinstance(outputs, Classify):
        known, has = SUBSTRUCTURE_CLASSES, outputs.classes
    elif isinstance(outputs, Regress):
        known, has = tuple(SUBSTRUCTURE_TARGETS), outputs.targets
    if not has or set(has) - set(known) or card.features or card.sees != "raw":
        raise ConfigError(
            "a model of substructure classifies or regresses stamps alone, into classes and quantities that candidates "
            f"have columns for: {' '.join(SUBSTRUCTURE_CLASSES)}; {' '.join(SUBSTRUCTURE_TARGETS)}",
            model=name,
            task=card.task,
            has=" ".join(has),
        )
    if missing := [band for band in card.bands if band not in asked.bands]:
        raise ConfigError(
            "the model of substructure needs bands that the tiles do not have; choose another --substructure",
            model=name,
            missing=" ".join(missing),
            tiles_have=" ".join(asked.bands),
        )
    if isinstance(outputs, Classify):
        if outputs.abstention is None:
            raise ConfigError(
                "the classifier has no rule when to abstain, and would guess on every candidate: fit one by "
                "`lenspipe calibrate MODEL --data STAMPS`",
                model=name,
            )
        stated = asked.layout.psf_fwhm_arcsec
        if unstated := [band for band in outputs.abstention.widest_psf_arcsec if band not in stated]:
            raise ConfigError(
                "the classifier abstains where the PSF is wider than in its training, and the survey's layout states "
                "none: add psf_fwhm_arcsec for these bands",
                model=name,
                bands=" ".join(unstated),
                survey=asked.layout.name,
            )
    return model
