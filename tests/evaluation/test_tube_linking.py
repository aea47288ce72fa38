"""Detections linked to tubes, and evaluations with TEST.TUBE_AP."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from eventful_vitdet.data import register_test_json
from eventful_vitdet.errors import ConfigError, EvaluationError, MissingPackageError
from eventful_vitdet.evaluation import DetectionTable, evaluate_budgets, evaluate_once
from eventful_vitdet.evaluation.tubes import Tube, linked_tubes
from eventful_vitdet.training import check_training
from pycocotools import mask as coco_mask

from .conftest import OracleDetector, make_document, read_strict
from .gloo import run_forked
from .test_mask_metrics import MaskOracle, as_youtube_vis, with_masks
from .test_several_processes import without_times

CAT, DOG = 0, 1
ALL = {"score_threshold": 0.05, "max_detections": 100}


@pytest.fixture
def trackers():
    pytest.importorskip("trackers", reason="the extra 'track' is not installed")


def link(*videos: list[list[tuple]], min_score: float = 0.3, **limits) -> list[Tube]:
    """Link videos of frames of (class, score, box)."""
    frames, rows, image = [], [], 0
    for number, video in enumerate(videos):
        frames.append([{"video_id": number, "image_id": image + i} for i in range(len(video))])
        rows += [(image + i, *row) for i, frame in enumerate(video) for row in frame]
        image += len(video)
    ids, classes, scores, boxes = ([row[i] for row in rows] for i in range(4))
    table = DetectionTable(
        np.array(ids, np.int64),
        np.array(classes, np.int32),
        np.array(scores, np.float32),
        np.array(boxes, np.float32).reshape(-1, 4),
    )
    return linked_tubes(frames, table, min_score, **{**ALL, **limits})


def at(x: float) -> list[float]:
    return [x, 10, x + 40, 50]


def test_an_object_is_followed_from_its_first_frame_on(trackers):
    video = [[(CAT, 0.9, at(3 * i)), (DOG, 0.6, at(300 - 3 * i))] for i in range(6)]
    cat, dog = link(video)
    assert (cat.label, cat.frames.tolist()) == (CAT, [0, 1, 2, 3, 4, 5]) and (dog.label, len(dog.frames)) == (DOG, 6)
    np.testing.assert_allclose(cat.boxes, [at(3 * i) for i in range(6)])
    assert cat.score == pytest.approx(0.9) and dog.score == pytest.approx(0.6)


def test_class_by_the_sum_of_scores_and_score_by_their_mean(trackers):
    found = [(CAT, 0.4), (DOG, 0.9), (CAT, 0.35), (CAT, 0.1)]
    (tube,) = link([[(label, score, at(i))] for i, (label, score) in enumerate(found)])
    assert tube.label == DOG and tube.frames.tolist() == [0, 1, 2, 3]
    assert tube.score == pytest.approx(1.75 / 4)


def test_a_better_box_of_another_class_in_the_same_place_hides_one(trackers):
    video = [[(CAT, 0.8, at(i)), (DOG, 0.7, at(i + 2)), (DOG, 0.6, at(i + 30))] for i in range(4)]
    assert [(tube.label, tube.score) for tube in link(video)] == [(CAT, pytest.approx(0.8)), (DOG, pytest.approx(0.6))]


def test_weak_detections_continue_tracks_and_begin_none(trackers):
    weak = [[(CAT, 0.2, at(200))] for _ in range(4)]
    assert link(weak) == []
    (tube,) = link(weak, min_score=0.2)
    assert len(tube.frames) == 4
    assert link(weak, min_score=0.2, score_threshold=0.25) == []
    (tube,) = link([[(CAT, 0.5, at(0))], [(CAT, 0.5, at(0))], [(CAT, 0.2, at(0))]])
    assert len(tube.frames) == 3


def test_no_weak_detection_is_taken_for_a_first_frame(trackers):
    """In the first frame, a weak box of another object lies closer to where the object is next."""
    first = [(CAT, 0.9, at(0)), (DOG, 0.1, at(22))]
    (tube,) = link([first, [(CAT, 0.9, at(14))], [(CAT, 0.9, at(28))]])
    assert tube.frames.tolist() == [0, 1, 2] and tube.boxes[0, 0] == 0 and tube.score == pytest.approx(0.9)


def test_a_single_frame_is_a_track_where_it_is_strong(trackers):
    (tube,) = link([[], [(DOG, 0.5, at(0))], [], [(CAT, 0.1, at(0))]])
    assert tube.frames.tolist() == [1] and tube.score == 0.5
    (tube,) = link([[(DOG, 0.5, at(0))]])
    assert tube.frames.tolist() == [0]


def test_an_object_that_comes_back_is_the_same(trackers):
    seen = [(CAT, 0.9, at(0))]
    (tube,) = link([[seen[0]], [seen[0]], [], [], [seen[0]], [seen[0]]])
    assert tube.frames.tolist() == [0, 1, 4, 5]


def test_videos_have_tubes_of_their_own(trackers):
    frames = [[(CAT, 0.9, at(0))]] * 3
    tubes = link(frames, [], [[], []], frames)
    assert [(tube.video, tube.frames.tolist()) for tube in tubes] == [(0, [0, 1, 2]), (3, [0, 1, 2])]
    assert link([[], []]) == []


@pytest.fixture
def tracked(cfg, write_dataset):
    """A configuration of videos whose objects have identities."""

    def make(lengths: dict[int, int], masks: bool = False, **keys) -> object:
        document = make_document(lengths)
        for entry in document["annotations"]:
            entry["instance_id"] = entry["id"] // 100
        cfg.DATASETS.TEST = (write_dataset(with_masks(document) if masks else document, "tracked")[0],)
        cfg.TEST.TUBE_AP, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = True, 0.05
        cfg.TEST.TUBE_MIN_SCORE = 0.5
        return cfg

    return make


def tubes_of(folder) -> list[dict]:
    return read_strict(folder / "youtube_vis_results.json")


def test_an_evaluation_reports_tubes(trackers, tracked, tmp_path, capsys):
    cfg = tracked({1: 5, 2: 3, 3: 1})
    returned = evaluate_once(cfg, OracleDetector())
    folder = tmp_path / "out" / "inference"
    results = read_strict(folder / "results.json")
    names = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AP-cat", "AP-dog"}
    assert set(results["tube_bbox"]) == names and results["tube_bbox"]["AP"] == pytest.approx(100)
    assert returned["tube_bbox"]["AR1"] == pytest.approx(100)
    assert "tube_segm" not in results and results["tracker"].startswith("ByteTrack, trackers 2")
    assert [(t["video_id"], t["category_id"], len(t["bboxes"])) for t in tubes_of(folder)] == [
        *((1, 3, 5), (2, 7, 3), (3, 3, 1))
    ]
    assert "| tube AP |" in capsys.readouterr().out and "| AR10 " in (folder / "results.md").read_text()


def test_worse_boxes_give_worse_tubes(trackers, tracked, tmp_path):
    evaluate_once(tracked({1: 5, 2: 3}), OracleDetector(shift=3.0))
    metrics = read_strict(tmp_path / "out" / "inference" / "results.json")["tube_bbox"]
    # Of 20 x 16 pixels, 17 x 13 overlap: an IoU of 0.53.
    assert metrics["AP50"] == pytest.approx(100) and metrics["AP"] == pytest.approx(10) and metrics["AP75"] == 0


def test_the_key_can_be_set_afterwards_and_processes_do_not_matter(trackers, tracked, tmp_path):
    cfg = tracked({1: 5, 2: 3, 3: 4})
    cfg.TEST.THREADS_PER_PROCESS = 1
    assert run_forked(2, evaluate_once, cfg, OracleDetector(shift=2.0)) == [0, 0]
    together = tmp_path / "out" / "inference"
    cfg.TEST.TUBE_AP, cfg.OUTPUT_DIR = False, str(tmp_path / "alone")
    evaluate_once(cfg, OracleDetector(shift=2.0))
    alone = tmp_path / "alone" / "inference"
    assert not (alone / "youtube_vis_results.json").exists()
    cfg.TEST.TUBE_AP, again = True, OracleDetector(shift=2.0)
    evaluate_once(cfg, again)
    assert again.seen == []  # all from the records
    assert without_times(read_strict(alone / "results.json")) == without_times(read_strict(together / "results.json"))
    assert tubes_of(alone) == tubes_of(together) and len(tubes_of(alone)) == 3


def test_youtube_vis_files_at_several_budgets(trackers, tracked, tmp_path):
    cfg = tracked({1: 5, 2: 3}, masks=True)
    document = json.loads((tmp_path / "tracked.json").read_text())
    path = tmp_path / "vis" / "train.json"
    path.parent.mkdir()
    path.write_text(json.dumps(as_youtube_vis(document, tmp_path / "vis" / "JPEGImages")))
    cfg.DATASETS.TEST = (register_test_json(str(path)),)
    evaluate_budgets(cfg, MaskOracle(share=0.6), ["dense", "7"])
    folder = tmp_path / "out" / "inference"
    head, _, *rows = (folder / "budgets.md").read_text().splitlines()[:4]
    columns = [cell.strip() for cell in head.split("|")]
    assert columns[columns.index("mask AP") :][:3] == ["mask AP", "tube AP", "tube mask AP"]
    for row in rows:
        assert float(row.split("|")[columns.index("tube AP")]) == 100
    (dense, budget) = read_strict(folder / "budgets.json")
    # Masks of 12 of 20 columns, where 10 are annotated.
    assert dense["tube_segm"] == budget["tube_segm"] and dense["tube_segm"]["AP75"] == pytest.approx(100)
    assert 50 < dense["tube_segm"]["AP"] < 80
    first = tubes_of(folder / "7")[0]
    assert set(first) == {"video_id", "category_id", "score", "segmentations"} and len(first["segmentations"]) == 5
    assert coco_mask.area(first["segmentations"][0]) == 12 * 16


def test_empty_masks_find_nothing(trackers, tracked, tmp_path):
    evaluate_once(tracked({1: 3}, masks=True), MaskOracle(share=0))
    folder = tmp_path / "out" / "inference"
    results = read_strict(folder / "results.json")
    assert results["tube_segm"]["AP"] == 0 and results["tube_bbox"]["AP"] == pytest.approx(100)
    assert [coco_mask.area(mask) for mask in tubes_of(folder)[0]["segmentations"]] == [0, 0, 0]


def test_files_for_a_server_need_no_annotations(trackers, tracked, tmp_path):
    cfg = tracked({1: 5, 2: 3}, masks=True)
    document = json.loads((tmp_path / "tracked.json").read_text())
    path = tmp_path / "vis" / "valid.json"
    path.parent.mkdir()
    converted = as_youtube_vis(document, tmp_path / "vis" / "JPEGImages")
    del converted["annotations"]
    path.write_text(json.dumps(converted))
    cfg.DATASETS.TEST = (register_test_json(str(path)),)
    evaluate_once(cfg, MaskOracle())
    folder = tmp_path / "out" / "inference"
    assert [len(entry["segmentations"]) for entry in tubes_of(folder)] == [5, 3]
    assert set(read_strict(folder / "results.json")["tube_bbox"].values()) == {None}
    cfg.TEST.TUBE_AP = False
    with pytest.raises(EvaluationError, match="has no annotations"):
        evaluate_once(cfg, MaskOracle())


def test_what_is_missing_is_said_before_a_frame_runs(tracked, monkeypatch, tmp_path):
    cfg, model = tracked({1: 5}), OracleDetector()
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "trackers", None)
        context.setitem(sys.modules, "supervision", sys)
        for ask in (lambda: evaluate_once(cfg, model), lambda: check_training(cfg)):
            with pytest.raises(MissingPackageError, match="trackers is not installed.*--no-deps trackers"):
                ask()
    cfg.TEST.TUBE_MIN_SCORE = 1.5
    with pytest.raises(ConfigError, match="TEST.TUBE_MIN_SCORE must be from 0 to 1, found 1.5"):
        evaluate_once(cfg, model)
    assert model.seen == []


def test_objects_without_identities_are_refused(trackers, cfg):
    cfg.TEST.TUBE_AP, model = True, OracleDetector()
    with pytest.raises(EvaluationError, match="objects without an identity"):
        evaluate_once(cfg, model)
    assert model.seen == []
