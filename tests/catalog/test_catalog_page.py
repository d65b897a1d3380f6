# The page in a real browser: headless Chromium, opened from disk, driven as a person would.

import base64
import csv
import io
import os
import shutil
import time

import numpy as np
import pytest
from catalog_rows import candidates, entries_of, on_sphere
from PIL import Image

from lenspipe.catalog.gallery.likeness import Likeness
from lenspipe.catalog.gallery.sprites import FLOOR, PER_SIDE, RANGE, encode
from lenspipe.catalog.gallery.write import write_page
from lenspipe.image.stretch import humvi_composite

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

N, SIDE = 10_000, 32
NOISE = np.array([3.0, 2.0, 1.5])
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def rows_and_stamps(n, rng):
    rows = entries_of(candidates(*on_sphere(n, rng), rng=rng), radius_arcsec=1e-3).slice(0, n)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    shape = np.exp(-(x**2 + y**2) / 18)
    peak = np.linspace(200, 20, rows.num_rows)[:, None, None, None]
    noise = rng.normal(0, 1, (64, 3, SIDE, SIDE))[np.arange(rows.num_rows) % 64]
    sky = (shape * peak * np.array([1.0, 0.7, 0.4])[:, None, None] + noise) * NOISE[:, None, None]
    return rows, encode(sky, NOISE)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rng = np.random.default_rng(3)
    rows, codes = rows_and_stamps(N, rng)
    out = tmp_path_factory.mktemp("page") / "gallery"
    meta = {"catalogue": "sky", "catalogue_id": "abc", "total_rows": N, "stamp_arcsec": 8.0}
    place = np.where(rng.uniform(size=N) < 0.01, np.nan, rng.uniform(0.1, 0.9, (2, N))).T
    likeness = Likeness(rng.integers(0, N, (N, 12)), place, "made")
    write_page(out, rows, codes, np.ones(N, bool), noise=NOISE, meta=meta, likeness=likeness)
    return rows, out, likeness


@pytest.fixture(scope="module")
def open_browser(tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs Debian's chromium and chromium-driver to test the page")
        pytest.skip("no chromium and chromedriver on this machine")
    profile, downloads = tmp_path_factory.mktemp("profile"), tmp_path_factory.mktemp("downloads")

    def start():
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--window-size=1500,950",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))

    driver = start()
    yield driver, downloads
    driver.quit()


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "the page did not come to it"
        time.sleep(0.05)
    return result


@pytest.fixture
def browser(open_browser, page):
    driver, _ = open_browser
    driver.get((page[1] / "index.html").as_uri())
    until(lambda: driver.execute_script("return document.documentElement.dataset.ready") == "yes")
    driver.execute_script("localStorage.clear()")
    driver.refresh()
    until(lambda: driver.execute_script("return document.documentElement.dataset.ready") == "yes")
    yield driver
    errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []


def shown(driver):
    return int(driver.find_element(By.ID, "counts").text.split(" of ")[0].replace(",", ""))


def chosen_key(driver):
    return driver.find_element(By.CSS_SELECTOR, ".card.chosen").get_attribute("data-key")


def keys_of(rows):
    return [f"{r}/{c}" for r, c in zip(rows["run_id"].to_pylist(), rows["candidate_id"].to_pylist(), strict=True)]


def press(driver, *keys):
    webdriver.ActionChains(driver).send_keys(*keys).perform()


def test_ten_thousand_rows_open_with_few_elements_and_scroll_smoothly(browser, page):
    assert shown(browser) == N
    until(
        lambda: browser.execute_script(
            "return [...document.querySelectorAll('.card')].every(c => c.dataset.drawn === 'true')"
        )
    )
    frames = browser.execute_async_script(
        """
        const done = arguments[0], box = document.getElementById('scroll'), times = [];
        let last = performance.now(), step = 0;
        const frame = now => {
          times.push(now - last); last = now;
          box.scrollTop = (step++ / 60) * (box.scrollHeight - box.clientHeight);
          step <= 60 ? requestAnimationFrame(frame) : done(times.slice(1));
        };
        requestAnimationFrame(frame);
        """
    )
    assert np.median(frames) < 100, "ms a frame while 10,000 rows pass by in a second"
    cards = browser.find_elements(By.CSS_SELECTOR, ".card")
    assert 0 < len(cards) < 150
    assert cards[-1].get_attribute("data-key") in keys_of(page[0])[-100:]
    used = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith(("file:", "data:", "blob:")) for name in used)


def test_sorting_and_filters_show_what_the_table_holds(browser, page):
    rows = page[0]
    keys, dec, score = keys_of(rows), rows["dec"].to_numpy(), rows["score"].to_numpy()
    browser.find_element(By.CSS_SELECTOR, "#sort option[value=dec]").click()
    press(browser, Keys.HOME)  # the list of orders gives its keys back once an order is chosen
    assert chosen_key(browser) == keys[int(np.argmin(dec))]
    browser.find_element(By.ID, "direction").click()
    press(browser, Keys.HOME)
    assert chosen_key(browser) == keys[int(np.argmax(dec))]
    browser.find_element(By.ID, "score-min").send_keys("0.9")
    assert shown(browser) == (score >= 0.9).sum()
    browser.find_element(By.ID, "search").send_keys(rows["name"][7].as_py().lower())
    browser.find_element(By.ID, "score-min").clear()
    browser.find_element(By.ID, "score-min").send_keys("0")
    assert shown(browser) == rows["name"].to_pylist().count(rows["name"][7].as_py())
    browser.find_element(By.ID, "search").send_keys(" no such thing")
    assert shown(browser) == 0
    assert browser.find_element(By.ID, "nothing").is_displayed()


def test_twenty_grades_by_keyboard_undo_reload_export_and_import(browser, page, open_browser, tmp_path):
    rows, downloads = page[0], open_browser[1]
    browser.find_element(By.ID, "grader").send_keys("Ada, L.")
    browser.execute_script("document.activeElement.blur()")
    given = list("abcn1230abcnabcnabcn")
    press(browser, *given)
    want = {"1": "A", "2": "B", "3": "C", "0": "N"}
    want = [want.get(k, k.upper()) for k in given]
    assert browser.find_element(By.ID, "counts").text.endswith("20 graded")
    assert chosen_key(browser) == keys_of(rows)[20]
    press(browser, "u")
    assert browser.find_element(By.ID, "counts").text.endswith("19 graded")
    assert chosen_key(browser) == keys_of(rows)[19]
    browser.refresh()
    until(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "yes")
    assert browser.find_element(By.ID, "counts").text.endswith("19 graded")
    assert browser.find_element(By.ID, "grader").get_attribute("value") == "Ada, L."
    browser.find_element(By.ID, "export").click()
    file = until(lambda: next(iter(downloads.glob("*.csv")), None))
    until(lambda: file.stat().st_size)
    exported = list(csv.DictReader(file.open()))
    assert [f"{r['run_id']}/{r['candidate_id']}" for r in exported] == keys_of(rows)[:19]
    assert [r["grade"] for r in exported] == want[:19]
    assert {r["grader"] for r in exported} == {"Ada, L."}
    # another grader sends a file: five grades, two of them different
    other = [{**row, "grader": "Bob", "grade": "C" if i < 2 else row["grade"]} for i, row in enumerate(exported[:5])]
    with (tmp_path / "bob.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, other[0])
        writer.writeheader()
        writer.writerows(other)
    browser.find_element(By.ID, "import").send_keys(str(tmp_path / "bob.csv"))
    until(lambda: "5 grades" in browser.find_element(By.ID, "toast").text)
    browser.find_element(By.CSS_SELECTOR, "#filter-grade option[value=differ]").click()
    assert shown(browser) == sum(a["grade"] != b["grade"] for a, b in zip(exported, other, strict=False)) == 2
    browser.find_element(By.CSS_SELECTOR, "#filter-grade option[value=none]").click()
    assert shown(browser) == N - 19


def test_a_file_that_holds_no_grades_is_refused_and_changes_nothing(browser, tmp_path):
    (tmp_path / "no.csv").write_text("run_id,candidate_id,grader,grade\nr,c,me,Z\n")
    browser.find_element(By.ID, "import").send_keys(str(tmp_path / "no.csv"))
    until(lambda: "not a grade: Z" in browser.find_element(By.ID, "toast").text)
    assert browser.find_element(By.ID, "counts").text.endswith("0 graded")


def test_the_stretch_of_the_page_is_the_composite_of_lupton(browser, page):
    until(lambda: browser.execute_script("return document.querySelector('.card').dataset.drawn") == "true")
    for brightness, softening in ((0.0, 0.0), (0.8, -0.5)):
        for name, value in (("brightness", brightness), ("softening", softening)):
            browser.execute_script(
                "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.oninput()", name, value
            )
        drawn = browser.execute_script(
            "const c = document.querySelector('.card canvas');"
            "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        )
        drawn = np.array(drawn).reshape(SIDE, SIDE, 4)[..., :3]
        script = (page[1] / "sheets" / "sheet-0000.js").read_text()
        sheet = np.array(Image.open(io.BytesIO(base64.b64decode(script.split("base64,")[1].split('"')[0]))), float)
        assert sheet.shape == (PER_SIDE * SIDE, PER_SIDE * SIDE, 3)
        linear = 2 * np.sinh(sheet[:SIDE, :SIDE] / 255 * RANGE + FLOOR).transpose(2, 0, 1)
        scales = np.array([0.7, 1.0, 1.6]) * NOISE / NOISE[1]
        want = humvi_composite(linear, band_scales=scales, alpha=0.05 * 10**brightness, q=4 * 10**softening)
        assert np.abs(drawn - 255 * want.transpose(1, 2, 0)).max() <= 12  # decoders of JPEG differ by a step
        assert np.abs(drawn - 255 * want.transpose(1, 2, 0)).mean() < 1


def test_more_like_this_shows_the_nearest_of_a_candidate_in_their_order(browser, page):
    rows, _, likeness = page
    keys, near = keys_of(rows), likeness.near[2]
    until(lambda: browser.execute_script("return document.documentElement.dataset.alike") == "yes")
    press(browser, Keys.HOME, "j", "j")
    some = browser.find_elements(By.CSS_SELECTOR, "#alike-some canvas")
    assert [canvas.get_attribute("data-key") for canvas in some] == [keys[i] for i in near[:8]]
    press(browser, "l")
    order = [keys[2], *(keys[i] for i in near)]
    assert shown(browser) == len(order) and browser.find_element(By.ID, "within").text.startswith("Most like LPC")
    seen = []
    for _ in order:
        seen.append(chosen_key(browser))
        press(browser, "j")
    assert seen == order
    press(browser, Keys.ESCAPE)
    assert shown(browser) == N
    some = browser.find_elements(By.CSS_SELECTOR, "#alike-some canvas")
    wanted = some[1].get_attribute("data-key")
    some[1].click()
    assert chosen_key(browser) == wanted


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
def test_the_lasso_of_the_map_selects_what_lies_inside_to_be_graded(browser, page, width, height):
    _, _, likeness = page
    browser.set_window_size(width, height)
    until(lambda: browser.execute_script("return document.documentElement.dataset.alike") == "yes")
    browser.find_element(By.ID, "map-open").click()
    over = browser.find_element(By.ID, "map-over")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", over)
    until(lambda: browser.execute_script("return arguments[0].width > 0", over))
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), (
        "nothing beside the page"
    )
    box, half = over.size, 60
    hold = (
        webdriver.ActionChains(browser, duration=30).move_to_element(over).move_by_offset(-half, -half).click_and_hold()
    )
    for dx, dy in ((2 * half, 0), (0, 2 * half), (-2 * half, 0)):
        hold = hold.move_by_offset(dx, dy)
    hold.release().perform()
    side = min(box["width"], box["height"])
    away = np.abs(likeness.place - 0.5).max(axis=1) * side
    assert (away < half - 1.5).sum() <= shown(browser) <= (away < half + 1.5).sum()
    assert browser.find_element(By.ID, "within").text.startswith("Inside the lasso")
    browser.find_element(By.CSS_SELECTOR, "#map-colour option[value=my_grade]").click()
    press(browser, "a", "b")
    colours = "const c = document.querySelector('#map canvas:not(#map-tip)');" + (
        "const d = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);"
        "return [[79, 196, 127], [184, 204, 74], [58, 63, 73]].map(rgb => d.includes(LENSPIPE.bytes(rgb)))"
    )
    until(lambda: browser.execute_script(colours) == [True, True, True])
    browser.find_element(By.ID, "within-leave").click()
    assert shown(browser) == N
    browser.find_element(By.ID, "map-open").click()
    browser.set_window_size(1500, 950)


def test_zoom_and_size_change_the_pictures(browser):
    before = browser.find_element(By.CSS_SELECTOR, ".card").size["width"]
    press(browser, "+", "+")
    assert browser.find_element(By.CSS_SELECTOR, ".card").size["width"] == before + 32
    bar = browser.find_element(By.ID, "scalebar").text
    browser.execute_script(
        "document.getElementById('big').dispatchEvent(new WheelEvent('wheel', {deltaY: -1, cancelable: true}))"
    )
    assert "1.3×" in browser.find_element(By.ID, "scalebar").text != bar


def test_links_lead_to_the_chosen_position(browser, page):
    ra = float(f"{page[0]['ra'][0].as_py():.10g}")
    links = [a.get_attribute("href") for a in browser.find_elements(By.CSS_SELECTOR, "#links a")]
    assert len(links) == 4
    assert all(str(ra) in link for link in links)
