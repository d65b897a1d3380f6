# The page in a real browser: headless Chromium, opened from disk, driven as a person would.

import base64
import csv
import io
import os
import re
import shutil
import subprocess
import tarfile
import time

import numpy as np
import pytest
from catalog_rows import candidates, entries_of, on_sphere
from PIL import Image

from lenspipe.catalog.gallery.likeness import Likeness
from lenspipe.catalog.gallery.sprites import FLOOR, PER_SIDE, RANGE, encode
from lenspipe.catalog.gallery.write import Pictures, write_page
from lenspipe.catalog.grades import agreement, read_grades
from lenspipe.image.stretch import humvi_composite
from lenspipe.learn.sweep.page import STYLE as SWEEP_STYLE
from lenspipe.report.page import Section, document, table_html
from lenspipe.report.page import page as page_of
from lenspipe.report.picture import png_of

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

N, SIDE = 5_000, 32
NOISE = np.array([3.0, 2.0, 1.5])
AXE = "4.10.3"
MANY = {"profile.default_content_setting_values.automatic_downloads": 1}
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def rows_and_stamps(n, rng):
    rows = entries_of(candidates(*on_sphere(n, rng), rng=rng), radius_arcsec=1e-3).slice(0, n)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    shape = np.exp(-(x**2 + y**2) / 18)
    peak = np.linspace(200, 20, rows.num_rows)[:, None, None, None]
    noise = rng.normal(0, 1, (64, 3, SIDE, SIDE))[np.arange(rows.num_rows) % 64]
    sky = (shape * peak * np.array([1.0, 0.7, 0.4])[:, None, None] + noise) * NOISE[:, None, None]
    covered = np.ones(sky.shape, bool)
    covered[1, :, :8] = False  # the lower quarter of the second lies beyond its tile
    compass = np.array([[90.0], [180.0]]).repeat(n, axis=1)
    empty = encode(noise * NOISE[:, None, None], NOISE, covered)
    return rows, Pictures(encode(sky, NOISE, covered), empty, np.ones(n, bool), compass)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rng = np.random.default_rng(3)
    rows, pictures = rows_and_stamps(N, rng)
    out = tmp_path_factory.mktemp("page") / "gallery"
    meta = {"catalogue": "sky", "catalogue_id": "abc", "total_rows": N, "stamp_arcsec": 8.0}
    place = np.where(rng.uniform(size=N) < 0.01, np.nan, rng.uniform(0.1, 0.9, (2, N))).T
    likeness = Likeness(rng.integers(0, N, (N, 12)), place, "made")
    write_page(out, rows, pictures, noise=NOISE, meta=meta, likeness=likeness)
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
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads), **MANY})
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
    if driver.current_url.startswith("file:"):
        driver.execute_script("localStorage.clear()")
    driver.get((page[1] / "index.html").as_uri())
    until(lambda: driver.execute_script("return document.documentElement.dataset.ready") == "yes")
    yield driver
    errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []


def saved(downloads, name):
    until(lambda: (downloads / name).exists() and (downloads / name).stat().st_size)
    return downloads / name


def chosen_key_of_detail(driver):
    cells = "return [...document.querySelectorAll('#facts tr')].map(row => [...row.cells].map(c => c.textContent))"
    facts = dict(driver.execute_script(cells))
    return f"{facts['Run']}/{facts['Candidate']}"


def shown(driver):
    return int(driver.find_element(By.ID, "counts").text.split(" of ")[0].replace(",", ""))


def chosen_key(driver):
    return driver.find_element(By.CSS_SELECTOR, ".card.chosen").get_attribute("data-key")


def keys_of(rows):
    return [f"{r}/{c}" for r, c in zip(rows["run_id"].to_pylist(), rows["candidate_id"].to_pylist(), strict=True)]


def name_grader(driver, name):
    driver.find_element(By.ID, "grader").send_keys(name, Keys.ENTER)


def press(driver, *keys):
    webdriver.ActionChains(driver).send_keys(*keys).perform()


def test_thousands_of_rows_open_with_few_elements_and_scroll_smoothly(browser, page):
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
    assert np.median(frames) < 500, "ms per frame, beside other tests; benchmarks/gallery_frames.py measures"
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
    name_grader(browser, "Ada, L.")
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
    file = saved(downloads, "grades-sky-Ada_L.csv")
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
    # the pair of graders, as `lenspipe grades` sees them; the widest dispute comes first
    press(browser, "w")
    table = browser.find_element(By.ID, "graders-table").text.splitlines()
    pair = agreement(read_grades([str(file), str(tmp_path / "bob.csv")]))[0]
    assert table[1] == f"Ada, L., Bob 5 {100 * pair['equal']:.0f} % {pair['kappa']:.2f}"
    browser.find_element(By.ID, "disputed").click()
    assert shown(browser) == 2
    assert chosen_key(browser) == keys_of(rows)[int(np.argmax([abs(ord(g) - ord("C")) for g in want[:2]]))]
    browser.find_element(By.CSS_SELECTOR, "#filter-grade option[value=none]").click()
    assert shown(browser) == N - 19
    browser.find_element(By.CSS_SELECTOR, "#filter-grade option[value=AB]").click()
    assert shown(browser) == sum(grade in "AB" for grade in want[:19])
    # regions and the list of what is shown
    press(browser, "d")
    assert "--ids candidates-sky.csv --format fits" in browser.find_element(By.ID, "save-command").text
    browser.find_element(By.ID, "save-regions").click()
    browser.find_element(By.ID, "save-list").click()
    regions = saved(downloads, "candidates-sky.reg").read_text().splitlines()
    listed = list(csv.DictReader(saved(downloads, "candidates-sky.csv").open()))
    best = [i for i, grade in enumerate(want[:19]) if grade in "AB"]
    assert [(r["run_id"], r["candidate_id"]) for r in listed] == [tuple(keys_of(rows)[i].split("/")) for i in best]
    assert regions[1] == "icrs" and len(regions) == 2 + len(best)
    for line, i in zip(regions[2:], best, strict=True):
        ra, dec, text = re.fullmatch(r"circle\((.+),(.+),2\"\) # color=\w+ text=\{(.+)\}", line).groups()
        np.testing.assert_allclose([float(ra), float(dec)], [rows["ra"][i].as_py(), rows["dec"][i].as_py()], atol=1e-6)
        assert rows["candidate_id"][i].as_py() in text


def test_without_a_name_nothing_is_graded_and_the_page_asks_for_it(browser, page):
    press(browser, "a")
    until(lambda: "Type your name" in browser.find_element(By.ID, "toast").text)  # it fades in: first it has none
    assert browser.switch_to.active_element.get_attribute("id") == "grader"
    press(browser, "b", "o", Keys.ENTER)  # letters of the name are no grades
    assert browser.find_element(By.ID, "counts").text.endswith("0 graded")
    press(browser, "b", "n")
    assert browser.find_element(By.ID, "counts").text.endswith("2 graded")
    assert chosen_key(browser) == keys_of(page[0])[2]
    assert (
        browser.find_element(By.ID, "spoken").get_attribute("textContent").startswith("Graded not a lens. Next: rank")
    )


def test_two_tabs_of_one_page_keep_the_grades_of_both_and_what_one_undoes_stays_undone(browser):
    kept = (
        "return Object.values(new LENSPIPE.Grades(LENSPIPE.grades.storageKey).byGrader.Ada).map(e => e.grade).join('')"
    )
    name_grader(browser, "Ada")
    press(browser, "a", "a")
    first, url = browser.current_window_handle, browser.current_url
    browser.switch_to.new_window("tab")
    try:
        browser.get(url)
        until(lambda: browser.find_element(By.ID, "counts").text.endswith("2 graded"))
        press(browser, "j", "j", "b", "c")
        browser.switch_to.window(first)
        until(lambda: browser.find_element(By.ID, "counts").text.endswith("4 graded"))
        press(browser, "u", "n", "n", "u", "u", "u")  # all of this tab, none of the other's
        assert browser.execute_script(kept) == "BC"
        browser.switch_to.window(browser.window_handles[-1])
        until(lambda: browser.find_element(By.ID, "counts").text.endswith("2 graded"))
        press(browser, "a")
        assert browser.execute_script(kept) == "BCA"
        # a tab that remembers a grade does not bring it back once another has undone it
        stale = "const g = new LENSPIPE.Grades(LENSPIPE.grades.storageKey); LENSPIPE.grades.undo(); g.set('r/x', 'N');"
        browser.execute_script(stale)
        assert browser.execute_script(kept) == "BCN"
    finally:
        if len(browser.window_handles) > 1:
            browser.switch_to.window(browser.window_handles[-1])
            browser.close()
        browser.switch_to.window(first)


def test_grades_that_older_pages_kept_without_a_name_are_offered_to_who_types_one(browser, page):
    old = {k: {"grade": "A", "time": f"2026-01-0{i + 1}T00:00:00.000Z"} for i, k in enumerate(keys_of(page[0])[:3])}
    browser.execute_script(
        "const kept = {grader: '', byGrader: {anonymous: arguments[0]}};"
        "localStorage.setItem(LENSPIPE.grades.storageKey, JSON.stringify(kept))",
        old,
    )
    browser.refresh()
    until(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "yes")
    line = browser.find_element(By.ID, "nameless")
    assert not line.is_displayed()
    name_grader(browser, "Ada")
    assert line.text.startswith("3 grades") and "as Ada?" in line.text
    press(browser, "n")  # a newer grade of one of them, which stays
    browser.find_element(By.ID, "nameless-take").click()
    assert not line.is_displayed() and browser.find_element(By.ID, "counts").text.endswith("3 graded")
    csv_text = browser.execute_script("return LENSPIPE.grades.toCsv(() => null, 'Ada')")
    rows = {f"{r['run_id']}/{r['candidate_id']}": r for r in csv.DictReader(io.StringIO(csv_text))}
    first, *others = old
    assert rows.pop(first)["grade"] == "N"
    assert {k: (r["grade"], r["time"]) for k, r in rows.items()} == {k: tuple(old[k].values()) for k in others}
    browser.refresh()
    until(lambda: browser.find_element(By.ID, "counts").text.endswith("3 graded"))
    assert not browser.find_element(By.ID, "nameless").is_displayed()


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


def test_pixels_without_data_are_hatched_north_is_shown_and_each_band_has_a_panel(browser):
    until(lambda: browser.execute_script("return document.querySelector('.card').dataset.drawn") == "true")
    press(browser, "j")
    assert browser.find_element(By.ID, "compass").get_attribute("aria-label") == "north points up, east left"
    panels = {b.get_attribute("data-view"): b for b in browser.find_elements(By.CSS_SELECTOR, "#panels button")}
    assert list(panels) == ["colour", "residual", "i", "r", "g"]
    pixels = (
        "const c = document.querySelector('#panels [data-view=' + arguments[0] + '] canvas');"
        "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    drawn = {v: np.array(browser.execute_script(pixels, v)).reshape(SIDE, SIDE, 4)[..., :3] for v in panels}
    for picture in drawn.values():
        assert {tuple(p) for p in picture[-8:].reshape(-1, 3).tolist()} == {(52, 58, 70), (104, 114, 132)}
        assert not (picture[: SIDE - 8] == (52, 58, 70)).all(axis=-1).any()
    assert (drawn["r"] == drawn["r"][..., :1])[:-8].all()  # grey
    middle = np.s_[SIDE // 2 - 2 : SIDE // 2 + 2, SIDE // 2 - 2 : SIDE // 2 + 2]
    assert drawn["r"][middle].mean() > 100 and drawn["colour"][middle].mean() > 200
    assert drawn["residual"][middle].mean() < 60  # which the page takes from its own sheets
    panels["r"].click()
    assert panels["r"].get_attribute("aria-pressed") == "true"
    assert browser.find_element(By.ID, "scalebar").text.endswith("· r")


def test_lists_of_the_page_are_used_by_keys_alone(browser, page):
    browser.execute_script("document.getElementById('sort').focus()")
    press(browser, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert browser.switch_to.active_element.get_attribute("id") == "sort"
    assert browser.find_element(By.ID, "sort").get_property("value") == "probability"
    press(browser, Keys.ESCAPE, Keys.HOME, "v")
    assert browser.switch_to.active_element.get_attribute("id") == "scroll"
    assert browser.find_element(By.ID, "view").get_property("value") == "residual"
    chosen = browser.find_element(By.ID, "scroll").get_attribute("aria-activedescendant")
    card = browser.find_element(By.ID, chosen)
    assert card.get_attribute("aria-selected") == "true" and "not graded" in card.get_attribute("aria-label")
    press(browser, "/", "n", "o", Keys.ENTER)
    assert browser.find_element(By.ID, "search").get_property("value") == "no"
    assert browser.switch_to.active_element.get_attribute("id") == "scroll"


def test_names_of_graders_that_are_words_of_javascript_or_html_are_names(browser, open_browser, tmp_path):
    rows = "r,c,__proto__,A\nr,c,constructor,B\nr,c,</script><img src=x onerror=alert(1)>,N\n"
    (tmp_path / "odd.csv").write_text("run_id,candidate_id,grader,grade\n" + rows)
    browser.find_element(By.ID, "import").send_keys(str(tmp_path / "odd.csv"))
    until(lambda: "3 grades" in browser.find_element(By.ID, "toast").text)
    name_grader(browser, "../a/<b>")
    press(browser, "a", "w")
    assert "</script><img src=x" in browser.find_element(By.ID, "graders-table").text
    assert not browser.find_elements(By.CSS_SELECTOR, "#graders img")
    press(browser, Keys.ESCAPE, "e")
    assert saved(open_browser[1], "grades-sky-a_b.csv")


def test_on_a_phone_the_grade_buttons_are_on_the_screen_and_nothing_is_beside_it(browser):
    browser.set_window_size(390, 844)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    browser.refresh()
    until(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "yes")
    try:
        name_grader(browser, "Ada")
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        seen = "const b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom, b.height]"
        for button in browser.find_elements(By.CSS_SELECTOR, ".grades button"):
            left, top, right, bottom, height = browser.execute_script(seen, button)
            assert left >= 0 and top >= 0 and right <= 390 and bottom <= 844 and height >= 44
        browser.find_element(By.CSS_SELECTOR, "[data-grade=B]").click()
        assert browser.find_element(By.ID, "counts").text.endswith("1 graded")
        assert not browser.find_element(By.ID, "sort").is_displayed()
        browser.find_element(By.ID, "tools-open").click()
        assert browser.find_element(By.ID, "sort").is_displayed()
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.set_window_size(1500, 950)


@pytest.fixture(scope="module")
def axe(request):
    """axe-core out of npm, kept between runs of the tests."""
    folder = request.config.cache.mkdir("axe-core")
    file = folder / f"axe-{AXE}.js"
    if not file.exists():
        if shutil.which("npm") is None:
            pytest.skip("no npm on this machine, which axe-core comes from")
        done = subprocess.run(
            ["npm", "pack", f"axe-core@{AXE}", "--pack-destination", str(folder)], capture_output=True, timeout=120
        )
        if done.returncode:
            pytest.skip(f"npm does not get axe-core: {done.stderr.decode(errors='replace').strip()[-200:]}")
        with tarfile.open(folder / f"axe-core-{AXE}.tgz") as packed:
            file.write_bytes(packed.extractfile("package/axe.min.js").read())
    return file.read_text(encoding="utf-8")


def serious(driver, axe):
    driver.execute_script(axe)
    found = driver.execute_async_script("axe.run({preload: false}).then(arguments[0])")["violations"]
    return [(v["id"], v["impact"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("width", [1400, 390])
def test_no_table_of_a_report_is_cut_off_and_axe_finds_no_serious_fault_in_it(open_browser, axe, tmp_path, width):
    driver, _ = open_browser
    rows = [
        [f"a long name of model {k}", *["0.523 [0.412, 0.634] (3/10, 2 false)"] * 9, "/a/path" * 12] for k in range(2)
    ]
    wide = (["model", *(f"TPR at FPR 1e-{k}" for k in range(9)), "folder"], rows)
    narrow = (["host", "n"], [["early_type", "12"]])
    png = png_of(np.zeros((40, 2000, 3), np.uint8))
    text = page_of("A report", ["One line. " * 20], [Section("Rates", "Text.", [wide, narrow], [("roc.png", png)])])
    (tmp_path / "report.html").write_text(text)
    trials = table_html([f"column {k}" for k in range(12)], [["stopped at epoch 3", *["lr 0.001, width 32"] * 11]])
    (tmp_path / "sweep.html").write_text(document("Sweep", trials, style=SWEEP_STYLE))
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for name in ("report.html", "sweep.html"):
        driver.get((tmp_path / name).as_uri())
        inside = (
            "return [...document.querySelectorAll('table, td, th, img')].every(e => {"
            "const b = e.getBoundingClientRect();"
            "return b.left >= 0 && b.right <= innerWidth && e.scrollWidth <= e.clientWidth + 1})"
        )
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert driver.execute_script(inside)
        assert serious(driver, axe) == []
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_no_serious_fault_of_accessibility(browser, axe, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    until(lambda: browser.execute_script("return document.querySelector('.card').dataset.drawn") == "true")
    name_grader(browser, "Ada")
    press(browser, "a", "b", "n")
    time.sleep(0.3)  # the message has faded in
    assert serious(browser, axe) == []
    for key, dialog in (("w", "graders"), ("d", "save"), ("?", "help")):
        press(browser, key)
        assert browser.find_element(By.ID, dialog).is_displayed()
        assert serious(browser, axe) == []
        press(browser, Keys.ESCAPE)
    press(browser, "m")
    assert serious(browser, axe) == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_more_like_this_shows_the_nearest_of_a_candidate_in_their_order(browser, page):
    rows, _, likeness = page
    keys, near = keys_of(rows), likeness.near[2]
    until(lambda: browser.execute_script("return document.documentElement.dataset.alike") == "yes")
    press(browser, Keys.HOME, "j", "j")
    some = browser.find_elements(By.CSS_SELECTOR, "#alike-some button")
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
    some = browser.find_elements(By.CSS_SELECTOR, "#alike-some button")
    wanted = some[1].get_attribute("data-key")
    some[1].click()
    assert chosen_key(browser) == wanted


def test_the_map_is_used_by_keys_alone(browser, page):
    rows, _, likeness = page
    keys, place = keys_of(rows), likeness.place
    until(lambda: browser.execute_script("return document.documentElement.dataset.alike") == "yes")
    press(browser, Keys.HOME, "m", Keys.ARROW_RIGHT)
    now = keys.index(chosen_key_of_detail(browser))
    assert place[now, 0] > place[0, 0] and abs(place[now] - place[0]).max() < 0.1
    press(browser, "o", "m")
    nearest = np.argsort(((place - place[now]) ** 2).sum(axis=1))[:24]
    assert shown(browser) == 24 and chosen_key(browser) == keys[now]
    press(browser, Keys.END)
    assert chosen_key(browser) == keys[nearest[-1]]


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
def test_the_lasso_of_the_map_selects_what_lies_inside_to_be_graded(browser, page, width, height):
    _, _, likeness = page
    browser.set_window_size(width, height)
    until(lambda: browser.execute_script("return document.documentElement.dataset.alike") == "yes")
    press(browser, "m")
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
    name_grader(browser, "Ada")
    press(browser, "a", "b")
    colours = "const c = document.querySelector('#map canvas:not(#map-tip)');" + (
        "const d = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);"
        "return [[79, 196, 127], [184, 204, 74], [58, 63, 73]].map(rgb => d.includes(LENSPIPE.bytes(rgb)))"
    )
    until(lambda: browser.execute_script(colours) == [True, True, True])
    browser.find_element(By.ID, "within-leave").click()
    assert shown(browser) == N
    press(browser, "m")
    browser.set_window_size(1500, 950)


def test_zoom_and_size_change_the_pictures(browser):
    before = browser.find_element(By.CSS_SELECTOR, ".card").size["width"]
    press(browser, "+", "+", "+", "+")
    assert browser.find_element(By.CSS_SELECTOR, ".card").size["width"] >= before + 30
    bar = browser.find_element(By.ID, "scalebar").text
    browser.execute_script(
        "document.getElementById('big').dispatchEvent(new WheelEvent('wheel', {deltaY: -1, cancelable: true}))"
    )
    assert "1.3×" in browser.find_element(By.ID, "scalebar").text != bar
    press(browser, "x", "z", "z")
    assert "1.6×" in browser.find_element(By.ID, "scalebar").text
    press(browser, "p")
    assert browser.find_element(By.ID, "preset").get_property("value") == "faint arcs"
    assert float(browser.find_element(By.ID, "brightness").get_property("value")) == 0.65


def test_links_lead_to_the_chosen_position(browser, page):
    ra = float(f"{page[0]['ra'][0].as_py():.10g}")
    links = [a.get_attribute("href") for a in browser.find_elements(By.CSS_SELECTOR, "#links a")]
    assert len(links) == 4
    assert all(str(ra) in link for link in links)
