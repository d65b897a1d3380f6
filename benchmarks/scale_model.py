"""
What whole surveys would take, on paper: wall time, processor hours, memory and cost of a scan on 1 to 1,000 nodes.

    python -m benchmarks.scale_model

Every rate is a record of `results`; what is not measured is an assumption that the result names. The rate of pixels
is that of a whole scan by the plain loop (`scan_ray_speed`) less what scoring alone takes, so the loop's own time is no
test of it; the whole scan with two workers is one, the same scan on clusters of one node and of two (`two_nodes`)
another, and the rate of detection alone stands beside it.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from typing import Any

import click

from benchmarks import record
from lenspipe.distributed.choice import RAY_START_S

NODES = (1, 10, 100, 1000)
CORE_PX = 2048


@dataclasses.dataclass(frozen=True)
class Survey:
    """A survey as it lies on disk."""

    name: str
    area_deg2: float
    bands: int
    pixel_scale_arcsec: float
    depth_i_mag: float
    overlap: float
    """Pixels that are read over those of the sky: tiles overlap."""
    source: str


SURVEYS = (
    Survey("Euclid DR1, VIS", 1_900, 1, 0.10, 24.5, 1.3, "area of DR1; MER tiles overlap by 2'"),
    Survey("HSC Wide", 1_400, 5, 0.168, 25.9, 1.2, "Aihara et al. 2022, PASJ 74, 247"),
    Survey("DES DR2", 5_000, 5, 0.263, 23.8, 1.1, "Abbott et al. 2021, ApJS 255, 20"),
    Survey("LSST, ten years", 18_000, 6, 0.20, 26.8, 1.1, "Ivezic et al. 2019, ApJ 873, 111"),
)


@dataclasses.dataclass(frozen=True)
class Node:
    """What a node has; prices change, the hours do not."""

    cores: int = 16
    memory_gib: float = 32.0
    usd_per_hour: float = 0.68
    read_mb_per_s: float = 400.0
    """From the disk or bucket that all nodes share."""
    shared_read_mb_per_s: float = 20_000.0
    """Of all nodes together."""
    start_s: float = 60.0
    """Until Ray runs and every worker has imported what it needs."""


@dataclasses.dataclass(frozen=True)
class Rates:
    """Measured on one core."""

    band_px_per_s: float
    """Read, background, detection and photometry."""
    candidates_per_s: float
    """Cutout, preparation and network."""
    ray_efficiency: float
    """Of two workers, over twice one."""
    catalog_cpu_s_per_row: float
    catalog_gib_per_row: float
    driver_s_per_shard: float
    driver_kb_per_shard: float
    worker_mb: float


def result_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((record.RESULTS / f"{name}.json").read_text())["result"]
    return found


def measured() -> Rates:
    speed, scan, catalog = result_of("finder_speed"), result_of("scan_ray_speed"), result_of("catalog_1e7")
    driver, memory = result_of("driver_cost"), result_of("scan_memory")
    per_s = speed["scorer_per_s"]['0.2" pixels']
    loop = statistics.median(scan["shards_a_second"]["loop"])
    per_shard = scan["candidates"] / scan["shards"]
    pixels_s = 1 / loop - per_shard / per_s
    return Rates(
        band_px_per_s=3 * 1024**2 / pixels_s,
        candidates_per_s=per_s,
        ray_efficiency=scan["speedup_start_up_excluded"] / scan["workers"],
        catalog_cpu_s_per_row=catalog["finalise"]["cpu_seconds"] / catalog["rows"],
        catalog_gib_per_row=catalog["finalise"]["peak_gib"] / catalog["rows"],
        driver_s_per_shard=driver["ms_per_shard"] / 1e3,
        driver_kb_per_shard=driver["kb_per_shard"],
        worker_mb=memory["worker_four_bands_2048"]["peak_mb"],
    )


def candidates_per_deg2(mag_max: float) -> float:
    """Galaxies brighter than a magnitude in i, 46 10^(0.31 (i - 25)) per arcmin2: LSST Science Book (2009), 3.7.2."""
    return 3600 * 46 * 10 ** (0.31 * (mag_max - 25))


def predicted(survey: Survey, rates: Rates, node: Node, nodes: int, *, mag_max: float) -> dict[str, float]:
    """Hours, dollars and memory of one survey on some nodes."""
    band_px = survey.area_deg2 * survey.overlap * (3600 / survey.pixel_scale_arcsec) ** 2 * survey.bands
    rows = survey.area_deg2 * survey.overlap * candidates_per_deg2(min(mag_max, survey.depth_i_mag))
    shards = band_px / survey.bands / CORE_PX**2
    core_s = band_px / rates.band_px_per_s + rows / rates.candidates_per_s
    bytes_read = 2.5 * band_px  # compressed images with their weights and masks
    work_s = core_s / (nodes * node.cores * rates.ray_efficiency)
    read_s = bytes_read / 1e6 / min(nodes * node.read_mb_per_s, node.shared_read_mb_per_s)
    driver_s = shards * rates.driver_s_per_shard
    catalog_s = rows * rates.catalog_cpu_s_per_row / min(nodes * node.cores, 64)
    # nine tenths of the driver's time are the tables of the run, which come after the workers, as the catalogue does
    wall_s = node.start_s + max(work_s, read_s) + driver_s + catalog_s
    return {
        "terabytes": bytes_read / 1e12,
        "candidates": rows,
        "shards": shards,
        "core_hours": core_s / 3600,
        "hours": wall_s / 3600,
        "usd": wall_s / 3600 * nodes * node.usd_per_hour,
        "driver_hours": driver_s / 3600,
        "driver_gib": shards * rates.driver_kb_per_shard / 2**20,
        "bound_by": float([work_s, read_s, driver_s].index(max(work_s, read_s, driver_s))),
    }


def checked(rates: Rates) -> dict[str, float]:
    """The timed scan, whole, against the model: one worker (the loop's rate went into it), and two."""
    scan = result_of("scan_ray_speed")
    n = scan["shards"]
    shard_s = 3 * 1024**2 / rates.band_px_per_s + scan["candidates"] / n / rates.candidates_per_s
    detection = result_of("detection_speed")
    bare = detection["pixels"][0] * detection["pixels"][1] / sorted(detection["lenspipe_cpu_s"])[2]
    loop, ray = (statistics.median(scan["whole_scan_s"][key]) for key in ("loop", "ray"))
    nodes = result_of("two_nodes")
    one, two = (statistics.median(nodes["whole_scan_s"][key]) for key in ("1", "2"))
    work_s = n * shard_s * nodes["shards"] / n
    return {
        "loop_s": loop,
        "loop_predicted_s": n * shard_s,
        "two_workers_s": ray,
        "two_workers_predicted_s": n * shard_s / (2 * rates.ray_efficiency) + RAY_START_S,
        "one_node_s": one,
        "one_node_predicted_s": work_s + RAY_START_S,
        "two_nodes_s": two,
        "two_nodes_predicted_s": work_s / (2 * rates.ray_efficiency) + RAY_START_S,
        "band_px_per_s": rates.band_px_per_s,
        "band_px_per_s_of_detection_alone": bare,
    }


BOUND = ("processors", "reading", "driver")


@click.command()
@click.option("--mag-max", default=22.5, show_default=True, help="Faint limit of candidates, i band.")
@record.keep_option
def main(mag_max: float, keep: bool) -> None:
    """Predict scans of whole surveys."""
    rates, node = measured(), Node()
    table = []
    for survey in SURVEYS:
        for nodes in NODES:
            found = predicted(survey, rates, node, nodes, mag_max=mag_max)
            said = {key: float(f"{value:.3g}") for key, value in found.items() if key != "bound_by"}
            table.append({"survey": survey.name, "nodes": nodes, **said, "bound_by": BOUND[int(found["bound_by"])]})
    check = {key: round(value, 2) for key, value in checked(rates).items()}
    result = {
        "rates": dataclasses.asdict(rates),
        "assumed": {"mag_max": mag_max, **dataclasses.asdict(node), "bytes_per_band_pixel": 2.5},
        "surveys": [dataclasses.asdict(survey) for survey in SURVEYS],
        "table": table,
        "check": check,
    }
    aims = []
    for name in ("loop", "two_workers", "one_node", "two_nodes"):
        off = check[f"{name}_predicted_s"] / check[f"{name}_s"]
        aims.append(
            record.at_most(f"{name}, predicted and measured: the larger over the other", max(off, 1 / off), 1.25)
        )
    record.write("scale_model", result, aims, keep=keep)


if __name__ == "__main__":
    main()
