"""Labels of the Drone-detection-dataset: MATLAB's `groundTruth` objects, one per clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CLASSES = ("airplane", "bird", "drone", "helicopter")

Box = tuple[float, float, float, float]
LabelledBox = tuple[str, Box]
"""The class, and x, y, width and height in pixels; the image's top left corner is (0, 0)."""


def read_labels(path: Path, width: int, height: int) -> list[list[LabelledBox]]:
    """The boxes of every frame of a clip, in the order of CLASSES, cut off at the edges of its frames.

    Raises ValueError where the file is no such label file, ImportError without mat-io.
    """
    # SciPy reads these files but leaves MATLAB's objects unread.
    from matio import load_from_mat

    try:
        truth = load_from_mat(str(path))["gTruth"].properties["any"][0, 0]
        return [read_row(row, width, height) for row in truth["LabelData"].reshape(-1)]
    except OSError:
        raise
    except Exception as error:  # mat-io has no error class of its own; whatever it meets, the file is not readable
        raise ValueError(f"{path}: is no label file of the Drone-detection-dataset ({error!r})") from error


def read_row(row: np.void, width: int, height: int) -> list[LabelledBox]:
    """The boxes of one frame, of a record with a field per class: arrays (n, 4), empty where nothing is labelled.

    MATLAB counts pixels from 1.
    """
    boxes = []
    for name in CLASSES:
        # Later versions of MATLAB keep boxes together with identifiers of their labels.
        found = row[name.upper()]
        if found.size and found.dtype.names:
            found = found["Position"].flat[0]
        for x, y, w, h in np.asarray(found, np.float64).reshape(-1, 4).tolist():
            x0, y0, x1, y1 = max(x - 1, 0.0), max(y - 1, 0.0), min(x - 1 + w, width), min(y - 1 + h, height)
            box = tuple(round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0))
            if box[2] > 0 and box[3] > 0:
                boxes.append((name, box))
    return boxes
