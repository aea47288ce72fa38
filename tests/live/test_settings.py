from __future__ import annotations

import pytest
from eventful_vitdet.controllers import Bounds
from eventful_vitdet.live.settings import Limits, RequestError, Settings, change_settings, check_seek

LIMITS = Limits(tokens=320, num_frames=40, seekable=True, has_automatic=True)


def test_changes():
    settings = Settings(budget=64, automatic=True)
    assert change_settings(settings, {"paused": True}, LIMITS) == Settings(64, automatic=True, paused=True)
    # Who moves the slider takes over from the controller.
    assert change_settings(settings, {"budget": 320}, LIMITS) == Settings(320)
    assert change_settings(settings, {"budget": 0, "eventful": False}, LIMITS) == Settings(0, eventful=False)
    assert change_settings(settings, {}, LIMITS) == settings
    # Only one of the three chooses the budget: the slider, a target, the configuration.
    aiming = change_settings(settings, {"target_ms": 50}, LIMITS)
    assert aiming == Settings(64, target_ms=50.0)
    assert change_settings(aiming, {"budget": 32}, LIMITS) == Settings(32)
    assert change_settings(aiming, {"target_ms": None}, LIMITS) == Settings(64)
    assert change_settings(aiming, {"automatic": True}, LIMITS) == settings


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"budget": 321}, r"budget is a number from 0 to 320 \(the tokens of a frame\), found 321"),
        ({"budget": -1}, "from 0 to 320 .* found -1"),
        ({"budget": 64.0}, "budget is a whole number, found 64.0"),
        ({"budget": "64"}, "budget is a whole number, found '64'"),
        ({"budget": True}, "budget is a whole number, found True"),
        ({"budget": None}, "found None"),
        ({"budget": float("nan")}, "found nan"),
        ({"budget": 10**5000}, r"found a number of \d+ bits"),
        ({"eventful": 1}, "eventful is true or false, found 1"),
        ({"paused": "no"}, "paused is true or false"),
        ({"file": "/etc/passwd"}, "'file' is unknown; known are budget, target_ms, eventful"),
        ({"target_ms": 0.5}, "target_ms is a number from 1 to 60000, or null, found 0.5"),
        ({"target_ms": float("nan")}, "target_ms is a number from 1 to 60000, or null, found nan"),
        ({"target_ms": True}, "found True"),
        ({"target_ms": "50"}, "found '50'"),
        ({"x" * 5000: 1}, "is unknown"),
        ([1], r"expected a JSON object, found \[1\]"),
        (None, "expected a JSON object, found None"),
    ],
)
def test_refused_changes(asked, reason):
    with pytest.raises(RequestError, match=reason) as refusal:
        change_settings(Settings(64), asked, LIMITS)
    assert len(str(refusal.value)) < 200


def test_the_bounds_of_the_configuration_hold_for_viewers():
    limits = Limits(320, Bounds(16, 128))
    assert (limits.smallest_budget, limits.largest_budget, limits.clamp(500), limits.clamp(3)) == (16, 128, 128, 16)
    assert change_settings(Settings(64), {"budget": 16}, limits) == Settings(16)
    for budget in (15, 129):
        with pytest.raises(RequestError, match=r"from 16 to 128 \(MODEL.EVENTFUL.CONTROLLER.R_MIN and R_MAX\)"):
            change_settings(Settings(64), {"budget": budget}, limits)
    few = Limits(36, Bounds(64))  # frames with fewer tokens than the smallest budget
    assert (few.smallest_budget, few.largest_budget) == (36, 36)


def test_what_is_not_there_cannot_be_changed():
    with pytest.raises(RequestError, match="nothing but top-r was configured"):
        change_settings(Settings(64), {"automatic": True}, Limits(tokens=320))
    with pytest.raises(RequestError, match="once the first frame has been seen"):
        change_settings(Settings(64), {"budget": 3}, Limits())


def test_seeking():
    assert check_seek({"frame": 39}, LIMITS) == 39
    assert check_seek({"frame": 10**6}, Limits(seekable=True)) == 10**6  # files that do not know their length
    for asked, reason in (
        ({"frame": 40}, "from 0 to 39"),
        ({"frame": 1.5}, "whole number"),
        ({}, "needs a frame"),
        ({"path": "x"}, "unknown"),
    ):
        with pytest.raises(RequestError, match=reason):
            check_seek(asked, LIMITS)
    with pytest.raises(RequestError, match="stream or a camera"):
        check_seek({"frame": 0}, Limits())
