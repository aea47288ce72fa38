import pytest
from eventful_vitdet.control_response import StepResponse, format_responses, step_response


def test_settling_and_overshoot():
    falling = [200, 170, 140, 120, 104, 96, 93, 97, 99, 100, 100, 100]
    # Medians of five: 170, 155, 140, 120, 104, 97, 97, ...: within 10 % of 100 from the fourth on.
    reached, settled, overshoot = step_response(falling, 100, before=200)
    assert reached == settled == 4 and overshoot == pytest.approx(0.03)


def test_from_below_overshoot_is_what_lies_above():
    rising = [50, 60, 70, 80, 130, 130, 130, 100, 100, 100, 100]
    assert step_response(rising, 100, before=50) == (7, 7, pytest.approx(0.3))


def test_what_never_settles():
    assert step_response([150.0] * 20, 100, before=200) == (None, None, 0.0)
    assert step_response([100.0] * 20, 100, before=200) == (0, 0, 0.0)


def test_reached_but_left_again():
    assert step_response([200.0] * 5 + [100.0] * 5 + [150.0] * 5 + [100.0] * 5, 100, before=200)[:2] == (5, 15)


def test_flush_frames_only():
    assert step_response([], target=10.0, before=20.0) == (None, None, 0.0)


def test_a_single_slow_frame_does_not_count():
    assert step_response([100.0] * 10 + [300.0] + [100.0] * 10, 100, before=200) == (0, 0, 0.0)


def test_table():
    table = format_responses("latency", [StepResponse(100.0, 7, None, 0.05, 98.76, 127.6)])
    assert "target, ms" in table and "never |" in table and "5.0 %" in table and "128 |" in table
