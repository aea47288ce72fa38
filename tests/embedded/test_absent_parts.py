"""What of Detectron2 is not in the embedded part."""

from __future__ import annotations

import importlib

import detectron2
import pytest

pytestmark = pytest.mark.skipif("embedded" not in detectron2.__version__, reason="the real Detectron2 is installed")


@pytest.mark.parametrize("name", ["detectron2.model_zoo", "detectron2.utils.visualizer", "detectron2.export"])
def test_a_module_that_is_not_there(name):
    with pytest.raises(ModuleNotFoundError, match=rf"{name} is not in the part of Detectron2 .*: install Detectron2"):
        importlib.import_module(name)


def test_a_module_of_the_package():
    with pytest.raises(ModuleNotFoundError, match="detectron2.model_zoo is not in the part of Detectron2"):
        from detectron2 import model_zoo  # noqa: F401


def test_the_predictor():
    with pytest.raises(ImportError, match="use eventful_vitdet.EventfulPredictor, or install Detectron2"):
        from detectron2.engine import DefaultPredictor  # noqa: F401
    engine = importlib.import_module("detectron2.engine")
    assert not hasattr(engine, "anything_else")


def test_other_packages_are_not_spoken_of():
    with pytest.raises(ModuleNotFoundError, match="No module named 'detectron3'"):
        importlib.import_module("detectron3")
