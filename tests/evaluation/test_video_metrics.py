"""compute_metrics and compute_agreement: hand-made cases, and random ones against reference_metrics."""

from __future__ import annotations

import json
import logging
import tracemalloc

import numpy as np
import pytest
from eventful_vitdet.errors import EvaluationError
from eventful_vitdet.evaluation import (
    compute_agreement,
    compute_coco_metrics,
    compute_metrics,
    compute_vid_ap50,
    matching,
)
from eventful_vitdet.evaluation.coco_metrics import keep_best, make_ground_truth
from eventful_vitdet.evaluation.detection_table import DetectionTable
from hypothesis import given, settings
from hypothesis import strategies as st

from .metric_cases import annotation, as_detections, as_objects, frame, random_case, table
from .reference_metrics import charged_to_nearest, mean_average_precision, motion_iou

CLASSES = ["cat", "dog", "hen"]
AGES = {"age-0": (0, 0), "age-1-3": (1, 3), "age-4-7": (4, 7), "age-8-15": (8, 15), "age-16-31": (16, 31)}
AGES["age-32+"] = (32, 10**9)
A, FAR = [0.0, 0.0, 19.0, 9.0], [300.0, 300.0, 319.0, 309.0]


def evaluate(frames: list[dict], detections: DetectionTable, **more) -> dict:
    limits = {"score_threshold": 0.05, "max_detections": 100}
    return compute_metrics(frames, CLASSES, [10, 20, 30], detections, **{**limits, **more})


def perfect(frames: list[dict], score: float = 0.5) -> DetectionTable:
    boxes = [(one["image_id"], box) for one in frames for box in one["annotations"] if not box.get("iscrowd")]
    return table(*((image_id, box["category_id"], score, box["bbox"]) for image_id, box in boxes))


def moving(speeds: list[float], number: int = 3) -> list[dict]:
    """Frames of an object for each speed (pixels per frame), 200 pixels below each other, 20 wide."""
    return [
        frame(i, [annotation([v * i, 200 * j, v * i + 20, 200 * j + 10], track=j) for j, v in enumerate(speeds)])
        for i in range(number)
    ]


def test_names_of_all_metrics():
    metrics = evaluate(moving([0]), perfect(moving([0])), frames_since_flush={0: 0, 1: 1, 2: 2})
    per_class = {f"{kind}-{name}" for kind in ("AP", "VID-AP50") for name in CLASSES}
    assert set(metrics["bbox"]) == {"AP", "AP25", "AP50", "AP75", "APs", "APm", "APl", "VID-AP50"} | per_class
    for group, ranges in (
        ("motion", ["slow", "medium", "fast"]),
        ("size", ["small", "medium", "large"]),
        ("stability", AGES),
    ):
        assert set(metrics[group]) == {f"{kind}-{name}" for kind in ("VID-AP50", "objects") for name in ranges}
    json.dumps(metrics, allow_nan=False)


def test_perfect_detections_are_100_everywhere():
    frames = moving([0, 0.4, 9], 40)  # motion IoU 1, about 0.8 and far below 0.7
    metrics = evaluate(frames, perfect(frames), frames_since_flush={i: i for i in range(40)})
    values = [v for group in metrics.values() for name, v in group.items() if "AP" in name and v is not None]
    assert values == pytest.approx([100] * len(values))
    for name in ("slow", "medium", "fast"):
        assert metrics["motion"][f"VID-AP50-{name}"] == 100
        assert metrics["motion"][f"objects-{name}"] == pytest.approx(100 / 3)
    assert all(metrics["stability"][f"VID-AP50-{name}"] == 100 for name in AGES)
    assert metrics["stability"]["objects-age-8-15"] == pytest.approx(20)
    assert metrics["bbox"]["VID-AP50-dog"] is None and metrics["bbox"]["AP-dog"] is None


def test_motion_ranges_by_hand():
    """Three frames with a still and a fast object. A detection with a hold on the wrong range counts in neither."""
    frames = moving([0, 8])
    still, fast = ([one["annotations"][i]["bbox"] for one in frames] for i in (0, 1))
    detections = table(
        (0, 0, 0.9, still[0]),  # finds the still object
        (0, 0, 0.8, [12, 0, 32, 10]),  # false, nearest to the still object: 9 of 33 columns
        (1, 0, 0.7, still[1]),
        (1, 0, 0.6, [18, 200, 38, 210]),  # false, nearest to the fast object: 11 of 31 columns
        (2, 0, 0.5, fast[2]),
    )
    motion = evaluate(frames, detections)["motion"]
    # Slow: true, false, true of 3 objects: precisions 1 and 2/3 for a third each, and a third not found.
    assert motion["VID-AP50-slow"] == pytest.approx(100 * (1 + 2 / 3) / 3)
    # Fast: false, then true: 1/2 for the first of 3 objects.
    assert motion["VID-AP50-fast"] == pytest.approx(100 * 0.5 / 3)
    assert motion["VID-AP50-medium"] is None and motion["objects-medium"] == 0
    # All: true, false, true, false, true; 6 objects: precisions 1, 2/3, 3/5.
    assert evaluate(frames, detections)["bbox"]["VID-AP50"] == pytest.approx(100 * (1 + 2 / 3 + 3 / 5) / 6)


def test_false_positives_without_an_object_of_their_class_count_in_every_motion_range():
    """Frames without objects are no fast objects: they only hold false positives, which cost each range alike."""
    frames = [*moving([0, 8]), frame(3, [])]
    found = perfect(frames)
    metrics = evaluate(frames, DetectionTable.join([found, table((3, 0, 0.9, FAR))]))
    # A false positive above 3 true ones of equal score.
    assert metrics["motion"]["VID-AP50-slow"] == metrics["motion"]["VID-AP50-fast"] == pytest.approx(75)
    assert metrics["motion"]["objects-fast"] == pytest.approx(50)
    # The same box where there are only slow objects costs the slow ones: it belongs to no other.
    frames = [frame(i, [annotation(A, track=0)]) for i in range(3)]
    frames += [frame(10 + i, [annotation([9 * i, 0, 9 * i + 19, 9], track=1)], video=2) for i in range(3)]
    motion = evaluate(frames, DetectionTable.join([perfect(frames), table((0, 0, 0.9, FAR))]))["motion"]
    assert (motion["VID-AP50-slow"], motion["VID-AP50-fast"]) == (pytest.approx(75), 100)


def test_objects_without_a_track_are_ignored_by_motion_and_the_reason_is_logged_once(caplog):
    frames = moving([0])
    frames[0]["annotations"].append(annotation(FAR, 1))
    detections = DetectionTable.join([perfect(frames), table((0, 1, 0.9, FAR))])
    with caplog.at_level(logging.WARNING):
        assert evaluate(frames, detections)["motion"]["VID-AP50-slow"] == 100
    (record,) = caplog.records
    assert "1 of 4 objects have no motion IoU" in record.message and "1 have no track" in record.message


def test_a_few_objects_without_motion_are_for_the_log_only(caplog):
    frames = [*moving([0] * 40), *(frame(1000 + i, [annotation(A, track=9)]) for i in range(200))]
    frames[0]["annotations"].append(annotation(FAR, 1))
    with caplog.at_level(logging.DEBUG, "eventful_vitdet"):
        evaluate(frames, perfect(frames))
    (record,) = [record for record in caplog.records if "no motion IoU" in record.message]
    assert record.levelno == logging.DEBUG and record.message.startswith("1 of ")


@pytest.mark.parametrize("numbers, reason", [((0, 1), "2 have no track"), ((0, 11), "2 are alone in their track")])
def test_no_motion_at_all(caplog, numbers, reason):
    track = None if numbers == (0, 1) else 5
    frames = [frame(i, [annotation(A, track=track)]) for i in numbers]
    with caplog.at_level(logging.WARNING):
        motion = evaluate(frames, perfect(frames))["motion"]
    assert len(motion) == 6 and set(motion.values()) == {None}
    (record,) = caplog.records
    assert "all of 2 objects" in record.message and reason in record.message


def test_sizes_by_hand():
    """Areas 31 x 32 and 32 x 32: small and medium. A false positive belongs to the range of its own area."""
    frames = [frame(0, [annotation([0, 0, 31, 32]), annotation([100, 0, 132, 32])])]
    metrics = evaluate(frames, DetectionTable.join([perfect(frames), table((0, 0, 0.9, [300, 0, 500, 100]))]))
    # The large false positive costs neither; there is no large object.
    assert metrics["size"] == {
        "VID-AP50-small": 100,
        "VID-AP50-medium": 100,
        "VID-AP50-large": None,
        "objects-small": 50,
        "objects-medium": 50,
        "objects-large": 0,
    }
    metrics = evaluate(frames, DetectionTable.join([perfect(frames), table((0, 0, 0.9, [300, 0, 310, 10]))]))
    assert (metrics["size"]["VID-AP50-small"], metrics["size"]["VID-AP50-medium"]) == (50, 100)


def test_stability_by_hand():
    """Found in the flush frame and one frame later, lost after that."""
    frames = moving([0], 6)
    metrics = evaluate(frames, perfect(frames[:2]), frames_since_flush={0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 0})
    stability = metrics["stability"]
    assert stability["VID-AP50-age-0"] == 50  # frames 0 and 5
    assert stability["VID-AP50-age-1-3"] == pytest.approx(100 / 3)
    assert stability["VID-AP50-age-4-7"] == 0 and stability["VID-AP50-age-32+"] is None


def test_stability_is_undefined_without_ages_and_refuses_gaps_in_them():
    frames = moving([0], 2)
    assert set(evaluate(frames, perfect(frames))["stability"].values()) == {None}
    for ages in ({0: 0}, {0: 0, 1: -1}):
        with pytest.raises(EvaluationError, match="image 1 is evaluated, but its number of frames since a flush"):
            evaluate(frames, perfect(frames), frames_since_flush=ages)


def test_crowds_are_not_counted_and_forgive_what_lies_in_them():
    frames = [frame(0, [annotation(A), annotation([200, 0, 400, 200], iscrowd=1)])]
    in_crowd = [(0, 0, 0.9, [x, 10, x + 30, 60]) for x in (210, 240, 300)]
    metrics = evaluate(frames, DetectionTable.join([perfect(frames), table(*in_crowd)]))
    assert metrics["bbox"]["VID-AP50"] == 100 and metrics["size"]["VID-AP50-small"] == 100
    assert metrics["size"]["objects-large"] == 0


@pytest.mark.parametrize(
    ("box", "forgiven"),
    [
        ([215.0, 10.0, 244.0, 39.0], True),
        ([187.0, 10.0, 216.0, 39.0], True),
        ([184.0, 10.0, 213.0, 39.0], False),
        ([205.0, 205.0, 234.0, 234.0], False),  # touches nothing
        (FAR, False),  # far from everything, as many a false positive
        ([100.0, -300.0, 599.0, 699.0], False),  # around the crowd
    ],
)
def test_a_false_positive_is_forgiven_where_half_of_it_lies_in_a_crowd(box, forgiven):
    crowd = annotation([200, 0, 399, 199], iscrowd=1, track=8)
    frames = [frame(i, [annotation(A, track=1), crowd]) for i in range(3)]
    metrics = evaluate(frames, DetectionTable.join([perfect(frames), table((0, 0, 0.9, box))]))
    expected = 100 if forgiven else 75  # a false positive above three true ones
    assert metrics["bbox"]["VID-AP50"] == metrics["motion"]["VID-AP50-slow"] == pytest.approx(expected)
    # COCO's own figures agree.
    assert (metrics["bbox"]["AP50"] > 99) == forgiven
    # The same where crowds are all that its frame has, and where the crowd is of another class.
    frames[0]["annotations"] = [crowd]
    alone = evaluate(frames, DetectionTable.join([perfect(frames), table((0, 0, 0.9, box))]))
    assert alone["bbox"]["VID-AP50"] == pytest.approx(100 if forgiven else 100 * 2 / 3)
    assert alone["motion"]["VID-AP50-slow"] == pytest.approx(100 if forgiven else 100 * 2 / 3)
    for one in frames:
        one["annotations"][-1] = {**crowd, "category_id": 1}
    other = evaluate(frames, DetectionTable.join([perfect(frames), table((0, 0, 0.9, box))]))
    assert other["bbox"]["VID-AP50-cat"] < 100


def test_an_object_in_a_crowd_is_found_before_the_crowd_forgives():
    frames = [frame(0, [annotation([210, 10, 260, 60]), annotation([200, 0, 399, 199], iscrowd=1)])]
    metrics = evaluate(frames, table((0, 0, 0.9, [210, 10, 260, 60]), (0, 0, 0.8, [211, 10, 261, 60])))
    assert metrics["bbox"]["VID-AP50"] == 100  # the second one found nothing, and lies in the crowd
    assert evaluate(frames, table((0, 0, 0.9, [200, 0, 399, 199])))["bbox"]["VID-AP50"] == 0


def test_crowds_alone_cannot_be_evaluated():
    with pytest.raises(EvaluationError, match="no annotations in the 1 evaluated images"):
        evaluate([frame(0, [annotation(A, iscrowd=1)])], table((0, 0, 0.9, A)))


def test_coco_figures_leave_out_what_the_heads_would_have():
    """Below the threshold, and beyond the best two of the frame, detections count for VID-AP50 alone."""
    frames = [frame(0, [annotation(A)])]
    metrics = evaluate(frames, table((0, 0, 0.04, A)))
    assert metrics["bbox"]["AP50"] == 0 and metrics["bbox"]["VID-AP50"] == 100
    assert evaluate(frames, table((0, 0, 0.05, A)))["bbox"]["AP50"] == pytest.approx(100)
    rows = [(0, 1, 0.9, FAR), (0, 2, 0.8, FAR), (0, 0, 0.7, A)]
    assert evaluate(frames, table(*rows), max_detections=2)["bbox"]["AP50"] == 0
    assert evaluate(frames, table(*rows), max_detections=3)["bbox"]["AP50"] == pytest.approx(100)


def test_the_best_of_a_frame_by_score_then_class_then_box():
    rows = [(4, 1, 0.5, A), (3, 1, 0.5, A), (3, 0, 0.5, FAR), (3, 0, 0.5, A), (3, 2, 0.9, A), (3, 2, 0.1, A)]
    best = keep_best(table(*rows), 0.2, 3)
    assert best.image_ids.tolist() == [3, 3, 3, 4] and best.classes.tolist() == [2, 0, 0, 1]
    assert best.boxes[1:3].tolist() == [A, FAR]


def test_coco_figures_equal_those_of_the_same_detections_as_dicts():
    frames, detections = random_case(np.random.default_rng(5))
    results = [
        {"image_id": d["frame"], "category_id": 10 + 10 * d["label"], "score": d["score"], "bbox": [*box[:2], *sides]}
        for d, box, sides in zip(
            as_detections(detections),
            detections.boxes.tolist(),
            (detections.boxes[:, 2:] - detections.boxes[:, :2]).tolist(),
        )
        if d["score"] >= 0.3
    ]
    # Equal scores in the order of the table's rule.
    results.sort(key=lambda r: (r["image_id"], -r["score"], r["category_id"], r["bbox"]))
    expected = compute_coco_metrics(make_ground_truth(frames, [10, 20, 30], CLASSES), results)
    metrics = evaluate(frames, detections, score_threshold=0.3)["bbox"]
    assert {name: metrics[name] for name in expected} == expected
    assert 1 < metrics["AP"] < 99


def expected_groups(frames: list[dict], detections: DetectionTable, ages: dict[int, int]) -> dict[str, dict]:
    """Every figure by reference_metrics, a range at a time."""
    objects, found = as_objects(frames), as_detections(detections)
    for entry in objects:
        entry["motion"] = motion_iou(entry, objects)
        x0, y0, x1, y1 = entry["box"]
        entry["area"] = (x1 - x0) * (y1 - y0)

    def mean(counts, is_charged):
        return mean_average_precision(objects, found, len(CLASSES), counts, is_charged)

    def motion(low, high):
        def inside(entry):
            return low < entry["motion"] < high

        return mean(inside, charged_to_nearest(inside))

    def size(low, high):
        def own_area(detection, here):
            x0, y0, x1, y1 = np.float32(detection["box"])
            return low <= (x1 - x0) * (y1 - y0) < high

        return mean(lambda o: low <= o["area"] < high, own_area)

    def age(low, high):
        def inside(entry):
            return low <= ages[entry["frame"]] <= high

        return mean(inside, lambda d, here: inside(d))

    tiny = 1e-9
    return {
        "bbox": {"": mean(lambda o: True, lambda d, here: True)},
        "motion": {"-slow": motion(0.9, 2), "-medium": motion(0.7 - tiny, 0.9 + tiny), "-fast": motion(-1, 0.7)},
        "size": {"-small": size(-1, 1024), "-medium": size(1024, 9216), "-large": size(9216, 1e9)},
        "stability": {f"-{name}": age(*ends) for name, ends in AGES.items()},
    }


@pytest.mark.parametrize("seed", range(6))
def test_all_figures_equal_the_plain_loops(seed):
    frames, detections = random_case(np.random.default_rng(seed), num_frames=40)
    ages = {one["image_id"]: one["frame_id"] * 2 for one in frames}
    metrics = evaluate(frames, detections, frames_since_flush=ages)
    for group, values in expected_groups(frames, detections, ages).items():
        for name, value in values.items():
            # Means of at most a few hundred fractions.
            assert metrics[group][f"VID-AP50{name}"] == pytest.approx(value, abs=1e-9), (group, name)


def grid_cases() -> st.SearchStrategy:
    """Few frames, classes, places and scores, so that everything collides and ties."""
    corner = st.tuples(st.integers(0, 3).map(lambda n: 8.0 * n), st.integers(0, 1).map(lambda n: 8.0 * n))
    box = st.builds(lambda low, side: [*low, low[0] + side, low[1] + side], corner, st.sampled_from([7.0, 15.0, 40.0]))
    entry = st.tuples(st.integers(0, 2), st.integers(0, 1), box)
    objects = st.lists(st.tuples(entry, st.integers(0, 2), st.sampled_from([0, 0, 0, 1])), min_size=1, max_size=10)
    return st.tuples(objects, st.lists(st.tuples(entry, st.sampled_from([0.25, 0.5, 0.75])), max_size=14))


def as_case(objects: list, rows: list) -> tuple[list[dict], DetectionTable]:
    frames = [frame(i, [], number=8 * i) for i in range(3)]
    for (image_id, label, box), track, crowd in objects:
        frames[image_id]["annotations"].append(annotation(box, label, track=track, iscrowd=crowd))
    return frames, table(*((image_id, label, score, box) for (image_id, label, box), score in rows))


def same(one: dict, other: dict, but: str = " ") -> bool:
    """Whether figures are equal, but for those whose names begin with a word."""

    def figures(group: dict) -> dict:
        return {name: value for name, value in group.items() if not name.startswith(but)}

    return all(figures(one[group]) == pytest.approx(figures(other[group]), abs=1e-9) for group in one)


@settings(max_examples=60, deadline=None)
@given(grid_cases(), st.randoms(use_true_random=False))
def test_no_order_matters(case, random):
    """That of objects matters to COCO's own figures: where two overlap a detection equally, the later one gets it."""
    objects, rows = case
    objects.append(((0, 0, A), 0, 0))  # one that counts
    before = evaluate(*as_case(objects, rows), frames_since_flush={0: 0, 1: 1, 2: 9})
    random.shuffle(rows)
    frames, detections = as_case(objects, rows)
    random.shuffle(frames)
    assert same(evaluate(frames, detections, frames_since_flush={0: 0, 1: 1, 2: 9}), before)
    random.shuffle(objects)
    frames, detections = as_case(objects, rows)
    assert same(evaluate(frames, detections, frames_since_flush={0: 0, 1: 1, 2: 9}), before, but="AP")


def test_of_objects_that_overlap_equally_coco_takes_the_later():
    left, right = [0.0, 8.0, 40.0, 48.0], [16.0, 8.0, 56.0, 48.0]
    between, at_left = [8.0, 8.0, 48.0, 48.0], [0.0, 0.0, 40.0, 40.0]  # IoU 2/3 with both; with the left one only
    rows = [((0, 0, between), 0.5), ((0, 0, at_left), 0.25)]
    orders = ([left, right], [right, left])
    one, other = (evaluate(*as_case([((0, 0, box), 0, 0) for box in boxes], rows)) for boxes in orders)
    assert one["bbox"]["AP50"] == 100 and other["bbox"]["AP50"] < 60
    assert same(one, other, but="AP")


@settings(max_examples=60, deadline=None)
@given(grid_cases())
def test_ties_and_collisions_equal_the_plain_loops(case):
    """Objects in one place differ in their range, and which of them is taken first must be the same in both."""
    objects, rows = case
    distinct = {(image_id, label, tuple(box)): (e, t, c) for e, t, c in objects for image_id, label, box in [e]}
    frames, detections = as_case([*distinct.values(), ((0, 2, FAR), 0, 0)], rows)
    ages = {0: 0, 1: 1, 2: 9}
    metrics = evaluate(frames, detections, frames_since_flush=ages)
    for group, values in expected_groups(frames, detections, ages).items():
        for name, value in values.items():
            assert metrics[group][f"VID-AP50{name}"] == pytest.approx(value, abs=1e-9), (group, name)


def test_one_video_alone():
    frames, detections = random_case(np.random.default_rng(1))
    whole = evaluate(frames, detections)["bbox"]
    assert compute_vid_ap50(frames, CLASSES, detections) == {n: v for n, v in whole.items() if n.startswith("VID")}
    assert set(compute_vid_ap50([frame(0, [])], CLASSES, table((0, 0, 0.9, A))).values()) == {None}


def agree(frames: list[dict], reference: DetectionTable, detections: DetectionTable, **more) -> dict:
    return compute_agreement(frames, CLASSES, [10, 20, 30], reference, detections, **more)


def without_labels(number: int = 2) -> list[dict]:
    return [{key: v for key, v in frame(i, []).items() if key != "annotations"} for i in range(number)]


def test_a_model_agrees_with_itself():
    frames, detections = random_case(np.random.default_rng(2))
    agreement = agree(frames, detections, detections)
    assert agreement["VID-AP50"] == agreement["recall"] == agreement["precision"] == agreement["IoU"] == 100


def test_agreement_by_hand():
    """Objects are the reference's two boxes from 0.5 on; one is found 2 pixels beside it, one is not found."""
    reference = table((0, 0, 0.5, [0, 0, 20, 10]), (1, 1, 0.9, [0, 0, 20, 10]), (1, 2, 0.4, FAR))
    detections = table((0, 0, 0.8, [2, 0, 22, 10]), (0, 0, 0.9, FAR), (1, 2, 0.4, FAR))
    agreement = agree(without_labels(), reference, detections)
    # Cat: a false positive above the true one. Dog: nothing. Hen: no object.
    assert agreement["VID-AP50-cat"] == 50 and agreement["VID-AP50-dog"] == 0 and agreement["VID-AP50-hen"] is None
    assert agreement["VID-AP50"] == 25
    # One of two objects, by one of two detections from 0.5 on; 18 of 22 columns.
    assert (agreement["recall"], agreement["precision"]) == (50, 50)
    assert agreement["IoU"] == pytest.approx(100 * 18 / 22)


def test_confidence_of_the_objects():
    reference = table((0, 0, 0.4, A))
    assert agree(without_labels(), reference, reference, confidence=0.3)["recall"] == 100
    nothing = agree(without_labels(), reference, reference)
    assert set(nothing.values()) == {None}


def test_agreement_by_frames_since_a_flush():
    reference = table((0, 0, 0.9, A), (1, 0, 0.9, A))
    agreement = agree(without_labels(), reference, table((0, 0, 0.9, A)), frames_since_flush={0: 0, 1: 5})
    assert agreement["VID-AP50-age-0"] == 100 and agreement["VID-AP50-age-4-7"] == 0
    assert agreement["VID-AP50-age-32+"] is None and agreement["objects-age-0"] == 50


@pytest.mark.parametrize("part", ["reference", "detections"])
def test_agreement_refuses_other_images(part):
    tables = {"reference": DetectionTable.empty(), "detections": DetectionTable.empty(), part: table((7, 0, 0.9, A))}
    with pytest.raises(EvaluationError, match="image 7"):
        agree(without_labels(), **tables)


def many(num_frames: int, per_frame: int, num_classes: int) -> tuple[list[dict], DetectionTable]:
    """Frames of 320 x 320 with two tracked objects each, and random detections, most of low score."""
    rng = np.random.default_rng(0)
    frames = [
        frame(
            i, [annotation([i % 300, 9, i % 300 + 40, 60], j, track=j) for j in (0, 1)], number=i % 300, video=i // 300
        )
        for i in range(num_frames)
    ]
    total = num_frames * per_frame
    low = rng.uniform(0, 250, (total, 2)).astype(np.float32)
    boxes = np.concatenate([low, low + rng.uniform(10, 60, (total, 2)).astype(np.float32)], axis=1)
    scores = (rng.random(total) ** 4).astype(np.float32)
    labels = rng.integers(0, num_classes, total).astype(np.int32)
    return frames, DetectionTable(np.repeat(np.arange(num_frames), per_frame), labels, scores, boxes)


def test_memory_per_detection_is_bounded(monkeypatch):
    """Besides the table (32 bytes a row), a row costs its frame, order, match and masks, not Python objects."""
    monkeypatch.setattr(matching, "ROWS_AT_ONCE", 4096)  # what a part takes is the same whatever the number of rows
    frames, detections = many(600, 300, 3)
    tracemalloc.start()
    try:
        evaluate(frames, detections, score_threshold=0.999)  # COCO's figures need Python objects for what is left
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Of a row: frame 4 bytes, order 8, ascending frames 4, partner 4, mark 1, masks 3, and a class' rows in between.
    # A Python dict would take 500.
    assert peak < 60 * len(detections)
