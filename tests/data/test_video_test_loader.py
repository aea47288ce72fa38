from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from eventful_vitdet.data import (
    VideoTestLoader,
    add_data_config,
    build_video_test_loader,
    input_preparation,
    load_coco_vid,
    register_test_json,
)
from eventful_vitdet.data.coco_vid import group_by_video
from eventful_vitdet.data.video_shards import schedule_streams, shard_videos
from eventful_vitdet.data.video_test_loader import is_filler
from eventful_vitdet.errors import VideoReadError

from .conftest import HEIGHT, WIDTH, frame_number, grey_frame, make_document, write_video


def make_loader(frames, **options) -> VideoTestLoader:
    defaults = {"min_size": 0, "max_size": 1000, "image_format": "RGB"}
    return VideoTestLoader(frames, **{**defaults, **options})


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "frame-reader"]


@pytest.fixture
def frames(write_dataset):
    return load_coco_vid(*write_dataset(make_document({2: [3, 4, 9], 1: list(range(12))})))


def test_frames_come_in_order_each_once_and_again(frames):
    loader = make_loader(frames)
    for _ in range(2):
        inputs = [batch[0] for batch in loader]
        assert len(inputs) == len(loader) == 15
        assert [x["frame_id"] for x in inputs] == [3, 4, 9, *range(12)]
        assert [frame_number(x["image"].numpy()) for x in inputs] == [3, 4, 9, *range(12)]
    assert not reader_threads()


def test_model_input(frames):
    (model_input,) = next(iter(make_loader(frames)))
    image = model_input.pop("image")
    assert image.shape == (3, HEIGHT, WIDTH) and image.dtype == torch.uint8
    assert model_input == {
        "file_name": frames[0]["file_name"],
        "height": HEIGHT,
        "width": WIDTH,
        "image_id": 203,
        "video_id": 2,
        "frame_id": 3,
        "frame_step": 1,
    }


@pytest.mark.parametrize("image_format, channel", [("BGR", 0), ("RGB", 2)])
def test_channel_order(write_dataset, tmp_path, image_format, channel):
    json_file, root = write_dataset(make_document({1: [0]}))
    blue = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    blue[..., 0] = 200
    write_video(tmp_path / "videos" / "1.avi", [blue])
    ((model_input,),) = make_loader(load_coco_vid(json_file, root), image_format=image_format)
    assert int(model_input["image"].float().mean((1, 2)).argmax()) == channel


@pytest.mark.parametrize(
    "min_size, max_size, shape",
    [
        *((24, 1000, (24, 32)), (96, 1000, (96, 128)), (96, 100, (75, 100))),
        *((0, 1000, (HEIGHT, WIDTH)), (0, WIDTH, (HEIGHT, WIDTH)), (0, 32, (24, 32))),
    ],
)
def test_resizing_keeps_the_aspect_and_the_limit(frames, min_size, max_size, shape):
    (model_input,) = next(iter(make_loader(frames[:1], min_size=min_size, max_size=max_size)))
    assert tuple(model_input["image"].shape[1:]) == shape
    assert (model_input["height"], model_input["width"]) == (HEIGHT, WIDTH)


def test_frames_that_are_shrunk_only_because_of_the_limit_are_told_once(frames, caplog):
    input_preparation.say_shrunk.cache_clear()
    with caplog.at_level(logging.WARNING):
        list(make_loader(frames[:3], min_size=0, max_size=30))
        list(make_loader(frames[:3], min_size=24, max_size=30))
    assert caplog.messages == [
        "frames of 64 x 48 pixels are shrunk to a long edge of 30 for the model; INPUT.MAX_SIZE_TEST is that limit"
    ]


def test_prefetch_is_bounded(frames, monkeypatch):
    decoded, changed = [], threading.Condition()
    loader = make_loader(frames, prefetch=2)
    make_input = loader._make_input

    def counted(*arguments):
        with changed:
            decoded.append(1)
            changed.notify()
        return make_input(*arguments)

    monkeypatch.setattr(loader, "_make_input", counted)
    for consumed, _ in enumerate(loader, start=1):
        # One frame is with the consumer, two wait in the queue, one in the reader's hand: so far it runs ahead, and
        # when it has come there, it has gone no farther.
        allowed = min(consumed + 3, 15)
        with changed:
            assert changed.wait_for(lambda allowed=allowed: len(decoded) >= allowed, 10) and len(decoded) == allowed
    assert len(decoded) == 15


def test_leaving_early_ends_the_thread(frames):
    for _ in make_loader(frames, prefetch=1):
        assert reader_threads()
        break
    assert not reader_threads()


def test_error_in_the_reader_reaches_the_consumer(frames, tmp_path):
    write_video(tmp_path / "videos" / "1.avi", [grey_frame(i) for i in range(5)])
    seen = []
    with pytest.raises(VideoReadError, match="1.avi: frame 5 cannot be read"):
        for (model_input,) in make_loader(frames):
            seen.append(model_input["frame_id"])
    assert seen == [3, 4, 9, 0, 1, 2, 3, 4]
    assert not reader_threads()


@pytest.mark.parametrize("options", [{"image_format": "L"}, {"prefetch": 0}, {"min_size": -1}, {"max_size": 0}])
def test_bad_options(options):
    with pytest.raises(ValueError, match="INPUT.FORMAT|DATALOADER.PREFETCH_FRAMES|INPUT.MIN_SIZE_TEST"):
        make_loader([], **options)


def test_loader_from_config(write_dataset):
    cfg = get_cfg()
    add_data_config(cfg)
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.FORMAT, cfg.DATALOADER.PREFETCH_FRAMES = 24, "BGR", 3
    json_file, root = write_dataset(make_document({1: [0, 1]}))
    loader = build_video_test_loader(cfg, register_test_json(json_file, root))
    assert (len(loader), loader.prefetch) == (2, 3)
    assert [batch[0]["image"].shape[1] for batch in loader] == [24, 24]


def test_shards_hold_whole_videos_and_everything_once():
    lengths = {1: 9, 2: 1, 3: 5, 4: 4, 5: 1}
    frames = [{"video_id": v, "frame_id": i} for v, n in lengths.items() for i in range(n)]
    shards = [shard_videos(frames, 2, i) for i in range(2)]
    assert [len(shard) for shard in shards] == [10, 10]
    assert not {f["video_id"] for f in shards[0]} & {f["video_id"] for f in shards[1]}
    assert sorted(shards[0] + shards[1], key=frames.index) == frames
    assert shard_videos(frames, 1, 0) == frames


def test_more_shards_than_videos():
    assert shard_videos([{"video_id": 1, "frame_id": 0}], 3, 2) == []


def side_by_side(lengths: dict[int, int], streams: int) -> list[list[tuple[int, int]]]:
    """The schedule of videos of these lengths, as lists of (video, frame) for each call of the model."""
    frames = [{"video_id": v, "frame_id": i, "height": 1, "width": 1} for v, n in lengths.items() for i in range(n)]
    (positions,) = schedule_streams(group_by_video(frames), streams, mix_sizes=True)
    chains = [[(f["video_id"], f["frame_id"]) for video in position for f in video] for position in positions]
    return [[chain[i] for chain in chains if i < len(chain)] for i in range(len(chains[0]))]


@pytest.mark.parametrize("streams", [1, 2, 3, 7])
def test_schedule_of_streams(streams):
    lengths = {1: 9, 2: 1, 3: 5, 4: 4, 5: 1}
    calls = side_by_side(lengths, streams)
    assert sorted(frame for call in calls for frame in call) == [(v, i) for v, n in lengths.items() for i in range(n)]
    assert [len(call) for call in calls] == sorted((len(call) for call in calls), reverse=True)
    place = {}
    for call in calls:
        for position, (video, frame) in enumerate(call):
            # Frames in order, and from the first to the last at one position.
            assert place.setdefault(video, (position, -1)) == (position, frame - 1)
            place[video] = (position, frame)
    if streams == 1:
        assert list(place) == list(lengths)


def test_only_one_size_side_by_side_unless_all_are_padded_alike():
    def frame(video, number, height):
        return {"video_id": video, "frame_id": number, "height": height, "width": 1}

    videos = [[frame(1, 0, 5)], [frame(2, 0, 6)], [frame(3, 0, 5)], [frame(4, 0, 5), frame(4, 1, 6)]]
    assert len(schedule_streams(videos, 2, mix_sizes=True)) == 1
    groups = schedule_streams(videos, 2, mix_sizes=False)
    ids = [sorted(video[0]["video_id"] for position in group for video in position) for group in groups]
    assert sorted(ids) == [[1, 3], [2], [4]]  # the last has frames of two sizes


def test_streams_of_the_loader(frames):
    loader = make_loader(frames, streams=2, prefetch=1)
    items = [[(x["video_id"], x["frame_id"]) for x in inputs] for inputs in loader]
    assert items[:3] == [[(1, 0), (2, 3)], [(1, 1), (2, 4)], [(1, 2), (2, 9)]]
    assert items[3:] == [[(1, i)] for i in range(3, 12)] and len(loader) == len(items) == 12
    assert not reader_threads()


def test_a_skipped_video_leaves_a_filler_where_others_still_run(frames, tmp_path):
    write_video(tmp_path / "videos" / "1.avi", [grey_frame(i) for i in range(1)])
    loader = make_loader(frames, streams=2, skip_bad_videos=True)
    items = list(loader)
    assert [[x.get("video_id") for x in inputs] for inputs in items] == [[1, 2], [None, 2], [None, 2]]
    assert [is_filler(x) for inputs in items for x in inputs] == [False, False, True, False, True, False]
    assert list(loader.skipped) == [1] and "1.avi: frame 1 cannot be read" in loader.skipped[1]
    assert items[1][0]["image"].shape == items[1][1]["image"].shape
