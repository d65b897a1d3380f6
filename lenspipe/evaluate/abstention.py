"""Fit and measure when a classifier of substructure abstains: light too faint or too small, PSF too wide, or doubt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.errors import DataError
from lenspipe.evaluate.stream import Member, Pixels, count_rows, iter_stamps, numbers, words
from lenspipe.infer.abstain import REASONS, light_facts, reasons_to_abstain
from lenspipe.infer.predict import Predictor
from lenspipe.infer.prepare import field_px
from lenspipe.nn.card import ModelCard
from lenspipe.nn.fitted import CHI2
from lenspipe.nn.outputs import Abstention, Classify
from lenspipe.stamps.format import StampSet
from lenspipe.stats.intervals import fraction
from lenspipe.stats.selective import confidence_for, hopeless_below

PSF_SLACK = 1.05
"""The widest PSF of the training, and a little: seeing is not stated more exactly."""
LEAST_STAMPS = 60
Array = NDArray[np.float64]
ClassifyMember = Member[Classify, Predictor]


@dataclass(frozen=True)
class Facts:
    """What is known of some stamps: their light, the classifier's confidence, and whether it was right."""

    snr: Array
    radius_arcsec: Array
    covered: Array
    confidence: Array
    right: NDArray[np.bool_]
    psf_fwhm_arcsec: dict[str, Array]
    unfitted: NDArray[np.bool_]
    """Which have no smooth lens fitted like those of the training; none where the model is shown no fits."""

    def reasons(self, rule: Abstention) -> NDArray[np.object_]:
        """Why each stamp is left without a class; empty where it is not."""
        return reasons_to_abstain(
            rule,
            snr=self.snr,
            radius_arcsec=self.radius_arcsec,
            covered=self.covered,
            confidence=self.confidence,
            psf_fwhm_arcsec=self.psf_fwhm_arcsec,
            unfitted=self.unfitted,
        )


def columns_of(stamps: StampSet, card: ModelCard) -> list[str]:
    """Columns that `facts_of` looks at, as far as a data set has them."""
    fitted = [CHI2] if card.fitted is not None and CHI2 in stamps.schema.names else []
    return [*psf_columns(stamps, card.data_bands).values(), *fitted]


def psf_columns(stamps: StampSet, bands: tuple[str, ...]) -> dict[str, str]:
    """Columns of a data set that hold the FWHM of the PSF, by band."""
    return {band: name for band in bands if (name := f"seeing_{band}_arcsec") in stamps.schema.names}


def facts_of(
    member: ClassifyMember,
    stamps: StampSet,
    table: pa.Table,
    pixels: Pixels,
    probability: Array,
    right: NDArray[np.bool_],
) -> Facts:
    """Facts of a batch of stamps, as a scan would know them."""
    spec, card = stamps.images[member.image], member.card
    rows = [spec.bands.index(band) for band in card.data_bands]
    field = field_px(card, spec.pixel_scale_arcsec)
    light = light_facts(pixels[:, rows], field_px=field, pixel_scale_arcsec=spec.pixel_scale_arcsec)
    psf = {band: numbers(table, name) for band, name in psf_columns(stamps, card.data_bands).items()}
    unfitted = np.zeros(len(right), bool)
    if card.fitted is not None and CHI2 in table.column_names:
        unfitted = card.fitted.failed(numbers(table, CHI2))
    return Facts(*light, probability.max(axis=1), right, psf, unfitted)


def collect(
    member: ClassifyMember,
    stamps: StampSet,
    *,
    split: str | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Facts:
    """
    Facts of all labelled stamps of a split: some numbers a stamp, whatever its size.

    Raises
    ------
    DataError
        The split is empty, or a label is none of the classes.
    """
    card, classes = member.card, member.outputs.classes
    done, total = 0, count_rows(stamps, split)
    found: list[Facts] = []
    columns = [*card.features, *columns_of(stamps, card)]
    for table, pixels in iter_stamps(stamps, [member.image], columns, split=split):
        labels = words(table, "label")
        demand_known(labels, classes)
        p = member.predict(table, member.prepared(stamps, pixels)).probability
        assert p is not None
        right = np.array(classes, object)[p.argmax(axis=1)] == labels
        found.append(facts_of(member, stamps, table, pixels[member.image], p, right))
        done += table.num_rows
        progress(done, total)
    return joined(found)


def demand_known(labels: NDArray[np.object_], classes: tuple[str, ...]) -> None:
    """Raise `DataError` where a label ``(n,)`` is none of a classifier's classes."""
    if unknown := sorted(set(labels) - set(classes)):
        raise DataError("a label is none of the model's classes", label=unknown[0], classes=",".join(classes))


def joined(parts: Sequence[Facts]) -> Facts:
    """Facts of several batches as those of one."""
    return Facts(
        np.concatenate([facts.snr for facts in parts]),
        np.concatenate([facts.radius_arcsec for facts in parts]),
        np.concatenate([facts.covered for facts in parts]),
        np.concatenate([facts.confidence for facts in parts]),
        np.concatenate([facts.right for facts in parts]),
        {band: np.concatenate([f.psf_fwhm_arcsec[band] for f in parts]) for band in parts[0].psf_fwhm_arcsec},
        np.concatenate([facts.unfitted for facts in parts]),
    )


def fit_abstention(
    facts: Facts, *, n_class: int, accuracy: float, data: str, widest_psf: dict[str, float]
) -> Abstention:
    """
    The rule of a classifier from stamps that it was not trained on.

    Limits of S/N and radius are where it is no better than chance (`hopeless_below`), the PSF's is the widest of its
    training; of what passes these, the confidence is the lowest that gives the accuracy that is asked (Chow 1970
    abstains below a stated probability too, but takes it at its word; a network's is fitted here instead).

    Raises
    ------
    DataError
        There are too few stamps whose light can be measured.
    """
    known = np.isfinite(facts.snr) & np.isfinite(facts.radius_arcsec)
    if known.sum() < LEAST_STAMPS:
        raise DataError("too few stamps to fit a rule of abstention on", n=int(known.sum()), least=LEAST_STAMPS)
    right = facts.right[known]
    snr, radius = facts.snr[known], facts.radius_arcsec[known]
    rule = Abstention(
        least_snr=round(hopeless_below(snr, right, 1 / n_class), 3),
        least_radius_arcsec=round(hopeless_below(radius, right, 1 / n_class), 4),
        widest_psf_arcsec=widest_psf,
        least_confidence=0.0,
        accuracy=accuracy,
        n=len(facts.right),
        data=data,
    )
    passes = facts.reasons(rule) == ""
    chosen = confidence_for(facts.confidence[passes], facts.right[passes], accuracy)
    return rule.model_copy(update={"least_confidence": chosen})


def cost_of(facts: Facts, rule: Abstention) -> dict[str, Any]:
    """What a rule costs on some stamps: part kept, accuracy of those and of all, and how often for which reason."""
    reason = facts.reasons(rule)
    kept = reason == ""
    n = len(reason)
    return {
        "n": n,
        "kept": fraction(int(kept.sum()), n),
        "accuracy_kept": fraction(int(facts.right[kept].sum()), int(kept.sum())),
        "accuracy_all": fraction(int(facts.right.sum()), n),
        "reasons": {name: int((reason == name).sum()) for name in REASONS},
    }


def widest_psf_of(stamps: StampSet, bands: tuple[str, ...]) -> dict[str, float]:
    """Widest PSF of the training split by band, with 5 % of slack; bands whose PSF is not known are left out."""
    columns = psf_columns(stamps, bands)
    widest: dict[str, float] = {}
    for table in stamps.iter_batches(["split", *columns.values()], batch_size=1 << 16):
        rows = table.filter(pc.equal(table["split"], "train"))
        for band, name in columns.items():
            most = pc.max(rows[name]).as_py()
            if most is not None:
                widest[band] = max(widest.get(band, 0.0), most * PSF_SLACK)
    return {band: float(f"{value:.5g}") for band, value in widest.items()}
