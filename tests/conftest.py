"""Fixtures shared by all tests: a seeded generator, the real data where there is any, one Ray for the session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


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
def ray_local() -> Iterator[None]:
    """One local Ray for the whole session: four logical CPUs, whatever the machine has."""
    from lenspipe.dist.session import prepare_environment

    prepare_environment()
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=300 << 20, log_to_driver=False)
    yield
    ray.shutdown()
