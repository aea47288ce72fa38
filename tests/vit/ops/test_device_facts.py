import sys
from types import SimpleNamespace

import pytest
import torch
from eventful_vit.ops import gpu
from eventful_vit.ops.gpu import device_facts
from eventful_vit.ops.gpu.tuning import exchange_tile, precise_products
from eventful_vit.ops.kernel_switch import SWITCH


@pytest.fixture
def gpu_of(monkeypatch):
    """Has the machine a GPU of a compute capability."""

    def set(found):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: found is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: found)
        device_facts.has_descriptors.cache_clear()
        return torch.device("cpu" if found is None else "cuda")

    yield set
    device_facts.has_descriptors.cache_clear()


@pytest.mark.parametrize(
    ("found", "too_old", "large", "groups", "descriptors"),
    [
        (None, False, False, False, True),  # the interpreter
        ((7, 5), True, False, False, False),
        ((8, 0), False, True, False, False),
        ((8, 9), False, False, False, False),
        ((9, 0), False, True, True, True),
        ((10, 3), False, True, True, True),
        ((12, 0), False, False, False, True),
    ],
)
def test_what_gpus_can_do(found, too_old, large, groups, descriptors, gpu_of):
    device = gpu_of(found)
    assert device_facts.is_too_old() == too_old and device_facts.is_large() == large
    assert device_facts.multiplies_by_groups() == groups and device_facts.has_descriptors(device) == descriptors
    assert precise_products(1000) == large and exchange_tile(torch.bfloat16, 80)["num_warps"] == (4 if groups else 8)


def test_each_gpu_of_a_machine_is_asked(monkeypatch):
    """Beside a GPU that is too old, another one has the kernels."""
    capabilities = {0: (7, 0), 1: (9, 0), None: (7, 0)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device=None: capabilities[device and device.index]
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"the GPU {device and device.index}")
    monkeypatch.setattr(gpu, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="3.6.0"))
    monkeypatch.delenv(SWITCH, raising=False)
    old, new = torch.device("cuda", 0), torch.device("cuda", 1)
    assert gpu.why_unavailable(new) is None
    for device, name in ((old, "the GPU 0"), (None, "the GPU None")):
        assert gpu.why_unavailable(device) == f"{name} is older than the kernels support (compute capability 8.0)"
