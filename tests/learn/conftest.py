"""Toy stamps, and one thread for torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from toy_stamps import make_stamps


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy_stamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stamps(tmp_path_factory.mktemp("toy") / "stamps")


@pytest.fixture(scope="session")
def stamp_maker() -> Callable[..., Path]:
    return make_stamps
