"""The gate on a data set of stamps: finders without and with a denoiser, and its fields, as one report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenspipe.errors import ConfigError
from lenspipe.evaluate.denoiser import GateField, run_gate
from lenspipe.infer.denoise import Denoiser
from lenspipe.infer.score import Scorer
from lenspipe.infer.stamps import stamp_input
from lenspipe.learn.denoise.pairs import exposure_pair, simulated_sky
from lenspipe.nn.card import find_model
from lenspipe.rundir import write_json
from lenspipe.stamps.format import StampSet
from lenspipe.stats.denoising import noise_of
from lenspipe.stats.denoising_finder import finder_gain, invented_arcs

REPORT = "gate.json"
FIELD_SEEDS, FIELD_RATIO = (9001, 9002), 2.0
BATCH = 256
BANDS = ("g", "r", "i")


def gate_report(
    finders: Sequence[str | Path],
    denoiser: str | Path,
    data: Path,
    out: Path,
    *,
    split: str | None = "test",
    ratio: float = 4.0,
    device: str = "auto",
) -> dict[str, Any]:
    """
    Run the gate with finders that exist and a data set of labelled stamps, and write ``gate.json``.

    Finders that were trained on raw stamps score raw and denoised ones: that is a harder test than finders trained
    on each, which `run_gate` takes too (``benchmarks.studies.denoiser`` trains them). Several finders count as seeds.

    Parameters
    ----------
    finders : sequence of str or Path
        Models of task ``find`` that see raw stamps.
    denoiser : str or Path
    data : Path
        Stamps in nJy with the column ``label``; ``lens`` counts as one.
    out : Path
        Folder of the report; made where it is not there.
    split : str or None
        Rows to use; all where None.
    ratio : float
        Exposure ratio that the stamps are denoised with.

    Returns
    -------
    dict
        As `run_gate`.

    Raises
    ------
    ConfigError
        The stamps are not in nJy, or lack lenses or all else.
    ModelError
        A model does not fit the stamps.
    """
    loaded = Denoiser(find_model(denoiser), device=device)
    scorers = [Scorer(find_model(finder), device=device) for finder in finders]
    stamps = StampSet.open(data)
    name, spec = next(iter(stamps.images.items()))
    if spec.unit != "nJy":
        raise ConfigError("a denoiser takes pixels in nJy, and these are not", data=str(data), unit=spec.unit)
    rows = np.arange(stamps.n) if split is None else np.flatnonzero(stamps.column("split") == split)
    is_lens = stamps.column("label")[rows] == "lens"
    if not 0 < is_lens.sum() < len(rows):
        raise ConfigError("the gate needs lenses and other stamps", n_lens=int(is_lens.sum()), n=len(rows))
    order = loaded.order(spec.bands, spec.pixel_scale_arcsec)
    raw: list[list[NDArray[np.float64]]] = [[] for _ in scorers]
    after: list[list[NDArray[np.float64]]] = [[] for _ in scorers]
    for start in range(0, len(rows), BATCH):
        images = stamps.read_images(name, rows[start : start + BATCH])
        denoised = images.copy()
        some = images[:, order]
        denoised[:, order] = loaded.denoise(some, noise_of(some), ratio=ratio, mask=some == 0)
        for k, scorer in enumerate(scorers):
            for scores, pixels in ((raw[k], images), (after[k], denoised)):
                inputs = stamp_input(
                    pixels, bands=spec.bands, pixel_scale_arcsec=spec.pixel_scale_arcsec, card=scorer.card
                )
                scores.append(scorer.score_prepared(inputs))
    before, then = (np.stack([np.concatenate(one) for one in scores]) for scores in (raw, after))
    finder = finder_gain(before, then, is_lens) | {"invented": invented_arcs(before, then, is_lens)}
    fields = simulated_fields() if loaded.card.bands == BANDS else []

    def denoise(images: NDArray[np.float32], rms: NDArray[np.float64], wanted: float) -> NDArray[np.float32]:
        return loaded.denoise(images, rms[:, None, None], ratio=wanted)

    report = run_gate(denoise, fields, finder=finder)
    report = {"denoiser": loaded.card.name, "digest": loaded.digest, "data": data.name, "ratio": ratio} | report
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / REPORT, json.loads(json.dumps(report)))
    return report


def simulated_fields() -> list[GateField]:
    """Simulated g r i fields at exposure ratio 2."""
    fields = []
    for seed in FIELD_SEEDS:
        sky = simulated_sky(seed)
        assert sky.njy_per_electron is not None
        short, deep = exposure_pair(
            sky.image_njy,
            sky_rms_njy=sky.sky_rms_njy,
            njy_per_electron=sky.njy_per_electron,
            ratio=FIELD_RATIO,
            rng=np.random.default_rng([seed, 3]),
        )
        fields.append(GateField(f"simulated-{seed}", short, deep, sky.sky_rms_njy, FIELD_RATIO, sky.image_njy))
    return fields
