from __future__ import annotations

from detectron2.layers import paste_masks_in_image
from detectron2.structures import Instances


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """The detections in an image of another size (pixels): boxes scaled and clipped, empty ones dropped.

    Masks of boxes, ``pred_masks`` (N, 1, M, M), become masks of the image, (N, height, width) bool.
    """
    height, width = results.image_size
    resized = Instances((output_height, output_width), **results.get_fields())
    resized.pred_boxes = results.pred_boxes.clone()
    resized.pred_boxes.scale(output_width / width, output_height / height)
    resized.pred_boxes.clip(resized.image_size)
    resized = resized[resized.pred_boxes.nonempty()]
    if resized.has("pred_masks"):
        resized.pred_masks = paste_masks_in_image(
            resized.pred_masks[:, 0], resized.pred_boxes, resized.image_size, mask_threshold
        )
    return resized
