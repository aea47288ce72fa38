"""Operation counts against torch's own counter and against the reference's closed forms."""

import copy
import json
import sys
import threading

import pytest
import torch
from eventful_vit import EventfulViT, OperationCounts, TopR, count_operations
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .small_models import make_video, make_vit

PRODUCTS = ("linear", "matmul", "position", "embedding")


def flops(function) -> int:
    """MACs of all matrix products and convolutions that torch sees (it counts two per MAC)."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("mode", ["exact", "tokenwise", "query-key", "full"])
@pytest.mark.parametrize("options", [{}, {"kv_pool": 2}, {"use_rel_pos": False}, {"qkv_bias": False}])
def test_products_are_those_torch_sees(mode, options):
    # 6 x 8 tokens, windows of 2: without padding, as torch would see fewer products otherwise.
    settings = {"embed_dim": 24, "depth": 3, "num_heads": 2, "window_size": 2, "use_rel_pos": True}
    vit = EventfulViT(
        (48, 64), 8, window_block_indexes=[1], attention=mode, policy=TopR(7), **{**settings, **options}
    ).eval()
    for _ in range(3):
        frame = torch.randn(2, 3, 48, 64)
        with count_operations(vit) as counts:
            seen = flops(lambda frame=frame: vit(frame))
        ours = counts.by_category()
        assert sum(ours.get(name, 0) for name in PRODUCTS) == seen


def test_padded_windows_in_the_dense_path():
    vit = EventfulViT(
        (40, 56), 8, embed_dim=24, depth=1, num_heads=2, window_size=3, window_block_indexes=[0], enabled=False
    ).eval()
    with torch.no_grad(), count_operations(vit) as counts:
        seen = flops(lambda: vit(torch.randn(1, 3, 40, 56)))
    ours = counts.by_category()
    assert sum(ours.get(name, 0) for name in PRODUCTS) == seen
    assert ours["bias"] == 35 * 24 * (3 + 1 + 5) + 3 * 24


@pytest.mark.parametrize("size", [672, 1024])
def test_vitdet_b_dense(golden, size):
    expected = json.loads((golden / "vitdet_b_counts.json").read_text())["configurations"]
    for name, pool in ((f"base_{size}", 1), (f"spatial_{size}", 2)):
        with torch.device("meta"):
            vit = vitdet_b(size, enabled=False, kv_pool=pool)
            with torch.no_grad(), count_operations(vit) as counts:
                vit(torch.empty(1, 3, size, size))
        assert counts.backbone() == expected[name]["later_frame"]["total"]


@pytest.mark.long
@pytest.mark.parametrize(("size", "r"), [(672, 128), (672, 256), (672, 1024), (1024, 512)])
def test_vitdet_b_full(golden, size, r):
    expected = json.loads((golden / "vitdet_b_counts.json").read_text())["configurations"][f"temporal_{size}"]
    vit = vitdet_b(size, policy=TopR(r), attention="full")
    frames = torch.randn(2, 1, 3, size, size)
    for frame, part in zip(frames, (expected["first_frame"], expected["by_k"][str(r)]["later_frame"])):
        with count_operations(vit) as counts:
            vit(frame)
        assert counts.backbone() == part["total"]
        assert counts.by_category()["matmul"] == part["matmul_flops"]


def vitdet_b(size: int, **options) -> EventfulViT:
    windowed = [i for i in range(12) if i % 3 != 2]
    return EventfulViT(size, use_rel_pos=True, window_size=14, window_block_indexes=windowed, **options).eval()


class Detectorlike(nn.Module):
    """The shape of a detector: two images, three boxes."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ConvTranspose2d(4, 2, 2, stride=2))
        self.proposal_generator = nn.Conv2d(2, 5, 1)
        self.roi_heads = Heads()

    def forward(self, images, boxes):
        features = self.backbone(images)
        self.proposal_generator(features)
        return self.roi_heads(images, features, boxes)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(7, 6)

    def forward(self, images, features, proposals):
        return self.fc(torch.zeros(sum(map(len, proposals)), 7))


def test_layers_around_the_backbone_by_category_and_stream():
    model = Detectorlike()
    boxes = [[0], [0, 1]]
    with torch.no_grad(), count_operations(model) as counts:
        seen = flops(lambda: model(torch.zeros(2, 3, 8, 8), boxes))
    assert counts.total() == seen
    assert counts.by_category(stream=0) == {
        "pyramid": 64 * 4 * 27 + 64 * 4 * 2 * 4,
        "proposals": 256 * 5 * 2,
        "heads": 7 * 6,
    }
    assert counts.by_category(stream=1)["heads"] == 2 * 7 * 6
    with torch.no_grad(), count_operations(model) as counts:
        model(torch.zeros(1, 3, 8, 8), [[]])
    assert counts.by_category().get("heads", 0) == 0


class Stand(nn.Module):
    """Stands in for a linear layer, as libraries for quantisation have them: it says its size, and where a bias is."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.values, self.added = layer.weight.detach(), layer.bias.detach()

    def bias(self):
        return self.added

    def forward(self, x):
        return nn.functional.linear(x, self.values, self.added)


class Adapter(nn.Module):
    """Says what size it is, too, and consists of linear layers."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.in_features, self.out_features, self.base = layer.in_features, layer.out_features, layer
        self.down, self.up = nn.Linear(layer.in_features, 2, bias=False), nn.Linear(2, layer.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


@pytest.mark.parametrize("enabled", [True, False])
def test_layers_of_other_classes_count_as_the_linear_ones_that_they_replace(enabled):
    vit, video = make_vit(policy=TopR(6), enabled=enabled), make_video(3)
    expected = by_category(vit, video)
    for block in vit.blocks:
        block.attn.proj, block.mlp.fc1 = Stand(block.attn.proj), Stand(block.mlp.fc1)
    vit.reset()
    found = by_category(vit, video)
    assert [found[name] for name in ("linear", "bias")] == [expected[name] for name in ("linear", "bias")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning")
def test_dynamically_quantised_layers_count_as_linear_ones():
    if torch.backends.quantized.engine == "none":
        pytest.skip("this PyTorch was built without quantised kernels")
    model = nn.Sequential(make_vit(policy=TopR(35)), Head())
    quantised, frame = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}), make_video(1)
    results = by_category(model, [frame]), by_category(quantised, [frame])
    assert results[0]["linear"] == results[1]["linear"] > 0 and results[0]["bias"] == results[1]["bias"] > 0
    assert results[0]["pyramid"] == results[1]["pyramid"] == 24 * 2


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(24, 2)

    def forward(self, features):
        return self.fc(features["last_feat"].mean((2, 3)))


def test_low_rank_adapters_are_counted_once():
    vit, video = make_vit(policy=TopR(35)), make_video(1)
    expected = by_category(vit, video)["linear"]
    vit.blocks[1].mlp.fc2 = Adapter(vit.blocks[1].mlp.fc2)
    vit.reset()
    assert by_category(vit, video)["linear"] == expected + 35 * 2 * (4 * 24 + 24)


def by_category(model: nn.Module, frames) -> dict[str, int]:
    with torch.no_grad(), count_operations(model) as counts:
        for frame in frames:
            model(frame if frame.dim() == 4 else frame[None])
    return counts.by_category()


def test_threads_that_count_at_once_lose_nothing():
    counts, threads, times = OperationCounts(), 4, 5000
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        added = [
            threading.Thread(target=lambda: [counts.add("linear", [1, 2]) for _ in range(times)])
            for _ in range(threads)
        ]
        for thread in added:
            thread.start()
        for thread in added:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert counts.total(0) == threads * times and counts.total(1) == 2 * threads * times
    assert copy.deepcopy(counts).by_category() == counts.by_category()


def test_counting_that_ends_within_another_ones_frame():
    vit, frame = make_vit(policy=TopR(6)), make_video(1)
    with count_operations(vit) as first:
        outer = count_operations(vit)
        vit.observers.append(lambda trace: outer.__exit__(None, None, None))
        second = outer.__enter__()
        vit.observers.sort(key=lambda observer: hasattr(observer, "__self__"))  # the one that ends it comes first
        vit(frame)
        assert second.total() == first.total() > 0
