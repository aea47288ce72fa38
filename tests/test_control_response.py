import pytest
from eventful_vitdet.control_response import StepResponse, format_responses, step_response


def test_settling_and_overshoot():
    falling = [200, 170, 140, 120, 104, 96, 93, 97, 99, 100, 100, 100]
    # Medians of five: ... 104 (frame 5), 97, 97, ... ; they stay within 10 % of 100 from frame 5 on.
    settled, overshoot = step_response(falling, 100, before=200)
    assert settled == 5 and overshoot == pytest.approx(0.03)


def test_from_below_overshoot_is_what_lies_above():
    rising = [50, 60, 70, 80, 130, 130, 130, 100, 100, 100, 100]
    assert step_response(rising, 100, before=50) == (7, pytest.approx(0.3))


def test_what_never_settles():
    assert step_response([150.0] * 20, 100, before=200) == (None, 0.0)
    assert step_response([100.0] * 20, 100, before=200) == (0, 0.0)


def test_a_single_slow_frame_does_not_count():
    assert step_response([100.0] * 10 + [300.0] + [100.0] * 10, 100, before=200) == (0, 0.0)


def test_table():
    table = format_responses("latency", [StepResponse(100.0, None, 0.05, 98.76, 127.6)])
    assert "target, ms" in table and "| never" in table and "5.0 %" in table and "128 |" in table
