"""The part of Detectron2 that EventfulViTDet uses: two-stage box detection, its data and its training.

Module paths, class names, state-dict names and numbers are those of Detectron2 0.6. This folder lies at the end
of ``sys.path``, so that an installed Detectron2 always goes first.
"""

from __future__ import annotations

import sys
from types import ModuleType

__version__ = "0.6+embedded"


class _AbsentModules:
    """The last of Python's module finders: says of a module of Detectron2 that is not in this part where it is."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: ModuleType | None = None) -> None:
        if name.startswith("detectron2."):
            raise ModuleNotFoundError(
                f"{name} is not in the part of Detectron2 that EventfulViTDet brings along: install Detectron2 itself "
                "(docs/installation.md)"
            )


sys.meta_path.append(_AbsentModules)
