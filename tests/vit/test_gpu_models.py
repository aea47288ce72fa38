"""Whole models on the GPU's kernels, frame by frame against the CPU's: in Triton's interpreter, if there is no GPU."""

from functools import partial

import pytest
import torch
from eventful_vit import PerGate, Threshold, TopFraction, TopR, cost, count_operations, encoder
from eventful_vit.recorded import RecordedFrames

from .conftest import run_interpreted
from .small_models import CLOSE, make_video, make_vit

pytestmark = pytest.mark.usefixtures("full_float32")

SIZE = (32, 48)
"""4 x 6 tokens: a frame takes the interpreter about a second."""
SMALLER = (24, 40)
"""3 x 5 tokens, still with windows that are filled up."""
POLICIES = [
    TopR(5), Threshold(0.4), TopR(24), TopFraction(0.3), TopR(0), TopR(1), Threshold(float("inf")),
    Threshold(0.3, at_most=0.25),
    PerGate({"blocks.0.*": TopR(9), "*.mlp": Threshold(0.6), "*": TopR(3)}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def choosing(monkeypatch):
    """A GPU computes large budgets in full (test_full_frames.py), which a CPU does not. Here both choose."""
    monkeypatch.setattr(encoder, "CROSSOVER", float("inf"))


class Repeated:
    """A recorder that calls Python again, in place of a graph: like one, it repeats what was recorded with what memory
    holds now."""

    refusal = None

    def record(self, run):
        self._run, self._result = run, run()
        return self._result

    def replay(self):
        self._result.copy_(self._run())


@pytest.fixture
def on_gpu_kernels(monkeypatch, gpu_device, gpu_kernels):
    """Runs a model's frame on the GPU's kernels: (model, frame) -> features in host memory."""
    if gpu_device.type == "cuda":
        return lambda vit, frame: vit.to(gpu_device)(frame.to(gpu_device))["last_feat"].cpu()

    def run(vit, frame):
        call = partial(run_interpreted, gpu_kernels)
        with monkeypatch.context() as patch:
            patch.setattr("eventful_vit.ops.operator.Operator.__call__", lambda operator, *args: call(operator, *args))
            patch.setattr("eventful_vit.ops.gpu.serves", lambda x: True)
            patch.setattr(RecordedFrames, "_make_recorder", lambda frames, device: Repeated())
            return vit(frame)["last_feat"]

    return run


def one_by_one(monkeypatch, vit, frame):
    """The frame without a tape."""
    with monkeypatch.context() as patch:
        patch.setattr(encoder, "TAPED_VALUES", -1)
        return vit(frame)["last_feat"]


def compare(monkeypatch, on_gpu_kernels, ours, theirs, frames, policy_of, resets=(), size=SIZE):
    """Both models see the same frames of two streams, with the same policies and flushes."""
    streams = torch.stack([make_video(frames, 0, size), make_video(frames, 1, size)], dim=1)
    for number, frame in enumerate(streams):
        for vit in (ours, theirs):
            vit.set_policy(policy_of(number))
            if number in resets:
                vit.reset(None if number % 2 else [number // 2 % 2])
        result, expected = on_gpu_kernels(ours, frame), one_by_one(monkeypatch, theirs, frame)
        torch.testing.assert_close(result, expected, **CLOSE, msg=partial("frame {}: {}".format, number))
        assert ours.state.trace.flushed == theirs.state.trace.flushed


def small_vit(size=SIZE, **options):
    return make_vit(size, **{"depth": 2, **options})


def test_equals_the_cpu(monkeypatch, on_gpu_kernels):
    """Frames are computed, recorded and repeated; then a stream begins again."""
    models, budgets = [small_vit(SMALLER) for _ in range(2)], (5, 7, 8, 6)
    compare(monkeypatch, on_gpu_kernels, *models, 6, lambda n: TopR(budgets[n % 4]), resets=[4], size=SMALLER)


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [{}, {"use_rel_pos": False, "window_block_indexes": []}, {"attention": "tokenwise"}, {"kv_pool": 2}],
    ids=str,
)
def test_equals_the_cpu_for_fifty_frames(options, monkeypatch, on_gpu_kernels):
    def policy_of(number: int):
        return POLICIES[number // 5 % len(POLICIES)]

    compare(monkeypatch, on_gpu_kernels, small_vit(**options), small_vit(**options), 50, policy_of, (12, 15, 28, 41))


def test_late_numbers_are_those_of_their_frame():
    """Counts that are read after later frames, as on a GPU."""
    vit, late, expected = small_vit(policy=TopR(5)), [], []
    vit.observers.append(lambda trace: late.append(cost._LateNumbers(trace)))
    vit.observers.append(lambda trace: expected.append(list(cost.frame_macs(trace))))
    for number, frame in enumerate(make_video(6, size=SIZE)):
        vit.set_policy(TopR(number + 3))
        vit(frame[None])
    assert [list(cost.frame_macs(numbers.read())) for numbers in late] == expected
    assert expected[2] != expected[3]
    kept = late[-1]._trace  # numbers alone: places and norms take a thousand times their memory
    assert not kept.gates and all(chosen.index is None for block in kept.blocks for chosen in block.selections)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_no_later_frame_waits_for_the_gpu(policy, dtype):
    vit = small_vit(policy=policy).to("cuda", dtype)
    video = make_video(8, size=SIZE).to("cuda", dtype)
    with count_operations(vit) as counts:
        for number, frame in enumerate(video):
            torch.cuda.set_sync_debug_mode("error" if number > 2 else "default")
            try:
                vit(frame[None])
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert counts.total() > 0


@needs_gpu
def test_recorded_frames_equal_others():
    vit, other = small_vit(policy=TopR(5)).cuda(), small_vit(policy=TopR(5)).cuda()
    for frame in make_video(8, size=SIZE).cuda():
        other.state.recorded.clear()  # never comes to a recording
        assert torch.equal(vit(frame[None])["last_feat"], other(frame[None])["last_feat"])
    assert any(kind.frames > 2 and kind.recorder.refusal is None for kind in vit.state.recorded.kinds.values())


@needs_gpu
def test_the_dense_model_is_recorded_too():
    vit = small_vit(enabled=False).cuda()
    frames = make_video(5, size=SIZE).cuda()
    with torch.no_grad():
        results = [vit(frame[None])["last_feat"] for frame in frames]
        vit.weights_changed()  # begins with a frame that is not recorded
        assert torch.equal(vit(frames[4][None])["last_feat"], results[4])


@needs_gpu
def test_a_frame_that_is_not_finite_is_refused():
    vit, video = small_vit(policy=TopR(5)).cuda(), make_video(3, size=SIZE).cuda()
    vit(video[:1])
    with pytest.raises(ValueError, match="frame of stream 0; all streams begin again"):
        vit(video[1:2] * torch.nan)
    vit(video[2:])
    assert vit.state.trace.flushed == (True,)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs")
def test_two_devices_of_which_one_is_current():
    """Recorded frames too, on the second device after the first."""
    vit, video = small_vit(policy=TopR(5)), make_video(5, size=SIZE)
    expected = [vit(frame[None])["last_feat"] for frame in video]
    for device in ("cuda:0", "cuda:1"):
        vit = vit.to(device)
        vit.reset()
        for frame, features in zip(video, expected):
            torch.testing.assert_close(vit(frame[None].to(device))["last_feat"].cpu(), features, **CLOSE)
