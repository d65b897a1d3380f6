"""A small data set of made stamps, and the family of networks that judge it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluate_models_made import FAMILY, make_data, register_family

from lenspipe.nn import registry


@pytest.fixture(scope="module", autouse=True)
def brightness_family() -> Iterator[None]:
    register_family()
    yield
    registry._FAMILIES.pop(FAMILY)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("stamps")
    return folder, make_data(folder, 1500)
