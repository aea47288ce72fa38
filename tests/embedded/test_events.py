"""Metrics: storage, smoothing and writers."""

import json
import logging

import pytest
from detectron2.utils.events import CommonMetricPrinter, EventStorage, JSONWriter, get_event_storage


def test_the_innermost_storage_is_found():
    with EventStorage() as outer:
        assert get_event_storage() is outer
        with EventStorage(5) as inner:
            assert get_event_storage() is inner and inner.iter == 5
        assert get_event_storage() is outer
    with pytest.raises(AssertionError, match="EventStorage"):
        get_event_storage()


def test_a_storage_is_closed_by_an_exception():
    with pytest.raises(RuntimeError), EventStorage():
        raise RuntimeError
    with pytest.raises(AssertionError):
        get_event_storage()


def test_scalars_and_their_smoothing():
    with EventStorage() as storage:
        for storage.iter, value in enumerate([5.0, 1.0, 4.0, 100.0]):
            storage.put_scalar("noisy", value)
            storage.put_scalar("exact", 2 * value, smoothing_hint=False)
        assert storage.latest() == {"noisy": (100.0, 3), "exact": (200.0, 3)}
        # the median of 5, 1, 4, 100, and of 4, 100
        assert storage.latest_with_smoothing_hint(20) == {"noisy": (4.5, 3), "exact": (200.0, 3)}
        assert storage.latest_with_smoothing_hint(2)["noisy"] == (52.0, 3)


def test_smoothing_counts_iterations_not_values():
    with EventStorage() as storage:
        for storage.iter, value in [(0, 1.0), (10, 3.0), (20, 8.0)]:
            storage.put_scalar("rare", value)
        # Within 11 iterations of the newest lie those of 20 and 10.
        assert storage.latest_with_smoothing_hint(11)["rare"] == (5.5, 20)


def test_json_writer_writes_each_value_once(tmp_path):
    path = tmp_path / "metrics.json"
    with EventStorage() as storage:
        writer = JSONWriter(str(path))
        storage.put_scalar("loss", 2.0)
        writer.write()
        writer.write()
        storage.iter = 1
        storage.put_scalar("AP", 50.0, smoothing_hint=False)
        writer.write()
        writer.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"iteration": 0, "loss": 2.0}, {"iteration": 1, "AP": 50.0}]


def test_json_writer_appends(tmp_path):
    path = tmp_path / "metrics.json"
    for start in (0, 1):
        with EventStorage(start) as storage:
            writer = JSONWriter(str(path))
            storage.put_scalar("loss", start + 0.5)
            writer.write()
            writer.close()
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [0.5, 1.5]


class _Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def test_printer_shows_losses_rate_and_time_left():
    handler = _Lines()
    logger = logging.getLogger("detectron2.utils.events")
    logger.addHandler(handler)
    old_level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with EventStorage() as storage:
            printer = CommonMetricPrinter(max_iter=110)
            storage.iter = 9
            storage.put_scalars(loss_cls=0.25, total_loss=0.5, time=2.0)
            storage.put_scalar("lr", 0.001, smoothing_hint=False)
            storage.put_scalar("accuracy", 0.9)
            printer.write()
            storage.iter = 110
            printer.write()  # after the last iteration: nothing to say
    finally:
        logger.removeHandler(handler)
        logger.setLevel(old_level)
    (line,) = handler.lines
    # 100 iterations of 2 seconds are left
    for part in ("eta: 0:03:20", "iter: 9", "loss_cls: 0.25", "total_loss: 0.5", "lr: 0.001", "time: 2.0000"):
        assert part in line
    assert "accuracy" not in line
