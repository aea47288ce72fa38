from . import hooks
from .defaults import DefaultTrainer, default_argument_parser, default_setup
from .launch import launch
from .train_loop import HookBase, SimpleTrainer

__all__ = [
    "DefaultTrainer",
    "HookBase",
    "SimpleTrainer",
    "default_argument_parser",
    "default_setup",
    "hooks",
    "launch",
]


def __getattr__(name: str) -> None:
    if name == "DefaultPredictor":
        raise ImportError(
            "DefaultPredictor is not in the part of Detectron2 that EventfulViTDet brings along: use "
            "eventful_vitdet.EventfulPredictor, or install Detectron2 itself (docs/installation.md)"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
