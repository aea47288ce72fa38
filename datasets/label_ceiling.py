#!/usr/bin/env python3
"""How well boxes can be found at all, where labels do not fit their objects: an estimate for boxes before even skies.

    python datasets/label_ceiling.py datasets/airborne_vid/annotations/train.json \\
        datasets/airborne_vid/annotations/val.json

Objects are outlined by their difference from what is around them, within their labels. The first file tells how much
larger labels are than outlines of some width and height; the second one is predicted from its outlines by that rule, as
a detector would that sees where each object ends and has learnt how loose labels are. The share of these boxes that
overlap their label by some IoU bounds an AP at that IoU: the AP of boxes all of which have the right class is the share
itself if their scores tell which ones fit, and near its square if not.

A second estimate needs no pictures: each label of the second file as the prediction for its object three frames later.
It needs files that list frames three numbers apart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import script_end
from eventful_vitdet.data.coco_vid import load_coco_vid
from eventful_vitdet.data.copy_paste import cut_out, separate
from eventful_vitdet.data.listed_frames import iterate_listed_frames
from eventful_vitdet.data.registration import default_test_root
from eventful_vitdet.errors import UserError
from eventful_vitdet.evaluation.matching import box_ious
from subset_coco_vid import positive
from tqdm import tqdm

IOUS = (0.25, 0.5, 0.75)
FRAMES_LATER = 3
STANDS_OUT = 16.0
"""Distance from the colour of the surroundings below which a pixel belongs to them."""
OF_STRONGEST = 0.5
"""Share of the largest such distance from which on a pixel belongs to the object, and not to its blur."""
JOINED = 5
"""Side in pixels of what may lie between parts of one object."""

Box = Sequence[float]
"""x, y, width, height in pixels."""


def outline(image: np.ndarray, label: Box) -> Box | None:
    """The box of the largest part of an image (H, W, 3) within a label that differs from what is around it; None for
    uneven surroundings, and where nothing stands out."""
    cutout = cut_out(image, label)
    separated = separate(cutout)
    if separated is None:
        return None
    distances = np.linalg.norm(separated.layer[..., :3], axis=2)
    seen = (distances >= max(STANDS_OUT, OF_STRONGEST * distances.max())).astype(np.uint8)
    joined = cv2.dilate(seen, np.ones((JOINED, JOINED), np.uint8))
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(joined)
    if len(statistics) < 2:
        return None
    largest = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    x, y, width, height = cv2.boundingRect(seen * (parts == largest))
    # The cutout lies in the image where the label does.
    left, top = label[0] - cutout.box[0], label[1] - cutout.box[1]
    return (x + left, y + top, width, height)


def outlined(frames: Sequence[dict]) -> Iterator[tuple[Box, Box | None]]:
    """The labels of frames, and their objects' outlines."""
    for _, video in groupby(frames, key=lambda frame: frame["video_id"]):
        for frame, image in iterate_listed_frames(video):
            for annotation in frame["annotations"]:
                yield annotation["bbox"], outline(image, annotation["bbox"])


class Looseness:
    """The labels that go with outlines: sides by a power law in both sides of the outline, fitted by least squares, and
    centres by the mean offset."""

    def __init__(self, outlines: np.ndarray, labels: np.ndarray) -> None:
        """
        Args:
            outlines, labels: (N, 4) in pixels, of the same objects.
        """
        self._exponents = np.linalg.lstsq(_logs(outlines), np.log(labels[:, 2:]), rcond=None)[0]
        self._offset = np.mean((_centres(labels) - _centres(outlines)) / labels[:, 2:], axis=0)

    def labels(self, outlines: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) for outlines (N, 4)."""
        sides = np.exp(_logs(outlines) @ self._exponents)
        return np.concatenate([_centres(outlines) + self._offset * sides - sides / 2, sides], axis=1)


def _logs(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(boxes), 1)), np.log(boxes[:, 2:])], axis=1)


def _centres(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, :2] + boxes[:, 2:] / 2


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def shares(found: np.ndarray, labels: np.ndarray) -> list[float] | None:
    """The shares of boxes (N, 4) that overlap their labels (N, 4) by each of IOUS; None without boxes."""
    if not len(found):
        return None
    overlaps = box_ious(_corners(found), _corners(labels), pixel=0.0)
    return [float(np.mean(overlaps >= least)) for least in IOUS]


def later_labels(frames: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """The labels (N, 4) that have one of the same object FRAMES_LATER frames later, and those."""
    tracks = {
        (frame["video_id"], frame["frame_id"], annotation["instance_id"]): annotation["bbox"]
        for frame in frames
        for annotation in frame["annotations"]
    }
    later = {key: tracks.get((key[0], key[1] + FRAMES_LATER, key[2])) for key in tracks}
    pairs = [(tracks[key], box) for key, box in later.items() if box is not None]
    early, late = ([pair[end] for pair in pairs] for end in (0, 1))
    return np.reshape(early, (-1, 4)), np.reshape(late, (-1, 4))


def load(json_file: str) -> list[dict]:
    """The frames of a COCO-VID file. Raises DataError for one that cannot be used."""
    return load_coco_vid(json_file, default_test_root(json_file))


def measure(json_file: str, frames: Sequence[dict]) -> tuple[np.ndarray, np.ndarray, int]:
    """Outlines and labels (N, 4) of the objects in some frames of a file, and of how many labels they are.

    Raises UserError for too few of them.
    """
    pairs = list(tqdm(outlined(frames), desc=Path(json_file).name, unit="label"))
    seen = [(found, label) for label, found in pairs if found is not None]
    if len(seen) < 4:
        found = f"of {len(pairs)} labels, {len(seen)} have an object that can be outlined"
        raise UserError(f"{json_file}: {found}; 4 are needed")
    return np.asarray([pair[0] for pair in seen]), np.asarray([pair[1] for pair in seen]), len(pairs)


def main(options: argparse.Namespace) -> None:
    rule = Looseness(*measure(options.learn_from, load(options.learn_from)[:: options.every])[:2])
    frames = load(options.labels)
    outlines, labels, of_all = measure(options.labels, frames[:: options.every])
    taken = np.median(np.max(outlines[:, 2:], axis=1) / np.max(labels[:, 2:], axis=1))
    print(f"{len(labels)} of {of_all} objects were outlined; the larger side takes {taken:.0%} of its label's (median)")
    print("| boxes | " + " | ".join(f"IoU {least}" for least in IOUS) + " |")
    print("| --- |" + " ---: |" * len(IOUS))
    rows = {
        "outlines": (outlines, labels),
        "outlines, made as loose as labels are": (rule.labels(outlines), labels),
        f"labels of {FRAMES_LATER} frames before": later_labels(frames),
    }
    for name, pair in rows.items():
        print(f"| {name} | " + " | ".join(percent(shares(*pair))) + " |")


def percent(found: Sequence[float] | None) -> list[str]:
    """Cells of the table; "-" where there is nothing to measure, as where a file lists every n-th frame only."""
    return ["-"] * len(IOUS) if found is None else [f"{100 * share:.1f}" for share in found]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("learn_from", help="COCO-VID file that tells how loose labels are")
    parser.add_argument("labels", help="COCO-VID file whose labels are to be found")
    parser.add_argument("--every", type=positive, default=10, help="use every n-th frame (default: 10)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    options = parse()
    sys.exit(script_end.run(lambda: main(options), (OSError, UserError), "interrupted"))
