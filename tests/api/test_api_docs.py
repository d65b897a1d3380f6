import re
from pathlib import Path

from drawn_survey import drawn_tile, write_tile

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_page_runs_as_shown_in_the_order_shown(tmp_path, monkeypatch):
    image, _ = drawn_tile(n_red=12, n_blue=12, n_star=25)
    write_tile(tmp_path / "tiles", image)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["lens"].pixels_njy.shape == (3, 61, 61)
    assert names["picture"].shape == (61, 61, 3)
    assert len(names["run"].candidates) > 5
    assert names["cut"].pixels_njy.shape == (3, 3, 41, 41) and not names["cut"].missing
