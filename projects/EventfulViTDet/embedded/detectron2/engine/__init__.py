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
