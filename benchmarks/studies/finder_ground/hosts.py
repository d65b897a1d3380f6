"""The hosts of the first g r i finder, split so that no galaxy and no piece of sky serves two purposes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.data import (
    DES_EVERY,
    KIDS_FWHM_ARCSEC,
    KIDS_ROWS,
    KIDS_SCALE_ARCSEC,
    des_hosts,
    kids_tile,
    study_hosts,
)
from lenspipe.errors import ConfigError
from lenspipe.image.cutouts import extract_cutouts
from lenspipe.nn.card import ModelCard
from lenspipe.simulate.field import simulate_field
from lenspipe.simulate.paint.host import Host
from lenspipe.simulate.paint.scene import host_size_px

SPLITS = ("train", "validation", "test")
LEAST_SCALE_ARCSEC = 0.22
FIELDS = {"train": range(100, 108), "validation": range(200, 202), "test": range(300, 304)}


def split_hosts(
    real: Path, card: ModelCard, *, seed: int, splits: Sequence[str] = SPLITS, fields: bool = True
) -> dict[str, list[Host]]:
    """
    Real hosts of the splits asked for and, with ``fields``, simulated ones.

    KiDS sources are split by rows of the tile (one closer to a border than half a stamp, 9", belongs to none), DES
    galaxies by their place in the files (6 in 10 train, 1 validation, 3 test), simulated fields by their seed. The
    ``kind`` of simulated sources is ``parametric`` or ``parametric-lens``.

    Raises
    ------
    ConfigError
        The folder of real pixels is not there.
    """
    if not (real / "tiles/kids_viking").is_dir():
        raise ConfigError("no folder tiles/kids_viking among the real data", folder=str(real))
    size = host_size_px(card, KIDS_SCALE_ARCSEC, LEAST_SCALE_ARCSEC)
    kids, at = study_hosts(
        kids_tile(real),
        name="kids",
        pixel_scale_arcsec=KIDS_SCALE_ARCSEC,
        psf_fwhm_arcsec=np.array(KIDS_FWHM_ARCSEC),
        size_px=size,
    )
    border = card.stamp_px * card.pixel_scale_arcsec / 2 / KIDS_SCALE_ARCSEC
    out: dict[str, list[Host]] = {}
    for split in splits:
        low, high = KIDS_ROWS[split]
        inside = (at[:, 1] > low + border * (low > 0)) & (at[:, 1] < high - border * (split != "test"))
        out[split] = [kids[k] for k in np.flatnonzero(inside)]
    des = des_hosts(real, host_size_px(card, 0.263, LEAST_SCALE_ARCSEC), np.random.default_rng([seed, 1]))
    for k, host in enumerate(des):
        place = k % DES_EVERY
        split = "train" if place < 6 else "validation" if place == 6 else "test"
        if split in out:
            out[split].append(host)
    for split in splits:
        for number in FIELDS.get(split, ()) if fields else ():
            out[split] += field_hosts(number, card)
    return out


def field_hosts(seed: int, card: ModelCard) -> list[Host]:
    """Sources of a field with 24 lenses, to 22.5 in the card's last band; seeing, depth and pixel scale are drawn."""
    rng = np.random.default_rng([seed, 7])
    scale = float(rng.uniform(0.17, 0.27))
    seeing = rng.uniform(0.55, 1.0) * np.array([1.15, 1.0, 0.97])
    rms = 10 ** rng.uniform(-0.3, 0.25) * np.array([13.0, 15.0, 30.0]) * (scale / 0.2)
    field = simulate_field(
        seed=seed,
        bands=card.bands,
        shape_px=(1100, 1100),
        pixel_scale_arcsec=scale,
        seeing_fwhm_arcsec=seeing,
        sky_rms_njy=rms,
        n_galaxy=350,
        n_star=60,
        n_lens=24,
        min_arc_snr=float(rng.uniform(25, 60)),
    )
    truth = field.truth.to_pydict()
    mag = np.array(truth[f"mag_{card.bands[-1]}"], float)
    x, y = np.array(truth["x_px"], float), np.array(truth["y_px"], float)
    keep = np.flatnonzero(mag < 22.5)
    nothing: NDArray[np.bool_] = np.zeros(field.image.shape, bool)
    size = host_size_px(card, scale, LEAST_SCALE_ARCSEC)
    cutouts, _ = extract_cutouts(field.image, nothing, x[keep], y[keep], size_px=size)
    return [
        Host(
            name=f"field-{seed}-{k}",
            kind="parametric-lens" if truth["is_lens"][k] else "parametric",
            pixels_njy=cutout,
            pixel_scale_arcsec=scale,
            psf_fwhm_arcsec=seeing,
            sky_rms_njy=rms,
            mag=float(mag[k]),
            axis_ratio=0.8,
            angle_rad=0.0,
        )
        for k, cutout in zip(keep, cutouts, strict=True)
    ]


def hosts_by_scene(hosts: list[Host]) -> dict[str, list[Host]]:
    """
    Which hosts serve which kind of scene.

    Arcs and look-alikes go on early types. The plain ones are all but simulated lenses, brighter sources more often
    (four times to i = 21.5, twice to 23): a candidate of that brightness is what gets looked at.
    """
    early = [h for h in hosts if h.kind == "early"]
    plain = [h for h in hosts if h.kind != "parametric-lens"]
    weighted = [h for h in plain for _ in range(4 if h.mag < 21.5 or h.kind == "star" else 2 if h.mag < 23 else 1)]
    kinds = dict.fromkeys(("lens", "companions", "young_ring", "spiral_disc"), early)
    return kinds | {
        "plain": weighted,
        "spoiled": plain,
        "field-lens": [h for h in hosts if h.kind == "parametric-lens"],
    }
