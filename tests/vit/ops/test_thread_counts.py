"""Fewer threads for PyTorch's operations, for a while and in one thread."""

from __future__ import annotations

import sys
import threading
import time

import pytest
import torch
from eventful_vit.ops.cpu import end_waiting_threads, pool_threads, thread_counts
from eventful_vit.ops.cpu.thread_counts import _setters


def cores_used(call) -> float:
    """Processor time of this process by that of the calling thread, in 30 ms of the latter."""
    process, thread = time.process_time(), time.thread_time()
    while time.thread_time() < thread + 0.03:
        call()
    return (time.process_time() - process) / (time.thread_time() - thread)


@pytest.mark.parametrize("operation", ["product", "convolution", "sum"])
def test_operations_really_use_one_thread(two_threads, operation):
    """Also MKL's, which has a number of its own as soon as torch.set_num_threads was called."""
    x, maps, weights = torch.randn(384, 384), torch.randn(1, 32, 64, 64), torch.randn(32, 32, 3, 3)
    call = {
        "product": lambda: x @ x,
        "convolution": lambda: torch.conv2d(maps, weights),
        "sum": lambda: torch.add(maps, 1),
    }[operation]
    with torch.no_grad(), thread_counts(1, 2):
        assert torch.get_num_threads() == 1 and pool_threads() == 2
        call()
        # Idle threads of earlier operations count for a while: until they end, or stop to wait busily.
        end_waiting_threads()
        assert min(cores_used(call) for _ in range(5)) < 1.2
    assert torch.get_num_threads() == 2 == pool_threads()
    if operation == "product":
        assert max(cores_used(call) for _ in range(5)) > 1.3


def test_the_numbers_come_back_after_errors_and_nest(two_threads):
    with pytest.raises(KeyError), thread_counts(1, 2):
        with thread_counts(2, 1):
            assert (torch.get_num_threads(), pool_threads()) == (2, 1)
        assert (torch.get_num_threads(), pool_threads()) == (1, 2)
        raise KeyError
    assert (torch.get_num_threads(), pool_threads()) == (2, 2)


@pytest.mark.skipif(_setters() is None, reason="in this build of PyTorch the number is not a thread's own")
def test_other_threads_notice_nothing(two_threads):
    """Those that run already, and those that start meanwhile."""
    seen, begin, end = [], threading.Event(), threading.Event()

    def look() -> None:
        torch.get_num_threads()
        begin.wait()
        seen.append((torch.get_num_threads(), pool_threads()))
        end.set()

    threading.Thread(target=look).start()
    with thread_counts(1, 3):
        begin.set()
        end.wait()
        started = threading.Thread(target=lambda: seen.append((torch.get_num_threads(), pool_threads())))
        started.start()
        started.join()
    assert seen == [(2, 2), (2, 2)]


def test_a_build_without_such_setters(two_threads, monkeypatch):
    monkeypatch.setattr(sys.modules[thread_counts.__module__], "_setters", lambda: None)
    with thread_counts(1, 2):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
