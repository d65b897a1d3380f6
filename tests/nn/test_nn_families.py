"""Network families: published parameter counts, what they take, that they learn, and local weights for them."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.nn.families.lastro_invariant import N_VIEW, DihedralConvolution, compositions, view
from lenspipe.nn.families.lastro_layers import NormalisedReLU
from lenspipe.nn.heads import RowSum
from lenspipe.nn.pretrained import load_pretrained
from lenspipe.nn.registry import build, families, family_facts

PUBLISHED = {
    "lastro-baseline": 5_674_145,
    "lastro-views": 7_035_308,
    "lastro-residual": 4_863_021,
    "lastro-invariant": 1_753_705,
}
NETWORKS = [
    "cas-swinburne",
    "cmu-deeplens",
    "densenet-cbam",
    "epfl-cnn",
    "hybrid",
    "lastro-baseline",
    "lastro-invariant",
    "lastro-residual",
    "lastro-views",
    "lensflow",
    "small-cnn",
    "wsi-net",
]
# convolutions and dense layers before the last weighted sum, which is RowSum: published dense layers are one more
LAYERS = {
    "cas-swinburne": (3, 2),
    "cmu-deeplens": (50, 0),  # 46 published, and the 1 x 1 of 4 shortcuts where the width changes
    "densenet-cbam": (60, 0),  # ours: 1 + 24 pairs, 3 of each of 3 attentions, 2 transitions
    "epfl-cnn": (5, 1),
    "lastro-baseline": (9, 2),
    "lastro-invariant": (11, 0),  # the baseline's 9, and its 2 dense layers as 1 x 1 between fields
    "lastro-residual": (22, 2),  # 16 published in seven blocks, one on each side, and the 1 x 1 of 4 shortcuts
    "lastro-views": (20, 8),  # the baseline's 9 and 3; 11 and 3 of the centre; 2 after both
    "lensflow": (3, 1),
    "small-cnn": (6, 0),
    "wsi-net": (10, 1),  # the branch's 2; the trunk is ours: 1, two blocks of 3, the 1 x 1 of a shortcut
}
SMALL = {"hybrid": {"trunk": "efficientnet_b0"}, "cas-swinburne": {"dropout": 0.0}}


def outputs(module: nn.Module, stamps: Tensor) -> Tensor:
    features = getattr(module, "n_feature", 0)
    out: Tensor = module(stamps, stamps[:, :1, :features, 0].flatten(1)) if features else module(stamps)
    return out


def documented() -> dict[str, tuple[int, str]]:
    """Parameters of each family and the input that they are counted for, as the tables of docs/models.md say."""
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \|.*?\| ([\d,]+) \| (\d+ x \d+ px)(?:, \d+ features)? \|", text, re.MULTILINE
    )
    groups = re.findall(r"^\| ([CDSO0-9()]+) \| (?:\d+|continuous) \| ([\d,]+) \|", text, re.MULTILINE)
    found = {name: (int(count.replace(",", "")), size) for name, count, size in rows}
    for name, count in groups:
        family = "equivariant-" + name.lower().replace("(", "").replace(")", "")
        found[family] = (int(count.replace(",", "")), "3 x 65 px")
    return found


def test_counts_of_parameters_are_those_of_the_docs_and_of_the_papers() -> None:
    want = documented()
    assert set(NETWORKS) <= set(want) and sum("equivariant" in name for name in want) == 13
    hybrid, _ = want.pop("hybrid")  # its trunk is timm's, which the list of families does not import
    assert sum(p.numel() for p in build("hybrid", 3, 65).parameters()) == hybrid
    state = torch.get_rng_state()
    for name, (count, size) in want.items():
        facts = family_facts()[name]
        assert facts.n_parameter == PUBLISHED.get(name, count) == count
        assert f"{facts.n_channel} x {facts.stamp_px} px" == size
    assert torch.equal(torch.get_rng_state(), state)


def test_families_are_listed_without_timm_escnn_and_torchs_meta_device() -> None:
    """Each takes seconds to import; nor does scoring need them."""
    code = (
        "import sys, lenspipe.infer.score; from click.testing import CliRunner; "
        "from lenspipe.cli.models import command; "
        "assert CliRunner().invoke(command).exit_code == 0; "
        "print([m for m in ('timm', 'escnn', 'sympy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


@pytest.mark.parametrize("name", LAYERS)
def test_a_family_has_the_layers_of_its_description(name: str) -> None:
    facts = family_facts()[name]
    with torch.device("meta"):
        modules = list(build(name, facts.n_channel, facts.stamp_px).modules())
    convolutions = sum(isinstance(module, nn.Conv2d | DihedralConvolution) for module in modules)
    assert (convolutions, sum(isinstance(module, nn.Linear) for module in modules)) == LAYERS[name]
    assert sum(isinstance(module, RowSum) for module in modules) == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_a_family_takes_odd_and_even_stamps_and_its_outputs_follow_the_pixels(name: str) -> None:
    for n_channel, stamp_px, n_out in ((2, 65, 1), (1, 66, 3)):
        torch.manual_seed(1)
        module = build(name, n_channel, stamp_px, n_out, **SMALL.get(name, {})).eval()
        stamps = torch.rand(3, n_channel, stamp_px, stamp_px)
        changed = stamps.clone()
        changed[1, 0, stamp_px // 2, stamp_px // 2] += 5
        with torch.inference_mode():
            before, after = outputs(module, stamps), outputs(module, changed)
        assert before.shape == ((3,) if n_out == 1 else (3, n_out))
        assert torch.isfinite(before).all()
        assert (after[1] != before[1]).all()
        torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_family_learns_to_tell_bright_centres_from_empty_ones(name: str) -> None:
    torch.manual_seed(0)
    module = build(name, 1, 49, **SMALL.get(name, {})).train()
    labels = (torch.arange(8) % 2).float()
    stamps = 0.3 * torch.randn(8, 1, 49, 49)
    stamps[:, 0, 20:29, 20:29] += 3 * labels[:, None, None]
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = nn.functional.binary_cross_entropy_with_logits(outputs(module, stamps), labels)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert np.isfinite(losses).all()
    assert min(losses[-2:]) < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("name", "stamp_px"),
    [("lastro-baseline", 33), ("lastro-residual", 43), ("cas-swinburne", 25), ("lensflow", 20), ("epfl-cnn", 7)],
)
def test_a_stamp_that_the_poolings_would_eat_is_refused(name: str, stamp_px: int) -> None:
    with pytest.raises(ModelError, match=r"too small.*least_px="):
        build(name, 1, stamp_px)


def test_the_normalised_relu_keeps_mean_0_and_variance_1() -> None:
    z = NormalisedReLU()(torch.randn(400_000, generator=torch.Generator().manual_seed(0)))
    assert abs(float(z.mean())) < 0.01  # 6 sigma
    assert abs(float(z.var()) - 1) < 0.03


def test_the_eight_views_are_a_group() -> None:
    image = torch.arange(9).reshape(3, 3)
    for g in range(N_VIEW):
        assert sorted(compositions()[g]) == list(range(N_VIEW))
        for h in range(N_VIEW):
            assert torch.equal(view(view(image, compositions()[g][h]), g), view(image, h))


@pytest.mark.parametrize("stamp_px", [60, 75, 76])
def test_the_invariant_network_does_not_change_under_the_eight_views(stamp_px: int) -> None:
    torch.manual_seed(2)
    module = build("lastro-invariant", 2, stamp_px).train()
    stamps = torch.randn(2, 2, stamp_px, stamp_px)
    module(stamps)  # batch norms that have seen data
    module.eval()
    with torch.inference_mode():
        want = module(stamps)
        assert want.std() > 1e-3
        features = module.forward_features(stamps)
        for number in range(1, N_VIEW):
            turned = module.forward_features(view(stamps, number))
            torch.testing.assert_close(turned, features, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(module.forward_head(turned), want, rtol=1e-4, atol=1e-5)


def test_the_hybrid_uses_its_table_and_refuses_another_number_of_columns() -> None:
    module = build("hybrid", 1, 33, n_feature=3, trunk="resnet10t").eval()
    stamps, table = torch.rand(2, 1, 33, 33), torch.zeros(2, 3)
    with torch.inference_mode():
        assert (module(stamps, table) != module(stamps, table + 1)).all()
    with pytest.raises(ModelError, match=r"another number of features.*want=3"):
        module(stamps, table[:, :2])


@pytest.mark.parametrize(
    ("name", "stamp_px"),
    [("vit_tiny_patch16_224", 65), ("swin_tiny_patch4_window7_224", 64), ("resnet10t", 41), ("convnext_atto", 33)],
)
def test_a_timm_model_takes_any_bands_and_stamp(name: str, stamp_px: int) -> None:
    settings = {"depth": 2} if name.startswith("vit") else {"depths": (1, 1, 1, 1)} if name.startswith("swin") else {}
    module = build(f"timm:{name}", 5, stamp_px, 2, **settings).eval()
    with torch.inference_mode():
        out = module(torch.rand(2, 5, stamp_px, stamp_px))
    assert out.shape == (2, 2)
    assert (out[0] != out[1]).any()


def test_what_timm_does_not_have_or_cannot_build_is_refused() -> None:
    with pytest.raises(ModelError, match=r"Did you mean resnet18"):
        build("timm:resnet_18", 3, 65)
    with pytest.raises(ModelError, match=r"inception_v3 cannot be built so.*stamp_px=33"):
        build("timm:inception_v3", 3, 33)
    with pytest.raises(ModelError, match=r"not passed on to timm.*got='colour'"):
        build("timm:resnet10t", 3, 65, colour="red")


@pytest.mark.parametrize("name", ["timm:resnet10t", "small-cnn"])
def test_local_weights_start_a_network_for_other_bands_with_a_fresh_head(name: str, tmp_path: Path) -> None:
    """Weights for three equal channels, used for one: the trunk sees the same."""
    old, new = build(name, 3, 33, 1).eval(), build(name, 1, 33, 4).eval()
    state = {key.removeprefix("trunk.") if "timm" in name else key: value for key, value in old.state_dict().items()}
    save_file(state, tmp_path / "old.safetensors")
    done = load_pretrained(new, tmp_path / "old.safetensors")
    assert set(done.fresh) == new.head_names()
    assert len(done.adapted) == 1
    assert len(done.unused) == 2
    first_old, first_new = (next(m for m in net.modules() if isinstance(m, nn.Conv2d)) for net in (old, new))
    stamps = torch.rand(2, 1, 33, 33)
    with torch.inference_mode():
        torch.testing.assert_close(first_new(stamps), first_old(stamps.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    for key in set(done.loaded) - set(done.adapted):
        assert torch.equal(new.state_dict()[key], old.state_dict()[key])


def test_the_state_of_a_training_starts_an_equivariant_network_with_its_averaged_weights(tmp_path: Path) -> None:
    settings = {"width": 2, "depth": 2}
    given, fresh = (build("equivariant-c4", 1, 33, 3, **settings) for _ in range(2))
    averaged = {name: tensor + 1 for name, tensor in given.state_dict().items()}
    tensors = {f"model.{name}": tensor for name, tensor in given.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in averaged.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "state.safetensors")
    tensors |= {f"best.{name}": tensor + 1 for name, tensor in averaged.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "best.safetensors")
    best = build("equivariant-c4", 1, 33, 3, **settings)
    for name in load_pretrained(best, tmp_path / "best.safetensors").loaded:
        torch.testing.assert_close(best.state_dict()[name], averaged[name] + 1, rtol=0, atol=0)
    found = load_pretrained(fresh, tmp_path / "state.safetensors")
    assert "convolutions.0.weight" in found.loaded and not any(name.startswith("head.") for name in found.loaded)
    for name in found.loaded:
        torch.testing.assert_close(fresh.state_dict()[name], averaged[name], rtol=0, atol=0)


def test_weights_of_another_network_and_pickles_are_refused(tmp_path: Path) -> None:
    save_file(build("small-cnn", 3, 33).state_dict(), tmp_path / "small.safetensors")
    with pytest.raises(ModelError, match=r"not of this network"):
        load_pretrained(build("densenet-cbam", 3, 33), tmp_path / "small.safetensors")
    (tmp_path / "net.pth").write_bytes(pickle.dumps({}))
    (tmp_path / "net.safetensors").write_bytes(pickle.dumps({}))
    for file, message in (("net.pth", "a pickle is never loaded"), ("net.safetensors", "not a safetensors file")):
        with pytest.raises(ModelError, match=message):
            load_pretrained(build("small-cnn", 3, 33), tmp_path / file)


def test_the_command_lists_every_family_with_parameters_and_input() -> None:
    from lenspipe.cli.models import command

    run = CliRunner().invoke(command)
    assert run.exit_code == 0
    for name in families():
        assert name in run.output
    assert "5,674,145" in run.output
    assert "1 x 101 px" in run.output
    assert "timm:NAME" in run.output


@pytest.mark.parametrize(
    "settings", [{"checkpoint_path": "evil.pth"}, {"pretrained": True}, {"pretrained_cfg": "x"}, {"cache_dir": "/tmp"}]
)
def test_a_card_cannot_make_timm_read_a_pickle_or_ask_the_network(settings):
    with pytest.raises(ModelError, match="not passed on to timm"):
        build("timm:resnet18", 3, 65, **settings)
