"""The part of Detectron2 that EventfulViTDet uses: two-stage box detection, its data and its training.

Module paths, class names, state-dict names and numbers are those of Detectron2 0.6. This folder lies at the end
of ``sys.path``, so that an installed Detectron2 always goes first.
"""

__version__ = "0.6+embedded"
