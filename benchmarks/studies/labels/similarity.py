"""
Which part of the nearest neighbours of a real lens are lenses: by an embedding, raw pixels, their principal components,
and a supervised finder's features.

    python -m benchmarks.studies.labels.similarity --real ../shared/data --pool STAMPS --embedding MODEL --name NAME

The pool is the graded Space Warps candidates and simulated stamps up to 5,000. Space Warps stamps are cropped to the
sky that the simulated ones show. For each Space Warps lens (grade 2 and more) the first 20 neighbours by cosine are
counted, among all of the pool and among Space Warps alone, where none is told by its survey. Intervals are over lenses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.studies.finder_survey.warps import LENS_FROM, all_warps
from benchmarks.studies.real_sky.ground import BANDS, CFHTLS_SCALE_ARCSEC
from lenspipe.image.resample import cubic_matrix
from lenspipe.infer.predict import Predictor
from lenspipe.infer.stamps import stamp_input
from lenspipe.nn.card import find_model
from lenspipe.stamps.format import StampSet

N_POOL, FIRST, N_COMPONENT, N_DRAW = 5000, 20, 32, 2000
Floats = NDArray[np.floating]


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--pool", type=click.Path(path_type=Path, exists=True), required=True, help="Simulated g r i stamps.")
@click.option("--embedding", required=True, help="Model of task embed.")
@click.option("--finder", default="ground-gri", show_default=True)
@click.option("--name", default="spacewarps", show_default=True)
@record.keep_option
def main(real: Path, pool: Path, embedding: str, finder: str, name: str, keep: bool) -> None:
    """Measure, and write `results/similarity_NAME.json`."""
    warps, grade = all_warps(real)
    stamps = StampSet.open(pool)
    spec = stamps.images["image"]
    order = np.random.default_rng(1).permutation(stamps.n)[: N_POOL - len(warps)]
    simulated = stamps.read_images(indices=np.sort(order))[:, [spec.bands.index(band) for band in BANDS]]
    is_lens = np.concatenate([grade >= LENS_FROM, stamps.column("label")[np.sort(order)] == "lens"])
    is_real = np.arange(len(is_lens)) < len(warps)
    side = round(spec.size_px * spec.pixel_scale_arcsec / CFHTLS_SCALE_ARCSEC)
    edge = (warps.shape[-1] - side) // 2
    warps = warps[..., edge : edge + side, edge : edge + side]
    parts = [(warps, CFHTLS_SCALE_ARCSEC), (simulated, spec.pixel_scale_arcsec)]
    described = {
        "self-supervised embedding": of_model(embedding, parts, trunk=False),
        "finder's features": of_model(finder, parts, trunk=True),
        **of_pixels(parts, spec.size_px, spec.pixel_scale_arcsec),
    }
    asked = np.flatnonzero(is_real & is_lens)
    rows = [
        {"by": by, "among": among, **rate(vectors[use], is_lens[use], np.searchsorted(np.flatnonzero(use), asked))}
        for by, vectors in described.items()
        for among, use in (("all", np.ones(len(is_lens), bool)), ("Space Warps", is_real))
    ]
    for row in rows:
        print(row, flush=True)
    record.write(
        f"similarity_{name}",
        {
            "pool": {"all": len(is_lens), "real": int(is_real.sum()), "lenses": int(is_lens.sum())},
            "asked": len(asked),
            "first": FIRST,
            "simulated": pool.name,
            "embedding": embedding_facts(embedding),
            "finder": finder,
            "rows": rows,
        },
        keep=keep,
    )


def embedding_facts(model: str) -> dict[str, Any]:
    """How the embedding was learnt."""
    card = Predictor(find_model(model), device="cpu").card
    training = card.training
    return {key: training.get(key) for key in ("data", "n_train", "epochs", "steps", "seconds")} | {
        "settings": card.settings,
        "method": getattr(card.outputs, "method", None),
    }


def of_model(model: str, parts: list[tuple[NDArray[np.float32], float]], *, trunk: bool) -> Floats:
    """Features of the trunk, or the vector that the model gives, of stamps of several pixel scales."""
    predictor = Predictor(find_model(model), device="cpu")
    found = []
    for pixels, scale in parts:
        for start in range(0, len(pixels), 256):
            some = pixels[start : start + 256]
            seen = stamp_input(some, bands=BANDS, pixel_scale_arcsec=scale, card=predictor.card)
            found.append(predictor.features(seen) if trunk else predictor.outputs(seen))
    vectors = np.concatenate(found).astype(np.float64)
    return (vectors - vectors.mean(axis=0)) / np.maximum(vectors.std(axis=0), 1e-9) if trunk else vectors


def of_pixels(parts: list[tuple[NDArray[np.float32], float]], size_px: int, scale_arcsec: float) -> dict[str, Floats]:
    """Stretched pixels on one grid, as they are and as principal components."""
    flat = []
    for pixels, scale in parts:
        matrix = cubic_matrix(pixels.shape[-1], scale, size_px, scale_arcsec)
        on_grid = np.matmul(np.matmul(matrix, pixels), matrix.T) / np.float32(scale**2)
        noise = np.median(np.abs(on_grid), axis=(0, 2, 3), keepdims=True) * 1.4826
        flat.append(np.arcsinh(on_grid / noise).reshape(len(pixels), -1))
    vectors = np.concatenate(flat).astype(np.float32)
    centred = vectors - vectors.mean(axis=0)
    # of 12,675 pixels the products of a sample span the first components well enough
    some = centred[np.random.default_rng(2).permutation(len(centred))[:N_DRAW]]
    _, _, axes = np.linalg.svd(some @ some[: N_COMPONENT * 8].T, full_matrices=False)
    basis, _ = np.linalg.qr((axes[:N_COMPONENT] @ some[: N_COMPONENT * 8]).T)
    return {"raw pixels": vectors, f"{N_COMPONENT} principal components": centred @ basis}


def rate(vectors: Floats, is_lens: NDArray[np.bool_], asked: NDArray[np.int64]) -> dict[str, Any]:
    """Part of the first neighbours of some rows that are lenses, with its interval over these rows, and by chance."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    near = unit[asked] @ unit.T
    near[np.arange(len(asked)), asked] = -np.inf
    first = np.argsort(-near, axis=1)[:, :FIRST]
    each = is_lens[first].mean(axis=1)
    drawn = np.random.default_rng(3).integers(0, len(each), (4000, len(each)))
    low, high = np.quantile(each[drawn].mean(axis=1), [0.025, 0.975])
    chance = (is_lens.sum() - 1) / (len(is_lens) - 1)
    return {
        "rate": round(float(each.mean()), 4),
        "interval95": [round(low, 4), round(high, 4)],
        "chance": round(chance, 4),
    }


if __name__ == "__main__":
    main()
