"""One environment variable switches the kernels of CPU and GPU off."""

import pytest
from eventful_vit.ops import gpu
from eventful_vit.ops.cpu import build
from eventful_vit.ops.kernel_switch import SWITCH, is_off


@pytest.mark.parametrize("value", ["off", "OFF", "0"])
def test_off(value, monkeypatch):
    monkeypatch.setenv(SWITCH, value)
    assert is_off()
    assert build.load_library.__wrapped__() is None
    assert gpu.why_unavailable() == f"{SWITCH} is off"


@pytest.mark.parametrize("value", ["", "on", "1"])
def test_anything_else_leaves_them_on(value, monkeypatch):
    monkeypatch.setenv(SWITCH, value)
    assert not is_off()
