# The page's import of grades against the reader of `lenspipe grades`, on damaged files: two programs that must agree.

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fuzz import damaged
from lenspipe.catalog.gallery import write
from lenspipe.catalog.grades import read_grades
from lenspipe.errors import ConfigError

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WHOLE = (
    "run_id,candidate_id,name,ra,dec,grader,grade,time\n"
    'r,c1,"J1, a",10.5,-1.25,ada,A,2026-01-01\nr,c2,,11,2,"b ""o"" b",N,2026-01-02\n'
    "r,c1,,10.5,-1.25,'=bob,C,2026-01-03\nr,c3,,1,1,__proto__,B,2026-01-03\nr,c1,,10.5,-1.25,ada,B,2026-01-04\n"
)
IMPORT = """
const found = [];
for (const text of arguments[0]) {
  localStorage.clear();
  const grades = new LENSPIPE.Grades("fuzz");
  try { grades.fromCsv(text); } catch (error) {
    found.push([error.constructor === Error ? "refused" : "crash", String(error)]);
    continue;
  }
  found.push(["read", Object.entries(grades.byGrader).flatMap(([grader, of]) => Object.entries(of).map(
    ([key, entry]) => [...LENSPIPE.splitKey(key), grader, entry.grade]))]);
}
return found;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs Debian's chromium and chromium-driver to test the page")
        pytest.skip("no chromium and chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    folder = tmp_path_factory.mktemp("page")
    script = (Path(write.__file__).parent / "page" / "grades.js").read_text()
    (folder / "a.html").write_text(f"<meta charset=utf-8><script>{script}</script>")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.get((folder / "a.html").as_uri())
    yield driver
    driver.quit()


def read(text, tmp_path):
    """What the command reads, as the page counts it: a set of grades, or that it refuses."""
    (tmp_path / "g.csv").write_bytes(text.encode())
    try:
        rows = read_grades([str(tmp_path / "g.csv")]).to_pylist()
    except ConfigError:
        return "refused"
    return {(row["run_id"], row["candidate_id"], row["grader"], row["grade"]) for row in rows}


def test_a_damaged_file_of_grades_is_on_the_page_what_it_is_to_the_command_or_is_refused(browser, tmp_path):
    texts = [WHOLE] + [
        damaged(WHOLE.encode(), np.random.default_rng([3, k])).decode(errors="replace").replace("\x00", "")
        for k in range(300)
    ]
    found = json.loads(browser.execute_script(f"return JSON.stringify((function() {{{IMPORT}}})({json.dumps(texts)}))"))
    counts = {"read": 0, "refused": 0}
    for text, (verdict, said) in zip(texts, found, strict=True):
        assert verdict != "crash", (said, text)
        counts[verdict] += 1
        ours = read(text, tmp_path)
        if verdict == "read" and ours != "refused":
            assert {tuple(row) for row in said} == ours, text
    assert found[0][0] == "read" and len(found[0][1]) == 4
    assert counts["read"] > 50 and counts["refused"] > 50
