from __future__ import annotations

import subprocess
import sys

import pytest
from eventful_vit.encoder import CROSSOVER
from eventful_vitdet.config import config_errors
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.errors import ConfigError


def test_the_crossovers_default_is_the_measured_one():
    assert build_cfg("").MODEL.EVENTFUL.GPU_CROSSOVER == CROSSOVER


@pytest.mark.parametrize(
    "error",
    [
        ValueError("MODEL.ROI_BOX_HEAD.NUM_CONV and NUM_FC are both 0"),
        AssertionError("SOLVER.STEPS must be sorted"),
        KeyError("No object named 'X' found in 'BACKBONE' registry!"),
    ],
)
def test_builders_that_name_a_key_speak_to_the_user(error):
    with pytest.raises(ConfigError) as caught, config_errors():
        raise error
    assert str(caught.value) == error.args[0] and caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [ValueError("expected 3 channels"), KeyError("p3"), AssertionError(), RuntimeError("MODEL.X"), TypeError("x")],
)
def test_their_other_errors_may_be_defects(error):
    with pytest.raises(type(error)) as caught, config_errors():
        raise error
    assert caught.value is error


def test_public_names_are_imported_when_they_are_used():
    code = """
import sys
import eventful_vitdet
assert "torch" not in sys.modules
assert set(eventful_vitdet.__all__) <= set(dir(eventful_vitdet))
for name in eventful_vitdet.__all__:
    assert callable(getattr(eventful_vitdet, name)), name
try:
    eventful_vitdet.nothing
except AttributeError as error:
    assert "'nothing'" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)
