"""Several cameras on one page: a batch of streams, in which each is by itself."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from eventful_vitdet.errors import VideoReadError
from eventful_vitdet.live.detector_session import DetectorSession, GridSession, short_names
from eventful_vitdet.live.settings import RequestError
from eventful_vitdet.predictor import share_weights
from eventful_vitdet.video import FileSource, StreamSource

from .conftest import FRAMES, LONG, TOKENS, rest, watch


def write_video(path, size: tuple[int, int] = (96, 64), frames: int = FRAMES, start: int = 0) -> FileSource:
    """A video with a moving patch, a thousand frames per second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 1000, size)
    for frame in range(start, start + frames):
        image = np.full((size[1], size[0], 3), 60, np.uint8)
        image[10:30, 3 * frame : 3 * frame + 20] = (220, 3 * frame, 90)
        writer.write(image)
    writer.release()
    return FileSource([str(path)])


@pytest.fixture
def sources(tmp_path) -> list[FileSource]:
    """Videos of two sizes and three lengths."""
    return [
        write_video(tmp_path / "a.avi"),
        write_video(tmp_path / "b.avi", frames=7, start=5),
        write_video(tmp_path / "c.avi", size=(64, 96), frames=9),
    ]


def indices(update) -> list[int]:
    return [-1 if camera.picture is None else camera.picture.index for camera in update.cameras]


def record(session, passes: int) -> list[list]:
    """Let a session play without viewers until each camera has begun so many passes; returns (picture, cost) of each
    camera's frames."""
    seen: list[list] = [[] for _ in session.cameras]
    done, publish = threading.Event(), session._publish

    def note(frames, began, pictures, tokens) -> None:
        for number, picture in pictures.items():
            seen[number].append((picture, session.cameras[number]._costs[-1]))
        publish(frames, began, pictures, tokens)
        if all(sum(picture.index == 0 for picture, _ in camera) >= passes for camera in seen):
            done.set()

    session._publish = note
    session._count_viewers(1)
    session.start()
    assert done.wait(LONG) and session.stop(LONG) and session.failure is None
    return seen


def test_a_batch_gives_what_each_camera_gives_by_itself(tiny_cfg, tiny_model, sources):
    cfg, model = tiny_cfg(), tiny_model()
    together = record(GridSession(cfg, share_weights(model), sources, ["a", "b"]), passes=2)
    for source, seen in zip(sources, together):
        (expected,) = record(DetectorSession(cfg, share_weights(model), [source], ["a", "b"]), passes=2)
        assert min(len(seen), len(expected)) > source.num_frames  # into the second round
        for (picture, cost), (own_picture, own_cost) in zip(seen, expected):
            assert (picture.index, cost.kind) == (own_picture.index, own_cost.kind)
            assert (cost.kind == "flush") == (picture.index == 0)  # another round flushes its own stream only
            assert cost.gflops == own_cost.gflops and picture.updated == own_picture.updated
            scores, own_scores = ([found["score"] for found in p.detections[:5]] for p in (picture, own_picture))
            np.testing.assert_allclose(scores, own_scores, atol=2e-3)
            for found, own in zip(picture.detections[:1], own_picture.detections):
                np.testing.assert_allclose(found["box"], own["box"], atol=0.5)


def test_viewers_are_told_of_all_cameras(make_session, sources):
    session = make_session(*sources)
    seen = watch(session, lambda update: min(indices(update)) >= 1)[-1]
    assert seen.names == ("a.avi", "b.avi", "c.avi")
    assert [camera.limits.num_frames for camera in seen.cameras] == [FRAMES, 7, 9]
    assert seen.limits.tokens == TOKENS and seen.limits.seekable and seen.frames_per_second > 0
    for camera, full in zip(seen.cameras, seen.full_gflops):
        assert camera.picture.detections is not None and camera.costs[0].kind == "flush"
        assert full == camera.costs[0].gflops > camera.costs[1].gflops
        if camera.costs[-1].kind == "eventful":
            assert camera.picture.updated == pytest.approx(6 / TOKENS)
    rest(session)


def test_settings_are_those_of_all(make_session, sources):
    session = make_session(*sources)
    watch(session, lambda update: min(indices(update)) >= 0)
    session.change({"budget": 3})
    watch(session, lambda update: {camera.picture.budget for camera in update.cameras} == {"top-r 3"})
    session.change({"target_ms": 60_000})  # any budget is quick enough
    watch(session, lambda update: {camera.picture.budget for camera in update.cameras} == {f"top-r {TOKENS}"})
    session.change({"beside": True, "target_ms": None})
    seen = watch(session, lambda update: all(camera.picture.dense_detections is not None for camera in update.cameras))
    assert all(full == camera.costs[-1].dense[0] for camera, full in zip(seen[-1].cameras, seen[-1].full_gflops))
    session.change({"eventful": False})
    seen = watch(session, lambda update: {camera.picture.budget for camera in update.cameras} == {"dense"})
    assert all(camera.picture.updated == 1 for camera in seen[-1].cameras)


def test_seeking_moves_one_camera(make_session, sources):
    session = make_session(*sources)
    watch(session, lambda update: min(indices(update)) >= 0)
    session.change({"paused": True})
    rest(session)
    before = indices(session.broadcast.newest)
    assert session.seek({"frame": 5, "camera": 1}) == 5
    watch(session, lambda update: indices(update) == [before[0], 5, before[2]])
    for asked, reason in (
        ({"frame": 5}, "there are several cameras: name one"),
        ({"frame": 7, "camera": 1}, "from 0 to 6"),
        ({"frame": 0, "camera": 3}, "camera is a number from 0 to 2"),
        ({"frame": 0, "camera": "x"}, "camera is a whole number"),
    ):
        with pytest.raises(RequestError, match=reason):
            session.seek(asked)


def test_each_ends_by_itself(make_session, sources):
    session = make_session(*sources)
    session.change({"repeat": False})
    seen = watch(session, lambda update: update.settings.paused)
    assert indices(seen[-1]) == [FRAMES - 1, 6, 8] and not any(camera.error for camera in seen[-1].cameras)
    assert not any(camera.frames_per_second for camera in seen[-1].cameras)
    session.change({"paused": False})
    seen = watch(session, lambda update: update.settings.paused)
    for camera in seen[-1].cameras:
        assert [cost.kind for cost in camera.costs].count("flush") == 2
    # One that has ended begins again as soon as it is to.
    session.change({"paused": False})
    watch(session, lambda update: session.cameras[1].halted)
    session.change({"repeat": True, "paused": False})
    watch(session, lambda update: all(len(camera.costs) > 4 * FRAMES for camera in update.cameras))


class BrokenSource(FileSource):
    """A file that is damaged at its third frame as long as it is broken."""

    broken = True

    def frames(self, start: int = 0, every: int = 1):
        for frame in super().frames(start, every):
            if frame.index == 2 and self.broken:
                raise VideoReadError(f"{self.name}: frame 2 cannot be decoded; the video is damaged")
            yield frame


def test_one_that_breaks_does_not_stop_the_others(make_session, sources):
    broken = BrokenSource(sources[1].paths)
    session = make_session(sources[0], broken)
    seen = watch(session, lambda update: bool(update.cameras[1].error) and len(update.cameras[0].costs) > 2 * FRAMES)
    assert "frame 2 cannot be decoded" in seen[-1].cameras[1].error and not seen[-1].settings.paused
    assert indices(seen[-1])[1] == 1 and seen[-1].cameras[1].frames_per_second == 0
    broken.broken = False
    session.change({"paused": True})
    session.change({"paused": False})
    seen = watch(session, lambda update: indices(update)[1] == 6)
    assert not seen[-1].cameras[1].error


def test_frames_too_large_for_the_model_stop_their_camera_only(make_session, tmp_path, sources):
    session = make_session(write_video(tmp_path / "large.avi", size=(128, 64)), *sources[:2])
    seen = watch(session, lambda update: bool(update.cameras[0].error) and len(update.cameras[1].costs) > 10)
    assert "lower INPUT.MAX_SIZE_TEST" in seen[-1].cameras[0].error
    assert not seen[-1].cameras[1].error and not seen[-1].settings.paused
    # And it is not tried with every frame, which would make the others begin again and again.
    assert {cost.kind for cost in seen[-1].cameras[1].costs[4:10]} == {"eventful"}


class Switch:
    """A camera that delivers frames until it is switched off; then it hangs, or cannot be reached."""

    fps, live, num_frames, seconds, is_over, pixel_aspect = 500.0, True, None, 0.0, False, 1

    def __init__(self, *, hangs: bool) -> None:
        self.on, self.hangs = threading.Event(), hangs
        self.on.set()

    def connect(self) -> Switch | None:
        return self if self.on.wait(0.005) else None

    def grab(self) -> bool:
        return self.on.wait(20 if self.hangs else 0.005)

    def image(self) -> np.ndarray:
        return np.full((64, 96, 3), 90, np.uint8)

    def close(self) -> None:
        pass


def stay_without_the_first(session, update):
    """Let the second camera play another round from an update on, without the first; returns the update after it."""
    serial = update.cameras[1].costs[-1].serial + FRAMES
    return watch(session, lambda update: update.cameras[1].costs[-1].serial > serial and update.cameras[0].lost)[-1]


def returns_with_a_flush(session, lost) -> bool:
    """Whether the first camera, lost in an update, is computed in full when it is back. A viewer who is late sees that
    in the costs only."""
    serial = lost.cameras[0].costs[-1].serial
    back = watch(session, lambda update: update.cameras[0].costs[-1].serial > serial)[-1].cameras[0]
    first = next(cost for cost in back.costs if cost.serial > serial)
    assert not back.lost and first.serial == serial + 1
    return first.kind == "flush"


@pytest.mark.parametrize("hangs", [False, True])
def test_a_camera_that_delivers_nothing_is_lost_and_comes_back(make_session, sources, monkeypatch, hangs):
    monkeypatch.setattr("eventful_vitdet.video.stream_source.FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr("eventful_vitdet.live.camera.SILENT_SECONDS", 0.3)
    switch = Switch(hangs=hangs)
    source = StreamSource("camera 0", switch.connect)
    session = make_session(source, sources[0])
    watch(session, lambda update: indices(update)[0] >= 2)
    switch.on.clear()
    lost = watch(session, lambda update: update.cameras[0].lost)[-1]
    assert "camera 0: no frame for" in lost.cameras[0].notice if hangs else "lost" in lost.cameras[0].notice
    lost = stay_without_the_first(session, lost)
    assert not lost.cameras[1].lost and not lost.settings.paused
    switch.on.set()
    assert returns_with_a_flush(session, lost) is not hangs


def test_a_camera_that_was_given_up_is_tried_for_as_long_as_others_play(make_session, sources, monkeypatch):
    monkeypatch.setattr("eventful_vitdet.video.stream_source.FIRST_WAIT_SECONDS", 0.01)
    switch = Switch(hangs=False)
    session = make_session(StreamSource("camera 0", switch.connect, patience=0.05), sources[0])
    watch(session, lambda update: indices(update)[0] >= 2)
    switch.on.clear()
    lost = watch(session, lambda update: "did not come back within 0 s" in update.cameras[0].notice)[-1]
    lost = stay_without_the_first(session, lost)
    switch.on.set()
    assert returns_with_a_flush(session, lost)


def test_a_camera_that_is_off_at_the_start_joins_when_it_is_on(make_session, sources, monkeypatch):
    monkeypatch.setattr("eventful_vitdet.video.stream_source.FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr("eventful_vitdet.video.stream_source.LONGEST_WAIT_SECONDS", 0.05)
    switch = Switch(hangs=False)
    switch.on.clear()
    session = make_session(StreamSource("camera 0", switch.connect, may_be_away=True), sources[0])
    away = session.broadcast.newest.cameras[0]  # before anybody watches
    assert away.lost and away.notice == "camera 0: no signal, trying again"
    seen = watch(session, lambda update: indices(update)[1] >= 2 and "trying again in" in update.cameras[0].notice)
    assert all(update.cameras[0].lost and update.cameras[0].picture is None for update in seen)
    assert seen[-1].names == ("camera 0", "a.avi") and not seen[-1].settings.paused
    serial = seen[-1].cameras[1].costs[-1].serial
    switch.on.set()
    seen = watch(session, lambda update: indices(update)[0] >= 2)
    assert not seen[-1].cameras[0].lost and seen[-1].cameras[0].costs[0].kind == "flush"
    # The other one was not begun again for it.
    later = [cost for cost in seen[-1].cameras[1].costs if cost.serial > serial]
    assert sum(cost.kind == "flush" for cost in later) <= len(later) // FRAMES + 1


def test_one_camera_by_itself_is_waited_for_too(make_session, monkeypatch):
    monkeypatch.setattr("eventful_vitdet.video.stream_source.FIRST_WAIT_SECONDS", 0.05)
    switch = Switch(hangs=False)
    switch.on.clear()
    session = make_session(StreamSource("camera 0", switch.connect, may_be_away=True, patience=0.0))
    watch(session, lambda update: update.lost and "no signal, trying again in 0.1 s" in update.notice)
    switch.on.set()
    seen = watch(session, lambda update: update.picture is not None)
    assert not seen[-1].lost and not seen[-1].error and not seen[-1].settings.paused


def test_names_are_as_short_as_tells_them_apart():
    assert short_names(["a/door.mp4", "b/yard.mp4"]) == ["door.mp4", "yard.mp4"]
    assert short_names(["x/a/cam.mp4", "x/b/cam.mp4", "c.mp4"]) == ["a/cam.mp4", "b/cam.mp4", "c.mp4"]
    assert short_names(["rtsp://10.0.0.5/live", "rtsp://10.0.0.6/live"]) == ["10.0.0.5/live", "10.0.0.6/live"]
    assert short_names(["cam.mp4", "a/cam.mp4"]) == ["cam.mp4", "a/cam.mp4"]
    assert short_names(["camera 0", "clips/"]) == ["camera 0", "clips"]
