"""Equivariant networks: the symmetry they promise, their plain form, and the cache of their kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lenspipe.errors import ModelError
from lenspipe.infer.score import Scorer
from lenspipe.nn import groups
from lenspipe.nn.card import ModelCard, Stretch
from lenspipe.nn.checkpoint import load_model, save_model
from lenspipe.nn.export import plain_card
from lenspipe.nn.families.equivariant import Design, FieldNorm
from lenspipe.nn.families.equivariant_amounts import n_multiply_adds, n_parameters, width_for
from lenspipe.nn.families.plain_equivariant import GatedField
from lenspipe.nn.network import Network
from lenspipe.nn.registry import build, family_facts

TINY = {"width": 1, "depth": 2, "dropout": 0.0}


def symmetric_views(group: str, stamps: Tensor) -> list[Tensor]:
    """Stamps under every quarter turn and mirror image of a group that maps pixels to pixels."""
    n = 4 if group in groups.CONTINUOUS else int(group[1:])
    turns = [k for k in (0, 1, 2, 3) if k * n % 4 == 0]
    mirrors = [stamps.flip(-1)] if groups.has_reflections(group) else []
    return [torch.rot90(x, k, (-2, -1)) for x in [stamps, *mirrors] for k in turns]


def trained(group: str, stamp_px: int, n_out: int = 1, **settings: object) -> tuple[Network, list[float]]:
    """A tiny network after two steps on random labels, so that its norms and weights are not those of the start."""
    torch.manual_seed(4)
    module = build(f"equivariant-{group}", 2, stamp_px, n_out, **{**TINY, **settings}).train()
    stamps, target = torch.randn(8, 2, stamp_px, stamp_px), torch.randn(8, n_out)
    stamps[:, :, :4] *= 3
    optimizer = torch.optim.Adam(module.parameters(), lr=0.005)
    losses = []
    for _ in range(4):
        loss = (module(stamps).reshape(8, n_out) - target).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval(), losses


@pytest.mark.parametrize("group", groups.GROUPS)
def test_every_group_learns_keeps_its_symmetry_and_exports(group: str) -> None:
    for stamp_px, n_out in ((33, 1), (34, 3)):
        module, losses = trained(group, stamp_px, n_out)
        assert min(losses[1:]) < losses[0]
        stamps = torch.randn(3, 2, stamp_px, stamp_px) * torch.tensor([0.5, 1, 4])[:, None, None, None]
        with torch.inference_mode():
            want = module(stamps)
            assert want.shape == ((3,) if n_out == 1 else (3, n_out))
            assert want.std() > 1e-2
            for turned in symmetric_views(group, stamps):
                torch.testing.assert_close(module(turned), want, rtol=0, atol=1e-4)
            torch.testing.assert_close(module.plain()(stamps), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("group", groups.GROUPS)
def test_features_are_those_of_the_turned_stamp_in_both_forms(group: str) -> None:
    module, _ = trained(group, 34)
    plain = module.plain()
    stamps = torch.randn(3, 2, 34, 34)
    with torch.inference_mode():
        want = module.forward_features(stamps)
        assert want.shape == (3, module.num_features) and plain.num_features == module.num_features
        assert (want.std(dim=0) > 1e-3).any()
        for form in (module, plain):
            assert torch.equal(form.forward_head(form.forward_features(stamps)), form(stamps))
            for turned in symmetric_views(group, stamps):
                torch.testing.assert_close(form.forward_features(turned), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("group", "stamp_px"), [("c8", 45), ("d4", 46)])
def test_pooling_in_the_stem_keeps_the_symmetry_and_costs_a_third(group: str, stamp_px: int) -> None:
    module, losses = trained(group, stamp_px, stem_pooling=True)
    assert min(losses[1:]) < losses[0]
    stamps = torch.randn(3, 2, stamp_px, stamp_px)
    with torch.inference_mode():
        want = module(stamps)
        for turned in symmetric_views(group, stamps):
            torch.testing.assert_close(module(turned), want, rtol=0, atol=1e-4)
        torch.testing.assert_close(module.plain()(stamps), want, rtol=0, atol=1e-5)
    with_it, without = (n_multiply_adds(Design(group, stem_pooling=on), 4, 1, 90) for on in (True, False))
    assert with_it < without / 3


def test_norms_of_regular_fields_are_those_of_the_rule_written_out() -> None:
    """Independent: the general branch, which is written out, on the same maps."""
    torch.manual_seed(2)
    maps = 3 * torch.randn(4, 6, 5, 5) + 1
    fused, written = FieldNorm(2, 3, fourier=False), FieldNorm(2, 3, fourier=False)
    written.fourier = True  # its `constant` is still that of regular fields
    torch.testing.assert_close(fused(maps), written(maps))
    torch.testing.assert_close(fused.running_mean, written.running_mean)
    torch.testing.assert_close(fused.running_var, written.running_var, rtol=0.01, atol=0)  # torch's divides by n - 1


@pytest.mark.parametrize("group", ["so2", "o2"])
def test_gated_fields_keep_the_symmetry_and_export(group: str) -> None:
    module, losses = trained(group, 33, nonlinearity="gated")
    assert min(losses[1:]) < losses[0]
    stamps = torch.randn(3, 2, 33, 33)
    with torch.inference_mode():
        want = module(stamps)
        assert want.std() > 1e-2
        for turned in symmetric_views(group, stamps):
            torch.testing.assert_close(module(turned), want, rtol=0, atol=1e-4)
        plain = module.plain()
        torch.testing.assert_close(plain(stamps), want, rtol=0, atol=1e-5)
        last = plain.to(memory_format=torch.channels_last)(stamps.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("group", ["so2", "o2"])
def test_a_gate_commutes_with_every_turn_of_the_group(group: str) -> None:
    """Independent: turns act on the coefficients by escnn's own matrices of the representation."""
    with groups._escnn() as escnn:
        space = groups._space(escnn, group)
        field = groups._representation(space, "regular", 3)
        turns = [torch.tensor(field(g)).float() for g in space.fibergroup.testing_elements(5)]
    fields = torch.randn(2, 2, field.size, 3, 3)
    gate = GatedField(field.size)
    for turn in turns:
        turned, out = (
            torch.einsum("ts,nfsyx->nftyx", turn, x) for x in (fields, gate(fields.flatten(1, 2)).view_as(fields))
        )
        torch.testing.assert_close(gate(turned.flatten(1, 2)).view_as(out), out, rtol=0, atol=1e-5)


def test_a_network_cares_for_the_turns_that_its_group_does_not_have() -> None:
    stamps = torch.randn(3, 2, 33, 33)
    for group, change in (("c1", stamps.flip(-1)), ("d6", torch.rot90(stamps, 1, (-2, -1))), ("c8", stamps.flip(-1))):
        module, _ = trained(group, 33)
        with torch.inference_mode():
            assert (module(change) - module(stamps)).abs().max() > 1e-3


@pytest.mark.parametrize(("group", "inner"), [("d8", "c4"), ("d4", "d1"), ("so2", "c4"), ("o2", "d4")])
def test_a_restricted_network_keeps_the_symmetry_of_the_subgroup(group: str, inner: str) -> None:
    module, _ = trained(group, 33, restrict_to=inner, restrict_at=1)
    stamps = torch.randn(3, 2, 33, 33)
    with torch.inference_mode():
        want = module(stamps)
        for turned in symmetric_views(inner, stamps):
            torch.testing.assert_close(module(turned), want, rtol=0, atol=1e-4)
        lost = max(float((module(turned) - want).abs().max()) for turned in symmetric_views(group, stamps))
        assert lost > 1e-3 or len(symmetric_views(group, stamps)) == len(symmetric_views(inner, stamps))
        torch.testing.assert_close(module.plain()(stamps), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("group", ["c4", "d1", "d4"])
def test_kernels_between_regular_fields_span_what_escnn_finds(group: str) -> None:
    """Independent: escnn's own basis, from the decomposition of the tensor product."""
    theirs = groups._sample_basis(group, "regular", "regular", 5, 0, 0, "")
    n, mirrored = int(group[1:]), groups.has_reflections(group)
    with groups._escnn() as escnn:
        theirs = theirs[:, :, groups._numbers(groups._space(escnn, group).fibergroup, mirrored, n)]
    theirs = theirs.flatten(1).double()
    layer = Design(group, 2).layers()[1]
    from lenspipe.nn.families.equivariant import GroupConvolution

    convolution = GroupConvolution(layer, 1, 1)
    ours = []
    for i in range(layer.n_weight):
        convolution.weight.data = torch.eye(layer.n_weight)[i].reshape(convolution.weight.shape)
        ours.append(convolution.kernel().detach().flatten())
    mine = torch.stack(ours).double()
    assert mine.shape == theirs.shape
    assert torch.linalg.matrix_rank(mine, rtol=1e-4) == len(mine)
    both = torch.cat([mine / mine.norm(), theirs / theirs.norm()])
    assert torch.linalg.matrix_rank(both, rtol=1e-4) == len(mine)


def test_a_symmetric_network_is_nearly_so_between_the_quarter_turns() -> None:
    """A smooth stamp turned by 45 degrees about its centre: SO(2) changes less than C4 does."""
    y, x = torch.meshgrid(torch.arange(49.0) - 24, torch.arange(49.0) - 24, indexing="ij")
    stamps, turned = (
        torch.exp(-(((x * c + y * s) / 9) ** 2) - ((y * c - x * s - 4) / 4) ** 2)[None, None].repeat(1, 2, 1, 1)
        for c, s in ((1.0, 0.0), (0.5**0.5, 0.5**0.5))
    )
    change = {}
    for group in ("c4", "so2"):
        change[group] = 0.0
        for seed in range(4):
            torch.manual_seed(seed)
            module = build(f"equivariant-{group}", 2, 49, 16, **(TINY | {"width": 4})).eval()
            with torch.inference_mode():
                out = module(stamps)
                change[group] += float((module(turned) - out).norm() / (out - module(0 * stamps)).norm())
    assert change["so2"] < 0.5 * change["c4"]


def test_the_checkpoint_of_an_equivariant_network_loads_and_scores_without_escnn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _ = trained("d4", 33, pooling="max")
    card = ModelCard(
        name="d4",
        family="equivariant-d4",
        settings=dict(TINY),
        bands=("g", "r"),
        pixel_scale_arcsec=0.2,
        scale_tolerance=0.1,
        min_scale_arcsec=0.1,
        max_scale_arcsec=0.4,
        stamp_px=33,
        stretch=Stretch(band_scales=(1.0, 1.0), alpha=0.1, q=1.0),
    )
    written = save_model(tmp_path / "d4", module.plain(), plain_card(card, module))
    assert written.family == "plain-equivariant"
    assert written.training["family"] == "equivariant-d4"
    monkeypatch.setattr(groups, "_import_escnn", lambda: pytest.fail("imported"))
    for name in ("kernel_basis", "lifting_basis", "fourier_matrices"):  # which are kept once they were sampled
        monkeypatch.setattr(f"lenspipe.nn.families.equivariant.{name}", lambda *_: pytest.fail("sampled"))
    loaded, _ = load_model(tmp_path / "d4")
    stamps = torch.randn(4, 2, 33, 33)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(stamps), module(stamps), rtol=0, atol=1e-5)
    scores = Scorer(tmp_path / "d4", device="cpu").score(np.ones((2, 2, 33, 33), np.float32), pixel_scale_arcsec=0.2)
    assert 0 < scores[0] < 1


def test_an_ordinary_network_is_its_own_plain_form() -> None:
    module = build("small-cnn", 1, 33)
    assert module.plain() is module
    assert module.plain_form() is None


@pytest.mark.parametrize("group", ["c1", "c8", "d4", "so2"])
def test_widths_are_chosen_by_parameters_or_by_cost(group: str) -> None:
    module = build(f"equivariant-{group}", 3, 65, n_parameter=120_000)
    count = sum(p.numel() for p in module.parameters())
    assert 80_000 < count < 180_000
    width = width_for(group, n_multiply_add=2 * 10**8)
    costs = [n_multiply_adds(Design(group), w, 3, 65) / 2e8 for w in (max(1, width - 1), width, width + 1)]
    assert max(costs[1], 1 / costs[1]) <= min(max(costs[2], 1 / costs[2]), max(costs[0], 1 / costs[0]))


def test_families_list_the_parameters_that_their_networks_have() -> None:
    for group in groups.GROUPS:
        facts = family_facts()[f"equivariant-{group}"]
        module = build(f"equivariant-{group}", facts.n_channel, facts.stamp_px)
        assert sum(p.numel() for p in module.parameters()) == facts.n_parameter


@pytest.mark.parametrize(
    ("group", "settings"),
    [
        ("d8", {"restrict_to": "c4"}),
        ("so2", {"restrict_to": "c4", "max_frequency": 2}),
        ("o2", {"restrict_to": "d6"}),
        ("o2", {"restrict_to": "so2", "max_frequency": 1}),
        ("o2", {"restrict_to": "d1", "max_frequency": 2}),
        ("c4", {"max_frequency": 1}),
        ("d4", {"max_frequency": 6}),
    ],
)
def test_kernels_are_counted_by_characters_as_escnn_samples_them(group: str, settings: dict[str, object]) -> None:
    design = Design(group, 2, **settings)
    for request, layer in zip(design.kernels(), design.layers(), strict=True):
        assert groups.n_basis(*request) == layer.n_weight
        assert groups.field_size(request[0], design.frequency(request[0])) == layer.basis.shape[1]
        assert request[3] == layer.basis.shape[-1]


def test_a_width_is_chosen_and_parameters_counted_without_sampling_a_basis(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kernel_basis", "lifting_basis", "fourier_matrices"):
        monkeypatch.setattr(f"lenspipe.nn.families.equivariant.{name}", lambda *_: pytest.fail("sampled"))
    assert width_for("d16", n_parameter=120_000) == 3
    assert n_parameters(Design("o2"), 4, 3, 65, 1) == 69_033


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"restrict_to": "c3"}, "smaller group inside"),
        ({"restrict_to": "d4"}, "smaller group inside"),
        ({"restrict_to": "c2", "restrict_at": 1}, "smaller group inside"),
        ({"restrict_to": "c4", "restrict_at": 3}, "a stage after the first"),
        ({"depth": 0}, "at least one stage"),
        ({"pooling": "sum"}, "no such pooling"),
        ({"nonlinearity": "gated"}, "nonlinearity is fourier"),
        ({"n_parameter": 5}, "larger than asked for"),
        ({"n_parameter": 9**9, "n_multiply_add": 9**9}, "either n_parameter or"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build("equivariant-c8", 3, 33, **settings)


def test_bases_are_kept_in_the_users_cache_and_a_broken_file_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSPIPE_CACHE", str(tmp_path))
    want = groups.kernel_basis.__wrapped__("c4", "scalar", "regular", 5, 0, 0)
    (file,) = tmp_path.glob("basis-c4-*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    assert torch.equal(groups.kernel_basis.__wrapped__("c4", "scalar", "regular", 5, 0, 0), want)
    assert file.read_bytes() == whole
    monkeypatch.setattr(groups, "_sample_basis", lambda *_: pytest.fail("sampled again"))
    assert torch.equal(groups.kernel_basis.__wrapped__("c4", "scalar", "regular", 5, 0, 0), want)


def test_subgroups_are_those_of_the_plane() -> None:
    inside = {(a, b) for a in groups.GROUPS for b in groups.GROUPS if groups.is_subgroup(a, b)}
    assert {("c4", "d8"), ("d4", "o2"), ("so2", "o2"), ("c16", "so2"), ("d6", "d12"), ("c1", "c4")} <= inside
    assert not {("d4", "c8"), ("o2", "so2"), ("c8", "c12"), ("so2", "d16"), ("c4", "c4"), ("d4", "so2")} & inside
