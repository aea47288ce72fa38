"""Masks in annotation files."""

from __future__ import annotations

import numpy as np
import pytest
from eventful_vitdet.data.segmentations import decode_counts, has_masks, read_segmentation
from eventful_vitdet.errors import DatasetError
from pycocotools import mask as coco_mask

POLYGON = [1, 1, 5.5, 1, 5, 7]
COUNTS = {"size": [6, 8], "counts": [10, 5, 33]}


@pytest.mark.parametrize("value", [None, [], {}])
def test_files_of_boxes_have_none(value):
    assert read_segmentation("annotation 1", value, 6, 8) is None


@pytest.mark.parametrize("value", [[POLYGON], [POLYGON, POLYGON], COUNTS])
def test_masks_stay_as_they_are(value):
    assert read_segmentation("annotation 1", value, 6, 8) == value


@pytest.mark.parametrize("seed", range(20))
def test_compressed_run_lengths(seed):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 90, 2)
    mask = np.repeat(rng.uniform(size=(size[0], 1)) < 0.4, size[1], axis=1) ^ (rng.uniform(size=size) < 0.02 * seed)
    counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    changes = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [2]])))
    assert decode_counts(counts) == np.diff([0, *changes]).tolist()
    value = {"size": size.tolist(), "counts": counts}
    assert read_segmentation("annotation 1", value, *size.tolist()) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mask.png", "expected polygons or run lengths"),
        ([1, 2, 3, 4, 5, 6], "has the polygon 1; expected x and y of three points"),
        ([[1, 2, 3, 4]], "three points or more"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three points or more"),
        ([[1, 2, 3, 4, 5, float("nan")]], "no numbers of pixels"),
        ([[1, 2, 3, 4, 5, "6"]], "no numbers of pixels"),
        ({"size": [6, 9], "counts": [54]}, r"of size \[6, 9\], but its image is \[6, 8\]"),
        ({"counts": [48]}, "of size None"),
        ({"size": [6, 8], "counts": [47]}, "do not add up to its 6 x 8 pixels"),
        ({"size": [6, 8], "counts": [49, -1]}, "do not add up"),
        ({"size": [6, 8], "counts": [47.5, 0.5]}, "do not add up"),
        ({"size": [6, 8], "counts": "`"}, "do not add up"),
        ({"size": [6, 8], "counts": "~~~"}, "do not add up"),
        ({"size": [6, 8], "counts": ""}, "do not add up"),
        ({"size": [6, 8]}, "do not add up"),
    ],
)
def test_what_is_no_mask_is_named(value, message):
    with pytest.raises(DatasetError, match=f"annotation 7.*{message}"):
        read_segmentation("a.json: annotation 7", value, 6, 8)


def test_a_data_set_has_masks_if_all_objects_have():
    masked, bare, crowd = {"segmentation": [POLYGON]}, {}, {"iscrowd": 1}
    assert has_masks([{"annotations": [masked, crowd]}, {"annotations": []}])
    assert not has_masks([{"annotations": [masked, bare]}])
    assert not has_masks([{"annotations": [crowd]}]) and not has_masks([])
