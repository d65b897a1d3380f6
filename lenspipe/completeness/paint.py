"""What happens to a shard between reading and search: nothing in the bare pass, lenses in all others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.completeness.draw import Injection, Lensing, choose_places, draw_arcs_of, numbers_of
from lenspipe.completeness.passes import home_and_pass
from lenspipe.completeness.places import HostChoice, find_places
from lenspipe.completeness.quantities import SKY
from lenspipe.completeness.seeds import share_of
from lenspipe.errors import TileError
from lenspipe.image.cutouts import extract_cutouts
from lenspipe.image.psf_table import PSF_FILE, BandPsf, read_psf
from lenspipe.scan.after.known import MASKED, MASKED_FROM, NOT_DETECTED, NOT_SELECTED
from lenspipe.scan.read import ReadShard
from lenspipe.scan.search import Found
from lenspipe.schema import FROM_STARS
from lenspipe.simulate.instrument import kernels_of
from lenspipe.simulate.render import add_stamp
from lenspipe.sky.wcs import sky_position
from lenspipe.tables import read_parquet

RECOVERED = "a candidate"
"""What happened to a lens that a candidate stands for; the other words are those for known lenses."""
TRUTH = ("theta_e_arcsec", "shear", "shear_angle_rad", "source_z", "magnification", "arc_snr")


@dataclasses.dataclass(frozen=True)
class Bare:
    """The pass that looks for places; picklable."""

    hosts: HostChoice
    seed: int
    n_sky: dict[str, int]
    """Empty places wanted, by shard."""
    clear_arcsec: float
    light_share: float
    stamp_share: float
    stamp_bands: tuple[str, ...]
    stamp_px: dict[str, int]
    """Side of the gate's stamps by tile."""
    score_all: bool
    """Whether all candidates are shown to the finder, and not only the hosts."""

    def __call__(self, read: ReadShard) -> ReadShard:
        """Leave the pixels as they are."""
        return dataclasses.replace(read, watch=partial(self._look, read))

    def _look(self, read: ReadShard, found: Found) -> tuple[Found, pa.Table]:
        home, _ = home_and_pass(read.task.shard.shard_id)
        places, is_host = find_places(
            read,
            found,
            self.hosts,
            seed=self.seed,
            n_sky=self.n_sky[home],
            clear_arcsec=self.clear_arcsec,
            light_share=self.light_share,
            stamp_share=self.stamp_share,
            stamp_bands=self.stamp_bands,
            stamp_px=self.stamp_px[read.task.shard.tile],
        )
        return (found if self.score_all else found.showing(is_host)), places


@dataclasses.dataclass(frozen=True)
class Painter:
    """The passes that paint; picklable. Places and donors lie in files that all workers see."""

    places: Path
    donors: Path
    seed: int
    lensing: Lensing
    area_arcmin2: dict[str, float]
    """Searched, by tile."""
    per_arcmin2: float
    """Lenses per pass."""
    on_sky: float
    """Part of them on empty sky."""
    apart_arcsec: float
    match_arcsec: float
    run: Path
    """Run folder, whose measured PSFs are used; in ``psf_set`` and where stars are too few, a Moffat profile."""
    psf_set: frozenset[str]
    psf_fwhm_arcsec: dict[str, dict[str, float]]
    """By tile and band."""
    sky_rms_njy: dict[str, dict[str, float]]
    """Of a tile's pixels in the bare run, by tile and band; what signal-to-noise is measured against."""
    njy_per_electron: dict[str, float]
    snr_bands: tuple[str, ...]
    stamp_share: float
    stamp_px: dict[str, int]

    def __call__(self, read: ReadShard) -> ReadShard:
        """
        Paint the pass's lenses into a shard, in place; those of the halo too, for files would hold them.

        Raises
        ------
        TileError
            The noise of a band is not known in the tile.
        """
        injections = self.injections(read)
        psf = self._psf(read)
        window, pixels = read.task.shard.window, read.pixels
        layers: dict[str, NDArray[np.float32]] = {}
        truths: dict[str, dict[str, Any]] = {}
        for injection in injections:
            column, row = (int(np.floor(at + 0.5)) for at in (injection.x_px, injection.y_px))
            arcs, noisy, truth = self._arcs(read, injection, psf)
            stamps: list[NDArray[Any]] = [noisy, *self._light(injection, len(pixels.bands))]
            for stamp in stamps:
                _add(pixels.image, pixels.mask, stamp, column - window.x0, row - window.y0)
            layers[injection.injection_id], truths[injection.injection_id] = arcs.astype(np.float32), truth
        inside = [i for i in injections if _in_core(read, i)]
        return dataclasses.replace(read, watch=partial(self._look, read, inside, layers, truths))

    def injections(self, read: ReadShard) -> list[Injection]:
        """The lenses of the pass whose stamps may touch the window."""
        task, scale = read.task, read.facts.pixel_scale_arcsec
        _, name = home_and_pass(task.shard.shard_id)
        tile = task.shard.tile
        if tile not in self.sky_rms_njy or not set(read.pixels.bands) <= self.sky_rms_njy[tile].keys():
            raise TileError("the noise of a band is not known in this tile", tile=tile, stage="paint")
        places = read_parquet(self.places, filters=pc.field("tile") == tile).to_pylist()
        chosen = choose_places(
            places,
            _read_donors(self.donors),
            tile=tile,
            name=name,
            seed=self.seed,
            n=numbers_of(
                self.area_arcmin2[tile],
                per_arcmin2=self.per_arcmin2,
                on_sky=self.on_sky,
                tile=tile,
                name=name,
                seed=self.seed,
            ),
            apart_px=self.apart_arcsec / scale,
        )
        reach = (2 * self.lensing.theta_e_arcsec[1] + 12) / scale
        window = task.shard.window
        return [
            i
            for i in chosen
            if window.x0 - reach < i.x_px < window.x1 + reach and window.y0 - reach < i.y_px < window.y1 + reach
        ]

    def _psf(self, read: ReadShard) -> list[NDArray[np.float64]]:
        """One kernel per band, the same in the whole tile: its shards must paint the same."""
        tile, bands = read.task.shard.tile, read.pixels.bands
        measured = measured_psf(self.run, tile, set(bands) - self.psf_set)
        known = [measured[b].psf if b in measured else self.psf_fwhm_arcsec[tile][b] for b in bands]
        return kernels_of(known, read.facts.pixel_scale_arcsec)

    def _arcs(
        self, read: ReadShard, injection: Injection, kernels: list[NDArray[np.float64]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, Any]]:
        tile, bands, scale = read.task.shard.tile, read.pixels.bands, read.facts.pixel_scale_arcsec
        return draw_arcs_of(
            injection,
            self.lensing,
            bands=bands,
            snr_bands=self.snr_bands,
            pixel_scale_arcsec=scale,
            kernels=kernels,
            sky_rms_njy=np.array([self.sky_rms_njy[tile][band] for band in bands]),
            njy_per_electron=self.njy_per_electron,
            seed=self.seed,
        )

    def _light(self, injection: Injection, n_band: int) -> list[NDArray[np.float32]]:
        """Light of the host, where it is not there already."""
        if injection.place["kind"] != SKY:
            return []
        side = injection.host["light_side_px"]
        return [np.frombuffer(injection.host["light"], "<f4").reshape(n_band, side, side)]

    def _look(
        self,
        read: ReadShard,
        injections: list[Injection],
        layers: dict[str, NDArray[np.float32]],
        truths: dict[str, dict[str, Any]],
        found: Found,
    ) -> tuple[Found, pa.Table]:
        window, scale, bands = read.task.shard.window, read.facts.pixel_scale_arcsec, read.pixels.bands
        radius_px = self.match_arcsec / scale
        of, all_of = found.candidates.sources, found.sources.sources
        shown = np.zeros(len(of), bool)
        rows: list[dict[str, Any]] = []
        for injection in injections:
            x, y = injection.x_px - window.x0, injection.y_px - window.y0
            near = np.hypot(of.x_px - x, of.y_px - y) <= radius_px
            shown |= near
            detected = bool((np.hypot(all_of.x_px - x, all_of.y_px - y) <= radius_px).any())
            fate = RECOVERED if near.any() else NOT_SELECTED if detected else NOT_DETECTED
            if fate == NOT_DETECTED and _masked_part(found.flat.mask, x, y, radius_px) >= MASKED_FROM:
                fate = MASKED
            stamps = self._stamps(injection, layers[injection.injection_id], found, bands, x, y, read.task.shard.tile)
            rows.append(
                {
                    **_facts(injection, truths[injection.injection_id], bands),
                    "fate": fate,
                    "candidates": found.candidates.index[near].tolist(),
                    **stamps,
                }
            )
        ra, dec = sky_position(
            read.facts.wcs, np.array([r["x_px"] for r in rows], float), np.array([r["y_px"] for r in rows], float)
        )
        for row, one, other in zip(rows, ra, dec, strict=True):
            row |= {"ra": float(one), "dec": float(other)}
        return found.showing(shown), pa.Table.from_pylist(rows, note_schema(bands))

    def _stamps(
        self,
        injection: Injection,
        arcs: NDArray[np.float32],
        found: Found,
        bands: tuple[str, ...],
        x: float,
        y: float,
        tile: str,
    ) -> dict[str, bytes]:
        """For the realism gate: the lens as it is found, and without its arcs."""
        if share_of(self.seed, "stamp", injection.injection_id) >= self.stamp_share:
            return {}
        wanted, size = [bands.index(band) for band in self.snr_bands], self.stamp_px[tile]
        at = np.array([x]), np.array([y])
        cut, _ = extract_cutouts(found.flat.image, found.flat.mask, *at, size_px=size)
        stamp = cut[0, wanted]
        layer = np.zeros((len(wanted), size, size), np.float32)
        add_stamp(layer, arcs[wanted], size // 2, size // 2)
        bare = np.where(stamp == 0, np.float32(0), stamp - layer)
        return {"stamp": stamp.astype("<f4").tobytes(), "without_arcs": bare.astype("<f4").tobytes()}


def measured_psf(run: Path, tile: str, bands: set[str]) -> dict[str, BandPsf]:
    """PSFs that a run measured from the stars of a tile, of some bands: the one of median width among its shards."""
    if not (run / PSF_FILE).exists():  # a run of before
        return {}
    of_tile = read_psf(run, tile=tile)
    typical = {band: of_tile.typical(band) for band in bands}
    return {band: psf for band, psf in typical.items() if psf is not None and psf.psf_from == FROM_STARS}


def note_schema(bands: Sequence[str]) -> pa.Schema:
    """What is kept of the injections of a shard in a pass."""
    return pa.schema(
        [
            *(pa.field(name, pa.string()) for name in ("injection_id", "kind", "tile", "host_id", "fate")),
            *(
                pa.field(name, pa.float64())
                for name in (
                    *("x_px", "y_px", "ra", "dec", "host_axis_ratio", "host_half_light_radius_arcsec"),
                    *TRUTH,
                    *(f"{what}_{band}" for what in ("arc_mag", "source_mag", "host_mag") for band in bands),
                )
            ),
            pa.field("n_image", pa.int32()),
            pa.field("candidates", pa.list_(pa.int64())),
            pa.field("stamp", pa.large_binary()),
            pa.field("without_arcs", pa.large_binary()),
        ]
    )


def _facts(injection: Injection, truth: dict[str, Any], bands: Sequence[str]) -> dict[str, Any]:
    host = injection.host
    return {
        "injection_id": injection.injection_id,
        "kind": injection.place["kind"],
        "tile": injection.place["tile"],
        "host_id": host["place_id"],
        "x_px": injection.x_px,
        "y_px": injection.y_px,
        "host_axis_ratio": host["axis_ratio"],
        "host_half_light_radius_arcsec": host["half_light_radius_arcsec"],
        "n_image": int(truth["n_image"]),
        **{name: float(truth[name]) for name in TRUTH},
        **{f"{what}_{band}": float(truth[f"{what}_{band}"]) for what in ("arc_mag", "source_mag") for band in bands},
        **{f"host_mag_{band}": host.get(f"mag_{band}") for band in bands},
    }


def _read_donors(path: Path) -> list[dict[str, Any]]:
    return read_parquet(path).to_pylist()


def _in_core(read: ReadShard, injection: Injection) -> bool:
    at = np.array([injection.x_px]), np.array([injection.y_px])
    return bool(read.task.shard.core.contains(*at)[0])


def _add(
    image: NDArray[np.float32], mask: NDArray[np.bool_], stamp: NDArray[np.floating], column: int, row: int
) -> None:
    """Add a stamp in place, pixels without data excepted."""
    half = stamp.shape[-1] // 2
    y0, x0 = max(row - half, 0), max(column - half, 0)
    box = np.s_[:, y0 : max(row + half + 1, 0), x0 : max(column + half + 1, 0)]
    view = image[box]
    if view.size:
        layer = np.zeros(view.shape, np.float32)
        add_stamp(layer, stamp, column - x0, row - y0)
        view += np.where(mask[box], np.float32(0), layer)


def _masked_part(masks: NDArray[np.bool_], x: float, y: float, radius_px: float) -> float:
    """Masked part of a circle in the worst band."""
    reach = int(np.ceil(radius_px))
    y0, x0 = max(0, int(y) - reach), max(0, int(x) - reach)
    box = masks[:, y0 : int(y) + reach + 2, x0 : int(x) + reach + 2]
    rows, columns = np.mgrid[y0 : y0 + box.shape[1], x0 : x0 + box.shape[2]]
    circle = np.hypot(columns - x, rows - y) <= radius_px
    return max((float(plane[circle].mean()) for plane in box), default=1.0) if circle.any() else 1.0
