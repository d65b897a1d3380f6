"""The stars of a shard's window: the locus that candidates are cut by, and the PSF of every band."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lenspipe.image.psf import Psf, measure_psf
from lenspipe.image.sky import Flat
from lenspipe.image.stars import StarLocus, find_locus, saturated_stars
from lenspipe.scan.config import SelectConfig
from lenspipe.scan.measure import Window, smaller_than_stated
from lenspipe.schema import FROM_LAYOUT, FROM_NOTHING, FROM_STARS


@dataclasses.dataclass(frozen=True, eq=False)
class ShardStars:
    """What the stars of a window say."""

    cut_from: str
    """What the star cut goes by: the stars themselves, the layout's PSF, or nothing."""
    locus: StarLocus | None
    psf: tuple[Psf | None, ...]
    """Of each band; None where its stars are too few."""
    are_stars: NDArray[np.bool_]
    """Which sources of the core are cut as stars."""
    galaxy_fraction: NDArray[np.float64]
    """Estimated probability of each to be a galaxy all the same; NaN where the cut does not go by the stars."""


def measure_stars(
    window: Window,
    flat: Flat,
    config: SelectConfig,
    *,
    bands: tuple[str, ...],
    pixel_scale_arcsec: float,
    psf_fwhm_arcsec: dict[str, float],
) -> ShardStars:
    """
    Find the stars of a window by their size, and measure the PSF of each band from them.

    Where they are too few to be found, the cut is that of `smaller_than_stated`.

    Parameters
    ----------
    window : Window
        Sources of the core and bright ones beside it.
    flat : Flat
        The window's images and noise.
    config : SelectConfig
    bands, pixel_scale_arcsec
        Of the tile.
    psf_fwhm_arcsec : dict
        What the layout states.
    """
    measured, snr = window.measured, window.snr
    radius, x, y = measured.apertures.half_light_radius_px, measured.sources.x_px, measured.sources.y_px
    width = config.star_cut or SelectConfig().star_cut
    clean, purity_min = measured.flags == 0, config.star_purity_min
    locus = find_locus(radius, snr, clean, x, y, width_sigma=width, purity_min=purity_min)
    if locus is None:
        core = window.core
        small = smaller_than_stated(
            core, bands=bands, pixel_scale_arcsec=pixel_scale_arcsec, psf_fwhm_arcsec=psf_fwhm_arcsec
        )
        stated = any(band in psf_fwhm_arcsec for band in bands)
        cut = small if config.star_cut else np.zeros(len(small), bool)
        nothing = np.full(len(small), np.nan)
        return ShardStars(FROM_LAYOUT if stated else FROM_NOTHING, None, (None,) * len(bands), cut, nothing)
    stars = locus.are_stars(radius, snr, x, y)
    flat_core = _flatness(window.image, x, y, np.flatnonzero(snr > locus.brightest_snr(snr)), locus.radius_px)
    stars |= saturated_stars(locus, radius, snr, x, y, flat_core)
    psf = tuple(
        None
        if rms is None
        else measure_psf(
            image,
            rms,
            mask,
            window.segments,
            measured.sources.label[locus.members],
            x[locus.members],
            y[locus.members],
            half_light_radius_px=locus.radius_px,
        )
        for image, rms, mask in zip(flat.image, flat.median_rms, flat.mask, strict=True)
    )
    if not config.star_cut:
        stars = np.zeros(len(stars), bool)
    core_snr = snr[window.in_core]
    return ShardStars(FROM_STARS, locus, psf, stars[window.in_core], locus.galaxies_among(core_snr))


def _flatness(
    image: NDArray[np.float32],
    x_px: NDArray[np.float64],
    y_px: NDArray[np.float64],
    rows: NDArray[np.intp],
    radius: float,
) -> NDArray[np.float64]:
    """Mean over largest pixel within a PSF's half-light radius, of the sources at ``rows``; 0 elsewhere."""
    flat = np.zeros(len(x_px))
    reach = max(1, int(np.ceil(radius)))
    steps = np.arange(-reach, reach + 1)
    disc = np.hypot(steps[None], steps[:, None]) <= max(radius, 1.0)
    for k in rows:
        row, column = int(np.floor(y_px[k] + 0.5)), int(np.floor(x_px[k] + 0.5))
        box = image[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        if box.shape == disc.shape and box[disc].max() > 0:
            flat[k] = box[disc].mean() / box[disc].max()
    return flat


def star_columns(
    stars: ShardStars, bands: tuple[str, ...], stated_fwhm_arcsec: dict[str, float], pixel_scale_arcsec: float
) -> dict[str, object]:
    """
    Columns of a shard's row about its stars and PSFs.

    A band whose stars are too few has the FWHM that the layout states, and says so.
    """
    rows = [
        _psf_row(band, psf, stated_fwhm_arcsec.get(band), pixel_scale_arcsec)
        for band, psf in zip(bands, stars.psf, strict=True)
    ]
    values: dict[str, object] = {
        "star_cut_from": stars.cut_from,
        "n_star": stars.locus.n_star if stars.locus else 0,
        "star_radius_arcsec": stars.locus.radius_px * pixel_scale_arcsec if stars.locus else None,
        "psf": rows,
    }
    for row in rows:
        band = row["band"]
        values[f"psf_fwhm_{band}_arcsec"] = row["fwhm_arcsec"]
        values[f"psf_n_star_{band}"] = row["n_star"]
        values[f"psf_from_{band}"] = row["psf_from"]
        values[f"psf_ellipticity_{band}"], values[f"psf_variation_{band}"] = (
            row.get("ellipticity"),
            row.get("variation"),
        )
    return values


def _psf_row(band: str, psf: Psf | None, stated_arcsec: float | None, pixel_scale_arcsec: float) -> dict[str, Any]:
    row: dict[str, Any] = {
        "band": band,
        "psf_from": FROM_NOTHING if stated_arcsec is None else FROM_LAYOUT,
        "n_star": 0,
        "fwhm_arcsec": stated_arcsec,
        "pixel_scale_arcsec": pixel_scale_arcsec,
    }
    if psf is None:
        return row
    measured = ("n_star", "snr", "scatter", "beta", "ellipticity", "angle_deg")
    return (
        row
        | {name: getattr(psf, name) for name in measured}
        | {
            "psf_from": FROM_STARS,
            "fwhm_arcsec": psf.fwhm_px * pixel_scale_arcsec,
            "variation": psf.variation if np.isfinite(psf.variation) else None,
            "stack": psf.stack.ravel().tolist(),
        }
    )


def star_record(shards: pa.Table, bands: tuple[str, ...]) -> dict[str, Any]:
    """
    What the shards of a run say of its stars, for ``run.json``.

    Parameters
    ----------
    shards : pa.Table
        Rows of ``shards.parquet``.

    Returns
    -------
    dict
        ``cut``: sources cut as stars, galaxies expected among them, and shards by what the cut goes by. ``psf``: by
        band shards by where the PSF comes from, and of those from stars the stars and the median, smallest and largest
        FWHM.
    """
    ok = shards.filter(pc.equal(shards["status"], "ok"))
    record: dict[str, Any] = {
        "cut": {
            "stars": pc.sum(ok["n_star_cut"]).as_py() or 0,
            "galaxies_expected": round(pc.sum(ok["n_galaxy_cut"]).as_py() or 0.0, 1),
            "shards_by": _counts(ok["star_cut_from"]),
        },
        "psf": {},
    }
    for band in bands:
        seen = ok.filter(pc.equal(ok[f"psf_from_{band}"], FROM_STARS))
        fwhm = seen[f"psf_fwhm_{band}_arcsec"].to_numpy()
        record["psf"][band] = {
            "shards_by": _counts(ok[f"psf_from_{band}"]),
            "n_star": pc.sum(seen[f"psf_n_star_{band}"]).as_py() or 0,
            **{
                f"fwhm_{name}_arcsec": round(float(f(fwhm)), 4) if len(fwhm) else None
                for name, f in (("median", np.median), ("min", np.min), ("max", np.max))
            },
        }
    return record


def star_lines(record: dict[str, Any], *, star_cut: float) -> list[str]:
    """Lines of a scan's summary: what was cut as stars, how wide PSFs are, a warning where stars are too few."""
    cut, by = record["cut"], record["cut"]["shards_by"]
    n_shard = sum(by.values())
    if not n_shard:
        return []
    lines: list[str] = []
    if not star_cut:
        lines.append("no source was cut as a star (select.star_cut = 0)")
    elif by.get(FROM_STARS):
        lines.append(
            f"{cut['stars']} sources were cut as stars; about {cut['galaxies_expected']:.0f} of them may be galaxies, "
            "by the density of sizes just above the stellar locus"
        )
    elif by.get(FROM_LAYOUT):
        lines.append(f"{cut['stars']} sources were cut as stars")
    widths = [
        f"{band} {row['fwhm_median_arcsec']:.2f}"
        + (
            f" ({row['fwhm_min_arcsec']:.2f} to {row['fwhm_max_arcsec']:.2f})"
            if row["fwhm_max_arcsec"] - row["fwhm_min_arcsec"] > 0.01 * row["fwhm_median_arcsec"]
            else ""
        )
        for band, row in record["psf"].items()
        if row["fwhm_median_arcsec"] is not None
    ]
    if widths:
        lines.append(f"PSF from stars, FWHM in arcsec: {', '.join(widths)}")
    for source, what in (
        (FROM_LAYOUT, "the cut goes by the FWHM that the survey's layout states, and most stars stay"),
        (FROM_NOTHING, "and the survey's layout states no PSF: no source was cut as a star"),
    ):
        if star_cut and by.get(source):
            lines.append(
                f"WARNING: {by[source]} of {n_shard} shards have too few stars to tell them from galaxies: {what}"
            )
    return lines


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(column.drop_null()).to_pylist() if row["values"]}
