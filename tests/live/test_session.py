"""The detector's thread: what viewers see after what they ask for."""

from __future__ import annotations

import asyncio
import threading
from fractions import Fraction
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from eventful_vitdet.errors import VideoReadError
from eventful_vitdet.live.broadcast import Broadcast
from eventful_vitdet.structures import Detections
from eventful_vitdet.video import FileSource, StreamSource
from video.encoded_videos import encode

from .conftest import FRAMES, LONG, TOKENS, rest, watch


def index(update) -> int:
    return -1 if update.picture is None else update.picture.index


def is_full(update) -> bool:
    """Whether the last frame was computed in full."""
    return update.costs[-1].kind != "eventful"


def stay(session, until: threading.Event | None = None) -> None:
    """Be a viewer until the session has nothing to do, or until something else has happened."""

    async def look() -> None:
        viewer = session.broadcast.join()
        try:
            happened = until.wait if until is not None else session._changed.at_rest.wait
            assert await asyncio.to_thread(happened, LONG)
        finally:
            session.broadcast.leave(viewer)

    asyncio.run(look())


def test_frames_are_detected_while_somebody_watches(make_session):
    session = make_session()
    assert session.broadcast.newest.picture is None  # nobody is there yet
    seen = watch(session, lambda update: index(update) == 3)
    picture = seen[-1].picture
    assert (picture.width, picture.height) == (96, 64)
    assert cv2.imdecode(np.frombuffer(picture.image.jpeg(), np.uint8), cv2.IMREAD_COLOR).shape == (64, 96, 3)
    assert picture.budget == "top-r 6" and seen[-1].limits.tokens == TOKENS
    assert picture.tokens.shape == (6, 6) and 6 <= np.count_nonzero(picture.tokens) < TOKENS
    assert picture.detections and picture.detections[0]["score"] >= picture.detections[-1]["score"]
    # A viewer who is late sees this frame in another round, which begins like the first.
    first, later = ([cost for cost in seen[-1].costs if bool(cost.serial % FRAMES) is after] for after in (False, True))
    assert {cost.kind for cost in first} == {"flush"} and {cost.kind for cost in later} == {"eventful"}
    assert max(cost.gflops for cost in later) < min(cost.gflops for cost in first)
    rest(session)  # although nobody has paused it
    assert not session.broadcast.newest.settings.paused


def test_budget_changes_the_cost_and_the_video_repeats(make_session):
    session = make_session()
    watch(session, lambda update: index(update) >= 1)
    gflops = {}
    for budget in (30, 2):
        assert session.change({"budget": budget}).budget == budget
        seen = watch(session, lambda u, b=budget: u.picture.budget == f"top-r {b}" and not is_full(u) and index(u) > 1)
        gflops[budget] = seen[-1].costs[-1].gflops
    assert gflops[2] < gflops[30]
    serial = session.broadcast.newest.costs[-1].serial
    seen = watch(session, lambda update: update.costs[-1].serial > serial + FRAMES)
    # Another round begins with a flush, and nothing else does.
    assert all((cost.kind == "flush") is (cost.serial % FRAMES == 0) for cost in seen[-1].costs)


def test_dense_and_back_without_a_flush(make_session):
    session = make_session()
    watch(session, lambda update: index(update) >= 1)
    session.change({"eventful": False})
    seen = watch(session, lambda update: update.picture.budget == "dense")
    assert seen[-1].picture.tokens is None and seen[-1].costs[-1].kind == "dense"
    session.change({"eventful": True, "paused": True})
    session.seek({"frame": 0})
    watch(session, lambda update: index(update) == 0)
    session.seek({"frame": 1})
    seen = watch(session, lambda update: index(update) == 1)
    assert seen[-1].picture.budget == "top-r 6" and not is_full(seen[-1])


def test_the_dense_model_runs_beside_the_eventful_one_on_demand(make_session):
    session = make_session()
    seen = watch(session, lambda update: index(update) >= 2)
    assert seen[-1].picture.dense_detections is None and seen[-1].costs[-1].dense is None
    session.change({"beside": True})
    seen = watch(session, lambda u: u.picture.dense_detections is not None and not is_full(u))
    gflops, milliseconds = seen[-1].costs[-1].dense
    assert gflops > seen[-1].costs[-1].gflops and milliseconds > 0
    assert seen[-1].picture.budget == "top-r 6" and seen[-1].picture.tokens is not None  # the eventful one is as it was
    assert not session.broadcast.newest.costs[-1].kind == "dense"
    session.change({"eventful": False})  # then there is nothing to be beside of
    seen = watch(session, lambda update: update.picture.budget == "dense")
    assert seen[-1].picture.dense_detections is None
    session.change({"beside": False, "eventful": True})
    watch(session, lambda u: u.picture.budget == "top-r 6" and u.picture.dense_detections is None)
    assert session._dense is None


def test_a_target_in_milliseconds_steers_the_budget(make_session):
    session = make_session()
    watch(session, lambda update: index(update) >= 1)
    session.change({"target_ms": 60_000})  # any budget is quick enough
    seen = watch(session, lambda update: update.picture.budget == f"top-r {TOKENS}")
    assert seen[-1].settings.target_ms == 60_000
    session.change({"target_ms": None})
    watch(session, lambda update: update.picture.budget == "top-r 6")  # that of before


def test_all_detections_are_told(make_session):
    session = make_session(start=False)
    found = Detections(np.zeros((150, 4), np.float32), np.linspace(0.0, 1.0, 150, dtype=np.float32), np.zeros(150, int))
    described = session._describe(SimpleNamespace(detections=found))
    assert len(described) == (found.scores >= 0.05).sum() > 100  # below that, they are noise
    assert [d["score"] for d in described] == sorted((d["score"] for d in described), reverse=True)


def test_masks_are_told_as_outlines(make_session):
    masks = {"MODEL__MASK_ON": True, "MODEL__ROI_MASK_HEAD__NUM_CONV": 1, "MODEL__ROI_MASK_HEAD__CONV_DIM": 8}
    (update,) = watch(make_session(**masks), lambda update: index(update) >= 0)[-1:]
    for found in update.picture.detections:
        x0, y0, x1, y1 = found["box"]
        for outline in found["outline"]:
            assert len(outline) >= 6 and all(x0 - 1 <= x <= x1 + 1 for x in outline[::2])
            assert all(y0 - 1 <= y <= y1 + 1 for y in outline[1::2])
        assert found["score"] >= 0.3 or not found["outline"]
    assert any(found["outline"] for found in update.picture.detections)


def test_pause_and_seek(make_session):
    session = make_session()
    watch(session, lambda update: index(update) >= 1)
    session.change({"paused": True})
    watch(session, lambda update: update.settings.paused)
    stay(session)
    for target in (9, 2, FRAMES - 1):
        assert session.seek({"frame": target}) == target
        seen = watch(session, lambda update, target=target: index(update) == target)
        assert seen[-1].settings.paused and is_full(seen[-1])
    session.seek({"frame": 3})
    watch(session, lambda update: index(update) == 3)
    session.seek({"frame": 4})  # a step
    watch(session, lambda update: index(update) == 4)
    stay(session)
    assert index(session.broadcast.newest) == 4  # one frame, not two
    # The patch shows which frame it is.
    image = cv2.imdecode(np.frombuffer(seen[-1].picture.image.jpeg(), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image[30, 6 * (FRAMES - 1) + 10] > 180 and image[30, 20] < 100


def test_end_without_repeating(make_session):
    session = make_session()
    watch(session, lambda update: index(update) >= 0)
    session.change({"repeat": False})
    seen = watch(session, lambda update: update.settings.paused)
    assert index(seen[-1]) == FRAMES - 1 and not seen[-1].error
    frames = seen[-1].costs[-1].serial + FRAMES
    session.change({"paused": False})
    seen = watch(session, lambda update: update.settings.paused)
    assert index(seen[-1]) == FRAMES - 1 and seen[-1].costs[-1].serial == frames


def test_controller_steers_until_somebody_moves_the_slider(make_session):
    session = make_session(
        MODEL__EVENTFUL__CONTROLLER__NAME="schedule", MODEL__EVENTFUL__CONTROLLER__SCHEDULE="0:9,5:3"
    )
    seen = watch(session, lambda update: index(update) == 6)
    assert {u.picture.budget for u in seen if u.picture} <= {"top-r 9", "top-r 3"}
    assert seen[-1].picture.budget == "top-r 3" and seen[-1].settings.automatic
    assert session.change({"budget": 20}).automatic is False
    watch(session, lambda update: update.picture.budget == "top-r 20")
    session.change({"automatic": True})
    watch(session, lambda update: update.picture.budget == "top-r 3")


def test_other_policies_choose_until_somebody_moves_the_slider(make_session):
    session = make_session(MODEL__EVENTFUL__POLICY="threshold", MODEL__EVENTFUL__THRESHOLD=0.5)
    seen = watch(session, lambda update: index(update) == 3)
    assert seen[-1].picture.budget == "threshold 0.5" and seen[-1].settings.automatic
    session.change({"budget": 20})
    watch(session, lambda update: update.picture.budget == "top-r 20")
    session.change({"automatic": True})
    watch(session, lambda update: update.picture.budget == "threshold 0.5")


class BrokenSource(FileSource):
    """A file that turns out to be damaged at its third frame, the first time."""

    failures = 1

    def frames(self, start: int = 0, every: int = 1):
        for frame in super().frames(start, every):
            if frame.index == 2 and self.failures:
                self.failures -= 1
                raise VideoReadError("video.avi: frame 2 cannot be decoded; the video is damaged")
            yield frame


def test_damaged_file_is_said_and_can_be_tried_again(make_session, video):
    session = make_session(BrokenSource([video]))
    seen = watch(session, lambda update: bool(update.error))
    assert "frame 2 cannot be decoded" in seen[-1].error and seen[-1].settings.paused
    session.change({"paused": False})
    seen = watch(session, lambda update: index(update) == 3)
    assert not seen[-1].error


def test_frames_too_large_for_the_model_are_said(make_session, tmp_path):
    path = str(tmp_path / "large.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 30, (128, 64))
    writer.write(np.zeros((64, 128, 3), np.uint8))
    writer.release()
    seen = watch(make_session(FileSource([path])), lambda update: bool(update.error))
    assert "lower INPUT.MAX_SIZE_TEST" in seen[-1].error


class DroppingConnection:
    """A camera that gives three frames and is gone."""

    fps, live, num_frames, seconds, is_over, pixel_aspect = 30.0, True, None, 0.0, False, 1

    def __init__(self) -> None:
        self.left = 3

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def image(self) -> np.ndarray:
        return np.full((64, 96, 3), 90, np.uint8)

    def close(self) -> None:
        pass


def test_lost_stream_is_said_and_comes_back(make_session, monkeypatch):
    monkeypatch.setattr("eventful_vitdet.video.stream_source.FIRST_WAIT_SECONDS", 0.05)
    session = make_session(StreamSource("camera 0", DroppingConnection))
    told, publish = [], session.broadcast.publish
    session.broadcast.publish = lambda update: (told.append(update), publish(update))  # viewers get the newest only
    watch(session, lambda update: any("back after" in each.notice and each.picture is not None for each in told))
    assert any(each.lost and "lost; trying again" in each.notice for each in told)
    seen = watch(session, lambda update: "started again" in update.notice)
    assert not seen[-1].lost
    assert not seen[-1].limits.seekable and seen[-1].limits.num_frames is None


class FastConnection(DroppingConnection):
    """A camera that gives frames faster than any model takes them."""

    def grab(self) -> bool:
        return True


def test_frames_of_a_camera_that_are_passed_over_are_no_gap(make_session):
    session = make_session(StreamSource("camera 0", FastConnection))
    seen = watch(session, lambda update: index(update) >= 5)
    first, *later = seen[-1].costs
    assert first.kind == "flush" and {cost.kind for cost in later} == {"eventful"}
    assert index(seen[-1]) == seen[-1].costs[-1].serial


def test_frames_are_shown_as_long_as_their_file_says(make_session, tmp_path):
    path = encode(tmp_path / "v.mp4", seconds=[0.0, 0.6, 0.61], tick=Fraction(1, 1000))
    session = make_session(FileSource([str(path)]))
    session.change({"repeat": False})
    watch(session, lambda update: update.settings.paused)
    first, second, _ = session.cameras[0]._times  # those at which they were begun
    assert second - first > 0.4


def test_a_thread_that_waits_for_a_stream_is_not_waited_for(make_session):
    class Silent(DroppingConnection):
        def grab(self) -> bool:
            return asked.set() or answer.wait(30)

    asked, answer = threading.Event(), threading.Event()
    session = make_session(StreamSource("camera 0", Silent))
    with pytest.raises(asyncio.TimeoutError):
        watch(session, lambda update: index(update) == 0, seconds=0.2)
    assert asked.wait(LONG) and session.stop(patience=0.1) is False
    answer.set()


def test_defect_ends_the_session_and_is_kept(make_session, monkeypatch):
    session = make_session()
    ended = threading.Event()
    session.on_failure = ended.set
    monkeypatch.setattr(session, "_show", lambda *args: 1 / 0)
    stay(session, until=ended)
    assert isinstance(session.failure, ZeroDivisionError)
    session.failure = None


def test_slow_viewer_gets_the_newest_item_and_holds_up_nobody():
    async def play() -> tuple[list[int], list[int]]:
        broadcast: Broadcast[int] = Broadcast()
        quick, slow = broadcast.join(), broadcast.join()
        assert broadcast.viewers == 2
        seen, rare = [], []
        for number in range(1, 101):
            broadcast.publish(number)
            seen.append(await quick.next())
            if number % 50 == 0:
                rare.append(await slow.next())
        return seen, rare

    assert asyncio.run(play()) == (list(range(1, 101)), [50, 100])


def test_publishing_to_a_viewer_whose_loop_has_ended():
    broadcast: Broadcast[int] = Broadcast()

    async def come_and_vanish() -> None:
        broadcast.join()

    asyncio.run(come_and_vanish())
    broadcast.publish(1)
    assert broadcast.newest == 1
