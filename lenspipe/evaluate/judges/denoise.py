"""Denoisers: how near they come to a deep image from a short one, against the short one as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import ndimage

from lenspipe.errors import ConfigError, DataError
from lenspipe.evaluate.judges.contract import Array, Judge, JudgeSettings, Metrics, Printed, fields
from lenspipe.evaluate.stream import Member, Pixels, fitting_image, words
from lenspipe.infer.denoise import Denoiser
from lenspipe.learn.denoise.colour import noise_correlation
from lenspipe.learn.denoise.pairs import noisier_image
from lenspipe.nn.card import ModelCard
from lenspipe.nn.outputs import Denoise
from lenspipe.report import plots
from lenspipe.report.page import Section, number, with_interval
from lenspipe.stamps.format import StampSet
from lenspipe.stats.denoising import PSNR_RANGE_SIGMA, PixelErrors, RatioSums, noise_of

RATIO = 4.0
"""Exposure time of the deep stamps over that of the short ones, where all models are trained for it."""
EDGES_SNR = (1.0, 3.0, 10.0, 30.0)
"""Edges between bins of the signal-to-noise of a pixel of the short exposure."""
SMOOTH_PX = 1.0
"""Smoothing of the deep stamp by which pixels are binned: its own noise must not choose the bin."""
LEAST_COVERED = 0.5
"""Part of a stamp that must hold data for its noise to be measured."""
N_CORRELATION, N_EXAMPLE = 100, 4
Image = NDArray[np.float32]


@dataclass
class Errors:
    """What is counted about a denoiser, or about the short exposures as they are."""

    by_snr: list[PixelErrors] = field(default_factory=lambda: [PixelErrors()] * (len(EDGES_SNR) + 1))
    l1_over_input: RatioSums = field(default_factory=RatioSums)
    huber_over_input: RatioSums = field(default_factory=RatioSums)
    examples: list[Image] = field(default_factory=list)


@dataclass(frozen=True)
class Pairs:
    """Short and deep exposures ``(n, band, y, x)`` in units of the short one's noise, and which pixels hold data."""

    short: Image
    deep: Image
    good: NDArray[np.bool_]
    place: NDArray[np.intp]
    """Bin of each pixel; the last plus one where it is left out."""

    def errors(self, images: Image, gain: float) -> tuple[list[PixelErrors], Array, Array]:
        """Errors over ``gain``: sums by bin, and the mean absolute and Huber error of each stamp ``(n,)``."""
        error = (images - self.deep) / gain
        sums = [PixelErrors.of(error[self.place == k]) for k in range(len(EDGES_SNR) + 1)]
        of_stamp = [PixelErrors.of(e[g]).metrics() for e, g in zip(error, self.good, strict=True)]
        l1, huber = (np.array([m[key] for m in of_stamp], np.float64) for key in ("l1", "huber"))
        return sums, l1, huber


class DenoiseJudge(Judge[Denoise, Denoiser]):
    """
    Each stamp is the deep exposure; it is made noisier, as in training on stamps, and the denoiser sees that.

    The noise has the correlation of the stamps' own and comes from the stamp's name, so it does not depend on the
    batches. Errors are in units of the short exposure's sky noise, over ``1 - 1 / ratio`` as in the training's losses
    (`lenspipe.learn.denoise.losses`). Photon noise of the sources is not added: stamps do not say their gain.
    """

    audited = False
    only_by_model = ("by_snr",)

    def __init__(self, members: Sequence[Member[Denoise, Denoiser]], stamps: StampSet, settings: JudgeSettings) -> None:
        super().__init__(members, stamps, settings)
        low, high = self._ratios()
        self.ratio = min(max(RATIO, low), high)
        self.input, self.entries = Errors(), {member.name: Errors() for member in members}
        self._deep: list[Image] = []
        self._correlation: Array | None = None
        self._n, self._n_left_out = 0, 0

    @classmethod
    def load(cls, folder: Path, *, device: str, batch_size: int | None, threads: int) -> Denoiser:
        """A checkpoint ready to run; its batches are of a fixed size."""
        return Denoiser(folder, device=device, threads=threads)

    @classmethod
    def image_of(cls, card: ModelCard, stamps: StampSet) -> str:
        """The first image column with its bands and a pixel scale that it takes; the side does not matter."""
        return fitting_image(card, stamps)

    def check(self) -> None:
        """Raise `ConfigError` where the models take different pixels or have no exposure ratio in common."""
        super().check()
        seen = {(member.card.bands, member.image) for member in self.members}
        if len(seen) > 1:
            raise ConfigError("the models have different bands, or in another order; evaluate them apart")
        low, high = self._ratios()
        if low > high:
            raise ConfigError("no exposure ratio is in the training of all models; evaluate them apart")

    def _ratios(self) -> tuple[float, float]:
        ranges = [member.outputs.exposure_ratios for member in self.members]
        return max(low for low, _ in ranges), min(high for _, high in ranges)

    def count(self, table: pa.Table, pixels: dict[str, Pixels]) -> Iterator[pa.Table]:
        """Denoise shorter exposures of a batch; rows of the errors of each stamp."""
        first = self.members[0]
        spec = self.stamps.images[first.image]
        deep = pixels[first.image][:, first.predictor.order(spec.bands, spec.pixel_scale_arcsec)]
        usable = (deep != 0).mean(axis=(2, 3)).min(axis=1) >= LEAST_COVERED
        self._n_left_out += int((~usable).sum())
        if not usable.any():
            return
        deep, names = deep[usable], words(table, "stamp_id")[usable]
        self._n += len(deep)
        pairs = self._pairs(deep, names)
        gain = 1 - 1 / self.ratio
        _, l1_of_input, huber_of_input = before = pairs.errors(pairs.short, gain)
        self.input.by_snr = _sum(self.input.by_snr, before[0])
        if not self._deep:
            self._deep.append(pairs.deep[:N_EXAMPLE])
            self.input.examples.append(pairs.short[:N_EXAMPLE])
        for member in self.members:
            # in units of the noise already, so the noise is told as 1
            done = member.predictor.denoise(pairs.short, np.float32(1), ratio=self.ratio, mask=~pairs.good)
            sums, l1, huber = pairs.errors(done, gain)
            entry = self.entries[member.name]
            entry.by_snr = _sum(entry.by_snr, sums)
            entry.l1_over_input = entry.l1_over_input + RatioSums.of(l1, l1_of_input)
            entry.huber_over_input = entry.huber_over_input + RatioSums.of(huber, huber_of_input)
            if not entry.examples:
                entry.examples.append(done[:N_EXAMPLE])
            yield pa.table(
                {
                    "model": pa.array([member.name] * len(deep), pa.string()),
                    "stamp_id": pa.array(names, pa.string()),
                    "l1": l1,
                    "l1_of_input": l1_of_input,
                    "huber": huber,
                    "huber_of_input": huber_of_input,
                }
            )

    def _pairs(self, deep_njy: Image, names: NDArray[np.object_]) -> Pairs:
        rms = noise_of(deep_njy)
        if self._correlation is None:
            some = slice(0, N_CORRELATION)
            self._correlation = noise_correlation(list(deep_njy[some]), [one.ravel() for one in rms[some]])
        scale = rms * np.sqrt(self.ratio)
        short = np.stack(
            [
                noisier_image(
                    image,
                    sky_rms_njy=sigma.ravel(),
                    njy_per_electron=None,
                    ratio=self.ratio,
                    rng=_generator(str(name)),
                    correlation=self._correlation,
                )
                for image, sigma, name in zip(deep_njy, rms, names, strict=True)
            ]
        )
        good = deep_njy != 0
        deep = (deep_njy / scale).astype(np.float32)
        seen = ndimage.gaussian_filter(deep, (0, 0, SMOOTH_PX, SMOOTH_PX))
        place = np.where(good, np.searchsorted(EDGES_SNR, seen, side="right"), len(EDGES_SNR) + 1)
        return Pairs(np.where(good, short / scale, 0).astype(np.float32), deep, good, place)

    def metrics(self) -> dict[str, Metrics]:
        """
        Errors of each model and of the short exposures, all pixels together and by their signal-to-noise.

        Raises
        ------
        DataError
            No stamp holds data in half of its pixels.
        """
        if not self._n:
            raise DataError("no stamp holds data in half of its pixels: there is no noise to measure", n=self._n)
        return {name: self._metrics(entry) for name, entry in self.entries.items()}

    def _metrics(self, entry: Errors) -> Metrics:
        gain = 1 - 1 / self.ratio
        found: Metrics = {"n": self._n, "n_left_out": self._n_left_out, "ratio": self.ratio}
        after, before = (_whole(errors.by_snr, gain) for errors in (entry, self.input))
        for key in ("l1", "huber", "psnr_db"):
            found |= {key: after[key], f"{key}_of_input": before[key]}
        found |= {"gain_db": after["psnr_db"] - before["psnr_db"], "bias_sigma": after["bias"] * gain}
        found |= {"l1_over_input": entry.l1_over_input.metrics(), "huber_over_input": entry.huber_over_input.metrics()}
        bins = zip((None, *EDGES_SNR), (*EDGES_SNR, None), entry.by_snr, self.input.by_snr, strict=True)
        return found | {"by_snr": [_bin(low, high, a, b, gain) for low, high, a, b in bins]}

    def sections(self, metrics: Mapping[str, Metrics]) -> list[Section]:
        """All pixels, then pixels by how bright they are, then the first stamps."""
        first = next(iter(metrics.values()))
        return [self._all_pixels(metrics), *self._by_snr(metrics, first), self._first_stamps()]

    def _all_pixels(self, metrics: Mapping[str, Metrics]) -> Section:
        first = next(iter(metrics.values()))
        text = (
            f"{first['n']} stamps as the deep exposure; the models see {1 / self.ratio:.3g} of its exposure time. "
            f"Errors are in units of the sky noise of that, over 1 - 1 / {self.ratio:g}. PSNR is of a range of "
            f"{PSNR_RANGE_SIGMA:g} sigma."
        )
        if first["n_left_out"]:
            text += f" {first['n_left_out']} stamps without data in half of their pixels are left out."
        return Section("Short against deep", text, [(self._heading(), self._rows(metrics))])

    def _by_snr(self, metrics: Mapping[str, Metrics], first: Metrics) -> list[Section]:
        rows = [
            [plots.bin_name(b), str(b["n_pixel"]), number(b["huber_of_input"])]
            + [number(m["by_snr"][k]["huber"]) for m in metrics.values()]
            for k, b in enumerate(first["by_snr"])
        ]
        shown = {"input": [{**b, "huber": b["huber_of_input"]} for b in first["by_snr"]]}
        shown |= {name: m["by_snr"] for name, m in metrics.items()}
        label = "Huber error [sigma of the short exposure]"
        bias = [[name, *(number(b["bias_sigma"], 2) for b in m["by_snr"])] for name, m in metrics.items()]
        return [
            Section(
                "By signal-to-noise of the pixel",
                "Huber error, of the short exposure as it is and of each model; then the mean error in sigma.",
                [
                    (["signal-to-noise", "pixels", "input", *metrics], rows),
                    (["bias of", *(plots.bin_name(b) for b in first["by_snr"])], bias),
                ],
                [("errors.png", plots.errors_plot(shown, "huber", label))],
            )
        ]

    def _first_stamps(self) -> Section:
        band = len(self.members[0].card.bands) // 2
        columns = {"short": self.input.examples[0]}
        columns |= {name: entry.examples[0] for name, entry in self.entries.items()} | {"deep": self._deep[0]}
        stamps = np.stack([images[:, band] for images in columns.values()], axis=1)
        text = f"Band {self.members[0].card.bands[band]}, in units of the noise."
        return Section("The first stamps", text, pictures=[("stamps.png", plots.stamps_plot(list(columns), stamps))])

    def csv_fields(self, metrics: Metrics) -> dict[str, Any]:
        """Numbers over all pixels."""
        row = fields(metrics, ("n", "ratio", "l1", "l1_of_input", "huber", "huber_of_input"))
        row |= fields(metrics, ("psnr_db", "psnr_db_of_input", "gain_db", "bias_sigma"))
        for key in ("l1_over_input", "huber_over_input"):
            low, high = metrics[key]["interval95"] or ("", "")
            row |= {key: "" if metrics[key]["value"] is None else metrics[key]["value"]}
            row |= {f"{key}_low95": low, f"{key}_high95": high}
        return row

    def printed(self, metrics: Mapping[str, Metrics]) -> Printed:
        """PSNR, and errors over those of the short exposure."""
        first = next(iter(metrics.values()))
        note = f"{first['n']} stamps with 1/{self.ratio:g} of their exposure; below 1 is better than no denoiser."
        return Printed(self._heading(), self._rows(metrics), note)

    def _heading(self) -> list[str]:
        return ["model", "PSNR, dB", "of the input", "gain, dB", "L1 / input", "Huber / input", "bias, sigma"]

    def _rows(self, metrics: Mapping[str, Metrics]) -> list[list[str]]:
        return [
            [
                name,
                *(f"{m[key]:.2f}" for key in ("psnr_db", "psnr_db_of_input", "gain_db")),
                *(
                    with_interval(m[key]["value"], m[key]["interval95"])
                    for key in ("l1_over_input", "huber_over_input")
                ),
                number(m["bias_sigma"], 2),
            ]
            for name, m in metrics.items()
        ]


def _generator(name: str) -> np.random.Generator:
    """Of the noise of a stamp, from its name."""
    return np.random.default_rng(list(hashlib.blake2b(name.encode(), digest_size=16).digest()))


def _sum(one: Sequence[PixelErrors], other: Sequence[PixelErrors]) -> list[PixelErrors]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _whole(by_snr: Sequence[PixelErrors], gain: float) -> dict[str, Any]:
    total = PixelErrors()
    for errors in by_snr:
        total = total + errors
    found: dict[str, Any] = total.metrics()
    square = max(float(found["rmse"]) * gain, 1e-9)  # an error of exactly nothing is finite in JSON
    return {**found, "psnr_db": 20 * float(np.log10(PSNR_RANGE_SIGMA / square))}


def _bin(low: float | None, high: float | None, after: PixelErrors, before: PixelErrors, gain: float) -> dict[str, Any]:
    found, of_input = after.metrics(), before.metrics()
    bias = found["bias"]
    return {
        "low": low,
        "high": high,
        "n_pixel": found["n_pixel"],
        **{key: found[key] for key in ("l1", "huber")},
        **{f"{key}_of_input": of_input[key] for key in ("l1", "huber")},
        "bias_sigma": None if bias is None else bias * gain,
    }
