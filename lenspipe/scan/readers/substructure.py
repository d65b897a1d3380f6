"""Dark matter in the candidates that look like lenses: its class or a stated silence, and its parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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
from lenspipe.schema import (
    SUBSTRUCTURE_CLASSES,
    SUBSTRUCTURE_TARGETS,
    error_column,
    fitted_fields,
    nothing,
    substructure_fields,
)

if TYPE_CHECKING:
    from lenspipe.infer.fitted import Fitted, LensFitter
    from lenspipe.infer.predict import Predictor
    from lenspipe.nn.card import ModelCard
    from lenspipe.nn.fitted import SmoothFit

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
    njy_per_electron: dict[str, float] = dataclasses.field(default_factory=dict)
    """For the noise of photons in fits; of a band without, that of the sky alone counts."""

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
        bands = tuple(dict.fromkeys(band for model in self.models for band in model.card.data_bands))
        sides = (_side_px(model.card, pixel_scale_arcsec) // 2 * 2 + 1 for model in self.models)
        return (CutoutKey(bands, max(sides)),)

    def fits(self, bands: tuple[str, ...], pixel_scale_arcsec: float) -> str | None:
        """As all cards say."""
        reasons = (fits(model.card, _with_made(model.card, bands), pixel_scale_arcsec) for model in self.models)
        return next((reason for reason in reasons if reason), None)

    @property
    def fitted(self) -> tuple[SmoothFit, ...]:
        """The fits that its models are shown, each once."""
        return tuple({m.card.fitted.how: m.card.fitted for m in self.models if m.card.fitted}.values())

    def fields(self) -> list[pa.Field]:
        """The columns of substructure, and those of the fits where there are any."""
        if not self.fitted:
            return substructure_fields()
        return [*substructure_fields(), *fitted_fields(self._noise_said())]

    def _noise_said(self) -> str:
        band = self.fitted[0].band
        return f"of sky and photons in {band}" if self.njy_per_electron.get(band) else f"of the sky alone in {band}"

    def note(self) -> str | None:
        """What fits assume."""
        if not self.fitted:
            return None
        band, photons = self.fitted[0].band, any(fit.njy_per_electron != 0 for fit in self.fitted)
        said = f"Smooth lenses are fitted to band {band} through a Gaussian PSF, with noise {self._noise_said()}"
        if photons and not self.njy_per_electron.get(band):
            said += (
                ", while those of the training had that of photons: bright lenses leave more than they should; say "
                f"--set survey.njy_per_electron.{band}=..."
            )
        if any(fit.priors.get("centre_x_arcsec", (0.0, 0.0))[1] == 0 for fit in self.fitted):
            said += (
                ". The training knew where lenses lie, and to fit that takes up part of what substructure does: fit "
                "its stamps with --prior centre_x_arcsec=0,WIDTH and centre_y_arcsec, too"
            )
        return f"{said}."

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
        """The models with their cards, and how noise entered their fits."""
        found: dict[str, Any] = {"substructure": [model.record() for model in self.models]}
        if self.fitted:
            found["smooth_fits"] = {
                "bands": [fit.band for fit in self.fitted],
                "njy_per_electron": {fit.band: self.njy_per_electron.get(fit.band) for fit in self.fitted},
                "noise": self._noise_said(),
            }
        return found

    def digests(self) -> dict[str, str]:
        """Of all models."""
        return {"substructure": self.digest}

    def load(self, device: str) -> Work:
        """Candidates to columns; those below ``above`` are not looked at."""
        from lenspipe.infer.predict import Predictor

        predictors = [Predictor(m.folder, device=device, batch_size=self.batch_size) for m in self.models]
        fitters = {_fit_key(p.card): _fitter(p.card) for p in predictors if p.card.fitted}

        def examine(candidates: Candidates) -> dict[str, Any]:
            n, rows = candidates.n, np.arange(candidates.n)
            if self.above > 0:
                rows = np.flatnonzero(candidates.said["probability"] >= self.above)
            if not len(rows):
                return {f.name: nothing(f, n) for f in self.fields()}
            (key,) = self.cutouts(candidates.pixel_scale_arcsec)
            cutouts = candidates.cutouts[key][rows]
            fits = {name: self._fits(fitter, cutouts, key.bands, candidates) for name, fitter in fitters.items()}
            some = self._examine(predictors, cutouts, key.bands, candidates.pixel_scale_arcsec, fits)
            place = np.full(n, -1)
            place[rows] = np.arange(len(rows))
            take = pa.array(place, mask=place < 0)
            said = {}
            for f in self.fields():
                looked_at = some[f.name].take(take) if f.name in some else nothing(f, n)
                said[f.name] = looked_at.fill_null("") if pa.types.is_string(f.type) else looked_at
            return said

        return examine

    def _fits(
        self, fitter: LensFitter, cutouts: NDArray[np.float32], bands: tuple[str, ...], candidates: Candidates
    ) -> Fitted | None:
        """The fits of some candidates; None where the PSF of their shard is not known, or is too wide."""
        from lenspipe.infer.fitted import without_pixel

        band, scale = fitter.fit.band, candidates.pixel_scale_arcsec
        fwhm, rms = candidates.psf_fwhm_arcsec.get(band), candidates.sky_rms_njy.get(band)
        if fwhm is None or not rms:
            return None
        try:
            return fitter(
                cutouts,
                bands=bands,
                pixel_scale_arcsec=scale,
                fwhm_arcsec=without_pixel(fwhm, scale),
                sky_rms_njy=rms,
                njy_per_electron=self.njy_per_electron.get(band, 0.0),
            )
        except ConfigError:  # the PSF of this shard is too wide for the stamps
            return None

    def _examine(
        self,
        predictors: list[Predictor],
        cutouts: NDArray[np.float32],
        bands: tuple[str, ...],
        scale: float,
        fits: Mapping[str, Fitted | None],
    ) -> dict[str, pa.Array]:
        columns: dict[str, pa.Array] = {}
        words: NDArray[np.object_] | None = None
        # the classifier first: what it sees decides which parameters are meant
        for predictor in sorted(predictors, key=lambda p: not isinstance(p.card.outputs, Classify)):
            card, outputs = predictor.card, predictor.card.outputs
            unfitted = None
            if card.fitted is None:
                shown = stamp_input(cutouts, bands=bands, pixel_scale_arcsec=scale, card=card)
            else:
                fit = fits[_fit_key(card)]
                if fit is None:
                    shown = np.zeros((len(cutouts), card.n_channel, card.stamp_px, card.stamp_px), np.float32)
                    unfitted = np.ones(len(cutouts), bool)
                else:
                    shown = stamp_input(
                        fit.stamps_njy, bands=fit.bands, pixel_scale_arcsec=fit.pixel_scale_arcsec, card=card
                    )
                    unfitted = card.fitted.failed(fit.chi2)
                    columns |= _fitted_columns(fit)
            found = predictor.predict(shown)
            if isinstance(outputs, Classify):
                mine = cutouts[:, [bands.index(band) for band in card.data_bands]]
                words, said = self._classes(outputs, found, mine, field_px(card, scale), scale, unfitted)
                columns |= said
            elif isinstance(outputs, Regress):
                columns |= _values(outputs, found, words, unfitted)
        return columns

    def _classes(
        self,
        outputs: Classify,
        found: Prediction,
        cutouts: NDArray[np.float32],
        field_px: int,
        scale: float,
        unfitted: NDArray[np.bool_] | None,
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
            unfitted=unfitted,
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


def _fit_key(card: ModelCard) -> str:
    """What models share that are shown one fit of the same bands."""
    assert card.fitted is not None
    return f"{card.fitted.how} {card.data_bands}"


def _fitter(card: ModelCard) -> LensFitter:
    from lenspipe.infer.fitted import LensFitter

    return LensFitter(card)


def _with_made(card: ModelCard, bands: tuple[str, ...]) -> tuple[str, ...]:
    """Bands of a tile, and the one that a fit makes of them."""
    return (*bands, *card.fitted.made) if card.fitted and card.fitted.band in bands else bands


def _side_px(card: ModelCard, pixel_scale_arcsec: float) -> int:
    """Side of the cutouts that a model needs, or the fits that it is shown, which look for the lens."""
    if card.fitted is None:
        return cutout_size_px(card, pixel_scale_arcsec)
    from lenspipe.infer.fitted import reach_px

    wide = card.model_copy(update={"stamp_px": max(card.stamp_px, card.fitted.size_px)})
    return cutout_size_px(wide, pixel_scale_arcsec) // 2 * 2 + 1 + 2 * reach_px(card.fitted, pixel_scale_arcsec)


def _fitted_columns(fit: Fitted) -> dict[str, pa.Array]:
    """Facts of smooth lenses; null where none was fitted."""
    missing = ~np.isfinite(fit.chi2)
    return {
        "fitted_theta_e_arcsec": pa.array(fit.value("theta_e_arcsec"), mask=missing),
        "fitted_chi2": pa.array(fit.chi2.astype(np.float32), mask=missing),
    }


def _values(
    outputs: Regress, found: Prediction, words: NDArray[np.object_] | None, unfitted: NDArray[np.bool_] | None
) -> dict[str, pa.Array]:
    """
    Estimates with their errors.

    Null where the classifier sees another kind of dark matter or abstains, or the network lacks a fit that it needs.
    """
    assert found.value is not None
    columns = {}
    for k, target in enumerate(outputs.targets):
        of = CLASS_OF.get(target.split("_")[0])
        missing = np.zeros(len(found.value), bool) if words is None or of is None else words != of
        if unfitted is not None:
            missing = missing | unfitted
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
    layout = asked.layout
    found = Substructure(
        chosen, wanted.above, dict(layout.psf_fwhm_arcsec), score.batch_size, dict(layout.njy_per_electron)
    )
    if len(found.fitted) > 1:
        raise ConfigError(
            "two models of substructure were shown different fits, and a candidate has columns for one: train both on "
            "stamps of one `lenspipe stamps fit`",
            models=found.name,
        )
    return found


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
    if missing := [band for band in card.data_bands if band not in asked.bands]:
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
