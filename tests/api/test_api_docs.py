import re
from pathlib import Path

from drawn_survey import drawn_tile, write_tile

ROOT = Path(__file__).parents[2]


def blocks_of(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_page_and_readme_run_as_shown_in_the_order_shown(tmp_path, monkeypatch):
    image, _ = drawn_tile(n_red=12, n_blue=12, n_star=25)
    write_tile(tmp_path / "tiles", image)
    monkeypatch.chdir(tmp_path)
    names, readme = {}, {}
    assert len(blocks_of("docs/python.md")) == 6 and len(blocks_of("README.md")) == 1
    for block in blocks_of("docs/python.md"):
        exec(compile(block, "docs/python.md", "exec"), names)
    for block in blocks_of("README.md"):
        exec(compile(block, "README.md", "exec"), readme)  # it opens the run that the page has made
    assert len(readme["run"].candidates) == len(names["run"].candidates)
    assert names["lens"].pixels_njy.shape == (3, 61, 61)
    assert names["picture"].shape == (61, 61, 3)
    assert len(names["run"].candidates) > 5
    assert names["cut"].pixels_njy.shape == (3, 3, 41, 41) and not names["cut"].missing
