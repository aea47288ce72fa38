"""AP and AR of tubes: YouTube-VIS' own numbers, and cases worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from eventful_vitdet.data.coco_vid import group_by_video, parse_coco_vid
from eventful_vitdet.errors import EvaluationError
from eventful_vitdet.evaluation.formats import write_tubes
from eventful_vitdet.evaluation.tube_metrics import compute_tube_metrics, tube_ious, undefined_tube_metrics
from eventful_vitdet.evaluation.tubes import Tube, annotated_tubes, check_identities

CLASSES = ["cat", "dog"]


def tube(boxes: dict[int, list[float]], label: int = 0, video: int = 0, **others) -> Tube:
    """A tube of boxes by frame."""
    return Tube(video, label, np.array(list(boxes)), np.array(list(boxes.values()), np.float64), **others)


@pytest.fixture(scope="module")
def golden(repository):
    """Random tubes, and what youtubevos/cocoapi says of them."""
    return json.loads((repository / "tests" / "golden" / "youtube_vis_tubes.json").read_text())


@pytest.fixture
def parts(golden, tmp_path):
    """The golden file's videos, annotated tubes and found ones, and the data set."""
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(golden["truth"]))
    data = parse_coco_vid(str(path), str(tmp_path), strict=False)
    videos = group_by_video(data.frames)
    numbers = {video[0]["video_id"]: number for number, video in enumerate(videos)}
    found = []
    for entry in golden["found"]:
        masks = {place: mask for place, mask in enumerate(entry["segmentations"]) if mask is not None}
        label, boxes = data.category_ids.index(entry["category_id"]), np.zeros((len(masks), 4))
        columns = (numbers[entry["video_id"]], label, np.array(list(masks)), boxes, list(masks.values()))
        found.append(Tube(*columns, entry["score"]))
    return data, videos, annotated_tubes(videos, "segm"), found


def test_masks_have_the_official_numbers(golden, parts):
    data, _, truth, found = parts
    assert any(tube.crowd for tube in truth) and any(len(tube.frames) == 1 for tube in found)
    assert {tube.video for tube in truth} - {tube.video for tube in found}  # a video in which nothing is found
    metrics = compute_tube_metrics(truth, found, data.classes, "segm")
    assert metrics == {
        name: None if value is None else pytest.approx(value, abs=1e-9) for name, value in golden["expected"].items()
    }


def test_the_written_file_is_the_official_layout(golden, parts, tmp_path):
    data, videos, _, found = parts
    path = tmp_path / "found.json"
    write_tubes(str(path), found, videos, data.category_ids)
    assert json.loads(path.read_text()) == golden["found"]


def test_tubes_without_masks_are_written_as_boxes(parts, tmp_path):
    data, videos, *_ = parts
    path = tmp_path / "found.json"
    assert len(videos[0]) == 4
    write_tubes(str(path), [tube({1: [1, 2, 4, 8], 3: [0, 0, 1, 1]}, label=2, score=0.25)], videos, data.category_ids)
    boxes = [None, [1.0, 2.0, 3.0, 6.0], None, [0.0, 0.0, 1.0, 1.0]]
    assert json.loads(path.read_text()) == [{"video_id": 11, "category_id": 20, "score": 0.25, "bboxes": boxes}]
    write_tubes(str(path), [], videos, data.category_ids)
    assert json.loads(path.read_text()) == []


def test_overlap_of_boxes_over_a_video():
    truth = [tube({0: [0, 0, 10, 10], 1: [0, 0, 10, 10], 2: [0, 0, 10, 10]}), tube({5: [0, 0, 2, 2]})]
    found = [tube({1: [0, 0, 10, 5], 2: [5, 0, 15, 10], 3: [0, 0, 10, 10]}), tube({4: [0, 0, 1, 1], 5: [9, 9, 10, 10]})]
    # Together 50 + 50; unions 100 (absent in one), 100, 150, 100 (absent in the other).
    np.testing.assert_allclose(tube_ious(found, truth), [[100 / 450, 0], [0, 0]])


def test_small_cases_by_hand():
    """Two cats, of which one is found; a dog, found by an overlap of 0.6, after a false one."""
    cats = [tube({0: [0, 0, 10, 10], 1: [0, 0, 10, 10]}), tube({0: [50, 50, 60, 60]}, video=1)]
    dog = tube({0: [0, 0, 10, 10], 1: [0, 0, 10, 10]}, label=1, video=1)
    found = [
        tube({0: [0, 0, 10, 10], 1: [0, 0, 10, 10]}, score=0.9),
        tube({0: [90, 90, 99, 99]}, label=1, video=1, score=0.8),
        tube({0: [0, 0, 10, 10], 1: [0, 0, 10, 2]}, label=1, video=1, score=0.7),
    ]
    metrics = compute_tube_metrics([*cats, dog], found, CLASSES)
    assert metrics["AP-cat"] == pytest.approx(100 * 51 / 101)  # recalls 0 to 0.5 of 101
    assert metrics["AP-dog"] == pytest.approx(50 * 3 / 10)  # precision 1/2 at 0.5, 0.55, 0.6
    assert metrics["AP"] == pytest.approx((metrics["AP-cat"] + metrics["AP-dog"]) / 2)
    assert metrics["AP50"] == pytest.approx((100 * 51 / 101 + 50) / 2)
    assert metrics["AP75"] == pytest.approx(100 * 51 / 101 / 2)
    assert metrics["AR1"] == pytest.approx((50 + 0) / 2)  # the best dog is the false one
    assert metrics["AR10"] == pytest.approx((50 + 30) / 2)
    assert metrics["APs"] == metrics["AP"] and metrics["APm"] is None and metrics["APl"] is None


def test_size_is_the_mean_over_the_frames_that_show_it():
    truth = [tube({0: [0, 0, 100, 100], 1: [0, 0, 200, 200]})]  # 25,000 square pixels
    metrics = compute_tube_metrics(truth, truth, CLASSES)
    assert metrics["APm"] == pytest.approx(100) and metrics["APs"] is None and metrics["APl"] is None
    smaller = [tube({0: [0, 0, 100, 100], 1: [0, 0, 200, 200]}, areas=np.array([10_000.0, 0.0]))]
    assert compute_tube_metrics(smaller, truth, CLASSES)["APs"] == pytest.approx(100)


def test_nothing_found_and_nothing_to_find():
    truth = [tube({0: [0, 0, 10, 10]})]
    assert compute_tube_metrics(truth, [], CLASSES)["AP"] == 0
    assert compute_tube_metrics([], truth, CLASSES) == undefined_tube_metrics(CLASSES)
    crowd = [tube({0: [0, 0, 10, 10]}, crowd=True)]
    assert compute_tube_metrics(crowd, truth, CLASSES) == undefined_tube_metrics(CLASSES)
    # Found masks are missing: what has none does not count.
    masked = [tube({0: [0, 0, 2, 2]}, masks=[{"size": [4, 4], "counts": "022266"}])]
    assert compute_tube_metrics(masked, truth, CLASSES, "segm")["AP"] == 0


def annotation(instance: object, label: int = 0, **others) -> dict:
    return {"bbox": [0, 0, 4, 4], "bbox_mode": 1, "category_id": label, "instance_id": instance, "area": 16.0, **others}


def make_frame(number: int, *annotations: dict) -> dict:
    return {"video_id": 1, "frame_id": number, "image_id": number, "height": 8, "width": 8, "annotations": annotations}


def test_annotated_tubes_are_told_by_identity_and_class():
    video = [
        make_frame(0, annotation(5), annotation("a", 1)),
        make_frame(1, annotation(5), annotation(5), annotation(5, 1, iscrowd=1)),
    ]
    tubes = {(t.label, tuple(t.frames.tolist()), t.crowd) for t in annotated_tubes([video])}
    assert tubes == {(0, (0, 1), False), (1, (0,), False), (0, (1,), False), (1, (1,), True)}
    masks = annotated_tubes([[make_frame(0, annotation(5, iscrowd=1))]], "segm")[0].masks
    assert masks[0]["size"] == [8, 8]  # a crowd's box


@pytest.mark.parametrize("identity", [None, -1])
def test_objects_need_identities(identity):
    with pytest.raises(EvaluationError, match="'set' has objects without an identity .* frame 3 of video 1: TEST.TUBE"):
        check_identities("set", [make_frame(2, annotation(4)), make_frame(3, annotation(identity))])
    crowd = [make_frame(3, annotation(identity, iscrowd=1))]
    check_identities("set", crowd)
    assert [tube.crowd for tube in annotated_tubes([crowd])] == [True]
