"""
How fast are simulations: against lenstronomy's SimAPI, on two workers, and in memory?

`python -m benchmarks.simulate_speed [speed] [workers] [memory]` writes these parts of `results/simulate_speed.json`,
all by default, and fails where a claim does not hold. `workers` needs two free cores; what others used is recorded.
"""

from __future__ import annotations

import benchmarks.one_thread  # isort: skip  # noqa: F401

import datetime
import functools
import json
import multiprocessing
import os
import statistics
import tempfile
from pathlib import Path

import click
import numpy as np
import psutil

from benchmarks import record
from benchmarks.memory import PeakMemory, each_mib, ray_workers, tree, uss_mib
from benchmarks.timing import Clock, median_s
from lenspipe.distributed.session import ray_session
from lenspipe.runner import Start, here
from lenspipe.simulate.instrument import gaussian_kernel
from lenspipe.simulate.lens import MacroLens
from lenspipe.simulate.light import Component, Sersic
from lenspipe.simulate.parts import PartTask, plan_parts
from lenspipe.simulate.photometry import njy_of_magnitude
from lenspipe.simulate.recipe import Recipe, read_recipe
from lenspipe.simulate.render import Grid, convolve, render, render_galaxy, shoot_rays
from lenspipe.simulate.run import Runner, simulate
from lenspipe.stamps.format import StampSet

SIZE_PX, SCALE, SUPERSAMPLING = 64, 0.2, 4
PART_ROWS, N_PART, ROUNDS = 50, 16, 25
N_TURN, MAX_TURNS, QUIET = 2, 2, 0.1  # turns until so many were quiet: others used less than a tenth of a core
SEEING = (0.85, 0.70, 0.78)
LENS_MAG, SOURCE_MAG = (20.5, 19.1, 18.5), (22.6, 22.4, 22.3)
SOURCE_PLACE = {"center_x": 0.25, "center_y": 0.1}
MACRO = {"theta_e_arcsec": 1.4, "axis_ratio": 0.75, "angle_rad": 0.6, "shear": 0.05, "shear_angle_rad": 1.1}


def ours() -> np.ndarray:
    grid = Grid(SIZE_PX, SCALE, SUPERSAMPLING)
    rays = shoot_rays([MacroLens(**MACRO)], grid)
    source = Sersic(radius_arcsec=0.25, n=1.3, axis_ratio=0.8, angle_rad=0.2, x_arcsec=0.25, y_arcsec=0.1)
    light = Sersic(radius_arcsec=0.9, n=4.0, axis_ratio=0.75, angle_rad=0.6)
    image = render([Component(source, njy_of_magnitude(SOURCE_MAG))], rays, grid, 3)
    image += render_galaxy([Component(light, njy_of_magnitude(LENS_MAG))], grid, 3)
    return convolve(image, [gaussian_kernel(f, SCALE) for f in SEEING])


def lenstronomy_models() -> list:
    from lenstronomy.SimulationAPI.sim_api import SimAPI
    from lenstronomy.Util import param_util

    e1, e2 = param_util.phi_q2_ellipticity(MACRO["angle_rad"], MACRO["axis_ratio"])
    g1, g2 = param_util.shear_polar2cartesian(MACRO["shear_angle_rad"], MACRO["shear"])
    s1, s2 = param_util.phi_q2_ellipticity(0.2, 0.8)
    lens = [{"theta_E": 1.4, "e1": e1, "e2": e2, "center_x": 0, "center_y": 0}]
    lens.append({"gamma1": g1, "gamma2": g2, "ra_0": 0, "dec_0": 0})
    models = []
    for seeing, lens_mag, source_mag in zip(SEEING, LENS_MAG, SOURCE_MAG, strict=True):
        band = {"pixel_scale": SCALE, "exposure_time": 100.0, "magnitude_zero_point": 31.4, "read_noise": 0.0}
        band |= {"ccd_gain": 1.0, "sky_brightness": 99.0, "seeing": seeing, "num_exposures": 1, "psf_type": "GAUSSIAN"}
        sim = SimAPI(
            SIZE_PX,
            band,
            {
                "lens_model_list": ["SIE", "SHEAR"],
                "lens_light_model_list": ["SERSIC_ELLIPSE"],
                "source_light_model_list": ["SERSIC_ELLIPSE"],
            },
        )
        place = {"center_x": 0, "center_y": 0}
        light, source, _ = sim.magnitude2amplitude(
            [{"magnitude": lens_mag, "R_sersic": 0.9, "n_sersic": 4.0, "e1": e1, "e2": e2} | place],
            [{"magnitude": source_mag, "R_sersic": 0.25, "n_sersic": 1.3, "e1": s1, "e2": s2} | SOURCE_PLACE],
        )
        model = sim.image_model_class({"supersampling_factor": SUPERSAMPLING, "supersampling_convolution": False})
        models.append((model, {"kwargs_lens": lens, "kwargs_source": source, "kwargs_lens_light": light}))
    return models


def against_lenstronomy() -> dict:
    models = lenstronomy_models()
    theirs = np.array([model.image(**kwargs) for model, kwargs in models])
    mine = ours()
    # away from the lens's cusp, where four rays per pixel are too few for lenstronomy (ours integrates the core)
    y, x = np.indices((SIZE_PX, SIZE_PX)) - (SIZE_PX - 1) / 2
    far = (np.hypot(x, y) * SCALE > 2.0) & (theirs > 0.01 * theirs.max(axis=(1, 2), keepdims=True))
    difference = float(np.abs(mine / theirs - 1)[far].max())
    assert difference < 0.01, difference
    result = {
        "lenspipe_three_bands_ms": 1000 * median_s(ours, ROUNDS),
        "simapi_three_image_calls_ms": 1000
        * median_s(lambda: [model.image(**kwargs) for model, kwargs in models], ROUNDS),
        "simapi_three_calls_with_construction_ms": 1000
        * median_s(lambda: [model.image(**kwargs) for model, kwargs in lenstronomy_models()], ROUNDS),
        "largest_relative_difference": difference,
    }
    result["times_as_fast_as_image_calls"] = result["simapi_three_image_calls_ms"] / result["lenspipe_three_bands_ms"]
    result["times_as_fast_with_construction"] = (
        result["simapi_three_calls_with_construction_ms"] / result["lenspipe_three_bands_ms"]
    )
    return result


def rows_per_s(folder: Path, n_worker: int) -> float:
    """
    Rate between two moments when every worker had just ended a part: from the ``n_worker``-th part's end to the last's.

    So Ray's start of the data set and the contact sheet are left out; the parts' times are those of their files.
    """
    ends = sorted(path.stat().st_mtime for path in folder.glob("*.parquet"))
    return PART_ROWS * (len(ends) - n_worker) / (ends[-1] - ends[n_worker - 1])


class Cpu:
    """Cores used while the body ran, by workers, the driver, Ray's own processes, and others, which make a run void."""

    def __enter__(self) -> Cpu:
        self._clock, self._busy, self._own = Clock(), _busy_s(), _own_s()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, own = self._clock.wall_s, _own_s()
        self.cores = {name: round((own[name] - self._own[name]) / seconds, 2) for name in own}
        others = (_busy_s() - self._busy) - (sum(own.values()) - sum(self._own.values()))
        self.cores["others"] = round(others / seconds, 2)


def _busy_s() -> float:
    times = psutil.cpu_times()
    return times.user + times.system + times.nice


def _own_s() -> dict[str, float]:
    total = {"workers": 0.0, "driver": 0.0, "ray": 0.0}
    for process in tree():
        try:
            used = process.cpu_times()
            words = process.cmdline()
        except psutil.Error:
            continue
        worker = bool(words) and words[0].startswith("ray::")
        name = "driver" if process.pid == os.getpid() else "workers" if worker else "ray"
        total[name] += used.user + used.system
    return total


def plain_processes(recipe: Recipe, folder: Path, n_process: int) -> None:
    """The same parts by as many processes without Ray: what the machine itself gives."""
    folder.mkdir()
    make = PartTask(recipe, 2, str(folder)).make
    with multiprocessing.get_context("spawn").Pool(n_process) as pool:
        for _ in pool.imap_unordered(make, plan_parts(PART_ROWS * N_PART, PART_ROWS)):
            pass


def on_ray(n_worker: int) -> Start[Runner]:
    """Runner on the Ray that runs."""
    from lenspipe.distributed.simulate import simulate_ray

    return here(functools.partial(simulate_ray, n_worker=n_worker))


def two_workers() -> dict:
    recipe = read_recipe("ground-gri").model_copy(update={"part_rows": PART_ROWS})
    rates: dict[str, list[float]] = {f"{how} {n}": [] for how in ("ray", "plain") for n in (1, 2)}
    cores: dict[str, list[dict[str, float]]] = {name: [] for name in rates}
    with tempfile.TemporaryDirectory() as folder, ray_session(n_worker=2):
        # workers start, modules load
        simulate(recipe, count=4 * PART_ROWS, seed=1, out=Path(folder) / "warm", runner=on_ray(2))
        for turn in range(MAX_TURNS):
            for name in rates:
                how, n = name.split()[0], int(name.split()[1])
                out = Path(folder) / f"{name}-{turn}"
                with Cpu() as used:
                    if how == "ray":
                        simulate(recipe, count=PART_ROWS * N_PART, seed=2, out=out, runner=on_ray(n))
                    else:
                        plain_processes(recipe, out, n)
                rates[name].append(rows_per_s(out, n))
                print(f"turn {turn}, {name}: {rates[name][-1]:.1f} rows/s, cores {used.cores}", flush=True)
                cores[name].append(used.cores)
            # the plain processes have ended, so their seconds count as others'
            if all(sum(one["others"] < QUIET for one in cores[f"ray {n}"]) >= N_TURN for n in (1, 2)):
                break
        images = [StampSet.open(Path(folder) / f"{name}-0").read_images() for name in rates]
        assert all(np.array_equal(images[0], one) for one in images), "rows depend on how they are made"
    quiet = {}
    for name in rates:
        least = sorted(range(len(rates[name])), key=lambda k: cores[f"ray {name[-1]}"][k]["others"])[:N_TURN]
        quiet[name] = statistics.median(rates[name][k] for k in least)
    return {
        "rows": PART_ROWS * N_PART,
        "rows_per_s": rates,
        "cores_used": {name: cores[name] for name in rates if name.startswith("ray")},
        "speed_up_of_two_workers": quiet["ray 2"] / quiet["ray 1"],
        "speed_up_of_two_plain_processes": quiet["plain 2"] / quiet["plain 1"],
    }


def memory() -> dict:
    recipe = read_recipe("ground-gri").model_copy(update={"part_rows": PART_ROWS})
    peaks = {}
    with tempfile.TemporaryDirectory() as folder, ray_session(n_worker=2):
        for n in (N_PART // 2, 6 * N_PART):
            with PeakMemory(lambda: sum(each_mib(uss_mib, ray_workers())), every_s=0.5) as memory:
                simulate(recipe, count=PART_ROWS * n, seed=3, out=Path(folder) / f"memory-{n}", runner=on_ray(2))
            peaks[str(PART_ROWS * n)] = memory.peak_mib
    return {"peak_mib_of_both_workers_by_rows": peaks}


PARTS = {"speed": against_lenstronomy, "workers": two_workers, "memory": memory}


def aims_of(result: dict) -> list[record.Aim]:
    """What the parts that there are should give."""
    aims = []
    if "speed" in result:
        aims.append(record.at_least("times as fast as SimAPI", result["speed"]["times_as_fast_as_image_calls"], 3.0))
    if "workers" in result:  # are both cores free?
        aims.append(record.at_least("speed-up of two workers", result["workers"]["speed_up_of_two_workers"], 1.7))
    if "memory" in result:
        few, many = result["memory"]["peak_mib_of_both_workers_by_rows"].values()
        # one run differs from the next by a tenth; rows that stayed would make it several times as much
        aims.append(record.at_most("memory of many rows over that of few", many / few, 1.25))
    return aims


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@record.keep_option
def main(parts: tuple[str, ...], keep: bool) -> None:
    """Measure PARTS (all where none is given); the others stay as they are in the record."""
    path = record.RESULTS / "simulate_speed.json"
    result = json.loads(path.read_text())["result"] if path.exists() else {}
    result = {name: result[name] for name in PARTS if name in result}
    for name in parts or PARTS:
        load, date = os.getloadavg()[0], datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        result[name] = {"load_average_before": load, "date": date, "commit": record.commit()} | PARTS[name]()
    record.write("simulate_speed", result, aims_of(result), keep=keep)


if __name__ == "__main__":
    main()
