"""Frames that a GPU computes in full: flushes without gates, and budgets from the crossover on."""

import copy
import logging

import pytest
import torch
from eventful_vit import FactorisedViViT, PerGate, Threshold, TopFraction, TopR, count_operations, encoder

from .small_models import CLOSE, dense, flushed, make_video, make_vit, run


def large(vit):
    """Whether the last frame was computed in full because of its budget."""
    trace = vit.state.trace
    return trace.in_full == (True,) and trace.flushed == (False,)


LARGE = [TopR(18), TopR(35), TopFraction(0.55), PerGate({"*.mlp": TopR(35), "*": TopR(10)}), Threshold(float("-inf"))]
SMALL = [TopR(17), TopFraction(0.5), Threshold(0.0), PerGate({"*.mlp": Threshold(0), "*": TopR(35)})]


@pytest.mark.parametrize("policy", LARGE, ids=str)
def test_large_budgets_give_the_dense_result(policy, as_on_a_gpu):
    vit, video = make_vit(policy=policy), make_video(6)
    outputs = []
    for number, frame in enumerate(video):
        outputs.append(vit(frame[None])["last_feat"][0])
        assert large(vit) == (number > 0)
    torch.testing.assert_close(torch.stack(outputs), dense(vit, video), **CLOSE)


@pytest.mark.parametrize("policy", SMALL, ids=str)
def test_other_budgets_choose(policy, as_on_a_gpu):
    vit, video = make_vit(policy=policy), make_video(3)
    run(vit, video)
    assert vit.state.trace.in_full == flushed(vit) == (False,)


@pytest.mark.parametrize("options", [{"attention": "tokenwise"}, {"gate_reference": "previous-frame"}], ids=str)
def test_what_would_give_another_result_chooses(options, as_on_a_gpu):
    vit = make_vit(policy=TopR(30), **options)
    run(vit, make_video(3))
    assert vit.state.trace.in_full == (False,)


@pytest.mark.parametrize("share, full", [(0, True), (0.57, True), (0.58, False), (2.0, False), (float("inf"), False)])
def test_the_crossover_can_be_set(share, full, as_on_a_gpu):
    vit = make_vit(policy=TopR(20), gpu_crossover=share)  # 20 of 35 tokens
    run(vit, make_video(3))
    assert large(vit) == full


def test_vivit_takes_the_crossover_too():
    blocks = {"embed_dim": 16, "depth": 1, "depth_temporal": 1, "num_heads": 2}
    vivit = FactorisedViViT({"verb": 3}, 32, frames=4, tubelet=(2, 8, 8), **blocks, gpu_crossover=0.4)
    assert [vivit.spatial._encoder.is_beyond_crossover(TopR(r), 10) for r in (3, 4)] == [False, True]


def test_a_cpu_chooses():
    vit = make_vit(policy=TopR(30))
    run(vit, make_video(3))
    assert vit.state.trace.in_full == (False,)


def test_a_stream_continues_with_a_smaller_budget(as_on_a_gpu):
    vit, other, video = make_vit(policy=TopR(6)), make_vit(policy=TopR(6)), make_video(12)
    for number, frame in enumerate(video):
        if number in (5, 6):  # one of them computes these in full, the other one begins again
            vit.set_policy(TopR(20))
            other.reset()
        output = vit(frame[None])["last_feat"]
        vit.set_policy(TopR(6))
        assert torch.equal(output, other(frame[None])["last_feat"])


def test_a_stream_that_begins_beside_another_one(as_on_a_gpu):
    vit, video = make_vit(policy=TopR(20)), make_video(6).unflatten(0, (3, 2))
    vit(video[0])
    vit.reset([1])
    vit(video[1])
    assert vit.state.trace.flushed == (False, True) and vit.state.trace.in_full == (True, True)


def test_operations_are_those_of_a_flush(as_on_a_gpu):
    vit, video = make_vit(policy=TopR(20)), make_video(5)
    counted = []
    for frame in video:
        with count_operations(vit) as counts:
            vit(frame[None])
        counted.append(counts.by_category())
    assert all(counts == counted[0] for counts in counted) and counted[0]["gate"] == 0


def test_full_frames_are_recorded_without_gates(as_on_a_gpu):
    vit, video = make_vit(policy=TopR(20)), make_video(5)
    expected = run(copy.deepcopy(vit), video)
    vit.reset()
    assert torch.equal(run(vit, video), expected)
    (kind,) = vit.state.recorded.kinds.values()
    assert kind.numbers is None and kind.recorder.replays == 3
    assert all(gate.norms is None for gate in vit.state.trace.gates.values())


def test_it_is_said_once(as_on_a_gpu, caplog):
    encoder._say_that_frames_are_full.cache_clear()
    with caplog.at_level(logging.INFO, "eventful_vit.encoder"):
        vit = make_vit(policy=TopR(20))
        run(vit, make_video(4))
    assert [record.getMessage() for record in caplog.records] == [
        "GPU: frames of 35 tokens are computed in full where a budget lets 18 or more of them through, which is faster "
        "(MODEL.EVENTFUL.GPU_CROSSOVER, gpu_crossover in Python, is 0.5)"
    ]
