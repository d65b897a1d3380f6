"""Dark matter in the candidates that look like lenses: its class or a stated silence, and its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.errors import ConfigError, TileError
from lenspipe.infer.abstain import light_facts, reasons_to_abstain
from lenspipe.infer.prepare import field_px
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import ModelCard, digest, find_model, fits, read_card
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.context import ChosenModel, ScanContext, substructure_bands, substructure_side_px
from lenspipe.schema import SUBSTRUCTURE_CLASSES, SUBSTRUCTURE_TARGETS, error_column, nothing, substructure_fields
from lenspipe.survey.layout import SurveyLayout
from lenspipe.survey.read import read_facts
from lenspipe.survey.tile import BadTile, Tile

if TYPE_CHECKING:
    from lenspipe.infer.predict import Predictor
from lenspipe.nn.outputs import Prediction

ABSTAINED = "abstained"
CLASS_OF = {"subhalo": "subhalo", "vortex": "vortex", "axion": "vortex"}
"""Class whose substructure a target describes, by the target's first word; other targets describe every lens."""


def choose_substructure(
    config: ScanConfig, bands: tuple[str, ...], layout: SurveyLayout, finder: ChosenModel | None, *, calibrated: bool
) -> tuple[ChosenModel, ...]:
    """
    The classifier and the regression of substructure that a scan is asked for.

    Raises
    ------
    ConfigError
        A model is not there, or is neither; two are of one task; no finder scores, or it gives no probability; bands
        are missing; the classifier has no rule when to abstain, or needs a PSF that the layout does not state.
    """
    asked = config.substructure
    if not asked.models:
        return ()
    if finder is None or (asked.above > 0 and not calibrated):
        raise ConfigError(
            "substructure is looked for in candidates above a probability, and no calibrated finder scores: fit one by "
            "`lenspipe calibrate`, or look at all candidates by --substructure-above 0",
            finder=finder.card.name if finder else None,
            above=asked.above,
        )
    chosen = tuple(_chosen(name, bands, layout) for name in asked.models)
    tasks = [model.card.task for model in chosen]
    if len(set(tasks)) < len(tasks):
        raise ConfigError("one classifier and one regression of substructure at most", tasks=" ".join(tasks))
    return chosen


def _chosen(name: str, bands: tuple[str, ...], layout: SurveyLayout) -> ChosenModel:
    folder = find_model(name)
    card = read_card(folder)
    known: Sequence[str] = SUBSTRUCTURE_CLASSES if card.task == "classify" else tuple(SUBSTRUCTURE_TARGETS)
    has = card.classes if card.task == "classify" else card.targets
    if card.task not in ("classify", "regress") or set(has) - set(known) or card.features or card.sees != "raw":
        raise ConfigError(
            "a model of substructure classifies or regresses stamps alone, into classes and quantities that candidates "
            f"have columns for: {' '.join(SUBSTRUCTURE_CLASSES)}; {' '.join(SUBSTRUCTURE_TARGETS)}",
            model=name,
            task=card.task,
            has=" ".join(has),
        )
    if missing := [band for band in card.bands if band not in bands]:
        raise ConfigError(
            "the model of substructure needs bands that the tiles do not have; choose another --substructure",
            model=name,
            missing=" ".join(missing),
            tiles_have=" ".join(bands),
        )
    if card.task == "classify":
        if card.abstention is None:
            raise ConfigError(
                "the classifier has no rule when to abstain, and would guess on every candidate: fit one by "
                "`lenspipe calibrate MODEL --data STAMPS`",
                model=name,
            )
        if unstated := [band for band in card.abstention.widest_psf_arcsec if band not in layout.psf_fwhm_arcsec]:
            raise ConfigError(
                "the classifier abstains where the PSF is wider than in its training, and the survey's layout states "
                "none: add psf_fwhm_arcsec for these bands",
                model=name,
                bands=" ".join(unstated),
                survey=layout.name,
            )
    return ChosenModel(folder, digest(folder), card)


def check_scale(
    chosen: tuple[ChosenModel, ...], tiles: Sequence[Tile | BadTile], config: ScanConfig, layout: SurveyLayout
) -> None:
    """
    Compare the models with the first tile that can be opened; of the others, those that do not fit stay null.

    Raises
    ------
    ConfigError
        The pixel scale does not fit a model, or its cutouts reach beyond the halo.
    """
    for tile in tiles if chosen else ():
        try:
            if isinstance(tile, BadTile):
                continue
            scale = read_facts(tile, layout, assumed_zero_point_ab=config.zero_point_ab).pixel_scale_arcsec
        except TileError:
            continue
        names = tuple(band.band for band in tile.bands)
        for model in chosen:
            if reason := fits(model.card, names, scale):
                raise ConfigError(f"the model of substructure does not fit the tiles: {reason}", tile=tile.name)
        if (size_px := substructure_side_px(chosen, scale)) > 2 * config.shard.halo_px:
            raise ConfigError(
                "the stamps of the model of substructure are wider than the halo of the shards: raise shard.halo_px",
                stamp_px=size_px,
                halo_px=config.shard.halo_px,
                at_least=size_px // 2 + 1,
            )
        return


class ExamineSubstructure:
    """Cutouts of candidates to columns; models are loaded at the first call."""

    def __init__(self, settings: ScanContext) -> None:
        self._settings = settings
        self._bands = substructure_bands(settings.substructure)
        self._predictors: list[Predictor] = []

    def __call__(
        self, cutouts_njy: NDArray[np.float32] | None, scale_arcsec: float, stated: NDArray[np.float64], n: int
    ) -> dict[str, pa.Array]:
        """
        Columns of `substructure_fields` for a shard's candidates.

        Parameters
        ----------
        cutouts_njy : array (n, band, y, x) or None
            In the order of `substructure_bands`; None where the models do not fit the tile.
        scale_arcsec : float
        stated : array (n,)
            Probability of each candidate to be a lens, or 1 where all are looked at.
        n : int
            Candidates.
        """
        rows = np.flatnonzero(stated >= self._settings.config.substructure.above)
        if cutouts_njy is None or not len(rows):
            return {f.name: nothing(f, n) for f in substructure_fields()}
        some = self._examine(cutouts_njy[rows], scale_arcsec)
        place = np.full(n, -1)
        place[rows] = np.arange(len(rows))
        take = pa.array(place, mask=place < 0)
        found = {}
        for f in substructure_fields():
            looked_at = some[f.name].take(take) if f.name in some else nothing(f, n)
            found[f.name] = looked_at.fill_null("") if pa.types.is_string(f.type) else looked_at
        return found

    def _examine(self, cutouts: NDArray[np.float32], scale: float) -> dict[str, pa.Array]:
        said = {p.card.task: (p.card, p.predict(self._input(p.card, cutouts, scale))) for p in self._loaded()}
        columns: dict[str, pa.Array] = {}
        words: NDArray[np.object_] | None = None
        if "classify" in said:
            card, found = said["classify"]
            words, columns = self._classes(card, found, cutouts, scale)
        if "regress" in said:
            card, found = said["regress"]
            columns |= _values(card, found, words)
        return columns

    def _classes(
        self, card: ModelCard, found: Prediction, cutouts: NDArray[np.float32], scale: float
    ) -> tuple[NDArray[np.object_], dict[str, pa.Array]]:
        assert found.probability is not None and card.abstention is not None
        rows = [self._bands.index(band) for band in card.bands]
        snr, radius, covered = light_facts(cutouts[:, rows], field_px=field_px(card, scale), pixel_scale_arcsec=scale)
        reason = reasons_to_abstain(
            card.abstention,
            snr=snr,
            radius_arcsec=radius,
            covered=covered,
            confidence=found.probability.max(axis=1),
            psf_fwhm_arcsec=self._settings.layout.psf_fwhm_arcsec,
        )
        words = np.array(card.classes, object)[found.probability.argmax(axis=1)]
        words[reason != ""] = ABSTAINED
        # a network that should not have been asked gives numbers too: only those of a doubtful answer are shown
        shown = (reason == "") | (reason == "confidence")
        columns = {
            "substructure_class": pa.array(words, pa.string()),
            "substructure_reason": pa.array(reason, pa.string()),
        }
        for k, name in enumerate(card.classes):
            columns[f"probability_{name}"] = pa.array(found.probability[:, k].astype(np.float32), mask=~shown)
        return words, columns

    def _input(self, card: ModelCard, cutouts: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
        return stamp_input(cutouts, bands=self._bands, pixel_scale_arcsec=scale, card=card)

    def _loaded(self) -> list[Predictor]:
        if not self._predictors:
            from lenspipe.infer.predict import Predictor

            score = self._settings.config.score
            self._predictors = [
                Predictor(model.folder, device=score.device, batch_size=score.batch_size)
                for model in self._settings.substructure
            ]
        return self._predictors


def _values(card: ModelCard, found: Prediction, words: NDArray[np.object_] | None) -> dict[str, pa.Array]:
    """Estimates with their errors; null where the classifier sees another kind of dark matter, or abstains."""
    assert found.value is not None
    columns = {}
    for k, target in enumerate(card.targets):
        of = CLASS_OF.get(target.split("_")[0])
        missing = np.zeros(len(found.value), bool) if words is None or of is None else words != of
        columns[target] = pa.array(found.value[:, k].astype(np.float32), mask=missing)
        if found.sigma is not None:
            columns[error_column(target)] = pa.array(found.sigma[:, k].astype(np.float32), mask=missing)
    return columns
