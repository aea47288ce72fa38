"""A session with a tiny detector and a short video."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

for package in ("fastapi", "uvicorn", "websockets"):
    pytest.importorskip(package, reason=f"{package}, of the extra 'live', is not installed")

from eventful_vitdet.live.detector_session import DetectorSession, GridSession  # noqa: E402
from eventful_vitdet.live.server import LiveServer, open_socket  # noqa: E402
from eventful_vitdet.live.session import LiveSession  # noqa: E402
from eventful_vitdet.live.updates import GridUpdate, Update  # noqa: E402
from eventful_vitdet.video import FileSource  # noqa: E402

FRAMES = 12
TOKENS = 36
LONG = 60.0
"""Seconds within which something happens, however busy the machine is."""


@pytest.fixture
def video(tmp_path) -> str:
    """Twelve frames of 96 x 64 pixels with a moving patch, a thousand per second, so that no test waits for them."""
    path = str(tmp_path / "video.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 1000, (96, 64))
    for frame in range(FRAMES):
        image = np.full((64, 96, 3), 60, np.uint8)
        image[20:40, 6 * frame : 6 * frame + 20] = 220
        writer.write(image)
    writer.release()
    return path


@pytest.fixture
def make_session(tiny_cfg, tiny_model, video):
    """Sessions that have been started; stopped after the test."""
    sessions = []

    def make(*sources, start: bool = True, **overrides) -> LiveSession:
        sources = sources or [FileSource([video])]
        kind = DetectorSession if len(sources) == 1 else GridSession
        session = kind(tiny_cfg(**overrides), tiny_model(**overrides), sources, ["a", "b"])
        session._changed = Bell()
        if start:
            sessions.append(session)
            session.start()
        return session

    yield make
    for session in sessions:
        assert session.stop(patience=LONG)
        assert session.failure is None


class Bell(threading.Condition):
    """A condition that tells when the session's thread waits for somebody to ask for something."""

    def __init__(self) -> None:
        super().__init__()
        self.at_rest = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is None:
            self.at_rest.set()
        try:
            return super().wait(timeout)
        finally:
            self.at_rest.clear()


def rest(session: LiveSession) -> None:
    """Wait until a session has nothing to do. Until something is asked of it, it then does nothing."""
    assert session._changed.at_rest.wait(LONG)


@contextmanager
def serving(session: LiveSession) -> Iterator[str]:
    """Serve a session that has not been started; yields "address:port"."""
    bound = open_socket("127.0.0.1", 0)
    server = LiveServer(session, ["detector.local"])
    thread = threading.Thread(target=server.serve_session, args=(bound,), daemon=True)
    host, port = bound.getsockname()
    thread.start()
    try:
        yield f"{host}:{port}"
    finally:
        server.end()
        thread.join(LONG)
    assert not thread.is_alive() and session.failure is None


def watch(session: LiveSession, until: Callable[[Update | GridUpdate], bool], seconds: float = LONG) -> list:
    """Be a viewer until an update is as wanted; returns all updates that were seen."""

    async def look() -> list:
        viewer = session.broadcast.join()
        seen = []
        try:
            while not (seen and until(seen[-1])):
                seen.append(await viewer.next())
        finally:
            session.broadcast.leave(viewer)
        return seen

    return asyncio.run(asyncio.wait_for(look(), seconds))
