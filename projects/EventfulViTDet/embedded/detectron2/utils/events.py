"""Training metrics: a storage that code anywhere can write to, and writers that take it to log and disk."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from fvcore.common.history_buffer import HistoryBuffer

# Iterations that shown values are taken from.
_WINDOW = 20

# The storages opened with `with`, innermost last: how a loss deep inside a model finds its trainer's storage.
_OPEN_STORAGES: list[EventStorage] = []


def get_event_storage() -> EventStorage:
    """The innermost open storage. Raises AssertionError outside of every ``with EventStorage(...)``."""
    if not _OPEN_STORAGES:
        raise AssertionError("get_event_storage() must be called inside 'with EventStorage(...)'")
    return _OPEN_STORAGES[-1]


class EventStorage:
    """Scalars by name, each with its history and the iteration it belongs to."""

    def __init__(self, start_iter: int = 0) -> None:
        self.iter = start_iter
        self._histories: dict[str, HistoryBuffer] = {}
        self._latest: dict[str, tuple[float, int]] = {}
        self._smooth: dict[str, bool] = {}
        self._prefix = ""

    def put_scalar(self, name: str, value: float, smoothing_hint: bool = True) -> None:
        """Record ``value`` (anything ``float()`` takes) at the current iteration.

        ``smoothing_hint`` tells writers to show a median of recent values; the first call fixes it.
        """
        name = self._prefix + name
        self._smooth.setdefault(name, smoothing_hint)
        self._histories.setdefault(name, HistoryBuffer()).update(float(value), self.iter)
        self._latest[name] = (float(value), self.iter)

    def put_scalars(self, **values: float) -> None:
        """`put_scalar` for every keyword."""
        for name, value in values.items():
            self.put_scalar(name, value)

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Within the context, names begin with ``name`` and a slash."""
        before, self._prefix = self._prefix, name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._prefix = before

    def histories(self) -> dict[str, HistoryBuffer]:
        """All values of all scalars."""
        return self._histories

    def latest(self) -> dict[str, tuple[float, int]]:
        """The last (value, iteration) of every scalar."""
        return self._latest

    def latest_with_smoothing_hint(self, window_size: int) -> dict[str, tuple[float, int]]:
        """Like `latest`, with the median over the last ``window_size`` iterations where that is wanted."""
        return {
            name: (self.median(name, window_size) if self._smooth[name] else value, iteration)
            for name, (value, iteration) in self._latest.items()
        }

    def median(self, name: str, window_size: int) -> float:
        """Median over those of a scalar's values that lie within ``window_size`` iterations of its newest."""
        recent = self._histories[name].values()[-window_size:]
        count = sum(iteration > recent[-1][1] - window_size for _, iteration in recent)
        return float(self._histories[name].median(count))

    def __enter__(self) -> EventStorage:
        _OPEN_STORAGES.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        _OPEN_STORAGES.remove(self)


class EventWriter:
    """Takes what is in the open storage somewhere else."""

    def __init__(self) -> None:
        self._last_write = -1

    def write(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Release files."""

    def _new_scalars(self) -> Iterator[tuple[int, str, float]]:
        """(iteration, name, value) of what was recorded after the last call, by iteration."""
        latest = get_event_storage().latest_with_smoothing_hint(_WINDOW)
        found = sorted((i, name, value) for name, (value, i) in latest.items() if i > self._last_write)
        self._last_write = found[-1][0] if found else self._last_write
        return iter(found)


class JSONWriter(EventWriter):
    """Appends new scalars to a file, one JSON object per line and iteration."""

    def __init__(self, json_file: str) -> None:
        super().__init__()
        self._file = open(json_file, "a")

    def write(self) -> None:
        rows: dict[int, dict[str, float]] = {}
        for iteration, name, value in self._new_scalars():
            rows.setdefault(iteration, {"iteration": iteration})[name] = value
        self._file.writelines(json.dumps(row, sort_keys=True) + "\n" for row in rows.values())
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorboardXWriter(EventWriter):
    """Writes new scalars for TensorBoard."""

    def __init__(self, log_dir: str) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second, and only training needs it

        super().__init__()
        self._writer = SummaryWriter(log_dir=log_dir)

    def write(self) -> None:
        for iteration, name, value in self._new_scalars():
            self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Logs one line: time left, iteration, losses, seconds per iteration, learning rate, GPU memory."""

    def __init__(self, max_iter: int) -> None:
        super().__init__()
        self._max_iter = max_iter

    def write(self) -> None:
        storage = get_event_storage()
        if storage.iter >= self._max_iter:
            return  # training is over; evaluation results are not this writer's business
        recorded = storage.histories()
        parts = [f"iter: {storage.iter}"]
        if "time" in recorded:
            seconds = recorded["time"].median(1000) * (self._max_iter - storage.iter - 1)
            parts.insert(0, f"eta: {datetime.timedelta(seconds=int(seconds))}")
        losses = [name for name in recorded if "loss" in name]
        parts += [f"{name}: {storage.median(name, _WINDOW):.4g}" for name in losses]
        for name in ("time", "data_time"):
            if name in recorded:
                parts.append(f"{name}: {recorded[name].avg(_WINDOW):.4f}")
        if "lr" in recorded:
            parts.append(f"lr: {recorded['lr'].latest():.5g}")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        logging.getLogger(__name__).info("  ".join(parts))
