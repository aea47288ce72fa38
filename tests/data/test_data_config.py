"""Keys of the data part, and their defaults."""

from __future__ import annotations

import os

import pytest
from detectron2.config import get_cfg
from eventful_vitdet import add_eventful_vitdet_config


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (64, 8)])
def test_workers_follow_the_cores(monkeypatch, cores, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)
    assert cfg.DATALOADER.NUM_WORKERS == workers
