"""Frames like the last one, which a GPU starts before the host has looked at the weights (repetition.py)."""

import pytest
from eventful_vit.repetition import Repetition
from eventful_vit.weights import WeightWatch

BEFORE = 3
"""Frames of a kind until one is repeated at once: the first, which is a flush; one as usual; one that is recorded."""


@pytest.fixture
def started(as_on_a_gpu, monkeypatch):
    """What happened, in order: "start" where a frame is repeated, "look" at the weights."""
    events, start, version = [], Repetition.start, WeightWatch.version
    monkeypatch.setattr(Repetition, "start", lambda self, inputs: events.append("start") or start(self, inputs))
    monkeypatch.setattr(WeightWatch, "version", lambda self: events.append("look") or version(self))
    return events
