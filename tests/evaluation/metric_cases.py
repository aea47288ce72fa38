"""Small cases written as lists of numbers, as frame dicts and tables."""

from __future__ import annotations

import numpy as np
from detectron2.structures import BoxMode
from eventful_vitdet.evaluation.detection_table import DetectionTable


def annotation(box: list[float], label: int = 0, track: object = None, **more) -> dict:
    """An object at x0, y0, x1, y1; without a track, it has no instance_id."""
    named = {} if track is None else {"instance_id": track}
    return {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": label, **named, **more}


def frame(image_id: int, annotations: list[dict], *, number: int | None = None, video: int = 1) -> dict:
    """A frame; its number is its image_id unless told."""
    return {
        "image_id": image_id,
        "video_id": video,
        "frame_id": image_id if number is None else number,
        "height": 480,
        "width": 640,
        "annotations": annotations,
    }


def table(*rows: tuple) -> DetectionTable:
    """Rows of (image_id, label, score, box)."""
    return DetectionTable(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int32),
        np.array([row[2] for row in rows], np.float32),
        np.array([row[3] for row in rows], np.float32).reshape(-1, 4),
    )


def random_case(
    rng: np.random.Generator, num_frames: int = 30, num_classes: int = 3
) -> tuple[list[dict], DetectionTable]:
    """Two videos of drifting objects, some without a track, and detections near and far; scores tie often."""
    frames, rows = [], []
    tracks = [
        (rng.uniform(0, 200, 2), rng.uniform(8, 130, 2), rng.normal(0, haste, 2), int(rng.integers(num_classes)))
        for haste in (0.0, 0.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0)
    ]
    for image_id in range(num_frames):
        video, number = divmod(image_id, num_frames // 2)
        objects = []
        for i, (corner, sides, speed, label) in enumerate(tracks):
            if i % 2 == video % 2 and rng.random() < 0.8:
                start = corner + number * speed + rng.normal(0, 0.2, 2)
                box = [*start, *(start + sides)]
                objects.append(annotation(box, label, track=None if i == 7 else i, iscrowd=int(rng.random() < 0.05)))
                for _ in range(rng.integers(0, 3)):
                    near = np.array(box) + rng.normal(0, 0.12, 4) * np.tile(sides, 2)
                    near[2:] = np.maximum(near[2:], near[:2] + 1)
                    rows.append((image_id, label if rng.random() < 0.9 else 0, round(rng.random(), 1), near))
        for _ in range(rng.integers(0, 4)):
            start = rng.uniform(0, 250, 2)
            box = [*start, *(start + rng.uniform(4, 150, 2))]
            rows.append((image_id, int(rng.integers(num_classes)), round(rng.random() ** 2, 1), box))
        frames.append(frame(image_id, objects, number=number, video=video))
    return frames, table(*rows)


def as_objects(frames: list[dict]) -> list[dict]:
    """The annotations as the plain entries of reference_metrics."""
    return [
        {
            "frame": one["image_id"],
            "video": one["video_id"],
            "number": one["frame_id"],
            "label": box["category_id"],
            "box": [float(v) for v in box["bbox"]],
            "track": box.get("instance_id"),
            "crowd": bool(box.get("iscrowd", 0)),
        }
        for one in frames
        for box in one["annotations"]
    ]


def as_detections(detections: DetectionTable) -> list[dict]:
    """The rows as the plain entries of reference_metrics."""
    columns = (detections.image_ids, detections.classes, detections.scores, detections.boxes)
    return [
        {"frame": image_id, "label": label, "score": score, "box": box}
        for image_id, label, score, box in zip(*(column.tolist() for column in columns))
    ]
