"""Finders on the real sky: ordinary galaxies, arcs painted into a tile, candidates that people graded, known lenses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.studies.data import KIDS_FWHM_ARCSEC, KIDS_ROWS, KIDS_SCALE_ARCSEC, cfhtls_tile, kids_tile, study_hosts
from lenspipe.catalog.known import read_known_lenses
from lenspipe.image.stretch import humvi_inverse
from lenspipe.infer.predict import Predictor
from lenspipe.infer.prepare import cutout_size_px
from lenspipe.infer.stamps import stamp_input
from lenspipe.simulate.paint import Host, paint_tile
from lenspipe.sky.sphere import separation_arcsec
from lenspipe.stamps.splits import half_of
from lenspipe.stats.counts import ScoreCounts
from lenspipe.stats.curves import auroc, auroc_interval
from lenspipe.stats.intervals import fraction
from lenspipe.stats.recall import recall_in_bins, threshold_passed_by

BANDS = ("g", "r", "i")
CFHTLS_SCALE_ARCSEC = 0.186
CANDIDATE_PX = (222.0, 230.0)
HUMVI_SCALES, HUMVI_ALPHA, HUMVI_Q = (0.4, 0.6, 1.7), 0.09, 1.0
NJY_PER_COUNT = 10 ** (0.4 * 1.4)
NEAR_KNOWN_ARCSEC = 5.0
ORDINARY_MAG_I, ORDINARY_RADIUS_ARCSEC = 22.0, 0.7
SNR_EDGES = (10.0, 20.0, 30.0, 50.0, 100.0, np.inf)
PASSING = (0.01, 0.05)
"""Parts of the real ordinary galaxies that pass the thresholds at which recall is given."""
Logits = NDArray[np.float64]


@dataclass(frozen=True)
class Tile:
    """A real tile, its sources, and where they are."""

    images_njy: NDArray[np.float32]
    hosts: list[Host]
    at: NDArray[np.float64]


def logits(predictor: Predictor, stamps_njy: NDArray[np.float32], scale_arcsec: float) -> Logits:
    """Logits ``(n,)`` of g r i stamps of any size; scores near 1 would tie, these do not."""
    return predictor.outputs(
        stamp_input(stamps_njy, bands=BANDS, pixel_scale_arcsec=scale_arcsec, card=predictor.card)
    )[:, 0]


def host_logits(predictor: Predictor, hosts: Sequence[Host]) -> Logits:
    """Logits of the sources of one tile."""
    return logits(predictor, np.stack([host.pixels_njy for host in hosts]), hosts[0].pixel_scale_arcsec)


def kids_test(real: Path, predictor: Predictor, images_njy: NDArray[np.float32] | None = None) -> Tile:
    """
    The rows of the KiDS tile that no training uses (1690 on), and the sources that are found in them (`SEARCH`).

    Parameters
    ----------
    real : Path
        Folder of real pixels.
    predictor : Predictor
        Sets the size of the cutouts.
    images_njy : array (band, y, x), optional
        The same rows with something painted on them.
    """
    images = kids_tile(real)[:, KIDS_ROWS["test"][0] :] if images_njy is None else images_njy
    size_px = cutout_size_px(predictor.card, KIDS_SCALE_ARCSEC) | 1
    hosts, at = study_hosts(
        images,
        name="kids",
        pixel_scale_arcsec=KIDS_SCALE_ARCSEC,
        psf_fwhm_arcsec=np.array(KIDS_FWHM_ARCSEC),
        size_px=size_px,
    )
    return Tile(images, hosts, at)


def ordinary(tile: Tile) -> list[Host]:
    """Resolved galaxies brighter than i = 22 that lie whole in the tile: what a lens must stand out from."""
    size = tile.hosts[0].pixels_njy.shape[-1]
    inside = ((tile.at > size / 2) & (tile.at < np.array(tile.images_njy.shape[:0:-1]) - size / 2)).all(axis=1)
    return [
        host
        for host, whole in zip(tile.hosts, inside, strict=True)
        if whole and host.mag < ORDINARY_MAG_I and host.radius_arcsec > ORDINARY_RADIUS_ARCSEC
    ]


def injected(
    predictor: Predictor, real: Path, tile: Tile, *, seed: int, n_pass: int = 12, min_arc_snr: float = 10.0
) -> list[dict[str, Any]]:
    """
    Arcs painted around early types of the KiDS rows, found and scored again from the painted pixels.

    Each pass paints a third of the hosts, then detects, cuts out and scores as for the bare tile. Einstein radii are
    log-uniform from 0.8" to 3".

    Returns
    -------
    list of dict
        One row an arc: ``theta_e_arcsec``, ``arc_snr``, ``arc_mag_r`` and ``logit``; None where no source is detected
        within 1" of the host.
    """
    rows: list[dict[str, Any]] = []
    for again, near, found, truth in painted_passes(
        predictor, real, tile, seed=seed, n_pass=n_pass, min_arc_snr=min_arc_snr
    ):
        scores = host_logits(predictor, [again.hosts[k] for k in near])
        for row, score, seen in zip(truth, scores, found, strict=True):
            kept = {key: row[key] for key in ("theta_e_arcsec", "arc_snr", "arc_mag_r")}
            rows.append({**kept, "logit": float(score) if seen else None})
    return rows


def painted_passes(
    predictor: Predictor, real: Path, tile: Tile, *, seed: int, n_pass: int, min_arc_snr: float
) -> Iterator[tuple[Tile, NDArray[np.int64], NDArray[np.bool_], list[dict[str, Any]]]]:
    """
    Of each pass (`injected`): the tile searched again, the source nearest to each painted host, whether it lies within
    1", and the truth.
    """
    early = [k for k, host in enumerate(tile.hosts) if host.kind == "early"]
    for number in range(n_pass):
        chosen = early[number % 3 :: 3]
        hosts = [tile.hosts[k] for k in chosen]
        painted, truth = paint_tile(
            tile.images_njy,
            tile.at[chosen, 0],
            tile.at[chosen, 1],
            seed=seed * 1000 + number,
            bands=BANDS,
            pixel_scale_arcsec=KIDS_SCALE_ARCSEC,
            psf=KIDS_FWHM_ARCSEC,
            sky_rms_njy=hosts[0].sky_rms_njy,
            min_arc_snr=min_arc_snr,
            axis_ratio=np.array([h.axis_ratio for h in hosts]),
            angle_rad=np.array([h.angle_rad for h in hosts]),
        )
        again = kids_test(real, predictor, painted)
        near, distance = _nearest(again.at, tile.at[chosen])
        yield again, near, distance * KIDS_SCALE_ARCSEC < 1.0, truth.to_pylist()


def completeness(
    rows: Sequence[dict[str, Any]],
    threshold: float,
    *,
    theta_e_edges_arcsec: Sequence[float] = (0.8, 1.0, 1.5, 2.0, 2.5, 3.0),
) -> dict[str, Any]:
    """Part of painted arcs above a threshold, by Einstein radius and by signal-to-noise; undetected ones count."""
    passed = np.array([row["logit"] is not None and row["logit"] > threshold for row in rows])
    theta, snr = (np.array([row[key] for row in rows]) for key in ("theta_e_arcsec", "arc_snr"))
    out: dict[str, Any] = {
        "theta_e_arcsec": recall_in_bins(passed, theta, theta_e_edges_arcsec),
        "arc_snr": recall_in_bins(passed, snr, SNR_EDGES),
    }
    bright = (theta >= 1.0) & (theta <= 2.5) & (snr >= 30)
    out["theta_e_1_to_2.5_snr_30"] = fraction(int(passed[bright].sum()), int(bright.sum()))
    out["all"] = fraction(int(passed.sum()), len(rows))
    out["detected"] = fraction(sum(row["logit"] is not None for row in rows), len(rows))
    out["n_bright"] = len(bright_arcs(rows))
    return out


def bright_arcs(rows: Sequence[dict[str, Any]]) -> Logits:
    """Logits of detected arcs with an Einstein radius of 1" and more and a signal-to-noise of 30 and more."""
    kept = [
        row["logit"]
        for row in rows
        if row["logit"] is not None and row["theta_e_arcsec"] >= 1.0 and row["arc_snr"] >= 30
    ]
    return np.array(kept)


def spacewarps_stamps(real: Path, *, reserved: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """
    Stamps in nJy ``(n, band, y, x)`` and expert grades of half of the Space Warps candidates.

    The half whose names have an even SHA-256 is for choosing; the other, with ``reserved``, is to be scored once, for
    the model that was chosen. ASW0006wpc, which lies in the CFHTLS tile, and stamps of grade 0.3 within 5" of a known
    lens are left out. The pictures are stretched eight-bit ones turned back into flux: negative noise is clipped and
    cores are saturated.
    """
    folder = real / "stamps/spacewarps"
    stored = np.load(folder / "spacewarps_cfhtls_dev.npz")
    grade = stored["grade"]
    table = np.genfromtxt(folder / "labels_dev.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    by_name = {str(row["name"]): row for row in table}
    known = read_known_lenses("lenscat")
    ra, dec = known["ra"].to_numpy(), known["dec"].to_numpy()
    rows = []
    for k, name in enumerate(map(str, stored["name"])):
        odd = half_of(name) == "odd"
        row = by_name[name]
        if odd != reserved or row["zoo_id"] == "ASW0006wpc":
            continue
        if np.isclose(grade[k], 0.3):
            away = separation_arcsec(ra, dec, row["ra_deg"], row["dec_deg"])
            if away.min() < NEAR_KNOWN_ARCSEC:
                continue
        rows.append(k)
    composite = stored["images"][rows][:, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
    counts = humvi_inverse(composite, band_scales=HUMVI_SCALES, alpha=HUMVI_ALPHA, q=HUMVI_Q)
    njy = np.ascontiguousarray(counts[:, ::-1]) * np.float32(NJY_PER_COUNT)
    return njy, grade[rows].astype(np.float64)


def cfhtls_rank(predictor: Predictor, real: Path) -> dict[str, Any]:
    """Rank of SL2SJ142209+524652 among the sources of its CFHTLS tile, 1 the best."""
    hosts, at = study_hosts(
        cfhtls_tile(real),
        name="cfhtls",
        pixel_scale_arcsec=CFHTLS_SCALE_ARCSEC,
        psf_fwhm_arcsec=np.array([0.9, 0.8, 0.75]),
        size_px=cutout_size_px(predictor.card, CFHTLS_SCALE_ARCSEC) | 1,
    )
    scores = host_logits(predictor, hosts)
    near, distance = _nearest(at, np.array([CANDIDATE_PX]))
    return {
        "n_sources": len(hosts),
        "rank": int((scores > scores[near[0]]).sum()) + 1,
        "distance_arcsec": float(distance[0] * CFHTLS_SCALE_ARCSEC),
        "candidate_logit": float(scores[near[0]]),
    }


def area(lens: Logits, other: Logits) -> dict[str, Any]:
    """AUROC with its interval and the numbers of both; null where one is empty."""
    if not (len(lens) and len(other)):
        return {"value": None, "why": "a class is empty", "n": [len(lens), len(other)]}
    counts = ScoreCounts.of(expit(np.r_[lens, other]), np.arange(len(lens) + len(other)) < len(lens))
    return {"value": auroc(counts), "interval95": list(auroc_interval(counts)), "n": [len(lens), len(other)]}


def ground_real_sky(
    predictor: Predictor, real: Path, *, seed: int = 2026, n_pass: int = 12, reserved: bool = False
) -> dict[str, Any]:
    """
    A g r i finder on KiDS galaxies, on arcs painted among them, on Space Warps candidates and in the CFHTLS tile.

    Parameters
    ----------
    predictor : Predictor
        Finder with the bands g r i.
    real : Path
        Folder of real pixels.
    seed : int
        Of the painted arcs.
    n_pass : int
        Passes of painting; each of some 60 hosts carries an arc in a third of them.
    reserved : bool
        Score the reserved half of Space Warps; for the chosen model alone, once.
    """
    tile = kids_test(real, predictor)
    galaxies = host_logits(predictor, ordinary(tile))
    arcs = injected(predictor, real, tile, seed=seed, n_pass=n_pass)
    stamps, grade = spacewarps_stamps(real, reserved=reserved)
    warps = logits(predictor, stamps, CFHTLS_SCALE_ARCSEC)
    good, poor = warps[grade >= 2], warps[np.isclose(grade, 0.3)]
    bright = bright_arcs(arcs)
    found: dict[str, Any] = {
        "n_kids_galaxies": len(galaxies),
        "kids_logits": galaxies.tolist(),
        "spacewarps_half": "reserved" if reserved else "for choosing",
        "auc_spacewarps_good_against_kids": area(good, galaxies),
        "auc_spacewarps_good_against_grade_0.3": area(good, poor),
        "auc_painted_arcs_against_kids": area(bright, galaxies),
        "kids_above_what_80_percent_of_painted_arcs_pass": fraction(
            int((galaxies >= np.quantile(bright, 0.2)).sum()), len(galaxies)
        ),
        "cfhtls": cfhtls_rank(predictor, real),
    }
    for part in PASSING:
        at = threshold_passed_by(galaxies, part)
        found[f"where_{part:g}_of_kids_pass"] = {
            "threshold_logit": at,
            "kids_passing": fraction(int((galaxies > at).sum()), len(galaxies)),
            "spacewarps_good": fraction(int((good > at).sum()), len(good)),
            "spacewarps_grade_0.3": fraction(int((poor > at).sum()), len(poor)),
            "painted_arcs": completeness(arcs, at),
        }
    return found


def _nearest(of: NDArray[np.float64], to: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    apart = np.hypot(of[None, :, 0] - to[:, None, 0], of[None, :, 1] - to[:, None, 1])
    near = apart.argmin(axis=1)
    return near, apart[np.arange(len(to)), near]
