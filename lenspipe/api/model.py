"""A model in hand: score arrays and data sets, take its features, ask where in a stamp a score comes from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lenspipe.api.stamp import Stamp
from lenspipe.api.table import astropy_table
from lenspipe.errors import ConfigError, DataError
from lenspipe.nn.card import ModelCard, find_model
from lenspipe.nn.committee import Committee, committee_of, is_committee, open_committee
from lenspipe.nn.outputs import Find
from lenspipe.stamps.format import StampSet, image_array
from lenspipe.stats.calibrate import probability
from lenspipe.units import NANOJANSKY_ZERO_POINT_AB

if TYPE_CHECKING:
    from astropy.table import Table

    from lenspipe.infer.score import Scorer

Images = NDArray[np.floating] | StampSet | Stamp | Sequence[Stamp]
BATCH_BYTES = 16 << 20


class Model:
    """
    A finder, or a committee of finders, ready to score; `Model.load` opens one.

    Attributes
    ----------
    name : str
    digest : str
        Of its exact content.
    cards : tuple of ModelCard
        Of the network, or of a committee's members.
    """

    def __init__(self, scorers: Sequence[Scorer], committee: Committee | None) -> None:
        self._scorers, self._committee = tuple(scorers), committee
        self.cards = tuple(scorer.card for scorer in self._scorers)
        self.name = self.card.name if committee is None else committee.card.name
        self.digest = self._scorers[0].digest if committee is None else committee.digest

    @classmethod
    def load(cls, model: str | Path | Sequence[str | Path] = "ground-gri", *, device: str = "auto") -> Model:
        """
        Open a finder by the name of a shipped one or by its folder; several, or a committee's folder, as a committee.

        Raises
        ------
        ConfigError
            There is none, or it is not a finder.
        ModelError
            It is broken or unsafe.

        Examples
        --------
        >>> model = Model.load("ground-gri")
        >>> model.card.task, model.bands
        ('find', ('g', 'r', 'i'))
        """
        from lenspipe.infer.score import Scorer

        committee = None
        if not isinstance(model, str | Path):
            committee = committee_of(model)
        elif is_committee(model):
            committee = open_committee(model)
        folders = (find_model(model),) if committee is None else committee.folders  # type: ignore[arg-type]
        scorers = [Scorer(folder, device=device) for folder in folders]
        for scorer in scorers:
            if not isinstance(scorer.card.outputs, Find) or scorer.card.sees != "raw" or scorer.card.features:
                raise ConfigError(
                    "only finders of raw stamps score arrays; `lenspipe evaluate` judges the others",
                    model=scorer.card.name,
                    task=scorer.card.task,
                )
        if committee is not None:
            committee.calibrations()  # said before any work
        return cls(scorers, committee)

    @property
    def card(self) -> ModelCard:
        """The card of the network; of a committee the first member's."""
        return self.cards[0]

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands that it takes, all members together."""
        return tuple(dict.fromkeys(band for card in self.cards for band in card.bands))

    def score(
        self,
        images: Images,
        *,
        bands: Sequence[str] | None = None,
        pixel_scale_arcsec: float | None = None,
        zero_point_ab: float | None = None,
        prior: float | None = None,
        split: str | None = None,
    ) -> Table:
        """
        Score stamps.

        Parameters
        ----------
        images : array (n, band, y, x), (band, y, x), or (y, x) of one band; StampSet, Stamp or several
            Flux per pixel, sky subtracted, the source in the middle; what lies further out than a stamp of the model is
            not seen.
        bands : sequence of str, optional
            Names along the band axis of an array; the model's own where not given. More than it takes may be there.
        pixel_scale_arcsec : float, optional
            Of an array. Needed: a model trained on other pixels resamples them.
        zero_point_ab : float, optional
            AB magnitude of one unit of an array's pixels; 31.4 where not given: they are nJy.
        prior : float, optional
            Fraction of lenses among what is scored; gives ``probability``, where the model is calibrated.
        split : str, optional
            Only this split of a data set.

        Returns
        -------
        astropy Table
            ``stamp_id`` (the row's number for arrays), ``score``, ``score_NAME`` per member of a committee,
            ``probability``, and ``label`` where a data set has them. ``meta`` names the model and its digest.

        Raises
        ------
        DataError
            A pixel is not finite, or the stamps are too small.
        ModelError
            Bands or pixel scale do not fit.
        ConfigError
            The scale of an array is not given; a prior is, to a model without calibration; or a zero-point is, to
            stamps that are in nJy.
        """
        calibration = self._calibration()
        if prior is not None and calibration is None:
            raise ConfigError("a prior needs a calibrated model: `lenspipe calibrate`", model=self.name, prior=prior)
        parts = [
            (facts, [self._member_scores(k, pixels, names, scale) for k in range(len(self._scorers))])
            for facts, pixels, names, scale in _batches(
                images, bands or self.bands, pixel_scale_arcsec, zero_point_ab, split
            )
        ]
        if not parts:
            raise DataError("there is nothing to score", split=split)
        each = np.concatenate([np.stack(scores) for _, scores in parts], axis=1)
        table = astropy_table(pa.concat_tables([facts for facts, _ in parts]))
        table["score"] = self._together(each)
        if self._committee is not None:
            for name, scores in zip(self._committee.names, each, strict=True):
                table[f"score_{name}"] = scores
        if prior is not None and calibration is not None:
            table["probability"] = probability(table["score"], calibration, prior)
        table.meta |= {"model": self.name, "digest": self.digest}
        return table

    def features(
        self,
        images: Images,
        *,
        bands: Sequence[str] | None = None,
        pixel_scale_arcsec: float | None = None,
        zero_point_ab: float | None = None,
    ) -> NDArray[np.float32]:
        """What the network's trunk makes of stamps, ``(n, num_features)``; of a committee the first member's."""
        return np.concatenate(
            [
                self._scorers[0].features(self._prepared(0, pixels, names, scale))
                for _, pixels, names, scale in _batches(
                    images, bands or self.bands, pixel_scale_arcsec, zero_point_ab, None
                )
            ]
        )

    def explain(
        self,
        image: Stamp | NDArray[np.floating],
        *,
        bands: Sequence[str] | None = None,
        pixel_scale_arcsec: float | None = None,
        zero_point_ab: float | None = None,
        patch_px: int = 7,
        step_px: int = 3,
    ) -> NDArray[np.float64]:
        """
        Where a score comes from: by how much the logit falls when a patch is replaced by empty sky.

        Occlusion (Zeiler & Fergus 2014, ECCV, section 4.2). Positive: what is there speaks for a lens. It says what the
        network looks at, not that it is right.

        Parameters
        ----------
        image : Stamp or array (band, y, x)
        bands, pixel_scale_arcsec, zero_point_ab
            Of an array, as in `score`.
        patch_px, step_px : int
            Side of a patch, and distance between patches.

        Returns
        -------
        array (y, x)
            Mean over the patches that cover a pixel, in units of the logit.
        """
        single = _pixels_of(image)
        if single.ndim != 3 or patch_px < 1 or step_px < 1:
            raise DataError("one stamp (band, y, x) is explained", got=str(single.shape))
        if isinstance(image, Stamp):
            bands, pixel_scale_arcsec = image.bands, image.pixel_scale_arcsec
        side = single.shape[-1]
        starts = sorted({*range(0, max(1, side - patch_px + 1), step_px), max(0, side - patch_px)})
        corners = [(y, x) for y in starts for x in starts]
        covered = np.repeat(single[None], 1 + len(corners), axis=0).astype(np.float32)
        for row, (y, x) in zip(covered[1:], corners, strict=True):
            row[:, y : y + patch_px, x : x + patch_px] = 0
        given = {"bands": bands, "pixel_scale_arcsec": pixel_scale_arcsec, "zero_point_ab": zero_point_ab}
        scores = np.asarray(self.score(covered, **given)["score"])  # type: ignore[arg-type]
        tiny = np.finfo(np.float64).tiny
        logit = np.log(np.maximum(scores, tiny)) - np.log(np.maximum(1 - scores, np.finfo(np.float64).eps))
        total, times = np.zeros((side, side)), np.zeros((side, side))
        for fall, (y, x) in zip(logit[0] - logit[1:], corners, strict=True):
            total[y : y + patch_px, x : x + patch_px] += fall
            times[y : y + patch_px, x : x + patch_px] += 1
        there: NDArray[np.float64] = total / np.maximum(times, 1)
        return there

    def __repr__(self) -> str:
        scales = ", ".join(f'{card.pixel_scale_arcsec:g}"' for card in self.cards)
        return f"Model({self.name}: {' '.join(self.bands)}, trained on pixels of {scales}, digest {self.digest})"

    def _calibration(self) -> Any:
        if self._committee is not None:
            return self._committee.card.calibration
        outputs = self.card.outputs
        assert isinstance(outputs, Find)
        return outputs.calibration

    def _prepared(self, k: int, pixels: NDArray[np.float32], names: Sequence[str], scale: float) -> Any:
        from lenspipe.infer.stamps import stamp_input

        return stamp_input(pixels, bands=names, pixel_scale_arcsec=scale, card=self.cards[k])

    def _member_scores(
        self, k: int, pixels: NDArray[np.float32], names: Sequence[str], scale: float
    ) -> NDArray[np.float64]:
        return self._scorers[k].score_prepared(self._prepared(k, pixels, names, scale))

    def _together(self, each: NDArray[np.float64]) -> NDArray[np.float64]:
        from lenspipe.infer.committee import committee_score

        if self._committee is None:
            return each[0]
        return committee_score(each, self._committee.calibrations(), self._committee.weights)


def score(
    images: Images,
    model: str | Path | Sequence[str | Path] | Model = "ground-gri",
    *,
    bands: Sequence[str] | None = None,
    pixel_scale_arcsec: float | None = None,
    zero_point_ab: float | None = None,
    prior: float | None = None,
    split: str | None = None,
) -> Table:
    """
    Score stamps with a model by name, folder or as loaded; see `Model.score`.

    Examples
    --------
    >>> from lenspipe.api import simulate_lens
    >>> lens, lone = simulate_lens(theta_e_arcsec=1.6), simulate_lens(theta_e_arcsec=1.6, source_mag=32.0)
    >>> scores = score([lens, lone], "ground-gri")["score"]
    >>> bool(scores[0] > 0.9 > scores[1])
    True
    """
    loaded = model if isinstance(model, Model) else Model.load(model)
    return loaded.score(
        images,
        bands=bands,
        pixel_scale_arcsec=pixel_scale_arcsec,
        zero_point_ab=zero_point_ab,
        prior=prior,
        split=split,
    )


def _kind(stamp: Stamp) -> tuple[tuple[str, ...], float, tuple[int, ...]]:
    """What stamps of one batch share."""
    return stamp.bands, stamp.pixel_scale_arcsec, stamp.pixels_njy.shape


def _pixels_of(image: Stamp | NDArray[np.floating]) -> NDArray[np.float32]:
    return image.pixels_njy if isinstance(image, Stamp) else np.asarray(image, np.float32)


def _batches(
    images: Images, bands: Sequence[str], scale: float | None, zero_point_ab: float | None, split: str | None
) -> Iterator[tuple[pa.Table, NDArray[np.float32], tuple[str, ...], float]]:
    """Facts, pixels ``(n, band, y, x)`` in nJy, bands and pixel scale, some at a time."""
    if isinstance(images, Sequence) and any(not isinstance(one, Stamp) for one in images):
        raise DataError("give an array (n, band, y, x), a StampSet, or Stamps", got=type(images[0]).__name__)
    if zero_point_ab is not None and isinstance(images, StampSet | Stamp | Sequence):
        raise ConfigError("zero_point_ab is about arrays; stamps are in nJy", zero_point_ab=zero_point_ab)
    if isinstance(images, StampSet):
        yield from _of_set(images, bands, split)
        return
    if isinstance(images, Stamp):
        images = [images]
    if isinstance(images, Sequence):
        begun = 0
        for (names, each_scale, _), group in itertools.groupby(images, key=_kind):
            some = np.stack([one.pixels_njy for one in group])
            yield _numbered(begun, len(some)), some, names, each_scale
            begun += len(some)
        return
    pixels = np.asarray(images, np.float32)
    if pixels.ndim == 2 and len(bands) == 1:
        pixels = pixels[None]
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if scale is None:
        raise ConfigError("say how large the pixels of the array are: pixel_scale_arcsec=...")
    if pixels.ndim != 4 or pixels.shape[1] != len(bands):
        raise DataError("an array is (n, band, y, x), one name per band", got=str(pixels.shape), bands=" ".join(bands))
    unit_njy = _njy_per_unit(zero_point_ab)
    step = max(32, BATCH_BYTES // max(1, pixels[:1].nbytes))
    for begun in range(0, len(pixels), step):
        some = pixels[begun : begun + step] * unit_njy
        yield _numbered(begun, len(some)), some, tuple(bands), scale


def _njy_per_unit(zero_point_ab: float | None) -> np.float32:
    if zero_point_ab is None:
        return np.float32(1)
    magnitude = np.asarray(zero_point_ab, np.float64)
    if magnitude.ndim or not np.isfinite(magnitude):
        raise ConfigError(
            "zero_point_ab is one number, in AB magnitudes; where bands differ, scale them first",
            zero_point_ab=str(zero_point_ab),
        )
    return np.float32(10 ** (0.4 * (NANOJANSKY_ZERO_POINT_AB - float(magnitude))))


def _of_set(
    stamps: StampSet, bands: Sequence[str], split: str | None
) -> Iterator[tuple[pa.Table, NDArray[np.float32], tuple[str, ...], float]]:
    name = next((name for name, spec in stamps.images.items() if set(bands) <= set(spec.bands)), None)
    if name is None:
        found = "; ".join(f"{name}: {' '.join(spec.bands)}" for name, spec in stamps.images.items())
        raise DataError("no image of the data set has the model's bands", want=" ".join(bands), found=found)
    spec = stamps.images[name]
    size = max(32, stamps.rows_within(BATCH_BYTES))
    for table in stamps.iter_batches(["stamp_id", "label", name], batch_size=size, split=split):
        yield table.drop_columns([name]), image_array(table, name), tuple(spec.bands), spec.pixel_scale_arcsec


def _numbered(begun: int, n: int) -> pa.Table:
    return pa.table({"stamp_id": pa.array([str(k) for k in range(begun, begun + n)])})
