"""What the parts of the package exchange: a frame of a source, what was found in it, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from detectron2.structures import Instances
from eventful_vit.cost import BACKBONE_CATEGORIES
from torch import Tensor

from .errors import DetectionError

MACS_PER_GFLOP = 10**9  # the paper's "GFlops" are 10^9 multiply-accumulates


@dataclass(frozen=True)
class SourceFrame:
    """One frame, as it comes from a source."""

    index: int
    """Its number in the source, from 0 at the beginning."""
    sequence: int
    """Another number than that of the frame before where the two do not belong together: another file, or a
    stream that was away."""
    seconds: float
    """When its file shows it; for streams and cameras by the clock, since the first frame."""
    image: np.ndarray
    """BGR uint8, (H, W, 3). The size may change from frame to frame."""
    name: str
    """File, address or camera; passwords are left out."""
    notice: str = ""
    """What happened shortly before this frame, for the screen."""
    step: int = 1
    """By how much the number of the next frame is larger, as a rule."""
    duration: float = 0.0
    """Seconds that it is shown; 0 where nobody knows."""


@dataclass(frozen=True)
class Detections:
    """One frame's detections in memory of the CPU: boxes (N, 4) as x0, y0, x1, y1 in pixels, scores and classes
    (N,)."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: np.ndarray | None = None
    """(N, M, M) float32: probabilities that fill the box, see `masks.paste_mask`; NaN for detections whose mask was not
    asked for. None where no mask was."""
    tracks: np.ndarray | None = None
    """(N,) numbers of objects, see identities.py; None where nobody follows them."""

    def select(self, rows: np.ndarray) -> Detections:
        """The detections at an index, or of a boolean mask, in its order."""
        columns = (self.boxes, self.scores, self.classes, self.masks, self.tracks)
        return Detections(*(None if column is None else column[rows] for column in columns))

    @classmethod
    def from_instances(cls, instances: Instances, model_input: Mapping) -> Detections:
        """Copy a model's output; raise DetectionError, naming the frame, if it holds NaN or infinity."""
        boxes = instances.pred_boxes.tensor.detach().float().cpu().numpy()
        scores = instances.scores.detach().float().cpu().numpy()
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise DetectionError(
                f"the model gave boxes or scores that are not finite for frame {model_input.get('frame_id')} "
                f"of video {model_input.get('video_id')} ({model_input.get('file_name', 'unknown file')})"
            )
        masks = instances.box_masks.float().cpu().numpy() if instances.has("box_masks") else None
        return cls(boxes, scores, instances.pred_classes.cpu().numpy().astype(np.int32), masks)


@dataclass(frozen=True)
class TokenGrid:
    """How a frame's tokens lie: row by row, the picture's in the top left corner, padding below and on the right."""

    rows: int
    columns: int
    picture_rows: int
    """Rows that show some of the picture."""
    picture_columns: int

    @classmethod
    def of_frame(cls, canvas: tuple[int, int], picture: tuple[int, int], patch: int) -> TokenGrid:
        """The grid for a padded frame and the picture in it, heights and widths in pixels, and a patch's side."""
        rows, columns = canvas[0] // patch, canvas[1] // patch
        return cls(rows, columns, min(rows, -(-picture[0] // patch)), min(columns, -(-picture[1] // patch)))

    def picture_part(self, values: Tensor) -> Tensor:
        """Those of (rows * columns,) values that belong to the picture's tokens."""
        return values.view(self.rows, self.columns)[: self.picture_rows, : self.picture_columns].flatten()


@dataclass(frozen=True)
class FrameCost:
    """
    One frame: whether it was computed in full at the start of a sequence, its MACs by category, its seconds.
    """

    flushed: bool
    macs: dict[str, int]
    backbone_seconds: float
    total_seconds: float

    @property
    def total_macs(self) -> int:
        """Everything that the frame ran."""
        return sum(self.macs.values())

    @property
    def total_gflops(self) -> float:
        """Everything that the frame ran, in GFlops (10^9 MACs)."""
        return self.total_macs / MACS_PER_GFLOP

    @property
    def backbone_gflops(self) -> float:
        """Position encoding and blocks, in GFlops (10^9 MACs)."""
        return sum(self.macs.get(name, 0) for name in BACKBONE_CATEGORIES) / MACS_PER_GFLOP
