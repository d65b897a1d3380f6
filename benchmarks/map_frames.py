"""
How fluid the map of the candidate page is: time per frame in headless Chromium, without a GPU.

    python -m benchmarks.map_frames --rows 100000

Frames are times of the wall, which other work on the machine lengthens; beside them stands the processor time of all of
the browser's processes per frame, which it hardly does, and the load.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import pyarrow as pa
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from benchmarks import record
from lenspipe.catalog.columns import catalog_schema
from lenspipe.catalog.gallery.likeness import Likeness
from lenspipe.catalog.gallery.write import Pictures, write_page

STAMP_PX, N_FRAME = 8, 120
FRAMES = """
const done = arguments[arguments.length - 1], over = document.getElementById('map-over'), times = [];
const box = over.getBoundingClientRect(), x = box.left + box.width / 2, y = box.top + box.height / 2;
const send = (type, dx, dy) => over.dispatchEvent(new PointerEvent(type, {pointerId: 1, bubbles: true,
  clientX: x + dx, clientY: y + dy, button: 0, buttons: 1}));
over.setPointerCapture = () => {};
let step = 0, last = performance.now();
document.getElementById('map-move').click();
if (arguments[0] === 'move') send('pointerdown', 0, 0);
const frame = now => {
  times.push(now - last); last = now;
  if (arguments[0] === 'move') send('pointermove', 80 * Math.sin(step / 12), 60 * Math.sin(step / 17));
  else over.dispatchEvent(new WheelEvent('wheel', {deltaY: Math.sin(step / 12) < 0 ? 1 : -1, clientX: x, clientY: y}));
  step++ < arguments[1] ? requestAnimationFrame(frame) : (send('pointerup', 0, 0), done(times.slice(1)));
};
requestAnimationFrame(frame);
"""


@click.command()
@click.option("--rows", default=100_000, show_default=True)
@record.keep_option
def main(rows: int, keep: bool) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as scratch:
        page = write(Path(scratch) / "gallery", rows)
        megabytes = {f.name: round(f.stat().st_size / 1e6, 2) for f in page.glob("*.js")}
        told = measure(page / "index.html")
    aims = [
        record.at_most(f"ms of a frame, {name}, {what}", told[name][key], 50)
        for name in ("move", "zoom")
        for what, key in (("median of the wall", "median_ms"), ("processor", "cpu_ms"))
    ]
    record.write(
        "map_frames", {"rows": rows, "window_px": [1400, 900], "megabytes": megabytes, **told}, aims, keep=keep
    )


def write(out: Path, rows: int) -> Path:
    """A page of candidates in clusters, with stamps of a few pixels."""
    rng = np.random.default_rng(1)
    columns = []
    for f in catalog_schema(("g", "r", "i")):
        if pa.types.is_string(f.type):
            columns.append(pa.array([f"{f.name}{i}" for i in range(rows)] if f.name == "candidate_id" else [""] * rows))
        else:
            columns.append(pa.array(rng.uniform(0, 1, rows)).cast(f.type, safe=False))
    table = pa.table(columns, schema=catalog_schema(("g", "r", "i")))
    place = rng.uniform(0.15, 0.85, (40, 2))[rng.integers(0, 40, rows)] + rng.normal(0, 0.03, (rows, 2))
    likeness = Likeness(rng.integers(0, rows, (rows, 24)), np.clip(place, 0, 1), "made")
    codes = rng.integers(1, 99, (rows, 3, STAMP_PX, STAMP_PX)).astype(np.uint8)
    pictures = Pictures(codes, codes, np.ones(rows, bool), np.zeros((2, rows)))
    meta = {"catalogue": "b", "catalogue_id": "b", "total_rows": rows, "stamp_arcsec": 2.0}
    write_page(out, table, pictures, noise=np.ones(3), meta=meta, likeness=likeness)
    return out


def measure(page: Path) -> dict[str, dict[str, float]]:
    """Frames while the map is moved and while it is zoomed."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,900"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(300)
    try:
        driver.get(page.as_uri())
        ready = "return document.documentElement.dataset.alike === 'yes'"
        WebDriverWait(driver, 120).until(lambda d: d.execute_script(ready))
        driver.find_element(By.ID, "map-open").click()
        told = {kind: _frames(driver, kind) for kind in ("move", "zoom")}
    finally:
        driver.quit()
    return told


def _frames(driver: webdriver.Chrome, kind: str) -> dict[str, float]:
    browser = psutil.Process(driver.service.process.pid)
    before = _cpu_s(browser)
    told = _told(driver.execute_async_script(FRAMES, kind, N_FRAME))
    return told | {"cpu_ms": round(1e3 * (_cpu_s(browser) - before) / N_FRAME, 1), "load": round(os.getloadavg()[0], 1)}


def _cpu_s(root: psutil.Process) -> float:
    """Processor time of a process and of all that it started and that still run."""
    times = [one.cpu_times() for one in (root, *root.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def _told(times_ms: list[Any]) -> dict[str, float]:
    times = np.array(times_ms, float)
    return {"median_ms": round(float(np.median(times)), 1), "p95_ms": round(float(np.quantile(times, 0.95)), 1)}


if __name__ == "__main__":
    main()
