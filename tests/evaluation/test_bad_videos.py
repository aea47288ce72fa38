"""Videos that cannot be read to their end: the evaluation stops, or leaves the whole video out and says so."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from eventful_vitdet.data import listed_frames
from eventful_vitdet.errors import DetectionError, EvaluationError, VideoReadError
from eventful_vitdet.evaluation import evaluate_once, record_paths

from .conftest import OracleDetector, make_document, read_strict
from .gloo import run_forked

LENGTHS = {1: 3, 2: 5, 3: 2, 4: 4, 5: 2}


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "out" / "inference"


@pytest.fixture
def bad_frame(cfg, write_dataset, monkeypatch):
    """Five videos; frame 3 of video 2 cannot be decoded."""
    cfg.DATASETS.TEST = (write_dataset(make_document(LENGTHS), "five")[0],)
    decode = listed_frames._decode

    def fail(path, numbers):
        for number, image in zip(numbers, decode(path, numbers)):
            if path.endswith("2.avi") and number == 3:
                raise VideoReadError(f"{path}: frame 3 cannot be decoded; the video is damaged")
            yield image

    monkeypatch.setattr(listed_frames, "_decode", fail)
    return monkeypatch


def names(folder: Path) -> list[str]:
    return [Path(path).stem for path in record_paths(str(folder))]


def test_by_default_it_stops_at_the_video(cfg, model, folder, bad_frame):
    with pytest.raises(VideoReadError, match="2.avi: frame 3 cannot be decoded"):
        evaluate_once(cfg, model)
    assert names(folder) == ["1"] and not (folder / "results.json").exists()


@pytest.mark.parametrize("streams", [1, 2, 3, 5])
def test_skipping_leaves_the_whole_video_out(cfg, model, folder, bad_frame, streams, capsys, caplog):
    cfg.TEST.ON_BAD_VIDEO, cfg.TEST.STREAMS_PER_BATCH = "skip", streams
    evaluate_once(cfg, model)
    results = read_strict(folder / "results.json")
    assert names(folder) == ["1", "3", "4", "5"]
    assert (results["videos"], results["frames"]) == (4, 11)
    ((entry),) = results["skipped"]
    assert entry["video"] == "videos/2.avi" and "2.avi: frame 3 cannot be decoded" in entry["reason"]
    assert "skipped video videos/2.avi: " in capsys.readouterr().out and "video 2 is skipped: " in caplog.text
    assert results["gflops_per_frame"]["total"]["mean"] == (4 * 100 + 7 * (10 + 256 * 0)) / 11 / 1e9
    for video, length in LENGTHS.items():  # whatever runs beside it, no frame is lost or out of order
        seen = [frame for v, frame in model.seen if v == video]
        assert seen == list(range(3 if video == 2 else length))
    assert 2 not in {int(image_id) // 100 for image_id in np.loadtxt(folder / "vid_submission.txt")[:, 0]}


def test_a_video_that_was_skipped_is_tried_again(cfg, model, folder, bad_frame):
    cfg.TEST.ON_BAD_VIDEO = "skip"
    evaluate_once(cfg, OracleDetector())
    bad_frame.undo()
    evaluate_once(cfg, model)
    assert model.seen == [(2, frame) for frame in range(5)]
    assert read_strict(folder / "results.json")["skipped"] == [] and len(names(folder)) == 5


@pytest.mark.parametrize("damaged", [False, True], ids=["record of the sound file", "damaged record"])
def test_a_skipped_video_does_not_count_by_an_earlier_record(cfg, model, folder, bad_frame, tmp_path, damaged):
    cfg.TEST.ON_BAD_VIDEO = "skip"
    bad_frame.undo()
    evaluate_once(cfg, OracleDetector())
    (tmp_path / "videos" / "2.avi").write_bytes(b"RIFF")
    if damaged:
        (folder / "videos" / "2.npz").write_bytes(b"")
    evaluate_once(cfg, model)
    results = read_strict(folder / "results.json")
    assert (results["videos"], results["frames"]) == (4, 11) and len(results["skipped"]) == 1
    assert names(folder) == ["1", "3", "4", "5"] and model.seen == []


def test_a_video_that_is_known_to_be_bad_is_skipped_too(cfg, folder, write_dataset, tmp_path):
    cfg.DATASETS.TEST = (write_dataset(make_document({1: 2, 2: 2, 3: 2}), "absent")[0],)
    os.rename(tmp_path / "videos" / "2.avi", tmp_path / "2.avi")
    cfg.TEST.ON_BAD_VIDEO = "skip"
    evaluate_once(cfg, OracleDetector())
    ((entry),) = read_strict(folder / "results.json")["skipped"]
    assert "2.avi" in entry["reason"] and names(folder) == ["1", "3"]
    # Frames keep the numbers that they have in the whole list.
    assert set(np.loadtxt(folder / "vid_submission.txt")[:, 0]) == {1, 2, 5, 6}
    os.rename(tmp_path / "2.avi", tmp_path / "videos" / "2.avi")
    found = OracleDetector()
    evaluate_once(cfg, found)
    assert found.seen == [(2, 0), (2, 1)]


def test_nothing_left_to_evaluate(cfg, model, folder, write_dataset, bad_frame):
    cfg.DATASETS.TEST = (write_dataset({**make_document({2: 5})}, "bad")[0],)
    cfg.TEST.ON_BAD_VIDEO = "skip"
    with pytest.raises(EvaluationError, match="all 1 were skipped, the first because of: .*2.avi: frame 3"):
        evaluate_once(cfg, model)


def test_skipped_videos_of_all_processes_are_listed(cfg, folder, bad_frame):
    cfg.TEST.ON_BAD_VIDEO = "skip"
    assert run_forked(2, evaluate_once, cfg, OracleDetector()) == [0, 0]
    assert [entry["video"] for entry in read_strict(folder / "results.json")["skipped"]] == ["videos/2.avi"]


def test_numbers_that_are_none_stop_it_and_name_the_frame(cfg, folder):
    class Diverged(OracleDetector):
        def detect(self, frame):
            found = super().detect(frame)
            if (frame["video_id"], frame["frame_id"]) == (2, 1):
                found.scores[0] = torch.nan
            return found

    cfg.TEST.ON_BAD_VIDEO = "skip"  # the data are all right
    with pytest.raises(DetectionError, match="not finite for frame 1 of video 2"):
        evaluate_once(cfg, Diverged())
    assert names(folder) == ["1"]
