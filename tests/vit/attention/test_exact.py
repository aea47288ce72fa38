"""`exact` attention against dense attention over the same buffered tokens, and the guards that keep it so."""

import math
from collections.abc import Iterator

import pytest
import torch
from eventful_vit import EventfulViT, OperationCounts, Threshold, TopR, count_operations, ops
from eventful_vit.attention.core import AttentionSpec
from eventful_vit.attention.layout import attention_layout
from eventful_vit.attention.modes import make_core
from eventful_vit.block import BlockSpec
from eventful_vit.frame import AttentionWork, BlockTrace, Frame, FrameTrace
from eventful_vit.policies import Policy
from eventful_vit.selection import Selection
from eventful_vit.streams import Streams
from torch import nn

pytestmark = pytest.mark.usefixtures("kernels_or_not")
ATOL = 1e-4  # the promise of docs/design.md, for outputs around 1
DIM, HEADS = 16, 2


class Bench:
    """The attention of one block driven with hand-made queries, keys and values."""

    def __init__(self, grid=(6, 8), pool=1, window=0, positions=True, streams=1, dim=DIM, heads=HEADS):
        torch.manual_seed(0)
        self.layout = attention_layout(*grid, window, pool)
        tables = [torch.randn(2 * size - 1, dim // heads) for size in self.layout.query_grid] if positions else []
        sizes = (heads, (dim // heads) ** -0.5, torch.float32)
        self.spec = AttentionSpec(*sizes, tuple(tables), padding=torch.randn(3 * dim))
        self.attention = make_core("exact", window > 0, "test", None)
        self.qkv = torch.randn(streams, self.layout.tokens, 3 * dim)
        self.state = Streams()

    def flush(self) -> torch.Tensor:
        return self.run(Selection.everything(*self.qkv.shape[:2]), flush=True)

    def change(self, mask: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """Give the tokens of a mask (B, N) new values."""
        self.qkv[mask] = scale * torch.randn(int(mask.sum()), self.qkv.shape[-1])
        return self.run(Selection.from_mask(mask))

    @torch.no_grad()
    def run(self, selection: Selection, flush: bool = False) -> torch.Tensor:
        trace = FrameTrace((flush,) * len(self.qkv), self.layout.grid)
        frame = Frame(Policy(), trace.flushed, self.state, trace)
        out, self.work = self.attention(self.spec, selection.take(self.qkv), selection, self.layout, frame)
        self.selection = selection
        return out

    def macs(self) -> dict[str, int]:
        """What the attention of the last frame executed, by category."""
        dim, heads = self.qkv.shape[-1] // 3, self.spec.heads
        none = nn.Identity()
        spec = BlockSpec(
            dim,
            heads,
            dim // heads,
            none,
            none,
            none,
            none,
            none,
            rel_pos=self.spec.tables,
            window=self.layout.window,
        )
        trace, counts = FrameTrace((False,) * len(self.qkv), self.layout.grid), OperationCounts()
        trace.blocks.append(BlockTrace(spec, self.layout, self.work, (self.selection,) * 3))
        counts.add_frame(trace)
        return counts.by_category()

    def dense(self) -> torch.Tensor:
        with torch.no_grad():
            return self.spec.attend(self.qkv, torch.float32, self.layout)

    def random_mask(self, share: float) -> torch.Tensor:
        return torch.rand(self.qkv.shape[:2]) < share


@pytest.mark.parametrize("options", [{}, {"pool": 2}, {"positions": False}, {"window": 3}, {"streams": 3}])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.35, 0.7])
def test_equals_dense_attention_over_the_buffered_tokens(options, share):
    bench = Bench(**options)
    torch.testing.assert_close(bench.flush(), bench.dense(), atol=1e-5, rtol=1e-5)
    for _ in range(20):
        out = bench.change(bench.random_mask(share))
        torch.testing.assert_close(out, bench.dense(), atol=ATOL, rtol=0)


@pytest.mark.parametrize("frames", [300, pytest.param(10_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("positions", [True, False])
def test_error_stays_bounded_over_many_frames(frames, positions):
    bench = Bench(positions=positions)
    bench.flush()
    worst = 0.0
    for _ in range(frames):
        out = bench.change(bench.random_mask(0.1))
        worst = max(worst, (out - bench.dense()).abs().max().item())
    assert worst < ATOL


@pytest.mark.long
@pytest.mark.parametrize("window", [0, 14])
def test_full_size_stays_exact_for_200_frames(window, kernels_or_not):
    """One block of ViTDet-B at 1024 px: 4096 tokens, 512 of them new in every frame, wherever they lie."""
    if kernels_or_not == "pytorch" and not window:
        pytest.skip("takes half an hour; the same code runs 10,000 frames at a small size")
    bench = Bench((64, 64), window=window, dim=768, heads=12)
    for table in bench.spec.tables:
        table.mul_(0.1)
    bench.flush()
    for frame in range(200):
        mask = torch.zeros(1, 4096, dtype=torch.bool)
        mask[0, torch.randperm(4096)[:512]] = True
        out = bench.change(mask)
        if frame % 20 == 19:
            torch.testing.assert_close(out, bench.dense(), atol=ATOL, rtol=0)


def spike(bench: Bench, score: float, value: float) -> torch.Tensor:
    """Change one key so that one query scores it with `score`, and give it a value of some size."""
    token, query = 5, bench.qkv[0, 20, :DIM].view(HEADS, -1)
    key = score * query / query.square().sum(dim=1, keepdim=True) / bench.spec.scale
    bench.qkv[0, token, DIM : 2 * DIM] = key.flatten()
    bench.qkv[0, token, 2 * DIM :] = value
    mask = torch.zeros(1, bench.layout.tokens, dtype=torch.bool)
    mask[0, token] = True
    return bench.run(Selection.from_mask(mask))


SPIKES = {
    # exp(82) is finite, times a value of 10,000 it is not.
    "SCORE_LIMIT": [(85.0, 1e4)],
    # exp(20) comes and goes; what is left of float32 after that is wrong in the third digit.
    "DRIFT_LIMIT": [(20.0, 1.0), (0.0, 1.0)],
}


@pytest.mark.parametrize("guard", SPIKES)
def test_each_guard_is_needed(guard, monkeypatch):
    """A key grows far above all references (overflow); a key grows, then shrinks again (cancellation)."""

    def worst_error(limit: float) -> float:
        monkeypatch.setattr(ops.attention, guard, limit)
        bench = Bench(positions=False)
        bench.flush()
        errors = []
        for score, value in SPIKES[guard]:
            out, expected = spike(bench, score, value), bench.dense()
            error = (out - expected).abs().max() / expected.abs().max()
            errors.append(error.nan_to_num(nan=float("inf")).item())
        return max(errors)

    assert worst_error(getattr(ops.attention, guard)) < ATOL
    assert worst_error(float("inf")) > 1e-3


@pytest.mark.parametrize("score", [10.0, 145.0, 579.0, 5200.0])
def test_the_error_for_scores_of_any_size(score, kernels_or_not):
    """Against dense attention by the same implementation; the bound is that of attention/exact.py."""
    bench = Bench(positions=False)
    bench.qkv[..., :DIM] *= (score / 10) ** 0.5  # without it, the largest score is about 10
    bench.qkv[..., DIM : 2 * DIM] *= (score / 10) ** 0.5
    bench.flush()
    worst = 0.0
    for _ in range(60):
        mask = bench.random_mask(0.1)
        size = torch.tensor([(score / 10) ** 0.5] * 2 * DIM + [1.0] * DIM)
        bench.qkv[mask] = size * torch.randn(int(mask.sum()), 3 * DIM)
        worst = max(worst, (bench.run(Selection.from_mask(mask)) - bench.dense()).abs().max().item())
    values = bench.qkv[..., 2 * DIM :].abs().max().item()
    # The kernels compute a score with the same bits whenever they do, so for them its size does not matter.
    bound = 1.5e-5 if kernels_or_not == "kernels" else 16 * (16 + 1.5 * score) * 2**-24
    assert worst < bound * values


def test_many_changed_keys_are_recomputed_densely():
    bench = Bench()
    bench.flush()
    change_first(bench, 0.9)
    assert bench.macs()["matmul"] == 2 * bench.layout.tokens**2 * DIM


def change_first(bench: Bench, share: float) -> None:
    mask = torch.zeros(1, bench.layout.tokens, dtype=torch.bool)
    mask[0, : int(share * bench.layout.tokens)] = True
    bench.change(mask)


def test_cost_follows_the_closed_form():
    bench = Bench()
    bench.flush()
    tokens = bench.layout.tokens
    r = int(0.25 * tokens)
    change_first(bench, 0.25)
    # Every change here also recomputes whatever drifted; the first frame after a flush has nothing of that kind.
    assert bench.macs()["matmul"] == (6 * r * tokens - 4 * r * r) * DIM


def test_nothing_changed_costs_nothing():
    bench = Bench(streams=2)
    bench.flush()
    expected = bench.dense()
    torch.testing.assert_close(bench.change(bench.random_mask(0)), expected, atol=1e-6, rtol=1e-5)
    assert bench.work.executed.tolist() == [[0, 0], [0, 0]]
    assert not bench.macs().get("matmul") and not bench.macs().get("position")


def test_untouched_windows_cost_nothing():
    bench = Bench(window=3)  # 2 x 3 windows
    bench.flush()
    assert bench.work == AttentionWork("dense")
    full = bench.macs()["matmul"]
    mask = torch.zeros(1, 48, dtype=torch.bool)
    mask[0, [0, 1, 9, 47]] = True  # the first three lie in the first window, the last in the last
    torch.testing.assert_close(bench.change(mask), bench.dense(), atol=1e-6, rtol=1e-5)
    assert bench.macs()["matmul"] == full * 2 // 6


@pytest.mark.parametrize("options", [{}, {"kv_pool": 2}, {"gate_before_norm": True}])
@pytest.mark.parametrize("policy", [TopR(4), TopR(10), Threshold(1.0)])
def test_model_equals_tokenwise(options, policy):
    def run(mode):
        torch.manual_seed(1)
        vit = EventfulViT(
            (32, 48),
            8,
            embed_dim=24,
            depth=3,
            num_heads=2,
            use_rel_pos=True,
            window_size=3,
            window_block_indexes=[0],
            pretrain_img_size=32,
            attention=mode,
            policy=policy,
            **options,
        ).eval()
        for parameter in vit.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        generator = torch.Generator().manual_seed(2)
        frame = torch.randn(2, 3, 32, 48, generator=generator)
        outputs = []
        for _ in range(25):
            frame = frame + 0.2 * (torch.rand(frame.shape, generator=generator) < 0.05)
            with count_operations(vit) as counts:
                outputs.append(vit(frame)["last_feat"])
        return torch.stack(outputs), counts, vit.state_bytes()

    ours, counts, _ = run("exact")
    theirs, tokenwise_counts, _ = run("tokenwise")
    torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=1e-4)
    assert counts.by_category()["linear"] == tokenwise_counts.by_category()["linear"]


class Replay(Policy):
    """Chooses what another model's gates chose, gate after gate."""

    def __init__(self, selections: list[Selection]) -> None:
        self.masks = [selection.mask() for selection in selections]

    def choose(self, norms: torch.Tensor) -> torch.Tensor:
        return self.masks.pop(0)


def worst_difference(vit_options: dict, policy: Policy, video: Iterator[torch.Tensor]) -> float:
    """Largest difference of a model's output with `exact` and with `tokenwise`, given the same selections."""

    def make(mode):
        torch.manual_seed(1)
        vit = EventfulViT(**vit_options, use_rel_pos=True, attention=mode, policy=policy).eval()
        for name, parameter in vit.named_parameters():
            if "rel_pos" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return vit

    exact_vit, tokenwise_vit = make("exact"), make("tokenwise")
    worst = 0.0
    for frame in video:
        ours = exact_vit(frame)["last_feat"]
        tokenwise_vit.set_policy(Replay([gate.selection for gate in exact_vit.state.trace.gates.values()]))
        worst = max(worst, (ours - tokenwise_vit(frame)["last_feat"]).abs().max().item())
    return worst


def changing_video(frames: int, side: int, patch: int) -> Iterator[torch.Tensor]:
    """Noise in which a square moves, some pixels flicker and the brightness drifts."""
    generator = torch.Generator().manual_seed(3)
    background = torch.randn(1, 3, side, side, generator=generator)
    square = torch.randn(1, 3, patch, patch, generator=generator)
    for t in range(frames):
        frame = background + 0.2 * math.sin(t / 50)
        frame += 0.5 * (torch.rand(frame.shape, generator=generator) < 0.01)
        top, left = 3 * t % (side - patch), 5 * t % (side - patch)
        frame[..., top : top + patch, left : left + patch] = square
        yield frame


@pytest.mark.parametrize("frames", [200, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_model_with_the_same_selections_stays_exact(frames):
    small = {
        "img_size": 48, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "window_size": 4,
        "window_block_indexes": [1], "pretrain_img_size": 48,
    }  # fmt: skip
    assert worst_difference(small, TopR(9), changing_video(frames, 48, 16)) < ATOL


@pytest.mark.long
def test_a_model_of_full_size_stays_exact_for_200_frames(kernels_or_not):
    """ViTDet-B at 1024 px, r = 512."""
    if kernels_or_not == "pytorch":
        pytest.skip("takes an hour; the same code runs 10,000 frames at a small size")
    windowed = [0, 1, 3, 4, 6, 7, 9, 10]
    full = {"img_size": 1024, "window_size": 14, "window_block_indexes": windowed}
    with torch.no_grad():
        assert worst_difference(full, TopR(512), changing_video(200, 1024, 256)) < ATOL


def test_state_grows_with_the_tokens_and_not_with_their_square():
    def state(size):
        vit = EventfulViT(size, 8, embed_dim=24, depth=1, num_heads=2, attention="exact", enabled=True).eval()
        vit(torch.randn(1, 3, size, size))
        return vit.state_bytes()

    assert state(256) == pytest.approx(16 * state(64), rel=0.01)
