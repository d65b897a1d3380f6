"""The family that docs/own/family.md writes, installed as a package of its own: listed, trained, saved, scored."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from toy_stamps import make_stamps

from lenspipe.cli import group
from lenspipe.errors import ModelError
from lenspipe.infer.score import Scorer
from lenspipe.nn import registry
from lenspipe.nn.registry import build, families

DOCS = Path(__file__).parents[2] / "docs" / "own" / "family.md"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What `pip install` of the package in the docs leaves: its file, and the entry points of its metadata."""
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", DOCS.read_text(), re.DOTALL))
    folder = tmp_path / "site-packages"
    metadata = folder / "ring_net-0.1.dist-info"
    metadata.mkdir(parents=True)
    (folder / "ring_net.py").write_text(blocks["python"])
    name, line = re.search(r'\[project\.entry-points\."(.*?)"\]\n(.*?)\n', blocks["toml"]).groups()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ring-net\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text(f"[{name}]\n{line.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(str(folder))
    registry._of_packages.cache_clear()
    yield folder
    registry._of_packages.cache_clear()
    registry._FAMILIES.pop("ring-net", None)
    sys.modules.pop("ring_net", None)


def test_the_family_of_the_docs_is_built_by_its_name_and_takes_a_step(installed: Path) -> None:
    torch.manual_seed(0)
    network = build("ring-net", 2, 33, 3, width=8).train()
    assert type(network).__module__ == "ring_net"
    stamps, targets = torch.randn(16, 2, 33, 33), torch.randn(16, 3)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(2):
        loss = (network(stamps) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
    assert network.forward_features(stamps).shape == (16, network.num_features) == (16, 32)
    assert network.head_names() == {"head.weight", "head.bias"}


def test_the_family_of_the_docs_is_listed_trained_and_scored_like_any(installed: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    listed = runner.invoke(group, ["models"])
    assert re.search(r"ring-net +5,921 +3 x 65 px +Two convolutions", listed.output), listed.output
    data = make_stamps(tmp_path / "stamps", 120)
    (tmp_path / "small.toml").write_text("[sampling]\nsteps_per_epoch = 2\n[model]\nwidth = 4\n")
    command = ["train", "--data", str(data), "--model", "ring-net", "--out", str(tmp_path / "model")]
    command += ["--config", str(tmp_path / "small.toml"), "--epochs", "1", "--runner", "local"]
    done = runner.invoke(group, command)
    assert done.exit_code == 0, done.output
    scorer = Scorer(tmp_path / "model", device="cpu")
    assert scorer.card.family == "ring-net" and scorer.card.settings == {"width": 4}
    assert 0 < scorer.score(np.ones((1, 2, 13, 13), np.float32), pixel_scale_arcsec=0.2)[0] < 1


def test_a_package_that_cannot_be_imported_is_named_and_does_not_touch_our_families(installed: Path) -> None:
    (installed / "ring_net.py").write_text("import no_such_module\n")
    build("small-cnn", 1, 33)
    with pytest.raises(ModelError, match=r"no_such_module.*entry_point='ring_net'"):
        families()
