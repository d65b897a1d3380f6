"""
Whether a finder finds more lenses through a denoiser: the same finder trained and run without and with it.

    python -m benchmarks.studies.denoiser.finder MODEL --real ../shared/data [--stamps FILE.npz] [--no-record]

Arcs are painted on real galaxies (KiDS, DES; split by rows of the tile and by galaxy), lens-free stamps are such
galaxies as they are and with companions, rings and spiral arms. All arms see the same stamps, on their own pixels; a
Gaussian blur stands for a denoiser that must fail. Scores go to a .npz beside --stamps; statistics are those of
`lenspipe.stats.denoising_finder`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from scipy import ndimage

from benchmarks import record
from benchmarks.studies.data import (
    DES_EVERY,
    KIDS_FWHM_ARCSEC,
    KIDS_ROWS,
    KIDS_SCALE_ARCSEC,
    des_hosts,
    kids_tile,
    study_hosts,
)
from benchmarks.studies.finder_ground.hosts import hosts_by_scene
from lenspipe.errors import DataError
from lenspipe.infer.committee import dihedral_view
from lenspipe.infer.denoise import Denoiser
from lenspipe.learn.fit import fit
from lenspipe.learn.losses import binary_cross_entropy
from lenspipe.learn.players import Player, supervised
from lenspipe.learn.settings import OptimSettings
from lenspipe.nn.card import Stretch, find_model, read_card
from lenspipe.nn.preprocess import network_input
from lenspipe.nn.registry import build
from lenspipe.simulate.paint import Host, ScenePlan, draw_view, paint_arcs, paint_non_lens
from lenspipe.stats.denoising_finder import finder_gain, invented_arcs

Array = NDArray[np.float32]
COUNTS = {
    "train": {"lens": 1600, "plain": 900, "companions": 700, "young_ring": 150, "spiral_disc": 250},
    "test": {"lens": 1000, "plain": 1600, "companions": 900, "young_ring": 300, "spiral_disc": 400},
}
BANDS = ("g", "r", "i")
WIDE_PX, SIDE_PX = 65, 49
LEAST_SCALE_ARCSEC = 0.22
ARC_SNR = (15.0, 80.0)
BLUR_PX = 1.5
BATCH, STEPS = 64, 200
WIDTH = 16


@click.command()
@click.argument("model")
@click.option("--real", type=click.Path(path_type=Path), required=True)
@click.option("--stamps", type=click.Path(path_type=Path), default=Path("denoise_finder_stamps.npz"))
@click.option("--ratio", default=4.0, show_default=True, help="Exposure ratio that the denoiser is asked for.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", default=STEPS, show_default=True)
@click.option("--record/--no-record", "write", default=True)
def main(model: str, real: Path, stamps: Path, ratio: float, seeds: int, steps: int, write: bool) -> None:
    """Compare finders on raw stamps, on stamps that MODEL denoised, and on blurred ones."""
    torch.set_num_threads(1)
    began = time.monotonic()
    if not stamps.exists():
        np.savez(stamps, **make_stamps(real))
    data = dict(np.load(stamps))
    print(f"stamps after {time.monotonic() - began:.0f} s", flush=True)
    denoiser = Denoiser(find_model(model), device="cpu")
    arms = {"raw": lambda images, rms: images, "blurred": blurred, "denoised": denoised_by(denoiser, ratio)}
    labels = {split: data[f"{split}_is_lens"] for split in COUNTS}
    store = Store(stamps, f"{denoiser.card.weights_sha256[:12]}-{ratio:g}", steps)
    test: dict[str, Array] = {}
    for arm, change in arms.items():
        missing = [seed for seed in range(seeds) if not store.has(arm, seed)]
        test[arm] = inputs_of(data, "test", change)
        if not missing:
            continue
        images = inputs_of(data, "train", change)
        for seed in missing:
            store.put(arm, seed, train(images, labels["train"], seed, steps))
            print(f"{arm}, seed {seed}, after {time.monotonic() - began:.0f} s", flush=True)
    stacked = {arm: np.stack([score(store.get(arm, seed), test[arm]) for seed in range(seeds)]) for arm in arms}
    for arm in ("denoised", "blurred"):
        stacked[f"raw_on_{arm}"] = np.stack([score(store.get("raw", seed), test[arm]) for seed in range(seeds)])
    np.savez(stamps.with_suffix(".scores.npz"), **stacked, is_lens=labels["test"])
    result = {
        "model": read_card(find_model(model)).name,
        "weights_sha256": denoiser.card.weights_sha256,
        "ratio": ratio,
        "counts": COUNTS,
        "stamps_sha256": hashlib.sha256(data["test_images"].tobytes()).hexdigest(),
        "steps": steps,
        "arms": {arm: comparison(stacked, labels["test"], arm) for arm in ("denoised", "blurred")},
    }
    if write:
        record.write("denoise_finder", result)
    else:
        print(result)


class Store:
    """Finders that are trained already, beside the stamps: a run that is cut off goes on."""

    def __init__(self, stamps: Path, denoiser: str, steps: int) -> None:
        self._stem, self._denoiser, self._steps = stamps.with_suffix(""), denoiser, steps

    def _path(self, arm: str, seed: int) -> Path:
        name = f"{arm}-{self._denoiser}" if arm == "denoised" else arm
        return Path(f"{self._stem}.{name}.{self._steps}.{seed}.safetensors")

    def has(self, arm: str, seed: int) -> bool:
        return self._path(arm, seed).exists()

    def put(self, arm: str, seed: int, network: torch.nn.Module) -> None:
        self._path(arm, seed).write_bytes(save(dict(network.state_dict())))

    def get(self, arm: str, seed: int) -> torch.nn.Module:
        network = finder()
        network.load_state_dict(load(self._path(arm, seed).read_bytes()))
        return network.eval()


def finder() -> torch.nn.Module:
    return build("small-cnn", 3, SIDE_PX, width=WIDTH, dropout=0.2)


def comparison(scores: dict[str, NDArray[np.float64]], is_lens: NDArray[np.bool_], arm: str) -> dict[str, Any]:
    """One arm against the raw one: what `lenspipe.evaluate.denoiser.run_gate` takes as ``finder``."""
    out = finder_gain(scores["raw"], scores[arm], is_lens)
    out["same_finder"] = finder_gain(scores["raw"], scores[f"raw_on_{arm}"], is_lens)["tpr_gain"]
    out["invented"] = invented_arcs(scores["raw"], scores[f"raw_on_{arm}"], is_lens)
    return out


def hosts_of(real: Path) -> dict[str, list[Host]]:
    """KiDS sources by rows of the tile, DES galaxies by their place in the files."""
    size = 2 * int(np.ceil(WIDE_PX / 2)) + 1
    fwhm = np.array(KIDS_FWHM_ARCSEC)
    kids, at = study_hosts(
        kids_tile(real), name="kids", pixel_scale_arcsec=KIDS_SCALE_ARCSEC, psf_fwhm_arcsec=fwhm, size_px=size
    )
    des = des_hosts(real, size, np.random.default_rng(5))
    out = {}
    for split in COUNTS:
        low, high = KIDS_ROWS[split]
        inside = (at[:, 1] > low + size * (low > 0)) & (at[:, 1] < high - size)
        part = [k for k in range(len(des)) if (k % DES_EVERY < 6) == (split == "train") and k % DES_EVERY != 6]
        out[split] = [kids[k] for k in np.flatnonzero(inside)] + [des[k] for k in part]
    return out


def make_stamps(real: Path) -> dict[str, Any]:
    """Stamps in nJy on their own pixels, their noise, pixel scale and whether a lens is in them."""
    out: dict[str, Any] = {}
    for number, (split, hosts) in enumerate(hosts_of(real).items()):
        served = hosts_by_scene(hosts)
        rows: list[tuple[Array, NDArray[np.float64], float, bool]] = []
        for kind_number, (kind, count) in enumerate(COUNTS[split].items()):
            made, item = 0, 0
            while made < count:
                rng = np.random.default_rng([77, number, kind_number, item])
                item += 1
                try:
                    rows.append(make_stamp(kind, served[kind][int(rng.integers(len(served[kind])))], rng))
                except DataError:  # no source makes an arc as bright as asked here: the next host
                    continue
                made += 1
        for name, k in (("images", 0), ("rms", 1), ("scale", 2), ("is_lens", 3)):
            out[f"{split}_{name}"] = np.array([row[k] for row in rows])
    return out


def make_stamp(kind: str, host: Host, rng: np.random.Generator) -> tuple[Array, NDArray[np.float64], float, bool]:
    """One stamp of a kind."""
    painted = kind != "plain" or host.kind == "early"
    mags = (17.0, 21.0) if painted else (host.mag - 0.2, host.mag + 1.3)
    view = draw_view(host, rng, scale_range_arcsec=(LEAST_SCALE_ARCSEC, host.pixel_scale_arcsec), mag_range=mags)
    if kind == "lens":
        pixels, _, _ = paint_arcs(
            view.pixels_njy,
            bands=BANDS,
            pixel_scale_arcsec=view.pixel_scale_arcsec,
            psf=tuple(view.psf_fwhm_arcsec),
            rng=rng,
            theta_e_range_arcsec=(1.0, 3.0),
            axis_ratio=min(0.95, max(0.5, view.axis_ratio)),
            angle_rad=view.angle_rad,
            sources=ScenePlan().sources,
            sky_rms_njy=view.sky_rms_njy,
            min_arc_snr=float(np.exp(rng.uniform(*np.log(ARC_SNR)))),
        )
    else:
        pixels = view.pixels_njy if kind == "plain" else paint_non_lens(view, kind, rng, bands=BANDS)[0]
    edge = (pixels.shape[-1] - WIDE_PX) // 2
    inner = slice(edge, edge + WIDE_PX)
    return pixels[:, inner, inner].astype(np.float32), view.sky_rms_njy, view.pixel_scale_arcsec, kind == "lens"


def denoised_by(denoiser: Denoiser, ratio: float) -> Callable[[Array, NDArray[np.float64]], Array]:
    return lambda images, rms: denoiser.denoise(images, rms[..., None, None], ratio=ratio)


def blurred(images: Array, rms: NDArray[np.float64]) -> Array:
    """The control: a Gaussian of 1.5 pixels."""
    return np.asarray(ndimage.gaussian_filter(images, (0, 0, BLUR_PX, BLUR_PX)), np.float32)


def inputs_of(data: dict[str, Any], split: str, change: Callable[[Array, NDArray[np.float64]], Array]) -> Array:
    """Network input: changed on the whole stamp, then cut to the finder's and stretched as the shipped finder does."""
    images = change(data[f"{split}_images"], data[f"{split}_rms"])
    edge = (WIDE_PX - SIDE_PX) // 2
    inner = images[:, :, edge : edge + SIDE_PX, edge : edge + SIDE_PX]
    stretch: Stretch = read_card(find_model("ground-gri")).stretch
    return network_input(inner / data[f"{split}_scale"][:, None, None, None] ** 2, stretch)


def train(images: Array, is_lens: NDArray[np.bool_], seed: int, steps: int) -> torch.nn.Module:
    """A small finder; batches are half lenses, each stamp one of its eight views and shifted by up to 2 pixels."""
    torch.manual_seed(seed)
    network = finder()
    groups = [np.flatnonzero(is_lens), np.flatnonzero(~is_lens)]

    def batches(epoch: int) -> Iterator[dict[str, NDArray[Any]]]:
        for step in range(50):
            rng = np.random.default_rng([seed, epoch, step])
            rows = np.concatenate([rng.choice(group, BATCH // 2) for group in groups])
            views = rng.integers(0, 8, BATCH)
            shifts = rng.integers(-2, 3, (BATCH, 2))
            image = np.stack(
                [
                    np.roll(dihedral_view(images[row], int(view)), shift, axis=(1, 2))
                    for row, view, shift in zip(rows, views, shifts, strict=True)
                ]
            )
            yield {"image": image, "label": is_lens[rows].astype(np.float32)}

    optim = OptimSettings(epochs=max(1, steps // 50), learning_rate=2e-3, ema_decay=0.98)
    player = Player(module=network, loss=supervised(binary_cross_entropy()))
    fit([player], {"train": batches}, optim, steps=50, seed=seed)
    return network.eval()


def score(network: torch.nn.Module, images: Array) -> NDArray[np.float64]:
    """Logits."""
    with torch.inference_mode():
        parts = [network(torch.from_numpy(images[k : k + 128])).double().numpy() for k in range(0, len(images), 128)]
    return np.concatenate(parts)


if __name__ == "__main__":
    main()
