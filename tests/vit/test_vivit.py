"""The factorised ViViT: against the reference numbers in tests/golden (vivit_4x4*), and its own equalities."""

import copy
import json

import numpy as np
import pytest
import torch
from eventful_vit import FactorisedViViT, OperationCounts, Threshold, TopR, count_operations
from eventful_vit.frame import AttentionWork, BlockTrace, FrameTrace
from eventful_vit.models.clip_views import ClipViews
from eventful_vit.models.vivit import ClassTokenViT, probabilities
from eventful_vit.models.vivit_names import fit_positions, rename_vivit_weights
from eventful_vit.selection import Selection
from torch import nn

from .small_models import CLOSE
from .small_vivit import make_views, make_vivit

ATOL, RTOL = 5e-5, 1e-4
CATEGORIES = {
    "linear_flops": "linear",
    "bias_flops": "bias",
    "matmul_flops": "matmul",
    "add_flops": "add",
    "gate_flops": "gate",
    "accumulator_flops": "accumulator",
}


@pytest.fixture(scope="module")
def reference(golden):
    return {
        **json.loads((golden / "vivit_4x4.json").read_text()),
        "weights": {name: torch.from_numpy(w) for name, w in np.load(golden / "vivit_4x4_weights.npz").items()},
        "arrays": {name: torch.from_numpy(w) for name, w in np.load(golden / "vivit_4x4.npz").items()},
    }


def views_of(model: dict) -> ClipViews:
    spans, crops = model["views"], model["crops"]
    return ClipViews(model["frames"], model["stride"], tuple(model["size"]), spans, crops)


def build(reference, mode: str) -> FactorisedViViT:
    model = reference["model"]
    vivit = FactorisedViViT(
        {"label": model["classes"]},
        tuple(model["size"]),
        model["frames"],
        tuple(model["tubelet"]),
        embed_dim=model["dim"],
        depth=model["depth"],
        depth_temporal=model["depth_temporal"],
        num_heads=model["heads"],
        position_grid=tuple(model["position_grid"]),
        enabled=mode != "dense",
        attention="exact" if mode == "dense" else mode,
        policy=TopR(model["r"]),
    )
    weights, _ = rename_vivit_weights(reference["weights"], ["label"])
    vivit.load_state_dict(weights, strict=True)
    return vivit.eval()


# Against the authors' code.


@pytest.mark.parametrize("clip", ["long", "short"])
def test_views_are_cut_as_the_authors_do(reference, clip):
    views = views_of(reference["model"]).cut(reference["arrays"][clip])
    torch.testing.assert_close(views, reference["arrays"][f"views.{clip}"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("clip", ["long", "short"])
@pytest.mark.parametrize("mode", ["dense", "full", "tokenwise", "query-key", "exact"])
def test_features_probabilities_and_counts(reference, mode, clip):
    check_against(reference, mode, clip)


@pytest.mark.parametrize("mode", ["full", "exact"])
def test_features_without_kernels(reference, mode, no_kernels):
    check_against(reference, mode, "long")


def check_against(reference: dict, mode: str, clip: str) -> None:
    vivit = build(reference, mode)
    views = views_of(reference["model"]).cut(reference["arrays"][clip])[None]
    as_in = "tokenwise" if mode == "exact" else mode  # exact attention has the result of dense attention
    with torch.no_grad(), count_operations(vivit) as counts:
        features = vivit.spatial_features(views)
        found = probabilities(vivit.classify(features))["label"][0]
    expected = reference["arrays"][f"features.{as_in}.{clip}"]
    torch.testing.assert_close(features[0], expected, atol=ATOL, rtol=RTOL)
    torch.testing.assert_close(found, reference["arrays"][f"probabilities.{as_in}.{clip}"], atol=ATOL, rtol=RTOL)
    if mode != "exact":
        check_counts(counts, reference["counts"][f"{mode}.{clip}"])


def check_counts(counts: OperationCounts, expected: dict[str, int]) -> None:
    """The authors count classifiers as linear layers and biases, and tubelets not at all."""
    found = counts.by_category()
    assert found["heads"] > 0 and found["embedding"] > 0
    assert sum(found.values()) - found["embedding"] == sum(expected.values())
    for name, ours in CATEGORIES.items():
        if ours not in ("linear", "bias"):
            assert found.get(ours, 0) == expected.get(name, 0), name


@pytest.mark.parametrize("data", ["epic_kitchens", "kinetics"])
def test_counts_of_vivit_b_are_those_of_the_paper(reference, data):
    table = reference["vivit_b"][data]
    side = round((table["tokens"] - 1) ** 0.5)
    with torch.device("meta"):
        vivit = FactorisedViViT({"label": table["classes"]}, 16 * side, enabled=False).eval()
        with torch.no_grad(), count_operations(vivit) as counts:
            vivit.step_features(torch.empty(1, 2, 3, 16 * side, 16 * side))
            assert counts.total() - counts.by_category()["embedding"] == sum(table["dense_step"].values())
            counts.clear()
            vivit.classify(torch.empty(1, 1, 16, 768))
            assert counts.total() == sum(table["temporal_and_classifier"].values())
    for r, expected in table["later_step"].items():
        found = later_step(vivit.spatial, (side, side), int(r)).by_category()
        assert {name: found[ours] for name, ours in CATEGORIES.items()} == {name: expected[name] for name in CATEGORIES}


def later_step(vit: ClassTokenViT, grid: tuple[int, int], r: int) -> OperationCounts:
    """Counts of a step after the first in the paper's mode, with r tokens in every gate."""
    offsets = torch.tensor([0, r])
    chosen = Selection(1, 1 + grid[0] * grid[1], torch.arange(r), offsets)
    trace = FrameTrace((False,), grid)
    trace.add_layer("add", vit.pos_embed.shape[-1], chosen.tokens)
    for block in vit.blocks:
        spec = block.specification()
        trace.blocks.append(BlockTrace(spec, spec.layout(grid), AttentionWork("full", offsets), (chosen,) * 3))
    counts = OperationCounts()
    counts.add_frame(trace)
    return counts


# Its own equalities.


@pytest.mark.parametrize("attention", ["exact", "full", "query-key", "tokenwise"])
def test_all_tokens_give_the_dense_model(attention, kernels_or_not):
    vivit = make_vivit(attention=attention, policy=TopR(21))
    views = make_views()
    with torch.no_grad():
        eventful = vivit(views)
        vivit.enabled = False
        dense = vivit(views)
    for name in dense:
        torch.testing.assert_close(eventful[name], dense[name], **CLOSE)


@pytest.mark.parametrize("policy", [TopR(6), TopR(0), Threshold(0.8)])
def test_exact_is_tokenwise(policy, kernels_or_not):
    views = make_views()
    with torch.no_grad():
        found = [make_vivit(attention=mode, policy=policy).spatial_features(views) for mode in ("exact", "tokenwise")]
        dense = make_vivit(enabled=False).spatial_features(views)
    torch.testing.assert_close(*found, **CLOSE)
    torch.testing.assert_close(found[0][:, :, 0], dense[:, :, 0], **CLOSE)  # a flush
    assert not torch.allclose(found[0][:, :, -1], dense[:, :, -1], atol=1e-3)


def test_a_still_clip_converges_to_the_dense_model():
    vivit = make_vivit(policy=TopR(8), frames=32)
    still = make_views(2, 2).repeat(1, 1, 16, 1, 1, 1)
    still[:, :, :2] += 0.3 * torch.randn(3, 32, 40)  # the first step differs
    with torch.no_grad():
        eventful = vivit.spatial_features(still)
        vivit.enabled = False
        dense = vivit.spatial_features(still)
    assert not torch.allclose(eventful[:, :, 1], dense[:, :, 1], atol=1e-3)
    torch.testing.assert_close(eventful[:, :, -1], dense[:, :, -1], **CLOSE)


@pytest.mark.parametrize("policy", [TopR(6), Threshold(0.8)])
def test_views_do_not_see_each_other(policy):
    vivit = make_vivit(policy=policy)
    views = make_views(4)
    with torch.no_grad():
        together = vivit.spatial_features(views)
        apart = torch.cat([vivit.spatial_features(views[:, i : i + 1]) for i in range(4)], dim=1)
    torch.testing.assert_close(together, apart, **CLOSE)


def test_nothing_is_carried_from_clip_to_clip():
    vivit = make_vivit(policy=TopR(3))
    with torch.no_grad():
        first = vivit(make_views(seed=1))
        vivit(make_views(seed=2))
        again = vivit(make_views(seed=1))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_clips_form_a_batch():
    vivit = make_vivit(policy=TopR(5))
    clips = torch.cat([make_views(seed=1), make_views(seed=2)])
    with torch.no_grad():
        together = vivit(clips)
        apart = [vivit(clip[None]) for clip in clips]
    for name in together:
        torch.testing.assert_close(together[name], torch.cat([one[name] for one in apart]), **CLOSE)


def test_another_grid_has_resized_positions():
    vivit = make_vivit(policy=TopR(1000), position_grid=(3, 3))
    views = make_views()
    with torch.no_grad():
        eventful = vivit.spatial_features(views)
        vivit.enabled = False
        dense = vivit.spatial_features(views)
    torch.testing.assert_close(eventful, dense, **CLOSE)
    weights = vivit.state_dict()
    assert fit_positions(weights, (4, 5)) == ["spatial.pos_embed from 3 x 3 to 4 x 5 tokens"]
    own_grid = make_vivit(enabled=False)
    own_grid.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(own_grid.spatial_features(views), dense, **CLOSE)


def test_copies_share_nothing():
    vivit = make_vivit(policy=TopR(3))
    views = make_views()
    with torch.no_grad():
        expected = vivit(views)
        twin = copy.deepcopy(vivit)
        assert twin.spatial.state_bytes() == 0
        vivit.step_features(views[0, :, :2])
        assert all(torch.equal(expected[name], value) for name, value in twin(views).items())


def test_gradients_reach_all_parameters():
    vivit = make_vivit(dropout=0.1).train()
    sum(logits.square().sum() for logits in vivit(make_views()).values()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in vivit.parameters())


def test_operations_belong_to_the_view_that_caused_them():
    vivit = make_vivit(policy=Threshold(0.5))
    views = make_views(2)
    views[:, 1] = views[:, 1, :1]  # nothing moves in the second
    with torch.no_grad(), count_operations(vivit) as counts:
        vivit(views)
    moving, still = counts.by_category(0), counts.by_category(1)
    assert moving["linear"] > still["linear"] > 0
    assert moving["heads"] == still["heads"] == 24 * 8 + 8


# Cutting views.


def test_single_views_are_centred():
    clip = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(20, 3, 10, 8)
    cut = ClipViews(4, 2, (8, 8), 1, 1, mean=(0.0,) * 3, std=(1.0,) * 3).cut(clip)
    assert cut.shape == (1, 4, 3, 8, 8)
    assert (cut[0, :, 0, 0, 0] * 255).round().tolist() == [6, 8, 10, 12]


def test_short_clips_repeat_their_last_frame():
    views = ClipViews(4, 2, (8, 8), 2, 1)
    assert views.frame_numbers(5) == [[0, 2, 4, 4], [0, 2, 4, 4]]
    assert views.frame_numbers(1) == [[0, 0, 0, 0]] * 2
    with pytest.raises(ValueError, match="without frames"):
        views.frame_numbers(0)


@pytest.mark.parametrize("key", ["frames", "stride", "spans", "crops"])
def test_impossible_views_are_refused(key):
    settings = {"frames": 4, "stride": 1, "size": (8, 8), "spans": 1, "crops": 1}
    with pytest.raises(ValueError, match=key):
        ClipViews(**{**settings, key: 0})


# Mistakes.


@pytest.mark.parametrize(
    "views, message",
    [
        (torch.zeros(1, 2, 6, 3, 32, 40), "views .B, V, 8, 3, H, W. are needed"),
        (torch.zeros(1, 2, 8, 3, 30, 40), "no multiple of the tubelet"),
        (torch.zeros(2, 8, 3, 32, 40), "are needed"),
    ],
)
def test_views_that_do_not_fit_are_refused(views, message):
    with pytest.raises(ValueError, match=message):
        make_vivit()(views)


def test_a_view_that_is_not_finite_is_refused_by_name_and_changes_nothing():
    vivit = make_vivit(policy=TopR(3))
    views = make_views()[0]
    vivit.step_features(views[:, :2])
    expected = copy.deepcopy(vivit.spatial.state)
    bad = views[:, 2:4].clone()
    bad[1, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="frame of stream 1"):
        vivit.step_features(bad)
    torch.testing.assert_close(
        vivit.step_features(views[:, 2:4]), vivit.step_features(views[:, 2:4], expected), **CLOSE
    )


def test_a_step_with_state_cannot_be_traced():
    class OnAGrid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = ClassTokenViT(48, 2, 3, 4.0, (4, 4), enabled=True, policy=TopR(4)).eval()

        def forward(self, tokens):
            return self.vit(tokens, (4, 4))

    model = OnAGrid()
    for _ in range(3):
        model(torch.rand(1, 16, 48))
    with pytest.raises(RuntimeError, match="a frame with state cannot be traced"):
        torch.jit.trace(model, torch.rand(1, 16, 48), check_trace=False)


def test_models_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="frames = 7"):
        make_vivit(frames=7)
    with pytest.raises(ValueError, match="img_size = 33"):
        make_vivit(img_size=(33, 40))
    with pytest.raises(ValueError, match="heads of one class or more"):
        make_vivit({"verb": 0})
    with pytest.raises(ValueError, match="takes 4 steps"):
        make_vivit().classify(torch.zeros(1, 1, 3, 24))


# Names of others.


def test_names_of_tadaconv(reference):
    heads = ["verb", "noun"]
    vivit = make_vivit()
    theirs = {to_tadaconv(name): value for name, value in vivit.state_dict().items()}
    assert "backbone.layers_temporal.0.ffn.net.3.weight" in theirs and "head.linear2.bias" in theirs
    ours, remarks = rename_vivit_weights(theirs, heads)
    assert remarks == ["TAdaConv's names of a factorised ViViT"]
    assert ours.keys() == vivit.state_dict().keys()
    assert all(ours[name] is value for name, value in zip(vivit.state_dict(), theirs.values()))
    _, remarks = rename_vivit_weights(theirs, ["verb"])
    assert any("head.linear2.weight has no use" in remark for remark in remarks)


def to_tadaconv(name: str) -> str:
    for ours, theirs in (
        ("embedding.proj", "backbone.stem.conv1"),
        ("spatial.class_token", "backbone.cls_token"),
        ("temporal.class_token", "backbone.cls_token_out"),
        ("spatial.pos_embed", "backbone.pos_embd"),
        ("temporal.pos_embed", "backbone.temp_embd"),
        ("spatial.blocks", "backbone.layers"),
        ("temporal.blocks", "backbone.layers_temporal"),
        ("spatial.norm", "backbone.norm"),
        ("temporal.norm", "backbone.norm_out"),
        (".norm1.", ".norm."),
        (".norm2.", ".norm_ffn."),
        (".attn.qkv.", ".attn.to_qkv."),
        (".mlp.fc1.", ".ffn.net.0."),
        (".mlp.fc2.", ".ffn.net.3."),
        ("heads.verb", "head.linear1"),
        ("heads.noun", "head.linear2"),
    ):
        name = name.replace(ours, theirs)
    return name


def test_own_and_unknown_names_stay(reference):
    own = make_vivit().state_dict()
    assert rename_vivit_weights(own, ["verb"]) == (own, [])
    with_more = {**reference["weights"], "spatial_model.something": torch.zeros(1)}
    assert "spatial_model.something" in rename_vivit_weights(with_more, ["label"])[0]


def test_options_reach_the_gates():
    views = make_views() + 0.3 * torch.randn(1, 3, 8, 3, 32, 40)
    with torch.no_grad():
        found = [
            make_vivit(policy=TopR(6), gate_reference=reference).spatial_features(views)
            for reference in ("last-sent", "previous-frame")
        ]
    assert not torch.allclose(*found, atol=1e-3)
    with pytest.raises(ValueError, match="gate_reference"):
        make_vivit(gate_reference="never")
