from __future__ import annotations

from detectron2.structures import Instances


def detector_postprocess(results: Instances, output_height: int, output_width: int) -> Instances:
    """The detections in an image of another size (pixels): boxes scaled and clipped, empty ones dropped."""
    height, width = results.image_size
    resized = Instances((output_height, output_width), **results.get_fields())
    resized.pred_boxes = results.pred_boxes.clone()
    resized.pred_boxes.scale(output_width / width, output_height / height)
    resized.pred_boxes.clip(resized.image_size)
    return resized[resized.pred_boxes.nonempty()]
