"""Fixtures shared by all tests: a seeded generator, real data where there are any, a tiny model, one Ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if "PYTEST_XDIST_WORKER" in os.environ:  # processes beside each other: a thread each; said before NumPy starts its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's workers would wait for the tests beside them

import hypothesis
import numpy as np
import pytest
from xdist.scheduler import LoadGroupScheduling

if TYPE_CHECKING:
    from s3_server import S3Server

hypothesis.settings.register_profile("unhurried", deadline=None)  # other work may fill the cores
hypothesis.settings.load_profile("unhurried")

sys.path.insert(0, str(Path(__file__).parent))
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for a run of everything (three are slower); none beside this one for the few that are named."""
    named = (str(argument).partition("::")[0] for argument in config.invocation_params.args)
    return 0 if any(Path(name).exists() for name in named) else 2


class ByFile(LoadGroupScheduling):
    """A file's tests go to one process, which makes their fixtures once; so do all with Ray, which begin."""

    def _split_scope(self, nodeid: str) -> str:
        group = super()._split_scope(nodeid)
        return nodeid.partition("::")[0] if group == nodeid else group


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Whole files, in the order in which the tests were collected."""
    return ByFile(config, log)


RAY, BROWSER, REAL = {"ray_local", "cluster"}, {"browser", "open_browser"}, {"real_data"}


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they need, which their fixtures say; those with Ray, the longest file of all, come first."""
    for item in items:
        needs = set(getattr(item, "fixturenames", ()))
        if needs & RAY or item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.ray)
            item.add_marker(pytest.mark.xdist_group("ray"))
        if needs & BROWSER:
            item.add_marker(pytest.mark.browser)
        if needs & REAL:
            item.add_marker(pytest.mark.real)
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture(scope="session", autouse=True)
def blank_figures() -> Iterator[None]:
    """No test waits for a figure but those that look at it, `with drawn()`."""
    from pictures import Figure, draw, leave_blank

    Figure.savefig = leave_blank  # type: ignore[method-assign, assignment]
    yield
    Figure.savefig = draw  # type: ignore[method-assign]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261121)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real survey pixels, beside the checkout; they are not part of the project."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"real survey pixels are not beside this checkout ({REAL_DATA})")
    return REAL_DATA


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for g r i with seeded, untrained weights: its scores mean nothing, and vary."""
    import torch

    from lenspipe.nn.card import ModelCard
    from lenspipe.nn.checkpoint import save_model
    from lenspipe.nn.registry import build

    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(3)
    card = ModelCard(
        name="tiny",
        family="small-cnn",
        settings={"width": 4, "dropout": 0.0},
        bands=("g", "r", "i"),
        pixel_scale_arcsec=0.2,
        scale_tolerance=0.1,
        min_scale_arcsec=0.1,
        max_scale_arcsec=0.4,
        stamp_px=33,
        stretch={"band_scales": (0.01, 0.01, 0.01), "alpha": 0.1, "q": 1.0},
    )
    save_model(folder, build("small-cnn", 3, 33, width=4, dropout=0.0), card)
    return folder


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One local Ray for the whole session: four logical CPUs, whatever the machine has."""
    from lenspipe.distributed.session import ray_session

    with ray_session(n_worker=4, keep_idle=True):
        yield


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 on loopback with an empty bucket, for the whole session; it does as it is told (`S3Server`)."""
    from s3_server import s3_server

    with s3_server() as server:
        yield server
