"""What docs/own writes, installed as packages of their own: a survey, a reader of stamps, an objective, a detector."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from click.testing import CliRunner
from sky import write_tile
from toy_stamps import make_stamps

from lenspipe import plugins
from lenspipe.cli import group
from lenspipe.errors import ConfigError
from lenspipe.image.detect import detect_sep, detector_of
from lenspipe.learn import objectives
from lenspipe.learn.objectives import objective_of
from lenspipe.learn.settings import TrainSettings
from lenspipe.learn.train import train
from lenspipe.nn.card import read_card
from lenspipe.stamps.convert import convert
from lenspipe.stamps.format import StampSet
from lenspipe.stamps.readers import reader_of
from lenspipe.stamps.splits import DEFAULT_FRACTIONS
from lenspipe.survey.layout import read_layout

DOCS = Path(__file__).parents[2] / "docs" / "own"


def blocks(page: str) -> dict[str, str]:
    return dict(re.findall(r"```(\w+)\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What `pip install` of the packages in the docs leaves: their files, and the entry points of their metadata."""
    folder = tmp_path / "site-packages"
    for page in ("reader", "objective", "detector"):
        code, toml = blocks(page)["python"], blocks(page)["toml"]
        module = re.match(r'"""(\w+)\.py', code)[1]
        (name, line) = re.search(r'\[project\.entry-points\."(.*?)"\]\n(.*?)\n', toml).groups()
        metadata = folder / f"{module}-0.1.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{module}.py").write_text(code)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 0.1\n")
        (metadata / "entry_points.txt").write_text(f"[{name}]\n{line.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(str(folder))
    plugins.entries.cache_clear()
    yield folder
    plugins.entries.cache_clear()
    for module in ("plate_stamps", "margin", "islands"):
        sys.modules.pop(module, None)


def test_the_layout_of_the_docs_reads_files_of_its_names_with_its_zero_point(tmp_path: Path) -> None:
    write_tile(tmp_path / "plain", "a", shape=(64, 64), n_source=1, bands="r")
    image = next((tmp_path / "plain").glob("*r*.fits"))
    (tmp_path / "tiles").mkdir()
    with fits.open(image) as file:
        plane = next(hdu for hdu in file if hdu.data is not None)
        plane.header.pop("BUNIT", None)
        (tmp_path / "mine.toml").write_text(blocks("survey")["toml"])
        for name, pixels in (("coadd", plane.data), ("ivar", np.full_like(plane.data, 1e-2))):
            fits.PrimaryHDU(pixels, plane.header).writeto(tmp_path / f"tiles/f1-r-{name}.fits")
    assert read_layout(str(tmp_path / "mine.toml")).zero_point.ab == 27.2
    shown = CliRunner().invoke(
        group, ["scan", str(tmp_path / "tiles"), "--survey", str(tmp_path / "mine.toml"), "--dry-run"]
    )
    assert shown.exit_code == 0 and "Zero-point r: 27.200 AB" in shown.output, shown.output


def test_the_reader_of_the_docs_converts_its_stamps(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "plates").mkdir()
    pixels = np.arange(2 * 33 * 33, dtype=np.float32).reshape(2, 33, 33)
    for k in range(4):
        np.save(tmp_path / f"plates/{('lens', 'galaxy')[k % 2]}_s{k}.npy", pixels + k)
    np.save(tmp_path / "plates/lens_bad.npy", np.ones((2, 5, 5)))
    reader = reader_of("plates")
    stream = reader.read(tmp_path / "plates", reader.options(bands=("g", "r"), size_px=33, pixel_scale_arcsec=0.2))
    done = convert(stream, tmp_path / "stamps", seed=0, fractions=DEFAULT_FRACTIONS, margin_arcsec=5.0)
    assert done.n == 4 and len(done.dropped) == 1 and "another shape" in done.dropped[0][1]
    stamps = StampSet.open(tmp_path / "stamps")
    assert sorted(stamps.column("label")) == ["galaxy", "galaxy", "lens", "lens"]
    assert set(stamps.column("recipe")) == {"plates"}


def test_the_objective_of_the_docs_trains_a_finder_that_any_command_takes(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = objectives.METHODS["find"] | {"margin": lambda: objectives._of_package("find.margin")}
    monkeypatch.setitem(objectives.METHODS, "find", methods)
    assert "find.margin" in plugins.entries(plugins.METHODS)
    objective = objective_of("find", "margin")
    loss = objective.losses(None)["hinge"]
    batch = {"label": torch.tensor([1, 0, 1])}
    assert float(loss(torch.tensor([2.0, -3.0, 0.5]), batch)) == pytest.approx(0.5 / 3)
    settings = TrainSettings.model_validate(
        {"method": "margin", "optim": {"epochs": 1}, "sampling": {"steps_per_epoch": 2, "batch_size": 16}}
    )
    train(
        make_stamps(tmp_path / "stamps", 90), model="small-cnn", task="find", out=tmp_path / "model", settings=settings
    )
    card = read_card(tmp_path / "model")
    assert card.outputs.task == "find" and card.training["settings"]["method"] == "margin"


def test_the_detector_of_the_docs_finds_what_sep_finds_where_nothing_overlaps(installed: Path) -> None:
    y, x = np.mgrid[:80, :80]
    image = np.zeros((80, 80), np.float32)
    for x0, y0 in ((20.3, 20.0), (60.0, 25.4), (40.0, 62.0)):
        image += 100 * np.exp(-((x - x0) ** 2 / 18 + (y - y0) ** 2 / 8)).astype(np.float32)
    rms, mask = np.ones_like(image), np.zeros(image.shape, bool)
    how = {"threshold_sigma": 5.0, "min_area_px": 5, "deblend_levels": 32, "deblend_contrast": 0.005}
    ours, segments = detector_of("islands")(image, rms, mask, **how)
    theirs, _ = detect_sep(image, rms, mask, **how)
    assert np.allclose(ours.x_px, theirs.x_px, atol=0.1) and np.allclose(ours.y_px, theirs.y_px, atol=0.1)
    assert np.allclose(ours.theta_rad, 0, atol=0.05) and np.all(ours.a_px > 1.3 * ours.b_px)
    assert segments[20, 20] == ours.label[np.argmin(np.hypot(ours.x_px - 20, ours.y_px - 20))]


def test_a_package_that_cannot_be_imported_is_named(installed: Path) -> None:
    (installed / "islands.py").write_text("import no_such_module\n")
    with pytest.raises(ConfigError, match=r"no_such_module.*entry_point='islands'"):
        detector_of("islands")
