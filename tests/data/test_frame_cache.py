from __future__ import annotations

import cv2
import pytest
from eventful_vitdet.data import FrameCache, extract_frames, load_coco_vid, thin_frames

from .conftest import frame_number, grey_frame, make_document, make_frame, write_video


def test_thin_frames_counts_per_video(write_dataset):
    frames = load_coco_vid(*write_dataset(make_document({1: [0, 1, 2, 3], 2: [5, 6, 7]})))
    assert [(f["video_id"], f["frame_id"]) for f in thin_frames(frames, 2)] == [
        (1, 0),
        (1, 2),
        (2, 5),
        (2, 7),
    ]
    with pytest.raises(ValueError, match="TRAIN_FRAME_STRIDE"):
        thin_frames(frames, 0)


def test_extraction_resumes_and_serves_the_frames(write_dataset, tmp_path):
    frames = load_coco_vid(*write_dataset(make_document({1: list(range(12)), 2: [3, 4]})))
    folder = str(tmp_path / "cache")
    assert extract_frames(frames, folder, every_n=3) == 5
    assert extract_frames(frames, folder, every_n=2) == 4  # 2, 4, 8, 10; 0, 6 and video 2's 3 are there
    cache = FrameCache(folder)
    assert [frame_number(cache.read(f)) for f in frames] == [*range(12), 3, 4]
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    assert len(list((tmp_path / "cache").rglob("*.jpg"))) == 14  # what was missing has been added


def test_interrupted_extraction_leaves_whole_files_only(write_dataset, tmp_path, monkeypatch):
    frames = load_coco_vid(*write_dataset(make_document({1: list(range(12))})))
    store, folder = FrameCache.store, str(tmp_path / "cache")

    def interrupt(self, frame, image):
        if frame["frame_id"] == 5:
            raise KeyboardInterrupt
        store(self, frame, image)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FrameCache, "store", interrupt)
        extract_frames(frames, folder)
    assert extract_frames(frames, folder) == 7


def test_a_changed_video_does_not_meet_stale_copies(write_dataset, tmp_path):
    json_file, root = write_dataset(make_document({1: [0]}))
    (frame,) = load_coco_vid(json_file, root)
    assert frame_number(FrameCache(str(tmp_path / "cache")).read(frame)) == 0
    write_video(tmp_path / "videos" / "1.avi", [grey_frame(20)])
    assert frame_number(FrameCache(str(tmp_path / "cache")).read(frame)) == 20


def test_cache_reads_frame_folders_directly(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), grey_frame(4))
    frame = make_frame(tmp_path / "a.png", 0, is_video_file=False)
    assert frame_number(FrameCache(str(tmp_path / "cache")).read(frame)) == 4
    assert extract_frames([frame], str(tmp_path / "cache")) == 0
    assert not (tmp_path / "cache").exists()
