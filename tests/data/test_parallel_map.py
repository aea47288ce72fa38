from __future__ import annotations

import os
import signal
import time

import pytest
from eventful_vitdet.data.parallel_map import map_in_processes
from eventful_vitdet.errors import DataError


def square(number: int) -> int:
    time.sleep(0.05 if number == 0 else 0)  # the first is the last to be ready
    return number**2


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number: int) -> int:
    raise ValueError(f"not {number}")


@pytest.mark.parametrize("processes", [1, 3, 99])
def test_results_come_in_order(processes):
    assert list(map_in_processes(square, range(6), processes)) == [0, 1, 4, 9, 16, 25]
    assert list(map_in_processes(square, [], processes)) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_is_that_of_the_caller(processes):
    with pytest.raises(ValueError, match="not 0"):
        list(map_in_processes(refuse, range(4), processes))


def test_a_killed_process_does_not_hang():
    with pytest.raises(DataError, match="was killed"):
        list(map_in_processes(die, range(8), 2))
