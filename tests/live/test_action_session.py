"""The live page's thread with a model that recognises actions."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from eventful_vitdet.cli.live_command import make_session
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.live.action_session import ActionSession
from eventful_vitdet.live.messages import encode
from eventful_vitdet.live.settings import RequestError
from eventful_vitdet.video import FileSource

from .conftest import LONG, Bell, watch

TOKENS = 65


@pytest.fixture
def new_session(repository, tmp_path) -> ActionSession:
    """A session that has not been started."""
    path = str(tmp_path / "actions.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 1000, (96, 64))
    for frame in range(30):
        image = np.full((64, 96, 3), 60, np.uint8)
        image[20:40, 2 * frame : 2 * frame + 20] = 220
        writer.write(image)
    writer.release()
    weights = str(repository / "weights" / "synthetic_actions_vivit_tiny.safetensors")
    pairs = ["MODEL.WEIGHTS", weights, "MODEL.VIVIT.FPS", 0.0, "MODEL.EVENTFUL.CONTROLLER.SCENE_CUT", 0.0]
    session = make_session(build_cfg("synthetic_actions/vivit_tiny", pairs), [FileSource([path])])
    assert isinstance(session, ActionSession)
    return session


@pytest.fixture
def session(new_session):
    session = new_session
    session._changed = Bell()
    session.start()
    yield session
    assert session.stop(patience=LONG) and session.failure is None


def has_classes(update) -> bool:
    return update.picture is not None and all(head["classes"] for head in update.picture.actions)


def test_classes_are_shown_with_the_costs_of_steps(session):
    session.change({"repeat": False})
    seen = watch(session, lambda update: update.settings.paused)
    assert has_classes(seen[-1]) and seen[-1].limits.tokens == TOKENS and seen[-1].picture.budget == "top-r 16"
    assert seen[-1].picture.height > seen[-1].picture.width * 64 / 96  # with the strip
    heads = {head["head"]: head["classes"] for head in seen[-1].picture.actions}
    assert list(heads) == ["verb", "noun"] and heads["verb"][0]["score"] >= heads["verb"][1]["score"]
    first, *later = seen[-1].costs
    assert first.kind == "flush" and all(cost.kind == "eventful" and cost.gflops < first.gflops for cost in later)
    assert len(seen[-1].costs) < seen[-1].picture.index  # a step has several frames
    message = encode(seen[-1], None, 1, session.first_look())
    state = json.loads(message[4 : 4 + int.from_bytes(message[:4], "big")])
    assert state["picture"]["actions"][0]["head"] == "verb" and state["picture"]["detections"] == []


def test_budget_dense_and_what_is_refused(session):
    watch(session, has_classes)
    session.change({"budget": 4})
    seen = watch(session, lambda update: update.picture.budget == "top-r 4")
    small = seen[-1].costs[-1].gflops
    session.change({"eventful": False})
    seen = watch(session, lambda update: update.picture.budget == "dense")
    assert seen[-1].costs[-1].kind == "dense" and seen[-1].costs[-1].gflops > small
    with pytest.raises(RequestError, match="a model of actions is shown by itself"):
        session.change({"beside": True})


def test_a_jump_begins_a_window(session):
    watch(session, has_classes)
    session.change({"paused": True})
    session.seek({"frame": 3})
    seen = watch(session, lambda update: update.picture.index == 3)
    assert not any(head["classes"] for head in seen[-1].picture.actions)
