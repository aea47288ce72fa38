"""Recording CUDA graphs, without a GPU: what PyTorch is asked for."""

import threading
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from eventful_vit.ops.gpu.graph import Graph


@pytest.fixture
def recorded_on(monkeypatch):
    """The streams that recordings were made on; stands for PyTorch's CUDA."""
    streams = []

    @contextmanager
    def graph(_, pool=None, stream=None, capture_error_mode="global"):
        streams.append(stream)
        yield

    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device=None: SimpleNamespace(device=device))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    return streams


def test_each_gpu_and_thread_has_a_stream_for_recordings(recorded_on):
    """A stream belongs to one GPU: what is started on another is computed once, not recorded, and never repeated."""

    def record() -> None:
        for number in (0, 1, 0):
            assert Graph(torch.device("cuda", number), None).record(lambda: "result") == "result"

    for _ in range(2):
        thread = threading.Thread(target=record)
        thread.start()
        thread.join()
    first, second, again, *of_other_thread = recorded_on
    assert [stream.device.index for stream in recorded_on] == [0, 1, 0] * 2
    assert again is first is not second and of_other_thread[0] is not first
