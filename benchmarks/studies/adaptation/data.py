"""The domains of the three gaps, each a data set of small stamps with splits; what is there is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.studies.finder_ground.hosts import hosts_by_scene, split_hosts
from benchmarks.studies.finder_survey.warps import LENS_FROM, NONLENS, all_warps
from benchmarks.studies.real_sky.ground import BANDS, CFHTLS_SCALE_ARCSEC
from lenspipe.image.resample import cubic_matrix
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.simulate.paint.scene import ScenePlan, make_scenes
from lenspipe.simulate.recipe import read_recipe
from lenspipe.simulate.run import simulate
from lenspipe.stamps.format import ImageSpec, image_column, stamp_schema, write_part

CLASSES = {
    "image.0.size_px": 28,
    "image.0.pixel_scale_arcsec": 0.2,
    "image.0.supersampling": 4,
    "image.0.psf_sampling": 2,
    "published.source_brightness_njy": [11.2, 14.4],
    "published.lens_brightness_njy": [19.2, 19.2],
    "published.mass_fraction": [0.1, 0.1],
}
"""Model F on pixels of 0.2 arcsec (brightness is per pixel), with ten times the substructure: a small network learns it
within a minute of one core, and nothing of the original."""
OTHER_INSTRUMENT = {"survey.0.band.I.seeing_fwhm_arcsec": [0.8, 0.02], "survey.0.band.I.depth_mag": [28.0, 0.1]}
"""A PSF more than three times as wide, 2 mag less deep: a network of the first camera has .67 for three classes there
(0.5 arcsec and 27 mag cost it almost nothing), and the substructure is still in the pixels."""
SCALE_ARCSEC, SIDE_PX = 0.372, 25
"""Twice the pixel of CFHTLS, near that of KiDS."""
SPEC = ImageSpec(BANDS, SIDE_PX, SCALE_ARCSEC)
# Stretch and margins as those of `finder_ground.make_stamps`; scenes are made with a margin of 4 px a side
CARD = ModelCard(
    name="painted",
    family="small-cnn",
    bands=BANDS,
    pixel_scale_arcsec=SCALE_ARCSEC,
    scale_tolerance=0.1,
    min_scale_arcsec=0.15,
    max_scale_arcsec=0.5,
    stamp_px=SIDE_PX - 8,
    stretch=Stretch(band_scales=tuple(s * 0.186**2 / 10**0.56 for s in (1.7, 0.6, 0.4)), alpha=0.09, q=1.0),
)
PLAN = ScenePlan(theta_e_arcsec=(1.0, 2.5), min_visible_px=15)
SHARES = {"lens": 0.5, "plain": 0.3, "companions": 0.1, "young_ring": 0.05, "spiral_disc": 0.05}
LEAST_SCALE_ARCSEC = 0.22
COUNTS = {"train": 1200, "validation": 200, "test": 700}


def instruments(work: Path, counts: tuple[int, int] = (1200, 1600)) -> tuple[Path, Path]:
    """Gap ``instruments``: classes of substructure, sharp and deep; and with a PSF and a depth of another camera."""
    recipe = read_recipe("model-f", changes=CLASSES)
    other = read_recipe("model-f", changes=CLASSES | OTHER_INSTRUMENT)
    one = _simulated(recipe, work / "instrument-a", counts[0], 1)
    return one, _simulated(other, work / "instrument-b", counts[1], 2)


def simulated(work: Path, name: str = "simulated", count: int = 1600, changes: dict[str, Any] | None = None) -> Path:
    """Stamps of the recipe ``ground-gri``, changed or as it is, on the grid of the painted ones."""
    grid = {"image.0.pixel_scale_arcsec": SCALE_ARCSEC, "image.0.size_px": SIDE_PX}
    return _simulated(read_recipe("ground-gri", changes=(changes or {}) | grid), work / name, count, 3)


def painted(real: Path, work: Path) -> Path:
    """Arcs and look-alikes painted on real galaxies of KiDS and DES, split by host."""
    out = work / "painted"
    for number, (split, n) in enumerate(COUNTS.items()):
        if (out / f"{split}.parquet").exists():
            continue
        hosts = split_hosts(real, CARD, seed=1, splits=(split,), fields=False)[split]
        counts = {kind: round(n * share) for kind, share in SHARES.items()}
        scenes, truths = make_scenes(
            counts, hosts_by_scene(hosts), seed=17 + number, card=CARD, least_scale_arcsec=LEAST_SCALE_ARCSEC, plan=PLAN
        )
        order = np.random.default_rng(number).permutation(len(truths))
        njy = scenes[order].astype(np.float32) * np.float32(16 * SCALE_ARCSEC**2)
        _write(
            out,
            split,
            njy,
            label=["lens" if truths[k]["is_lens"] else truths[k]["kind"] for k in order],
            host=[truths[k]["host"] for k in order],
            splits=[split] * len(order),
        )
    return out


def warps(real: Path, work: Path, seed: int) -> Path:
    """
    Space Warps candidates at twice their pixel, half of the graded ones held out, others by the seed.

    Those between the grades are of the training half, without a label; the held-out half is ``validation``, which no
    method reads but to be judged.
    """
    out = work / f"warps-{seed}"
    if not (out / "all.parquet").exists():
        stamps, grade = all_warps(real)
        label = graded(grade)
        known = np.array([x is not None for x in label])
        held = np.zeros(len(grade), bool)
        rng = np.random.default_rng([seed, 5])
        for value in ("lens", "nonlens"):
            rows = rng.permutation([k for k, x in enumerate(label) if x == value])
            held[rows[: len(rows) // 2]] = True
        split = np.where(held & known, "validation", "train").tolist()
        _write(out, "all", coarse(stamps), label=label, host=[f"warps-{k}" for k in range(len(grade))], splits=split)
    return out


def graded(grade: NDArray[np.float64]) -> list[str | None]:
    """``lens`` from 2.0, ``nonlens`` for 0.3, null between."""
    return ["lens" if g >= LENS_FROM else "nonlens" if np.isclose(g, NONLENS) else None for g in grade]


def coarse(stamps_njy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stamps of CFHTLS ``(n, band, y, x)`` on `SPEC`'s grid; flux per pixel, so four times that of one of theirs."""
    matrix = cubic_matrix(stamps_njy.shape[-1], CFHTLS_SCALE_ARCSEC, SIDE_PX, SCALE_ARCSEC)
    area = np.float32((SCALE_ARCSEC / CFHTLS_SCALE_ARCSEC) ** 2)
    return (matrix @ stamps_njy @ matrix.T * area).astype(np.float32)


def _simulated(recipe: Any, out: Path, count: int, seed: int) -> Path:
    simulate(recipe, count=count, seed=seed, out=out, resume=out.exists())
    return out


def _write(
    out: Path, name: str, njy: NDArray[np.float32], *, label: list[str | None], host: list[str], splits: list[str]
) -> None:
    n = len(label)
    columns: dict[str, Any] = {
        "stamp_id": [f"{out.name}-{name}-{k}" for k in range(n)],
        "label": label,
        "recipe": [out.name] * n,
        "seed": [None] * n,
        "host": host,
        "split": splits,
    }
    schema = stamp_schema({"image": SPEC}, [])
    arrays = [image_column(njy, SPEC) if f.name == "image" else pa.array(columns[f.name], f.type) for f in schema]
    write_part(pa.table(arrays, schema=schema), out, name)
