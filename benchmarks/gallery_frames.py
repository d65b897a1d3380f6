"""
How fluid the candidate page is: time per frame, and what keys and filters take, in headless Chromium without a GPU.

    python -m benchmarks.gallery_frames --rows 5000

Beside the times on the clock stands the work of the page: processor time of its main thread per frame or action, which
other processes on the machine do not lengthen.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from benchmarks import record
from benchmarks.timing import Clock
from lenspipe.catalog.columns import catalog_schema
from lenspipe.catalog.gallery.sprites import encode
from lenspipe.catalog.gallery.write import Pictures, write_page

STAMP_PX, N_STAMP, N_FRAME, N_ACTION = 64, 64, 120, 20
SCROLL = """
const done = arguments[0], steps = arguments[1], box = document.getElementById('scroll'), times = [];
let last = performance.now(), step = 0;
const frame = now => {
  times.push(now - last); last = now;
  box.scrollTop += 120;
  step++ < steps ? requestAnimationFrame(frame) : done(times.slice(1));
};
requestAnimationFrame(frame);
"""
ACTIONS = {
    "grade": "dispatchEvent(new KeyboardEvent('keydown', {key: 'abcn'[k % 4]}))",
    "next": "dispatchEvent(new KeyboardEvent('keydown', {key: 'j'}))",
    "sort": "const s = document.getElementById('sort'); s.value = ['rank', 'ra'][k % 2]; s.onchange()",
    "search": "const s = document.getElementById('search'); s.value = ['', '1'][k % 2]; s.oninput()",
    "view": "dispatchEvent(new KeyboardEvent('keydown', {key: 'v'}))",
}
"""What a person does, in JavaScript with ``k`` the number of the try."""
TIMED = """
const done = arguments[0], tries = arguments[1], times = [];
const act = k => {
  const begun = performance.now();
  %s;
  requestAnimationFrame(() => setTimeout(() => {
    times.push(performance.now() - begun);
    k + 1 < tries ? act(k + 1) : done(times);
  }));
};
act(0);
"""


@click.command()
@click.option("--rows", default=5_000, show_default=True)
@record.keep_option
def main(rows: int, keep: bool) -> None:
    """Measure."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        page = write(Path(scratch) / "gallery", rows)
        megabytes = round(sum(f.stat().st_size for f in page.rglob("*") if f.is_file()) / 1e6, 2)
        told = measure(page / "index.html")
    aims = [record.at_most("ms of a frame while scrolling, median", told["scroll"]["median_ms"], 50)]
    aims += [record.at_most(f"ms to {name}, median", told[name]["median_ms"], 200) for name in ACTIONS]
    aims += [record.at_most("ms of work per frame while scrolling", told["scroll"]["work_ms"], 50)]
    aims += [record.at_most(f"ms of work to {name}", told[name]["work_ms"], 200) for name in ACTIONS]
    facts: dict[str, Any] = {"rows": rows, "stamp_px": STAMP_PX, "window_px": [1400, 900], "megabytes": megabytes}
    record.write("gallery_frames", {**facts, **told, **clock.seconds()}, aims, keep=keep)


def write(out: Path, rows: int) -> Path:
    """A page of noisy blobs in three bands, each stamp used many times."""
    rng = np.random.default_rng(1)
    schema, columns = catalog_schema(("g", "r", "i")), []
    for f in schema:
        if pa.types.is_string(f.type):
            columns.append(
                pa.array([f"{f.name}{i}" if f.name in ("candidate_id", "name") else "" for i in range(rows)])
            )
        elif f.name == "rank":
            columns.append(pa.array(np.arange(1, rows + 1)))
        else:
            columns.append(pa.array(rng.uniform(0, 1, rows)).cast(f.type, safe=False))
    y, x = np.mgrid[:STAMP_PX, :STAMP_PX] - STAMP_PX / 2
    blob = 50 * np.exp(-(x**2 + y**2) / 60) * np.array([1.0, 0.7, 0.4])[:, None, None]
    noise = rng.normal(0, 1, (N_STAMP, 3, STAMP_PX, STAMP_PX))
    each = np.arange(rows) % N_STAMP
    codes, left = (encode(one, np.ones(3))[each] for one in (noise + blob, noise))
    pictures = Pictures(codes, left, np.ones(rows, bool), np.array([[90.0], [180.0]]).repeat(rows, axis=1))
    meta = {"catalogue": "b", "catalogue_id": "b", "total_rows": rows, "stamp_arcsec": 12.0}
    write_page(out, pa.table(columns, schema=schema), pictures, noise=np.ones(3), meta=meta)
    return out


def measure(page: Path) -> dict[str, dict[str, float]]:
    """Frames while the grid scrolls, and from each action to the frame after it."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,900"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(300)
    try:
        driver.get(page.as_uri())
        drawn = "return [...document.querySelectorAll('.card')].some(card => card.dataset.drawn === 'true')"
        WebDriverWait(driver, 120).until(lambda d: d.execute_script(drawn))
        driver.execute_script("const g = document.getElementById('grader'); g.value = 'me'; g.oninput()")
        driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        told = {name: _measured(driver, TIMED % action, N_ACTION) for name, action in ACTIONS.items()}
        driver.execute_script("document.getElementById('reset-view').click()")
        return {"scroll": _measured(driver, SCROLL, N_FRAME), **told}
    finally:
        driver.quit()


def _measured(driver: webdriver.Chrome, script: str, n: int) -> dict[str, float]:
    """Milliseconds per step on the clock, and of the main thread."""
    before = _work_s(driver)
    found = driver.execute_async_script(f"(function() {{{script}}}).call(null, arguments[1], arguments[0])", n)
    work_ms = 1000 * (_work_s(driver) - before) / n
    times = np.array(found, float)
    told = {"median_ms": float(np.median(times)), "p95_ms": float(np.quantile(times, 0.95)), "work_ms": work_ms}
    return {name: round(value, 1) for name, value in told.items()}


def _work_s(driver: webdriver.Chrome) -> float:
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


if __name__ == "__main__":
    main()
