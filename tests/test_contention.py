"""A frame has as many threads as there is room for: on a busy machine, in a container, in evaluations."""

from __future__ import annotations

import math
import os
import sys

import eventful_vitdet
import pytest
import torch
from eventful_vit.ops import cpu
from eventful_vitdet import contention as contention_module
from eventful_vitdet.benchmark.busy_machine import busy_processes
from eventful_vitdet.contention import (
    FIRST_PAUSE,
    FRAMES_BEFORE_WARNING,
    LONGEST_PAUSE,
    Contention,
    KeptThreads,
    container_threads,
    fitting_threads,
    kept_threads,
)
from eventful_vitdet.evaluation.evaluate import fixed_threads

CPU = torch.device("cpu")


@pytest.fixture
def two_threads(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(contention_module, "_own_cpu_limit", lambda: None)
    yield
    torch.set_num_threads(before)


class Machine:
    """Frames on a pretended machine: how long they take, and for how much of that their thread has a core."""

    def __init__(self) -> None:
        self.contention = Contention()
        self.now = self.own = 100.0

    def frame(self, lost_by_threads: dict[int, float], seconds: float = 0.1) -> tuple[int, int]:
        """Run a frame; returns the threads of operations and kernels in it."""
        with fitting_threads(CPU, self.contention, lambda: self.now, lambda: self.own):
            used = torch.get_num_threads(), cpu.pool_threads()
            self.now += seconds
            self.own += seconds * (1 - lost_by_threads[used[0]])
        return used


IDLE, BUSY, ONE_BUSY = {1: 0.02, 2: 0.1}, {1: 0.7, 2: 0.8}, {1: 0.02, 2: 0.6}


def test_an_idle_machine_uses_all_threads(two_threads):
    machine = Machine()
    assert {machine.frame(IDLE) for _ in range(100)} == {(2, 2)}


def test_a_busy_machine_uses_one_until_it_is_quiet_again(two_threads):
    machine = Machine()
    assert machine.frame(BUSY) == (2, 2)
    assert {machine.frame(BUSY) for _ in range(200)} == {(1, 2)}  # kernels keep theirs
    used = [machine.frame(IDLE) for _ in range(100)]
    quiet_frames = math.ceil(FIRST_PAUSE / 0.1)
    assert set(used[: quiet_frames - 1]) == {(1, 2)} and set(used[quiet_frames + 1 :]) == {(2, 2)}
    assert torch.get_num_threads() == 2


def test_attempts_that_fail_become_rare(two_threads):
    """One busy process on two cores leaves a core to a single thread: that looks quiet."""
    machine = Machine()
    attempts = [number for number in range(1000) if machine.frame(ONE_BUSY) == (2, 2)]
    gaps = [(after - before) * 0.1 for before, after in zip(attempts, attempts[1:])]
    assert gaps[-1] == pytest.approx(LONGEST_PAUSE, abs=0.3) and all(b >= a - 0.11 for a, b in zip(gaps, gaps[1:]))
    assert len(attempts) < 20
    # The machine was quiet for a while: the next disturbance is a new one.
    assert {machine.frame(IDLE) for _ in range(100)} >= {(2, 2)}
    machine.frame(BUSY)
    used = [machine.frame(IDLE)[0] for _ in range(20)]
    assert 2 in used[: math.ceil(FIRST_PAUSE / 0.1) + 2]


def test_frames_of_other_threads_that_began_before_a_change_say_nothing():
    contention = Contention()
    contention.saw(1.0, 0.1, 0.9, crowded=False)
    contention.saw(1.1, 5.0, 0.0, crowded=False)
    assert contention.crowded
    contention.saw(1.2, 5.0, 0.0, crowded=True)
    assert not contention.crowded


def test_evaluations_keep_their_threads_and_say_what_it_costs(two_threads, monkeypatch, caplog):
    monkeypatch.setattr(contention_module, "kept_threads", own := KeptThreads())
    machine = Machine()
    with own():
        assert {machine.frame(BUSY) for _ in range(3 * FRAMES_BEFORE_WARNING)} == {(2, 2)}
    assert caplog.text.count("TEST.THREADS_PER_PROCESS 1") == 1
    assert machine.frame(BUSY) == (2, 2) and machine.frame(BUSY) == (1, 2)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert machine.frame(BUSY) == (2, 2)
    with fixed_threads(0):
        assert kept_threads
    with fixed_threads(3) as threads:
        assert threads == 3 and kept_threads
    monkeypatch.undo()
    assert not kept_threads


def test_a_container_limits_threads(two_threads, monkeypatch):
    torch.set_num_threads(4)
    machine = Machine()
    monkeypatch.setattr(contention_module, "_own_cpu_limit", lambda: 1.5)
    with fitting_threads(CPU, machine.contention):
        assert (torch.get_num_threads(), cpu.pool_threads()) == (2, 2)
    with fixed_threads(0) as threads:
        assert threads == 2
    monkeypatch.setattr(contention_module, "_own_cpu_limit", lambda: 0.3)
    with fitting_threads(CPU, machine.contention):
        assert (torch.get_num_threads(), cpu.pool_threads()) == (1, 1)
    assert torch.get_num_threads() == 4 and container_threads(4) == 1


@pytest.mark.parametrize(
    ("limit", "cores", "given", "expected"),
    [(1.5, 8, {}, "2"), (None, 8, {}, None), (6.0, 8, {}, None), (1.5, 8, {"OMP_NUM_THREADS": "5"}, "5")],
)
def test_pytorch_is_told_of_a_containers_limit_before_it_starts(limit, cores, given, expected, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(given))
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(eventful_vitdet, "cpu_limit", lambda: limit)
    eventful_vitdet._prepare_threads()
    assert os.environ == given  # PyTorch is here already
    monkeypatch.delitem(sys.modules, "torch")
    eventful_vitdet._prepare_threads()
    assert os.environ.get("OMP_NUM_THREADS") == expected


def test_a_detectors_frame_follows_it(two_threads, tiny_model, monkeypatch):
    """PyTorch's operations behind the backbone run in one thread; detections are the same to rounding."""
    model, seen = tiny_model(), []
    frame = {"image": torch.randint(0, 255, (3, 80, 96), dtype=torch.uint8)}
    model.proposal_generator.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    monkeypatch.setattr(contention_module._contention, "crowded", False)
    found = []
    with torch.no_grad():
        for crowded in (False, True):
            monkeypatch.setattr(contention_module._contention, "saw", lambda *_: None)
            monkeypatch.setattr(contention_module._contention, "crowded", crowded)
            found.append(model([frame])[0]["instances"])
    assert seen == [2, 1] and torch.get_num_threads() == 2
    torch.testing.assert_close(found[0].scores, found[1].scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[0].pred_boxes.tensor, found[1].pred_boxes.tensor, atol=1e-2, rtol=1e-4)


@pytest.mark.long
def test_beside_busy_processes_it_is_noticed(two_threads, tiny_model):
    model, contention = tiny_model(), contention_module._contention
    frame = {"image": torch.randint(0, 255, (3, 80, 96), dtype=torch.uint8)}
    contention.__init__()
    frames = 0
    with torch.no_grad(), busy_processes(2 * (os.cpu_count() or 1)):
        while not contention.crowded and frames < 200:
            model([frame])
            frames += 1
    contention.__init__()
    assert frames < 200
