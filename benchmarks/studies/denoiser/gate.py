"""
The gate of a denoiser, and the control that must fail it.

    python -m benchmarks.studies.denoiser.gate MODEL --real ../shared/data [OPTIONS]

Fields: simulated ones whose truth is known, and the rows of the KiDS tile that nothing was trained on, made noisier by
noise that is correlated as its own; both at exposure ratio 2. The finder's part is read from
results/denoise_finder.json (of `finder`). With --frames-model: one VIRCAM frame of 10 s against the mean of
the three others, on rows that were not trained on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks import record
from benchmarks.studies.data import KIDS_ROWS, kids_tile
from lenspipe.evaluate.denoiser import Denoise, GateField, measure_field, run_gate
from lenspipe.infer.denoise import Denoiser
from lenspipe.learn.denoise.frames import frame_skies, read_frames
from lenspipe.learn.denoise.pairs import exposure_pair, noisier_image, simulated_sky
from lenspipe.learn.denoise.skies import real_sky
from lenspipe.nn.card import find_model, write_card

RATIO = 2.0
TEST_FIELDS = (9001, 9002, 9003)
BLUR_PX = 1.5
FRAME_TEST = 0.65
FINDER = record.RESULTS / "denoise_finder.json"


@click.command()
@click.argument("model")
@click.option("--real", type=click.Path(path_type=Path), required=True)
@click.option("--frames-model", type=click.Path(path_type=Path), help="Denoiser of the VIRCAM frames.")
@click.option("--update-card", is_flag=True, help="Write the verdict into the model's card.")
@click.option("--picture", type=click.Path(path_type=Path), help="PNG: raw, denoised, truth, residual.")
@click.option("--record/--no-record", "write", default=True)
def main(
    model: str, real: Path, frames_model: Path | None, update_card: bool, picture: Path | None, write: bool
) -> None:
    """Run the gate of MODEL."""
    torch.set_num_threads(1)
    folder = find_model(model)
    denoiser = Denoiser(folder, device="cpu")
    finder = json.loads(FINDER.read_text())["result"] if FINDER.exists() else None
    if finder and finder["weights_sha256"] != denoiser.card.weights_sha256:
        raise click.ClickException(
            f"{FINDER.name} is of other weights ({finder['model']}): run benchmarks.studies.denoiser.finder first"
        )
    fields = fields_of(real)
    gates = {
        name: run_gate(denoise, fields, finder=finder["arms"][arm] if finder else None)
        for name, denoise, arm in ((denoiser.card.name, by(denoiser), "denoised"), ("blur", blur, "blurred"))
    }
    assert not gates["blur"]["passed"], "a Gaussian blur passes the gate: the gate shows nothing"
    result: dict[str, Any] = {"gates": gates}
    shown = [(one, by(denoiser)(one.short_njy[None], one.sky_rms_njy, RATIO)[0]) for one in (fields[0], fields[-1])]
    if frames_model is not None:
        frames = Denoiser(frames_model, device="cpu")
        one = frame_field(real)
        result["frames"] = {"model": frames.card.name, **measure_field(by(frames), one)}
        shown.append((one, by(frames)(one.short_njy[None], one.sky_rms_njy, one.ratio)[0]))
    if picture is not None:
        draw(picture, shown)
    if update_card:
        gate = gates[denoiser.card.name]
        facts = {"passed": gate["passed"], "reasons": gate["reasons"], "fields": [summary(f) for f in gate["fields"]]}
        facts |= {"finder": gate["finder"], "control": {"blur passed": False, "reasons": gates["blur"]["reasons"]}}
        write_card(folder, denoiser.card.model_copy(update={"metrics": denoiser.card.metrics | {"gate": facts}}))
    if write:
        record.write("denoise_gate", result)
    else:
        print(json.dumps(result, indent=1))


def by(denoiser: Denoiser) -> Denoise:
    return lambda images, rms, ratio: denoiser.denoise(images, rms[:, None, None], ratio=ratio)


def blur(images: NDArray[np.float32], rms: NDArray[np.float64], ratio: float) -> NDArray[np.float32]:
    """The control."""
    return np.asarray(ndimage.gaussian_filter(images, (0, 0, BLUR_PX, BLUR_PX)), np.float32)


def fields_of(real: Path) -> list[GateField]:
    fields = []
    for seed in TEST_FIELDS:
        sky, rng = simulated_sky(seed), np.random.default_rng([seed, 3])
        assert sky.njy_per_electron is not None
        short, deep = exposure_pair(
            sky.image_njy, sky_rms_njy=sky.sky_rms_njy, njy_per_electron=sky.njy_per_electron, ratio=RATIO, rng=rng
        )
        fields.append(GateField(f"simulated-{seed}", short, deep, sky.sky_rms_njy, RATIO, sky.image_njy))
    kids = real_sky(kids_tile(real)[:, slice(*KIDS_ROWS["test"])], name="kids")
    rng = np.random.default_rng(3)
    short = noisier_image(
        kids.image_njy,
        sky_rms_njy=kids.sky_rms_njy,
        njy_per_electron=None,
        ratio=RATIO,
        rng=rng,
        correlation=kids.correlation,
    )
    fields.append(GateField("kids", short, kids.image_njy, kids.sky_rms_njy * np.sqrt(RATIO), RATIO))
    return fields


def frame_field(real: Path) -> GateField:
    """Upper rows of the first VIRCAM frame; the truth is the mean of the others, with a third of its variance."""
    files = sorted((real / "tiles/vircam_video").glob("image_*.fits"))
    sky = frame_skies(read_frames(files))[0]
    assert sky.rest_njy is not None
    start = int(FRAME_TEST * sky.image_njy.shape[1])
    short, rest = sky.image_njy[:, start:], sky.rest_njy[:, start:]
    good = np.isfinite(rest[0])
    by_row = good.mean(axis=1)
    rows = np.flatnonzero(by_row > 0.9 * by_row.max())
    columns = np.flatnonzero(good[rows].mean(axis=0) > 0.9)
    box = np.s_[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    short, rest = short[box], rest[box]
    bad = ~(np.isfinite(short) & np.isfinite(rest))
    short, rest = (np.ascontiguousarray(np.where(bad, 0, image), np.float32) for image in (short, rest))
    ratio = sky.n_rest + 1.0
    deep = (short / ratio + rest * (1 - 1 / ratio)).astype(np.float32)
    return GateField("vircam", short, deep, sky.sky_rms_njy, ratio, rest)


def summary(one: dict[str, Any]) -> dict[str, Any]:
    """A field's numbers for a card."""
    return {
        "name": one["name"],
        "ratio": one["ratio"],
        "gain": one["gain"],
        "gain_of_deep": one["gain_of_deep"],
        "at_purity_before": one["at_purity_before"],
        **{
            when: {
                "completeness": one[when]["detections"]["completeness"],
                "purity": one[when]["detections"]["purity"],
                "relative_flux_error": one[when]["relative_flux_error"],
                "faint_fluxes": one[when]["faint_fluxes"],
                "psnr_db": one[when]["psnr_db"],
                "ssim": one[when]["ssim"],
                "star_radius_over_deep": one[when]["star_radius"]["over_deep"],
            }
            for when in ("before", "after", "deep")
            if when in one
        },
    }


def draw(path: Path, shown: Sequence[tuple[GateField, NDArray[np.float32]]]) -> None:
    """A row a field: the short exposure, denoised, the truth or the deep image, and denoised less that."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(shown), 4, figsize=(13, 3.4 * len(shown)), layout="constrained", squeeze=False)
    for line, (one, after) in zip(axes, shown, strict=True):
        band = len(one.sky_rms_njy) // 2
        want = one.deep_njy if one.truth_njy is None else one.truth_njy
        x0, y0 = (np.array(want.shape[:0:-1]) - 200) // 2
        box = np.s_[band, y0 : y0 + 200, x0 : x0 + 200]
        rms = one.sky_rms_njy[band]
        named = {
            f"{one.name}: one exposure": one.short_njy[box],
            "denoised": after[box],
            "deeper by 2" if one.truth_njy is None else "the other three" if one.name == "vircam" else "truth": want[
                box
            ],
            "denoised less that, x 2": 2 * (after[box] - want[box]),
        }
        for axis, (name, image) in zip(line, named.items(), strict=True):
            axis.imshow(np.arcsinh(image / rms), cmap="gray_r", vmin=-1.5, vmax=4.5, origin="lower")
            axis.set_title(name, fontsize=10)
            axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=75)


if __name__ == "__main__":
    main()
