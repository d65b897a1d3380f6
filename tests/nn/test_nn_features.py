"""Trunk and head: what every family gives before its outputs, in timm's words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lenspipe.errors import ModelError
from lenspipe.nn.fold import fold_batch_norm
from lenspipe.nn.network import ImageNetwork, Network
from lenspipe.nn.registry import build, families, register

SETTINGS: dict[str, dict[str, Any]] = {
    "hybrid": {"trunk": "resnet10t", "n_feature": 3},
    "kernel-logistic": {"n_landmark": 7},
    "timm:vit_tiny_patch16_224": {"depth": 2},
    "timm:swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1)},
}
EQUIVARIANT = ["equivariant-c4", "equivariant-d4", "equivariant-so2"]  # all groups: test_nn_equivariant
NETWORKS = [
    "cas-swinburne",
    "cmu-deeplens",
    "densenet-cbam",
    *EQUIVARIANT,
    "epfl-cnn",
    "hybrid",
    "kernel-logistic",
    "lastro-baseline",
    "lastro-invariant",
    "lastro-residual",
    "lastro-views",
    "lensflow",
    "patch-transformer",
    "plain-equivariant",
    "graph",
    "small-cnn",
    "wsi-net",
]
OF_TIMM = [
    f"timm:{name}"
    for name in ("convnext_atto", "mobilenetv3_small_050", "resnet10t", "resnetv2_18", "vit_tiny_patch16_224")
]
IMAGES = ["unet", "unet-small"]
REBUILD = (
    "ae",
    "vae",
    "aae",
    "acae",
    "scae",
    "rnn-ae",
    "vrae",
    "transformer-ae",
    "equivariant-ae",
)  # their features are not enough for what they give
GENERATE = ("gan", "dcgan", "wgan", "stylegan", "conditional", "diffusion")  # they make stamps and describe none


def made(name: str, n_out: int, stamp_px: int) -> tuple[Network, list[Tensor]]:
    """A network whose batch norms have seen data, and the inputs of three stamps."""
    torch.manual_seed(6)
    module = build(name, 2, stamp_px, n_out, **SETTINGS.get(name, {}))
    if name.startswith("kernel"):
        module.landmarks.normal_()  # type: ignore[operator]
        module.coef.data.normal_()  # type: ignore[operator]
        module.gamma.fill_(1e-3)  # type: ignore[operator]
    inputs = [torch.randn(3, 2, stamp_px, stamp_px)]
    inputs += [torch.randn(3, 3)] if name == "hybrid" else []
    module.train()(*inputs)
    return module.eval(), inputs


def test_no_family_is_forgotten_here() -> None:
    ours = {
        name
        for name in families()
        if not name.startswith(("equivariant-", "kernel-", "test-", "outlier", *REBUILD, *GENERATE))
    }
    assert ours == {name for name in [*NETWORKS, *IMAGES] if not name.startswith(("equivariant-", "kernel-"))}


@pytest.mark.parametrize("name", NETWORKS + OF_TIMM)
def test_the_head_on_the_features_is_the_network_bit_for_bit(name: str) -> None:
    for n_out, stamp_px in ((1, 49), (3, 50)):
        module, inputs = made(name, n_out, stamp_px)
        with torch.inference_mode():
            features = module.forward_features(*inputs)
            assert features.shape == (3, module.num_features)
            assert torch.isfinite(features).all()
            assert (features.std(dim=0) > 0).any()
            want = module(*inputs)
            assert want.shape == ((3,) if n_out == 1 else (3, n_out))
            assert torch.equal(module.forward_head(features), want)
            assert len(module.forward_head(features, pre_logits=True)) == 3


@pytest.mark.parametrize("name", NETWORKS)
def test_features_of_a_stamp_do_not_depend_on_its_neighbours(name: str) -> None:
    module, (stamps, *columns) = made(name, 1, 49)
    others = stamps.clone()
    others[[0, 2]] = 30 * torch.randn(2, *stamps.shape[1:])
    with torch.inference_mode():
        before, after = (module.forward_features(x, *columns)[1] for x in (stamps, others))
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("name", "n_feature", "n_last"),
    [("small-cnn", 3 * 144, 3 * 144), ("lastro-views", 1536, 8), ("equivariant-c4", 16 * 4, 64), ("wsi-net", 128, 128)],
)
def test_the_last_layer_reads_what_pre_logits_gives(name: str, n_feature: int, n_last: int) -> None:
    module, inputs = made(name, 1, 49)
    (weight, bias), *others = [
        (state, module.state_dict()[key.replace("weight", "bias")])
        for key, state in module.state_dict().items()
        if key in ("head.weight", "head.out.weight")
    ]
    assert not others
    with torch.inference_mode():
        features = module.forward_features(*inputs)
        last = module.forward_head(features, pre_logits=True)
        assert (features.shape[1], last.shape[1]) == (n_feature, n_last)
        torch.testing.assert_close(last @ weight + bias, module(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", IMAGES)
def test_features_of_a_denoiser_are_its_deepest_maps_pooled_and_are_not_enough_for_its_image(name: str) -> None:
    torch.manual_seed(6)
    module = build(name, 3, 32, 2).eval()
    assert isinstance(module, ImageNetwork)
    images = torch.randn(3, 3, 33, 40)
    images[:, 2] = 4
    seen = []
    module.down[-1].register_forward_hook(lambda _module, _inputs, out: seen.append(out))  # type: ignore[union-attr]
    with torch.inference_mode():
        features = module.forward_features(images)
        assert features.shape == (3, module.num_features) and features.std() > 0
        assert torch.equal(features, seen[0].mean((2, 3)))
    with pytest.raises(ModelError, match="gives an image"):
        module.forward_head(features)
    assert module.head_names() == set()


@pytest.mark.parametrize("name", ["timm:deit_tiny_distilled_patch16_224", "timm:levit_128s"])
def test_a_timm_model_of_several_heads_gives_features_and_outputs_but_no_head(name: str) -> None:
    module = build(name, 1, 224, 2, **({"depth": 1} if "deit" in name else {})).eval()
    stamps = torch.randn(2, 1, 224, 224)
    with torch.inference_mode():
        features = module.forward_features(stamps)
        assert features.shape == (2, module.num_features)
        assert module(stamps).shape == (2, 2)
    with pytest.raises(ModelError, match="reads more than pooled features"):
        module.forward_head(features)


def test_features_of_a_network_with_folded_norms_are_the_same() -> None:
    module, inputs = made("small-cnn", 1, 33)
    folded = fold_batch_norm(module)
    with torch.inference_mode():
        want = module.forward_features(*inputs)
        torch.testing.assert_close(folded.forward_features(*inputs), want, rtol=1e-4, atol=1e-5)


def test_the_head_is_what_is_not_the_trunk() -> None:
    """Setting all weights of the head changes the outputs and leaves the features."""
    for name in ("small-cnn", "equivariant-c4", "timm:resnet10t", "timm:convnext_atto"):
        module, inputs = made(name, 2, 33)
        with torch.inference_mode():
            features, outputs = module.forward_features(*inputs), module(*inputs)
            state = module.state_dict()
            assert 0 < len(module.head_names()) < len(state)
            for key in module.head_names():
                state[key].fill_(0.5)
            assert (module(*inputs) != outputs).all()
            torch.testing.assert_close(module.forward_features(*inputs), features, rtol=0, atol=0)


def test_a_builder_that_gives_no_network_is_refused() -> None:
    if "test-bare" not in families():
        register("test-bare")(lambda n_channel, stamp_px, n_out=1: nn.Linear(2, 1))  # type: ignore[arg-type, return-value]
    with pytest.raises(ModelError, match=r"must build a lenspipe.nn.network.Network.*Linear"):
        build("test-bare", 1, 33)
