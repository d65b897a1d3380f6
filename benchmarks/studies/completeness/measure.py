"""
A thousand lenses painted into the KiDS tile: completeness, the realism gate, and what it costs in scans of the tile.

    python -m benchmarks.studies.completeness.measure --real ../shared/data

Of 1,250 lenses that are asked for about a thousand find room: the tile has fewer red galaxies than passes want.
Real lenses are those of Space Warps with a grade of 2 and more: another survey, so the gate must not pass. Cost is
processor time of the whole command, fits, gate and page included, over that of a scan, both without imports.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks import record
from benchmarks.studies.real_sky.ground import BANDS, CFHTLS_SCALE_ARCSEC, spacewarps_stamps
from benchmarks.timing import Clock
from lenspipe.catalog.run_rows import Run, open_run_folder
from lenspipe.completeness.config import CompletenessConfig
from lenspipe.completeness.finish import Outcome
from lenspipe.completeness.measure import measure_completeness
from lenspipe.completeness.page import N_SHOWN
from lenspipe.completeness.selection import recovered
from lenspipe.runner import SILENT, here
from lenspipe.scan.config import ScanConfig
from lenspipe.scan.local import scan_local
from lenspipe.scan.request import ScanRequest
from lenspipe.scan.run import run_scan
from lenspipe.stamps.convert import convert
from lenspipe.stamps.readers.stream import LabelledStamp, stream_stamps
from lenspipe.stamps.spec import ImageSpec
from lenspipe.stamps.splits import DEFAULT_FRACTIONS
from lenspipe.stats.intervals import fraction
from lenspipe.stats.smooth import Axis, fit_smooth
from lenspipe.survey.layout import read_layout
from lenspipe.tables import read_parquet

N_PLANTED, N_GROUP, N_PLACE = 1000, 150, 60


@click.command()
@click.option("--real", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of real pixels.")
@click.option("--count", default=1250, show_default=True, help="Lenses to paint.")
@click.option(
    "--keep-in", type=click.Path(path_type=Path), default=None, help="Folder of run and result. [default: none]"
)
@record.keep_option
def main(real: Path, count: int, keep_in: Path | None, keep: bool) -> None:
    """Measure and record."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep_in or Path(scratch)
        run, scan_clock = scanned(real, folder / "run")
        stamps = write_spacewarps(real, folder / "spacewarps")
        config = CompletenessConfig(count=count)
        measure(run, folder / "warm-up", config.model_copy(update={"count": 30}), None)  # imports
        with Clock() as clock:
            outcome = measure(run, folder / "sel", config, stamps)
        n = sum(of["n"] for of in outcome.selection.record["counts"].values())
        result = {
            "asked": count,
            "count": n,
            "scan": scan_clock.seconds(),
            "completeness": clock.seconds(),
            "scans_per_1000": round(clock.cpu_s / scan_clock.cpu_s * 1000 / n, 2),
            "notes": list(outcome.notes),
            "fates": outcome.selection.record["counts"],
            "at": {f"{r['at']}, {r['kind']}": r for r in outcome.rows if r["quantity"] == "all"},
            "theta_e_1_to_2.5_snr_30": bright(folder / "sel", outcome),
            "missed": missed(folder / "sel", outcome),
            "theta_e_1.5_snr_40": dataclasses.asdict(outcome.selection(theta_e_arcsec=1.5, arc_snr=40)),
            "gate": outcome.gate,
            "planted": coverage(np.random.default_rng(1)),
        }
        record.write(
            "completeness",
            result,
            [
                record.at_most("cost of 1,000 painted lenses, in scans of the tile", result["scans_per_1000"], 10),
                record.at_least("planted function within the 95 % interval", result["planted"]["held"], 0.92),
            ],
            keep=keep,
        )


def scanned(real: Path, out: Path) -> tuple[Run, Clock]:
    """The tile scanned twice, the second time with all imports behind it."""
    request = ScanRequest(
        (str(real / "tiles/kids_viking"),),
        read_layout("kids"),
        ScanConfig.model_validate({"score": {"model": "ground-gri"}}),
        None,
    )
    run_scan(request, out.with_name("run-first"), here(scan_local), SILENT, resume=False)
    with Clock() as clock:
        run_scan(request, out, here(scan_local), SILENT, resume=False)
    return open_run_folder(out), clock


def measure(run: Run, out: Path, config: CompletenessConfig, real: Path | None) -> Outcome:
    """The command, in the plain loop."""
    return measure_completeness(
        run, "ground-gri", out, config, seed=2026, real=real, runner=here(scan_local), progress=SILENT, resume=False
    )


def write_spacewarps(real: Path, out: Path) -> Path:
    """Lenses of Space Warps as a data set."""
    stamps, grade = spacewarps_stamps(real)
    lenses = stamps[grade >= 2]
    spec = ImageSpec(BANDS, lenses.shape[-1], CFHTLS_SCALE_ARCSEC)

    by_name = {f"warps-{k}": stamp for k, stamp in enumerate(lenses)}

    def one(name: str) -> LabelledStamp:
        return LabelledStamp(name, {"image": by_name[name]}, "lens", name, {})

    stream = stream_stamps("spacewarps", {"image": spec}, [], list(by_name), one, n=len(by_name))
    convert(stream, out, seed=0, fractions=DEFAULT_FRACTIONS, margin_arcsec=5.0)
    return out


def bright(folder: Path, outcome: Outcome) -> dict[str, Any]:
    """Recall of arcs of 1 to 2.5 arcsec and a signal-to-noise of 30 and more, as the finder's own studies count."""
    table = read_parquet(folder / "injections.parquet")
    theta, snr = (table[name].to_numpy() for name in ("theta_e_arcsec", "arc_snr"))
    chosen = (theta >= 1) & (theta <= 2.5) & (snr >= 30)
    kind = np.array(table["kind"].to_pylist())
    found = {}
    for point in outcome.selection.points:
        passed = recovered(table, point.threshold)
        for of in ("host", "sky"):
            rows = chosen & (kind == of)
            found[f"{point.name}, {of}"] = fraction(int(passed[rows].sum()), int(rows.sum()))
    return found


def missed(folder: Path, outcome: Outcome) -> dict[str, Any]:
    """Of the brightest arcs that were missed at the first point, as many as a page shows: radii below an arcsec."""
    table, point = read_parquet(folder / "injections.parquet"), outcome.selection.points[0]
    lost = table.filter(~recovered(table, point.threshold)).sort_by([("arc_snr", "descending")])
    found: dict[str, Any] = {"at": point.name}
    for kind in ("host", "sky"):
        theta = lost.filter(pc.equal(lost["kind"], kind))["theta_e_arcsec"].to_numpy()[:N_SHOWN]
        found[kind] = {"n": len(theta), "below_1_arcsec": int((theta < 1).sum())}
    return found


def planted(theta: NDArray[np.float64], snr: NDArray[np.float64], mag: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log odds of a completeness that rises with radius and signal-to-noise, not as splines do."""
    s = np.log(snr / 25)
    return np.asarray(-0.5 + 3 * np.tanh(2 * np.log(theta)) + 1.5 * s - 0.5 * (mag - 19) + 0.5 * np.log(theta) * s)


def coverage(rng: np.random.Generator, n_time: int = 60) -> dict[str, Any]:
    """How often the smooth fit's interval holds the truth, where lenses of one host are alike by 0.5 in log odds."""
    axes = (Axis("theta", 0.5, 3.0, log=True), Axis("snr", 5.0, 150.0, log=True), Axis("mag", 16.0, 21.0))

    def draw(n: int) -> dict[str, NDArray[np.float64]]:
        return {
            "theta": np.exp(rng.uniform(np.log(0.5), np.log(3), n)),
            "snr": np.exp(rng.uniform(np.log(5), np.log(150), n)),
            "mag": rng.uniform(16, 21, n),
        }

    at = draw(N_PLACE)
    truth = expit(planted(at["theta"], at["snr"], at["mag"]) + rng.normal(0, 0.5, (4000, 1))).mean(axis=0)
    held, width = [], []
    for _ in range(n_time):
        group = rng.integers(0, N_GROUP, N_PLANTED)
        values = draw(N_PLANTED) | {"mag": rng.uniform(16, 21, N_GROUP)[group]}
        odds = planted(values["theta"], values["snr"], values["mag"]) + rng.normal(0, 0.5, N_GROUP)[group]
        passed = rng.uniform(size=N_PLANTED) < expit(odds)
        fit = fit_smooth(passed, values, axes, products=[("theta", "snr")], groups=group, n_bootstrap=60, rng=rng)
        _, low, high = fit.fraction(at)
        held.append((low <= truth) & (truth <= high))
        width.append(high - low)
    each = np.mean(held, axis=0)
    return {
        "held": float(np.mean(each)),
        "least_at_a_place": float(each.min()),
        "width": float(np.mean(width)),
        "times": n_time,
        "places": N_PLACE,
    }


if __name__ == "__main__":
    main()
