"""
Painted stamps of several surveys beside those of one: KiDS, DES, HSC and CFHTLS each give lenses and non-lenses.

    python -m benchmarks.studies.finder_survey.mixture --real ../shared/data --beside tuned/stamps --out mixed

Parts of ``--beside`` (`lenspipe finder ... --pretrained ground-gri`) are linked; to them come scenes of the recipe of
`benchmarks.studies.finder_ground` on its own hosts (KiDS rows 0 to 1690, DES, simulated fields), on luminous galaxies
of HSC and its blends of COSMOS, and on objects of CFHTLS fields. HSC cutouts are smaller than a stamp: beyond them lies
Gaussian noise of their own level. CFHTLS fields are pictures turned back into flux, as the Space Warps candidates are.
Galaxies of Pan-STARRS that are known lenses take no part: they would bring lenses without non-lenses.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from astropy.io import fits
from numpy.typing import NDArray

from benchmarks.studies.data import CUTS, cfhtls_tile
from benchmarks.studies.finder_ground.hosts import LEAST_SCALE_ARCSEC, hosts_by_scene, split_hosts
from benchmarks.studies.finder_ground.make_stamps import CARD, SHARES
from benchmarks.studies.real_sky.ground import CFHTLS_SCALE_ARCSEC, HUMVI_ALPHA, HUMVI_Q, HUMVI_SCALES, NJY_PER_COUNT
from lenspipe.image.stretch import humvi_inverse
from lenspipe.robust import robust_sigma
from lenspipe.simulate.paint.host import Host
from lenspipe.simulate.paint.scene import MARGIN_PX, host_size_px, make_scenes
from lenspipe.stamps.format import ImageSpec, StampSet, image_array, image_column, write_part
from lenspipe.stamps.readers.blends import BlendsOptions, read_blends
from lenspipe.stamps.readers.fields import FieldsOptions, read_fields

HSC_SCALE_ARCSEC, HSC_ZERO_POINT_AB = 0.168, 27.0
HSC_FWHM_ARCSEC, CFHTLS_FWHM_ARCSEC = (0.79, 0.75, 0.61, 0.68), (0.9, 0.8, 0.75)
"""Seeing of the HSC Wide survey, and of the CFHTLS tile."""
EARLY_COLOUR, EARLY_MAG = CUTS.early_colour, (15.5, 21.5)
VALIDATION_EVERY = 6


def other_hosts(real: Path, rng: np.random.Generator) -> list[Host]:
    """Hosts of HSC and CFHTLS, named ``hsc-...`` and ``cfhtls-...``."""
    return [*hsc_hosts(real, rng), *_cfhtls(real)]


def hsc_hosts(real: Path, rng: np.random.Generator, n_band: int = 3) -> list[Host]:
    """Luminous galaxies and blends of HSC in the first ``n_band`` of g r i z; kind and magnitude are those of g r i."""
    return [*_hsc_lrg(real, rng, n_band), *_hsc_cosmos(real, rng, n_band)]


def _hsc_lrg(real: Path, rng: np.random.Generator, n_band: int) -> list[Host]:
    hosts = []
    for path in sorted((real / "stamps/hsc_lrg").glob("*.fits")):
        with fits.open(path) as hdus:
            planes = [hdu.data.astype(np.float32) for hdu in hdus if hdu.data is not None]
        clean = np.stack([planes[2 * k] - planes[2 * k + 1] for k in range(n_band)])  # image less the arc painted on it
        njy = clean[:, :63, :63] * np.float32(10 ** (0.4 * (31.4 - HSC_ZERO_POINT_AB)))  # odd
        njy -= np.median(njy, axis=(1, 2), keepdims=True)
        hosts.append(
            _framed(f"hsc-lrg-{path.stem}", njy, robust_sigma(njy, (1, 2)), HSC_SCALE_ARCSEC, rng, kind="early")
        )
    return hosts


def _hsc_cosmos(real: Path, rng: np.random.Generator, n_band: int) -> list[Host]:
    size_px = host_size_px(CARD, HSC_SCALE_ARCSEC, LEAST_SCALE_ARCSEC)
    options = BlendsOptions(
        bands=("g", "r", "i", "z", "y"),
        pixel_scale_arcsec=HSC_SCALE_ARCSEC,
        zero_point_ab=HSC_ZERO_POINT_AB,
        size_px=size_px,
    )
    table = pa.concat_tables(read_blends(real / "stamps/hsc_cosmos", options).tables)
    hosts = []
    for name, stamp in zip(table["stamp_id"].to_pylist(), image_array(table, "image")[:, :n_band], strict=True):
        with np.load(real / "stamps/hsc_cosmos" / f"{name}.npz") as archive:
            weights = archive["weights"][:n_band]
        noise = np.array([np.median(1 / np.sqrt(w[w > 0])) for w in weights])
        njy_rms = noise * 10 ** (0.4 * (31.4 - HSC_ZERO_POINT_AB))
        hosts.append(_framed(f"hsc-cosmos-{name}", stamp, njy_rms, HSC_SCALE_ARCSEC, rng))
    return hosts


def _cfhtls(real: Path) -> list[Host]:
    size_px = host_size_px(CARD, CFHTLS_SCALE_ARCSEC, LEAST_SCALE_ARCSEC)
    options = FieldsOptions(pixel_scale_arcsec=CFHTLS_SCALE_ARCSEC, size_px=size_px)
    table = pa.concat_tables(read_fields(real / "stamps/cfhtls_fields", options).tables)
    counts = humvi_inverse(
        image_array(table, "image") / np.float32(255), band_scales=HUMVI_SCALES, alpha=HUMVI_ALPHA, q=HUMVI_Q
    )
    njy = np.ascontiguousarray(counts[:, ::-1]) * np.float32(NJY_PER_COUNT)
    rms = robust_sigma(cfhtls_tile(real), (1, 2))  # of a tile in flux: pictures have lost their negative noise
    return [
        _host(f"cfhtls-{name}", stamp, rms, CFHTLS_SCALE_ARCSEC, CFHTLS_FWHM_ARCSEC)
        for name, stamp in zip(table["stamp_id"].to_pylist(), njy, strict=True)
    ]


def _framed(
    name: str, njy: NDArray[np.float32], rms: NDArray[np.float64], scale: float, rng: np.random.Generator, **more: Any
) -> Host:
    """A host with drawn noise where its cutout has no data: beyond its edge, and where a pixel is exactly 0."""
    side = host_size_px(CARD, scale, LEAST_SCALE_ARCSEC)
    pixels = np.zeros((len(njy), side, side), np.float32)
    inner = max(0, side - njy.shape[-1]) // 2
    taken = njy[:, : min(side, njy.shape[1]), : min(side, njy.shape[2])]
    pixels[:, inner : inner + taken.shape[1], inner : inner + taken.shape[2]] = taken
    drawn = rng.normal(0, 1, pixels.shape) * np.asarray(rms)[:, None, None]
    return _host(name, np.where(pixels == 0, drawn, pixels).astype(np.float32), rms, scale, HSC_FWHM_ARCSEC, **more)


def _host(
    name: str,
    njy: NDArray[np.float32],
    rms: NDArray[np.float64],
    scale: float,
    fwhm_arcsec: tuple[float, ...],
    kind: str | None = None,
) -> Host:
    half = round(1.5 / scale)
    middle = slice(njy.shape[-1] // 2 - half, njy.shape[-1] // 2 + half + 1)
    flux = np.clip(njy[:, middle, middle].sum(axis=(1, 2)), 1e-3, None)
    mag = 31.4 - 2.5 * np.log10(flux)
    colour = mag[0] - mag[2]
    red = EARLY_COLOUR[0] <= colour <= EARLY_COLOUR[1] and EARLY_MAG[0] <= mag[2] <= EARLY_MAG[1]
    return Host(
        name=name,
        kind=kind or ("early" if red else "source"),
        pixels_njy=njy,
        pixel_scale_arcsec=scale,
        psf_fwhm_arcsec=np.array(fwhm_arcsec[: len(njy)]),
        sky_rms_njy=np.asarray(rms, np.float64),
        mag=float(mag[2]),
        axis_ratio=0.8,
        angle_rad=0.0,
    )


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option(
    "--beside", type=click.Path(path_type=Path, exists=True), required=True, help="Painted stamps of a survey."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the data set.")
@click.option("--train", "n_train", type=click.IntRange(min=100), default=12_000, show_default=True)
@click.option("--validation", "n_validation", type=click.IntRange(min=100), default=2_000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
def main(real: Path, beside: Path, out: Path, n_train: int, n_validation: int, seed: int) -> None:
    """Paint scenes on hosts of several surveys and put the parts of another data set beside them."""
    out.mkdir(parents=True)
    data = StampSet.open(beside)
    spec = data.images["image"]
    for part in data.parts:
        (out / part.name).symlink_to(os.path.relpath(part.resolve(), out.resolve()))
    others = other_hosts(real, np.random.default_rng([seed, 5]))
    of_split = split_hosts(real, CARD, seed=seed, splits=("train", "validation"))
    for k, (split, n) in enumerate({"train": n_train, "validation": n_validation}.items()):
        mine = [host for j, host in enumerate(others) if (j % VALIDATION_EVERY == 0) == (split == "validation")]
        hosts = hosts_by_scene([*of_split[split], *mine])
        early = {name: sum(h.name.startswith(name) for h in hosts["lens"]) for name in ("kids", "des", "hsc", "cfhtls")}
        print(split, "early types", early, "of all", len(of_split[split]) + len(mine), flush=True)
        for number, start in enumerate(range(0, n, 1000)):
            counts = {kind: round(min(1000, n - start) * share) for kind, share in SHARES.items()}
            place = int(np.random.SeedSequence((seed, k, number)).generate_state(1)[0])
            scenes, truths = make_scenes(counts, hosts, seed=place, card=CARD, least_scale_arcsec=LEAST_SCALE_ARCSEC)
            part_name = f"several-{split}-{number:03d}"
            write_part(_table(scenes, truths, split, part_name, data, spec), out, part_name)


def _table(
    scenes: NDArray[np.floating], truths: list[dict[str, Any]], split: str, part: str, data: StampSet, spec: ImageSpec
) -> pa.Table:
    inside = scenes[..., MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX].astype(np.float32)
    njy = inside * np.float32(16 * spec.pixel_scale_arcsec**2)  # scenes are stored in sixteenths
    order = np.random.default_rng(len(part)).permutation(len(truths))
    values: dict[str, Any] = {
        "stamp_id": [f"{part}-{i:04d}" for i in range(len(order))],
        "label": ["lens" if truths[i]["is_lens"] else "nonlens" for i in order],
        "recipe": ["finder-scenes"] * len(order),
        "seed": [None] * len(order),
        "host": [truths[i]["host"] for i in order],
        "split": [split] * len(order),
        "kind": [truths[i]["kind"] for i in order],
        "survey": [truths[i]["host"].split("-")[0] for i in order],
    }
    arrays = [
        image_column(njy[order], spec)
        if f.name == "image"
        else pa.array(values[f.name], f.type)
        if f.name in values
        else pa.nulls(len(order), f.type)
        for f in data.schema
    ]
    return pa.table(arrays, schema=data.schema)


if __name__ == "__main__":
    main()
