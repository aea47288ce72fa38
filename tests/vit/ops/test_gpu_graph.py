"""Recording CUDA graphs, without a GPU: what PyTorch is asked for."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from eventful_vit.ops import derived
from eventful_vit.ops.derived import derive
from eventful_vit.ops.gpu.graph import Graph, shared_pool


class FakeCUDA:
    """What PyTorch keeps: each thread's stream, and how many threads record."""

    def __init__(self):
        self.streams, self.recording, self.waited_while_recording = [], 0, False
        self.pools_in_use, self.released = [], []
        self._of_thread = threading.local()

    def current_stream(self, device):
        return getattr(self._of_thread, "stream", "usual")

    def set_stream(self, stream):
        self._of_thread.stream = stream

    @contextmanager
    def graph(self, _, pool=None, stream=None, capture_error_mode="global"):
        self.waited_while_recording |= self.recording > 0
        before = self.current_stream(None)
        self.streams.append(stream)
        self.set_stream(stream)
        self.recording += 1
        self.pools_in_use.append(pool)
        try:
            yield
        finally:
            self.recording -= 1
        # Not after an error: the end of a broken recording raises one before it gets here.
        self.pools_in_use.remove(pool)
        self.set_stream(before)

    def end_pool(self, device, pool):
        if pool not in self.pools_in_use:
            raise RuntimeError("not currently recording to mempool_id")
        self.pools_in_use.remove(pool)


@pytest.fixture
def cuda(monkeypatch):
    """Stands for PyTorch's CUDA."""
    fake, numbers = FakeCUDA(), itertools.count(1)
    for name in ("graph", "current_stream", "set_stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", fake.end_pool, raising=False)
    monkeypatch.setattr(
        torch._C, "_cuda_releasePool", lambda device, pool: fake.released.append(pool), raising=False
    )
    monkeypatch.setattr(torch.cuda, "Stream", lambda device=None: SimpleNamespace(device=device))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None, reset=lambda: None))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, next(numbers)))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    return fake


def test_each_gpu_and_thread_has_a_stream_for_recordings(cuda):
    """A stream belongs to one GPU: what is started on another is computed once, not recorded, and never repeated."""

    def record() -> None:
        for number in (0, 1, 0):
            assert Graph(torch.device("cuda", number), None).record(lambda: "result") == "result"

    for _ in range(2):
        thread = threading.Thread(target=record)
        thread.start()
        thread.join()
    first, second, again, *of_other_thread = cuda.streams
    assert [stream.device.index for stream in cuda.streams] == [0, 1, 0] * 2
    assert again is first is not second and of_other_thread[0] is not first


def test_a_recording_that_fails_leaves_nothing_behind(cuda):
    """The thread is on its usual stream again, and PyTorch's allocator does not wait for the recording's end."""
    used = []

    def run() -> str:
        used.append(cuda.current_stream(None))
        if cuda.recording:
            raise RuntimeError("operation not permitted when stream is capturing")
        return "result"

    graph = Graph(torch.device("cuda", 0), None)
    assert graph.record(run) == "result" and "not permitted" in graph.refusal
    assert used[0] is cuda.streams[0] and used[1] == "usual" == cuda.current_stream(None)
    assert not cuda.pools_in_use and cuda.released == [graph.pool], "later recordings would be refused"


def test_threads_record_one_after_the_other(cuda):
    """A recording begins with a wait for the whole GPU, which breaks one that another thread makes."""
    meet = threading.Barrier(2)

    def record(number: int) -> str:
        meet.wait()
        return Graph(torch.device("cuda", number), None).record(lambda: time.sleep(0.05) or "result")

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(record, (0, 1))) == ["result"] * 2
    assert len(cuda.streams) == 2 and not cuda.waited_while_recording


def test_what_is_made_of_a_parameter_while_it_is_recorded_is_not_kept(monkeypatch):
    """Nothing is computed then, and never is if the recording fails."""
    parameter = torch.nn.Parameter(torch.ones(3))
    monkeypatch.setattr(derived, "wait_until_made", lambda device: False)
    recorded = derive(parameter, "doubled", lambda: torch.full((3,), torch.nan))
    monkeypatch.setattr(derived, "wait_until_made", lambda device: True)
    made = derive(parameter, "doubled", lambda: parameter.detach() * 2)
    assert recorded.isnan().all() and made.tolist() == [2, 2, 2]
    assert derive(parameter, "doubled", lambda: None) is made


def test_graphs_share_the_memory_of_those_that_did_not_fail(cuda):
    failed, other = Graph(torch.device("cuda", 0), None), Graph(torch.device("cuda", 0), None)
    failed.refusal = "it waits"
    assert shared_pool([failed, other]) == other.pool != failed.pool
    assert shared_pool([failed]) is None


def test_a_recording_within_a_recording_does_not_wait_for_it(cuda):
    def record() -> str:
        return Graph(torch.device("cuda", 0), None).record(lambda: "result")

    outer = threading.Thread(target=lambda: Graph(torch.device("cuda", 0), None).record(record), daemon=True)
    outer.start()
    outer.join(timeout=10)
    assert not outer.is_alive() and len(cuda.streams) == 2
