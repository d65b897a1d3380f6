"""Pages and pictures: one style, nothing outside the page, files that appear whole."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from pictures import drawn
from PIL import Image

from lenspipe.catalog.gallery.write import PAGE, STYLE
from lenspipe.learn.sweep.page import STYLE as SWEEP_STYLE
from lenspipe.report.page import BASE_STYLE, DOCUMENT_STYLE, Section, document, page
from lenspipe.report.picture import png_of, write_png
from lenspipe.report.plots import plain_ticks

DEFINED, USED = re.compile(r"(--[A-Za-z]+)\s*:"), re.compile(r"var\((--[A-Za-z]+)\)")


@pytest.mark.parametrize(
    "own", [DOCUMENT_STYLE, SWEEP_STYLE, (PAGE / STYLE).read_text()], ids=["document", "sweep", "candidates"]
)
def test_every_colour_of_a_page_is_defined_in_the_base_or_by_the_page(own: str) -> None:
    assert set(USED.findall(own)) <= set(DEFINED.findall(BASE_STYLE + own))
    assert set(USED.findall(own)) & set(DEFINED.findall(BASE_STYLE))


@pytest.mark.parametrize(("x", "words"), [((0.5, 3.0), {"0.5", "1", "2"}), ((3e5, 7e6), {"500 k", "1 M", "5 M"})])
def test_a_logarithmic_axis_of_a_decade_has_plain_numbers(x, words) -> None:
    axes = Figure().subplots()
    axes.set_xscale("log")
    axes.set_xlim(*x)
    plain_ticks(axes.xaxis)
    axes.figure.canvas.draw()
    assert words <= {label.get_text() for label in axes.get_xticklabels()}
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


def test_the_dark_and_the_light_scheme_define_the_same_colours() -> None:
    blocks = [set(DEFINED.findall(block)) for block in re.findall(r":root[^{]*\{([^}]*)\}", BASE_STYLE)]
    assert len(blocks) == 3 and blocks[0] == blocks[1] == blocks[2]


def test_words_of_a_page_are_escaped_and_its_pictures_lie_inside() -> None:
    section = Section("a < b", "<script>", [(["x"], [["<i>"]])], [('"p".png', png_of(np.zeros((2, 2), np.uint8)))])
    text = page("T & t", ["one"], [section])
    assert "<script>" not in text and "<i>" not in text and "a &lt; b" in text and "T &amp; t" in text
    assert text.count("data:image/png;base64,") == 1 and BASE_STYLE in text
    assert "<figcaption>&quot;p&quot;</figcaption>" in text  # who looks at a picture sees its name
    assert document("t", "<p>body</p>", style="p{color:red}").count("<style>") == 1


def test_a_picture_has_words_below_it_and_a_number_does_not_break() -> None:
    png = png_of(np.zeros((2, 2), np.uint8))
    section = Section("t", "", [(["n"], [["1153"]])], [("missed_host.png", png), ("x.png", png)], {"x.png": "By size"})
    text = page("T", [], [section])
    assert re.findall(r"<figcaption>(.*?)</figcaption>", text) == ["missed host", "By size"]
    assert '<td class="short" data-label="n">1153</td>' in text


def test_pixels_and_figures_become_pngs_and_a_file_appears_whole(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_of(pixels)))), pixels)
    with drawn():
        write_png(tmp_path / "figure.png", Figure(figsize=(2, 1)))
    assert Image.open(tmp_path / "figure.png").size == (220, 110)
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    made = png_of(pixels)
    assert png_of(made) is made
