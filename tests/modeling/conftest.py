"""A detector small enough to run in milliseconds."""

import pytest
from tiny_detector import make_cfg, make_model


@pytest.fixture
def tiny_cfg(repository):
    def make(**overrides):
        settings = {"MODEL__ROI_HEADS__NUM_CLASSES": 3, "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0}
        return make_cfg(repository, **{**settings, **overrides})

    return make


@pytest.fixture
def tiny_model(tiny_cfg):
    return lambda **overrides: make_model(tiny_cfg(**overrides))
