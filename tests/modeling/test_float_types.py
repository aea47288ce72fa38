"""The float types of MODEL.EVENTFUL on GPUs."""

from __future__ import annotations

import pytest
import torch
from eventful_vitdet.config_files import defaults
from eventful_vitdet.errors import ConfigError
from eventful_vitdet.modeling.backbone import parse_dtype


@pytest.mark.parametrize("key", ["STATE_DTYPE", "COMPUTE_DTYPE"])
def test_a_gpu_that_emulates_bfloat16_is_named(monkeypatch, key):
    capabilities = {0: (7, 5), 1: (8, 0)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    cfg = defaults()
    cfg.MODEL.EVENTFUL[key] = "bfloat16"
    cfg.MODEL.DEVICE = "cuda:0"
    with pytest.raises(ConfigError, match=f"{key} = 'bfloat16': this GPU only emulates bfloat16"):
        parse_dtype(cfg, key)
    for device in ("cuda:1", "cpu"):
        cfg.MODEL.DEVICE = device
        assert parse_dtype(cfg, key) is torch.bfloat16
